//! One item on its way out: its media and its conversation are waited for, then its event is published.
//! When it may, [`super::window`] says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shared::private::Hashed;
use shared::webhook::{Place, has_lists};
use tokio::time::{Instant, timeout_at};
use tracing::{Span, field};

use super::persist::persist;
use crate::ask::state::{self, KnownConversation};
use crate::context::WorkerContext;
use crate::item::event::channel::{KnownNumber, NamedNumber};
use crate::item::event::media::MediaState;
use crate::item::event::{self, CountedFacts, Event, EventContext, EventType, RawObject};
use crate::item::payload::{Payload, PayloadItem};
use crate::item::tenant::Tenant;
use crate::metrics::{Latencies, MediaOutcome};
use crate::out::error::Failure;
use crate::out::media::outcome::{FaultAction, UnstoredMedia};
use crate::out::media::{self, StoredMedia, TransferHandle};
use crate::out::publisher::{EventToPublish, NotPublished};
use crate::owed;
use crate::read::leases::Tenure;
use crate::read::owed::OwedMedia;
use crate::read::stream::StreamError;
use crate::retry::Backoff;

/// One item of an entry that has its tenant.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) work: Arc<WorkerContext>,
    pub(super) tenure: Arc<Tenure>,
    pub(super) payload: Arc<Payload>,
    pub(super) tenant: Arc<Tenant>,
    pub(super) raw_object: Option<RawObject>,
    pub(super) entry_id: String,
    /// Its bytes are read alone in the process.
    pub(super) suspect: bool,
    pub(super) read_at: Instant,
    pub(super) n: usize,
}

/// The media of an item on its way out.
#[derive(Clone)]
pub(super) enum ItemMedia {
    /// It was published before, saying this.
    Published(UnstoredMedia),
    Transferring(TransferHandle, Instant),
    /// It is fetched once the event is out.
    Later,
}

/// What an item's event says of its media.
#[derive(Default)]
pub(super) enum EventMedia {
    #[default]
    Nothing,
    Stored(Arc<StoredMedia>),
    Unstored(UnstoredMedia),
}

/// What an item's event needs beside the item.
#[derive(Default)]
pub(super) struct Prepared {
    media: EventMedia,
    conversation: KnownConversation,
    /// Between tries to publish it.
    backoff: Option<Backoff>,
}

impl Prepared {
    /// Waits before it may be published again.
    pub(super) async fn wait(&mut self) {
        let backoff = self.backoff.get_or_insert_with(Backoff::for_server);
        backoff.wait().await;
    }
}

/// What of an event counts once it is out.
pub(super) struct MadeEvent {
    kind: &'static str,
    /// Seconds since 1970.
    occurred_at: u64,
    pending_media: Option<OwedMedia>,
    counted: CountedFacts,
}

/// What is left of an item when its event is out.
#[derive(Default)]
pub(super) struct Published {
    pub(super) conversation_id: Option<String>,
    pub(super) pending_media: Option<OwedMedia>,
}

impl Item {
    /// What every line and span about it says of it.
    pub(super) fn span(&self, delivery: &Span) -> Span {
        let item = self.payload.items.get(self.n);
        let wamid = item.and_then(|item| item.id.as_deref());
        tracing::error_span!(
            parent: delivery,
            "item",
            item = self.n,
            wamid = wamid.map(|id| field::debug(Hashed(id)))
        )
    }

    /// The same, for traces alone.
    pub(super) fn trace_span(&self, delivery: &Span) -> Span {
        let item = self.payload.items.get(self.n);
        let wamid = item.and_then(|item| item.id.as_deref());
        tracing::debug_span!(
            parent: delivery,
            "item",
            item = self.n,
            wamid = wamid.map(|id| field::debug(Hashed(id)))
        )
    }

    /// Its event needs nothing that must be waited for.
    pub(super) fn is_prepared(&self, media: Option<&ItemMedia>) -> bool {
        media.is_none() && (self.work.state.is_none() || !self.has_conversation())
    }

    fn has_conversation(&self) -> bool {
        let item = self.payload.items.get(self.n);
        !self.tenant.is_platform() && item.is_some_and(|item| item.place == Place::Message)
    }

    /// Waits for its media, then for what the State Manager knows.
    ///
    /// # Errors
    /// The lease is another worker's.
    pub(super) async fn prepare(&self, media: Option<ItemMedia>) -> Result<Prepared, StreamError> {
        let media = self.wait_for_media(media).await?;
        let conversation = match self.payload.items.get(self.n) {
            Some(item) => self.conversation(item).await,
            None => KnownConversation::default(),
        };
        Ok(Prepared {
            media,
            conversation,
            backoff: None,
        })
    }

    /// Its event can be made beside those of others: nothing must be waited for.
    pub(super) fn is_made_at_once(&self, prepared: &Prepared) -> bool {
        !self.suspect && !matches!(prepared.media, EventMedia::Stored(_))
    }

    /// Makes its event.
    pub(super) async fn make(
        &self,
        prepared: &Prepared,
    ) -> Result<(EventToPublish, MadeEvent), Failure> {
        let item = self.payload.items.get(self.n).ok_or(Failure::NoSuchItem)?;
        let pending_media = match &prepared.media {
            EventMedia::Unstored(UnstoredMedia::Pending) => Some(self.owed_media()?),
            EventMedia::Nothing
            | EventMedia::Stored(_)
            | EventMedia::Unstored(UnstoredMedia::Failed(_)) => None,
        };
        let media = match &prepared.media {
            EventMedia::Nothing => None,
            // Signed anew each time: the URL must be fresh when the event goes out.
            EventMedia::Stored(stored) => Some(owed::media::stored(&self.work, stored).await?),
            EventMedia::Unstored(UnstoredMedia::Pending) => Some(MediaState::Pending),
            EventMedia::Unstored(UnstoredMedia::Failed(error)) => Some(MediaState::Failed {
                error: error.clone(),
            }),
        };
        let mut event = self
            .event(item, media.as_ref(), &prepared.conversation)
            .await?;
        let made = MadeEvent {
            counted: std::mem::take(&mut event.counted),
            kind: event.kind,
            occurred_at: event.occurred_at,
            pending_media,
        };
        Ok((EventToPublish::new(event), made))
    }

    /// Its event is in the queue.
    pub(super) fn published(&self, prepared: &Prepared, made: MadeEvent) -> Published {
        tracing::debug!("published");
        if let Some(item) = self.payload.items.get(self.n) {
            self.count(item, &made, &prepared.media);
        }
        self.count_facts(&made.counted);
        let known = prepared.conversation.known.as_deref();
        Published {
            conversation_id: known.and_then(state::conversation_id),
            pending_media: made.pending_media,
        }
    }

    async fn event(
        &self,
        item: &PayloadItem,
        media: Option<&MediaState>,
        conversation: &KnownConversation,
    ) -> Result<Event, Failure> {
        let number = self.number(item).await;
        let field = self.payload.field(item);
        if item.place == Place::UnknownShape || item.place == Place::Change && has_lists(field) {
            tracing::warn!(
                field,
                "a change has a shape that nobody knows: its event has it as it came"
            );
        }
        let known = EventContext {
            raw_object: self.raw_object.as_ref(),
            number: number.as_ref(),
            media,
            media_places: self.work.media.places(),
            conversation: conversation.known.as_deref(),
            degraded: conversation.degraded,
            ..EventContext::of(&self.tenant)
        };
        // An item that makes this code panic is one item's problem.
        let make = || {
            catch_unwind(AssertUnwindSafe(|| {
                event::event(&self.payload, item, &known)
            }))
        };
        let bytes_lock = &self.work.bytes_lock;
        let event = if self.suspect {
            let (stream, id) = (&self.work.stream, &self.entry_id);
            let made = bytes_lock.alone(stream, &self.tenure, id, make).await;
            made.map_err(|_| Failure::NotPublished(NotPublished::LeaseLost))?
        } else {
            let _bytes = bytes_lock.shared().await;
            make()
        };
        Ok(event.map_err(|_| Failure::Panicked)??)
    }

    /// Returns when the media is stored or given up, or the item waits no longer. What is not stored
    /// is noted before it is published: a crash in between must not make two stories of it.
    async fn wait_for_media(&self, media: Option<ItemMedia>) -> Result<EventMedia, StreamError> {
        let said = match media {
            None => return Ok(EventMedia::Nothing),
            Some(ItemMedia::Published(said)) => return Ok(EventMedia::Unstored(said)),
            Some(ItemMedia::Later) => UnstoredMedia::Pending,
            Some(ItemMedia::Transferring(flight, until)) => {
                match timeout_at(until, media::ended(flight)).await {
                    Ok(Ok(stored)) => return Ok(EventMedia::Stored(stored)),
                    Ok(Err(fault)) if fault.next == FaultAction::GiveUp => {
                        UnstoredMedia::Failed(fault.reason.text().to_owned())
                    }
                    // Not now, not in time, or this worker stops.
                    Ok(Err(_)) | Err(_) => UnstoredMedia::Pending,
                }
            }
        };
        let (stream, note) = (&self.work.stream, said.note(self.n));
        persist(&self.tenure, || {
            stream.note_media(&self.tenure, &self.entry_id, &note)
        })
        .await?;
        Ok(EventMedia::Unstored(said))
    }

    fn count(&self, item: &PayloadItem, made: &MadeEvent, media: &EventMedia) {
        let now = SystemTime::now();
        let since = |time: Duration| {
            let then = SystemTime::UNIX_EPOCH + time;
            now.duration_since(then).unwrap_or_default()
        };
        let live = [EventType::MessageReceived, EventType::StatusUpdated];
        let live = live.iter().any(|live| live.name() == made.kind);
        let received_at_ms = self.payload.entry.received_at_ms.max(0) as u64;
        let took = Latencies {
            here: self.read_at.elapsed(),
            whole: since(Duration::from_millis(received_at_ms)),
            since_meta: live.then(|| since(Duration::from_secs(made.occurred_at))),
        };
        let item_type = event::item_type(&self.payload, item);
        let metrics = &self.work.metrics;
        metrics.item_published(&self.tenant.id, item_type, took);
        match media {
            EventMedia::Nothing => {}
            EventMedia::Stored(_) => metrics.media_message(MediaOutcome::Stored),
            EventMedia::Unstored(UnstoredMedia::Failed(reason)) => {
                metrics.media_message(MediaOutcome::Failed);
                metrics.media_failed(reason);
            }
            EventMedia::Unstored(UnstoredMedia::Pending) => {
                metrics.media_message(MediaOutcome::Pending)
            }
        }
    }

    fn count_facts(&self, counted: &CountedFacts) {
        let (metrics, tenant) = (&self.work.metrics, &self.tenant.id);
        if let Some((message_id, price)) = &counted.priced {
            metrics.message_priced(tenant, self.tenure.partition, message_id, *price);
        }
        if counted.sender_without_phone {
            metrics.sender_without_phone(tenant);
        }
    }

    fn owed_media(&self) -> Result<OwedMedia, Failure> {
        let raw_object = self.raw_object.as_ref();
        let owed = owed::media::owed(&self.payload, self.n, &self.tenant, raw_object);
        owed.ok_or(Failure::NoSuchItem)
    }

    /// The number that an item is about, with what is known of it.
    async fn number(&self, item: &PayloadItem) -> Option<KnownNumber> {
        let named = NamedNumber::of(&self.payload, item);
        let (account, numbers) = (&self.payload.entry.waba_id, &self.work.numbers);
        let id = match (named.id, &named.display) {
            (Some(id), _) => id,
            (None, Some(display)) => {
                let ids = &self.tenant.phone_number_ids;
                numbers.with_display(account, display, ids).await?
            }
            (None, None) => return None,
        };
        let profile = numbers.known(account, &id, named.display.as_deref());
        Some(KnownNumber { id, profile })
    }

    async fn conversation(&self, item: &PayloadItem) -> KnownConversation {
        match &self.work.state {
            Some(state) if self.has_conversation() => {
                // Those who wait for it hold up nobody who needs none.
                let _permit = self.work.state_permits.acquire().await;
                state.conversation(&self.payload, item, &self.tenant).await
            }
            Some(_) | None => KnownConversation::default(),
        }
    }
}
