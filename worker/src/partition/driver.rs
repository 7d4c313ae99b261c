//! Does what the window says, and tells it how that ended. Everything that waits is a future in one set,
//! so that this loop alone changes the partition's state.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use shared::entry::format_numbers;
use shared::redis::class;
use shared::trace;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use super::content::Content;
use super::given::{Given, Note};
use super::item::{Item, Prepared, Published};
use super::opening::{self, Bytes, Former};
use super::window::{
    Arrived, Because, Command, End, Happened, Limits, Next, Number, ReadEnd, Window,
};
use super::{MOST_PARKED, persist};
use crate::ask::neighbour::Trace;
use crate::context::Work;
use crate::item::tenant::Verdict;
use crate::metrics::Uploaded;
use crate::out::error::{Decision, Failure};
use crate::out::publisher::NotPublished;
use crate::read::lanes::ItemId;
use crate::read::leases::Tenure;
use crate::read::owed::{Finished, Owed};
use crate::read::parked::{Id, Parked};
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
/// Entries that return at once when their tenant is known.
const RETURNING: usize = 256;
/// Publications of a partition that Redis doesn't know of yet: as many can be repeated after a crash.
/// Beyond, nothing is published, so a Redis that is away stops it.
const MOST_UNRECORDED: usize = 64;
/// What is published of entries that go on is recorded this often, and as soon as it is this much.
const NOTE_INTERVAL: Duration = Duration::from_millis(200);
const WORTH_A_NOTE: usize = 16;
/// Entries of one record, so that its script stays short.
const FINISHED_PER_RECORD: usize = 64;
/// A record waits this long for the archive; then the archive is owed.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(2);
/// After a failure the archive is owed at once for this long.
const ARCHIVE_PAUSE: Duration = Duration::from_secs(5);
/// Handing over waits this long for what is in work.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// A future came to its end.
enum Done {
    Happened(Happened<RawEntry>),
    Read(Result<Read, StreamError>),
    Slept(Box<Sleeper>),
    Opened(Number, RawEntry, Former, Bytes),
    Fetched(String, Vec<Id>, Vec<RawEntry>),
    Loaded(Number, Bytes),
    Prepared(ItemId, Prepared),
    Published(ItemId, Prepared, Result<Published, Failure>),
    Archived(Number, bool),
    Recorded(Vec<Number>),
    /// The lease is another worker's.
    NotOwner,
}

/// Drives the window of one partition for one tenure.
pub(super) struct Driver {
    work: Arc<Work>,
    tenure: Arc<Tenure>,
    owes: Arc<Notify>,
    window: Window<RawEntry>,
    /// What former tenures noted of entries that aren't open yet.
    notes: Notes,
    /// Of the window's entries.
    contents: HashMap<Number, Content>,
    /// Entries of the window whose bytes are read alone.
    suspects: HashSet<Number>,
    sleeper: Option<Box<Sleeper>>,
    archive_pause: Option<Instant>,
    futures: FuturesUnordered<BoxFuture<'static, Done>>,
    ended: bool,
}

impl Driver {
    /// Runs until the tenure is lost, or it is told to drain and has.
    pub(super) async fn run(work: Arc<Work>, tenure: Arc<Tenure>, owes: Arc<Notify>) {
        let mut notes = tokio::select! {
            notes = read_notes(&work, &tenure) => notes,
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
            returning: RETURNING,
            unrecorded: MOST_UNRECORDED,
            worth_a_note: WORTH_A_NOTE,
            finished: FINISHED_PER_RECORD,
        };
        let given = Given::read(std::mem::take(&mut notes.tenants));
        let driver = Self {
            window: Window::new(limits, Parked::new(work.parked.clone()), given),
            sleeper: Some(Box::new(work.stream.sleeper(tenure.partition))),
            work,
            tenure,
            owes,
            notes,
            contents: HashMap::new(),
            suspects: HashSet::new(),
            archive_pause: None,
            futures: FuturesUnordered::new(),
            ended: false,
        };
        driver.drive().await;
    }

    async fn drive(mut self) {
        let mut note = tokio::time::interval(NOTE_INTERVAL);
        let mut drained_by = None;
        loop {
            while let Some(command) = self.window.poll() {
                self.execute(command);
            }
            if self.ended {
                return;
            }
            let tenure = self.tenure.clone();
            let lease_ends = tenure.good_until();
            tokio::select! {
                Some(done) = self.futures.next() => self.take(done),
                () = tenure.lost.cancelled() => return,
                () = tokio::time::sleep_until(lease_ends) => {
                    // Renewed in the meantime, or over by this machine's clock.
                    if !tenure.holds() {
                        tracing::warn!(partition = tenure.partition, "a lease could not be renewed in time");
                        tenure.lost.cancel();
                    }
                }
                () = tenure.drain.cancelled(), if drained_by.is_none() => {
                    self.window.handle(Happened::Drain);
                    drained_by = Some(Instant::now() + DRAIN_TIME);
                }
                () = tokio::time::sleep_until(drained_by.unwrap_or(lease_ends)), if drained_by.is_some() => return,
                _ = note.tick() => self.window.handle(Happened::Tick),
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

    fn execute(&mut self, command: Command<RawEntry>) {
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
            Command::Publish(item) => self.publish(item),
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
            Done::Happened(happened) => self.window.handle(happened),
            Done::Read(read) => self.was_read(read),
            Done::Slept(sleeper) => {
                self.sleeper = Some(sleeper);
                self.window.handle(Happened::Woke);
            }
            Done::Opened(number, raw, former, bytes) => self.opened(number, &raw, former, bytes),
            Done::Fetched(account, ids, entries) => {
                let known = self.work.tenants.knows(&account);
                let entries = entries.into_iter().filter_map(|raw| self.arrived(raw));
                let entries = entries.collect();
                self.window.handle(Happened::Fetched {
                    account,
                    ids,
                    entries,
                    known,
                });
            }
            Done::Loaded(number, bytes) => self.loaded(number, bytes),
            Done::Prepared(item, prepared) => self.prepared(item, prepared),
            Done::Published(item, prepared, outcome) => self.published(item, prepared, outcome),
            Done::Archived(number, stored) => {
                if stored {
                    self.work.metrics.archived.inc();
                } else {
                    self.archive_pause = Some(Instant::now() + ARCHIVE_PAUSE);
                }
                self.archived(number, stored);
            }
            Done::Recorded(finished) => {
                for number in finished {
                    self.contents.remove(&number);
                    self.suspects.remove(&number);
                }
                self.window.handle(Happened::Recorded);
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
        self.push(async move {
            let read = work.stream.read(&tenure, &from, bytes).await;
            if let Err(StreamError::Redis(error)) = &read {
                tracing::warn!(class = class(error), %error, "redis command failed, will retry");
                Backoff::for_server().wait().await;
            }
            Done::Read(read)
        });
    }

    fn was_read(&mut self, read: Result<Read, StreamError>) {
        let end = match read {
            Err(StreamError::NotOwner) => return self.lose(),
            Err(StreamError::Redis(_)) => ReadEnd::Failed,
            Ok(read) if read.moved => ReadEnd::Moved,
            Ok(read) => ReadEnd::Entries {
                delivered: Id::parse(&read.last_delivered).unwrap_or(Id::ZERO),
                pending: read.pending,
                entries: (read.entries.into_iter())
                    .filter_map(|raw| self.arrived(raw))
                    .collect(),
            },
        };
        self.window.handle(Happened::Read(end));
        let partition = self.tenure.partition;
        self.work.metrics.parked(partition, self.window.parked());
    }

    /// What the window is told of an entry before its bytes are read; `None` if its id is none.
    fn arrived(&self, raw: RawEntry) -> Option<Arrived<RawEntry>> {
        let text = |name: &str| {
            let value = raw.fields.as_ref()?.get(name)?;
            std::str::from_utf8(value).ok()
        };
        // What can't be read needs no tenant.
        let account = match (text("w"), text("r")) {
            (Some(account), Some("")) => Some(account.to_owned()),
            _ => None,
        };
        let known = |account: &String| self.work.tenants.knows(account);
        Some(Arrived {
            id: Id::parse(&raw.id)?,
            known: account.as_ref().is_some_and(known),
            account,
            body: raw,
        })
    }

    fn sleep(&mut self, after: Id) {
        let Some(mut sleeper) = self.sleeper.take() else {
            return;
        };
        self.push(async move {
            if let Err(error) = sleeper.sleep(&after.to_string()).await {
                tracing::warn!(class = class(&error), %error, "redis command failed, will retry");
                Backoff::for_server().wait().await;
            }
            Done::Slept(sleeper)
        });
    }

    fn fetch(&self, account: String, ids: Vec<Id>, bytes: usize) {
        let (work, tenure) = (self.work.clone(), self.tenure.clone());
        self.push(async move {
            let texts: Vec<String> = ids.iter().map(Id::to_string).collect();
            let fetched = again(|| work.stream.fetch_all(&tenure, &texts, bytes)).await;
            Done::Fetched(account, ids, fetched)
        });
    }

    fn open(&mut self, number: Number, raw: RawEntry) {
        let former = Former::take(&mut self.notes, &raw.id);
        if former.gives_up(self.work.max_deliveries) {
            let id = Id::parse(&raw.id).unwrap_or(Id::ZERO);
            let held_by = |account: &str, verdict| self.window.held_by(account, id, verdict);
            let (opened, content) = opening::given_up(&self.work, &raw, &former, held_by);
            self.contents.insert(number, content);
            return self.window.handle(Happened::Opened(opened));
        }
        let suspect = former.crashes >= suspects::CRASHES;
        if suspect {
            self.suspects.insert(number);
        } else if let Some(_bytes) = self.work.clone().suspects.try_read() {
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

    fn opened(&mut self, number: Number, raw: &RawEntry, former: Former, bytes: Bytes) {
        let (opened, content) = opening::opened(&self.work, raw, bytes, former);
        self.contents.insert(number, content);
        self.window.handle(Happened::Opened(opened));
    }

    fn load(&self, number: Number) {
        let Some(content) = self.contents.get(&number) else {
            return;
        };
        let (work, tenure, id) = (self.work.clone(), self.tenure.clone(), content.id.clone());
        let suspect = self.suspects.contains(&number);
        self.push(async move {
            let raw = again(|| work.stream.fetch(&tenure, &id)).await;
            let Some(raw) = raw else {
                return Done::Loaded(number, Bytes::Gone);
            };
            match read_bytes(&work, &tenure, &raw, suspect).await {
                Ok(bytes) => Done::Loaded(number, bytes),
                Err(_) => Done::NotOwner,
            }
        });
    }

    fn loaded(&mut self, number: Number, bytes: Bytes) {
        let Some(content) = self.contents.get_mut(&number) else {
            return;
        };
        let here = match bytes {
            Bytes::Payload(payload, _) => {
                content.payload = Some(Arc::new(payload));
                true
            }
            Bytes::Gone | Bytes::Undecodable(_) | Bytes::Unreadable(..) => {
                content.span.in_scope(|| {
                    tracing::error!("a pending entry was deleted by somebody else");
                });
                false
            }
        };
        self.window.handle(Happened::Loaded(number, here));
    }

    // Tenants

    fn resolve(&self, account: String, because: Because<RawEntry>) {
        let trace = match because {
            Because::Parked(raw) => ["c", "p"].map(|name| {
                let value = raw.fields.as_ref().and_then(|fields| fields.get(name));
                let text = value.and_then(|value| std::str::from_utf8(value).ok());
                text.unwrap_or_default().to_owned()
            }),
            Because::Entry(number) => {
                let content = self.contents.get(&number);
                content
                    .map(|content| content.head.trace())
                    .unwrap_or_default()
            }
            Because::Forgotten => Default::default(),
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
            Done::Happened(Happened::Tenant(account, verdict))
        };
        self.push(resolving.instrument(span));
    }

    fn note_tenant(&self, account: String, note: Note) {
        let (work, tenure, text) = (self.work.clone(), self.tenure.clone(), note.text());
        self.push(async move {
            let noting = persist(&tenure, || {
                work.stream.note_tenant(&tenure, &account, &text)
            });
            match noting.await {
                Ok(()) => Done::Happened(Happened::TenantNoted(account, note)),
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
            return self.prepared(id, Prepared::default());
        }
        let span = item.span(&content.span);
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
            self.window.handle(Happened::Prepared(id));
        }
    }

    fn publish(&mut self, id: ItemId) {
        let Some(item) = self.item(id) else {
            return;
        };
        let Some(content) = self.contents.get_mut(&id.0) else {
            return;
        };
        let prepared = content.prepared.remove(&id.1).unwrap_or_default();
        let span = item.span(&content.span);
        let publishing = async move {
            let outcome = item.publish(&prepared).await;
            Done::Published(id, prepared, outcome)
        };
        self.push(publishing.instrument(span));
    }

    fn published(&mut self, id: ItemId, prepared: Prepared, outcome: Result<Published, Failure>) {
        let Some(content) = self.contents.get_mut(&id.0) else {
            return;
        };
        let failure = match outcome {
            Ok(published) => {
                let conversation_id = published.conversation_id.map(|told| (id.1, told));
                content.conversations.extend(conversation_id);
                content.pending_media.extend(published.pending_media);
                return self.window.handle(Happened::Ended(id, End::Published));
            }
            Err(failure) => failure,
        };
        let in_span = content.span.clone();
        let _in_span = in_span.enter();
        match failure.decide() {
            Decision::Retry => self.publish_later(id, prepared, &failure),
            Decision::SetAside(reason) => {
                tracing::error!(item = id.1, error = %failure, reason = reason.name(), "an item is set aside");
                content.set_aside(&self.work, id.1, reason);
                self.window.handle(Happened::Ended(id, End::SetAside));
            }
            // The lease was over when its turn came. It may have been renewed since, but this item
            // would never be tried again: the next owner begins anew.
            Decision::Leave | Decision::GoOn => self.lose(),
        }
    }

    fn publish_later(&mut self, id: ItemId, mut prepared: Prepared, failure: &Failure) {
        // The publisher tells it once for all events with that routing key.
        if !matches!(failure, Failure::NotPublished(NotPublished::Unroutable)) {
            tracing::warn!(item = id.1, error = %failure, "an event is published again later");
        }
        self.window.handle(Happened::Delayed(id));
        self.push(async move {
            prepared.wait().await;
            Done::Prepared(id, prepared)
        });
    }

    // Finishing

    fn archive(&mut self, number: Number) {
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
        if self
            .archive_pause
            .is_some_and(|until| Instant::now() < until)
        {
            return self.archived(number, false);
        }
        let described = content.head.described(&payload.entry.fresh);
        let (work, span) = (self.work.clone(), content.span.clone());
        let writing = async move {
            let body = bytes::Bytes::copy_from_slice(&payload.entry.body);
            let began = Instant::now();
            let put = work.store.put_apart(&key, &described, body);
            match timeout(ARCHIVE_PATIENCE, put).await {
                Ok(Ok(())) => {
                    work.metrics.uploaded(Uploaded::Payload, began.elapsed());
                    tracing::debug!("archived");
                    return Done::Archived(number, true);
                }
                Ok(Err(error)) => tracing::warn!(%error, "an archive write is owed"),
                Err(_) => tracing::warn!("an archive write took too long and is owed"),
            }
            Done::Archived(number, false)
        };
        self.push(writing.instrument(span));
    }

    fn archived(&mut self, number: Number, stored: bool) {
        if let Some(content) = self.contents.get_mut(&number) {
            content.archive_owed = !stored;
        }
        self.window.handle(Happened::Archived(number));
    }

    fn record(&mut self, finished: Vec<(Number, Vec<usize>)>, progress: &[(Number, Vec<usize>)]) {
        let with_state = self.work.state.is_some();
        let mut done: Vec<(String, Vec<Owed>)> = Vec::with_capacity(finished.len());
        for (number, published) in &finished {
            if let Some(content) = self.contents.get_mut(number) {
                let set_asides = content.set_asides();
                set_asides.for_each(|it| self.work.set_asides.push(it));
                done.push((content.id.clone(), content.owed(published, with_state)));
            }
        }
        let progress: Vec<(String, String)> = (progress.iter())
            .filter_map(|(number, items)| {
                let id = self.contents.get(number)?.id.clone();
                Some((id, format_numbers(items.iter().copied())))
            })
            .collect();
        let (work, tenure, owes) = (self.work.clone(), self.tenure.clone(), self.owes.clone());
        let finished = finished.into_iter().map(|(number, _)| number).collect();
        self.push(async move {
            let entries: Vec<Finished<'_>> = done
                .iter()
                .map(|(id, owed)| Finished { id, owed })
                .collect();
            let recording = persist(&tenure, || work.stream.record(&tenure, &entries, &progress));
            if recording.await.is_err() {
                return Done::NotOwner;
            }
            if done.iter().any(|(_, owed)| !owed.is_empty()) {
                owes.notify_one();
            }
            Done::Recorded(finished)
        });
    }
}

/// Reads an entry's bytes, a suspect's while nothing else in the process reads any.
async fn read_bytes(
    work: &Work,
    tenure: &Tenure,
    raw: &RawEntry,
    suspect: bool,
) -> Result<Bytes, StreamError> {
    let read = || opening::read(raw, &work.hasher);
    if suspect {
        let suspects = &work.suspects;
        return suspects.alone(&work.stream, tenure, &raw.id, read).await;
    }
    let _bytes = work.suspects.read().await;
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
                tracing::warn!(class = class(&error), %error, "redis command failed, will retry");
            }
        }
        backoff.wait().await;
    }
}

async fn read_notes(work: &Work, tenure: &Tenure) -> Notes {
    let mut backoff = Backoff::for_server();
    loop {
        match work.stream.notes(tenure).await {
            Ok(notes) => return notes,
            Err(error) => {
                tracing::warn!(class = class(&error), %error, "redis command failed, will retry");
            }
        }
        backoff.wait().await;
        if !tenure.holds() {
            tenure.lost.cancel();
        }
    }
}
