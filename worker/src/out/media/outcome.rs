//! The one place that says what becomes of media that wasn't stored: fetched again soon, later, by
//! hand of an operator, or given up.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;
use std::time::Duration;

use strum::EnumIter;

use super::verify::Mismatch;
use crate::ask::graph::GraphError;
use crate::ask::neighbour::NeighbourError;

/// Why media isn't stored. Part of events and a metric's label, so a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter)]
pub enum MediaFailure {
    /// Its id is none: nothing was asked for.
    InvalidId,
    /// It is larger than `--media-max-bytes`.
    TooLarge,
    /// Meta has nothing of this id any more, or not for this number.
    NotFound,
    /// Meta says that it can't be had.
    NotDownloadable,
    SizeMismatch,
    DigestMismatch,
    /// A page of text came instead of it.
    ContentMismatch,
    /// It came compressed, which nothing of Meta's does.
    Encoded,
    /// Nobody says how large it is.
    NoLength,
    /// Its URL leads where no token may go.
    UrlRefused,
    /// Its URL leads on to another one.
    Redirected,
    /// The tenant's token is missing or not taken.
    Token,
    /// The token may not, or the account is restricted.
    Refused,
    Throttled,
    /// The Graph API fails and is left alone for a while.
    GraphLeftAlone,
    /// The Graph API or the download host is away.
    Unavailable,
    /// It broke off on the way.
    CutOff,
    TooSlow,
    /// The object store is away or refuses.
    Store,
    /// It was not tried: too many transfers of this worker wait.
    Busy,
    /// A bug of this program: the transfer panicked.
    Crashed,
    /// The worker stops.
    Stopping,
}

impl From<MediaFailure> for &'static str {
    fn from(reason: MediaFailure) -> Self {
        reason.text()
    }
}

impl MediaFailure {
    /// What events say.
    pub fn text(self) -> &'static str {
        match self {
            Self::InvalidId => "invalid_id",
            Self::TooLarge => "too_large",
            Self::NotFound => "not_found",
            Self::NotDownloadable => "not_downloadable",
            Self::SizeMismatch => "size_mismatch",
            Self::DigestMismatch => "digest_mismatch",
            Self::ContentMismatch => "content_mismatch",
            Self::Encoded => "encoded",
            Self::NoLength => "no_length",
            Self::UrlRefused => "url_refused",
            Self::Redirected => "redirected",
            Self::Token => "token_refused",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::GraphLeftAlone => "graph_left_alone",
            Self::Unavailable => "unavailable",
            Self::CutOff => "cut_off",
            Self::TooSlow => "too_slow",
            Self::Store => "store",
            Self::Busy => "busy",
            Self::Crashed => "crashed",
            Self::Stopping => "stopping",
        }
    }
}

/// What the event of an item that was published before says of its media: it must not change when
/// the item is published again after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnstoredMedia {
    Pending,
    /// [`MediaFailure::text`], perhaps of another version of this program.
    Failed(String),
}

impl UnstoredMedia {
    /// As it is noted: the item's number and the word.
    pub fn note(&self, n: usize) -> String {
        match self {
            Self::Pending => format!("{n}:pending,"),
            Self::Failed(reason) => format!("{n}:{reason},"),
        }
    }

    /// All notes of an entry. What was noted first holds.
    pub fn read(notes: &str) -> BTreeMap<usize, Self> {
        let mut said = BTreeMap::new();
        for note in notes.split(',') {
            if let Some((n, word)) = note.split_once(':')
                && let Ok(n) = n.parse()
            {
                said.entry(n).or_insert_with(|| match word {
                    "pending" => Self::Pending,
                    reason => Self::Failed(reason.to_owned()),
                });
            }
        }
        said
    }
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultAction {
    /// It is given up: no later try can end otherwise.
    GiveUp,
    /// The bytes aren't what was declared: a few more tries, then it is given up.
    Reread,
    /// Again after a pause that grows, at least this long.
    Again(Duration),
    /// An operator must mend something: seldom.
    Seldom,
}

/// A transfer that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub reason: MediaFailure,
    pub next: FaultAction,
}

impl Fault {
    pub fn of(reason: MediaFailure) -> Self {
        let next = match reason {
            MediaFailure::InvalidId | MediaFailure::TooLarge | MediaFailure::NotDownloadable => {
                FaultAction::GiveUp
            }
            MediaFailure::SizeMismatch
            | MediaFailure::DigestMismatch
            | MediaFailure::ContentMismatch
            | MediaFailure::Encoded
            | MediaFailure::NoLength => FaultAction::Reread,
            MediaFailure::UrlRefused
            | MediaFailure::Redirected
            | MediaFailure::Token
            | MediaFailure::Refused => FaultAction::Seldom,
            // Young ids that aren't found mostly mean a wrong token, but may also be early.
            MediaFailure::NotFound
            | MediaFailure::Throttled
            | MediaFailure::GraphLeftAlone
            | MediaFailure::Unavailable
            | MediaFailure::CutOff
            | MediaFailure::TooSlow
            | MediaFailure::Store
            | MediaFailure::Busy
            | MediaFailure::Crashed
            | MediaFailure::Stopping => FaultAction::Again(Duration::ZERO),
        };
        Self { reason, next }
    }

    /// Not before `pause` is over.
    pub fn after(reason: MediaFailure, pause: Duration) -> Self {
        Self {
            reason,
            next: FaultAction::Again(pause),
        }
    }
}

impl From<MediaFailure> for Fault {
    fn from(reason: MediaFailure) -> Self {
        Self::of(reason)
    }
}

impl From<Mismatch> for Fault {
    fn from(mismatch: Mismatch) -> Self {
        Self::of(match mismatch {
            Mismatch::Size => MediaFailure::SizeMismatch,
            Mismatch::Digest => MediaFailure::DigestMismatch,
            Mismatch::Content => MediaFailure::ContentMismatch,
            Mismatch::TooLarge => MediaFailure::TooLarge,
        })
    }
}

impl From<GraphError> for Fault {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::Token => MediaFailure::Token.into(),
            GraphError::Refused(_) => MediaFailure::Refused.into(),
            GraphError::Missing => MediaFailure::NotFound.into(),
            GraphError::Final(_) => MediaFailure::NotDownloadable.into(),
            GraphError::Throttled(pause) => Self::after(MediaFailure::Throttled, pause),
            GraphError::Neighbour(error) => error.into(),
        }
    }
}

impl From<NeighbourError> for Fault {
    fn from(error: NeighbourError) -> Self {
        match error {
            NeighbourError::BreakerOpen => MediaFailure::GraphLeftAlone.into(),
            // So many questions wait for their answers that this one found no place.
            NeighbourError::Busy
            | NeighbourError::Connect
            | NeighbourError::TimedOut
            | NeighbourError::CutOff
            | NeighbourError::TooLarge(_)
            | NeighbourError::Transient { .. } => MediaFailure::Unavailable.into(),
            NeighbourError::Throttled { retry_after, .. } => {
                Self::after(MediaFailure::Throttled, retry_after.unwrap_or_default())
            }
            NeighbourError::Final { .. }
            | NeighbourError::Unusable { .. }
            | NeighbourError::Unsendable => MediaFailure::Refused.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_first_is_said_again() {
        let notes = [
            UnstoredMedia::Pending.note(3),
            UnstoredMedia::Failed("too_large".to_owned()).note(0),
            UnstoredMedia::Failed("not_found".to_owned()).note(3),
        ];
        let said = UnstoredMedia::read(&notes.concat());
        assert_eq!(said[&3], UnstoredMedia::Pending);
        assert_eq!(said[&0], UnstoredMedia::Failed("too_large".to_owned()));
        assert_eq!(said.len(), 2);
        assert!(UnstoredMedia::read("").is_empty());
    }

    #[test]
    fn only_a_transfer_that_found_no_turn_is_busy() {
        let fault = Fault::from(NeighbourError::Busy);
        assert_eq!(fault.reason, MediaFailure::Unavailable);
    }
}
