//! The promises of the window, held against random histories: answers that are late or lost, kills,
//! hand-overs, tenants that come and go. Redis, the queues and the store are a model here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::item::tenant::{PLATFORM, Tenant};

const LIMITS: Limits = Limits {
    bytes: 6,
    bytes_per_read: 4,
    entries: 5,
    items: 8,
    running_of_entry: 2,
    parked: 6,
    kept: 2,
    ticks_to_park: 2,
    returning: 2,
    unrecorded: 4,
    silent_ticks: 2,
    worth_a_record: 2,
    entries_per_record: 3,
    ticks_to_retry: 2,
};

/// Who published what nobody knows to be published.
const NOBODY: usize = 0;
/// An account that no tenant has.
const NOBODYS: &str = "a3";

/// An entry as it lies in the stream.
#[derive(Debug, Clone)]
struct Stored {
    account: String,
    /// The lane keys of each item.
    items: Vec<Vec<LaneKey>>,
    bytes: usize,
    archive: bool,
    only_for: Option<String>,
    has_no_account: bool,
}

/// What all tenures share: Redis' partition, the queues, the failed store and the archive.
#[derive(Debug, Default)]
struct World {
    stream: BTreeMap<EntryId, Stored>,
    delivered: Id0,
    pending: BTreeSet<EntryId>,
    progress: HashMap<EntryId, Vec<usize>>,
    notes: HashMap<String, String>,
    owner: usize,
    /// All entries that ever were, for the checks.
    all: BTreeMap<EntryId, Stored>,
    /// Each item's first end, in order.
    ended: Vec<(EntryId, usize)>,
    set_aside: HashSet<(EntryId, usize)>,
    /// The tenant that an entry's first event was for.
    out_for: HashMap<EntryId, String>,
    passes: usize,
    /// And the tenure that published it last, if it knows that.
    published: HashMap<(EntryId, usize), usize>,
    archived: HashSet<EntryId>,
    /// Entries whose bytes somebody else has deleted.
    gone: HashSet<EntryId>,
    acknowledged: BTreeSet<EntryId>,
    tenants: HashMap<String, Verdict>,
    /// Entries that Redis refuses to record.
    refused: BTreeSet<EntryId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id0(EntryId);

impl Default for Id0 {
    fn default() -> Self {
        Self(EntryId::ZERO)
    }
}

/// Something that a tenure asked for and that has not been answered.
#[derive(Debug)]
enum UnderWay {
    Read(Next, usize),
    Sleep,
    Open(EntryNumber, ReadEntry<EntryId>),
    Fetch(String, Vec<EntryId>),
    Load(EntryNumber),
    Resolve(String),
    NoteTenant(String, TenantNote),
    Prepare(ItemId),
    Publish(ItemId),
    Archive(EntryNumber),
    Record(Vec<EntryNumber>, Vec<(EntryNumber, Vec<usize>)>),
    /// A read has taken effect, and its answer is on another way than that of what follows.
    Answer(ReadEnd<EntryId>),
}

/// One worker's time of owning the partition.
struct Tenure {
    token: usize,
    window: Window<EntryId>,
    flights: Vec<UnderWay>,
    /// Reads whose answer is lost and that Redis may still run.
    late: Vec<(Next, usize)>,
    entries: HashMap<EntryNumber, EntryId>,
    /// Entries whose body is kept.
    bodies: HashSet<EntryNumber>,
    /// Whose an entry is, once it has begun.
    begun: HashMap<EntryNumber, Verdict>,
    /// Items that are prepared or published.
    running: HashSet<ItemId>,
    /// Entries that Redis has refused to record.
    refused: HashSet<EntryId>,
    /// Ticks since Redis last answered a read or a record, and whether one failed since.
    silent_ticks: usize,
    redis_failed: bool,
    draining: bool,
    over: bool,
}

fn lane_free(world: &World, id: EntryId, n: usize) -> bool {
    let keys = &world.all[&id].items[n];
    let ended: HashSet<_> = world.ended.iter().copied().collect();
    world.all.range(..=id).all(|(earlier, stored)| {
        stored.items.iter().enumerate().all(|(m, other)| {
            (*earlier, m) >= (id, n)
                || world.gone.contains(earlier)
                || !other.iter().any(|key| keys.contains(key))
                || ended.contains(&(*earlier, m))
        })
    })
}

impl World {
    fn arrive(&self, id: EntryId) -> ReadEntry<EntryId> {
        // Of what is gone nobody can tell the account.
        let account = Some(self.all[&id].account.clone());
        let account = account.filter(|_| !self.gone.contains(&id));
        let known = |account: &String| self.tenants.contains_key(account);
        ReadEntry {
            id,
            known: account.as_ref().is_some_and(known),
            account,
            bytes: self.all[&id].bytes,
            body: id,
        }
    }

    /// One, and as many more as aren't too much together.
    fn first(&self, ids: impl Iterator<Item = EntryId>, most: usize) -> Vec<EntryId> {
        let mut bytes = 0;
        ids.take_while(|id| {
            let is_first = bytes == 0;
            bytes += self.all[id].bytes;
            is_first || bytes <= most
        })
        .collect()
    }

    /// The fenced read; `None`: the lease is another's.
    fn read(&mut self, token: usize, next: Next, most: usize) -> Option<ReadEnd<EntryId>> {
        if self.owner != token {
            return None;
        }
        let ids: Vec<EntryId> = match next {
            Next::Pending(after) => {
                let pending = self.pending.iter().copied();
                self.first(pending.filter(|id| *id > after), most)
            }
            Next::New(expected) if expected != self.delivered.0 => return Some(ReadEnd::Moved),
            Next::New(_) => {
                let last = self.delivered.0;
                let new = self.stream.keys().copied().filter(|id| *id > last);
                let new = self.first(new, most);
                self.pending.extend(&new);
                self.delivered.0 = new.last().copied().unwrap_or(self.delivered.0);
                new
            }
        };
        Some(ReadEnd::Entries {
            entries: ids.into_iter().map(|id| self.arrive(id)).collect(),
            delivered: self.delivered.0,
            pending: self.pending.len(),
        })
    }

    /// An item's event lies in its queue, or it goes to the failed store.
    fn end(&mut self, id: EntryId, n: usize) {
        if !self.ended.contains(&(id, n)) {
            assert!(lane_free(self, id, n), "out of order: {id} {n}");
            self.ended.push((id, n));
        }
    }

    fn record(
        &mut self,
        token: usize,
        finished: &[EntryId],
        progress: &[(EntryId, Vec<usize>)],
    ) -> bool {
        if self.owner != token {
            return false;
        }
        for id in finished {
            if !self.pending.remove(id) {
                continue;
            }
            if !self.gone.contains(id) {
                self.is_over(token, *id);
            }
            self.stream.remove(id);
            self.progress.remove(id);
            assert!(self.acknowledged.insert(*id), "twice: {id}");
        }
        for (id, items) in progress {
            if self.pending.contains(id) {
                self.progress.insert(*id, items.clone());
            }
        }
        true
    }

    /// All of the entry has ended, and its body is in the archive if something of it is known to be out.
    fn is_over(&self, token: usize, id: EntryId) {
        let stored = &self.all[&id];
        let mut items = 0..stored.items.len();
        assert!(items.all(|n| self.ended.contains(&(id, n))), "open: {id}");
        let by = |n| self.published.get(&(id, n)) == Some(&token);
        let out = (0..stored.items.len()).any(by) || self.progress.contains_key(&id);
        let needed = stored.archive && (out || stored.items.is_empty());
        assert!(!needed || self.archived.contains(&id), "not archived: {id}");
    }

    /// What could be done and isn't.
    fn held_up(&self) -> Vec<EntryId> {
        let known = |id: &EntryId| self.tenants.contains_key(&self.all[id].account);
        let held_up = self.pending.iter().copied();
        let held_up = held_up.filter(|id| !self.refused.contains(id));
        held_up.filter(known).collect()
    }

    fn suspend(&mut self, account: usize, is: bool) {
        let name = format!("a{account}");
        if let Some(known) = self.tenants.get_mut(&name) {
            *known = match known.clone() {
                Verdict::Active(tenant) if is => Verdict::Suspended(tenant),
                Verdict::Suspended(tenant) if !is && account != 2 => Verdict::Active(tenant),
                as_before => as_before,
            };
        }
    }

    /// As many former tenants as are remembered of an account can't have been then.
    fn pass(&mut self, account: usize) {
        let known = self.tenants.get_mut(&format!("a{account}"));
        if let Some(known) = known
            && self.passes < 6
        {
            self.passes += 1;
            let id = known.tenant_id().unwrap_or_default();
            *known = active(match id.strip_suffix('b') {
                Some(former) => former.to_owned(),
                None => format!("{id}b"),
            });
        }
    }

    fn delete(&mut self, n: usize) {
        let pending = self.pending.len().max(1);
        let id = self.pending.iter().nth(n % pending).copied();
        // A few are enough, and the others' order is what matters.
        if self.gone.len() < 4 {
            self.gone.extend(id);
        }
    }

    fn forget(&mut self, n: usize) {
        let acknowledged = self.acknowledged.len().max(1);
        if let Some(id) = self.acknowledged.iter().nth(n % acknowledged).copied() {
            self.acknowledged.remove(&id);
            self.stream.insert(id, self.all[&id].clone());
            self.pending.insert(id);
            let published = self.published.iter_mut();
            let published = published.filter(|((of, _), _)| *of == id);
            published.for_each(|(_, by)| *by = NOBODY);
        }
    }

    /// Publications that Redis doesn't know of, by the tenures that made them.
    fn unrecorded(&self) -> Vec<(EntryId, usize)> {
        let of =
            |id: &EntryId, n: &usize| self.progress.get(id).is_some_and(|done| done.contains(n));
        let published = self.published.iter();
        let unrecorded =
            published.filter(|((id, n), _)| !self.acknowledged.contains(id) && !of(id, n));
        unrecorded.map(|((id, _), token)| (*id, *token)).collect()
    }
}

impl Tenure {
    fn new(world: &mut World) -> Self {
        world.owner += 1;
        let given = Given::read(world.notes.clone());
        Self {
            token: world.owner,
            window: Window::new(LIMITS, Parked::new(Arc::default()), given),
            flights: Vec::new(),
            late: Vec::new(),
            entries: HashMap::new(),
            bodies: HashSet::new(),
            begun: HashMap::new(),
            running: HashSet::new(),
            refused: HashSet::new(),
            silent_ticks: 0,
            redis_failed: false,
            draining: false,
            over: false,
        }
    }

    /// Does what the window wants, as far as nobody else is needed for it.
    fn run(&mut self, world: &mut World) {
        while let Some(command) = self.window.poll() {
            self.check(world, &command);
            let flight = match command {
                Command::Read { next, bytes } => UnderWay::Read(next, bytes),
                Command::Sleep(_) => UnderWay::Sleep,
                Command::Open(number, arrived) if number % 3 == 0 => {
                    self.open(world, number, &arrived);
                    continue;
                }
                Command::Open(number, arrived) => UnderWay::Open(number, arrived),
                Command::Fetch { account, ids, .. } => UnderWay::Fetch(account, ids),
                Command::Load(number) => UnderWay::Load(number),
                Command::Resolve(account, _) => UnderWay::Resolve(account),
                Command::NoteTenant(account, note) => UnderWay::NoteTenant(account, note),
                Command::Prepare(item) => UnderWay::Prepare(item),
                Command::Publish(items) => {
                    self.flights
                        .extend(items.into_iter().map(UnderWay::Publish));
                    continue;
                }
                Command::SetAside((number, n), _) => {
                    let id = self.entries[&number];
                    // It lies in the failed store once it is recorded, and is before whatever follows.
                    world.set_aside.insert((id, n));
                    world.end(id, n);
                    continue;
                }
                Command::Archive(number) => UnderWay::Archive(number),
                Command::Record { finished, progress } => {
                    let finished = finished.into_iter().map(|(number, _)| number);
                    UnderWay::Record(finished.collect(), progress)
                }
                Command::End => {
                    self.leaves_nothing_to_repeat(world);
                    self.over = true;
                    continue;
                }
                Command::Begin(..) | Command::Forget(_) => continue,
            };
            self.flights.push(flight);
        }
        self.adds_up(world);
        let window = &self.window;
        let returning: usize = window.returning.iter().map(|entry| entry.bytes).sum();
        assert!(window.kept <= LIMITS.kept + returning, "too much is kept");
        let mine = |(_, token): &&(EntryId, usize)| *token == self.token;
        let unrecorded = world.unrecorded();
        let unrecorded = unrecorded.iter().filter(mine).count();
        assert!(unrecorded <= LIMITS.unrecorded, "too many unrecorded");
    }

    /// Nothing is asked for that can't be done, or must not be done yet.
    fn check(&mut self, world: &World, command: &Command<EntryId>) {
        let begins_nothing = match command {
            Command::Record { finished, .. } => finished.len() <= LIMITS.entries_per_record,
            Command::End | Command::Forget(_) => true,
            Command::Resolve(..) | Command::NoteTenant(..) => true,
            _ => !self.draining,
        };
        assert!(begins_nothing, "handed over, or too much: {command:?}");
        match command {
            Command::Read { bytes, .. } => {
                self.has_room(*bytes);
                assert!(self.window.parked.len() < LIMITS.parked, "too many wait");
                assert!(self.window.untaken.is_empty(), "what was read goes first");
            }
            Command::Fetch { ids, bytes, .. } => {
                self.has_room(*bytes);
                assert!(ids.len() <= LIMITS.returning && self.window.returning.is_empty());
            }
            Command::Begin(number, verdict) => {
                self.has_body(*number);
                let given = self.begun.insert(*number, verdict.clone());
                assert!(given.is_none(), "begun twice: {number}");
                self.is_given_its_tenant(world, *number);
            }
            Command::Forget(number) => {
                assert!(self.bodies.remove(number), "not there: {number}");
                assert!(self.running_of(*number) == 0, "still needed: {number}");
            }
            Command::Load(number) => assert!(!self.bodies.contains(number), "there: {number}"),
            Command::Record { finished, progress } => self.is_so(world, finished, progress),
            Command::Prepare(item) => {
                assert!(self.running.insert(*item), "started twice: {item:?}");
                assert!(self.running_of(item.0) <= LIMITS.running_of_entry);
                self.goes_out(world, item.0, None);
            }
            Command::Publish(items) => {
                let mut items = items.iter();
                assert!(
                    items.all(|item| self.running.contains(item)),
                    "not prepared"
                );
                let is_silent = self.redis_failed || self.silent_ticks >= LIMITS.silent_ticks;
                assert!(!is_silent, "Redis may be away");
            }
            Command::SetAside((number, _), reason) => self.goes_out(world, *number, Some(*reason)),
            Command::Archive(number) => {
                self.has_body(*number);
                assert!(world.all[&self.entries[number]].archive, "archived already");
            }
            _ => {}
        }
    }

    /// What is told to be out is, in the order in which it is written, and of each entry once.
    fn is_so(
        &self,
        world: &World,
        finished: &[(EntryNumber, Vec<usize>)],
        progress: &[(EntryNumber, Vec<usize>)],
    ) {
        let mut told = HashSet::new();
        for (number, items) in finished.iter().chain(progress) {
            let id = self.entries[number];
            assert!(told.insert(number), "told twice: {id}");
            let mut items = items.iter();
            assert!(
                items.all(|n| world.published.contains_key(&(id, *n))),
                "not out: {id}"
            );
        }
        assert!(progress.iter().all(|(_, items)| items.is_sorted()));
    }

    /// Each publication has its turn until Redis knows of it, and not longer.
    fn adds_up(&self, world: &World) {
        let window = &self.window;
        let unrecorded: usize = window.entries.values().map(Entry::unrecorded).sum();
        assert_eq!(window.turns.taken(), window.publishing + unrecorded);
        let records = |it: &UnderWay| matches!(it, UnderWay::Record(..));
        let unnoted = self.unrecorded(world).len();
        // What Redis refused waits for a tick, also where it would take it by now.
        let noted = self.over || window.progress_refused || self.flights.iter().any(records);
        assert!(noted || unnoted < LIMITS.worth_a_record, "not recorded");
    }

    fn has_room(&self, bytes: usize) {
        let window = &self.window;
        assert!((1..=LIMITS.bytes_per_read).contains(&bytes));
        let entries = window.entries.values();
        let left = |entry: &Entry| match &entry.phase {
            Phase::Open(open) => open.left.len(),
            Phase::Archiving | Phase::Finished => 0,
        };
        // One may have been opened since that was wanted, of three items at most.
        assert!(entries.clone().map(left).sum::<usize>() < LIMITS.items + 3);
        assert!(entries.len() <= LIMITS.entries);
        assert!(window.to_load.is_empty(), "what is known goes first");
    }

    fn has_body(&self, number: EntryNumber) {
        assert!(self.bodies.contains(&number), "nothing to read: {number}");
    }

    fn running_of(&self, number: EntryNumber) -> usize {
        let of = |item: &&ItemId| item.0 == number;
        self.running.iter().filter(of).count()
    }

    /// And whoever takes over will give it the same one.
    fn is_given_its_tenant(&self, world: &World, number: EntryNumber) {
        let stored = &world.all[&self.entries[&number]];
        let tenant_id = self.begun[&number].tenant_id();
        if stored.account == NOBODYS {
            let platform = stored.has_no_account.then_some(PLATFORM);
            return assert_eq!(tenant_id, platform);
        }
        let tenant_id = tenant_id.expect("its account has a tenant");
        assert_eq!(tenant_id.chars().nth(1), stored.account.chars().nth(1));
        if matches!(self.begun[&number], Verdict::Active(_)) && world.owner == self.token {
            let noted = world.notes.get(&stored.account);
            let quoted = format!("\"{tenant_id}\"");
            assert!(
                noted.is_some_and(|text| text.contains(&quoted)),
                "{noted:?}"
            );
        }
    }

    /// An entry's items go out, or are set aside for this reason, as its tenant and its folder want.
    fn goes_out(&self, world: &World, number: EntryNumber, reason: Option<Reason>) {
        self.has_body(number);
        let verdict = self.begun.get(&number).expect("it has begun");
        let only_for = &world.all[&self.entries[&number]].only_for;
        let passed_on = |tenant: &&str| only_for.as_deref().is_some_and(|it| it != *tenant);
        let wanted = match verdict {
            _ if verdict.tenant_id().as_ref().is_some_and(passed_on) => Some(Reason::TenantChanged),
            Verdict::Active(_) => None,
            Verdict::Suspended(_) => Some(Reason::TenantSuspended),
            Verdict::Unknown => Some(Reason::TenantUnknown),
            Verdict::Unusable => Some(Reason::TenantUnusable),
        };
        assert_eq!(reason, wanted, "{number}");
    }

    /// The partition is handed over: all that was begun and could be finished is.
    fn leaves_nothing_to_repeat(&self, world: &World) {
        // What was refused is the next owner's.
        let mut mine = self.unrecorded(world);
        mine.retain(|id| !self.refused.contains(id));
        assert!(
            mine.is_empty(),
            "handed over, and would be repeated: {mine:?}"
        );
        let archives = |number| matches!(self.window.entries[number].phase, Phase::Archiving);
        let mut under_way = self.flights.iter().filter(|it| match it {
            UnderWay::Publish(_) => true,
            // An empty one only asks.
            UnderWay::Record(finished, progress) => finished.len() + progress.len() > 0,
            UnderWay::Archive(number) => archives(number),
            _ => false,
        });
        let first = under_way.next();
        assert!(first.is_none(), "handed over too early: {first:?}");
    }

    /// Entries with publications of this tenure that Redis doesn't know of, and that could be recorded now.
    fn unrecorded(&self, world: &World) -> Vec<EntryId> {
        let waits = |number: &EntryNumber| self.entries[number];
        let waiting: HashSet<EntryId> = self.window.refused.iter().map(waits).collect();
        let unrecorded = world.unrecorded().into_iter();
        let mine = unrecorded.filter(|(_, token)| *token == self.token);
        let refused = |id: &EntryId| world.refused.contains(id) || waiting.contains(id);
        mine.map(|(id, _)| id)
            .filter(|id| !refused(id) && !world.gone.contains(id))
            .collect()
    }

    fn tick(&mut self) {
        self.silent_ticks += 1;
        self.window.handle(Input::Tick);
    }

    fn redis_fails(&mut self) {
        self.redis_failed = true;
        self.window.handle(Input::RedisFailed);
    }

    fn redis_answers(&mut self) {
        self.redis_failed = false;
        self.silent_ticks = 0;
    }

    fn drain(&mut self) {
        self.draining = true;
        self.window.handle(Input::Drain);
    }

    /// Answers what is under way and is so, and what follows from it, until there is none.
    fn answer_all(&mut self, world: &mut World, which: impl Fn(&UnderWay) -> bool) {
        for _ in 0..200 {
            let Some(n) = self.flights.iter().position(&which) else {
                return;
            };
            self.answer(world, n, false);
            if self.over {
                return;
            }
            self.run(world);
        }
    }

    fn open(&mut self, world: &World, number: EntryNumber, arrived: &ReadEntry<EntryId>) {
        let stored = &world.all[&arrived.id];
        self.entries.insert(number, arrived.id);
        let again = world.acknowledged.contains(&arrived.id);
        assert!(!again, "taken in again: {}", arrived.id);
        if world.gone.contains(&arrived.id) {
            return self.window.handle(Input::Opened(Opened::Over));
        }
        self.bodies.insert(number);
        let done = world.progress.get(&arrived.id).cloned().unwrap_or_default();
        let items = stored.items.iter().cloned().enumerate();
        let items = Items {
            account: stored.account.clone(),
            bytes: stored.bytes,
            open: items.filter(|(n, _)| !done.contains(n)).collect(),
            done,
            archive: stored.archive,
            only_for: stored.only_for.clone(),
            has_no_account: stored.has_no_account,
            // Forgotten since it was read, for some.
            verdict: (world.tenants.get(&stored.account).cloned()).filter(|_| number % 5 != 4),
        };
        self.window.handle(Input::Opened(Opened::Items(items)));
    }

    /// One thing that is under way takes effect and is answered, unless its answer gets lost.
    fn answer(&mut self, world: &mut World, n: usize, lost: bool) {
        self.answer_by(world, n, lost, false);
    }

    fn answer_by(&mut self, world: &mut World, n: usize, lost: bool, another_way: bool) {
        if self.flights.is_empty() {
            return;
        }
        let flight = self.flights.swap_remove(n % self.flights.len());
        let happened = match flight {
            UnderWay::Read(next, most) if lost => {
                self.late.push((next, most));
                self.redis_fails();
                Input::Read(ReadEnd::Failed)
            }
            UnderWay::Answer(end) => Input::Read(end),
            UnderWay::Read(next, most) => match world.read(self.token, next, most) {
                Some(end) if another_way => return self.flights.push(UnderWay::Answer(end)),
                Some(end) => Input::Read(end),
                None => return self.over = true,
            },
            UnderWay::Sleep => Input::Woke,
            UnderWay::Open(number, arrived) => return self.open(world, number, &arrived),
            UnderWay::Fetch(account, ids) => Input::Fetched {
                entries: ids
                    .iter()
                    .take(1 + n % 2)
                    .map(|id| world.arrive(*id))
                    .collect(),
                // Or forgotten meanwhile.
                known: world.tenants.contains_key(&account) && n % 5 != 3,
                account,
                ids,
            },
            UnderWay::Load(number) => {
                let here = !world.gone.contains(&self.entries[&number]);
                here.then(|| self.bodies.insert(number));
                Input::Loaded(number, here)
            }
            UnderWay::Resolve(account) => match world.tenants.get(&account) {
                Some(verdict) => Input::Tenant(account, verdict.clone()),
                None => return self.flights.push(UnderWay::Resolve(account)),
            },
            UnderWay::NoteTenant(account, note) if world.owner == self.token => {
                world.notes.insert(account.clone(), note.text());
                world.notes.retain(|_, text| !text.is_empty());
                Input::TenantNoted(account, note)
            }
            UnderWay::NoteTenant(..) => return self.over = true,
            UnderWay::Prepare(item) => Input::Prepared(item),
            UnderWay::Publish(item) => match self.publication_ends(world, item, n, lost) {
                Some(happened) => happened,
                None => return,
            },
            UnderWay::Archive(number) => {
                world.archived.insert(self.entries[&number]);
                Input::Archived(number)
            }
            UnderWay::Record(finished, progress) => {
                let Some(refused) = self.record(world, &finished, &progress) else {
                    return self.over = true;
                };
                let ids = refused.iter().map(|number| self.entries[number]);
                self.refused.extend(ids);
                if lost {
                    self.redis_fails();
                    return self.flights.push(UnderWay::Record(finished, progress));
                }
                self.redis_answers();
                Input::Recorded(refused)
            }
        };
        if matches!(&happened, Input::Read(end) if !matches!(end, ReadEnd::Failed)) {
            self.redis_answers();
        }
        self.window.handle(happened);
    }

    /// `None`: it is still under way.
    fn publication_ends(
        &mut self,
        world: &mut World,
        item: ItemId,
        n: usize,
        lost: bool,
    ) -> Option<Input<EntryId>> {
        if lost {
            // The event may be there or not; it is published again, or refused in the end.
            if n.is_multiple_of(2) {
                self.publish(world, item, NOBODY);
            }
            self.flights.push(UnderWay::Publish(item));
            return None;
        }
        if n % 7 == 3 {
            self.flights.push(UnderWay::Prepare(item));
            return Some(Input::Delayed(item));
        }
        if n % 11 == 5 && world.owner == self.token {
            let id = self.entries[&item.0];
            world.set_aside.insert((id, item.1));
            world.end(id, item.1);
            self.running.remove(&item);
            return Some(Input::Ended(item, End::SetAside));
        }
        self.running.remove(&item);
        self.publish(world, item, self.token);
        Some(Input::Ended(item, End::Published))
    }

    /// Returns those of which Redis refuses the record; `None`: the lease is another's.
    fn record(
        &self,
        world: &mut World,
        finished: &[EntryNumber],
        progress: &[(EntryNumber, Vec<usize>)],
    ) -> Option<Vec<EntryNumber>> {
        let id = |number: &EntryNumber| self.entries[number];
        let all = finished
            .iter()
            .chain(progress.iter().map(|(number, _)| number));
        let refused: Vec<EntryNumber> = all
            .filter(|number| world.refused.contains(&id(number)))
            .copied()
            .collect();
        let taken = |number: &&EntryNumber| !refused.contains(number);
        let finished: Vec<EntryId> = finished.iter().filter(taken).map(id).collect();
        let progress = progress.iter().filter(|(number, _)| taken(&number));
        let progress: Vec<_> = progress
            .map(|(number, items)| (id(number), items.clone()))
            .collect();
        let is_done = world.record(self.token, &finished, &progress);
        is_done.then_some(refused)
    }

    fn publish(&mut self, world: &mut World, (number, n): ItemId, by: usize) {
        let id = self.entries[&number];
        // Whoever lost the lease publishes no more: it is asked before each publication.
        if world.owner == self.token {
            world.end(id, n);
            world.published.insert((id, n), by);
            let tenant_id = self.begun[&number].tenant_id().unwrap_or_default();
            let first = world.out_for.entry(id).or_insert(tenant_id.to_owned());
            assert_eq!(first, tenant_id, "another tenant's than before: {id}");
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Store(usize, Vec<Vec<LaneKey>>),
    Answer(usize),
    Lose(usize),
    /// A read is done now, and its answer comes later.
    AnotherWay,
    /// A read whose answer was lost is run now.
    Late(usize),
    Tick,
    /// It is time to record, and Redis takes it.
    TenantNote,
    /// The account's tenant is known from now on, or asked for anew.
    Tenant(usize, bool),
    /// The process dies, or is taken for dead; another one takes over.
    Kill,
    Drain,
    /// The same, and all that can be finished ends.
    HandOver,
    /// The account's tenant is suspended, or is so no more.
    Suspend(usize, bool),
    /// The account passes to another tenant, or back.
    Pass(usize),
    /// Somebody else deletes one of those that are pending.
    Delete(usize),
    /// Redis comes back without the last it was told: an acknowledged entry is pending again.
    Forget(usize),
    /// Redis refuses to record one of those that are pending.
    Refuse(usize),
    /// It takes it after all.
    Accept,
}

fn step() -> impl Strategy<Value = Step> {
    let items = prop::collection::vec(prop::collection::vec(0u64..4, 1..3), 0..4);
    prop_oneof![
        4 => (0usize..4, items).prop_map(|(account, items)| Step::Store(account, items)),
        20 => any::<usize>().prop_map(Step::Answer),
        3 => any::<usize>().prop_map(Step::Lose),
        2 => any::<usize>().prop_map(Step::Late),
        2 => Just(Step::Tick),
        1 => Just(Step::TenantNote),
        2 => (0usize..4, any::<bool>()).prop_map(|(account, known)| Step::Tenant(account, known)),
        1 => (0usize..3, any::<bool>()).prop_map(|(account, is)| Step::Suspend(account, is)),
        1 => (0usize..2).prop_map(Step::Pass),
        1 => Just(Step::Kill),
        1 => Just(Step::Drain),
        1 => Just(Step::HandOver),
        2 => any::<usize>().prop_map(Step::Delete),
        1 => any::<usize>().prop_map(Step::Forget),
        3 => Just(Step::AnotherWay),
        1 => any::<usize>().prop_map(Step::Refuse),
        1 => Just(Step::Accept),
    ]
}

fn active(id: String) -> Verdict {
    Verdict::Active(Arc::new(Tenant {
        id,
        ..Tenant::default()
    }))
}

fn verdict(account: usize) -> Verdict {
    match (account, active(format!("t{account}"))) {
        // All of this account is set aside.
        (2, Verdict::Active(tenant)) => Verdict::Suspended(tenant),
        (3, _) => Verdict::Unknown,
        (_, verdict) => verdict,
    }
}

struct History {
    world: World,
    tenure: Tenure,
    now: u64,
}

impl History {
    fn new() -> Self {
        let mut world = World::default();
        let tenure = Tenure::new(&mut world);
        Self {
            world,
            tenure,
            now: 0,
        }
    }

    fn store(&mut self, account: usize, mut items: Vec<Vec<LaneKey>>) {
        self.now += 1;
        // A lane is one account's.
        for key in items.iter_mut().flatten() {
            *key += 10 * account as LaneKey;
        }
        let of_another = |n: &u64| n.is_multiple_of(7);
        let stored = Stored {
            account: format!("a{account}"),
            items,
            bytes: 1 + (self.now % 3) as usize,
            archive: !self.now.is_multiple_of(5),
            only_for: match self.now {
                n if of_another(&n) => Some("t9".to_owned()),
                n => (n % 3 == 1).then(|| format!("t{account}")),
            },
            has_no_account: account == 3 && self.now.is_multiple_of(2),
        };
        self.world
            .stream
            .insert(EntryId::new(self.now, 0), stored.clone());
        self.world.all.insert(EntryId::new(self.now, 0), stored);
    }

    fn take(&mut self, step: Step) {
        let (world, tenure) = (&mut self.world, &mut self.tenure);
        match step {
            Step::Store(account, items) => self.store(account, items),
            Step::Answer(n) => tenure.answer(world, n, false),
            Step::Lose(n) => tenure.answer(world, n, true),
            Step::AnotherWay => {
                let reads = |it: &UnderWay| matches!(it, UnderWay::Read(..));
                if let Some(n) = tenure.flights.iter().position(reads) {
                    tenure.answer_by(world, n, false, true);
                }
            }
            // One entry of few items: what is refused keeps its turns, and some must be left for others.
            Step::Refuse(n) if world.refused.is_empty() => {
                let few = world.pending.iter();
                let few: Vec<_> = few.filter(|id| world.all[id].items.len() <= 2).collect();
                let refused = few.get(n % few.len().max(1)).map(|id| **id);
                world.refused.extend(refused);
            }
            Step::Late(n) if !tenure.late.is_empty() => {
                let (next, most) = tenure.late.swap_remove(n % tenure.late.len());
                // Nobody hears what it brought.
                drop(world.read(tenure.token, next, most));
            }
            Step::Late(_) | Step::Refuse(_) => {}
            Step::Tick => tenure.tick(),
            Step::TenantNote => self.note(),
            Step::Accept => world.refused.clear(),
            Step::Tenant(account, true) => {
                world
                    .tenants
                    .insert(format!("a{account}"), verdict(account));
            }
            Step::Tenant(account, false) => drop(world.tenants.remove(&format!("a{account}"))),
            Step::Kill => *tenure = Tenure::new(world),
            Step::Drain => tenure.drain(),
            Step::HandOver => self.hand_over(),
            Step::Suspend(account, is) => world.suspend(account, is),
            Step::Pass(account) => world.pass(account),
            Step::Delete(n) => world.delete(n),
            Step::Forget(n) => world.forget(n),
        }
        self.tenure.run(&mut self.world);
        if self.tenure.over {
            self.tenure = Tenure::new(&mut self.world);
            self.tenure.run(&mut self.world);
        }
    }

    /// With the next tick, all that was published is recorded.
    fn note(&mut self) {
        let (world, tenure) = (&mut self.world, &mut self.tenure);
        tenure.tick();
        tenure.run(world);
        tenure.answer_all(world, |it| matches!(it, UnderWay::Record(..)));
        let left = tenure.unrecorded(world);
        assert!(tenure.over || left.is_empty(), "not recorded: {left:?}");
    }

    /// It ends as soon as nothing is under way that could still be finished.
    fn hand_over(&mut self) {
        let (world, tenure) = (&mut self.world, &mut self.tenure);
        tenure.drain();
        tenure.run(world);
        tenure.answer_all(world, |it| {
            matches!(
                it,
                UnderWay::Publish(_) | UnderWay::Record(..) | UnderWay::Archive(_)
            )
        });
        assert!(tenure.over, "not handed over");
    }

    /// Until all has ended that can be recorded, but of the accounts that nobody knows.
    fn go_on(&mut self) {
        for n in 0..20_000 {
            self.take(Step::Tick);
            self.take(Step::Answer(n));
            if self.world.held_up().is_empty()
                && self.world.delivered.0 == EntryId::new(self.now, 0)
            {
                break;
            }
        }
    }

    /// From now on all is well: everything ends, and nothing is left.
    fn end_well(mut self) {
        for account in 1..4 {
            let name = format!("a{account}");
            self.world.tenants.insert(name, verdict(account));
        }
        // A little of an account that nobody knows holds up no other's.
        let waiting =
            self.world.all.iter().filter(|(id, stored)| {
                stored.account == "a0" && !self.world.acknowledged.contains(id)
            });
        let bytes: usize = waiting.map(|(_, stored)| stored.bytes).sum();
        if bytes <= LIMITS.bytes / 2 && self.world.refused.is_empty() {
            self.world.tenants.remove("a0");
            self.go_on();
            assert_eq!(self.world.held_up(), []);
        }
        self.world.tenants.insert("a0".to_owned(), verdict(0));
        self.go_on();
        assert_eq!(self.world.held_up(), []);
        self.world.refused.clear();
        self.go_on();
        (0..50).for_each(|n| self.take(Step::Answer(n)));
        // With nothing left to do it waits for what comes, and asks no server in the meantime.
        let sleeps = |it: &UnderWay| matches!(it, UnderWay::Sleep);
        self.tenure.answer_all(&mut self.world, |it| !sleeps(it));
        assert!(self.tenure.flights.iter().map(sleeps).eq([true]));
        let world = &self.world;
        assert_eq!(
            world.acknowledged.len(),
            world.all.len(),
            "{:?}",
            world.pending
        );
        let window = &self.tenure.window;
        assert!(window.entries.is_empty() && window.ids.is_empty() && window.lanes.is_empty());
        assert!(window.turns.is_idle() && window.parked.is_empty() && window.asked.is_empty());
        assert_eq!((window.bytes, window.kept, window.publishing), (0, 0, 0));
        assert_eq!((window.running, window.loading), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn everything_ends_once_in_order_and_nothing_is_left(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut history = History::new();
        history.tenure.run(&mut history.world);
        for step in steps {
            history.take(step);
        }
        history.end_well();
    }
}

/// Nobody passes an unfinished item of the same lane, though the one between them is gone.
#[test]
fn an_entry_that_is_gone_ends_in_its_turn() {
    let mut history = History::new();
    history.world.tenants.insert("a0".to_owned(), verdict(0));
    // The lanes of the sixth are the first's and the second's, and memory is short.
    for items in [&[0][..], &[1], &[2], &[3], &[4], &[0, 1], &[1]] {
        history.store(0, items.iter().map(|key| vec![*key]).collect());
    }
    let (world, tenure) = (&mut history.world, &mut history.tenure);
    let runs = |it: &UnderWay, of| match it {
        UnderWay::Prepare(item) | UnderWay::Publish(item) => item.0 == of,
        _ => false,
    };
    let sleeps = |it: &UnderWay| matches!(it, UnderWay::Sleep);
    tenure.run(world);
    tenure.answer_all(world, |it| !sleeps(it) && (0..7).all(|of| !runs(it, of)));
    world.gone.insert(EntryId::new(6, 0));
    tenure.answer_all(world, |it| runs(it, 0));
    tenure.answer_all(world, |it| !sleeps(it) && !runs(it, 1));
    assert!(tenure.flights.iter().any(|it| runs(it, 1)));
    history.end_well();
}

/// A window that was told of one entry, and what it wants.
fn window_of(entry: ReadEntry<()>, notes: &[(&str, &str)]) -> (Window<()>, Vec<Command<()>>) {
    window_within(LIMITS, entry, notes)
}

fn window_within(
    limits: Limits,
    entry: ReadEntry<()>,
    notes: &[(&str, &str)],
) -> (Window<()>, Vec<Command<()>>) {
    let notes = notes
        .iter()
        .map(|(of, text)| (of.to_string(), text.to_string()));
    let given = Given::read(notes.collect());
    let mut window = Window::new(limits, Parked::new(Arc::default()), given);
    assert!(matches!(window.poll(), Some(Command::Read { .. })));
    window.handle(Input::Read(ReadEnd::Entries {
        delivered: entry.id,
        pending: 1,
        entries: vec![entry],
    }));
    let wanted = wanted(&mut window);
    (window, wanted)
}

/// Of what was published in part its raw body is archived, whatever becomes of the rest. Of what is set
/// aside as a whole, the failed store has it.
#[test]
fn only_what_is_set_aside_as_a_whole_needs_no_archive() {
    for (done, open, archived) in [
        (vec![], vec![0], false),
        (vec![0], vec![1], true),
        (vec![], vec![], true),
    ] {
        let (mut window, _) = window_of(entry_of("a2", true), &[]);
        window.handle(Input::Opened(Opened::Items(Items {
            account: "a2".to_owned(),
            open: open.iter().map(|n| (*n, vec![*n as LaneKey])).collect(),
            done,
            archive: true,
            verdict: Some(verdict(2)),
            ..Items::default()
        })));
        let wanted = wanted(&mut window);
        let archives = |it: &Command<()>| matches!(it, Command::Archive(_));
        assert_eq!(wanted.iter().any(archives), archived, "{wanted:?}");
    }
}

/// Whoever takes over gives what came meanwhile to the tenant that is found.
#[test]
fn an_account_that_is_asked_about_is_noted_as_nobodys() {
    let (_, wanted) = window_of(
        entry_of("a0", false),
        &[("a0", r#"{"now":{"tenantId":"t0"}}"#)],
    );
    let is_nobodys = |text: String| text.contains(r#""now":null"#) && text.contains("t0");
    assert!(
        wanted.iter().any(|it| match it {
            Command::NoteTenant(account, note) => account == "a0" && is_nobodys(note.text()),
            _ => false,
        }),
        "{wanted:?}"
    );
}

/// Only where some of them are it would help not to read.
#[test]
fn what_waits_in_other_partitions_keeps_none_from_reading() {
    let total = Arc::new(LIMITS.parked.into());
    let mut window = Window::<()>::new(LIMITS, Parked::new(total), Given::default());
    assert!(matches!(window.poll(), Some(Command::Read { .. })));
}

/// An entry of an account, as a read brings it.
fn entry_of(account: &str, known: bool) -> ReadEntry<()> {
    ReadEntry {
        id: EntryId::new(1, 0),
        account: Some(account.to_owned()),
        known,
        bytes: LIMITS.kept,
        body: (),
    }
}

fn wanted(window: &mut Window<()>) -> Vec<Command<()>> {
    std::iter::from_fn(|| window.poll()).collect()
}

/// A read that was under way while an entry was recorded may still bring it.
#[test]
fn what_was_recorded_during_a_read_is_not_opened_again() {
    let read = |entries| {
        Input::Read(ReadEnd::Entries {
            entries,
            delivered: EntryId::new(1, 0),
            pending: 2,
        })
    };
    let (mut window, _) = window_of(entry_of("a0", true), &[]);
    window.handle(Input::Opened(Opened::Over));
    let records = |it: &Command<()>| matches!(it, Command::Record { .. });
    assert!(wanted(&mut window).iter().any(records));
    // Nothing else is pending, and nothing new; but another one is pending that never arrived here.
    window.handle(read(vec![]));
    assert_eq!(wanted(&mut window).len(), 1);
    window.handle(read(vec![]));
    let again = |it: &Command<()>| match it {
        Command::Read { next, .. } => *next == Next::Pending(EntryId::ZERO),
        _ => false,
    };
    assert!(wanted(&mut window).iter().any(again));
    window.handle(Input::Recorded(vec![]));
    assert!(wanted(&mut window).is_empty());
    window.handle(read(vec![entry_of("a0", true)]));
    let opens = |it: &Command<()>| matches!(it, Command::Open(..));
    assert!(!wanted(&mut window).iter().any(opens));
}

/// What has waited for RabbitMQ would be published all at once while Redis can't be told of it.
#[test]
fn nothing_is_published_before_a_silent_redis_answers() {
    let asks = |it: &Command<()>| match it {
        Command::Record { finished, progress } => finished.is_empty() && progress.is_empty(),
        _ => false,
    };
    let publishes = |it: &Command<()>| matches!(it, Command::Publish(_));
    let quiet = || (0..LIMITS.silent_ticks).map(|_| Input::Tick).collect();
    for (silence, at_once) in [(quiet(), false), (vec![Input::RedisFailed], true)] {
        let (mut window, item) = preparing();
        silence.into_iter().for_each(|it| window.handle(it));
        let mut asked = wanted(&mut window);
        assert_eq!(asked.iter().any(asks), at_once, "{asked:?}");
        window.handle(Input::Prepared(item));
        asked.extend(wanted(&mut window));
        assert_eq!(asked.iter().filter(|it| asks(it)).count(), 1, "{asked:?}");
        assert!(!asked.iter().any(publishes), "{asked:?}");
        window.handle(Input::Recorded(vec![]));
        let after = wanted(&mut window);
        assert!(after.iter().any(publishes), "{after:?}");
    }
}

/// A window whose only item is being prepared.
fn preparing() -> (Window<()>, ItemId) {
    let (mut window, _) = window_of(entry_of("a0", true), &[]);
    window.handle(Input::Opened(Opened::Items(Items {
        account: "a0".to_owned(),
        open: vec![(0, vec![0])],
        verdict: Some(verdict(0)),
        ..Items::default()
    })));
    for _ in 0..2 {
        for command in wanted(&mut window) {
            match command {
                Command::NoteTenant(account, note) => {
                    window.handle(Input::TenantNoted(account, note));
                }
                Command::Prepare(item) => return (window, item),
                _ => {}
            }
        }
    }
    panic!("nothing is prepared");
}

/// Redis has a pause before it is asked again to record progress that it refused.
#[test]
fn refused_progress_is_recorded_again_with_the_next_tick() {
    let (mut window, _) = window_of(entry_of("a0", true), &[]);
    let lanes = |n: &usize| (*n, vec![*n as LaneKey]);
    window.handle(Input::Opened(Opened::Items(Items {
        account: "a0".to_owned(),
        open: (0..=LIMITS.worth_a_record).map(|n| lanes(&n)).collect(),
        verdict: Some(verdict(0)),
        ..Items::default()
    })));
    let mut commands = VecDeque::from(wanted(&mut window));
    let mut records = 0;
    while let Some(command) = commands.pop_front() {
        match command {
            Command::Prepare((_, 0)) => {}
            Command::NoteTenant(account, note) => window.handle(Input::TenantNoted(account, note)),
            Command::Prepare(item) => window.handle(Input::Prepared(item)),
            Command::Publish(items) => items
                .into_iter()
                .for_each(|item| window.handle(Input::Ended(item, End::Published))),
            Command::Record { progress, .. } => {
                records += 1;
                assert!(records < 10, "Redis is asked again at once");
                let refused = progress.iter().map(|(number, _)| *number);
                window.handle(Input::Recorded(refused.collect()));
            }
            _ => {}
        }
        commands.extend(wanted(&mut window));
    }
    assert!(records > 0, "worth a record");
    window.handle(Input::Tick);
    let is_record = |it: &Command<()>| matches!(it, Command::Record { .. });
    assert!(wanted(&mut window).iter().any(is_record));
}

/// What was parked returns once its tenant is known; if that is forgotten meanwhile, it is asked for first.
#[test]
fn what_returns_is_taken_in_while_its_tenant_is_known() {
    let is_one = |wanted: &[Command<()>], of: fn(&Command<()>) -> bool| {
        assert_eq!(wanted.iter().filter(|it| of(it)).count(), 1, "{wanted:?}");
    };
    let nothing_kept = Limits {
        kept: 0,
        ticks_to_park: 0,
        ..LIMITS
    };
    let (mut window, first) = window_within(nothing_kept, entry_of("a0", false), &[]);
    is_one(&first, |it| matches!(it, Command::Resolve(..)));
    for known in [false, true] {
        window.handle(Input::Tenant("a0".to_owned(), verdict(0)));
        is_one(&wanted(&mut window), |it| {
            matches!(it, Command::Fetch { .. })
        });
        window.handle(Input::Fetched {
            account: "a0".to_owned(),
            ids: vec![EntryId::new(1, 0)],
            entries: vec![entry_of("a0", known)],
            known,
        });
        let wanted = wanted(&mut window);
        assert_eq!(wanted.len(), 1, "{wanted:?}");
        match known {
            false => is_one(&wanted, |it| matches!(it, Command::Resolve(..))),
            true => is_one(&wanted, |it| matches!(it, Command::Open(..))),
        }
    }
}

/// What waits for its tenant isn't read twice: nothing more is read for a while, and it returns as it is.
#[test]
fn the_first_that_waits_is_kept_and_returns_at_once() {
    let reads = |wanted: &[Command<()>]| {
        let reads = |it: &Command<()>| matches!(it, Command::Read { .. });
        wanted.iter().any(reads)
    };
    for ticks in [0, LIMITS.ticks_to_park] {
        let (mut window, first) = window_of(entry_of("a0", false), &[]);
        assert!(!reads(&first), "{first:?}");
        for tick in 1..=ticks {
            window.handle(Input::Tick);
            assert_eq!(reads(&wanted(&mut window)), tick == ticks);
        }
        window.handle(Input::Tenant("a0".to_owned(), verdict(0)));
        let opens = |it: &Command<()>| matches!(it, Command::Open(..));
        assert!(wanted(&mut window).iter().any(opens));
    }
}

/// Though it has all the memory that there is for what waits, and others return meanwhile.
#[test]
fn who_waits_for_long_keeps_none_from_being_read() {
    let (mut window, _) = window_of(entry_of("a0", false), &[]);
    (0..LIMITS.ticks_to_park).for_each(|_| window.handle(Input::Tick));
    let read = |entries| {
        Input::Read(ReadEnd::Entries {
            entries,
            delivered: EntryId::new(2, 0),
            pending: 2,
        })
    };
    let other = || ReadEntry {
        id: EntryId::new(2, 0),
        ..entry_of("a1", false)
    };
    assert_eq!(wanted(&mut window).len(), 1, "it reads on");
    window.handle(read(vec![other()]));
    assert_eq!(wanted(&mut window).len(), 2, "it asks, and reads on");
    window.handle(Input::Tenant("a1".to_owned(), verdict(1)));
    wanted(&mut window);
    window.handle(Input::Fetched {
        account: "a1".to_owned(),
        ids: vec![EntryId::new(2, 0)],
        entries: vec![other()],
        known: true,
    });
    wanted(&mut window);
    window.handle(Input::Opened(Opened::Over));
    wanted(&mut window);
    window.handle(read(vec![]));
    assert_eq!(wanted(&mut window).len(), 1, "it waits for what is new");
}

/// One entry may have most of what there is for those that wait: others that return begin no new wait.
#[test]
fn lookups_that_end_one_by_one_hold_up_reading_no_longer() {
    let limits = Limits {
        bytes: 40,
        kept: 10,
        entries: 20,
        parked: 20,
        ..LIMITS
    };
    let of = |n: u64, bytes| ReadEntry {
        id: EntryId::new(n, 0),
        bytes,
        ..entry_of(&format!("a{n}"), false)
    };
    let mut window = Window::new(limits, Parked::new(Arc::default()), Given::default());
    assert!(matches!(window.poll(), Some(Command::Read { .. })));
    let mut entries: Vec<_> = (10..20).map(|n| of(n, 0)).collect();
    entries.push(of(20, 9));
    window.handle(Input::Read(ReadEnd::Entries {
        delivered: EntryId::new(20, 0),
        pending: 11,
        entries,
    }));
    let reads = |it: &Command<()>| matches!(it, Command::Read { .. });
    assert!(!wanted(&mut window).iter().any(reads), "it waits first");
    let ticks = (10..20).take_while(|n| {
        window.handle(Input::Tenant(format!("a{n}"), verdict(0)));
        let opened = wanted(&mut window);
        assert!(matches!(opened[..], [Command::Open(..)]), "{opened:?}");
        window.handle(Input::Opened(Opened::Over));
        let before = wanted(&mut window);
        window.handle(Input::Tick);
        let after = wanted(&mut window);
        !before.iter().chain(&after).any(reads)
    });
    assert!(ticks.count() <= LIMITS.ticks_to_park);
}

/// Bodies of what waits, for its tenant or in its lane, don't keep other accounts' entries from being read.
#[test]
fn what_waits_leaves_memory_to_what_could_go_on() {
    let note = [("a0", r#"{"now":{"tenantId":"t0"}}"#)];
    for verdict in [None, Some(verdict(0))] {
        let (mut window, _) = window_of(entry_of("a0", true), &note);
        for n in 2..=5 {
            window.handle(Input::Opened(Opened::Items(Items {
                account: "a0".to_owned(),
                bytes: 2,
                open: vec![(0, vec![0])],
                verdict: verdict.clone(),
                ..Items::default()
            })));
            let reads = |it: &Command<()>| matches!(it, Command::Read { .. });
            let wanted = wanted(&mut window);
            assert!(wanted.iter().any(reads), "{n} {wanted:?}");
            window.handle(Input::Read(ReadEnd::Entries {
                delivered: EntryId::new(n, 0),
                pending: n as usize,
                entries: vec![ReadEntry {
                    id: EntryId::new(n, 0),
                    ..entry_of("a0", true)
                }],
            }));
            window.poll();
        }
    }
}

/// Its tenant is forgotten while the first one is opened: those behind it wait until it is known again.
#[test]
fn what_returns_waits_again_if_its_tenant_is_forgotten() {
    let limits = Limits {
        kept: 4,
        bytes: 40,
        ..LIMITS
    };
    let of = |n| ReadEntry {
        id: EntryId::new(n, 0),
        bytes: 1,
        ..entry_of("a0", false)
    };
    let mut window = Window::new(limits, Parked::new(Arc::default()), Given::default());
    assert!(matches!(window.poll(), Some(Command::Read { .. })));
    window.handle(Input::Read(ReadEnd::Entries {
        delivered: EntryId::new(3, 0),
        pending: 3,
        entries: (1..=3).map(of).collect(),
    }));
    let opened = |wanted: Vec<Command<()>>| -> Vec<EntryNumber> {
        let opened = wanted.into_iter().filter_map(|it| match it {
            Command::Open(number, _) => Some(number),
            _ => None,
        });
        opened.collect()
    };
    let known = || Input::Tenant("a0".to_owned(), verdict(0));
    let open = |verdict: Option<Verdict>| {
        Input::Opened(Opened::Items(Items {
            account: "a0".to_owned(),
            bytes: 1,
            open: vec![(0, vec![0])],
            verdict,
            ..Items::default()
        }))
    };
    assert!(opened(wanted(&mut window)).is_empty());
    window.handle(known());
    assert_eq!(opened(wanted(&mut window)), [0]);
    window.handle(open(None));
    assert!(
        opened(wanted(&mut window)).is_empty(),
        "nobody knows its tenant"
    );
    assert_eq!((window.kept, window.parked.len()), (2, 2));
    window.handle(known());
    assert_eq!(opened(wanted(&mut window)), [1]);
    window.handle(open(Some(verdict(0))));
    assert_eq!(opened(wanted(&mut window)), [2]);
}

/// All bodies that are here may wait for one that isn't: it is loaded, though there is no room for it.
#[test]
fn a_body_that_others_wait_for_is_loaded_into_full_memory() {
    let note = [("a0", r#"{"now":{"tenantId":"t0"}}"#)];
    let (mut window, _) = window_of(entry_of("a0", true), &note);
    let open = |bytes, lanes: &[LaneKey]| {
        Input::Opened(Opened::Items(Items {
            account: "a0".to_owned(),
            bytes,
            open: lanes.iter().map(|lane| vec![*lane]).enumerate().collect(),
            verdict: Some(verdict(0)),
            ..Items::default()
        }))
    };
    let read = |n| {
        Input::Read(ReadEnd::Entries {
            delivered: EntryId::new(n, 0),
            pending: n as usize,
            entries: vec![ReadEntry {
                id: EntryId::new(n, 0),
                ..entry_of("a0", true)
            }],
        })
    };
    // The second one's second item waits for the first, and the third, which fills memory, for that.
    for (n, (bytes, lanes)) in [(1, &[0][..]), (1, &[1, 0]), (LIMITS.bytes, &[0])]
        .into_iter()
        .enumerate()
    {
        if n > 0 {
            window.handle(read(n as u64 + 1));
            wanted(&mut window);
        }
        window.handle(open(bytes, lanes));
        wanted(&mut window);
        if n < 2 {
            window.handle(Input::Prepared((n as EntryNumber, 0)));
            wanted(&mut window);
        }
    }
    let ended = |number| Input::Ended((number, 0), End::Published);
    window.handle(ended(1));
    let forgets = |it: &Command<()>| matches!(it, Command::Forget(1));
    assert!(wanted(&mut window).iter().any(forgets));
    window.handle(ended(0));
    let loads = |it: &Command<()>| matches!(it, Command::Load(1));
    assert!(wanted(&mut window).iter().any(loads));
}
