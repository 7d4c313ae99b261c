//! One item on its way out: its media and its conversation are waited for, then its event is published.
//! When it may, [`super::window`] says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shared::private::Hashed;
use shared::webhook::Place;
use tokio::time::{Instant, timeout_at};
use tracing::{Span, field};

use super::persist;
use crate::ask::state::{self, KnownConversation};
use crate::context::Work;
use crate::item::event::channel::NumberProfile;
use crate::item::event::media::MediaState;
use crate::item::event::{self, Event, EventContext, EventType, RawObject};
use crate::item::payload::{Payload, PayloadItem};
use crate::item::tenant::Tenant;
use crate::metrics::{Latencies, MediaOutcome};
use crate::out::error::Failure;
use crate::out::media::outcome::{FaultAction, Said};
use crate::out::media::{self, Flight, StoredMedia};
use crate::out::publisher::NotPublished;
use crate::owed;
use crate::read::leases::Tenure;
use crate::read::owed::OwedMedia;
use crate::read::stream::StreamError;
use crate::retry::Backoff;

/// One item of an entry that has its tenant.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) work: Arc<Work>,
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
    Said(Said),
    Flying(Flight, Instant),
}

/// What an item's event says of its media.
#[derive(Default)]
pub(super) enum OfMedia {
    #[default]
    Nothing,
    Stored(Arc<StoredMedia>),
    Said(Said),
}

/// What an item's event needs beside the item.
#[derive(Default)]
pub(super) struct Prepared {
    media: OfMedia,
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

    /// Its event needs nothing that must be waited for.
    pub(super) fn is_prepared(&self, media: Option<&ItemMedia>) -> bool {
        media.is_none() && (self.work.state.is_none() || !self.has_conversation())
    }

    fn has_conversation(&self) -> bool {
        let item = self.payload.items.get(self.n);
        item.is_some_and(|item| item.place == Place::Message)
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

    /// Publishes its event, once.
    pub(super) async fn publish(&self, prepared: &Prepared) -> Result<Published, Failure> {
        let item = self.payload.items.get(self.n).ok_or(Failure::NoSuchItem)?;
        let lost = || Failure::NotPublished(NotPublished::LeaseLost);
        let _permit = self.work.permits.acquire().await.map_err(|_| lost())?;
        let pending_media = match &prepared.media {
            OfMedia::Said(Said::Pending) => Some(self.owed_media()?),
            OfMedia::Nothing | OfMedia::Stored(_) | OfMedia::Said(Said::Failed(_)) => None,
        };
        let media = match &prepared.media {
            OfMedia::Nothing => None,
            // Signed anew each time: the URL must be fresh when the event goes out.
            OfMedia::Stored(stored) => Some(owed::media::stored(&self.work, stored).await?),
            OfMedia::Said(Said::Pending) => Some(MediaState::Pending),
            OfMedia::Said(Said::Failed(error)) => Some(MediaState::Failed {
                error: error.clone(),
            }),
        };
        let event = self
            .event(item, media.as_ref(), &prepared.conversation)
            .await?;
        let occurred = (event.kind, event.occurred_at);
        let publishing = self.work.publisher.publish(event, self.tenure.clone());
        publishing.await?;
        tracing::debug!("published");
        self.count(item, occurred, &prepared.media);
        let known = prepared.conversation.known.as_deref();
        Ok(Published {
            conversation_id: known.and_then(state::conversation_id),
            pending_media,
        })
    }

    async fn event(
        &self,
        item: &PayloadItem,
        media: Option<&MediaState>,
        conversation: &KnownConversation,
    ) -> Result<Event, Failure> {
        let number = self.number(item);
        let known = EventContext {
            raw_object: self.raw_object.as_ref(),
            number: number.as_deref(),
            media,
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
        let suspects = &self.work.suspects;
        let event = if self.suspect {
            let (stream, id) = (&self.work.stream, &self.entry_id);
            let made = suspects.alone(stream, &self.tenure, id, make).await;
            made.map_err(|_| Failure::NotPublished(NotPublished::LeaseLost))?
        } else {
            let _bytes = suspects.read().await;
            make()
        };
        Ok(event.map_err(|_| Failure::Panicked)??)
    }

    /// Returns when the media is stored or given up, or the item waits no longer. What is not stored
    /// is noted before it is published: a crash in between must not make two stories of it.
    async fn wait_for_media(&self, media: Option<ItemMedia>) -> Result<OfMedia, StreamError> {
        let (flight, until) = match media {
            None => return Ok(OfMedia::Nothing),
            Some(ItemMedia::Said(said)) => return Ok(OfMedia::Said(said)),
            Some(ItemMedia::Flying(flight, until)) => (flight, until),
        };
        let said = match timeout_at(until, media::ended(flight)).await {
            Ok(Ok(stored)) => return Ok(OfMedia::Stored(stored)),
            Ok(Err(fault)) if fault.next == FaultAction::GiveUp => {
                Said::Failed(fault.reason.text().to_owned())
            }
            // Not now, not in time, or this worker stops.
            Ok(Err(_)) | Err(_) => Said::Pending,
        };
        let (stream, note) = (&self.work.stream, said.note(self.n));
        persist(&self.tenure, || {
            stream.note_media(&self.tenure, &self.entry_id, &note)
        })
        .await?;
        Ok(OfMedia::Said(said))
    }

    /// Its event, of a kind and of what happened at a time (s since 1970), is in the queue.
    fn count(&self, item: &PayloadItem, (kind, occurred_at): (&str, u64), media: &OfMedia) {
        let now = SystemTime::now();
        let since = |time: Duration| {
            let then = SystemTime::UNIX_EPOCH + time;
            now.duration_since(then).unwrap_or_default()
        };
        let live = [EventType::MessageReceived, EventType::StatusUpdated];
        let live = live.iter().any(|live| live.name() == kind);
        let received_at_ms = self.payload.entry.received_at_ms.max(0) as u64;
        let took = Latencies {
            here: self.read_at.elapsed(),
            whole: since(Duration::from_millis(received_at_ms)),
            since_meta: live.then(|| since(Duration::from_secs(occurred_at))),
        };
        let item_type = event::item_type(&self.payload, item);
        let metrics = &self.work.metrics;
        metrics.item_published(&self.tenant.id, item_type, took);
        match media {
            OfMedia::Nothing => {}
            OfMedia::Stored(_) => metrics.media_message(MediaOutcome::Stored),
            OfMedia::Said(Said::Failed(_)) => metrics.media_message(MediaOutcome::Failed),
            OfMedia::Said(Said::Pending) => metrics.media_message(MediaOutcome::Pending),
        }
    }

    fn owed_media(&self) -> Result<OwedMedia, Failure> {
        let raw_object = self.raw_object.as_ref();
        let owed = owed::media::owed(&self.payload, self.n, &self.tenant, raw_object);
        owed.ok_or(Failure::NoSuchItem)
    }

    fn number(&self, item: &PayloadItem) -> Option<Arc<NumberProfile>> {
        let id = item.phone_number_id.as_deref()?;
        self.work.numbers.known(&self.payload.entry.waba_id, id)
    }

    async fn conversation(&self, item: &PayloadItem) -> KnownConversation {
        match &self.work.state {
            Some(state) if item.place == Place::Message => {
                // Those who wait for it hold up nobody who needs none.
                let _permit = self.work.state_permits.acquire().await;
                state.conversation(&self.payload, item, &self.tenant).await
            }
            Some(_) | None => KnownConversation::default(),
        }
    }
}
