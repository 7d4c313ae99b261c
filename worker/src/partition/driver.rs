//! Does what the window says, and tells it how that ended. Everything that waits is a future in one set,
//! so that this loop alone changes the partition's state.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use shared::entry::{EntryHeader, format_numbers};
use shared::redis::warn_will_retry;
use shared::trace;
use tokio::sync::Notify;
use tracing::Instrument;

use super::batch::{Batch, EndedItem, Outgoing};
use super::content::Content;
use super::given::{Given, TenantNote};
use super::item::{Item, Prepared};
use super::opening::{self, Decoded, FormerNotes};
use super::persist::persist;
use super::record::{self, EntryRecord};
use super::window::{
    Command, End, EntryNumber, Input, Limits, LookupReason, Next, ReadEnd, ReadEntry, Window,
};
use crate::ask::neighbour::Trace;
use crate::context::WorkerContext;
use crate::item::tenant::Verdict;
use crate::out::error::{Decision, Failure};
use crate::out::publisher::NotPublished;
use crate::read::entry_id::EntryId;
use crate::read::lanes::ItemId;
use crate::read::leases::Tenure;
use crate::read::parked::{MOST_PARKED, Parked};
use crate::read::stream::{Notes, RawEntry, Read, ReadFrom, Sleeper, StreamError};
use crate::read::suspects;
use crate::retry::Backoff;

/// Bodies of one read, so that a script stays short.
const BYTES_PER_READ: usize = 1_048_576;
/// Entries and items known at once; those that can't run yet are kept without their bodies.
const MOST_ENTRIES: usize = 20_000;
const MOST_ITEMS: usize = 50_000;
/// Items of one entry that are on their way out at once: each costs a kilobyte or two.
const RUNNING_OF_ENTRY: usize = 256;
/// So many times [`PROGRESS_INTERVAL`] nothing more is read while tenants are looked up.
const TICKS_TO_PARK: usize = 5;
/// Entries that return at once when their tenant is known.
const RETURNING: usize = 256;
/// Publications of a partition that Redis doesn't know of yet: as many can be repeated after a crash.
/// Beyond, nothing is published.
const MOST_UNRECORDED: usize = 64;
/// Nothing is published while Redis has answered nothing for so many times [`PROGRESS_INTERVAL`].
const SILENT_TICKS: usize = 2;
/// What is published of entries that go on is recorded this often, and as soon as it is this much.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
const WORTH_A_RECORD: usize = 16;
/// Entries of one record, so that its script stays short.
const ENTRIES_PER_RECORD: usize = 64;
/// Then others have their turn on the thread: what was parked may be a thousand entries.
const COMMANDS_AT_ONCE: usize = 256;
/// So many times [`PROGRESS_INTERVAL`] an entry waits that Redis refused to record.
const TICKS_TO_RETRY: usize = 25;

/// A future came to its end.
enum Done {
    Input(Input<Arc<RawEntry>>),
    /// With what is noted of entries, if they are read from the first one on.
    Read(Result<(Read, Option<Notes>), StreamError>),
    Slept(Box<Sleeper>),
    Opened(EntryNumber, Arc<RawEntry>, FormerNotes, Decoded),
    Fetched(String, Vec<EntryId>, Vec<RawEntry>),
    Loaded(EntryNumber, Decoded),
    Prepared(ItemId, Prepared),
    Published(Vec<EndedItem>, Option<Batch>),
    Archived(EntryNumber, bool),
    Recorded {
        finished: Vec<EntryNumber>,
        refused: Vec<EntryNumber>,
    },
    /// The lease is another worker's.
    NotOwner,
}

/// Drives the window of one partition for one tenure.
pub(super) struct Driver {
    work: Arc<WorkerContext>,
    tenure: Arc<Tenure>,
    owes: Arc<Notify>,
    window: Window<Arc<RawEntry>>,
    /// What is noted of entries that aren't open yet. It is read whenever what is pending is read from the
    /// first entry on: in the beginning, and when Redis came back with less than it was told.
    notes: Notes,
    /// Of the window's entries.
    contents: HashMap<EntryNumber, Box<Content>>,
    /// Entries of the window whose bytes are read alone.
    suspects: HashSet<EntryNumber>,
    sleeper: Option<Box<Sleeper>>,
    /// Notified of each read, record and wait for new entries that Redis didn't answer.
    redis_failed: Arc<Notify>,
    futures: FuturesUnordered<BoxFuture<'static, Done>>,
    ended: bool,
}

impl Driver {
    /// Runs until the tenure is lost, or it is told to drain and has.
    pub(super) async fn run(work: Arc<WorkerContext>, tenure: Arc<Tenure>, owes: Arc<Notify>) {
        let given = tokio::select! {
            notes = read_tenants(&work, &tenure) => Given::read(notes),
            () = tenure.lost.cancelled() => return,
            () = tenure.drain.cancelled() => return,
        };
        let limits = Limits {
            bytes: work.read_bytes,
            bytes_per_read: BYTES_PER_READ,
            entries: MOST_ENTRIES,
            items: MOST_ITEMS,
            running_of_entry: RUNNING_OF_ENTRY,
            parked: MOST_PARKED,
            kept: work.read_bytes / 4,
            ticks_to_park: TICKS_TO_PARK,
            returning: RETURNING,
            unrecorded: MOST_UNRECORDED,
            silent_ticks: SILENT_TICKS,
            worth_a_record: WORTH_A_RECORD,
            entries_per_record: ENTRIES_PER_RECORD,
            ticks_to_retry: TICKS_TO_RETRY,
        };
        let driver = Self {
            window: Window::new(limits, Parked::new(work.parked.clone()), given),
            sleeper: Some(Box::new(work.stream.sleeper(tenure.partition))),
            work,
            tenure,
            owes,
            notes: Notes::default(),
            contents: HashMap::new(),
            suspects: HashSet::new(),
            redis_failed: Arc::default(),
            futures: FuturesUnordered::new(),
            ended: false,
        };
        driver.drive().await;
    }

    async fn drive(mut self) {
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        let mut draining = false;
        let redis_failed = self.redis_failed.clone();
        loop {
            let mut commands = 0;
            while let Some(command) = self.window.poll() {
                self.execute(command);
                commands += 1;
                if commands % COMMANDS_AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                }
            }
            if self.ended {
                return;
            }
            self.tenure.set_redis_failed(self.window.redis_failed());
            let tenure = self.tenure.clone();
            let lease_ends = tenure.good_until();
            tokio::select! {
                Some(done) = self.futures.next() => self.take(done),
                () = tenure.lost.cancelled() => return,
                () = tokio::time::sleep_until(lease_ends) => {
                    // Renewed in the meantime, or over by this machine's clock.
                    if !tenure.holds() {
                        tracing::warn!(partition = tenure.partition, "a lease could not be renewed in time");
                        return tenure.lost.cancel();
                    }
                }
                () = tenure.drain.cancelled(), if !draining => {
                    self.window.handle(Input::Drain);
                    draining = true;
                }
                () = redis_failed.notified() => self.window.handle(Input::RedisFailed),
                _ = tick.tick() => self.window.handle(Input::Tick),
            }
        }
    }

    fn push(&self, future: impl Future<Output = Done> + Send + 'static) {
        self.futures.push(Box::pin(future));
    }

    fn lose(&mut self) {
        tracing::warn!(partition = self.tenure.partition, "lost a partition");
        self.tenure.lost.cancel();
        self.ended = true;
    }

    fn execute(&mut self, command: Command<Arc<RawEntry>>) {
        match command {
            Command::Read { next, bytes } => self.read(next, bytes),
            Command::Sleep(after) => self.sleep(after),
            Command::Open(number, arrived) => self.open(number, arrived.body),
            Command::Fetch {
                account,
                ids,
                bytes,
            } => self.fetch(account, ids, bytes),
            Command::Load(number) => self.load(number),
            Command::Forget(number) => {
                if let Some(content) = self.contents.get_mut(&number) {
                    content.payload = None;
                }
            }
            Command::Resolve(account, because) => self.resolve(account, because),
            Command::NoteTenant(account, note) => self.note_tenant(account, note),
            Command::Begin(number, verdict) => {
                if let Some(content) = self.contents.get_mut(&number) {
                    content.begin(&self.work, verdict);
                }
            }
            Command::Prepare(item) => self.prepare(item),
            Command::Publish(items) => self.publish(items),
            Command::SetAside((number, n), reason) => {
                if let Some(content) = self.contents.get_mut(&number) {
                    content.set_aside(&self.work, n, reason);
                }
            }
            Command::Archive(number) => self.archive(number),
            Command::Record { finished, progress } => self.record(finished, &progress),
            Command::End => self.ended = true,
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Input(happened) => self.window.handle(happened),
            Done::Read(read) => self.was_read(read),
            Done::Slept(sleeper) => {
                self.sleeper = Some(sleeper);
                self.window.handle(Input::Woke);
            }
            Done::Opened(number, raw, former, bytes) => self.opened(number, &raw, former, bytes),
            Done::Fetched(account, ids, entries) => {
                let known = self.work.tenants.knows(&account);
                let entries = entries.into_iter().filter_map(|raw| self.arrived(raw));
                let entries = entries.collect();
                self.window.handle(Input::Fetched {
                    account,
                    ids,
                    entries,
                    known,
                });
            }
            Done::Loaded(number, bytes) => self.loaded(number, bytes),
            Done::Prepared(item, prepared) => self.prepared(item, prepared),
            Done::Published(ended, batch) => self.published_some(ended, batch),
            Done::Archived(number, stored) => self.archived(number, stored),
            Done::Recorded { finished, refused } => {
                for number in finished.iter().filter(|it| !refused.contains(it)) {
                    if let Some(content) = self.contents.remove(number) {
                        let set_asides = content.set_asides();
                        set_asides.for_each(|it| self.work.set_asides.push(it));
                    }
                    self.suspects.remove(number);
                }
                self.window.handle(Input::Recorded(refused));
            }
            Done::NotOwner => self.lose(),
        }
    }

    // Reading

    fn read(&self, next: Next, bytes: usize) {
        let from = match next {
            Next::Pending(after) => ReadFrom::Pending(after.to_string()),
            Next::New(expected) => ReadFrom::New(expected.to_string()),
        };
        let (work, tenure) = (self.work.clone(), self.tenure.clone());
        let failed = self.redis_failed.clone();
        self.push(async move {
            let reading = async {
                let notes = match next == Next::Pending(EntryId::ZERO) {
                    true => Some(work.stream.notes(&tenure).await?),
                    false => None,
                };
                Ok((work.stream.read(&tenure, &from, bytes).await?, notes))
            };
            let read = reading.await;
            if let Err(StreamError::Redis(error)) = &read {
                warn_will_retry(error);
                failed.notify_one();
                Backoff::for_server().wait().await;
            }
            Done::Read(read)
        });
    }

    fn was_read(&mut self, read: Result<(Read, Option<Notes>), StreamError>) {
        let read = read.map(|(read, notes)| {
            if let Some(notes) = notes {
                self.notes = notes;
            }
            read
        });
        let end = match read {
            Err(StreamError::NotOwner) => return self.lose(),
            Err(StreamError::Redis(_)) => ReadEnd::Failed,
            Ok(read) if read.moved => ReadEnd::Moved,
            Ok(read) => ReadEnd::Entries {
                delivered: EntryId::parse(&read.last_delivered).unwrap_or(EntryId::ZERO),
                pending: read.pending,
                entries: (read.entries.into_iter())
                    .filter_map(|raw| self.arrived(raw))
                    .collect(),
            },
        };
        self.window.handle(Input::Read(end));
        let partition = self.tenure.partition;
        self.work.metrics.parked(partition, self.window.parked());
    }

    /// What the window is told of an entry before its bytes are read; `None` if its id is none.
    fn arrived(&self, raw: RawEntry) -> Option<ReadEntry<Arc<RawEntry>>> {
        let header = raw.fields.as_ref().map(EntryHeader::of);
        // What can't be read needs no tenant.
        let account = match header {
            Some(Ok(header)) if header.unreadable.is_none() => Some(header.waba_id),
            Some(_) | None => None,
        };
        let known = |account: &String| self.work.tenants.knows(account);
        Some(ReadEntry {
            id: EntryId::parse(&raw.id)?,
            known: account.as_ref().is_some_and(known),
            account,
            bytes: opening::bytes_of(&raw),
            body: Arc::new(raw),
        })
    }

    fn sleep(&mut self, after: EntryId) {
        let Some(mut sleeper) = self.sleeper.take() else {
            return;
        };
        let failed = self.redis_failed.clone();
        self.push(async move {
            if let Err(error) = sleeper.sleep(&after.to_string()).await {
                warn_will_retry(&error);
                failed.notify_one();
                Backoff::for_server().wait().await;
            }
            Done::Slept(sleeper)
        });
    }

    fn fetch(&self, account: String, ids: Vec<EntryId>, bytes: usize) {
        let (work, tenure) = (self.work.clone(), self.tenure.clone());
        self.push(async move {
            let texts: Vec<String> = ids.iter().map(EntryId::to_string).collect();
            let fetched = again(|| work.stream.fetch_all(&tenure, &texts, bytes)).await;
            Done::Fetched(account, ids, fetched)
        });
    }

    fn open(&mut self, number: EntryNumber, raw: Arc<RawEntry>) {
        let former = FormerNotes::take(&mut self.notes, &raw.id);
        if former.gives_up(self.work.max_deliveries) {
            let id = EntryId::parse(&raw.id).unwrap_or(EntryId::ZERO);
            let held_by = |account: &str, verdict| self.window.held_by(account, id, verdict);
            let (opened, content) = opening::given_up(&self.work, &raw, &former, held_by);
            self.contents.insert(number, Box::new(content));
            return self.window.handle(Input::Opened(opened));
        }
        let suspect = former.crashes >= suspects::CRASHES;
        if suspect {
            self.suspects.insert(number);
        } else if let Some(_bytes) = self.work.clone().bytes_lock.try_shared() {
            let bytes = opening::read(&raw, &self.work.hasher);
            return self.opened(number, &raw, former, bytes);
        }
        let (work, tenure) = (self.work.clone(), self.tenure.clone());
        self.push(async move {
            match read_bytes(&work, &tenure, &raw, suspect).await {
                Ok(bytes) => Done::Opened(number, raw, former, bytes),
                Err(_) => Done::NotOwner,
            }
        });
    }

    fn opened(&mut self, number: EntryNumber, raw: &RawEntry, former: FormerNotes, bytes: Decoded) {
        let (opened, content) = opening::opened(&self.work, raw, bytes, former);
        self.contents.insert(number, Box::new(content));
        self.window.handle(Input::Opened(opened));
    }

    fn load(&self, number: EntryNumber) {
        let Some(content) = self.contents.get(&number) else {
            return;
        };
        let (work, tenure, id) = (self.work.clone(), self.tenure.clone(), content.id.clone());
        let suspect = self.suspects.contains(&number);
        self.push(async move {
            let raw = again(|| work.stream.fetch(&tenure, &id)).await;
            let Some(raw) = raw else {
                return Done::Loaded(number, Decoded::Gone);
            };
            match read_bytes(&work, &tenure, &raw, suspect).await {
                Ok(bytes) => Done::Loaded(number, bytes),
                Err(_) => Done::NotOwner,
            }
        });
    }

    fn loaded(&mut self, number: EntryNumber, bytes: Decoded) {
        let Some(content) = self.contents.get_mut(&number) else {
            return;
        };
        let here = match bytes {
            Decoded::Payload(payload, _) => {
                content.payload = Some(Arc::new(payload));
                true
            }
            Decoded::Gone | Decoded::Undecodable(_) | Decoded::Unreadable(..) => {
                content.span().in_scope(|| {
                    tracing::error!("a pending entry was deleted by somebody else");
                });
                false
            }
        };
        self.window.handle(Input::Loaded(number, here));
    }

    // Tenants

    fn resolve(&self, account: String, because: LookupReason<Arc<RawEntry>>) {
        let trace = match because {
            LookupReason::Parked(raw) => match raw.fields.as_ref().map(EntryHeader::of) {
                Some(Ok(header)) => [header.correlation_id, header.traceparent],
                Some(Err(_)) | None => Default::default(),
            },
            LookupReason::Entry(number) => {
                let content = self.contents.get(&number);
                content
                    .map(|content| content.head.trace())
                    .unwrap_or_default()
            }
            LookupReason::Forgotten => Default::default(),
        };
        let tenants = self.work.tenants.clone();
        let [correlation_id, traceparent] = &trace;
        let span = tracing::error_span!("tenant", correlation_id, waba_id = account);
        trace::adopt(&span, traceparent);
        let resolving = async move {
            let [correlation_id, traceparent] = &trace;
            let trace = Trace {
                correlation_id,
                traceparent,
            };
            let verdict = tenants.resolve(&account, trace).await;
            Done::Input(Input::Tenant(account, verdict))
        };
        self.push(resolving.instrument(span));
    }

    fn note_tenant(&self, account: String, note: TenantNote) {
        let (work, tenure, text) = (self.work.clone(), self.tenure.clone(), note.text());
        self.push(async move {
            let noting = persist(&tenure, || {
                work.stream.note_tenant(&tenure, &account, &text)
            });
            match noting.await {
                Ok(()) => Done::Input(Input::TenantNoted(account, note)),
                Err(_) => Done::NotOwner,
            }
        });
    }

    // Items

    fn item(&self, (number, n): ItemId) -> Option<Item> {
        let content = self.contents.get(&number)?;
        let Some(Verdict::Active(tenant)) = &content.verdict else {
            return None;
        };
        Some(Item {
            work: self.work.clone(),
            tenure: self.tenure.clone(),
            payload: content.payload.clone()?,
            tenant: tenant.clone(),
            raw_object: content.raw_object(&self.work),
            entry_id: content.id.clone(),
            suspect: self.suspects.contains(&number),
            read_at: content.read_at,
            n,
        })
    }

    fn prepare(&mut self, id: ItemId) {
        let Some(item) = self.item(id) else {
            return;
        };
        let Some(content) = self.contents.get_mut(&id.0) else {
            return;
        };
        let media = content.media.as_mut().and_then(|media| media.remove(&id.1));
        if item.is_prepared(media.as_ref()) {
            return self.window.handle(Input::Prepared(id));
        }
        let span = item.span(content.span());
        let preparing = async move {
            match item.prepare(media).await {
                Ok(prepared) => Done::Prepared(id, prepared),
                Err(_) => Done::NotOwner,
            }
        };
        self.push(preparing.instrument(span));
    }

    fn prepared(&mut self, id: ItemId, prepared: Prepared) {
        if let Some(content) = self.contents.get_mut(&id.0) {
            content.prepared.insert(id.1, prepared);
            self.window.handle(Input::Prepared(id));
        }
    }

    /// Publishes items together, which cost a future and a place in a queue only once; those that must wait for something go alone.
    fn publish(&mut self, items: Vec<ItemId>) {
        let mut together = Vec::with_capacity(items.len());
        for id in items {
            let Some(item) = self.item(id) else {
                continue;
            };
            let Some(content) = self.contents.get_mut(&id.0) else {
                continue;
            };
            let prepared = content.prepared.remove(&id.1).unwrap_or_default();
            let at_once = item.is_made_at_once(&prepared);
            let span = match at_once {
                true => content.trace_span(&item),
                false => item.span(content.span()),
            };
            let outgoing = Outgoing {
                id,
                item,
                prepared,
                span,
            };
            match at_once {
                true => together.push(outgoing),
                false => self.publish_batch(vec![outgoing]),
            }
        }
        if !together.is_empty() {
            self.publish_batch(together);
        }
    }

    fn publish_batch(&self, items: Vec<Outgoing>) {
        let (work, tenure) = (self.work.clone(), self.tenure.clone());
        self.push(async move {
            let (ended, batch) = Batch::begin(work, tenure, items).await;
            Done::Published(ended, Some(batch))
        });
    }

    fn published_some(&mut self, ended: Vec<EndedItem>, batch: Option<Batch>) {
        for item in ended {
            self.published(item);
        }
        if let Some(batch) = batch {
            self.push(async move {
                let (ended, left) = batch.next().await;
                Done::Published(ended, left)
            });
        }
    }

    fn published(&mut self, ended: EndedItem) {
        let EndedItem {
            id,
            prepared,
            outcome,
        } = ended;
        let Some(content) = self.contents.get_mut(&id.0) else {
            return;
        };
        let failure = match outcome {
            Ok(published) => {
                let conversation_id = published.conversation_id.map(|told| (id.1, told));
                content.conversations.extend(conversation_id);
                content.pending_media.extend(published.pending_media);
                return self.window.handle(Input::Ended(id, End::Published));
            }
            Err(failure) => failure,
        };
        let in_span = content.span().clone();
        let _in_span = in_span.enter();
        match failure.decide() {
            Decision::Retry => self.publish_later(id, prepared, &failure),
            Decision::SetAside(reason) => {
                // That it is set aside is told once the entry is recorded.
                tracing::debug!(item = id.1, error = %failure, reason = reason.name(), "no event of an item");
                content.set_aside(&self.work, id.1, reason);
                self.window.handle(Input::Ended(id, End::SetAside));
            }
            // The lease was over when its turn came. It may have been renewed since, but this item
            // would never be tried again: the next owner begins anew.
            Decision::Leave | Decision::GoOn => self.lose(),
        }
    }

    fn publish_later(&mut self, id: ItemId, mut prepared: Prepared, failure: &Failure) {
        // Logged once for many: by the publisher for each routing key, and where the command failed.
        let logged_elsewhere = matches!(
            failure,
            Failure::NotPublished(NotPublished::Unroutable | NotPublished::RedisAway)
        );
        if !logged_elsewhere {
            tracing::warn!(item = id.1, error = %failure, "an event is published again later");
        }
        self.window.handle(Input::Delayed(id));
        self.push(async move {
            prepared.wait().await;
            Done::Prepared(id, prepared)
        });
    }

    // Finishing

    fn archive(&mut self, number: EntryNumber) {
        let Some(content) = self.contents.get_mut(&number) else {
            return;
        };
        let (Some(key), Some(payload)) = (content.object_key.clone(), content.payload.clone())
        else {
            return self.archived(number, true);
        };
        if content.head.archived_at().is_some() {
            return self.archived(number, true);
        }
        let described = content.head.described(&payload.entry.fresh);
        let (work, span) = (self.work.clone(), content.span().clone());
        let writing = async move {
            let body = &payload.entry.body;
            let ways = (&*work.store, &work.metrics);
            let stored = work.archive.put(ways, &key, &described, body).await;
            Done::Archived(number, stored)
        };
        self.push(writing.instrument(span));
    }

    fn archived(&mut self, number: EntryNumber, stored: bool) {
        if let Some(content) = self.contents.get_mut(&number) {
            content.archive_owed = !stored;
        }
        self.window.handle(Input::Archived(number));
    }

    fn record(
        &mut self,
        finished: Vec<(EntryNumber, Vec<usize>)>,
        progress: &[(EntryNumber, Vec<usize>)],
    ) {
        let with_state = self.work.state.is_some();
        let mut steps = Vec::with_capacity(finished.len() + progress.len());
        for (number, published) in &finished {
            if let Some(content) = self.contents.get_mut(number) {
                let step = EntryRecord::Finished(content.owed(published, with_state));
                steps.push((*number, content.id.clone(), step));
            }
        }
        for (number, items) in progress {
            if let Some(content) = self.contents.get(number) {
                let step = EntryRecord::Progress(format_numbers(items.iter().copied()));
                steps.push((*number, content.id.clone(), step));
            }
        }
        let (work, tenure, owes) = (self.work.clone(), self.tenure.clone(), self.owes.clone());
        let finished = finished.into_iter().map(|(number, _)| number).collect();
        let failed = self.redis_failed.clone();
        self.push(async move {
            let recording = record::record(&work.stream, &tenure, &steps, &failed);
            let Ok(refused) = recording.await else {
                return Done::NotOwner;
            };
            if steps.iter().any(|(_, _, step)| step.owes()) {
                owes.notify_one();
            }
            Done::Recorded { finished, refused }
        });
    }
}

/// Reads an entry's bytes, a suspect's while nothing else in the process reads any.
async fn read_bytes(
    work: &WorkerContext,
    tenure: &Arc<Tenure>,
    raw: &RawEntry,
    suspect: bool,
) -> Result<Decoded, StreamError> {
    let read = || opening::read(raw, &work.hasher);
    if suspect {
        let bytes_lock = &work.bytes_lock;
        return bytes_lock.alone(&work.stream, tenure, &raw.id, read).await;
    }
    let _bytes = work.bytes_lock.shared().await;
    Ok(read())
}

/// Asks Redis until it answers.
async fn again<T, F>(mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = redis::RedisResult<T>>,
{
    let mut backoff = Backoff::for_server();
    loop {
        match attempt().await {
            Ok(answer) => return answer,
            Err(error) => {
                warn_will_retry(&error);
            }
        }
        backoff.wait().await;
    }
}

async fn read_tenants(work: &WorkerContext, tenure: &Tenure) -> HashMap<String, String> {
    let mut backoff = Backoff::for_server();
    loop {
        match work.stream.tenant_notes(tenure).await {
            Ok(notes) => return notes,
            Err(error) => {
                warn_will_retry(&error);
            }
        }
        backoff.wait().await;
        if !tenure.holds() {
            tenure.lost.cancel();
        }
    }
}
