//! Works off what acknowledged entries still owe. Doing a piece twice is harmless, so a crash between
//! the work and its removal from the list is too.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use shared::redis::class;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::ask::neighbour::NeighbourError;
use crate::ask::state::PostOutcome;
use crate::context::Work;
use crate::metrics::{StatePost, Uploaded};
use crate::out::error::Reason;
use crate::out::store;
use crate::read::leases::Tenure;
use crate::read::stream::{Later, Owed, OwedKind, OwedObject, OwedState, Settle, Settled};
use crate::retry::Backoff;

/// One object; a body has 3 MB at most.
const PUT_TIME: Duration = Duration::from_secs(20);
/// The list is looked at this often even if nobody says that there is something.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The State Manager is told this long.
const STATE_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Works the later-list off for as long as it is polled.
pub async fn work_off(work: Arc<Work>, tenure: Arc<Tenure>, owed: Arc<Notify>) {
    let mut backoff = Backoff::for_server();
    loop {
        match sweep(&work, &tenure).await {
            Ok(0) => {
                backoff.reset();
                drop(timeout(LOOK_INTERVAL, owed.notified()).await);
            }
            Ok(failed) => {
                tracing::warn!(
                    partition = tenure.partition,
                    failed,
                    "the later-list must wait"
                );
                backoff.wait().await;
            }
            Err(error) => {
                tracing::warn!(class = class(&error), %error, "redis command failed, will retry");
                backoff.wait().await;
            }
        }
    }
}

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Done,
    /// This one: another may still succeed.
    Failed,
    /// Whoever is needed for it doesn't answer.
    Away,
}

/// Goes through the whole list once; how many pieces failed. It leaves out a [group](Owed::group) for
/// which nobody answered in a whole round; the others go on.
async fn sweep(work: &Work, tenure: &Tenure) -> redis::RedisResult<usize> {
    let mut after = "0-0".to_owned();
    let mut failed = 0;
    let mut objects_owed = false;
    let mut left_out = BTreeSet::new();
    loop {
        let (pieces, next) = work.stream.later(tenure, &after, &left_out).await?;
        // An object leaves its old place once what replaces it is written, which lies before it.
        let (settling, others): (Vec<_>, Vec<_>) = pieces
            .into_iter()
            .partition(|piece| piece.settle().is_some());
        let mut ended = work_on_all(work, tenure, others).await;
        objects_owed |= ended.iter().any(|(_, group, outcome)| {
            group == OwedKind::Object.name() && *outcome != Outcome::Done
        });
        if objects_owed {
            failed += settling.len();
        } else {
            ended.extend(work_on_all(work, tenure, settling).await);
        }
        let mut outcomes: BTreeMap<String, BTreeSet<Outcome>> = BTreeMap::new();
        let mut done = Vec::new();
        for (id, group, outcome) in ended {
            outcomes.entry(group).or_default().insert(outcome);
            match outcome {
                Outcome::Done => done.push(id),
                Outcome::Failed | Outcome::Away => failed += 1,
            }
        }
        let away = BTreeSet::from([Outcome::Away]);
        let hopeless = outcomes
            .into_iter()
            .filter(|(_, outcomes)| *outcomes == away);
        left_out.extend(hopeless.map(|(group, _)| group));
        if !done.is_empty() {
            work.stream.later_done(tenure, &done).await?;
        }
        match next {
            Some(next) => after = next,
            None => return Ok(failed),
        }
    }
}

/// Does pieces side by side: of each its id, its group, and whether it is done. Leaves out what a later
/// version put there.
async fn work_on_all(
    work: &Work,
    tenure: &Tenure,
    pieces: Vec<Later>,
) -> Vec<(String, String, Outcome)> {
    let known = pieces
        .into_iter()
        .filter_map(|piece| Some((piece.id, piece.owed?)));
    join_all(known.map(async |(id, owed)| {
        let group = owed.group();
        let outcome = match owed {
            Owed::Object(object) => put(work, object).await,
            Owed::State(state) => tell(work, &id, &state).await,
            Owed::Settle(settle) => settle_object(work, tenure, &id, &settle).await,
            // It has a list of its own.
            Owed::Media(_) => Outcome::Failed,
        };
        (id, group, outcome)
    }))
    .await
}

/// Moves an object that was put back to where it belongs.
async fn settle_object(work: &Work, tenure: &Tenure, id: &str, settle: &Settle) -> Outcome {
    let source = &settle.source;
    let moved = match (source.strip_prefix(store::FAILED), settle.settled) {
        (Some(rest), Settled::Out) => {
            let replayed = format!("{}{rest}", store::REPLAYED);
            work.store.shift(source, &replayed).await
        }
        (Some(_), Settled::Again) => work.store.remove(source).await,
        // The archive keeps what it has.
        (Some(_), Settled::Same) | (None, _) => Ok(()),
    };
    match moved {
        // Moved before, when the note of it was lost.
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => {
            tracing::warn!(%error, "an object can't be moved yet");
            return Outcome::Away;
        }
    }
    match work.stream.settled(tenure, id, settle).await {
        Ok(()) => Outcome::Done,
        Err(error) => {
            tracing::warn!(class = class(&error), %error, "redis command failed, will retry");
            Outcome::Failed
        }
    }
}

/// Writes an object. Of one that was set aside for want of a tenant, the account is noted too, so
/// that it is looked up again.
async fn put(work: &Work, object: OwedObject) -> Outcome {
    let described: BTreeMap<String, String> =
        serde_json::from_str(&object.attributes).unwrap_or_default();
    let put = work
        .store
        .put_apart(&object.key, &described, object.body.into());
    let began = Instant::now();
    let correlation_id = described.get("correlation-id");
    let correlation_id = correlation_id.map_or("", String::as_str);
    match timeout(PUT_TIME, put).await {
        Ok(Ok(())) => {
            work.metrics.uploaded(Uploaded::Payload, began.elapsed());
            tracing::debug!(correlation_id, "written from the later-list");
        }
        Ok(Err(error)) => {
            tracing::warn!(correlation_id, %error, "an object is still owed");
            return if error.is_away() {
                Outcome::Away
            } else {
                Outcome::Failed
            };
        }
        Err(_) => return Outcome::Away,
    }
    let reason = described.get("reason").and_then(|it| it.parse().ok());
    let without_tenant = reason.is_some_and(Reason::ends_with_a_tenant);
    match described.get("waba-id").filter(|_| without_tenant) {
        Some(waba_id) if work.tenants.note_unknown(waba_id).await.is_err() => Outcome::Failed,
        Some(_) | None => Outcome::Done,
    }
}

fn correlation_id(told: &str) -> String {
    let told: serde_json::Value = serde_json::from_str(told).unwrap_or_default();
    told["correlationId"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Tells the State Manager of a message.
async fn tell(work: &Work, id: &str, owed: &OwedState) -> Outcome {
    let told = &*owed.told;
    let age = id.split_once('-').and_then(|(ms, _)| ms.parse().ok());
    let written = SystemTime::UNIX_EPOCH + Duration::from_millis(age.unwrap_or(0));
    if written.elapsed().is_ok_and(|age| age > STATE_KEPT) {
        let correlation_id = correlation_id(told);
        tracing::error!(
            piece = id,
            correlation_id,
            "the State Manager was not told of a message for a day"
        );
        work.metrics.state_post(StatePost::Expired);
        return Outcome::Done;
    }
    let Some(state) = &work.state else {
        return Outcome::Away;
    };
    match state.post_message(&owed.tenant_id, told).await {
        Ok(PostOutcome::Accepted) => {
            work.metrics.state_post(StatePost::Taken);
            Outcome::Done
        }
        Ok(PostOutcome::Refused(status)) => {
            let correlation_id = correlation_id(told);
            tracing::error!(
                piece = id,
                correlation_id,
                status,
                "the State Manager refuses a message"
            );
            work.metrics.state_post(StatePost::Refused);
            Outcome::Done
        }
        Err(error) => {
            let correlation_id = correlation_id(told);
            tracing::debug!(piece = id, correlation_id, %error, "the State Manager is told later");
            match error {
                NeighbourError::BreakerOpen
                | NeighbourError::Busy
                | NeighbourError::Connect
                | NeighbourError::TimedOut
                | NeighbourError::CutOff => Outcome::Away,
                NeighbourError::TooLarge(_)
                | NeighbourError::Transient { .. }
                | NeighbourError::Throttled { .. }
                | NeighbourError::Final { .. }
                | NeighbourError::Unusable { .. }
                | NeighbourError::Unsendable => Outcome::Failed,
            }
        }
    }
}
