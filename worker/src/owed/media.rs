//! Media that acknowledged entries left pending: fetched until it is stored or given up, and then exactly
//! one event says so. Its piece goes away after that event's confirm.

#![deny(clippy::wildcard_enum_match_arm)]

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use shared::private::Hashed;
use shared::redis::warn_will_retry;
use shared::trace;
use shared::webhook::{members, scalar};
use tracing::{Instrument, field};

use super::list::Lists;
use super::schedule::{PieceOutcome, Scope};
use crate::context::WorkerContext;
use crate::item::event::channel::KnownNumber;
use crate::item::event::media::{MediaPlace, MediaState, media_ref};
use crate::item::event::{self, EventContext, RawObject};
use crate::item::payload::{Payload, PayloadItem};
use crate::item::tenant::Tenant;
use crate::metrics::MediaOutcome;
use crate::out::media;
use crate::out::media::outcome::{Fault, FaultAction, MediaFailure};
use crate::out::media::{MediaTransfer, StoredMedia, TransferRequester};
use crate::out::publisher::NotPublished;
use crate::out::store::{self, StoreResult};
use crate::read::leases::Tenure;
use crate::read::owed::{Owed, OwedMedia, entry_of};
use crate::read::stream::StreamError;

/// What must be kept of a message whose media is pending; `None` for items without.
pub fn owed(
    payload: &Payload,
    item: usize,
    tenant: &Tenant,
    raw_object: Option<&RawObject>,
) -> Option<OwedMedia> {
    let job = job(payload, payload.items.get(item)?, &tenant.id)?;
    Some(OwedMedia {
        item,
        tenant_id: tenant.id.clone(),
        tenant_name: tenant.name.clone(),
        raw_object: raw_object.map(|raw| (raw.bucket.clone(), raw.key.clone())),
        until_ms: job.gone_at_ms(),
        pace: job.pace(),
        failed: None,
    })
}

/// The job of a message with media; `None` for items without.
pub fn job(payload: &Payload, item: &PayloadItem, tenant_id: &str) -> Option<MediaTransfer> {
    let media = media_ref(payload, item)?;
    let entry = &payload.entry;
    let [timestamp] = members(payload.raw(item), ["timestamp"]).unwrap_or_default();
    let sent_at_ms = timestamp
        .and_then(scalar)
        .and_then(|seconds| seconds.parse().ok())
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .map_or(entry.received_at_ms, |sent| sent.timestamp_millis())
        // A time that lies ahead is none: the file would never be too old.
        .min(entry.received_at_ms);
    let sent_at_ms = match media.place {
        // Meta keeps it since it was synchronised, not since it was written.
        MediaPlace::History => entry.received_at_ms,
        MediaPlace::Message
        | MediaPlace::Call
        | MediaPlace::Echo
        | MediaPlace::Standby
        | MediaPlace::Edit => sent_at_ms,
    };
    let id = item.id.as_deref().filter(|id| !id.is_empty());
    Some(MediaTransfer {
        media,
        tenant_id: tenant_id.to_owned(),
        waba_id: entry.waba_id.clone(),
        phone_number_id: payload.phone_number_id(item).map(str::to_owned),
        message_id: item.id.clone(),
        message_name: id.map_or_else(|| store::name_apart(payload, item), store::segment),
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
pub async fn stored(work: &WorkerContext, stored: &StoredMedia) -> StoreResult<MediaState> {
    let presigned = work.store.presign_media(&stored.key).await?;
    Ok(MediaState::Stored {
        size_bytes: stored.size_bytes,
        sha256: stored.sha256,
        mime_type: stored.mime_type.clone(),
        detected_mime_type: stored.detected_mime_type.clone(),
        bucket: work.store.media_bucket().to_owned(),
        key: stored.key.clone(),
        url: presigned.url,
        url_expires_at: presigned.expires_at,
    })
}

/// Tries once.
pub(super) async fn follow_up(
    work: &WorkerContext,
    tenure: &Arc<Tenure>,
    lists: &Lists,
    piece: &str,
    payload: &Payload,
    owed: &OwedMedia,
) -> PieceOutcome {
    let item = payload.items.get(owed.item);
    let wamid = item.and_then(|item| item.id.as_deref());
    let span = tracing::error_span!(
        "follow-up",
        entry = entry_of(piece),
        item = owed.item,
        correlation_id = payload.entry.correlation_id,
        waba_id = payload.entry.waba_id,
        tenant_id = owed.tenant_id,
        wamid = wamid.map(|id| field::debug(Hashed(id)))
    );
    trace::adopt(&span, &payload.entry.traceparent);
    let ended = end(work, tenure, lists, piece, payload, owed);
    match ended.instrument(span).await {
        Ok(outcome) => outcome,
        Err(NotYet::Fault(fault)) => failed(fault),
        Err(NotYet::Elsewhere) => PieceOutcome::Away(Scope::Kind),
        Err(NotYet::Unroutable) => PieceOutcome::Failed(Duration::ZERO),
        Err(NotYet::TooLarge) => PieceOutcome::Seldom,
        Err(NotYet::Unreadable) => {
            tracing::error!(entry = entry_of(piece), "media that is owed can't be read");
            PieceOutcome::Seldom
        }
    }
}

/// What a transfer that failed means for those of others.
fn failed(fault: Fault) -> PieceOutcome {
    let pause = match fault.next {
        FaultAction::Seldom => return PieceOutcome::Seldom,
        FaultAction::Again(least) => least,
        FaultAction::Reread | FaultAction::GiveUp => Duration::ZERO,
    };
    match fault.reason {
        MediaFailure::Store | MediaFailure::Stopping => PieceOutcome::Away(Scope::Kind),
        MediaFailure::GraphLeftAlone | MediaFailure::Unavailable | MediaFailure::Busy => {
            PieceOutcome::Away(Scope::Tenant)
        }
        // A token that was refused is forgotten: from then on there is none until the Tenant Service has another.
        MediaFailure::Token => PieceOutcome::AwaitsOperator(pause),
        MediaFailure::InvalidId
        | MediaFailure::TooLarge
        | MediaFailure::NotFound
        | MediaFailure::NotDownloadable
        | MediaFailure::SizeMismatch
        | MediaFailure::DigestMismatch
        | MediaFailure::ContentMismatch
        | MediaFailure::Encoded
        | MediaFailure::NoLength
        | MediaFailure::UrlRefused
        | MediaFailure::Redirected
        | MediaFailure::Refused
        | MediaFailure::Throttled
        | MediaFailure::CutOff
        | MediaFailure::TooSlow
        | MediaFailure::Crashed => PieceOutcome::Failed(pause),
    }
}

/// Why a piece isn't done.
enum NotYet {
    Fault(Fault),
    /// Redis, RabbitMQ or the lease: not the media's fault.
    Elsewhere,
    /// No queue takes its event, or the queue refuses it.
    Unroutable,
    /// Its event is, for the broker: an operator must raise the limit.
    TooLarge,
    /// Another version wrote it.
    Unreadable,
}

impl From<StreamError> for NotYet {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Redis(error) => {
                warn_will_retry(&error);
            }
            StreamError::NotOwner => tracing::warn!(%error, "media waits"),
        }
        Self::Elsewhere
    }
}

impl From<NotPublished> for NotYet {
    fn from(error: NotPublished) -> Self {
        tracing::warn!(%error, "a media event is published again later");
        match error {
            NotPublished::Unroutable | NotPublished::Refused => Self::Unroutable,
            NotPublished::LeaseLost | NotPublished::RedisAway => Self::Elsewhere,
            NotPublished::TooLarge => Self::TooLarge,
        }
    }
}

/// Fetches what is pending, unless it was given up, and publishes the event that ends it.
async fn end(
    work: &WorkerContext,
    tenure: &Arc<Tenure>,
    lists: &Lists,
    piece: &str,
    payload: &Payload,
    owed: &OwedMedia,
) -> Result<PieceOutcome, NotYet> {
    let item = payload.items.get(owed.item).ok_or(NotYet::Unreadable)?;
    let (state, status) = match &owed.failed {
        Some(reason) => {
            let error = reason.clone();
            (MediaState::Failed { error }, MediaOutcome::Failed)
        }
        None => {
            let bytes = work.bytes_lock.shared().await;
            let job = job(payload, item, &owed.tenant_id).ok_or(NotYet::Unreadable)?;
            drop(bytes);
            let job = Arc::new(job);
            let flight = work.media.begin(&job, TransferRequester::Owed);
            let ended = tokio::select! {
                biased;
                ended = media::ended(flight) => ended,
                // The next owner's transfer goes on; a hand-over doesn't wait for a file.
                () = tenure.drain.cancelled() => return Err(NotYet::Elsewhere),
            };
            match ended {
                Ok(ready) => {
                    let state = stored(work, &ready).await;
                    let state = state.map_err(|_| NotYet::Fault(MediaFailure::Store.into()))?;
                    (state, MediaOutcome::Stored)
                }
                Err(fault) => {
                    // One that panicked or began when it was younger couldn't judge its age.
                    let fault = job.at_its_age(fault);
                    if fault.next == FaultAction::GiveUp {
                        return give_up(tenure, lists, piece, owed, fault.reason).await;
                    }
                    return Err(NotYet::Fault(fault));
                }
            }
        }
    };
    publish(work, tenure, payload, item, owed, &state).await?;
    work.metrics.media_followed_up(status);
    if let Some(reason) = &owed.failed {
        work.metrics.media_failed(reason);
    }
    Ok(PieceOutcome::Done)
}

async fn publish(
    work: &WorkerContext,
    tenure: &Arc<Tenure>,
    payload: &Payload,
    item: &PayloadItem,
    owed: &OwedMedia,
    state: &MediaState,
) -> Result<(), NotYet> {
    let tenant = Tenant {
        id: owed.tenant_id.clone(),
        name: owed.tenant_name.clone(),
        ..Tenant::default()
    };
    let raw_object = owed.raw_object.clone();
    let raw_object = raw_object.map(|(bucket, key)| RawObject { bucket, key });
    let number = payload.phone_number_id(item).map(|id| {
        let profile = work.numbers.known(&payload.entry.waba_id, id, None);
        let id = id.to_owned();
        KnownNumber { id, profile }
    });
    let known = EventContext {
        raw_object: raw_object.as_ref(),
        number: number.as_ref(),
        media: Some(state),
        ..EventContext::of(&tenant)
    };
    let bytes = work.bytes_lock.shared().await;
    let event = event::media_follow_up(payload, item, &known);
    drop(bytes);
    let event = event.ok().flatten().ok_or(NotYet::Unreadable)?;
    work.publisher.publish_one(event, tenure).await?;
    Ok(())
}

/// Makes it known that media is given up, before an event says so: the piece that comes instead of
/// this one runs like any other.
async fn give_up(
    tenure: &Tenure,
    lists: &Lists,
    piece: &str,
    owed: &OwedMedia,
    reason: MediaFailure,
) -> Result<PieceOutcome, NotYet> {
    let decided = Owed::Media(OwedMedia {
        failed: Some(reason.text().to_owned()),
        ..owed.clone()
    });
    let kind = decided.kind();
    let decided = decided.piece(entry_of(piece));
    let decided = decided.map_err(|_| NotYet::Unreadable)?;
    lists.decide_media(tenure, kind, piece, &decided).await?;
    Ok(PieceOutcome::Replaced)
}
