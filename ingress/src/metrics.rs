//! Metrics of ingress. Handles are made once: a label set built per request costs more than the
//! counting.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

/// What ingress counts.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<Code, Counter>,
    accepted: Counter,
    duration: Histogram,
    own_duration: Histogram,
    pub in_flight: Gauge,
    pub stored_items: Counter,
    pub duplicates: Counter,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let seconds = || {
            Histogram::new([
                0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
                0.5, 1.0, 2.5,
            ])
        };
        let requests = Family::<Code, Counter>::default();
        let accepted = requests.get_or_create(&Code { code: 200 }).clone();
        let metrics = Self {
            requests,
            accepted,
            duration: seconds(),
            own_duration: seconds(),
            in_flight: Gauge::default(),
            stored_items: Counter::default(),
            duplicates: Counter::default(),
        };
        registry.register(
            "ingress_requests",
            "Requests on the webhook path by status code",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "ingress_request_duration",
            "From the last byte of the body to the answer, Redis included",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register_with_unit(
            "ingress_own_duration",
            "The same without the time Redis took",
            Unit::Seconds,
            metrics.own_duration.clone(),
        );
        registry.register(
            "ingress_in_flight",
            "Webhooks in work",
            metrics.in_flight.clone(),
        );
        registry.register(
            "ingress_stored_items",
            "Fresh items stored",
            metrics.stored_items.clone(),
        );
        registry.register(
            "ingress_dedup_hits",
            "Deliveries of which every item had been stored before",
            metrics.duplicates.clone(),
        );
        metrics
    }

    pub(crate) fn answered(&self, code: u16) {
        if code == 200 {
            self.accepted.inc();
        } else {
            self.requests.get_or_create(&Code { code }).inc();
        }
    }

    pub(crate) fn took(&self, whole: Duration, redis: Duration) {
        self.duration.observe(whole.as_secs_f64());
        self.own_duration
            .observe(whole.saturating_sub(redis).as_secs_f64());
    }
}
