//! What it costs to know whose an account is, against a real Redis and the simulator's Tenant Service.
//! Nothing here waits for anything else: what a busy worker adds is not in it.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, FromArgMatches};
use divan::{Bencher, black_box};
use prometheus_client::registry::Registry;
use shared::keys::Keys;
use tests::neighbours::Neighbours;
use tests::servers::{Redis, RedisOptions};
use tokio::runtime::Runtime;
use worker::ask::neighbour::{Neighbour, Trace};
use worker::ask::tenants::{SERVICE_SETTINGS, Tenants};
use worker::config::Config;
use worker::item::tenant::Verdict;
use worker::metrics::Metrics;
use worker::metrics::neighbours::NeighbourName;

const ACCOUNT: &str = "204800000000001";
const ANOTHER: &str = "204800000000002";

struct Bench {
    runtime: Runtime,
    redis: Redis,
    neighbours: Neighbours,
}

impl Bench {
    fn start() -> Self {
        tests::install_tls_provider();
        let runtime = Runtime::new().expect("a runtime");
        let redis = runtime.block_on(Redis::start(RedisOptions::default()));
        let neighbours = runtime.block_on(Neighbours::start());
        Self {
            redis: redis.expect("a Redis"),
            neighbours: neighbours.expect("neighbours"),
            runtime,
        }
    }

    /// Those of a worker that has just started.
    fn tenants(&self) -> Arc<Tenants> {
        let (redis, service) = (self.redis.url(), self.neighbours.url());
        let command = Config::augment_args(clap::Command::new("worker"));
        let matches = command.get_matches_from([
            "worker",
            "--redis-url",
            &redis,
            "--tenant-service-url",
            &service,
            "--minio-access-key",
            "x",
            "--minio-secret-key",
            "x",
        ]);
        let config = Config::from_arg_matches(&matches).expect("settings");
        let secrets = config.secrets().expect("secrets");
        let metrics = Metrics::new(&mut Registry::default());
        let (name, counted) = (NeighbourName::TenantService, metrics.neighbours.clone());
        let neighbour = Neighbour::new(name, SERVICE_SETTINGS, counted).expect("a client");
        let connection = secrets.redis.connection(Duration::from_secs(5));
        let known = (connection, Keys::new("whatsapp", 16));
        let tenants = Tenants::new(
            &config.tenants,
            &secrets.tenants,
            neighbour,
            known,
            metrics.caches,
        );
        Arc::new(tenants)
    }

    fn resolve(&self, tenants: &Arc<Tenants>, account: &str) {
        let resolved = tenants.resolve(account, Trace::default());
        found(&self.runtime.block_on(resolved));
    }
}

fn found(verdict: &Verdict) {
    assert!(verdict.tenant_id().is_some(), "{verdict:?}");
}

fn main() {
    divan::main();
}

/// This worker knows it.
#[divan::bench]
fn in_this_process(bencher: Bencher<'_, '_>) {
    let bench = Bench::start();
    let tenants = bench.tenants();
    bench.resolve(&tenants, ACCOUNT);
    bencher.bench_local(|| black_box(tenants.remembered(black_box(ACCOUNT))));
}

/// Another worker knew it; the connections are there.
#[divan::bench]
fn in_redis(bencher: Bencher<'_, '_>) {
    let bench = Bench::start();
    bench.resolve(&bench.tenants(), ACCOUNT);
    bencher
        .with_inputs(|| {
            let tenants = bench.tenants();
            bench.resolve(&tenants, ANOTHER);
            tenants
        })
        .bench_local_values(|tenants| bench.resolve(&tenants, ACCOUNT));
}

/// Nobody knows it: the Tenant Service is asked, and Redis told.
#[divan::bench]
fn nowhere(bencher: Bencher<'_, '_>) {
    let bench = Bench::start();
    let tenants = bench.tenants();
    bencher.bench_local(|| {
        let asked = bench.runtime.block_on(tenants.ask(ACCOUNT));
        found(&asked.expect("an answer"));
    });
}
