//! One item on its way out: waits for its media, asks for its conversation, and is published again and
//! again until it is confirmed, or it is decided what else becomes of it.

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
use crate::item::event::{self, EventContext, EventType, RawObject};
use crate::item::payload::{Payload, PayloadItem};
use crate::item::tenant::Tenant;
use crate::metrics::{Latencies, MediaOutcome};
use crate::out::error::{Decision, Failure};
use crate::out::media::outcome::{FaultAction, Said};
use crate::out::media::{self, Flight, StoredMedia};
use crate::out::publisher::NotPublished;
use crate::owed::follow_up;
use crate::read::gate::{Gate, Turn};
use crate::read::leases::Tenure;
use crate::read::stream::OwedMedia;
use crate::retry::Backoff;

/// One item on its way out.
pub(super) struct RunningItem {
    pub(super) work: Arc<Work>,
    pub(super) tenure: Arc<Tenure>,
    pub(super) payload: Arc<Payload>,
    pub(super) tenant: Arc<Tenant>,
    pub(super) raw_object: Option<RawObject>,
    pub(super) unrecorded: Arc<Gate>,
    pub(super) entry_id: String,
    pub(super) read_at: Instant,
    pub(super) media: Option<ItemMedia>,
    pub(super) n: usize,
}

/// The media of an item on its way out.
#[derive(Clone)]
pub(super) enum ItemMedia {
    /// It was published before, saying this.
    Said(Said),
    Flying(Flight, Instant),
}

/// What is left of an item when its event is out.
#[derive(Default)]
pub(super) struct Published {
    /// Until Redis knows of it.
    pub(super) turn: Option<Turn>,
    pub(super) conversation_id: Option<String>,
    pub(super) pending_media: Option<OwedMedia>,
}

/// What an item's event says of its media.
pub(super) enum OfMedia {
    Nothing,
    Stored(Arc<StoredMedia>),
    Said(Said),
}

impl RunningItem {
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

    /// Publishes the item's event, again and again if need be; `Err` says what else becomes of it.
    pub(super) async fn run(self) -> Result<Published, Decision> {
        let media = self.wait_for_media().await?;
        let mut backoff = Backoff::for_server();
        let mut conversation = None;
        loop {
            let failure = match self.once(&media, &mut conversation).await {
                Err(failure) => failure,
                Ok(turn) => {
                    let known = conversation.and_then(|conversation| conversation.known);
                    return Ok(Published {
                        turn: Some(turn),
                        conversation_id: known.and_then(|known| state::conversation_id(&known)),
                        pending_media: self.after(&media)?,
                    });
                }
            };
            let decision = failure.decide();
            match decision {
                Decision::Retry => {
                    // The publisher tells it once for all events with that routing key.
                    if !matches!(failure, Failure::NotPublished(NotPublished::Unroutable)) {
                        tracing::warn!(error = %failure, "an event is published again later");
                    }
                    backoff.wait().await;
                }
                Decision::SetAside(reason) => {
                    tracing::error!(error = %failure, reason = reason.name(), "an item is set aside");
                    return Err(decision);
                }
                Decision::Leave | Decision::GoOn => return Err(decision),
            }
        }
    }

    /// Returns when the media is stored or given up, or the item waits no longer. What is not stored
    /// is noted before it is published: a crash in between must not make two stories of it.
    async fn wait_for_media(&self) -> Result<OfMedia, Decision> {
        let (flight, until) = match &self.media {
            None => return Ok(OfMedia::Nothing),
            Some(ItemMedia::Said(said)) => return Ok(OfMedia::Said(said.clone())),
            Some(ItemMedia::Flying(flight, until)) => (flight.clone(), *until),
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
        .await
        .map_err(|_| Decision::Leave)?;
        Ok(OfMedia::Said(said))
    }

    /// The event is out; what its media still needs.
    fn after(&self, media: &OfMedia) -> Result<Option<OwedMedia>, Decision> {
        let status = match media {
            OfMedia::Nothing => return Ok(None),
            OfMedia::Stored(_) => MediaOutcome::Stored,
            OfMedia::Said(Said::Failed(_)) => MediaOutcome::Failed,
            OfMedia::Said(Said::Pending) => MediaOutcome::Pending,
        };
        self.work.metrics.media_message(status);
        if status != MediaOutcome::Pending {
            return Ok(None);
        }
        let raw_object = self.raw_object.as_ref();
        owed_media(&self.payload, self.n, &self.tenant, raw_object).map(Some)
    }

    async fn once(
        &self,
        media: &OfMedia,
        conversation: &mut Option<KnownConversation>,
    ) -> Result<Turn, Failure> {
        let item = self.payload.items.get(self.n).ok_or(Failure::NoSuchItem)?;
        if conversation.is_none() {
            *conversation = Some(self.conversation(item).await);
        }
        // More don't wait than there may be items.
        let lost = || Failure::NotPublished(NotPublished::LeaseLost);
        let waba_id = &self.payload.entry.waba_id;
        let turn = self.unrecorded.turn(waba_id).await.map_err(|_| lost())?;
        let _permit = self.work.permits.acquire().await.map_err(|_| lost())?;
        let media = match media {
            OfMedia::Nothing => None,
            // Signed anew each time: the URL must be fresh when the event goes out.
            OfMedia::Stored(stored) => Some(follow_up::stored(&self.work, stored).await?),
            OfMedia::Said(Said::Pending) => Some(MediaState::Pending),
            OfMedia::Said(Said::Failed(error)) => Some(MediaState::Failed {
                error: error.clone(),
            }),
        };
        let known = conversation.as_ref();
        let degraded = known.map_or(&[][..], |conversation| conversation.degraded);
        let known = known.and_then(|conversation| conversation.known.as_deref());
        let number = self.number(item);
        // An item that makes this code panic is one item's problem.
        let event = catch_unwind(AssertUnwindSafe(|| {
            let known = EventContext {
                raw_object: self.raw_object.as_ref(),
                number: number.as_deref(),
                media: media.as_ref(),
                conversation: known,
                degraded,
                ..EventContext::of(&self.tenant)
            };
            event::event(&self.payload, item, &known)
        }))
        .map_err(|_| Failure::Panicked)??;
        let occurred = (event.kind, event.occurred_at);
        let publishing = self.work.publisher.publish(event, self.tenure.clone());
        publishing.await?;
        tracing::debug!("published");
        self.count(item, occurred);
        Ok(turn)
    }

    /// Its event, of a kind and of what happened at a time (s since 1970), is in the queue.
    fn count(&self, item: &PayloadItem, (kind, occurred_at): (&str, u64)) {
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

pub(super) fn owed_media(
    payload: &Payload,
    n: usize,
    tenant: &Tenant,
    raw_object: Option<&RawObject>,
) -> Result<OwedMedia, Decision> {
    let item = payload.items.get(n).ok_or(Failure::NoSuchItem);
    let owed = item.and_then(|item| {
        let owed = follow_up::owed(payload, item, tenant, raw_object);
        Ok(owed.map_err(event::Unwritable::from)?)
    });
    owed.map_err(|failure| failure.decide())
}
