//! Metrics of ingress. Handles are made once: a label set built per request costs more than the
//! counting.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};
use redis::RedisError;
use shared::redis::FailureKind;

use crate::top_accounts::TopAccounts;

/// Seconds. 0.25 is the objective that the alerts go by.
const ANSWERS: [f64; 13] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.5,
];
/// Seconds, from 10 µs.
const OWN: [f64; 14] = [
    0.00001, 0.00002, 0.00003, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05,
    0.2, 1.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: u16,
}

/// Codes that are there from the start, so that a first one is seen as one more.
const CODES: [u16; 12] = [200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 500, 503];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    partition: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// Name and meaning of the counters without labels, in the order in which [`Metrics::new`] takes them.
const COUNTERS: [(&str, &str); 7] = [
    (
        "whatsapp_ingress_connections_turned_away",
        "Connections that ingress refused beyond MAX_CONNECTIONS",
    ),
    ("whatsapp_ingress_stored_items", "Fresh items stored"),
    (
        "whatsapp_ingress_dedup_hits",
        "Webhooks of which every item had been stored before",
    ),
    (
        "whatsapp_ingress_rate_limit_exceeded",
        "Webhooks stored beyond their account's limit where limits are not enforced",
    ),
    (
        "whatsapp_ingress_signed_by_further_secret",
        "Webhooks signed with another app secret than the first of META_APP_SECRETS",
    ),
    (
        "whatsapp_ingress_test_webhooks",
        "Tests from Meta's dashboard (account 0), repeated ones too",
    ),
    (
        "whatsapp_ingress_spooled",
        "Webhooks put into the spool because Redis could not take them",
    ),
];

/// What ingress counts.
pub struct Metrics {
    requests: Family<CodeLabels, Counter>,
    accepted: Counter,
    duration: Histogram,
    own_duration: Histogram,
    connections: Gauge,
    pub(crate) turned_away: Counter,
    in_flight: Gauge,
    pub(crate) stored_items: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) limited: TopAccounts,
    pub(crate) over_limit: Counter,
    pub(crate) further_secret: Counter,
    pub(crate) tests: Counter,
    pub(crate) spooled: Counter,
    pub(crate) away_partitions: Gauge,
    pub(crate) redis_errors: RedisErrors,
    pub(crate) redis_memory: Gauge<f64, AtomicU64>,
    stream_length: Family<StreamLabels, Gauge>,
}

/// Calls that Redis did not do.
#[derive(Clone, Default)]
pub struct RedisErrors(Family<KindLabels, Counter>);

impl RedisErrors {
    /// With each kind at 0, so that a first one is seen as one more.
    fn from_the_start() -> Self {
        let errors = Self::default();
        for kind in FailureKind::ALL {
            let kind = kind.name();
            drop(errors.0.get_or_create(&KindLabels { kind }));
        }
        errors
    }

    pub(crate) fn count(&self, error: &RedisError) {
        let kind = FailureKind::of(error).name();
        self.0.get_or_create(&KindLabels { kind }).inc();
    }
}

/// One more in a gauge, until it is dropped.
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn in_gauge(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// With each of [`CODES`] at 0.
fn requests_from_the_start() -> Family<CodeLabels, Counter> {
    let requests = Family::default();
    for code in CODES {
        drop(requests.get_or_create(&CodeLabels { code }));
    }
    requests
}

impl Metrics {
    /// Registers all metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let [
            turned_away,
            stored_items,
            duplicates,
            over_limit,
            further_secret,
            tests,
            spooled,
        ] = COUNTERS.map(|(name, help)| registered(registry, name, help, Counter::default()));
        let requests = requests_from_the_start();
        let accepted = requests.get_or_create(&CodeLabels { code: 200 }).clone();
        let limited = TopAccounts::new();
        registry.register(
            "whatsapp_ingress_rate_limit_rejections",
            "Webhooks refused beyond their account's limit, by account: the twenty refused most, then `other`",
            limited.family(),
        );
        Self {
            requests: registered(
                registry,
                "whatsapp_ingress_requests",
                "Requests on the webhook path by status code",
                requests,
            ),
            accepted,
            duration: histogram(
                registry,
                "whatsapp_ingress_request_duration",
                "From the last byte of the body to the answer, Redis included",
                ANSWERS,
            ),
            own_duration: histogram(
                registry,
                "whatsapp_ingress_own_duration",
                "From the last byte of the body to the answer, without the time that Redis took",
                OWN,
            ),
            connections: registered(
                registry,
                "whatsapp_ingress_connections",
                "Open connections",
                Gauge::default(),
            ),
            turned_away,
            in_flight: registered(
                registry,
                "whatsapp_ingress_in_flight",
                "Webhooks being stored",
                Gauge::default(),
            ),
            stored_items,
            duplicates,
            limited,
            over_limit,
            further_secret,
            tests,
            spooled,
            away_partitions: registered(
                registry,
                "whatsapp_ingress_away_partitions",
                "Partitions whose webhooks go to the spool without asking Redis",
                Gauge::default(),
            ),
            redis_errors: RedisErrors(registered(
                registry,
                "whatsapp_ingress_redis_errors",
                "Failed calls to Redis by kind of failure, those of probes included; the webhook may have been stored by a further call or in the spool",
                RedisErrors::from_the_start().0,
            )),
            redis_memory: registered(
                registry,
                "whatsapp_ingress_redis_memory_ratio",
                "Share of Redis' maxmemory in use; 0 without a limit",
                Gauge::default(),
            ),
            stream_length: registered(
                registry,
                "whatsapp_ingress_stream_length",
                "Entries of a partition that are not acknowledged, as ingress sees them",
                Family::default(),
            ),
        }
    }

    /// What waits in each partition.
    pub(crate) fn waiting(&self, lengths: &[u64]) {
        for (partition, length) in (0..).zip(lengths) {
            let labels = StreamLabels { partition };
            self.stream_length
                .get_or_create(&labels)
                .set(*length as i64);
        }
    }

    pub(crate) fn answered(&self, code: u16) {
        if code == 200 {
            self.accepted.inc();
        } else {
            self.requests.get_or_create(&CodeLabels { code }).inc();
        }
    }

    pub(crate) fn observe_durations(&self, whole: Duration, redis: Duration) {
        self.duration.observe(whole.as_secs_f64());
        self.own_duration
            .observe(whole.saturating_sub(redis).as_secs_f64());
    }

    pub(crate) fn open_connection(&self) -> GaugeGuard {
        GaugeGuard::in_gauge(&self.connections)
    }

    pub(crate) fn webhook_in_flight(&self) -> GaugeGuard {
        GaugeGuard::in_gauge(&self.in_flight)
    }
}

fn registered<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn histogram<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    buckets: [f64; N],
) -> Histogram {
    let metric = Histogram::new(buckets);
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}
