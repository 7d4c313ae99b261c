//! What acknowledged entries left pending: fetched until it is stored or given up, and then exactly
//! one event says so. Its piece of the later-list goes away after that event's confirm.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::entry::{Returned, StreamEntry};
use shared::private::Hashed;
use shared::redis::class;
use shared::trace;
use shared::webhook::{OBJECT, elements, members, scalar};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, field};

use crate::context::Work;
use crate::item::event::media::{MediaState, media_ref};
use crate::item::event::{self, EventContext, RawObject};
use crate::item::payload::{Payload, PayloadItem};
use crate::item::tenant::Tenant;
use crate::metrics::MediaOutcome;
use crate::out::media;
use crate::out::media::outcome::{Fault, FaultAction, MediaFailure};
use crate::out::media::{Job, StoredMedia, TransferRequester};
use crate::out::publisher::NotPublished;
use crate::out::store::{self, StoreResult};
use crate::read::leases::Tenure;
use crate::read::stream::{LaterMedia, OwedMedia, StreamError};
use crate::retry::Backoff;

/// Pieces of a partition in work at once, and of one tenant among them.
const MOST_AT_ONCE: usize = 32;
const MOST_OF_TENANT: usize = 24;
/// Pieces known at once; those behind them are looked at when these are done.
const MOST_KNOWN: usize = 50_000;
const PIECES_PER_READ: usize = 64;
/// The list is looked at this often even if nobody says that there is something.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Between tries of what an operator must mend.
const SELDOM: Duration = Duration::from_secs(300);
/// When a tenant has its share of turns already.
const TURN_PAUSE: Duration = Duration::from_millis(500);

/// What a piece holds beside the message.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    waba_id: String,
    correlation_id: String,
    traceparent: String,
    received_at_ms: i64,
    tenant_id: String,
    tenant_name: Option<String>,
    raw_object: Option<RawObject>,
    /// Why it is given up, if it is.
    failed: Option<String>,
    /// Of the replay that published it, if one did.
    #[serde(default)]
    replay_id: String,
}

/// What must be kept of a message whose media is pending.
///
/// # Errors
/// None is known: everything in it was read from JSON.
pub fn owed(
    payload: &Payload,
    item: &PayloadItem,
    tenant: &Tenant,
    raw_object: Option<&RawObject>,
) -> serde_json::Result<OwedMedia> {
    let entry = &payload.entry;
    let head = Head {
        waba_id: entry.waba_id.clone(),
        correlation_id: entry.correlation_id.clone(),
        traceparent: entry.traceparent.clone(),
        received_at_ms: entry.received_at_ms,
        tenant_id: tenant.id.clone(),
        tenant_name: tenant.name.clone(),
        raw_object: raw_object.cloned(),
        failed: None,
        replay_id: entry.replay_id().to_owned(),
    };
    Ok(OwedMedia {
        tenant_id: tenant.id.clone(),
        head: serde_json::to_string(&head)?,
        body: alone(payload, item)?,
    })
}

/// A body with one message of `payload`: its own bytes, its number, and the contacts that may be its
/// sender's.
fn alone(payload: &Payload, item: &PayloadItem) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Body<'a> {
        object: &'static str,
        entry: [Entry<'a>; 1],
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        id: &'a str,
        changes: [Change<'a>; 1],
    }
    #[derive(Serialize)]
    struct Change<'a> {
        field: &'a str,
        value: Value<'a>,
    }
    #[derive(Serialize)]
    struct Value<'a> {
        metadata: Option<&'a RawValue>,
        contacts: Vec<&'a RawValue>,
        messages: [&'a RawValue; 1],
    }
    let raw = payload.raw(item);
    let value = payload.value(item);
    let [metadata, contacts] = members(value, ["metadata", "contacts"]).unwrap_or_default();
    let contacts = contacts.and_then(elements).unwrap_or_default();
    let ids = members(raw, ["from", "from_user_id"]).unwrap_or_default();
    let ids = ids.map(|id| id.and_then(scalar));
    let is_sender = |contact: &&RawValue| {
        let theirs = members(contact, ["wa_id", "user_id"]).unwrap_or_default();
        theirs
            .into_iter()
            .flatten()
            .filter_map(scalar)
            .any(|id| ids.contains(&Some(id)))
    };
    serde_json::to_vec(&Body {
        object: OBJECT,
        entry: [Entry {
            id: &payload.entry.waba_id,
            changes: [Change {
                field: &item.field,
                value: Value {
                    metadata,
                    contacts: contacts.into_iter().filter(is_sender).collect(),
                    messages: [raw],
                },
            }],
        }],
    })
}

/// The job of a message with media; `None` for items without.
pub fn job(payload: &Payload, item: &PayloadItem, tenant_id: &str) -> Option<Job> {
    let raw = payload.raw(item);
    let entry = &payload.entry;
    let [timestamp] = members(raw, ["timestamp"]).unwrap_or_default();
    let sent_at_ms = timestamp
        .and_then(scalar)
        .and_then(|seconds| seconds.parse().ok())
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .map_or(entry.received_at_ms, |sent| sent.timestamp_millis())
        // A time that lies ahead is none: the file would never be too old.
        .min(entry.received_at_ms);
    Some(Job {
        media: media_ref(payload, item)?,
        tenant_id: tenant_id.to_owned(),
        waba_id: entry.waba_id.clone(),
        phone_number_id: item.phone_number_id.clone(),
        message_id: item.id.clone(),
        message_name: store::item_name(item),
        identity: item.identity,
        received_at_ms: entry.received_at_ms,
        sent_at_ms,
        correlation_id: entry.correlation_id.clone(),
        traceparent: entry.traceparent.clone(),
    })
}

/// What an event says of media that is in the store, with a URL that was signed now.
///
/// # Errors
/// It can't be signed.
pub async fn stored(work: &Work, stored: &StoredMedia) -> StoreResult<MediaState> {
    let presigned = work.store.presign_media(&stored.key).await?;
    Ok(MediaState::Stored {
        size_bytes: stored.size_bytes,
        sha256: stored.sha256,
        mime_type: stored.mime_type.clone(),
        bucket: work.store.media_bucket().to_owned(),
        key: stored.key.clone(),
        url: presigned.url,
        url_expires_at: presigned.expires_at,
    })
}

/// A piece that waits for its next try.
struct Waiting {
    id: String,
    tenant_id: String,
    backoff: Backoff,
    parked: bool,
}

/// The pieces of a partition, by when they are due.
struct Agenda {
    due: BTreeMap<(Instant, u64), Waiting>,
    next: u64,
    running: HashMap<String, usize>,
    /// The last piece that was read into it.
    seen: String,
}

impl Agenda {
    fn put(&mut self, at: Instant, waiting: Waiting) {
        self.due.insert((at, self.next), waiting);
        self.next += 1;
    }

    /// One that is due and whose tenant has a turn left.
    fn take(&mut self, now: Instant) -> Option<Waiting> {
        loop {
            let first = self.due.first_entry()?;
            if first.key().0 > now {
                return None;
            }
            let waiting = first.remove();
            let running = self.running.entry(waiting.tenant_id.clone()).or_default();
            if *running < MOST_OF_TENANT {
                *running += 1;
                return Some(waiting);
            }
            self.put(now + TURN_PAUSE, waiting);
        }
    }

    fn ended(&mut self, tenant_id: &str) {
        if let Some(running) = self.running.get_mut(tenant_id) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(tenant_id);
            }
        }
    }

    fn parked(&self) -> usize {
        self.due.values().filter(|waiting| waiting.parked).count()
    }
}

/// Works the later-list of media off for as long as it is polled.
pub async fn work_off(work: Arc<Work>, tenure: Arc<Tenure>, owed: Arc<Notify>) {
    let mut agenda = Agenda {
        due: BTreeMap::new(),
        next: 0,
        running: HashMap::new(),
        seen: "0-0".to_owned(),
    };
    let mut running = FuturesUnordered::new();
    loop {
        if let Err(error) = look(&work, &tenure, &mut agenda).await {
            tracing::warn!(class = class(&error), %error, "redis command failed, will retry");
        }
        while running.len() < MOST_AT_ONCE
            && let Some(waiting) = agenda.take(Instant::now())
        {
            running.push(follow(work.clone(), tenure.clone(), waiting));
        }
        work.metrics.media_parked(tenure.partition, agenda.parked());
        let now = Instant::now();
        let next = agenda.due.first_key_value().map(|((at, _), _)| *at);
        // A full house waits for one to end.
        let next = next.filter(|_| running.len() < MOST_AT_ONCE);
        let wake = next.unwrap_or(now + LOOK_INTERVAL).min(now + LOOK_INTERVAL);
        tokio::select! {
            Some((waiting, again)) = running.next() => {
                agenda.ended(&waiting.tenant_id);
                if let Some(pause) = again {
                    agenda.put(Instant::now() + pause, waiting);
                }
            }
            () = owed.notified() => {}
            () = sleep_until(wake) => {}
        }
    }
}

/// Reads what is new in the list.
async fn look(work: &Work, tenure: &Tenure, agenda: &mut Agenda) -> redis::RedisResult<()> {
    while agenda.due.len() < MOST_KNOWN {
        let pieces = work
            .stream
            .later_media(tenure, &agenda.seen, PIECES_PER_READ)
            .await?;
        let Some(last) = pieces.last() else {
            return Ok(());
        };
        agenda.seen.clone_from(&last.id);
        let now = Instant::now();
        for piece in pieces {
            let waiting = Waiting {
                id: piece.id,
                tenant_id: piece.owed.tenant_id,
                backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
                parked: false,
            };
            agenda.put(now, waiting);
        }
    }
    Ok(())
}

/// Tries once; how long to wait before the next time, `None` if it is done.
async fn follow(
    work: Arc<Work>,
    tenure: Arc<Tenure>,
    mut waiting: Waiting,
) -> (Waiting, Option<Duration>) {
    let again = match once(&work, &tenure, &waiting.id).await {
        Ok(()) => None,
        Err(NotYet::Fault(fault)) => {
            waiting.parked = fault.next == FaultAction::Seldom;
            Some(match fault.next {
                FaultAction::Seldom => SELDOM,
                FaultAction::Again(least) => waiting.backoff.pause().max(least),
                FaultAction::Reread | FaultAction::GiveUp => waiting.backoff.pause(),
            })
        }
        Err(NotYet::Elsewhere) => Some(waiting.backoff.pause()),
        Err(NotYet::Unreadable | NotYet::TooLarge) => Some(SELDOM),
    };
    (waiting, again)
}

/// Why a piece isn't done.
enum NotYet {
    Fault(Fault),
    /// Redis, RabbitMQ or the lease: not the media's fault.
    Elsewhere,
    /// Another version wrote it.
    Unreadable,
    /// Its event is, for the broker: an operator must raise the limit.
    TooLarge,
}

impl From<redis::RedisError> for NotYet {
    fn from(error: redis::RedisError) -> Self {
        tracing::warn!(class = class(&error), %error, "redis command failed, will retry");
        Self::Elsewhere
    }
}

impl From<StreamError> for NotYet {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Redis(error) => error.into(),
            StreamError::NotOwner => {
                tracing::warn!(%error, "media waits");
                Self::Elsewhere
            }
        }
    }
}

impl From<NotPublished> for NotYet {
    fn from(error: NotPublished) -> Self {
        tracing::warn!(%error, "a media event is published again later");
        match error {
            NotPublished::Unroutable | NotPublished::Refused | NotPublished::LeaseLost => {
                Self::Elsewhere
            }
            NotPublished::TooLarge => Self::TooLarge,
        }
    }
}

async fn once(work: &Work, tenure: &Arc<Tenure>, id: &str) -> Result<(), NotYet> {
    let Some(piece) = work.stream.media_piece(tenure, id).await? else {
        return Ok(());
    };
    let (head, payload) = open(&piece).map_err(|error| {
        tracing::error!(piece = id, %error, "a piece of the later-list can't be read");
        NotYet::Unreadable
    })?;
    let item = payload.items.first();
    let wamid = item.and_then(|item| item.id.as_deref());
    let span = tracing::error_span!(
        "follow-up",
        piece = id,
        correlation_id = head.correlation_id,
        waba_id = head.waba_id,
        tenant_id = head.tenant_id,
        wamid = wamid.map(|id| field::debug(Hashed(id)))
    );
    trace::adopt(&span, &head.traceparent);
    end(work, tenure, piece, head, &payload)
        .instrument(span)
        .await
}

/// Fetches what is pending, unless it was given up, and publishes the event that ends it.
async fn end(
    work: &Work,
    tenure: &Arc<Tenure>,
    piece: LaterMedia,
    head: Head,
    payload: &Payload,
) -> Result<(), NotYet> {
    let item = payload.items.first().ok_or(NotYet::Unreadable)?;
    let (state, status) = match &head.failed {
        Some(reason) => {
            let error = reason.clone();
            (MediaState::Failed { error }, MediaOutcome::Failed)
        }
        None => {
            let job = Arc::new(job(payload, item, &head.tenant_id).ok_or(NotYet::Unreadable)?);
            let flight = work.media.begin(&job, TransferRequester::LaterList);
            match media::ended(flight).await {
                Ok(ready) => {
                    let state = stored(work, &ready).await;
                    let state = state.map_err(|_| NotYet::Fault(MediaFailure::Store.into()))?;
                    (state, MediaOutcome::Stored)
                }
                Err(fault) => {
                    // One that panicked or began when it was younger couldn't judge its age.
                    let fault = job.at_its_age(fault);
                    if fault.next == FaultAction::GiveUp {
                        return give_up(work, tenure, &piece, head, fault.reason).await;
                    }
                    return Err(NotYet::Fault(fault));
                }
            }
        }
    };
    let tenant = Tenant {
        id: head.tenant_id,
        name: head.tenant_name,
        ..Tenant::default()
    };
    let number = item.phone_number_id.as_deref();
    let number = number.and_then(|id| work.numbers.known(&head.waba_id, id));
    let known = EventContext {
        raw_object: head.raw_object.as_ref(),
        number: number.as_deref(),
        media: Some(&state),
        ..EventContext::of(&tenant)
    };
    let event = event::media_follow_up(payload, item, &known);
    let event = event.ok().flatten().ok_or(NotYet::Unreadable)?;
    work.publisher.publish(event, tenure.clone()).await?;
    work.metrics.media_followed_up(status);
    work.stream.media_done(tenure, &piece.id).await?;
    Ok(())
}

/// Makes it known that media is given up, before an event says so: the piece that comes instead of
/// this one is read like any other.
async fn give_up(
    work: &Work,
    tenure: &Tenure,
    piece: &LaterMedia,
    head: Head,
    reason: MediaFailure,
) -> Result<(), NotYet> {
    let failed = Some(reason.text().to_owned());
    let head = serde_json::to_string(&Head { failed, ..head });
    let head = head.map_err(|_| NotYet::Unreadable)?;
    work.stream.decide_media(tenure, piece, &head).await?;
    Ok(())
}

fn open(piece: &LaterMedia) -> anyhow::Result<(Head, Payload)> {
    let head: Head = serde_json::from_str(&piece.owed.head)?;
    let payload = Payload::open(StreamEntry {
        waba_id: head.waba_id.clone(),
        correlation_id: head.correlation_id.clone(),
        received_at_ms: head.received_at_ms,
        fresh: vec![0],
        body: piece.owed.body.clone(),
        signature: String::new(),
        traceparent: head.traceparent.clone(),
        unreadable: None,
        returned: Some(Returned {
            replay_id: head.replay_id.clone(),
            ..Returned::default()
        }),
    })?;
    Ok((head, payload))
}
