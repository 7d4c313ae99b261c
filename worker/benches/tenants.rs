//! What it costs to know whose an account is, against a real Redis and the simulator's Tenant Service.
//! Nothing here waits for anything else: what a busy worker adds is not in it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clap::{Args, FromArgMatches};
use divan::{Bencher, black_box};
use prometheus_client::registry::Registry;
use shared::keys::Keys;
use tests::neighbours::Neighbours;
use tests::servers::{Redis, RedisOptions};
use tokio::runtime::Runtime;
use worker::config::Config;
use worker::metrics::Metrics;
use worker::neighbour::{Name, Neighbour, Trace};
use worker::tenants::{SERVICE_SETTINGS, Tenants, Verdict};

const ACCOUNT: &str = "204800000000001";

struct Bench {
    runtime: Runtime,
    redis: Redis,
    neighbours: Neighbours,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    tests::install_tls_provider();
    let runtime = Runtime::new().expect("a runtime");
    let started = runtime.block_on(async {
        let redis = Redis::start(RedisOptions::default()).await;
        (redis, Neighbours::start().await)
    });
    Bench {
        runtime,
        redis: started.0.expect("a Redis"),
        neighbours: started.1.expect("neighbours"),
    }
});

/// Those of a worker that has just started.
fn tenants() -> Arc<Tenants> {
    let (redis, service) = (BENCH.redis.url(), BENCH.neighbours.url());
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
    let (name, counted) = (Name::TenantService, metrics.neighbours.clone());
    let neighbour = Neighbour::new(name, SERVICE_SETTINGS, counted).expect("a client");
    let connection = secrets.redis.connection(Duration::from_secs(5));
    let keys = Keys::new("whatsapp", 16);
    let known = (connection, keys);
    let tenants = Tenants::new(&config.tenants, &secrets, neighbour, known, metrics.caches);
    Arc::new(tenants)
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
    let tenants = tenants();
    let resolved = tenants.resolve(ACCOUNT, Trace::default());
    found(&BENCH.runtime.block_on(resolved));
    bencher.bench_local(|| black_box(tenants.remembered(black_box(ACCOUNT))));
}

/// Another worker knew it; the connections are there.
#[divan::bench]
fn in_redis(bencher: Bencher<'_, '_>) {
    let asker = tenants();
    let warm = async |tenants: &Arc<Tenants>| {
        tenants.resolve("204800000000002", Trace::default()).await;
    };
    found(
        &BENCH
            .runtime
            .block_on(asker.resolve(ACCOUNT, Trace::default())),
    );
    bencher
        .with_inputs(|| {
            let tenants = tenants();
            BENCH.runtime.block_on(warm(&tenants));
            tenants
        })
        .bench_local_values(|tenants| {
            found(
                &BENCH
                    .runtime
                    .block_on(tenants.resolve(ACCOUNT, Trace::default())),
            );
        });
}

/// Nobody knows it: the Tenant Service is asked, and Redis told.
#[divan::bench]
fn nowhere(bencher: Bencher<'_, '_>) {
    let tenants = tenants();
    bencher.bench_local(|| {
        let asked = BENCH.runtime.block_on(tenants.ask(ACCOUNT));
        found(&asked.expect("an answer"));
    });
}
