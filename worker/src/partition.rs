//! One owned partition: what was pending first, then what is new. Everything that waits is a future
//! in one set, so that this file's loop is the only one that changes the partition's state.

mod entry;
mod given;
mod item;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use shared::entry::{Returned, StreamEntry, format_numbers, parse_numbers};
use shared::redis::class;
use shared::trace;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use self::entry::{Archive, Entry, Head, SetAside};
use self::given::{Given, Gives, Note};
use self::item::{Published, RunningItem};
use crate::ask::neighbour::Trace;
use crate::context::Work;
use crate::item::customer::Customer;
use crate::item::event;
use crate::item::payload::Payload;
use crate::item::tenant::Verdict;
use crate::metrics::Uploaded;
use crate::out::error::{Decision, Failure, Reason};
use crate::out::media::outcome::Said;
use crate::out::store::{self};
use crate::owed::follow_up;
use crate::owed::later;
use crate::owed::spool::{self, Spool};
use crate::read::gate::{Gate, Turn};
use crate::read::lanes::Lanes;
use crate::read::leases::Tenure;
use crate::read::parked::Parked;
use crate::read::stream::{
    Finished, Notes, OwedKind, RawEntry, Read, ReadFrom, Sleeper, StreamError,
};
use crate::retry::Backoff;

/// Bodies of one read, so that a script stays short.
const BYTES_PER_READ: usize = 1_048_576;
/// Entries and items known at once; those that can't run yet are kept without their bodies.
const MOST_ENTRIES: usize = 20_000;
const MOST_ITEMS: usize = 50_000;
/// Entries of this worker that wait for their tenant, as ids; beyond, a partition that has some isn't
/// read. About 60 bytes each.
const MOST_PARKED: usize = 1_000_000;
/// Entries that return at once when their tenant is known.
const RETURNING: usize = 256;
/// An acknowledgement waits this long for the archive; then the archive is owed.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(2);
/// After a failure the archive is owed at once for this long.
const ARCHIVE_PAUSE: Duration = Duration::from_secs(5);
/// What is published of entries that aren't acknowledged yet (several items, a slow archive) is
/// noted this often, and as soon as it is this much.
const NOTE_INTERVAL: Duration = Duration::from_millis(200);
const WORTH_A_NOTE: usize = 16;
/// Publications of a partition that Redis doesn't know of yet, by an acknowledgement or a note: as
/// many can be repeated after a crash. Beyond, nothing is published, so a Redis that takes no notes stops it.
const MOST_UNRECORDED: usize = 64;
/// From this many crashes on an entry is processed alone.
const CRASHES_OF_A_SUSPECT: usize = 3;
/// Handing over waits this long for what is in work.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Owns a partition until the tenure is lost, or it is told to drain and has.
pub async fn own(work: Arc<Work>, spool: Arc<Spool>, tenure: Arc<Tenure>) {
    let (owed, owed_media) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut partition = Partition::new(work.clone(), tenure.clone(), owed.clone());
    partition.owed_media = owed_media.clone();
    tokio::select! {
        () = Box::pin(partition.run()) => {}
        () = later::work_off(work.clone(), tenure.clone(), owed) => {}
        () = watch::watch(&work, &tenure) => {}
        () = Box::pin(spool::empty(&spool, &tenure)) => {}
        () = Box::pin(follow_up::work_off(work.clone(), tenure.clone(), owed_media)) => {}
    }
    work.metrics.left(tenure.partition);
}

/// A future of the partition came to its end.
enum Done {
    Read(ReadFrom, Result<Read, StreamError>),
    Slept(Box<Sleeper>),
    Announced(Result<(), StreamError>),
    Loaded(u64, Option<RawEntry>),
    /// Of the entries of an account that were parked, those that were fetched: the first ones.
    Fetched(String, Vec<String>, Vec<RawEntry>),
    Tenant(String, Verdict),
    /// Whose the entries of an account are is noted.
    Given(String, Note, Result<(), StreamError>),
    Item(u64, usize, Result<Published, Decision>),
    Archived(u64, bool),
    Acknowledged(u64, Result<(), StreamError>),
    /// Redis knows of the publications that had these turns.
    Noted(Vec<Turn>, Result<(), StreamError>),
}

struct Partition {
    work: Arc<Work>,
    tenure: Arc<Tenure>,
    owed: Arc<Notify>,
    owed_media: Arc<Notify>,
    notes: Notes,
    futures: FuturesUnordered<BoxFuture<'static, Done>>,
    /// What is read next.
    from: ReadFrom,
    reading: bool,
    /// The last entry read; after a read whose answer got lost, what follows it is read again.
    last_read: String,
    sleeper: Option<Box<Sleeper>>,
    /// Read, not yet taken in.
    backlog: VecDeque<RawEntry>,
    /// What waits for its tenant.
    parked: Parked,
    /// The account whose parked entries are fetched again, or taken in.
    returning_of: Option<String>,
    fetching: bool,
    returning: VecDeque<RawEntry>,
    /// A suspect is in work, or being announced: nothing else is begun.
    alone: Option<String>,
    /// It waits for everything before it, or for being announced.
    suspect: Option<RawEntry>,
    window: BTreeMap<u64, Entry>,
    ids: HashSet<String>,
    next: u64,
    loaded_bytes: usize,
    to_load: VecDeque<u64>,
    lanes: Lanes,
    waiting_for_tenant: HashMap<String, BTreeSet<u64>>,
    /// Which tenants the accounts' entries were given.
    given: Given,
    archive_pause: Option<Instant>,
    /// Entries with publications since the last note, and whether one is on its way.
    unnoted: Vec<u64>,
    noting: bool,
    /// A turn for each publication that may be unrecorded; accounts take turns.
    unrecorded: Arc<Gate>,
    draining: bool,
}

impl Partition {
    fn new(work: Arc<Work>, tenure: Arc<Tenure>, owed: Arc<Notify>) -> Self {
        let sleeper = Some(Box::new(work.stream.sleeper(tenure.partition)));
        Self {
            parked: Parked::new(work.parked.clone()),
            returning_of: None,
            fetching: false,
            returning: VecDeque::new(),
            suspect: None,
            work,
            tenure,
            owed,
            owed_media: Arc::default(),
            notes: Notes::default(),
            futures: FuturesUnordered::new(),
            from: ReadFrom::Pending("0-0".to_owned()),
            reading: false,
            last_read: "0-0".to_owned(),
            sleeper,
            backlog: VecDeque::new(),
            alone: None,
            window: BTreeMap::new(),
            ids: HashSet::new(),
            next: 0,
            loaded_bytes: 0,
            to_load: VecDeque::new(),
            lanes: Lanes::default(),
            waiting_for_tenant: HashMap::new(),
            given: Given::default(),
            archive_pause: None,
            unnoted: Vec::new(),
            noting: false,
            unrecorded: Gate::new(MOST_UNRECORDED, MOST_ITEMS),
            draining: false,
        }
    }

    async fn run(mut self) {
        tokio::select! {
            mut notes = read_notes(&self.work, &self.tenure) => {
                self.given = Given::read(std::mem::take(&mut notes.tenants));
                self.notes = notes;
            }
            () = self.tenure.lost.cancelled() => return,
            () = self.tenure.drain.cancelled() => return,
        }
        let mut note = tokio::time::interval(NOTE_INTERVAL);
        let mut drained_by = None;
        loop {
            self.take_in();
            self.load_more();
            self.return_more();
            self.read_more();
            if self.draining {
                self.note_progress();
                if self.idle() {
                    break;
                }
            }
            let tenure = self.tenure.clone();
            let lease_ends = tenure.good_until();
            tokio::select! {
                Some(done) = self.futures.next() => self.take(done),
                () = tenure.lost.cancelled() => break,
                () = tokio::time::sleep_until(lease_ends) => {
                    // Renewed in the meantime, or over by this machine's clock.
                    if !tenure.holds() {
                        tracing::warn!(partition = tenure.partition, "a lease could not be renewed in time");
                        tenure.lost.cancel();
                    }
                }
                () = tenure.drain.cancelled(), if !self.draining => {
                    self.draining = true;
                    drained_by = Some(Instant::now() + DRAIN_TIME);
                }
                () = tokio::time::sleep_until(drained_by.unwrap_or(lease_ends)), if drained_by.is_some() => break,
                _ = note.tick() => self.note_progress(),
            }
        }
        if let (true, Some(id)) = (self.tenure.lost.is_cancelled(), &self.alone) {
            // Whoever took over counted this as a death, but we live.
            let taking_back = self.work.stream.take_back_death(&self.tenure, id);
            if !matches!(timeout(DRAIN_TIME, taking_back).await, Ok(Ok(()))) {
                tracing::warn!(entry = id, "a death may have been counted that was none");
            }
        }
    }

    /// Nothing is in work that this worker could still finish.
    fn idle(&self) -> bool {
        let idle = |entry: &Entry| entry.running == 0 && !entry.acknowledging && !entry.archiving();
        !self.noting && self.unnoted.is_empty() && self.window.values().all(idle)
    }

    fn push(&self, future: impl Future<Output = Done> + Send + 'static) {
        self.futures.push(Box::pin(future));
    }

    fn lose(&self) {
        tracing::warn!(partition = self.tenure.partition, "lost a partition");
        self.tenure.lost.cancel();
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Read(from, read) => self.was_read(from, read),
            Done::Slept(sleeper) => {
                self.sleeper = Some(sleeper);
                self.reading = false;
            }
            Done::Announced(Ok(())) => self.take_in_alone(),
            Done::Loaded(seq, raw) => self.was_loaded(seq, raw),
            Done::Fetched(waba_id, ids, entries) => self.was_fetched(&waba_id, &ids, entries),
            Done::Tenant(waba_id, verdict) => {
                self.parked.release(&waba_id);
                for seq in self.waiting_for_tenant.remove(&waba_id).unwrap_or_default() {
                    if self.give(seq, verdict.clone()) {
                        self.start(seq);
                    }
                }
            }
            Done::Given(waba_id, note, Ok(())) => {
                for seq in self.given.written(&waba_id, note) {
                    self.start(seq);
                }
            }
            Done::Item(seq, n, outcome) => self.item_ended(seq, n, outcome),
            Done::Archived(seq, archived) => {
                if archived {
                    self.work.metrics.archived.inc();
                } else {
                    self.archive_pause = Some(Instant::now() + ARCHIVE_PAUSE);
                }
                if let Some(entry) = self.window.get_mut(&seq)
                    && entry.archiving()
                {
                    entry.archive = if archived {
                        Archive::Done
                    } else {
                        Archive::Owed
                    };
                }
                self.finish(seq);
            }
            Done::Acknowledged(seq, Ok(())) => {
                if let Some(entry) = self.window.remove(&seq) {
                    if entry.payload.is_some() {
                        self.loaded_bytes -= entry.bytes;
                    }
                    if self.alone.as_ref() == Some(&entry.id) {
                        self.alone = None;
                    }
                    self.ids.remove(&entry.id);
                }
            }
            Done::Noted(turns, Ok(())) => {
                self.noting = false;
                drop(turns);
                self.note_if_worth_it();
            }
            Done::Announced(Err(_))
            | Done::Acknowledged(_, Err(_))
            | Done::Noted(_, Err(_))
            | Done::Given(_, _, Err(_)) => self.lose(),
        }
    }

    // Reading

    /// No more entries can be taken in now.
    fn is_full(&self) -> bool {
        self.draining
            || !self.to_load.is_empty()
            || self.loaded_bytes >= self.work.read_bytes
            || self.window.len() >= MOST_ENTRIES
            || self.lanes.len() >= MOST_ITEMS
    }

    fn read_more(&mut self) {
        let parked_too_many = !self.parked.is_empty() && self.parked.total() >= MOST_PARKED;
        let untaken = !self.backlog.is_empty() || self.suspect.is_some();
        if self.reading || untaken || parked_too_many || self.is_full() {
            return;
        }
        self.reading = true;
        let bytes = BYTES_PER_READ.min(self.work.read_bytes - self.loaded_bytes);
        let (work, tenure, from) = (self.work.clone(), self.tenure.clone(), self.from.clone());
        self.push(async move {
            let read = work.stream.read(&tenure, &from, bytes).await;
            if let Err(StreamError::Redis(error)) = &read {
                tracing::warn!(class = class(error), %error, "redis command failed, will retry");
                Backoff::for_server().wait().await;
            }
            Done::Read(from, read)
        });
    }

    fn was_read(&mut self, from: ReadFrom, read: Result<Read, StreamError>) {
        self.reading = false;
        let read = match read {
            Ok(read) => read,
            Err(StreamError::NotOwner) => return self.lose(),
            Err(StreamError::Redis(_)) => {
                // The answer may be lost while the read was done: what it took is pending now.
                if from == ReadFrom::New {
                    self.from = ReadFrom::Pending(self.last_read.clone());
                }
                return;
            }
        };
        self.given.delivered_before(&read.last_delivered);
        match (read.entries.last(), from) {
            (Some(last), from) => {
                self.last_read.clone_from(&last.id);
                if let ReadFrom::Pending(_) = from {
                    self.from = ReadFrom::Pending(last.id.clone());
                }
            }
            (None, ReadFrom::Pending(_)) => self.from = ReadFrom::New,
            (None, ReadFrom::New) if read.pending > self.known_pending() => {
                // Something is pending that never arrived here: a late read of a lost connection.
                self.from = ReadFrom::Pending("0-0".to_owned());
            }
            (None, ReadFrom::New) => self.sleep(read.last_delivered),
        }
        let (window, parked) = (&self.ids, &self.parked);
        let new = read.entries.into_iter();
        self.backlog
            .extend(new.filter(|entry| !window.contains(&entry.id) && !parked.contains(&entry.id)));
        self.work
            .metrics
            .parked(self.tenure.partition, self.parked.len());
    }

    fn known_pending(&self) -> usize {
        self.window.len() + self.parked.len()
    }

    // Waiting for a tenant

    /// Parks an entry whose tenant isn't known, or of whose account something is parked.
    fn park(&mut self, raw: &RawEntry) -> bool {
        let text = |name: &str| {
            let value = raw.fields.as_ref()?.get(name)?;
            std::str::from_utf8(value).ok()
        };
        // What can't be read needs no tenant.
        let (Some(waba_id), Some("")) = (text("w"), text("r")) else {
            return false;
        };
        let waits = self.parked.holds(waba_id);
        if (!waits && self.work.tenants.knows(waba_id)) || !self.parked.park(waba_id, &raw.id) {
            return false;
        }
        if !waits {
            let trace = ["c", "p"].map(|name| text(name).unwrap_or_default().to_owned());
            self.resolve(waba_id.to_owned(), trace);
        }
        true
    }

    fn resolve(&mut self, waba_id: String, trace: [String; 2]) {
        if let Some(note) = self.given.doubt(&waba_id) {
            self.note_given(waba_id.clone(), None, note);
        }
        let tenants = self.work.tenants.clone();
        let [correlation_id, traceparent] = &trace;
        let span = tracing::error_span!("tenant", correlation_id, waba_id);
        trace::adopt(&span, traceparent);
        let resolving = async move {
            let [correlation_id, traceparent] = &trace;
            let trace = Trace {
                correlation_id,
                traceparent,
            };
            let verdict = tenants.resolve(&waba_id, trace).await;
            Done::Tenant(waba_id, verdict)
        };
        self.push(resolving.instrument(span));
    }

    /// Fetches entries again that were parked and whose tenant is known now.
    fn return_more(&mut self) {
        if self.returning_of.is_some() || self.is_full() {
            return;
        }
        let Some((waba_id, ids)) = self.parked.next(RETURNING) else {
            return;
        };
        self.returning_of = Some(waba_id.clone());
        self.fetching = true;
        let bytes = BYTES_PER_READ.min(self.work.read_bytes - self.loaded_bytes);
        let (work, tenure) = (self.work.clone(), self.tenure.clone());
        self.push(async move {
            let mut backoff = Backoff::for_server();
            loop {
                match work.stream.fetch_all(&tenure, &ids, bytes).await {
                    Ok(entries) => return Done::Fetched(waba_id, ids, entries),
                    Err(error) => tracing::warn!(class = class(&error), %error, "redis command failed, will retry"),
                }
                backoff.wait().await;
            }
        });
    }

    fn was_fetched(&mut self, waba_id: &str, ids: &[String], entries: Vec<RawEntry>) {
        self.fetching = false;
        if self.work.tenants.knows(waba_id) {
            self.parked
                .put_back(waba_id, &ids[entries.len().min(ids.len())..]);
            self.returning.extend(entries);
            return;
        }
        // It was forgotten meanwhile.
        self.parked.put_back(waba_id, ids);
        self.returning_of = None;
        self.resolve(waba_id.to_owned(), Default::default());
    }

    /// The next entry to take in: what returns comes first. What is newer of its account is parked
    /// until all of that is taken in.
    fn next_entry(&mut self) -> Option<RawEntry> {
        if let Some(suspect) = self.suspect.take() {
            return Some(suspect);
        }
        if let Some(entry) = self.returning.pop_front() {
            self.parked.taken_in(&entry.id);
            return Some(entry);
        }
        if let Some(waba_id) = self.returning_of.take_if(|_| !self.fetching) {
            self.parked.returned(&waba_id);
        }
        while let Some(entry) = self.backlog.pop_front() {
            if !self.park(&entry) {
                return Some(entry);
            }
        }
        None
    }

    fn sleep(&mut self, last: String) {
        let Some(mut sleeper) = self.sleeper.take() else {
            return;
        };
        self.reading = true;
        self.push(async move {
            if let Err(error) = sleeper.sleep(&last).await {
                tracing::warn!(class = class(&error), %error, "redis command failed, will retry");
                Backoff::for_server().wait().await;
            }
            Done::Slept(sleeper)
        });
    }

    /// Takes in what was read, in order. A suspect waits until everything before it is finished,
    /// and everything behind it waits for the suspect.
    fn take_in(&mut self) {
        while self.alone.is_none() && !self.draining {
            let Some(entry) = self.next_entry() else {
                return;
            };
            let crashes = self.notes.suspects.get(&entry.id).copied().unwrap_or(0);
            if crashes < CRASHES_OF_A_SUSPECT {
                self.admit(entry);
                continue;
            }
            let id = entry.id.clone();
            self.suspect = Some(entry);
            if !self.window.is_empty() {
                return;
            }
            tracing::warn!(entry = id, crashes, "a suspect is processed alone");
            self.alone = Some(id.clone());
            let (work, tenure) = (self.work.clone(), self.tenure.clone());
            self.push(async move {
                Done::Announced(persist(&tenure, || work.stream.announce_alone(&tenure, &id)).await)
            });
        }
    }

    fn take_in_alone(&mut self) {
        if let Some(entry) = self.suspect.take() {
            self.admit(entry);
        }
    }

    fn admit(&mut self, raw: RawEntry) {
        let Some(fields) = &raw.fields else {
            tracing::error!(
                entry = raw.id,
                "a pending entry was deleted by somebody else"
            );
            let head = Head::nobody(&raw.id);
            self.insert(Entry::new(raw.id, 0, head));
            return self.finish(self.next - 1);
        };
        let bytes = fields.values().map(Vec::len).sum();
        let entry = match StreamEntry::decode(fields) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::error!(entry = raw.id, %error, "an entry can't be decoded");
                let mut broken = Entry::new(raw.id.clone(), bytes, Head::nobody(&raw.id));
                broken.head.returned = Returned::decode(fields);
                broken.failed_body = dump(fields);
                broken.give_up(Reason::Undecodable, Vec::new(), raw.id, error.to_string());
                self.work
                    .metrics
                    .entry_set_aside(1, Reason::Undecodable.name());
                self.insert(broken);
                return self.finish(self.next - 1);
            }
        };
        let done: BTreeSet<usize> = self
            .notes
            .progress
            .remove(&raw.id)
            .and_then(|numbers| parse_numbers(&numbers))
            .unwrap_or_default()
            .into_iter()
            .collect();
        let deaths = self.notes.deaths.get(&raw.id).copied().unwrap_or(0);
        let head = Head::of(&entry);
        let name = head.name.clone();
        let mut admitted = Entry::new(raw.id, bytes, head);
        if deaths >= self.work.max_deliveries {
            let fresh = entry.fresh.iter().copied();
            let open: Vec<usize> = fresh.filter(|n| !done.contains(n)).collect();
            let reason = Reason::Crashes;
            self.work.metrics.entry_set_aside(open.len(), reason.name());
            admitted.deaths = deaths;
            let waba_id = &admitted.head.waba_id;
            let verdict = self.work.tenants.remembered(waba_id);
            admitted.verdict =
                verdict.map(|verdict| self.given.held(waba_id, &admitted.id, verdict));
            admitted.give_up(reason, open, name, reason.told().to_owned());
            self.insert(admitted);
            return self.finish(self.next - 1);
        }
        let payload = match entry.unreadable.clone() {
            Some(reason) => Err(reason),
            None => Payload::open(entry).map_err(|reason| reason.to_string()),
        };
        let payload = match payload {
            Ok(payload) => Arc::new(payload),
            Err(reason) => {
                (admitted.span).in_scope(|| tracing::warn!(reason, "a body can't be read"));
                admitted.give_up(Reason::Unreadable, Vec::new(), name, reason);
                self.work
                    .metrics
                    .entry_set_aside(1, Reason::Unreadable.name());
                self.insert(admitted);
                return self.finish(self.next - 1);
            }
        };
        self.work.traffic.note(&payload);
        let seq = self.next;
        let fresh = &payload.entry.fresh;
        admitted.items = fresh.len();
        admitted.media_until = self.work.media.deadline();
        let said = self.notes.media.remove(&admitted.id);
        admitted.said = Said::read(&said.unwrap_or_default());
        if let Some(item) = fresh.first().and_then(|n| payload.items.get(*n)) {
            admitted.head.name = store::item_name(item);
        }
        if self.work.store.archives() {
            admitted.archive = Archive::Due;
        }
        for n in fresh.iter().copied() {
            if done.contains(&n) {
                admitted.published.push(n);
                if admitted.said.get(&n) == Some(&Said::Pending) {
                    admitted.formerly_pending.push(n);
                }
                continue;
            }
            admitted.open.insert(n);
            let keys = match payload.items.get(n) {
                Some(item) => {
                    Customer::of(&payload, item).lane_keys(&self.work.hasher, &payload, item)
                }
                None => Vec::new(),
            };
            if self.lanes.add((seq, n), keys) {
                admitted.ready.push(n);
            }
        }
        admitted.noted = admitted.published.len();
        // What can't run yet and finds memory short is read again when it can.
        let waits = admitted.ready.is_empty() && admitted.items > 0;
        if !(waits && self.loaded_bytes > self.work.read_bytes / 2) {
            admitted.payload = Some(payload);
            self.loaded_bytes += bytes;
        }
        self.insert(admitted);
        self.start(seq);
    }

    fn insert(&mut self, entry: Entry) {
        self.ids.insert(entry.id.clone());
        self.window.insert(self.next, entry);
        self.next += 1;
    }

    // Running

    /// Starts what of an entry can run: it needs its tenant and its body.
    fn start(&mut self, seq: u64) {
        let Some(entry) = self.window.get_mut(&seq) else {
            return;
        };
        if self.draining || entry.acknowledging {
            return;
        }
        if entry.verdict.is_none()
            && let Some(verdict) = self.work.tenants.remembered(&entry.head.waba_id)
            && !self.give(seq, verdict)
        {
            return;
        }
        let Some(entry) = self.window.get_mut(&seq) else {
            return;
        };
        entry.begin_media(&self.work);
        if entry.ready.is_empty() && !entry.open.is_empty() {
            return;
        }
        let Some(verdict) = entry.verdict.clone() else {
            return self.ask_for_tenant(seq);
        };
        let Some(payload) = entry.payload.clone() else {
            self.to_load.push_back(seq);
            return;
        };
        let tenant = match &verdict {
            Verdict::Active(tenant) => Some(tenant.clone()),
            Verdict::Suspended(_) | Verdict::Unknown | Verdict::Unusable => None,
        };
        let tenant = tenant.filter(|_| !entry.tenant_changed());
        // A former tenure may have published some of it, before its tenant was suspended.
        let begun = tenant.is_some() || !entry.published.is_empty();
        if begun || entry.items == 0 {
            self.archive(seq, &payload, &verdict);
        }
        let Some(entry) = self.window.get_mut(&seq) else {
            return;
        };
        if !begun && entry.items > 0 {
            // The failed object is the raw one.
            entry.archive = Archive::Done;
        }
        let raw_object = entry
            .object_key
            .as_ref()
            .map(|key| self.work.store.raw_object(key));
        let failure = if entry.tenant_changed() {
            Failure::TenantChanged
        } else {
            Failure::Tenant(verdict.clone())
        };
        match &verdict {
            Verdict::Active(tenant) | Verdict::Suspended(tenant) => {
                entry.owe_former(&payload, tenant, raw_object.as_ref());
            }
            Verdict::Unknown | Verdict::Unusable => {}
        }
        let ready = std::mem::take(&mut entry.ready);
        entry.running += ready.len();
        let (entry_id, entry_read_at) = (entry.id.clone(), entry.read_at);
        let delivery = entry.span.clone();
        let of_ready = ready.into_iter().map(|n| {
            let media = entry.media.as_mut().and_then(|media| media.remove(&n));
            (n, media)
        });
        for (n, media) in of_ready.collect::<Vec<_>>() {
            let Some(tenant) = tenant.clone() else {
                let decision = failure.decide();
                self.push(async move { Done::Item(seq, n, Err(decision)) });
                continue;
            };
            let item = RunningItem {
                work: self.work.clone(),
                tenure: self.tenure.clone(),
                payload: payload.clone(),
                raw_object: raw_object.clone(),
                unrecorded: self.unrecorded.clone(),
                entry_id: entry_id.clone(),
                read_at: entry_read_at,
                media,
                tenant,
                n,
            };
            let span = item.span(&delivery);
            let running = async move { Done::Item(seq, n, item.run().await) };
            self.push(running.instrument(span));
        }
        self.finish(seq);
    }

    /// Gives an entry to a tenant; false if that must be noted first.
    fn give(&mut self, seq: u64, verdict: Verdict) -> bool {
        let Some(entry) = self.window.get_mut(&seq) else {
            return false;
        };
        let waba_id = &entry.head.waba_id;
        match self.given.give(waba_id, seq, &entry.id, verdict) {
            Gives::Given(verdict) => {
                entry.decide(verdict);
                true
            }
            Gives::Note(note) => {
                let waba_id = waba_id.clone();
                self.note_given(waba_id, Some(seq), note);
                false
            }
            Gives::Wait => false,
        }
    }

    fn note_given(&mut self, waba_id: String, seq: Option<u64>, note: Note) {
        self.given.writes(&waba_id, seq);
        let (work, tenure, text) = (self.work.clone(), self.tenure.clone(), note.text());
        self.push(async move {
            let noting = persist(&tenure, || {
                work.stream.note_tenant(&tenure, &waba_id, &text)
            });
            let noted = noting.await;
            Done::Given(waba_id, note, noted)
        });
    }

    fn ask_for_tenant(&mut self, seq: u64) {
        let Some(entry) = self.window.get(&seq) else {
            return;
        };
        let waba_id = entry.head.waba_id.clone();
        let waiting = self.waiting_for_tenant.entry(waba_id.clone()).or_default();
        let asked = !waiting.is_empty();
        waiting.insert(seq);
        let trace = entry.head.trace();
        if !asked {
            self.resolve(waba_id, trace);
        }
        self.forget_body(seq);
    }

    /// Drops the body of an entry of which nothing runs, if memory is short.
    fn forget_body(&mut self, seq: u64) {
        let short = self.loaded_bytes > self.work.read_bytes / 2;
        if let Some(entry) = self.window.get_mut(&seq)
            && short
            && entry.running == 0
            && !entry.open.is_empty()
            && !entry.archiving()
            && entry.payload.take().is_some()
        {
            self.loaded_bytes -= entry.bytes;
        }
    }

    fn load_more(&mut self) {
        while self.loaded_bytes < self.work.read_bytes
            && let Some(seq) = self.to_load.pop_front()
        {
            let Some(entry) = self
                .window
                .get(&seq)
                .filter(|entry| entry.payload.is_none())
            else {
                continue;
            };
            // Counted from here on, so that not all are loaded at once.
            self.loaded_bytes += entry.bytes;
            let (work, tenure, id) = (self.work.clone(), self.tenure.clone(), entry.id.clone());
            self.push(async move {
                let mut backoff = Backoff::for_server();
                loop {
                    match work.stream.fetch(&tenure, &id).await {
                        Ok(raw) => return Done::Loaded(seq, raw),
                        Err(error) => tracing::warn!(class = class(&error), %error, "redis command failed, will retry"),
                    }
                    backoff.wait().await;
                }
            });
        }
    }

    fn was_loaded(&mut self, seq: u64, raw: Option<RawEntry>) {
        let payload = raw
            .and_then(|raw| StreamEntry::decode(&raw.fields?).ok())
            .and_then(|entry| Payload::open(entry).ok());
        let Some(entry) = self.window.get_mut(&seq) else {
            return;
        };
        if entry.payload.is_some() {
            self.loaded_bytes -= entry.bytes;
            return self.start(seq);
        }
        match payload {
            Some(payload) => {
                entry.payload = Some(Arc::new(payload));
                self.start(seq);
            }
            None => {
                self.loaded_bytes -= entry.bytes;
                // Only somebody else's XDEL can do this; what is left of it is acknowledged.
                entry.span.in_scope(|| {
                    tracing::error!("a pending entry was deleted by somebody else");
                });
                let ready = std::mem::take(&mut entry.ready);
                entry.running += ready.len();
                entry.archive = Archive::Done;
                for n in ready {
                    self.push(async move { Done::Item(seq, n, Ok(Published::default())) });
                }
                self.finish(seq);
            }
        }
    }

    fn archive(&mut self, seq: u64, payload: &Arc<Payload>, verdict: &Verdict) {
        let Some(entry) = self.window.get_mut(&seq) else {
            return;
        };
        if entry.archive != Archive::Due {
            return;
        }
        let head = &entry.head;
        if let Some(key) = head.archived_at() {
            entry.object_key = Some(key.to_owned());
            entry.archive = Archive::Done;
            return;
        }
        let folder = head.folder(Some(verdict));
        let key = store::archive_key(&folder, head.received_at_ms, &head.name);
        entry.object_key = Some(key.clone());
        if self
            .archive_pause
            .is_some_and(|until| Instant::now() < until)
        {
            entry.archive = Archive::Owed;
            return;
        }
        entry.archive = Archive::Running;
        let described = head.described(&payload.entry.fresh);
        let (store, payload) = (self.work.store.clone(), payload.clone());
        let (metrics, span) = (self.work.metrics.clone(), entry.span.clone());
        let writing = async move {
            let body = bytes::Bytes::copy_from_slice(&payload.entry.body);
            let began = Instant::now();
            let put = timeout(ARCHIVE_PATIENCE, store.put_apart(&key, &described, body)).await;
            match put {
                Ok(Ok(())) => {
                    metrics.uploaded(Uploaded::Payload, began.elapsed());
                    tracing::debug!("archived");
                    Done::Archived(seq, true)
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "an archive write is owed");
                    Done::Archived(seq, false)
                }
                Err(_) => {
                    tracing::warn!("an archive write took too long and is owed");
                    Done::Archived(seq, false)
                }
            }
        };
        self.push(writing.instrument(span));
    }

    fn item_ended(&mut self, seq: u64, n: usize, outcome: Result<Published, Decision>) {
        let Some(entry) = self.window.get_mut(&seq) else {
            return;
        };
        entry.running -= 1;
        match outcome {
            Ok(published) => {
                entry.published.push(n);
                entry.turns.extend(published.turn);
                self.unnoted.push(seq);
                entry.pending_media.extend(published.pending_media);
                let conversation_id = published.conversation_id.map(|id| (n, id));
                entry.conversations.extend(conversation_id);
            }
            Err(Decision::SetAside(reason)) => {
                let payload = entry.payload.as_ref();
                let item = payload.and_then(|payload| Some((payload, payload.items.get(n)?)));
                let kind = item.map_or("none", |(payload, item)| event::item_type(payload, item));
                let tenant = entry.verdict.as_ref().and_then(Verdict::tenant_id);
                self.work
                    .metrics
                    .item_set_aside(tenant, kind, reason.name());
                let mut name = match item {
                    Some((_, item)) => store::item_name(item),
                    None => format!("{}.{n}", entry.head.name),
                };
                let mut others = entry.set_aside.iter().filter(|(of, _)| **of != reason);
                if let Some((_, item)) = item
                    && others.any(|(_, other)| other.name == name)
                {
                    name = store::name_apart(item);
                }
                let of_reason = entry.set_aside.entry(reason);
                let set_aside = of_reason.or_insert_with(|| SetAside {
                    items: Vec::new(),
                    name,
                    error: reason.told().to_owned(),
                });
                set_aside.items.push(n);
            }
            // The lease was over when its turn came. It may have been renewed since, but this item
            // would never be tried again: the next owner begins anew.
            Err(Decision::Leave | Decision::Retry | Decision::GoOn) => return self.lose(),
        }
        entry.open.remove(&n);
        let ready = self.lanes.finish((seq, n));
        self.finish(seq);
        self.note_if_worth_it();
        self.forget_body(seq);
        let mut starting = BTreeSet::new();
        for (seq, n) in ready {
            if let Some(entry) = self.window.get_mut(&seq) {
                entry.ready.push(n);
                starting.insert(seq);
            }
        }
        for seq in starting {
            self.start(seq);
        }
    }

    // Finishing

    /// Acknowledges an entry if nothing of it is open any more.
    fn finish(&mut self, seq: u64) {
        let Some(entry) = self.window.get_mut(&seq) else {
            return;
        };
        let unfinished = !entry.open.is_empty()
            || entry.running > 0
            || matches!(entry.archive, Archive::Due | Archive::Running);
        if unfinished || entry.acknowledging {
            return;
        }
        entry.acknowledging = true;
        entry
            .set_asides()
            .for_each(|it| self.work.set_asides.push(it));
        let owed = entry.owed(self.work.state.is_some());
        let (work, tenure, id) = (self.work.clone(), self.tenure.clone(), entry.id.clone());
        let (owes, owes_media) = (self.owed.clone(), self.owed_media.clone());
        let span = entry.span.clone();
        let acknowledging = async move {
            let acknowledged = persist(&tenure, || {
                let finished = [Finished {
                    id: &id,
                    owed: &owed,
                }];
                let stream = &work.stream;
                let tenure = &tenure;
                async move { stream.record(tenure, &finished, &[]).await }
            })
            .await;
            let (media, others): (Vec<_>, Vec<_>) =
                owed.iter().partition(|owed| owed.kind() == OwedKind::Media);
            if !others.is_empty() {
                owes.notify_one();
            }
            if !media.is_empty() {
                owes_media.notify_one();
            }
            Done::Acknowledged(seq, acknowledged)
        };
        self.push(acknowledging.instrument(span));
    }

    fn note_if_worth_it(&mut self) {
        if self.unnoted.len() >= WORTH_A_NOTE {
            self.note_progress();
        }
    }

    /// Notes what is published of entries that aren't acknowledged yet.
    fn note_progress(&mut self) {
        if self.noting {
            return;
        }
        let (mut done, mut turns) = (Vec::new(), Vec::new());
        for seq in std::mem::take(&mut self.unnoted) {
            let Some(entry) = self.window.get_mut(&seq) else {
                continue;
            };
            let new = entry.published.len() - entry.noted;
            if entry.acknowledging || new == 0 {
                continue;
            }
            entry.noted += new;
            turns.append(&mut entry.turns);
            entry.published.sort_unstable();
            let numbers = format_numbers(entry.published.iter().copied());
            done.push((entry.id.clone(), numbers));
        }
        if done.is_empty() {
            return;
        }
        self.noting = true;
        let (work, tenure) = (self.work.clone(), self.tenure.clone());
        self.push(async move {
            let noted = persist(&tenure, || work.stream.record(&tenure, &[], &done)).await;
            Done::Noted(turns, noted)
        });
    }
}

async fn read_notes(work: &Work, tenure: &Tenure) -> Notes {
    let mut backoff = Backoff::for_server();
    loop {
        match work.stream.notes(tenure).await {
            Ok(notes) => return notes,
            Err(error) => {
                tracing::warn!(class = class(&error), %error, "redis command failed, will retry")
            }
        }
        backoff.wait().await;
        if !tenure.holds() {
            tenure.lost.cancel();
        }
    }
}

/// The fields of an entry that can't be decoded, as JSON; what isn't text is kept as bytes.
fn dump(fields: &HashMap<String, Vec<u8>>) -> Vec<u8> {
    let fields: BTreeMap<_, serde_json::Value> = fields
        .iter()
        .map(|(name, value)| match std::str::from_utf8(value) {
            Ok(text) => (name, text.into()),
            Err(_) => (name, value.clone().into()),
        })
        .collect();
    serde_json::to_vec(&fields).unwrap_or_default()
}

/// Does something in Redis until it is done or the lease is gone.
async fn persist<F>(tenure: &Tenure, mut attempt: impl FnMut() -> F) -> Result<(), StreamError>
where
    F: Future<Output = Result<(), StreamError>>,
{
    let mut backoff = Backoff::for_server();
    loop {
        match attempt().await {
            Err(StreamError::Redis(error)) => {
                tracing::warn!(class = class(&error), %error, "redis command failed, will retry");
                if !tenure.holds() {
                    return Err(StreamError::NotOwner);
                }
                backoff.wait().await;
            }
            Ok(()) => return Ok(()),
            Err(StreamError::NotOwner) => return Err(StreamError::NotOwner),
        }
    }
}
