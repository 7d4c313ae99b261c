//! Servers and programs that go away at the worst moment.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tests::events::Event;
use tests::meta::Sender;
use tests::meta::payload::{self, Number};
use tests::programs::Worker;
use tests::proxy::{Mode, Proxy};
use tests::servers::{RabbitMq, RedisOptions};
use tests::waiting::eventually;
use tests::{Stage, StageOptions};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::{SOON, assert_repeats, drained, repeats, stored};

/// Messages of conversations, each posted until it is answered 200: in a conversation one after the
/// other, conversations side by side.
pub(crate) struct Load {
    pub(crate) numbers: Vec<Number>,
    pub(crate) conversations: usize,
    pub(crate) each: usize,
    /// Messages per second, all conversations together.
    pub(crate) rate: u32,
}

impl Load {
    pub(crate) fn send(&self, sender: &Sender) -> JoinSet<HashSet<u16>> {
        let mut sending = JoinSet::new();
        let interval = Duration::from_secs(1) * self.conversations as u32 / self.rate;
        for conversation in 0..self.conversations {
            let number = self.numbers[conversation % self.numbers.len()].clone();
            let (sender, each) = (sender.clone(), self.each);
            sending.spawn(async move {
                let customer = format!("49160{conversation:07}");
                let mut tick = tokio::time::interval(interval);
                tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut answers = HashSet::new();
                for n in 0..each {
                    tick.tick().await;
                    let body = number.message(payload::text(&customer, &n.to_string()));
                    loop {
                        match sender.post_once(body.clone()).await {
                            Ok(answer) if answer.status == 200 => break,
                            Ok(answer) => drop(answers.insert(answer.status)),
                            // Nobody listens: ingress is being restarted.
                            Err(_) => {}
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                answers
            });
        }
        sending
    }

    pub(crate) fn total(&self) -> usize {
        self.conversations * self.each
    }

    pub(crate) fn assert_complete(&self, seen: &[Event]) {
        let texts = crate::first_texts(seen);
        assert_eq!(texts.len(), self.conversations);
        let expected: Vec<_> = (0..self.each).map(|n| n.to_string()).collect();
        for (customer, texts) in texts {
            assert_eq!(texts, expected, "{customer}");
        }
    }
}

pub(crate) async fn nothing_was_set_aside(stage: &Stage) {
    let failed = stage.webhooks().list("failed/").await.expect("a list");
    assert_eq!(failed, Vec::<String>::new());
}

/// Crashes by partition: those of its owners, and of its Redis.
#[derive(Default)]
pub(crate) struct Crashes {
    joined: HashSet<String>,
    /// As which each worker runs now.
    ids: HashMap<usize, String>,
    counts: HashMap<u16, usize>,
}

impl Crashes {
    /// A worker was started and joins the others.
    pub(crate) async fn started(
        &mut self,
        worker: usize,
        redis_for: impl AsyncFn(&str) -> MultiplexedConnection,
    ) {
        let key = "whatsapp:workers";
        let id = eventually(SOON, "a worker joins", async || {
            let live: Vec<String> = redis_for(key).await.zrange(key, 0, -1).await.ok()?;
            live.into_iter().find(|id| !self.joined.contains(id))
        })
        .await;
        self.joined.insert(id.clone());
        self.ids.insert(worker, id);
    }

    /// Kills a worker by `kill`. It may own more when it dies than just before, and somebody may soon
    /// own what it did.
    pub(crate) async fn of_worker(
        &mut self,
        worker: usize,
        redis_for: impl AsyncFn(&str) -> MultiplexedConnection,
        kill: impl FnOnce(),
    ) {
        let mut owned = self.owned(worker, &redis_for).await;
        kill();
        owned.extend(self.owned(worker, &redis_for).await);
        owned
            .into_iter()
            .for_each(|partition| self.count(partition));
    }

    async fn owned(
        &self,
        worker: usize,
        redis_for: impl AsyncFn(&str) -> MultiplexedConnection,
    ) -> HashSet<u16> {
        let id = format!("{}:", self.ids[&worker]);
        let mut owned = HashSet::new();
        for partition in 0..16 {
            let key = format!("whatsapp:{{{partition}}}:owner");
            let owner: Option<String> = redis_for(&key).await.get(&key).await.expect("GET");
            if owner.is_some_and(|owner| owner.starts_with(&id)) {
                owned.insert(partition);
            }
        }
        owned
    }

    pub(crate) fn count(&mut self, partition: u16) {
        *self.counts.entry(partition).or_default() += 1;
    }

    /// A worker that is stalled loses partitions, and repeats as much as one that is killed.
    pub(crate) fn count_lost(&mut self, worker: &Worker) {
        for line in worker.log_lines() {
            let lost = ["lost a partition", "a lease could not be renewed in time"];
            if lost.iter().any(|lost| line["message"] == *lost) {
                let partition = line["partition"].as_u64().expect("a number");
                self.count(partition as u16);
            }
        }
    }

    pub(crate) fn of(&self, partition: u16) -> usize {
        self.counts.get(&partition).copied().unwrap_or_default()
    }
}

/// 20,000 messages at 500/s where that much time is (`CRASH_MESSAGES=20000`); less in every run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_killed_again_and_again_lose_nothing() {
    let messages: usize = std::env::var("CRASH_MESSAGES").map_or(6000, |count| {
        count.parse().expect("CRASH_MESSAGES is a number")
    });
    let stage = Stage::new().await;
    let redis_for = async |key: &str| stage.redis_for(key).await;
    let mut ingress = stage.ingress().start().await;
    let events = stage.events();
    let (mut workers, mut crashes) = (Vec::new(), Crashes::default());
    for n in 0..3 {
        workers.push(stage.worker().env("LEASE_TTL", "2s").start().await);
        crashes.started(n, &redis_for).await;
    }
    let load = Load {
        numbers: (0..60).map(|_| Number::fresh()).collect(),
        conversations: 200,
        each: messages / 200,
        rate: 500,
    };
    let mut sending = load.send(&stage.sender(&ingress));
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let killing = async {
        let mut kills = 0;
        let mut pause = tokio::time::interval(Duration::from_secs(3));
        pause.tick().await;
        while !finished.load(Ordering::Relaxed) {
            pause.tick().await;
            let worker = &mut workers[kills % 3];
            crashes
                .of_worker(kills % 3, &redis_for, || worker.kill())
                .await;
            worker.restart().await;
            crashes.started(kills % 3, &redis_for).await;
            if kills % 2 == 1 {
                ingress.kill();
                ingress.restart().await;
            }
            kills += 1;
        }
        kills
    };
    let sent = async {
        while let Some(answers) = sending.join_next().await {
            let answers = answers.expect("no panic");
            assert!(answers.is_subset(&HashSet::from([503])), "{answers:?}");
        }
        done.store(true, Ordering::Relaxed);
    };
    let (kills, ()) = tokio::join!(killing, sent);
    let all = |seen: &[Event]| seen.len() - repeats(seen) >= load.total();
    let seen = events.wait_until(SOON * 4, all).await;
    drained(&stage).await;
    load.assert_complete(&seen);
    nothing_was_set_aside(&stage).await;
    let archived = stage.webhooks().list("").await.expect("a list");
    assert_eq!(
        archived.len(),
        load.total(),
        "each once, however often it was written"
    );
    let (total, repeats) = (load.total(), repeats(&seen));
    let told = format!("{total} messages, {kills} kills, {repeats} repeats");
    assert!(kills > 0, "{told}");
    workers.iter().for_each(|worker| crashes.count_lost(worker));
    assert_repeats(&seen, |partition| crashes.of(partition));
    #[allow(
        clippy::print_stdout,
        reason = "a figure for people who run with --nocapture"
    )]
    {
        println!("{told}");
    }
}

async fn waiting(stage: &Stage, entries: u64) {
    eventually(SOON, "entries wait", async || {
        (stored(stage).await >= entries).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_away_and_redis_restarted_in_the_middle() {
    let mut rabbitmq = RabbitMq::start().await.expect("a RabbitMQ of its own");
    let vhost = rabbitmq.vhost().await.expect("a vhost");
    let mut stage = Stage::with(StageOptions {
        amqp_url: Some(vhost.url()),
        ..StageOptions::default()
    })
    .await;
    let ingress = stage.ingress().start().await;
    let _worker = stage.worker().start().await;
    let events = stage.events();
    let load = Load {
        numbers: (0..60).map(|_| Number::fresh()).collect(),
        conversations: 100,
        each: 25,
        rate: 100,
    };
    let mut sending = load.send(&stage.sender(&ingress));
    events.wait_for(200, SOON).await;
    rabbitmq.stop().await;
    // Half of what waits comes before Redis dies, half of it after.
    waiting(&stage, 400).await;
    stage.redis.kill();
    stage.redis.restart().await.expect("Redis");
    waiting(&stage, 800).await;
    rabbitmq.restart().await.expect("RabbitMQ");
    while let Some(answers) = sending.join_next().await {
        let answers = answers.expect("no panic");
        assert!(answers.is_subset(&HashSet::from([503])), "{answers:?}");
    }
    let all = |seen: &[Event]| seen.len() - repeats(seen) >= load.total();
    let seen = events.wait_until(SOON * 2, all).await;
    drained(&stage).await;
    load.assert_complete(&seen);
    nothing_was_set_aside(&stage).await;
}

#[tokio::test]
async fn a_full_redis_drains() {
    let stage = Stage::with(StageOptions {
        redis: RedisOptions {
            maxmemory: Some("24mb".to_owned()),
            ..RedisOptions::default()
        },
        ..StageOptions::default()
    })
    .await;
    let ingress = stage.ingress().start().await;
    let mut worker = stage.worker().env("LEASE_TTL", "1s").start().await;
    worker.kill();
    let sender = stage.sender(&ingress);
    let numbers: Vec<_> = (0..20).map(|_| Number::fresh()).collect();
    let filler = "x".repeat(20_000);
    let mut accepted = 0;
    loop {
        let number = &numbers[accepted % numbers.len()];
        let body = number.message(payload::text("1111111111", &format!("{accepted} {filler}")));
        let answer = sender.post_once(body).await.expect("an answer");
        if answer.status == 503 {
            break;
        }
        assert_eq!(answer.status, 200);
        accepted += 1;
    }
    assert!(accepted > 100, "{accepted} were accepted");
    worker.restart().await;
    let events = stage.events();
    let all = |seen: &[Event]| seen.len() - repeats(seen) >= accepted;
    // 20 MB through a full Redis: more than the rest of the tests ask of a busy machine.
    events.wait_until(SOON * 4, all).await;
    drained(&stage).await;
    sender
        .send(numbers[0].message(payload::text("1111111111", "room again")))
        .await;
}

#[tokio::test]
async fn an_emptied_redis_is_healed() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let _worker = stage.worker().env("LEASE_TTL", "1s").start().await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    sender
        .send(number.message(payload::text("1111111111", "before")))
        .await;
    events.wait_for(1, SOON).await;
    let mut redis = stage.redis.connection().await;
    redis::cmd("FLUSHALL")
        .exec_async(&mut redis)
        .await
        .expect("FLUSHALL");
    sender
        .send(number.message(payload::text("1111111111", "after")))
        .await;
    events.wait_for(2, SOON).await;
    // The group alone can vanish too.
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let stream = format!("whatsapp:{{{partition}}}:stream");
    redis
        .xgroup_destroy::<_, _, ()>(stream, "workers")
        .await
        .expect("XGROUP DESTROY");
    sender
        .send(number.message(payload::text("1111111111", "later")))
        .await;
    let seen = events
        .wait_until(SOON, |seen| seen.len() - repeats(seen) >= 3)
        .await;
    assert_eq!(
        crate::first_texts(&seen)["1111111111"],
        ["before", "after", "later"]
    );
}

const STORE_AWAY_MESSAGES: usize = 300;

#[tokio::test]
async fn the_store_away_holds_no_event_up_and_misses_no_object() {
    let stage = Stage::new().await;
    let upstream = stage.s3.endpoint.trim_start_matches("http://").to_owned();
    let proxy = Proxy::start(upstream).await.expect("a proxy");
    let ingress = stage.ingress().start().await;
    let _worker = stage
        .worker()
        .env("MINIO_ENDPOINT", format!("http://{}", proxy.address()))
        .start()
        .await;
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let numbers: Vec<_> = (0..20).map(|_| Number::fresh()).collect();
    proxy.set(Mode::Refuse);
    let mut bodies = HashSet::new();
    for n in 0..STORE_AWAY_MESSAGES {
        let number = &numbers[n % numbers.len()];
        let body = number.message(payload::text("1111111111", &n.to_string()));
        sender.send(body.clone()).await;
        bodies.insert(body);
    }
    events.wait_for(STORE_AWAY_MESSAGES, SOON).await;
    eventually(SOON, "all objects are owed", async || {
        let owed = crate::count_owed(&stage, "put").await;
        (owed == STORE_AWAY_MESSAGES).then_some(())
    })
    .await;
    assert_eq!(stage.webhooks().list("").await.expect("a list").len(), 0);
    proxy.set(Mode::Pass);
    drained(&stage).await;
    let store = stage.webhooks();
    let keys = store.list("").await.expect("a list");
    assert_eq!(keys.len(), STORE_AWAY_MESSAGES);
    for key in keys {
        let stored = store
            .get(&key)
            .await
            .expect("the store")
            .expect("the object");
        assert!(bodies.remove(&stored), "{key} is a body that was sent");
    }
}
