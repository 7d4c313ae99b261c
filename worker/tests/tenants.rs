//! Tenants and tokens on a real Redis and a Tenant Service that is played over real HTTP.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use redis::AsyncCommands;
use serde_json::json;
use shared::keys::Keys;
use shared::secrets::Secret;
use tests::eventually;
use tests::neighbours::{Fault, Neighbours, Service, Tenant};
use tests::proxy::{Mode, Proxy};
use tests::servers::{Redis, RedisOptions};
use tokio::time::Instant;
use worker::ask::neighbour::{Neighbour, NeighbourError, Trace};
use worker::ask::tenants::tokens::Tokens;
use worker::ask::tenants::{SERVICE_SETTINGS, Tenants, upkeep};
use worker::cli::Cli;
use worker::config::Secrets;
use worker::item::tenant::Verdict;
use worker::metrics::Metrics;
use worker::metrics::neighbours::NeighbourName;

const SOON: Duration = Duration::from_secs(15);
const OLD_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const NEW_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

struct Stage {
    redis: Redis,
    service: Neighbours,
}

impl Stage {
    async fn new() -> Self {
        tests::install_tls_provider();
        Self {
            redis: Redis::start(RedisOptions::default())
                .await
                .expect("a Redis"),
            service: Neighbours::start().await.expect("a Tenant Service"),
        }
    }

    /// As of a worker that was just started with these settings.
    fn worker(&self, settings: &[(&str, &str)]) -> OneWorker {
        let (redis, url) = (self.redis.url(), self.service.url());
        let given = [
            ("--redis-url", &*redis),
            ("--tenant-service-url", &*url),
            ("--minio-access-key", "a"),
            ("--minio-secret-key", "s"),
        ];
        let given = given.iter();
        let given = given.filter(|(name, _)| settings.iter().all(|(other, _)| other != name));
        let arguments = given.chain(settings);
        let arguments = arguments.flat_map(|(name, value)| [*name, *value]);
        let arguments = std::iter::once("worker").chain(arguments);
        let config = <Cli as clap::Parser>::try_parse_from(arguments)
            .expect("settings")
            .config;
        let secrets = config.secrets().expect("secrets");
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let neighbour = Neighbour::new(
            NeighbourName::TenantService,
            SERVICE_SETTINGS,
            metrics.neighbours.clone(),
        );
        let connection = secrets.redis.connection(Duration::from_secs(3));
        let tenants = Arc::new(Tenants::new(
            &config.tenants,
            &secrets.tenants,
            neighbour.expect("a client"),
            (connection, Keys::new("whatsapp", 16)),
            metrics.caches.clone(),
        ));
        OneWorker {
            tokens: Tokens::new(tenants.clone()),
            tenants,
            registry,
            secrets,
        }
    }

    fn set_token(&self, waba_id: &str, token: &str) {
        let tenant = json!({
            "tenantId": format!("tenant-{waba_id}"),
            "name": "T",
            "status": "active",
            "businessAccountId": waba_id,
            "accessToken": token,
        });
        self.service.set_tenant(waba_id, Tenant::Custom(tenant));
    }

    fn asked(&self) -> usize {
        self.service.requests(Service::Tenants)
    }

    /// Everything in Redis, and its file.
    async fn bytes_of_redis(&self) -> Vec<u8> {
        let mut redis = self.redis.connection().await;
        let mut all = Vec::new();
        let keys: Vec<String> = redis.keys("*").await.expect("KEYS");
        for key in keys {
            let dumped: Vec<u8> = redis::cmd("DUMP")
                .arg(&key)
                .query_async(&mut redis)
                .await
                .expect("DUMP");
            all.extend(dumped);
        }
        let file = self.redis.append_only_file().expect("its name");
        all.extend(std::fs::read(file).expect("the file"));
        all
    }
}

struct OneWorker {
    tenants: Arc<Tenants>,
    tokens: Tokens,
    registry: Registry,
    secrets: Secrets,
}

impl OneWorker {
    async fn resolve(&self, waba_id: &str) -> Verdict {
        let resolving = self.tenants.resolve(waba_id, Trace::default());
        tokio::time::timeout(SOON, resolving)
            .await
            .expect("a verdict")
    }

    /// What is remembered, else what it is told.
    async fn verdict(&self, waba_id: &str) -> Verdict {
        match self.tenants.remembered(waba_id) {
            Some(verdict) => verdict,
            None => self.resolve(waba_id).await,
        }
    }

    async fn token(&self, waba_id: &str) -> Option<String> {
        let token = self.tokens.get(waba_id).await;
        token.map(|token| token.expose().to_owned())
    }

    fn metric(&self, series: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("metrics");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        line.unwrap_or(0.0)
    }
}

fn secret(text: &str) -> Secret {
    text.parse().expect("not empty")
}

#[tokio::test]
async fn a_thousand_misses_at_once_of_two_workers_ask_once() {
    let stage = Stage::new().await;
    stage
        .service
        .set_fault(Service::Tenants, Fault::Slow(Duration::from_millis(200)));
    let workers = [stage.worker(&[]), stage.worker(&[])];
    let asking = (0..1000).map(|n| workers[n % 2].resolve("1"));
    let verdicts = futures::future::join_all(asking).await;
    assert!(
        verdicts
            .iter()
            .all(|verdict| verdict.tenant_id() == Some("tenant-1"))
    );
    assert_eq!(stage.asked(), 1);
    let hits = workers[1].metric("cache_hit_total{cache=\"tenant_redis\"}")
        + workers[0].metric("cache_hit_total{cache=\"tenant_redis\"}");
    assert!((hits - 1.0).abs() < 0.1, "{hits}");
}

#[tokio::test]
async fn an_account_without_a_tenant_is_asked_about_once() {
    let stage = Stage::new().await;
    stage.service.set_tenant("1", Tenant::Unknown);
    let workers = [stage.worker(&[]), stage.worker(&[])];
    for worker in [&workers[0], &workers[0], &workers[1]] {
        assert_eq!(worker.resolve("1").await, Verdict::Unknown);
    }
    assert_eq!(stage.asked(), 1);
}

#[tokio::test]
async fn an_older_answer_serves_while_the_service_is_down_but_not_for_ever() {
    let stage = Stage::new().await;
    // One may be served by the older answer for long, the other for a moment.
    for (stale_ttl, waba_id) in [("1h", "1"), ("2s", "2")] {
        let settings = [
            ("--tenant-cache-ttl", "1s"),
            ("--tenant-stale-ttl", stale_ttl),
        ];
        let worker = stage.worker(&settings);
        let known = worker.resolve(waba_id).await;
        stage.service.set_fault(Service::Tenants, Fault::Close);
        let runs_out = eventually(SOON, "it is out of date", async || {
            worker.tenants.remembered(waba_id).is_none().then_some(())
        });
        runs_out.await;
        if stale_ttl == "1h" {
            assert_eq!(worker.resolve(waba_id).await, known);
            // A worker that knows nothing itself has it from Redis.
            assert_eq!(stage.worker(&settings).resolve(waba_id).await, known);
        } else {
            let mut redis = stage.redis.connection().await;
            let gone = eventually(SOON, "it is too old", async || {
                let key = format!("whatsapp:tenant:{waba_id}");
                let there: bool = redis.exists(key).await.ok()?;
                (!there).then_some(())
            });
            gone.await;
            let resolving = worker.tenants.resolve(waba_id, Trace::default());
            tokio::time::timeout(Duration::from_millis(1500), resolving)
                .await
                .expect_err("no verdict");
        }
        stage.service.set_fault(Service::Tenants, Fault::None);
        assert_eq!(stage.worker(&settings).resolve(waba_id).await, known);
    }
}

#[tokio::test]
async fn what_is_used_is_refreshed_before_it_runs_out_and_loaded_at_the_start() {
    let stage = Stage::new().await;
    // It is refreshed when a fifth of that is left.
    let settings = [("--tenant-cache-ttl", "8s")];
    let worker = stage.worker(&settings);
    let (stop, tracker) = (
        tokio_util::sync::CancellationToken::new(),
        tokio_util::task::TaskTracker::new(),
    );
    let stopped = stop.clone().drop_guard();
    tracker.spawn(upkeep::keep_warm(worker.tenants.clone(), stop.clone()));
    worker.resolve("1").await;
    let refreshed = eventually(SOON, "it is refreshed", async || {
        assert!(worker.tenants.remembered("1").is_some(), "it ran out");
        (stage.asked() == 2).then_some(())
    });
    refreshed.await;
    let misses = worker.metric("cache_miss_total{cache=\"tenant\"}");
    assert!(misses < 1.0, "{misses}");
    let mut redis = stage.redis.connection().await;
    let seen: Vec<String> = redis
        .zrange("whatsapp:tenants:seen", 0, -1)
        .await
        .expect("ZRANGE");
    assert_eq!(seen, ["1"]);
    // The next worker has it before it is asked for.
    let next = stage.worker(&settings);
    tracker.spawn(upkeep::keep_warm(next.tenants.clone(), stop.clone()));
    let warm = eventually(SOON, "a warm cache", async || next.tenants.remembered("1"));
    warm.await;
    drop(stopped);
}

#[tokio::test]
async fn an_invalidation_reaches_every_worker() {
    let stage = Stage::new().await;
    let workers = [stage.worker(&[]), stage.worker(&[])];
    let stop = tokio_util::sync::CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let tracker = tokio_util::task::TaskTracker::new();
    for worker in &workers {
        let redis = worker.secrets.redis.clone();
        tracker.spawn(upkeep::hear_changes(
            worker.tenants.clone(),
            redis,
            stop.clone(),
        ));
    }
    listens(&stage, 2).await;
    for worker in &workers {
        worker.resolve("1").await;
    }
    stage.service.set_tenant("1", Tenant::Suspended);
    workers[0].tenants.invalidate("1").await.expect("Redis");
    eventually(SOON, "both forget", async || {
        let forgotten = workers
            .iter()
            .all(|worker| worker.tenants.remembered("1").is_none());
        forgotten.then_some(())
    })
    .await;
    for worker in &workers {
        assert!(matches!(worker.resolve("1").await, Verdict::Suspended(_)));
    }
}

/// What doesn't hear of changes for longer than this is a fault.
const DEAF_AT_MOST: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_worker_that_became_deaf_notices_and_reads_again() {
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let url = format!("redis://{}", proxy.address());
    // Nothing but what hears of changes goes through the proxy.
    let redis = stage.worker(&[("--redis-url", &url)]).secrets.redis;
    let (hears, other) = (stage.worker(&[]), stage.worker(&[]));
    let stop = tokio_util::sync::CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let tracker = tokio_util::task::TaskTracker::new();
    tracker.spawn(upkeep::hear_changes(hears.tenants.clone(), redis, stop));
    let accounts = ["1", "2", "3"];
    for account in accounts {
        stage.set_token(account, "old");
    }
    listens(&stage, 1).await;
    for account in accounts {
        hears.resolve(account).await;
        assert_eq!(hears.token(account).await.as_deref(), Some("old"));
    }
    proxy.set(Mode::HalfOpen);
    for account in accounts {
        let passed = json!({"tenantId": "new", "accessToken": "new"});
        stage.service.set_tenant(account, Tenant::Custom(passed));
        other.tenants.invalidate(account).await.expect("Redis");
        // Redis has the new answer: nobody asks the service for it again.
        other.resolve(account).await;
    }
    eventually(DEAF_AT_MOST, "what it missed is read again", async || {
        for account in accounts {
            let new = hears.verdict(account).await.tenant_id() == Some("new");
            let new = new && hears.token(account).await.as_deref() == Some("new");
            new.then_some(())?;
        }
        Some(())
    })
    .await;
    // It hears again.
    stage.service.set_tenant("1", Tenant::Unknown);
    other.tenants.invalidate("1").await.expect("Redis");
    eventually(SOON, "it hears", async || {
        (hears.verdict("1").await == Verdict::Unknown).then_some(())
    })
    .await;
}

/// So many listen for changes.
async fn listens(stage: &Stage, count: usize) {
    let mut redis = stage.redis.connection().await;
    eventually(SOON, "they listen", async || {
        let counted: (String, usize) = redis::cmd("PUBSUB")
            .arg("NUMSUB")
            .arg("whatsapp:tenants:changed")
            .query_async(&mut redis)
            .await
            .ok()?;
        (counted.1 == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_token_is_nowhere_in_redis_in_the_clear() {
    const CANARY: &str = "EAAcanary0token0canary";
    let found = |bytes: &[u8]| {
        let mut windows = bytes.windows(CANARY.len());
        windows.any(|window| window == CANARY.as_bytes())
    };
    let stage = Stage::new().await;
    stage.set_token("1", CANARY);
    let without_key = stage.worker(&[]);
    assert_eq!(without_key.token("1").await.as_deref(), Some(CANARY));
    assert!(!found(&stage.bytes_of_redis().await));
    let mut redis = stage.redis.connection().await;
    assert!(
        !redis
            .exists::<_, bool>("whatsapp:token:1")
            .await
            .expect("EXISTS")
    );

    without_key.tenants.invalidate("1").await.expect("Redis");
    let old = stage.worker(&[("--token-encryption-key", OLD_KEY)]);
    assert_eq!(old.token("1").await.as_deref(), Some(CANARY));
    assert!(
        redis
            .exists::<_, bool>("whatsapp:token:1")
            .await
            .expect("EXISTS")
    );
    assert!(!found(&stage.bytes_of_redis().await));
    assert!(!format!("{:?}", old.tokens.get("1").await).contains(CANARY));

    // Another worker has it from Redis, also one with a further key, but not one with another key.
    let asked = stage.asked();
    let both = format!("{NEW_KEY},{OLD_KEY}");
    for keys in [OLD_KEY, &both] {
        let worker = stage.worker(&[("--token-encryption-key", keys)]);
        assert_eq!(worker.token("1").await.as_deref(), Some(CANARY));
    }
    assert_eq!(stage.asked(), asked);
    let new = stage.worker(&[("--token-encryption-key", NEW_KEY)]);
    assert_eq!(new.token("1").await.as_deref(), Some(CANARY));
    assert_eq!(stage.asked(), asked + 1);
    assert!(!found(&stage.bytes_of_redis().await));

    // One that was swapped for another tenant's doesn't open.
    stage.set_token("2", "EAAanother0token");
    assert_eq!(new.token("2").await.as_deref(), Some("EAAanother0token"));
    let sealed: Vec<u8> = redis.get("whatsapp:token:2").await.expect("GET");
    redis
        .set::<_, _, ()>("whatsapp:token:1", sealed)
        .await
        .expect("SET");
    redis
        .pexpire::<_, ()>("whatsapp:token:1", 60_000)
        .await
        .expect("PEXPIRE");
    let new = stage.worker(&[("--token-encryption-key", NEW_KEY)]);
    assert_eq!(new.token("1").await.as_deref(), Some(CANARY));
}

#[tokio::test]
async fn a_key_file_rotates_while_the_worker_runs() {
    let stage = Stage::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    std::fs::write(&path, OLD_KEY).expect("a file");
    let worker = stage.worker(&[("--token-encryption-key-file", &*path.to_string_lossy())]);
    assert_eq!(worker.token("1").await.as_deref(), Some("token-1"));
    std::fs::write(&path, NEW_KEY).expect("a file");
    for _ in 0..2 {
        worker
            .secrets
            .followed()
            .iter()
            .for_each(|secret| secret.reload());
    }
    assert_eq!(worker.token("2").await.as_deref(), Some("token-2"));
    let next = stage.worker(&[("--token-encryption-key", NEW_KEY)]);
    let asked = stage.asked();
    assert_eq!(next.token("2").await.as_deref(), Some("token-2"));
    assert_eq!(stage.asked(), asked);
}

#[tokio::test]
async fn a_refused_token_is_asked_for_again_once() {
    let stage = Stage::new().await;
    stage.set_token("1", "old");
    let worker = stage.worker(&[("--token-encryption-key", OLD_KEY)]);
    assert_eq!(worker.token("1").await.as_deref(), Some("old"));
    let asked = stage.asked();

    // There is no other: it is parked, however many ask.
    stage
        .service
        .set_fault(Service::Tenants, Fault::Slow(Duration::from_millis(100)));
    let old = secret("old");
    let refused = (0..100).map(|_| worker.tokens.refused("1", &old));
    let others = futures::future::join_all(refused).await;
    assert!(others.iter().all(Option::is_none));
    assert_eq!(stage.asked(), asked + 1);
    assert_eq!(worker.token("1").await, None);
    assert!(worker.tokens.refused("1", &old).await.is_none());
    assert_eq!(stage.asked(), asked + 1);
    assert!((worker.metric("whatsapp_graph_tokens_rejected") - 1.0).abs() < 0.1);

    // A declared change brings the new one.
    stage.set_token("1", "new");
    worker.tenants.invalidate("1").await.expect("Redis");
    assert_eq!(worker.token("1").await.as_deref(), Some("new"));
    assert!(worker.metric("whatsapp_graph_tokens_rejected").abs() < 0.1);

    // Whoever still holds the old one gets it without asking.
    let asked = stage.asked();
    let other = worker.tokens.refused("1", &old).await.expect("the new one");
    assert_eq!((other.expose(), stage.asked()), ("new", asked));

    // The service has another one already: all that were refused get it, after one question.
    stage.set_token("1", "newer");
    let new = secret("new");
    let refused = (0..100).map(|_| worker.tokens.refused("1", &new));
    let others = futures::future::join_all(refused).await;
    assert!(others.iter().all(|other| {
        other
            .as_ref()
            .is_some_and(|other| other.expose() == "newer")
    }));
    assert_eq!(stage.asked(), asked + 1);
    assert!(worker.metric("whatsapp_graph_tokens_rejected").abs() < 0.1);
}

#[tokio::test]
async fn a_tenant_without_a_token_or_a_suspended_one_has_none() {
    let stage = Stage::new().await;
    stage.service.set_tenant(
        "1",
        Tenant::Custom(json!({"tenantId": "t", "accessToken": null})),
    );
    stage.service.set_tenant("2", Tenant::Suspended);
    stage.service.set_tenant("3", Tenant::Unknown);
    let worker = stage.worker(&[]);
    for waba_id in ["1", "2", "3"] {
        assert_eq!(worker.token(waba_id).await, None);
    }
}

#[tokio::test]
async fn an_answer_about_another_account_is_no_answer() {
    let stage = Stage::new().await;
    let other = json!({"tenantId": "t", "businessAccountId": "2"});
    stage.service.set_tenant("1", Tenant::Custom(other));
    let worker = stage.worker(&[]);
    let resolving = worker.tenants.resolve("1", Trace::default());
    tokio::time::timeout(Duration::from_secs(1), resolving)
        .await
        .expect_err("no verdict");
}

impl Stage {
    /// The limits that ingress knows of, by account.
    async fn limits(&self, accounts: &[&str]) -> Vec<Option<u32>> {
        let keys = Keys::new("whatsapp", 16);
        let mut redis = self.redis.connection().await;
        let mut limits = Vec::new();
        for account in accounts {
            let key = keys.seen(keys.partition_of(account));
            limits.push(redis.hget(key, format!("l{account}")).await.expect("HGET"));
        }
        limits
    }

    async fn limits_become(&self, accounts: &[&str], expected: &[Option<u32>]) {
        eventually(SOON, "the limits are told", async || {
            (self.limits(accounts).await == expected).then_some(())
        })
        .await;
    }

    async fn refused_a_limit(&self) {
        let mut redis = self.redis.connection().await;
        eventually(SOON, "Redis refuses a limit", async || {
            let mut info = redis::cmd("INFO");
            info.arg("commandstats");
            let info: String = info.query_async(&mut redis).await.ok()?;
            let line = info
                .lines()
                .find(|line| line.starts_with("cmdstat_hset:"))?;
            (!line.contains("rejected_calls=0,")).then_some(())
        })
        .await;
    }

    /// Redis takes nothing that needs memory, or everything again.
    async fn set_full(&self, full: bool) {
        let mut redis = self.redis.connection().await;
        let mut config = redis::cmd("CONFIG");
        config.arg("SET").arg("maxmemory").arg(u8::from(full));
        config
            .query_async::<()>(&mut redis)
            .await
            .expect("CONFIG SET");
    }
}

#[tokio::test]
async fn an_account_taken_out_of_the_file_has_no_limit_any_more() {
    let stage = Stage::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tenants.json");
    let write = |accounts: &[(&str, u32)]| {
        let tenants = accounts.iter().map(|(waba_id, limit)| {
            json!({"tenantId": "t", "businessAccountId": waba_id, "rateLimitPerMinute": limit})
        });
        let tenants: Vec<_> = tenants.collect();
        std::fs::write(&path, json!(tenants).to_string()).expect("a file");
    };
    let tracker = tokio_util::task::TaskTracker::new();
    let start = || {
        let worker = stage.worker(&[("--tenants-file", &*path.to_string_lossy())]);
        let stop = tokio_util::sync::CancellationToken::new();
        tracker.spawn(upkeep::keep_warm(worker.tenants.clone(), stop.clone()));
        (worker, stop.drop_guard())
    };
    write(&[("1", 10), ("2", 20), ("3", 30)]);
    stage.set_full(true).await;
    let (worker, stop) = start();
    stage.refused_a_limit().await;
    stage.set_full(false).await;
    stage
        .limits_become(&["1", "2", "3"], &[Some(10), Some(20), Some(30)])
        .await;
    write(&[("1", 11), ("3", 30)]);
    for _ in 0..2 {
        let followed = worker.secrets.followed();
        followed.iter().for_each(|secret| secret.reload());
    }
    stage
        .limits_become(&["1", "2", "3"], &[Some(11), None, Some(30)])
        .await;
    // Taken out while no worker runs.
    drop(stop);
    write(&[("1", 11)]);
    let (_worker, _stop) = start();
    stage
        .limits_become(&["1", "2", "3"], &[Some(11), None, None])
        .await;
}

#[tokio::test]
async fn a_limit_that_redis_did_not_take_is_told_again() {
    let stage = Stage::new().await;
    let tenant = json!({"tenantId": "t", "rateLimitPerMinute": 7});
    stage.service.set_tenant("1", Tenant::Custom(tenant));
    stage.set_full(true).await;
    let worker = stage.worker(&[]);
    worker.resolve("1").await;
    assert_eq!(stage.limits(&["1"]).await, [None]);
    let stop = tokio_util::sync::CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let tracker = tokio_util::task::TaskTracker::new();
    tracker.spawn(upkeep::keep_warm(worker.tenants.clone(), stop));
    stage.set_full(false).await;
    stage.limits_become(&["1"], &[Some(7)]).await;
    assert_eq!(stage.asked(), 1);
}

/// Answers (200) about account 1 that can't be used.
fn unusable() -> Vec<serde_json::Value> {
    vec![
        json!({"tenantId": "t", "businessAccountId": "2"}),
        json!({"tenantId": "t", "businessAccountId": 1}),
        json!({"tenantId": "", "businessAccountId": "1"}),
        json!({"tenantId": null}),
        json!({"tenantId": ["t"]}),
        json!({"tenantId": "t", "name": {"first": "T"}}),
        json!({"tenantId": "t", "rateLimitPerMinute": -1}),
        json!({"tenantId": "t", "accessToken": 7}),
        json!({}),
        json!([]),
        json!("tenant"),
        json!(null),
    ]
}

#[tokio::test]
async fn answers_of_no_use_about_one_account_are_that_accounts_alone() {
    let stage = Stage::new().await;
    let worker = stage.worker(&[]);
    for answer in unusable() {
        stage
            .service
            .set_tenant("1", Tenant::Custom(answer.clone()));
        let asked = worker.tenants.ask("1").await;
        assert!(
            matches!(asked, Err(NeighbourError::Unusable { status: 200 })),
            "{answer}: {asked:?}"
        );
    }
    for status in [400, 410, 422] {
        stage
            .service
            .set_fault_about(Service::Tenants, "/1", Fault::Status(status));
        let asked = worker.tenants.ask("1").await;
        assert!(matches!(asked, Err(NeighbourError::Unusable { .. })));
    }
    for waba_id in ["2", "3"] {
        let asked = worker.tenants.ask(waba_id).await;
        assert_eq!(
            asked.expect("an answer").tenant_id(),
            Some(&*format!("tenant-{waba_id}"))
        );
    }
    let opened = "whatsapp_breaker_transitions_total{neighbour=\"tenant-service\",to=\"open\"}";
    assert!(worker.metric(opened) < 0.5);
}

#[tokio::test]
async fn a_service_that_fails_for_some_accounts_is_asked_about_all_others() {
    const BAD: [&str; 3] = ["111", "222", "333"];
    let refused =
        "whatsapp_neighbour_attempts_total{neighbour=\"tenant-service\",outcome=\"breaker_open\"}";
    for fault in [Fault::Status(500), Fault::Close, Fault::Cut(20)] {
        let stage = Stage::new().await;
        let worker = stage.worker(&[]);
        for bad in BAD {
            stage.service.set_fault_about(Service::Tenants, bad, fault);
        }
        let bad = BAD.map(|bad| worker.tenants.resolve(bad, Trace::default()));
        let others = async {
            let left_alone = async || (worker.metric(refused) >= 3.0).then_some(());
            eventually(SOON, "those are left alone", left_alone).await;
            for waba_id in 10..30 {
                let asked = worker.tenants.ask(&waba_id.to_string()).await;
                assert!(asked.is_ok(), "{fault}: {waba_id}: {asked:?}");
            }
        };
        tokio::select! {
            _ = futures::future::select_all(bad.map(Box::pin)) => panic!("no verdict was due"),
            () = others => {}
        }
    }
}

#[tokio::test]
async fn a_status_that_nobody_knows_is_suspended() {
    let stage = Stage::new().await;
    let worker = stage.worker(&[]);
    for (n, status) in [
        json!("deleted"),
        json!("Active"),
        json!(""),
        json!(1),
        json!(null),
    ]
    .into_iter()
    .enumerate()
    {
        let waba_id = n.to_string();
        let tenant = json!({"tenantId": "t", "status": status});
        stage.service.set_tenant(&waba_id, Tenant::Custom(tenant));
        let verdict = worker.resolve(&waba_id).await;
        assert!(matches!(verdict, Verdict::Suspended(_)), "{status}");
        // So it is for a worker that has it from Redis.
        let asked = stage.asked();
        assert_eq!(stage.worker(&[]).resolve(&waba_id).await, verdict);
        assert_eq!(stage.asked(), asked);
    }
}

/// Figures: `cargo test --release -p worker --test tenants -- --nocapture cost`.
#[tokio::test]
async fn what_a_lookup_costs() {
    let stage = Stage::new().await;
    let worker = stage.worker(&[]);
    worker.resolve("0").await;
    let rounds = 100_000;
    let began = Instant::now();
    for _ in 0..rounds {
        assert!(worker.tenants.remembered("0").is_some());
    }
    let hit = began.elapsed() / rounds;
    let began = Instant::now();
    for n in 1..=1000 {
        worker.resolve(&n.to_string()).await;
    }
    let miss = began.elapsed() / 1000;
    let other = stage.worker(&[]);
    let began = Instant::now();
    for n in 1..=1000 {
        other.resolve(&n.to_string()).await;
    }
    let in_redis = began.elapsed() / 1000;
    assert_eq!(stage.asked(), 1001);
    assert!(hit < in_redis && in_redis < miss);
    #[allow(
        clippy::print_stdout,
        reason = "a figure for people who run with --nocapture"
    )]
    {
        println!("hit in process {hit:?}, hit in Redis {in_redis:?}, miss {miss:?}");
    }
}

/// How long the turn to look up accounts without a tenant lasts if nobody keeps it.
async fn turn_lasts(redis: &mut redis::aio::MultiplexedConnection) -> Duration {
    let ms: i64 = redis.pttl("whatsapp:tenants:turn").await.expect("PTTL");
    Duration::from_millis(ms.try_into().unwrap_or(0))
}

#[tokio::test]
async fn a_turn_is_kept_while_its_worker_works_however_long() {
    const INTERVAL: Duration = Duration::from_secs(6);
    let stage = Stage::new().await;
    let (one, other) = (stage.worker(&[]), stage.worker(&[]));
    let mut redis = stage.redis.connection().await;
    let turn = one.tenants.take_turn(INTERVAL).await.expect("a free turn");
    let began = Instant::now();
    let work = async {
        // Longer than the turn lasts that is not kept.
        eventually(SOON, "the interval is over", async || {
            assert!(other.tenants.take_turn(INTERVAL).await.is_none());
            (began.elapsed() > INTERVAL).then_some(())
        })
        .await;
        assert!(turn_lasts(&mut redis).await > Duration::ZERO);
    };
    turn.work(work).await;
    // It took longer than the interval: the next round may begin at once.
    assert!(other.tenants.take_turn(INTERVAL).await.is_some());
}

#[tokio::test]
async fn a_round_that_is_done_soon_leaves_the_next_one_to_the_next_interval() {
    const INTERVAL: Duration = Duration::from_secs(600);
    let stage = Stage::new().await;
    let (one, other) = (stage.worker(&[]), stage.worker(&[]));
    let turn = one.tenants.take_turn(INTERVAL).await.expect("a free turn");
    turn.work(std::future::ready(())).await;
    assert!(other.tenants.take_turn(INTERVAL).await.is_none());
    let left = turn_lasts(&mut stage.redis.connection().await).await;
    assert!(left <= INTERVAL * 9 / 10, "{left:?}");
}

#[tokio::test]
async fn a_turn_that_expires_in_the_middle_ends_the_round_and_stays_the_others() {
    const INTERVAL: Duration = Duration::from_secs(3);
    let stage = Stage::new().await;
    let (one, other) = (stage.worker(&[]), stage.worker(&[]));
    let mut redis = stage.redis.connection().await;
    let turn = one.tenants.take_turn(INTERVAL).await.expect("a free turn");
    // As it does when its worker stands still.
    let expired = redis.del::<_, ()>("whatsapp:tenants:turn");
    expired.await.expect("DEL");
    let others = other.tenants.take_turn(INTERVAL * 100).await;
    assert!(others.is_some());
    let working = turn.work(std::future::pending());
    let ended = tokio::time::timeout(SOON, working).await;
    ended.expect("the round ends");
    assert!(turn_lasts(&mut redis).await > INTERVAL, "it is the other's");
}
