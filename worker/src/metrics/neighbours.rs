//! What is counted of the services that are asked.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};

use super::label_values;

label_values!(Name, Outcome, To);

/// Buckets of the time calls take, in seconds.
const BUCKETS: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// Whom a call goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Name {
    TenantService,
    StateManager,
    /// The State Manager again, for what it is told.
    StateManagerMessages,
    Graph,
}

impl Name {
    pub fn text(self) -> &'static str {
        self.into()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Outcome {
    Done,
    Transient,
    Throttled,
    Final,
    Unusable,
    NoConnection,
    TimedOut,
    CutOff,
    TooLarge,
    BreakerOpen,
    Busy,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Whom {
    neighbour: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempted {
    neighbour: Name,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum To {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Transition {
    neighbour: Name,
    to: To,
}

/// What is counted of all neighbours.
#[derive(Debug, Clone)]
pub struct NeighbourMetrics {
    attempts: Family<Attempted, Counter>,
    took: Family<Whom, Histogram, fn() -> Histogram>,
    state: Family<Whom, Gauge>,
    transitions: Family<Transition, Counter>,
}

impl Default for NeighbourMetrics {
    fn default() -> Self {
        Self {
            attempts: Family::default(),
            took: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            state: Family::default(),
            transitions: Family::default(),
        }
    }
}

impl NeighbourMetrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "neighbour_attempts",
            "Requests to a neighbour, and calls that were refused before one, by outcome",
            metrics.attempts.clone(),
        );
        registry.register(
            "neighbour_attempt_duration_seconds",
            "Time from a request to the end of its answer",
            metrics.took.clone(),
        );
        registry.register(
            "breaker_state",
            "0: closed, 1: half-open, 2: open",
            metrics.state.clone(),
        );
        registry.register(
            "breaker_transitions",
            "Changes of a breaker's state",
            metrics.transitions.clone(),
        );
        metrics
    }
}

impl NeighbourMetrics {
    /// Makes the series of a neighbour.
    pub(crate) fn create_known(&self, neighbour: Name) {
        let whom = Whom { neighbour };
        self.state.get_or_create(&whom).set(0);
        drop(self.took.get_or_create(&whom));
        for outcome in Outcome::iter() {
            let labels = Attempted { neighbour, outcome };
            drop(self.attempts.get_or_create(&labels));
        }
        for to in To::iter() {
            let labels = Transition { neighbour, to };
            drop(self.transitions.get_or_create(&labels));
        }
    }
    pub(crate) fn attempted(&self, neighbour: Name, outcome: Outcome) {
        let labels = Attempted { neighbour, outcome };
        self.attempts.get_or_create(&labels).inc();
    }

    pub(crate) fn took(&self, neighbour: Name, took: Duration) {
        let whom = Whom { neighbour };
        self.took.get_or_create(&whom).observe(took.as_secs_f64());
    }

    /// The breaker changed.
    pub(crate) fn breaker_is(&self, neighbour: Name, to: To) {
        self.state.get_or_create(&Whom { neighbour }).set(to as i64);
        let labels = Transition { neighbour, to };
        self.transitions.get_or_create(&labels).inc();
    }
}
