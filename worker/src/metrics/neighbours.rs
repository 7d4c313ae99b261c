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

label_values!(NeighbourName, AttemptOutcome, BreakerState);

/// Buckets of the time calls take, in seconds.
const BUCKETS: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// The service that a call goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum NeighbourName {
    TenantService,
    StateManager,
    /// The State Manager again, for posts about messages.
    StateManagerMessages,
    Graph,
}

impl NeighbourName {
    pub fn text(self) -> &'static str {
        self.into()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum AttemptOutcome {
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
struct NeighbourLabels {
    neighbour: NeighbourName,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    neighbour: NeighbourName,
    outcome: AttemptOutcome,
}

/// What a breaker does with the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum BreakerState {
    /// Lets the next call through.
    Closed = 0,
    /// Lets it through if it is the only one.
    HalfOpen = 1,
    /// Refuses it.
    Open = 2,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransitionLabels {
    neighbour: NeighbourName,
    to: BreakerState,
}

/// What is counted of all neighbours.
#[derive(Debug, Clone)]
pub struct NeighbourMetrics {
    attempts: Family<AttemptLabels, Counter>,
    durations: Family<NeighbourLabels, Histogram, fn() -> Histogram>,
    state: Family<NeighbourLabels, Gauge>,
    transitions: Family<TransitionLabels, Counter>,
}

impl Default for NeighbourMetrics {
    fn default() -> Self {
        Self {
            attempts: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
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
            "whatsapp_neighbour_attempts",
            "Requests to a neighbour, and calls that were refused before one, by outcome",
            metrics.attempts.clone(),
        );
        registry.register(
            "whatsapp_neighbour_attempt_duration_seconds",
            "Time from a request to the end of its answer",
            metrics.durations.clone(),
        );
        registry.register(
            "whatsapp_breaker_state",
            "0: closed, 1: half-open, 2: open",
            metrics.state.clone(),
        );
        registry.register(
            "whatsapp_breaker_transitions",
            "Changes of a breaker's state",
            metrics.transitions.clone(),
        );
        metrics
    }
}

impl NeighbourMetrics {
    /// Makes the series of a neighbour.
    pub(crate) fn create_known(&self, neighbour: NeighbourName) {
        let labels = NeighbourLabels { neighbour };
        self.state.get_or_create(&labels).set(0);
        drop(self.durations.get_or_create(&labels));
        for outcome in AttemptOutcome::iter() {
            let labels = AttemptLabels { neighbour, outcome };
            drop(self.attempts.get_or_create(&labels));
        }
        for to in BreakerState::iter() {
            let labels = TransitionLabels { neighbour, to };
            drop(self.transitions.get_or_create(&labels));
        }
    }

    pub(crate) fn attempted(&self, neighbour: NeighbourName, outcome: AttemptOutcome) {
        let labels = AttemptLabels { neighbour, outcome };
        self.attempts.get_or_create(&labels).inc();
    }

    pub(crate) fn attempt_took(&self, neighbour: NeighbourName, duration: Duration) {
        let labels = NeighbourLabels { neighbour };
        self.durations
            .get_or_create(&labels)
            .observe(duration.as_secs_f64());
    }

    /// The breaker changed.
    pub(crate) fn breaker_is(&self, neighbour: NeighbourName, to: BreakerState) {
        self.state
            .get_or_create(&NeighbourLabels { neighbour })
            .set(to as i64);
        let labels = TransitionLabels { neighbour, to };
        self.transitions.get_or_create(&labels).inc();
    }
}
