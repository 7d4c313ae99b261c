//! The place of an object that was put back, once its entry is done and what of it failed again is written.

use super::schedule::{PieceOutcome, Scope};
use crate::context::WorkerContext;
use crate::out::store;
use crate::read::owed::{OwedSettle, Settled};

/// Moves an object that was put back to where it belongs.
pub(super) async fn settle(work: &WorkerContext, settle: &OwedSettle) -> PieceOutcome {
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
        Ok(()) => PieceOutcome::Done,
        // Moved before, when the note of it was lost.
        Err(error) if error.is_not_found() => PieceOutcome::Done,
        Err(error) => {
            tracing::warn!(%error, "an object can't be moved yet");
            PieceOutcome::Away(Scope::Kind)
        }
    }
}
