//! Posts about published messages that the State Manager still gets.

#![deny(clippy::wildcard_enum_match_arm)]

use std::time::{Duration, SystemTime};

use super::schedule::{PieceOutcome, Scope};
use crate::ask::neighbour::NeighbourError;
use crate::ask::state::{self, PostOutcome};
use crate::context::WorkerContext;
use crate::item::event::EventType;
use crate::item::payload::Payload;
use crate::metrics::StatePost;
use crate::read::owed::OwedState;

/// A post is tried this long.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// The post about a message that is published now.
pub fn owed(tenant_id: &str, item: usize, conversation_id: Option<&str>) -> OwedState {
    OwedState {
        item,
        tenant_id: tenant_id.to_owned(),
        conversation_id: conversation_id.map(str::to_owned),
        until_ms: now_ms() + KEPT.as_millis() as u64,
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
}

/// Posts a message to the State Manager.
pub(super) async fn post(
    work: &WorkerContext,
    id: &str,
    payload: &Payload,
    owed: &OwedState,
) -> PieceOutcome {
    let correlation_id = &payload.entry.correlation_id;
    if owed.until_ms <= now_ms() {
        tracing::error!(
            entry = id,
            correlation_id,
            "the State Manager was not told of a message for a day"
        );
        work.metrics.state_post(StatePost::Expired);
        return PieceOutcome::Done;
    }
    let Some(state) = &work.state else {
        return PieceOutcome::Away(Scope::Kind);
    };
    let bytes = work.bytes_lock.shared().await;
    let post = payload.items.get(owed.item).and_then(|item| {
        let event_id = EventType::MessageReceived.id(&item.identity);
        let conversation_id = owed.conversation_id.as_deref();
        state::message_post(payload, item, &owed.tenant_id, event_id, conversation_id)
    });
    drop(bytes);
    let Some(post) = post else {
        return PieceOutcome::Seldom;
    };
    match state.post_message(&owed.tenant_id, &post).await {
        Ok(PostOutcome::Accepted) => {
            work.metrics.state_post(StatePost::Taken);
            PieceOutcome::Done
        }
        Ok(PostOutcome::Refused(status)) => {
            tracing::error!(
                entry = id,
                correlation_id,
                status,
                "the State Manager refuses a message"
            );
            work.metrics.state_post(StatePost::Refused);
            PieceOutcome::Done
        }
        Err(error) => {
            tracing::debug!(entry = id, correlation_id, %error, "a State Manager post will be retried");
            failed(&error)
        }
    }
}

/// It may fail for one tenant alone.
fn failed(error: &NeighbourError) -> PieceOutcome {
    match error {
        NeighbourError::BreakerOpen
        | NeighbourError::Busy
        | NeighbourError::Connect
        | NeighbourError::TimedOut
        | NeighbourError::CutOff => PieceOutcome::Away(Scope::Tenant),
        NeighbourError::Throttled { retry_after, .. } => {
            PieceOutcome::Failed(retry_after.unwrap_or_default())
        }
        NeighbourError::TooLarge(_)
        | NeighbourError::Transient { .. }
        | NeighbourError::Final { .. }
        | NeighbourError::Unusable { .. }
        | NeighbourError::Unsendable => PieceOutcome::Failed(Duration::ZERO),
    }
}
