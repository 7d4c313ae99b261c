//! What Redis and the network in front of it can do to ingress.

use std::collections::HashSet;
use std::time::Duration;

use redis::AsyncCommands;
use tests::meta::payload::{self, Number};
use tests::programs::Until;
use tests::proxy::{Mode, Proxy};
use tests::servers::RedisOptions;
use tests::waiting::eventually;
use tests::{Stage, StageOptions};

use crate::broker::behind_a_proxy;
use crate::{SOON, stored};

fn fresh(text: &str) -> bytes::Bytes {
    Number::fresh().message(payload::text("1111111111", text))
}

#[tokio::test]
async fn what_redis_says_is_503_and_passes() {
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let redis_url = format!("redis://{}", proxy.address());
    let ingress = stage
        .ingress()
        .env("REDIS_URL", redis_url)
        .env("REDIS_PATIENCE", "200ms")
        .start()
        .await;
    let sender = stage.sender(&ingress);
    sender.send(fresh("before")).await;
    let said: [(&str, &'static [u8]); 10] = [
        (
            "soon",
            b"-LOADING Redis is loading the dataset in memory\r\n",
        ),
        ("soon", b"-BUSY Redis is busy running a script\r\n"),
        ("soon", b"-CLUSTERDOWN The cluster is down\r\n"),
        ("soon", b"-MASTERDOWN Link with MASTER is down\r\n"),
        (
            "full",
            b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        ),
        (
            "read_only",
            b"-READONLY You can't write against a read only replica.\r\n",
        ),
        (
            "read_only",
            b"-NOREPLICAS Not enough good replicas to write.\r\n",
        ),
        ("read_only", b"-MISCONF Errors writing to the AOF file\r\n"),
        ("broken", b"-NOPERM this user has no permissions\r\n"),
        ("away", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ];
    let mut bodies = Vec::new();
    for (kind, bytes) in said {
        let labels = format!("kind=\"{kind}\"");
        let before = ingress
            .metric("whatsapp_ingress_redis_errors_total", &labels)
            .await;
        proxy.set(Mode::Answer(bytes));
        let body = fresh(kind);
        let answer = sender.post_once(body.clone()).await.expect("an answer");
        assert_eq!(answer.status, 503, "{kind}");
        assert!(
            !answer.body.contains("Redis"),
            "what it said stays in the log: {}",
            answer.body
        );
        let after = ingress
            .metric("whatsapp_ingress_redis_errors_total", &labels)
            .await;
        assert!(after > before, "{}", String::from_utf8_lossy(bytes));
        proxy.set(Mode::Pass);
        proxy.cut().await;
        sender.send(body.clone()).await;
        bodies.push(body);
    }
    for body in &bodies {
        sender.send_like_meta(body.clone()).await;
    }
    assert_eq!(stored(&stage).await, 1 + bodies.len() as u64);
}

#[tokio::test]
async fn what_redis_refuses_is_counted_and_told_though_the_spool_takes_it() {
    let stage = Stage::new().await;
    let (proxy, redis_url) = behind_a_proxy(&stage.redis.url()).await;
    let ingress = stage
        .spooling_ingress()
        .env("REDIS_URL", redis_url)
        .env("THREADS", 1)
        .start()
        .await;
    let sender = stage.sender(&ingress);
    let said: [(&str, &str, &'static [u8]); 3] = [
        ("soon", "loading", b"-LOADING Redis is loading\r\n"),
        ("full", "oom", b"-OOM command not allowed\r\n"),
        ("read_only", "readonly", b"-READONLY a replica\r\n"),
    ];
    for (kind, class, bytes) in said {
        let count = async || {
            let labels = format!("kind=\"{kind}\"");
            ingress
                .metric("whatsapp_ingress_redis_errors_total", &labels)
                .await
        };
        eventually(SOON, "nothing is spooled", async || {
            let away = ingress.metric("whatsapp_ingress_away_partitions", "").await;
            (away == 0.0).then_some(())
        })
        .await;
        // Its connection is made: what a new one sends at once has several answers.
        sender.send(fresh("before")).await;
        let before = count().await;
        proxy.set(Mode::Answer(bytes));
        sender.send(fresh(kind)).await;
        let after = count().await;
        assert!(after > before, "{kind}");
        eventually(SOON, "probes that fail are counted too", async || {
            (count().await > after).then_some(())
        })
        .await;
        let lines = ingress.log_lines().into_iter();
        let spooling = lines.filter(|line| {
            line["message"]
                .as_str()
                .is_some_and(|it| it.contains("spooled"))
        });
        let told = spooling.filter(|line| line["class"] == class).count();
        assert_eq!(told, 1, "{kind}: {}", ingress.log());
        proxy.set(Mode::Pass);
        proxy.cut().await;
    }
}

/// What is told is what happened: not that Redis is away, whatever it said.
#[tokio::test]
async fn a_failed_command_is_told_with_its_class() {
    let stage = Stage::new().await;
    let mut redis = stage.redis.connection().await;
    let mut server = async |command: &str| {
        let (name, arguments) = command.split_once(' ').expect("arguments");
        let mut asked = redis::cmd(name);
        asked.arg(arguments.split(' ').collect::<Vec<_>>());
        asked.exec_async(&mut redis).await.expect("it does so");
    };
    server("ACL SETUSER worker on >secret ~* &* +@all").await;
    let url = stage
        .redis
        .url()
        .replace("redis://", "redis://worker:secret@");
    let (proxy, url) = behind_a_proxy(&url).await;
    let worker = stage.worker().env("REDIS_URL", url);
    let worker = worker.env("WORKER_ADMIN_TOKEN", "open").start().await;
    for (class, mode, begin, end) in [
        (
            "denied",
            Mode::Pass,
            "ACL SETUSER worker -@all",
            "ACL SETUSER worker +@all",
        ),
        (
            "readonly",
            Mode::Pass,
            "REPLICAOF 127.0.0.1 1",
            "REPLICAOF NO ONE",
        ),
        ("connection", Mode::Refuse, "ECHO nothing", "ECHO nothing"),
        ("timeout", Mode::Blackhole, "ECHO nothing", "ECHO nothing"),
    ] {
        server(begin).await;
        proxy.set(mode);
        let expected = serde_json::json!({"error": "redis command failed", "class": class});
        let expected = expected.to_string();
        eventually(SOON, class, async || {
            let answer = worker.post("/tenants/123/invalidate", Some("open")).await;
            let (status, body) = answer.ok()?;
            (status == 503 && body == expected).then_some(())
        })
        .await;
        eventually(
            SOON,
            &format!("{class} is told, whatever is asked"),
            async || {
                let retries = |line: &serde_json::Value| {
                    line["message"] == "redis command failed, will retry" && line["class"] == class
                };
                worker.log_lines().iter().any(retries).then_some(())
            },
        )
        .await;
        proxy.set(Mode::Pass);
        server(end).await;
    }
    assert!(!worker.log().contains("is away"), "{}", worker.log());
}

#[tokio::test]
async fn a_forgotten_script_is_sent_again() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let sender = stage.sender(&ingress);
    let mut redis = stage.redis.connection().await;
    for n in 0..3 {
        redis::cmd("SCRIPT")
            .arg("FLUSH")
            .exec_async(&mut redis)
            .await
            .expect("SCRIPT FLUSH");
        let answer = sender
            .post_once(fresh(&n.to_string()))
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200);
    }
    assert_eq!(stored(&stage).await, 3);
}

#[tokio::test]
async fn a_login_that_was_refused_is_tried_again() {
    let stage = Stage::new().await;
    let mut redis = stage.redis.connection().await;
    let mut user = async |rule: &str| {
        redis::cmd("ACL")
            .arg(&[
                "SETUSER", "late", "reset", rule, ">secret", "~*", "&*", "+@all",
            ])
            .exec_async(&mut redis)
            .await
            .expect("ACL SETUSER");
    };
    user("off").await;
    let url = stage
        .redis
        .url()
        .replace("redis://", "redis://late:secret@");
    let ingress = stage
        .ingress()
        .env("REDIS_URL", url)
        .until(Until::Healthy)
        .start()
        .await;
    eventually(SOON, "it says why it isn't ready", async || {
        ingress
            .log()
            .contains("a server is not ready")
            .then_some(())
    })
    .await;
    let answer = stage.sender(&ingress).post_once(fresh("early")).await;
    assert_eq!(answer.expect("an answer").status, 503);
    user("on").await;
    stage.sender(&ingress).send_like_meta(fresh("late")).await;
}

/// Marks of the generation that comes, as after the clock was set back.
#[tokio::test]
async fn a_clock_that_was_set_back_forgets_nothing() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let sender = stage.sender(&ingress);
    let body = fresh("x");
    sender.send(body.clone()).await;
    let mut redis = stage.redis.connection().await;
    let keys: Vec<String> = redis.keys("whatsapp:*seen*").await.expect("KEYS");
    for key in keys {
        // …:seen is a hash of generations; …:seen:<generation>:<level>:<number> has marks.
        match key.split_once(":seen:") {
            Some((start, name)) => {
                let (generation, rest) = name.split_once(':').expect("a generation");
                let next = generation.parse::<u64>().expect("a number") + 1;
                let renamed = format!("{start}:seen:{next}:{rest}");
                redis
                    .rename::<_, _, ()>(key, renamed)
                    .await
                    .expect("RENAME");
            }
            None => {
                let known: Vec<(u64, String)> = redis.hgetall(&key).await.expect("HGETALL");
                for (generation, levels) in known {
                    redis
                        .hdel::<_, _, ()>(&key, generation)
                        .await
                        .expect("HDEL");
                    redis
                        .hset::<_, _, _, ()>(&key, generation + 1, levels)
                        .await
                        .expect("HSET");
                }
            }
        }
    }
    sender.send(body).await;
    assert_eq!(stored(&stage).await, 1);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again_within_the_patience() {
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let redis_url = format!("redis://{}", proxy.address());
    let ingress = stage.ingress().env("REDIS_URL", redis_url).start().await;
    let sender = stage.sender(&ingress);
    sender.send(fresh("before")).await;
    for fault in [Mode::Refuse, Mode::Reset] {
        let before = stored(&stage).await;
        proxy.set(Mode::LoseAnswers);
        let body = fresh("once");
        let post = tokio::spawn({
            let (sender, body) = (sender.clone(), body.clone());
            async move { sender.post_once(body).await }
        });
        eventually(SOON, "it is stored", async || {
            (stored(&stage).await > before).then_some(())
        })
        .await;
        proxy.set(fault);
        proxy.cut().await;
        let answer = post.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status, 200);
        sender.send(body).await;
        assert_eq!(stored(&stage).await, before + 1);
    }
}

/// Replies that break off anywhere must never be taken for another one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_cut_anywhere_is_nobody_else_s() {
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let redis_url = format!("redis://{}", proxy.address());
    let ingress = stage
        .ingress()
        .env("REDIS_URL", redis_url)
        .env("REDIS_PATIENCE", "100ms")
        .start()
        .await;
    let sender = stage.sender(&ingress);
    let mut all = HashSet::new();
    let modes = (1..60)
        .step_by(3)
        .flat_map(|n| [Mode::CutAnswersAfter(n), Mode::CutRequestsAfter(n * 40)]);
    for mode in modes {
        proxy.set(mode.clone());
        let posts = (0..8).map(|_| {
            let (sender, body) = (sender.clone(), fresh("x"));
            tokio::spawn(async move {
                let answer = sender.post_once(body.clone()).await.expect("an answer");
                (answer.status, body)
            })
        });
        for post in posts.collect::<Vec<_>>() {
            let (status, body) = post.await.expect("no panic");
            assert!([200, 503].contains(&status), "{mode:?}: {status}");
            all.insert(body);
        }
        proxy.set(Mode::Pass);
        proxy.cut().await;
    }
    for body in &all {
        sender.send_like_meta(body.clone()).await;
    }
    assert_eq!(stored(&stage).await, all.len() as u64);
}

#[tokio::test]
async fn a_redis_that_hangs_is_left_at_the_deadline() {
    let mut stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let redis_url = format!("redis://{}", proxy.address());
    let mut ingress = stage
        .ingress()
        .env("REDIS_URL", redis_url)
        .env("REDIS_PATIENCE", "200ms")
        .env("REQUEST_DEADLINE", "700ms")
        .start()
        .await;
    let sender = stage.sender(&ingress);
    sender.send(fresh("before")).await;
    let mut all = vec![fresh("stopped"), fresh("swallowed"), fresh("dripping")];
    for (n, body) in all.iter().enumerate() {
        match n {
            0 => stage.redis.signal("STOP"),
            1 => proxy.set(Mode::Blackhole),
            _ => proxy.set(Mode::Drip(Duration::from_millis(200))),
        }
        let answer = sender.post_once(body.clone()).await.expect("an answer");
        assert_eq!(answer.status, 503);
        stage.redis.signal("CONT");
        proxy.set(Mode::Pass);
        // Without a kill of its connections: it has to see for itself that they are of no use.
        sender.send_like_meta(fresh("between")).await;
    }
    for body in &all {
        sender.send_like_meta(body.clone()).await;
    }
    assert_eq!(stored(&stage).await, 7);

    // Stored, and killed before the answer.
    proxy.set(Mode::LoseAnswers);
    let body = fresh("killed");
    let post = tokio::spawn({
        let (sender, body) = (sender.clone(), body.clone());
        async move { sender.post_once(body).await }
    });
    eventually(SOON, "it is stored", async || {
        (stored(&stage).await == 8).then_some(())
    })
    .await;
    ingress.kill();
    drop(post.await.expect("no panic"));
    proxy.set(Mode::Pass);
    ingress.restart().await;
    all.push(body);
    for body in all {
        sender.send(body).await;
    }
    assert_eq!(stored(&stage).await, 8);
    stage.redis.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_while_redis_stalls() {
    let stage = Stage::new().await;
    let ingress = stage
        .ingress()
        .env("MAX_IN_FLIGHT_BYTES", 50_000_000)
        .env("MAX_BODY_BYTES", 4_000_000)
        .start()
        .await;
    let sender = stage.sender(&ingress);
    sender.send(fresh("before")).await;
    stage.redis.signal("STOP");
    let big = "x".repeat(3_000_000);
    let posts: Vec<_> = (0..100)
        .map(|_| {
            let (sender, body) = (sender.clone(), fresh(&big));
            tokio::spawn(async move { sender.post_once(body).await })
        })
        .collect();
    let mut answers = std::collections::BTreeMap::new();
    for post in posts {
        let status = post
            .await
            .expect("no panic")
            .map_or(0, |answer| answer.status);
        *answers.entry(status).or_insert(0) += 1;
    }
    assert_eq!(
        answers.keys().copied().collect::<Vec<_>>(),
        [503],
        "{answers:?}"
    );
    let mut ingress = ingress;
    let status = std::fs::read_to_string(format!("/proc/{}/status", ingress.process().id()));
    let status = status.expect("its status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak_kb: u64 = peak
        .and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok())
        .expect("VmHWM");
    #[allow(
        clippy::print_stdout,
        reason = "a figure for people who run with --nocapture"
    )]
    {
        println!("{peak_kb} KB at most, {answers:?}");
    }
    assert!(peak_kb < 40_000 + 50_000, "{peak_kb} KB");
    stage.redis.signal("CONT");
    sender.send_like_meta(fresh("after")).await;
}

/// What is in the append-only file of a Redis that dies at any byte of a write: a mark and its
/// entry, or neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_write_has_the_marks_and_the_entry_or_neither() {
    let mut stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let sender = stage.sender(&ingress);
    sender.send(fresh("whole")).await;
    let log = stage.redis.append_only_file().expect("a file");
    let before = std::fs::metadata(&log).expect("a file").len();
    sender.send(fresh("torn")).await;
    stage.redis.kill();
    let whole = std::fs::read(&log).expect("a file");
    let mut seen = HashSet::new();
    for length in (before as usize..=whole.len())
        .rev()
        .step_by(97)
        .chain([before as usize])
    {
        std::fs::write(&log, &whole[..length]).expect("a file");
        stage.redis.restart().await.expect("it takes a torn file");
        let mut redis = stage.redis.connection().await;
        let marks: Vec<String> = redis.keys("whatsapp:*seen:*").await.expect("KEYS");
        let state = (stored(&stage).await, marks.len());
        assert!(
            [(1, 1), (2, 2)].contains(&state),
            "{length} of {}: {state:?}",
            whole.len()
        );
        seen.insert(state);
        stage.redis.kill();
    }
    assert_eq!(seen.len(), 2, "both ends were seen");
}

#[tokio::test]
async fn a_full_disk_stops_redis_and_loses_nothing() {
    let mut stage = Stage::with(StageOptions {
        redis: RedisOptions {
            most_bytes_of_a_file: Some(200_000),
            ..RedisOptions::default()
        },
        ..StageOptions::default()
    })
    .await;
    let ingress = stage.ingress().env("REDIS_PATIENCE", "100ms").start().await;
    let sender = stage.sender(&ingress);
    let mut accepted = 0;
    while sender
        .post_once(fresh("x"))
        .await
        .expect("an answer")
        .status
        == 200
    {
        accepted += 1;
        assert!(accepted < 1000, "the file never got full");
    }
    assert!(accepted > 10, "{accepted}");
    stage.redis.give_room();
    stage.redis.restart().await.expect("Redis");
    let there = stored(&stage).await;
    assert!(
        (accepted..=accepted + 1).contains(&there),
        "{accepted} of {there}"
    );
    sender.send_like_meta(fresh("room again")).await;
}

/// Redis answers only what is on its disk: killed at any moment, it has all that was answered 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_and_a_kill_lose_nothing() {
    let redis = RedisOptions {
        fsync_ms: Some(200),
        ..RedisOptions::default()
    };
    let mut stage = Stage::with(StageOptions {
        redis,
        ..StageOptions::default()
    })
    .await;
    let ingress = stage.ingress().start().await;
    let sender = stage.sender(&ingress);
    let mut accepted = 0;
    for _ in 0..4 {
        let mut posts = tokio::task::JoinSet::new();
        for n in 0..60 {
            let (sender, body) = (sender.clone(), fresh("x"));
            posts.spawn(async move {
                // They come while others are being written.
                tokio::time::sleep(Duration::from_millis(n * 10)).await;
                sender.post_once(body).await.expect("an answer").status
            });
        }
        let mut answers = HashSet::new();
        while let Some(status) = posts.join_next().await {
            let status = status.expect("no panic");
            accepted += u64::from(status == 200);
            // The first answer is there, and others are on their way.
            if answers.is_empty() {
                stage.redis.kill();
            }
            answers.insert(status);
        }
        assert!(answers.is_subset(&HashSet::from([200, 503])), "{answers:?}");
        stage.redis.restart().await.expect("Redis");
        eventually(SOON, "it is taken again", async || {
            let answer = sender.post_once(fresh("again")).await.ok()?;
            accepted += u64::from(answer.status == 200);
            (answer.status == 200).then_some(())
        })
        .await;
    }
    let stored = stored(&stage).await;
    assert!(accepted >= 8, "{accepted}");
    assert!(stored >= accepted, "{stored} of {accepted}");
}
