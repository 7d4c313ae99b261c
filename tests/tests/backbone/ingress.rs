//! What ingress answers.

use std::time::Duration;

use redis::AsyncCommands;
use serde_json::Value;
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::meta::sign;
use tests::programs::{APP_SECRET, Until};
use tests::proxy::{Mode, Proxy};
use tests::waiting::eventually;

use crate::{SOON, drained, stored};

#[tokio::test]
async fn only_what_is_signed_gets_in() {
    let stage = Stage::new().await;
    let ingress = stage
        .ingress()
        .env("META_APP_SECRETS", "old,app-secret")
        .start()
        .await;
    let sender = stage.sender(&ingress);
    let body = Number::fresh().message(payload::text("111111111", "x"));
    let right = sign(APP_SECRET, &body);
    let wrong = sign("guess", &body);
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);
    let cases: [Case<'_>; 4] = [
        ("no signature", &[], 401),
        ("a wrong one", &[("X-Hub-Signature-256", &wrong)], 401),
        (
            "two",
            &[
                ("X-Hub-Signature-256", &wrong),
                ("X-Hub-Signature-256", &right),
            ],
            401,
        ),
        ("the right one", &[("X-Hub-Signature-256", &right)], 200),
    ];
    for (case, headers, status) in cases {
        let before = stored(&stage).await;
        let answer = sender
            .post_with(body.clone(), headers)
            .await
            .expect("an answer");
        assert_eq!(answer.status, status, "{case}");
        let correlation_id = answer.header("x-correlation-id").to_owned();
        assert_eq!(correlation_id.len(), 36, "{case}");
        if status != 200 {
            assert_eq!(answer.header("content-type"), "application/problem+json");
            let problem: Value = serde_json::from_str(&answer.body).expect("JSON");
            assert_eq!(problem["correlationId"], correlation_id.as_str());
            assert_eq!(stored(&stage).await, before, "{case}");
        }
    }
    assert_eq!(stored(&stage).await, 1);
}

#[tokio::test]
async fn unsigned_mode_takes_only_what_is_ours() {
    let stage = Stage::new().await;
    let refused = stage
        .ingress()
        .without_env("META_APP_SECRETS")
        .try_start()
        .await
        .expect_err("it must not start");
    assert!(
        format!("{refused:#}").contains("ALLOW_UNSIGNED"),
        "{refused:#}"
    );
    let ingress = stage
        .ingress()
        .without_env("META_APP_SECRETS")
        .env("ALLOW_UNSIGNED", true)
        .start()
        .await;
    let sender = stage.sender(&ingress);
    for (body, status) in [
        ("no json", 400),
        ("{}", 400),
        ("[]", 400),
        (r#"{"entry":5}"#, 400),
        (r#"{"object":"page","entry":[]}"#, 400),
        (r#"{"entry":[{"id":"1","changes":[]}]}"#, 200),
        (r#"{"object":"whatsapp_business_account","entry":5}"#, 200),
    ] {
        let answer = sender.post_with(body, &[]).await.expect("an answer");
        assert_eq!(answer.status, status, "{body}");
    }
    assert_eq!(stored(&stage).await, 2);
}

#[tokio::test]
async fn another_partition_count_refuses_to_start() {
    let stage = Stage::new().await;
    let _first = stage.ingress().start().await;
    let ingress = stage
        .ingress()
        .env("STREAM_PARTITIONS", 8)
        .try_start()
        .await;
    let worker = stage.worker().env("STREAM_PARTITIONS", 8).try_start().await;
    for refused in [ingress.err(), worker.err()] {
        let refused = format!("{:#}", refused.expect("it must not start"));
        assert!(
            refused.contains("STREAM_PARTITIONS") && refused.contains("16"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn an_unsafe_redis_is_reported_and_refused_if_asked() {
    let stage = Stage::with(tests::StageOptions {
        redis: tests::servers::RedisOptions {
            arguments: vec!["--appendfsync".into(), "everysec".into()],
            ..Default::default()
        },
        ..Default::default()
    })
    .await;
    let ingress = stage.ingress().start().await;
    let (_, report) = ingress.get("/ready").await.expect("an answer");
    assert!(report.contains("appendfsync is everysec"), "{report}");
    let refused = stage
        .ingress()
        .env("REQUIRE_DURABLE_REDIS", true)
        .try_start()
        .await;
    let refused = format!("{:#}", refused.expect_err("it must not start"));
    assert!(refused.contains("appendfsync is everysec"), "{refused}");
}

#[tokio::test]
async fn nothing_is_marked_that_is_not_stored() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().env("REDIS_PATIENCE", "100ms").start().await;
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let body = number.webhook([number.messages([
        payload::text("1111111111", "a"),
        payload::text("2222222222", "b"),
    ])]);
    let mut connection = stage.redis.connection().await;
    // XADD fails on each partition's stream, in the middle of the script.
    for partition in 0..16 {
        let key = format!("whatsapp:{{{partition}}}:stream");
        connection
            .set::<_, _, ()>(key, "no stream")
            .await
            .expect("SET");
    }
    let answer = sender.post_once(body.clone()).await.expect("an answer");
    assert_eq!(answer.status, 503);
    assert_ne!(answer.header("retry-after"), "");
    for partition in 0..16 {
        let key = format!("whatsapp:{{{partition}}}:stream");
        connection.del::<_, ()>(key).await.expect("DEL");
    }
    let left: Vec<String> = connection.keys("whatsapp:*seen*").await.expect("KEYS");
    assert_eq!(left, Vec::<String>::new());
    sender.send(body).await;
    assert_eq!(stored(&stage).await, 1);
}

#[tokio::test]
async fn an_entry_names_its_fresh_items() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let items: Vec<_> = (0..5)
        .map(|n| payload::text("1111111111", &n.to_string()))
        .collect();
    sender.send(number.message(items[1].clone())).await;
    sender.send(number.webhook([number.messages(items)])).await;
    let mut connection = stage.redis.connection().await;
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let entries: redis::streams::StreamRangeReply = connection
        .xrange_all(format!("whatsapp:{{{partition}}}:stream"))
        .await
        .expect("XRANGE");
    let fresh = |entry: &redis::streams::StreamId| entry.get::<String>("n");
    let fresh: Vec<_> = entries.ids.iter().map(fresh).collect();
    assert_eq!(fresh, [None, Some("0,2-4".to_owned())], "none: all of them");
}

#[tokio::test]
async fn a_lost_answer_of_redis_does_not_double() {
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let ingress = stage
        .ingress()
        .env("REDIS_URL", format!("redis://{}", proxy.address()))
        .start()
        .await;
    let sender = stage.sender(&ingress);
    let body = Number::fresh().message(payload::text("1111111111", "a"));
    // Redis knows the script from here on.
    sender
        .send(Number::fresh().message(payload::text("1111111111", "before")))
        .await;
    proxy.set(Mode::LoseAnswers);
    let answer = sender.post_once(body.clone()).await.expect("an answer");
    assert_eq!(answer.status, 503);
    eventually(SOON, "the entry is there all the same", async || {
        (stored(&stage).await == 2).then_some(())
    })
    .await;
    proxy.set(Mode::Pass);
    sender.send(body).await;
    assert_eq!(stored(&stage).await, 2);
}

#[tokio::test]
async fn while_redis_is_away_the_answer_is_503_and_health_is_well() {
    let mut stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let sender = stage.sender(&ingress);
    stage.redis.kill();
    let body = Number::fresh().message(payload::text("1111111111", "a"));
    let answer = sender.post_once(body.clone()).await.expect("an answer");
    assert_eq!(answer.status, 503);
    let (health, _) = ingress.get("/health").await.expect("an answer");
    assert_eq!(health.as_u16(), 200);
    eventually(SOON, "/ready says so", async || {
        let (ready, _) = ingress.get("/ready").await.ok()?;
        (ready.as_u16() == 503).then_some(())
    })
    .await;
    stage.redis.restart().await.expect("Redis");
    sender.send_like_meta(body).await;
    assert_eq!(stored(&stage).await, 1);
}

#[tokio::test]
async fn told_to_stop_it_answers_what_is_in_work() {
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let mut ingress = stage
        .ingress()
        .env("REDIS_URL", format!("redis://{}", proxy.address()))
        .start()
        .await;
    let sender = stage.sender(&ingress);
    proxy.set(Mode::Slow(Duration::from_millis(150)));
    let posts = (0..50).map(|n| {
        let body = Number::fresh().message(payload::text("1111111111", &n.to_string()));
        let sender = sender.clone();
        tokio::spawn(async move { sender.post_once(body).await })
    });
    let posts: Vec<_> = posts.collect();
    eventually(SOON, "all are in work", async || {
        (ingress.metric("whatsapp_ingress_in_flight", "").await >= 50.0).then_some(())
    })
    .await;
    ingress.signal("TERM");
    for post in posts {
        let answer = post.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status, 200);
    }
    assert!(ingress.stop(SOON).await, "it ends by itself");
    assert_eq!(stored(&stage).await, 50);
}

/// A started program that is only spawned has nothing to wait for.
#[tokio::test]
async fn all_settings_that_are_wrong_are_named() {
    let stage = Stage::new().await;
    let mut ingress = stage
        .ingress()
        .without_env("META_APP_SECRETS")
        .env("WEBHOOK_PATH", "nowhere")
        .env("MAX_CONNECTIONS", "many")
        .env("LOG_LEVEL", "loud=loud=loud")
        .env("REDIS_URL", "http://nowhere:secret@x")
        .arg("--header-timeout=soon")
        .until(Until::Spawned)
        .start()
        .await;
    eventually(SOON, "it ends", async || {
        (!ingress.is_running()).then_some(())
    })
    .await;
    let log = ingress.log();
    for named in [
        "META_APP_SECRETS (--app-secrets)",
        "WEBHOOK_PATH (--webhook-path)",
        "MAX_CONNECTIONS (--max-connections)",
        "LOG_LEVEL (--log-level)",
        "HEADER_TIMEOUT (--header-timeout)",
        "REDIS_URL",
    ] {
        assert!(log.contains(named), "{named} in {log}");
    }
    assert!(!log.contains("secret@x"), "{log}");
    let mut worker = stage
        .worker()
        .without_env("MINIO_SECRET_KEY")
        .env("AMQP_URL", "nonsense:secret")
        .env("LEASE_TTL", "1ms")
        .env("READ_BYTES", "4194304")
        .until(Until::Spawned)
        .start()
        .await;
    eventually(SOON, "it ends", async || {
        (!worker.is_running()).then_some(())
    })
    .await;
    let log = worker.log();
    for named in [
        "AMQP_URL",
        "LEASE_TTL (--lease-ttl)",
        "READ_BYTES (--read-bytes)",
    ] {
        assert!(log.contains(named), "{named} in {log}");
    }
    assert!(!log.contains("nonsense:secret"), "{log}");
}

/// None of them would keep a stranger out, and none of them is printed.
#[tokio::test]
async fn a_secret_that_is_none_refuses_to_start() {
    let stage = Stage::new().await;
    for (name, value) in [
        ("META_APP_SECRETS", ""),
        ("META_APP_SECRETS", " \n"),
        ("META_APP_SECRETS", "c4n4ry,,"),
        ("META_APP_SECRETS", "c4n4ry\n\nc4n4ry"),
        ("META_VERIFY_TOKEN", ""),
        ("META_VERIFY_TOKEN", "\n"),
        ("REDIS_URL", "redis://:c4n4ry@:x"),
    ] {
        let refused = stage
            .ingress()
            .env(name, value)
            .until(Until::Healthy)
            .try_start();
        let refused = refused.await.err().map(|error| format!("{error:#}"));
        let refused = refused.unwrap_or_else(|| panic!("{name}={value:?} starts"));
        assert!(
            refused.contains(name) && !refused.contains("c4n4ry"),
            "{refused}"
        );
    }
    for (name, value) in [
        ("WORKER_ADMIN_TOKEN", ""),
        ("TOKEN_ENCRYPTION_KEY", "c4n4ry"),
        ("AMQP_URL", "amqp://user:c4n4ry@w@host:x"),
        ("MINIO_SECRET_KEY", " "),
    ] {
        let refused = stage
            .worker()
            .env(name, value)
            .until(Until::Healthy)
            .try_start();
        let refused = refused.await.err().map(|error| format!("{error:#}"));
        let refused = refused.unwrap_or_else(|| panic!("{name}={value:?} starts"));
        assert!(
            refused.contains(name) && !refused.contains("c4n4ry"),
            "{refused}"
        );
    }
    // A line's end behind it is no part of it: editors put it there.
    let ingress = stage
        .ingress()
        .env("META_APP_SECRETS", "app-secret\n")
        .start()
        .await;
    let sender = tests::meta::Sender::new(ingress.webhook_url(), APP_SECRET);
    sender
        .send(Number::fresh().message(payload::text("1111111111", "x")))
        .await;
}

/// Far more items than Meta sends would hold up everybody else's script.
#[tokio::test]
async fn a_body_of_too_many_items_is_kept_whole() {
    let stage = Stage::new().await;
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let items = |count: usize| {
        let items = vec!["0"; count].join(",");
        format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{}","changes":[{{"field":"messages","value":{{"messages":[{items}]}}}}]}}]}}"#,
            number.waba_id
        )
    };
    let accounts = vec![r#"{"id":"1"}"#; 1001].join(",");
    let accounts = format!(r#"{{"object":"whatsapp_business_account","entry":[{accounts}]}}"#);
    for body in [items(1_000_000), items(20_001), accounts] {
        let answer = sender.post_once(body).await.expect("an answer");
        assert_eq!(answer.status, 200);
    }
    drained(&stage).await;
    let kept = stage.webhooks().list("failed/").await.expect("a list");
    assert_eq!(kept.len(), 3, "{kept:?}");
}
