//! How a call fails, and what that means: for another attempt, for the breaker, for the metrics.

#![deny(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use crate::ask::breaker::CallOutcome;
use crate::metrics::neighbours::AttemptOutcome;

/// Why a call brought nothing. Names no URL, header or body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NeighbourError {
    #[error("it failed too often and is left alone for a while")]
    BreakerOpen,
    #[error("too many calls at once")]
    Busy,
    #[error("can't connect")]
    Connect,
    #[error("no answer in time")]
    TimedOut,
    #[error("the answer broke off")]
    CutOff,
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    #[error("answered {status}, or nonsense with it")]
    Transient {
        status: u16,
        retry_after: Option<Duration>,
    },
    #[error("answered {status} and wants fewer calls")]
    Throttled {
        status: u16,
        retry_after: Option<Duration>,
    },
    #[error("answered {status}")]
    Final { status: u16 },
    #[error("answered {status} with what can't be used")]
    Unusable { status: u16 },
    #[error("the request can't be sent")]
    Unsendable,
}

impl NeighbourError {
    /// Whether the same call may succeed within its time, and the wait that was asked for.
    pub(super) fn passes(&self) -> Option<Duration> {
        match self {
            Self::Connect | Self::TimedOut | Self::CutOff => Some(Duration::ZERO),
            Self::Transient { retry_after, .. } | Self::Throttled { retry_after, .. } => {
                Some(retry_after.unwrap_or_default())
            }
            Self::BreakerOpen
            | Self::Busy
            | Self::TooLarge(_)
            | Self::Final { .. }
            | Self::Unusable { .. }
            | Self::Unsendable => None,
        }
    }

    pub(super) fn call_outcome(&self) -> CallOutcome {
        match self {
            Self::Connect
            | Self::TimedOut
            | Self::CutOff
            | Self::TooLarge(_)
            | Self::Transient { .. } => CallOutcome::Unhealthy,
            Self::Throttled { .. } | Self::Final { .. } | Self::Unusable { .. } => {
                CallOutcome::Healthy
            }
            Self::BreakerOpen | Self::Busy | Self::Unsendable => CallOutcome::Inconclusive,
        }
    }

    pub(super) fn outcome(&self) -> AttemptOutcome {
        match self {
            Self::BreakerOpen => AttemptOutcome::BreakerOpen,
            Self::Busy => AttemptOutcome::Busy,
            Self::Connect => AttemptOutcome::NoConnection,
            Self::TimedOut => AttemptOutcome::TimedOut,
            Self::CutOff => AttemptOutcome::CutOff,
            Self::TooLarge(_) => AttemptOutcome::TooLarge,
            Self::Transient { .. } => AttemptOutcome::Transient,
            Self::Throttled { .. } => AttemptOutcome::Throttled,
            Self::Final { .. } | Self::Unsendable => AttemptOutcome::Final,
            Self::Unusable { .. } => AttemptOutcome::Unusable,
        }
    }
}

/// What reqwest's error says, without its URL.
pub fn reason(error: &reqwest::Error) -> NeighbourError {
    if error.is_timeout() {
        NeighbourError::TimedOut
    } else if error.is_connect() {
        NeighbourError::Connect
    } else if error.is_builder() {
        NeighbourError::Unsendable
    } else {
        NeighbourError::CutOff
    }
}
