//! What an owned partition does next, as a state machine without Redis, clock or task. It is told what
//! happened ([`Input`]) and says what to do ([`Command`]); [`super::driver`] does it and tells how it
//! ended.
//!
//! An entry is read, waits for its tenant, its body and its lanes, goes out item by item, is archived,
//! and is recorded. Nothing is recorded as done before all of it has ended, so whatever is lost on the
//! way is pending in Redis and the next owner's.

mod cursor;
mod entry;
#[cfg(test)]
mod properties;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use self::cursor::Cursor;
pub(super) use self::cursor::{Next, ReadEnd};
use self::entry::{Archive, Body, Entry, Open, Phase, TenantOf};
use crate::item::tenant::Verdict;
use crate::out::error::Reason;
use crate::partition::given::{Given, TenantAssignment, TenantNote};
use crate::read::entry_id::EntryId;
use crate::read::lanes::{ItemId, LaneKey, Lanes};
use crate::read::parked::{Parked, ReturningEntries};
use crate::read::turns::Turns;

/// An entry's number in its window: entries have them in the order in which they were taken in.
pub(super) type EntryNumber = u64;

/// How much of what there may be.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Bytes of the bodies that are kept.
    pub(super) bytes: usize,
    pub(super) bytes_per_read: usize,
    pub(super) entries: usize,
    pub(super) items: usize,
    /// Items of an entry that are started and have not ended.
    pub(super) running_of_entry: usize,
    /// Entries of the worker that wait for their tenant; beyond, a partition that has some isn't read.
    pub(super) parked: usize,
    /// Bytes of those that are kept whole; of the others only their ids are.
    pub(super) kept: usize,
    /// So many ticks nothing is read in the hope that a tenant is known before more than `kept` waits.
    pub(super) ticks_to_park: usize,
    /// Entries that return at once when their tenant is known.
    pub(super) returning: usize,
    /// Publications that Redis doesn't know of yet: as many can be repeated after a crash.
    pub(super) unrecorded: usize,
    /// Redis has answered nothing for so many ticks: nothing is published before it does, since it might
    /// not be told of it.
    pub(super) silent_ticks: usize,
    /// So many publications of entries that go on are recorded at once, fewer with the next tick.
    pub(super) worth_a_record: usize,
    /// Entries of one record.
    pub(super) entries_per_record: usize,
    /// Between tries to record an entry that couldn't be.
    pub(super) ticks_to_retry: usize,
}

/// An entry as a read brings it.
#[derive(Debug)]
pub(super) struct ReadEntry<B> {
    pub(super) id: EntryId,
    /// `None` if it can't be told: such an entry needs no tenant.
    pub(super) account: Option<String>,
    /// This worker knows the account's tenant.
    pub(super) known: bool,
    pub(super) bytes: usize,
    pub(super) body: B,
}

/// What an entry's bytes say.
#[derive(Debug)]
pub(super) enum Opened {
    Items(Items),
    /// Nothing of it goes out, and what it owes is known.
    Over,
}

/// The items of an entry.
#[derive(Debug, Default)]
pub(super) struct Items {
    pub(super) account: String,
    pub(super) bytes: usize,
    /// What goes out: the item's number in the body, and the keys of its lanes.
    pub(super) open: Vec<(usize, Vec<LaneKey>)>,
    /// What former tenures published.
    pub(super) done: Vec<usize>,
    /// Its body belongs into the archive.
    pub(super) archive: bool,
    /// It was put back from this tenant's folder, and is no other tenant's.
    pub(super) only_for: Option<String>,
    /// Where its account has no tenant, it goes out without one.
    pub(super) has_no_account: bool,
    /// What is known of the account's tenant now.
    pub(super) verdict: Option<Verdict>,
}

/// How an item ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Published,
    SetAside,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Input<B> {
    Read(ReadEnd<B>),
    /// The wait for new entries is over.
    Woke,
    Opened(Opened),
    /// Of the entries that were asked for, those that came: the first ones. `known`: this worker still
    /// knows the account's tenant.
    Fetched {
        account: String,
        ids: Vec<EntryId>,
        entries: Vec<ReadEntry<B>>,
        known: bool,
    },
    /// An entry's body is here again, or (false) gone from the stream.
    Loaded(EntryNumber, bool),
    Tenant(String, Verdict),
    TenantNoted(String, TenantNote),
    /// All that an item's event needs is known.
    Prepared(ItemId),
    /// An item could not be published, and is prepared again after a while.
    Delayed(ItemId),
    Ended(ItemId, End),
    /// An entry's archive write has ended: done, or owed.
    Archived(EntryNumber),
    /// But for these, which Redis refuses: others can be recorded.
    Recorded(Vec<EntryNumber>),
    /// Redis didn't answer a read, a record or a wait for new entries; each is tried again.
    RedisFailed,
    /// It is time to record what was published of entries that go on.
    Tick,
    /// The partition is handed over: nothing new is begun.
    Drain,
}

/// Why a tenant is looked up: for the trace of the call.
#[derive(Debug)]
pub(super) enum LookupReason<B> {
    /// This entry is parked.
    Parked(B),
    Entry(EntryNumber),
    /// Its tenant was forgotten while its entries were fetched.
    Forgotten,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Command<B> {
    Read {
        next: Next,
        bytes: usize,
    },
    /// Wait until there is an entry after this one.
    Sleep(EntryId),
    /// Read an entry's bytes. Nothing else is opened before [`Input::Opened`].
    Open(EntryNumber, ReadEntry<B>),
    Fetch {
        account: String,
        ids: Vec<EntryId>,
        bytes: usize,
    },
    Load(EntryNumber),
    Forget(EntryNumber),
    Resolve(String, LookupReason<B>),
    NoteTenant(String, TenantNote),
    /// An entry has its tenant, and its body is here.
    Begin(EntryNumber, Verdict),
    Prepare(ItemId),
    /// Each is of another lane.
    Publish(Vec<ItemId>),
    SetAside(ItemId, Reason),
    Archive(EntryNumber),
    /// With nothing in it, it only asks whether Redis answers.
    Record {
        /// With all items that were published.
        finished: Vec<(EntryNumber, Vec<usize>)>,
        /// Of entries that go on: all items that were published.
        progress: Vec<(EntryNumber, Vec<usize>)>,
    },
    /// After [`Input::Drain`]: nothing is in work any more.
    End,
}

/// What a record that is under way will have told Redis.
#[derive(Debug, Default)]
struct Recording {
    finished: Vec<EntryNumber>,
    /// It is the only one, and could not be recorded before.
    retry: bool,
    /// How many more publications of these entries.
    progress: Vec<(EntryNumber, usize)>,
}

/// One owned partition.
#[derive(Debug)]
pub(super) struct Window<B> {
    limits: Limits,
    commands: VecDeque<Command<B>>,
    cursor: Cursor,
    /// Read, not yet taken in.
    untaken: VecDeque<ReadEntry<B>>,
    /// The entry whose bytes are being read.
    opening: Option<(EntryNumber, EntryId)>,
    /// What waits for its tenant.
    parked: Parked<ReadEntry<B>>,
    /// Bytes of what `parked` keeps whole, and of `returning`.
    kept: usize,
    /// For how many ticks nothing was read only since tenants are looked up; it begins anew with half of
    /// `limits.kept` free.
    unread_ticks: usize,
    /// The account whose parked entries return: they are fetched again, or taken in. Agrees with `returning`.
    returning_of: Option<String>,
    fetching: bool,
    returning: VecDeque<ReadEntry<B>>,
    /// Which tenants the accounts' entries were given.
    given: Given,
    /// Accounts that are asked about, and the entries of `entries` that wait for it.
    asked: HashMap<String, BTreeSet<EntryNumber>>,
    entries: BTreeMap<EntryNumber, Entry>,
    /// The ids of `entries` and of `opening`.
    ids: HashSet<EntryId>,
    /// Recorded while a read was under way: its answer may still have them, if it took another way.
    recorded_meanwhile: HashSet<EntryId>,
    next_number: EntryNumber,
    /// Of those bodies of `entries` that are here or being loaded.
    bytes: usize,
    to_load: VecDeque<EntryNumber>,
    /// Bodies that are being loaded.
    loading: usize,
    /// Items that are started and have not ended: the sum of [`Open::running`].
    running: usize,
    /// The items of `entries` that have not ended.
    lanes: Lanes,
    /// Entries of which something may be able to start.
    starting: VecDeque<EntryNumber>,
    /// A turn is taken by each publication that is under way, and by each that Redis may not know of:
    /// [`Entry::unrecorded`] of all entries, and `publishing`.
    turns: Turns<ItemId>,
    publishing: usize,
    /// How many ticks have come since Redis last answered a read or a record, and whether it failed to
    /// answer one since.
    silent_ticks: usize,
    redis_failed: bool,
    /// Entries that go on, with publications that Redis may not know of.
    with_progress: BTreeSet<EntryNumber>,
    /// A tick has come since their progress was recorded.
    progress_due: bool,
    /// Redis has refused the progress of one of them, and no tick has come since.
    progress_refused: bool,
    finished: VecDeque<EntryNumber>,
    recording: Option<Recording>,
    /// Finished entries that Redis refused to record, and for how many ticks none of them was tried again.
    refused: VecDeque<EntryNumber>,
    refused_ticks: usize,
    draining: bool,
    ended: bool,
}

impl<B: Clone> Window<B> {
    pub(super) fn new(limits: Limits, parked: Parked<ReadEntry<B>>, given: Given) -> Self {
        Self {
            turns: Turns::new(limits.unrecorded),
            limits,
            commands: VecDeque::new(),
            cursor: Cursor::default(),
            untaken: VecDeque::new(),
            opening: None,
            parked,
            kept: 0,
            unread_ticks: 0,
            returning_of: None,
            fetching: false,
            returning: VecDeque::new(),
            given,
            asked: HashMap::new(),
            entries: BTreeMap::new(),
            ids: HashSet::new(),
            recorded_meanwhile: HashSet::new(),
            next_number: 0,
            bytes: 0,
            to_load: VecDeque::new(),
            loading: 0,
            running: 0,
            lanes: Lanes::default(),
            starting: VecDeque::new(),
            publishing: 0,
            silent_ticks: 0,
            redis_failed: false,
            with_progress: BTreeSet::new(),
            progress_due: false,
            progress_refused: false,
            finished: VecDeque::new(),
            recording: None,
            refused: VecDeque::new(),
            refused_ticks: 0,
            draining: false,
            ended: false,
        }
    }

    /// How many entries wait for their tenant.
    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Redis has failed, and answered nothing since.
    pub(super) fn redis_failed(&self) -> bool {
        self.redis_failed
    }

    /// Whose an entry is that won't go out: for where it is kept.
    pub(super) fn held_by(&self, account: &str, id: EntryId, verdict: Verdict) -> Verdict {
        self.given.held(account, id, verdict)
    }

    /// Takes in what happened. [`Window::poll`] says what follows from it.
    pub(super) fn handle(&mut self, happened: Input<B>) {
        match happened {
            Input::Read(end) => self.read_ended(end),
            Input::Woke => self.cursor.woke(),
            Input::Opened(opened) => self.opened(opened),
            Input::Fetched {
                account,
                ids,
                entries,
                known,
            } => self.fetched(account, &ids, entries, known),
            Input::Loaded(number, here) => self.loaded(number, here),
            Input::Tenant(account, verdict) => self.tenant_known(&account, &verdict),
            Input::TenantNoted(account, note) => {
                self.starting.extend(self.given.written(&account, note));
            }
            Input::Prepared(item) => self.prepared(item),
            Input::Delayed(item) => {
                self.end_turn(item);
                self.publishing -= 1;
            }
            Input::Ended(item, end) => {
                if end == End::SetAside {
                    self.end_turn(item);
                }
                self.publishing -= 1;
                self.item_ended(item, end);
            }
            Input::Archived(number) => self.archived(number),
            Input::Recorded(refused) => self.recorded(&refused),
            Input::RedisFailed => self.redis_failed = true,
            Input::Tick => {
                self.progress_due = true;
                self.progress_refused = false;
                self.refused_ticks += 1;
                self.silent_ticks += 1;
                self.unread_ticks += usize::from(self.waits_for_tenants() && !self.returns());
            }
            Input::Drain => self.draining = true,
        }
    }

    /// The next thing to do, `None` until something else happens.
    pub(super) fn poll(&mut self) -> Option<Command<B>> {
        if self.commands.is_empty() {
            self.advance();
        }
        self.commands.pop_front()
    }

    fn advance(&mut self) {
        while let Some(number) = self.starting.pop_front() {
            self.start(number);
        }
        if !self.draining {
            self.take_in();
            self.load_more();
            self.return_more();
            // What was kept returns at once.
            self.take_in();
            self.read_more();
            self.publish_more();
        }
        self.record();
        if self.draining && !self.ended && self.is_idle() {
            self.ended = true;
            self.commands.push_back(Command::End);
        }
    }

    /// Nothing is in work that this worker could still finish. What could be recorded is: with no record
    /// under way, one has just been looked for.
    fn is_idle(&self) -> bool {
        let archiving = |entry: &Entry| matches!(entry.phase, Phase::Archiving);
        // The answer to an empty record changes nothing, unless something waits for its end.
        let recorded = self.recording.as_ref().is_none_or(|recording| {
            let asks = recording.finished.is_empty() && recording.progress.is_empty();
            asks && self.finished.is_empty() && self.with_progress.is_empty()
        });
        self.publishing == 0 && recorded && !self.entries.values().any(archiving)
    }

    // Reading

    /// No more entries can be taken in now.
    fn is_full(&self) -> bool {
        // With bodies to load, there are as many bytes.
        self.bytes + self.kept >= self.limits.bytes
            || self.entries.len() >= self.limits.entries
            || self.lanes.len() >= self.limits.items
    }

    fn bytes_of_a_read(&self) -> usize {
        let left = self.limits.bytes.saturating_sub(self.bytes + self.kept);
        self.limits.bytes_per_read.min(left)
    }

    fn read_more(&mut self) {
        let parked_too_many = !self.parked.is_empty() && self.parked.total() >= self.limits.parked;
        // With something untaken, an entry is being opened.
        let full = parked_too_many || self.waits_for_tenants() || self.is_full();
        if self.opening.is_some() || full {
            return;
        }
        let bytes = self.bytes_of_a_read();
        if !self.cursor.is_busy() {
            self.recorded_meanwhile.clear();
        }
        self.commands.extend(match self.cursor.go_on() {
            Some(cursor::Step::Read(next)) => Some(Command::Read { next, bytes }),
            Some(cursor::Step::Sleep(after)) => Some(Command::Sleep(after)),
            None => None,
        });
    }

    /// What is read of accounts without a tenant goes no further, and would be read once more. A lookup
    /// takes some milliseconds, so it is waited for, but not for long: it would hold up everybody else.
    fn waits_for_tenants(&self) -> bool {
        let full = self.kept > 0 && !self.keeps(self.bytes_of_a_read());
        let waits = full && self.parked.is_kept();
        waits && (self.returns() || self.unread_ticks < self.limits.ticks_to_park)
    }

    /// What was parked can be taken in, as far as there is room.
    fn returns(&self) -> bool {
        self.returning_of.is_some() || self.parked.may_return()
    }

    fn read_ended(&mut self, end: ReadEnd<B>) {
        match end {
            ReadEnd::Failed => {}
            ReadEnd::Moved | ReadEnd::Entries { .. } => self.redis_answered(),
        }
        let known = self.entries.len() + usize::from(self.opening.is_some()) + self.parked.len();
        let Some(read) = self.cursor.read_ended(end, known) else {
            return;
        };
        self.given.delivered_before(self.cursor.delivered());
        let (ids, recorded, parked) = (&self.ids, &self.recorded_meanwhile, &self.parked);
        let is_known = |id| ids.contains(&id) || recorded.contains(&id) || parked.contains(id);
        let new = read.into_iter().filter(|entry| !is_known(entry.id));
        self.untaken.extend(new);
    }

    /// Takes in what was read, in order: while one entry's bytes are being read, nothing behind it is
    /// taken in, since its lanes aren't known.
    fn take_in(&mut self) {
        if self.opening.is_some() {
            return;
        }
        if let Some(entry) = self.next_entry() {
            let number = self.next_number;
            self.next_number += 1;
            self.opening = Some((number, entry.id));
            self.ids.insert(entry.id);
            self.commands.push_back(Command::Open(number, entry));
        }
    }

    /// The next entry to take in: what returns comes first. What is newer of its account is parked
    /// until all of that is taken in.
    fn next_entry(&mut self) -> Option<ReadEntry<B>> {
        if let Some(entry) = self.returning.pop_front() {
            self.parked.taken_in(entry.id);
            self.kept -= entry.bytes;
            if self.kept < self.limits.kept / 2 {
                self.unread_ticks = 0;
            }
            return Some(entry);
        }
        if let Some(account) = self.returning_of.take_if(|_| !self.fetching) {
            self.parked.returned(&account);
        }
        while let Some(entry) = self.untaken.pop_front() {
            match &entry.account {
                Some(account) if !entry.known || self.parked.holds(account) => {
                    let account = account.clone();
                    self.park(account, entry);
                }
                Some(_) | None => return Some(entry),
            }
        }
        None
    }

    fn opened(&mut self, opened: Opened) {
        let Some((number, id)) = self.opening.take() else {
            return;
        };
        match opened {
            Opened::Over => {
                self.entries.insert(number, Entry::over(id));
                self.finished.push_back(number);
            }
            Opened::Items(items) => self.opened_with_items(number, id, items),
        }
    }

    fn opened_with_items(&mut self, number: EntryNumber, id: EntryId, items: Items) {
        if items.verdict.is_none() {
            self.wait_again(&items.account);
        }
        let mut ready = Vec::new();
        let mut left = BTreeSet::new();
        for (n, keys) in items.open {
            left.insert(n);
            if self.lanes.add((number, n), keys) {
                ready.push(n);
            }
        }
        // What can't run yet and finds memory short is read again when it can.
        let waits = ready.is_empty() && !left.is_empty();
        let body = if waits && self.bytes > self.limits.bytes / 2 {
            self.commands.push_back(Command::Forget(number));
            Body::Away
        } else {
            self.bytes += items.bytes;
            Body::Here
        };
        let tenant = match items.verdict {
            Some(verdict) => TenantOf::Known(verdict),
            None => TenantOf::Unknown,
        };
        let archive = if items.archive {
            Archive::Due
        } else {
            Archive::Over
        };
        let open = Open {
            tenant,
            only_for: items.only_for,
            has_no_account: items.has_no_account,
            begun: false,
            empty: left.is_empty(),
            left,
            ready,
            running: 0,
            archive,
        };
        let entry = Entry {
            id,
            account: items.account,
            bytes: items.bytes,
            body,
            recorded: items.done.len(),
            published: items.done,
            phase: Phase::Open(open),
        };
        self.entries.insert(number, entry);
        self.starting.push_back(number);
    }

    // Waiting for a tenant

    fn park(&mut self, account: String, entry: ReadEntry<B>) {
        let id = entry.id;
        let first = !self.parked.holds(&account);
        let because = first.then(|| LookupReason::Parked(entry.body.clone()));
        let kept = self.keeps(entry.bytes).then_some(entry);
        self.kept += kept.as_ref().map_or(0, |entry| entry.bytes);
        self.parked.park(&account, id, kept);
        if let Some(because) = because {
            self.resolve(account, because);
        }
    }

    /// An account's tenant was forgotten: what returns of it waits until the tenant is known again.
    fn wait_again(&mut self, account: &str) {
        if self.returning_of.as_deref() == Some(account) && !self.returning.is_empty() {
            let returning = std::mem::take(&mut self.returning);
            self.kept -= returning.iter().map(|entry| entry.bytes).sum::<usize>();
            let mut back = Vec::with_capacity(returning.len());
            for entry in returning {
                let (id, bytes) = (entry.id, entry.bytes);
                let kept = self.keeps(bytes).then_some(entry);
                self.kept += kept.as_ref().map_or(0, |_| bytes);
                back.push((id, kept));
            }
            self.parked.put_back(account, back.into_iter());
            self.returning_of = None;
        }
    }

    /// There is room for as many more bytes of entries that wait.
    fn keeps(&self, bytes: usize) -> bool {
        self.kept + bytes <= self.limits.kept
    }

    fn resolve(&mut self, account: String, because: LookupReason<B>) {
        if let Some(note) = self.given.doubt(&account) {
            self.note_tenant(account.clone(), None, note);
        }
        self.commands.push_back(Command::Resolve(account, because));
    }

    fn note_tenant(&mut self, account: String, of: Option<EntryNumber>, note: TenantNote) {
        self.given.writes(&account, of);
        self.commands.push_back(Command::NoteTenant(account, note));
    }

    fn tenant_known(&mut self, account: &str, verdict: &Verdict) {
        self.parked.release(account);
        for number in self.asked.remove(account).unwrap_or_default() {
            if let Some(open) = self.entries.get_mut(&number).and_then(Entry::open) {
                open.tenant = TenantOf::Known(verdict.clone());
                self.starting.push_back(number);
            }
        }
    }

    /// Entries that were parked return, now that their tenant is known.
    fn return_more(&mut self) {
        if self.returning_of.is_some() || self.is_full() {
            return;
        }
        let Some((account, returning)) = self.parked.next(self.limits.returning) else {
            return;
        };
        self.returning_of = Some(account.clone());
        match returning {
            ReturningEntries::Kept(entries) => {
                self.returning.extend(entries);
            }
            ReturningEntries::Ids(ids) => {
                self.fetching = true;
                let bytes = self.bytes_of_a_read();
                self.commands.push_back(Command::Fetch {
                    account,
                    ids,
                    bytes,
                });
            }
        }
    }

    fn fetched(
        &mut self,
        account: String,
        ids: &[EntryId],
        entries: Vec<ReadEntry<B>>,
        known: bool,
    ) {
        self.fetching = false;
        if known {
            let left = ids.iter().skip(entries.len());
            self.parked.put_back(&account, left.map(|id| (*id, None)));
            self.kept += entries.iter().map(|entry| entry.bytes).sum::<usize>();
            self.returning.extend(entries);
            return;
        }
        // It was forgotten meanwhile.
        let all = ids.iter().map(|id| (*id, None));
        self.parked.put_back(&account, all);
        self.returning_of = None;
        self.resolve(account, LookupReason::Forgotten);
    }

    // Running

    /// Starts what of an entry can run: it needs its tenant and its body.
    fn start(&mut self, number: EntryNumber) {
        if self.draining || !self.has_tenant(number) {
            return;
        }
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let (body, published) = (entry.body, !entry.published.is_empty());
        let Some(open) = entry.open() else {
            return;
        };
        let TenantOf::Given(verdict) = &open.tenant else {
            return;
        };
        let verdict = open.whose(verdict);
        if body == Body::Here && !open.begun {
            open.begun = true;
            self.commands
                .push_back(Command::Begin(number, verdict.clone()));
        }
        if open.ready.is_empty() && !open.left.is_empty() {
            return;
        }
        match body {
            Body::Here => {}
            Body::Away if !self.to_load.contains(&number) => return self.to_load.push_back(number),
            Body::Away | Body::Loading => return,
            Body::Gone => return self.end_gone(number),
        }
        self.start_ready(number, &verdict, published);
        self.finish(number);
    }

    fn start_ready(&mut self, number: EntryNumber, verdict: &Verdict, published: bool) {
        let Some(open) = self.entries.get_mut(&number).and_then(Entry::open) else {
            return;
        };
        let set_aside = open.reason_to_set_aside(verdict);
        // A former tenure may have published some of it, before its tenant was suspended. Of what goes
        // into the failed store as a whole, that object is the raw one.
        let archived = set_aside.is_none() || published || open.empty;
        // The others wait as numbers; what is set aside has ended at once.
        let most = match set_aside {
            None => self.limits.running_of_entry - open.running,
            Some(_) => open.ready.len(),
        };
        let ready: Vec<usize> = open.ready.drain(..most.min(open.ready.len())).collect();
        open.running += ready.len();
        self.running += ready.len();
        if open.archive == Archive::Due {
            open.archive = if archived {
                Archive::Running
            } else {
                Archive::Over
            };
            self.commands
                .extend(archived.then_some(Command::Archive(number)));
        }
        for n in ready {
            match set_aside {
                None => self.commands.push_back(Command::Prepare((number, n))),
                Some(reason) => {
                    let item = (number, n);
                    self.commands.push_back(Command::SetAside(item, reason));
                    self.item_ended(item, End::SetAside);
                }
            }
        }
    }

    /// Whether an entry has been given its tenant. If not, what must come before is under way.
    fn has_tenant(&mut self, number: EntryNumber) -> bool {
        let Some(entry) = self.entries.get_mut(&number) else {
            return false;
        };
        let (id, account) = (entry.id, entry.account.clone());
        let Some(open) = entry.open() else {
            return false;
        };
        let verdict = match &open.tenant {
            TenantOf::Given(_) => return true,
            TenantOf::Asked => return false,
            TenantOf::Known(verdict) => verdict.clone(),
            TenantOf::Unknown => {
                open.tenant = TenantOf::Asked;
                let waiting = self.asked.entry(account.clone()).or_default();
                let first = waiting.is_empty();
                waiting.insert(number);
                if first {
                    self.resolve(account, LookupReason::Entry(number));
                }
                self.forget_body(number);
                return false;
            }
        };
        match self.given.give(&account, number, id, verdict) {
            TenantAssignment::Given(verdict) => {
                open.tenant = TenantOf::Given(verdict);
                true
            }
            TenantAssignment::Note(note) => {
                self.note_tenant(account, Some(number), note);
                false
            }
            TenantAssignment::Wait => false,
        }
    }

    /// Drops the body of an entry of which nothing runs, if memory is short.
    fn forget_body(&mut self, number: EntryNumber) {
        let short = self.bytes > self.limits.bytes / 2;
        if let Some(entry) = self.entries.get_mut(&number)
            && short
            && entry.body == Body::Here
            && let Phase::Open(open) = &entry.phase
            && open.running == 0
            && !open.left.is_empty()
            && open.archive != Archive::Running
        {
            entry.body = Body::Away;
            self.bytes -= entry.bytes;
            self.commands.push_back(Command::Forget(number));
        }
    }

    fn load_more(&mut self) {
        // One, if nothing else could make room: bodies that are here may all wait for it.
        while (self.bytes < self.limits.bytes || self.running + self.loading == 0)
            && let Some(number) = self.to_load.pop_front()
        {
            if let Some(entry) = self.entries.get_mut(&number)
                && entry.body == Body::Away
            {
                // Counted from here on, so that not all are loaded at once.
                entry.body = Body::Loading;
                self.loading += 1;
                self.bytes += entry.bytes;
                self.commands.push_back(Command::Load(number));
            }
        }
    }

    /// Only somebody else's XDEL can take a body away.
    fn loaded(&mut self, number: EntryNumber, here: bool) {
        self.loading -= 1;
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        entry.body = if here { Body::Here } else { Body::Gone };
        self.starting.push_back(number);
    }

    /// Ends what of an entry would run now. The others wait for their lanes, as those behind them do.
    fn end_gone(&mut self, number: EntryNumber) {
        let Some(open) = self.entries.get_mut(&number).and_then(Entry::open) else {
            return;
        };
        open.archive = Archive::Over;
        let ready = std::mem::take(&mut open.ready);
        open.running += ready.len();
        self.running += ready.len();
        for n in ready {
            self.item_ended((number, n), End::SetAside);
        }
    }

    fn prepared(&mut self, item: ItemId) {
        if let Some(entry) = self.entries.get(&item.0) {
            self.turns.wait(&entry.account, item);
        }
    }

    fn end_turn(&mut self, item: ItemId) {
        if let Some(entry) = self.entries.get(&item.0) {
            self.turns.end(&entry.account);
        }
    }

    fn redis_answered(&mut self) {
        self.silent_ticks = 0;
        self.redis_failed = false;
    }

    /// Redis may be away.
    fn is_silent(&self) -> bool {
        self.redis_failed || self.silent_ticks >= self.limits.silent_ticks
    }

    fn publish_more(&mut self) {
        if self.is_silent() {
            return;
        }
        let turns = std::iter::from_fn(|| self.turns.take());
        let items: Vec<ItemId> = turns.map(|(_, item)| item).collect();
        if !items.is_empty() {
            self.publishing += items.len();
            self.commands.push_back(Command::Publish(items));
        }
    }

    /// An item is in its queue, or goes to the failed store with its entry's record. A publication
    /// keeps its turn until Redis knows of it.
    fn item_ended(&mut self, item: ItemId, end: End) {
        let (number, n) = item;
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        if end == End::Published {
            entry.published.push(n);
            self.with_progress.insert(number);
        }
        if let Some(open) = entry.open() {
            open.running -= 1;
            self.running -= 1;
            open.left.remove(&n);
            if !open.ready.is_empty() {
                self.starting.push_back(number);
            }
        }
        self.end_lane(item);
        self.finish(number);
        self.forget_body(number);
    }

    fn end_lane(&mut self, item: ItemId) {
        for (number, n) in self.lanes.finish(item) {
            if let Some(open) = self.entries.get_mut(&number).and_then(Entry::open) {
                open.ready.push(n);
                self.starting.push_back(number);
            }
        }
    }

    // Finishing

    fn archived(&mut self, number: EntryNumber) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        match &mut entry.phase {
            Phase::Open(open) => {
                open.archive = Archive::Over;
                self.forget_body(number);
            }
            Phase::Archiving => self.finished(number),
            Phase::Finished => {}
        }
    }

    /// An entry of which nothing is open any more waits for its archive write, then for its record.
    fn finish(&mut self, number: EntryNumber) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        let Phase::Open(open) = &entry.phase else {
            return;
        };
        if !open.left.is_empty() {
            return;
        }
        match open.archive {
            Archive::Due => {}
            Archive::Running => entry.phase = Phase::Archiving,
            Archive::Over => self.finished(number),
        }
    }

    fn finished(&mut self, number: EntryNumber) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.phase = Phase::Finished;
            self.with_progress.remove(&number);
            self.finished.push_back(number);
        }
    }

    /// Publications of entries that go on, of which Redis doesn't know.
    fn unrecorded_progress(&self) -> usize {
        let entries = self.with_progress.iter();
        let entries = entries.filter_map(|number| self.entries.get(number));
        entries.map(Entry::unrecorded).sum()
    }

    /// One record is under way at a time; what ends meanwhile goes into the next.
    fn record(&mut self) {
        if self.recording.is_some() {
            return;
        }
        if self.refused_ticks >= self.limits.ticks_to_retry
            && let Some(number) = self.refused.pop_front()
        {
            self.refused_ticks = 0;
            let recording = Recording {
                finished: vec![number],
                retry: true,
                ..Recording::default()
            };
            return self.begin_record(recording, Vec::new());
        }
        let records_progress = self.progress_due
            || self.draining
            || !self.progress_refused && self.unrecorded_progress() >= self.limits.worth_a_record;
        let most = self.limits.entries_per_record.min(self.finished.len());
        let finished: Vec<EntryNumber> = self.finished.drain(..most).collect();
        let (mut recording, mut progress) = (Recording::default(), Vec::new());
        if records_progress {
            self.progress_due = false;
            for number in std::mem::take(&mut self.with_progress) {
                if let Some(entry) = self.entries.get_mut(&number) {
                    entry.published.sort_unstable();
                    recording.progress.push((number, entry.unrecorded()));
                    progress.push((number, entry.published.clone()));
                }
            }
        }
        // An empty record asks whether Redis answers.
        let asks =
            !self.draining && (self.redis_failed || self.is_silent() && self.turns.may_take());
        if finished.is_empty() && progress.is_empty() && !asks {
            return;
        }
        recording.finished = finished;
        self.begin_record(recording, progress);
    }

    fn begin_record(&mut self, recording: Recording, progress: Vec<(EntryNumber, Vec<usize>)>) {
        let published = |number| {
            let entry = self.entries.get(&number);
            (
                number,
                entry.map_or(Vec::new(), |entry| entry.published.clone()),
            )
        };
        let finished = recording.finished.iter().copied().map(published).collect();
        self.commands
            .push_back(Command::Record { finished, progress });
        self.recording = Some(recording);
    }

    fn recorded(&mut self, refused: &[EntryNumber]) {
        let Some(recording) = self.recording.take() else {
            return;
        };
        self.redis_answered();
        if recording.retry {
            // Counted from its answer: before the next retry comes a record of the others, however long
            // each takes.
            self.refused_ticks = 0;
            // What kept Redis from taking one of them may be over for all.
            if refused.is_empty() {
                self.finished.extend(self.refused.drain(..));
            }
        }
        for (number, publications) in recording.progress {
            if refused.contains(&number) {
                let entry = self.entries.get_mut(&number);
                let goes_on = entry.is_some_and(|it| !matches!(it.phase, Phase::Finished));
                // Handed over, it is the next owner's.
                if goes_on && !self.draining {
                    self.with_progress.insert(number);
                    self.progress_refused = true;
                }
                continue;
            }
            if let Some(entry) = self.entries.get_mut(&number) {
                entry.recorded += publications;
                (0..publications).for_each(|_| self.turns.end(&entry.account));
            }
        }
        if self.refused.is_empty() {
            self.refused_ticks = 0;
        }
        for number in recording.finished {
            if refused.contains(&number) {
                self.refused.push_back(number);
            } else if let Some(entry) = self.entries.remove(&number) {
                (0..entry.unrecorded()).for_each(|_| self.turns.end(&entry.account));
                // What has ended has its body here, or had none.
                self.bytes -= entry.bytes;
                self.ids.remove(&entry.id);
                if self.cursor.is_busy() {
                    self.recorded_meanwhile.insert(entry.id);
                }
            }
        }
    }
}
