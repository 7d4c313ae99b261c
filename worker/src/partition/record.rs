//! Tells Redis what became of many entries at once; where it refuses one of them, of each alone.

use std::time::Duration;

use shared::redis::{FailureKind, warn_will_retry};
use tokio::sync::Notify;

use super::window::EntryNumber;
use crate::read::leases::Tenure;
use crate::read::owed::{Finished, Owed};
use crate::read::stream::{Stream, StreamError};
use crate::retry::Backoff;

/// Between tries. Little is published while Redis doesn't know of what was, so they don't grow long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What is recorded of an entry.
pub(super) enum EntryRecord {
    /// It is done, and owes this.
    Finished(Vec<Owed>),
    /// It goes on; the numbers of its items that are done.
    Progress(String),
}

impl EntryRecord {
    pub(super) fn owes(&self) -> bool {
        matches!(self, Self::Finished(owed) if !owed.is_empty())
    }
}

/// An entry's number in the window, its id, and what is recorded of it.
type NumberedRecord = (EntryNumber, String, EntryRecord);

/// Why nothing of a record was done.
enum NotRecorded {
    NotOwner,
    /// Trying it again changes nothing: a key of another type, a piece that can't be written.
    Refused,
}

/// Records entries, and returns those that Redis refuses. `failed` is notified of each try that Redis
/// didn't answer.
///
/// # Errors
/// The lease is another worker's.
pub(super) async fn record(
    stream: &Stream,
    tenure: &Tenure,
    steps: &[NumberedRecord],
    failed: &Notify,
) -> Result<Vec<EntryNumber>, StreamError> {
    match try_together(stream, tenure, steps, failed).await {
        Ok(()) => return Ok(Vec::new()),
        Err(NotRecorded::NotOwner) => return Err(StreamError::NotOwner),
        Err(NotRecorded::Refused) => {}
    }
    let mut refused = Vec::new();
    for step in steps {
        match try_together(stream, tenure, std::slice::from_ref(step), failed).await {
            Ok(()) => {}
            Err(NotRecorded::NotOwner) => return Err(StreamError::NotOwner),
            Err(NotRecorded::Refused) => {
                tracing::error!(entry = step.1, "an entry can't be recorded, will retry");
                refused.push(step.0);
            }
        }
    }
    // It may refuse whatever comes, such as a login: then it takes not even an empty record.
    if refused.len() == steps.len()
        && let Err(NotRecorded::NotOwner) = try_together(stream, tenure, &[], failed).await
    {
        return Err(StreamError::NotOwner);
    }
    Backoff::for_server().wait().await;
    Ok(refused)
}

/// Records entries in one step, trying again as long as Redis may come back.
async fn try_together(
    stream: &Stream,
    tenure: &Tenure,
    steps: &[NumberedRecord],
    failed: &Notify,
) -> Result<(), NotRecorded> {
    let (mut finished, mut progress) = (Vec::new(), Vec::new());
    for (_, id, step) in steps {
        match step {
            EntryRecord::Finished(owed) => finished.push(Finished { id, owed }),
            EntryRecord::Progress(numbers) => progress.push((id.clone(), numbers.clone())),
        }
    }
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let error = match stream.record(tenure, &finished, &progress).await {
            Ok(()) => return Ok(()),
            Err(StreamError::NotOwner) => return Err(NotRecorded::NotOwner),
            Err(StreamError::Redis(error)) => error,
        };
        warn_will_retry(&error);
        if !tenure.holds() {
            return Err(NotRecorded::NotOwner);
        }
        // Of an empty record there is nothing to refuse but whoever asks: a login that is wrong by now.
        let is_empty = steps.is_empty();
        if FailureKind::of(&error) == FailureKind::NeedsRepair && !is_empty {
            return Err(NotRecorded::Refused);
        }
        failed.notify_one();
        backoff.wait().await;
    }
}
