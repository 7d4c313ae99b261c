//! What a worker finds that others left behind, and what reads of its own left behind.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use data_encoding::BASE64;
use redis::AsyncCommands;
use sha2::{Digest, Sha256};
use shared::entry::parse_numbers;
use tests::Stage;
use tests::events::Event;
use tests::meta::payload::{self, Number};
use tests::neighbours::{Fault, Service};
use tests::proxy::{Mode, Proxy};
use tests::waiting::eventually;
use tokio_util::sync::CancellationToken;

use crate::broker::behind_a_proxy;
use crate::tenants::pile_up;
use crate::{SOON, drained, pending, repeats};

/// What Redis delivered is this worker's, whether it heard of it or not.
#[tokio::test]
async fn a_read_whose_answer_is_lost_is_made_up_for() {
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let ingress = stage.ingress().start().await;
    let worker = stage
        .worker()
        .env("REDIS_URL", format!("redis://{}", proxy.address()))
        // A takeover would heal it too.
        .env("LEASE_TTL", "120s")
        .start()
        .await;
    let (sender, number, events) = (stage.sender(&ingress), Number::fresh(), stage.events());
    let mut sent = 0;
    let mut send = async || {
        let body = number.message(payload::text("1111111111", &sent.to_string()));
        sender.send(body).await;
        sent += 1;
    };
    send().await;
    events.wait_for(1, SOON).await;
    for n in 2..5 {
        // The request arrives, and its answer is still on its way when the connection breaks.
        proxy.set(Mode::Slow(Duration::from_millis(300)));
        send().await;
        eventually(SOON, "it is delivered", async || {
            (pending(&stage).await == 1).then_some(())
        })
        .await;
        proxy.cut().await;
        events.wait_for(n, SOON).await;
    }
    let seen = events.all();
    assert_eq!(
        crate::first_texts(&seen)["1111111111"],
        ["0", "1", "2", "3"]
    );
    assert!(
        !worker.log().contains("lost a partition"),
        "{}",
        worker.log()
    );
    drained(&stage).await;
}

/// What was handed over while RabbitMQ was away would go out although Redis can't be told of it.
#[tokio::test]
async fn nothing_is_published_while_redis_is_away() {
    let stage = Stage::new().await;
    let (redis, redis_url) = behind_a_proxy(&stage.redis.url()).await;
    let (rabbitmq, amqp_url) = behind_a_proxy(&stage.amqp_url).await;
    let ingress = stage.ingress().start().await;
    let worker = stage
        .worker()
        .env("REDIS_URL", redis_url)
        .env("AMQP_URL", amqp_url)
        // No publication is held back since its lease is over.
        .env("LEASE_TTL", "120s")
        .start()
        .await;
    let (sender, number, events) = (stage.sender(&ingress), Number::fresh(), stage.events());
    sender
        .send(number.message(payload::text("1111111111", "first")))
        .await;
    events.wait_for(1, SOON).await;
    drained(&stage).await;
    rabbitmq.set(Mode::Refuse);
    for n in 0..10 {
        let customer = format!("222222222{n}");
        sender
            .send(number.message(payload::text(&customer, "later")))
            .await;
    }
    eventually(SOON, "all are delivered", async || {
        (pending(&stage).await == 10).then_some(())
    })
    .await;
    redis.set(Mode::Refuse);
    eventually(SOON, "the worker hears of it", async || {
        worker.log().contains("redis command failed").then_some(())
    })
    .await;
    rabbitmq.set(Mode::Pass);
    eventually(SOON, "they are held back", async || {
        let held_back = "status=\"redis_away\"";
        let held_back = worker.metric("rabbitmq_publish_total", held_back).await;
        (held_back >= 1.0).then_some(())
    })
    .await;
    assert_eq!(events.count(), 1, "Redis knows of no other");
    redis.set(Mode::Pass);
    let seen = events.wait_for(11, SOON).await;
    assert_eq!(repeats(&seen), 0);
    drained(&stage).await;
}

/// The items of a body that are done, as Redis knows it; of the first entry that is not finished.
async fn noted(stage: &Stage, number: &Number) -> Vec<usize> {
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let mut redis = stage.redis.connection().await;
    let progress: HashMap<String, String> = redis
        .hgetall(format!("whatsapp:{{{partition}}}:progress"))
        .await
        .expect("HGETALL");
    let numbers = progress.into_values().next().unwrap_or_default();
    parse_numbers(&numbers).expect("numbers")
}

#[tokio::test]
async fn what_is_done_of_a_body_is_not_done_again() {
    const ITEMS: usize = 60;
    let stage = Stage::new().await;
    let (proxy, url) = behind_a_proxy(&stage.amqp_url).await;
    let ingress = stage.ingress().start().await;
    let worker = stage.worker().env("AMQP_URL", url).env("LEASE_TTL", "1s");
    let mut worker = worker.start().await;
    let (sender, events) = (stage.sender(&ingress), stage.events());
    // One after the other, since they are one conversation's.
    proxy.set(Mode::Slow(Duration::from_millis(20)));
    for (customer, end) in [("1111111111", "kill"), ("2222222222", "stop")] {
        let number = Number::fresh();
        let items = (0..ITEMS).map(|n| payload::text(customer, &n.to_string()));
        sender.send(number.webhook([number.messages(items)])).await;
        eventually(SOON, "some of it is done", async || {
            (noted(&stage, &number).await.len() >= 10).then_some(())
        })
        .await;
        let mut done = ITEMS;
        if end == "kill" {
            worker.kill();
            done = noted(&stage, &number).await.len();
        } else {
            assert!(worker.stop(SOON).await, "it ends by itself");
            let done = noted(&stage, &number).await.len();
            assert!(done < ITEMS, "it ends before all is done");
        }
        worker.restart().await;
        drained(&stage).await;
        let mine = |event: &Event| event.text("/customer/waId") == customer;
        let seen = events
            .wait_until(SOON, |seen| {
                let mine: Vec<_> = seen.iter().filter(|event| mine(event)).cloned().collect();
                mine.len() - repeats(&mine) == ITEMS
            })
            .await;
        let mut times: HashMap<usize, usize> = HashMap::new();
        for event in seen.iter().filter(|event| mine(event)) {
            let n = event.text("/message/content/body").parse();
            *times.entry(n.expect("a number")).or_default() += 1;
        }
        let again: Vec<_> = (0..done).filter(|n| times[n] > 1).collect();
        assert_eq!(again, Vec::<usize>::new(), "after {end}, {done} were done");
        let expected: Vec<_> = (0..ITEMS).map(|n| n.to_string()).collect();
        assert_eq!(crate::first_texts(&seen)[customer], expected);
    }
}

/// More than one read brings, one of them deleted by hand; and the programs' user may do nothing that
/// could lose anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_pending_comes_out_and_no_dangerous_command_is_needed() {
    const ENTRIES: usize = 1000;
    let stage = Stage::new().await;
    let mut redis = stage.redis.connection().await;
    let dangerous = [
        "flushall",
        "flushdb",
        "swapdb",
        "debug",
        "shutdown",
        "config|set",
        "xtrim",
        "xclaim",
        "xautoclaim",
        "xgroup|destroy",
        "xgroup|delconsumer",
        "xgroup|setid",
    ];
    let mut user = redis::cmd("ACL");
    user.arg(&["SETUSER", "service", "on", ">secret", "~*", "&*", "+@all"]);
    for command in dangerous {
        user.arg(format!("-{command}"));
    }
    user.exec_async(&mut redis).await.expect("ACL SETUSER");
    let url = stage.redis_url().replace("://", "://service:secret@");
    let (proxy, amqp_url) = behind_a_proxy(&stage.amqp_url).await;
    let ingress = stage
        .ingress()
        .env("REDIS_URL", &url)
        .env("STREAM_PARTITIONS", 1);
    let ingress = ingress.start().await;
    let worker = stage
        .worker()
        .env("REDIS_URL", &url)
        .env("STREAM_PARTITIONS", 1)
        .env("LEASE_TTL", "1s")
        .env("ARCHIVE", false)
        .env("AMQP_URL", amqp_url);
    let mut worker = worker.start().await;
    // Nothing gets out, so that all of it is pending.
    proxy.set(Mode::Blackhole);
    let number = Number::fresh();
    pile_up(&stage, &number, ENTRIES).await;
    let stream = "whatsapp:{0}:stream";
    eventually(SOON, "all of it is delivered", async || {
        (pending(&stage).await == ENTRIES).then_some(())
    })
    .await;
    worker.kill();
    let all: redis::streams::StreamRangeReply = redis.xrange_all(stream).await.expect("XRANGE");
    let middle = &all.ids[ENTRIES / 2].id;
    redis
        .xdel::<_, _, ()>(stream, &[middle])
        .await
        .expect("XDEL");
    proxy.set(Mode::Pass);
    worker.restart().await;
    let events = stage.events();
    let rest = |seen: &[Event]| seen.len() - repeats(seen) == ENTRIES - 1;
    events.wait_until(SOON, rest).await;
    drained(&stage).await;
    assert_eq!(pending(&stage).await, 0, "what was deleted is acknowledged");
    let told = "a pending entry was deleted by somebody else";
    assert!(worker.log().contains(told) && worker.log().contains(middle));
    stage
        .sender(&ingress)
        .send(number.message(payload::text("1111111111", "on and on")))
        .await;
    drained(&stage).await;
    let refused: Vec<redis::Value> = redis::cmd("ACL")
        .arg("LOG")
        .query_async(&mut redis)
        .await
        .expect("ACL LOG");
    assert!(refused.is_empty(), "{refused:?}");
}

/// Texts and images of many customers, one after the other, until it is told to stop.
async fn load(stage: &Stage, sender: &tests::meta::Sender, stop: &CancellationToken) {
    let numbers: Vec<_> = (0..10).map(|_| Number::fresh()).collect();
    for n in 0.. {
        let number = &numbers[n % numbers.len()];
        let customer = format!("49151{:07}", n % 30);
        let message = if n % 3 == 0 {
            let media_id = rand::random_range(1_000_000_000_u64..9_000_000_000).to_string();
            let picture = format!("picture {n}").into_bytes();
            stage
                .neighbours
                .set_media(&media_id, "image/jpeg", picture.clone());
            let mut image = payload::image(&customer, &media_id);
            image["image"]["sha256"] = BASE64.encode(&Sha256::digest(picture)).into();
            image
        } else {
            payload::text(&customer, &n.to_string())
        };
        sender.send(number.message(message)).await;
        if stop.is_cancelled() {
            return;
        }
    }
}

/// While its servers are well, a worker that is told to stop finishes and records what it has begun: events,
/// the files that follow, and what the State Manager is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_told_to_stop_under_load_repeats_nothing() {
    let stage = Stage::new().await;
    let (ingress, events) = (stage.ingress().start().await, stage.events());
    let worker = stage
        .worker()
        .env("STATE_MANAGER_URL", stage.neighbours.url())
        .env("MEDIA_DEADLINE", "50ms");
    let mut worker = worker.start().await;
    // Some of each is always under way.
    let slow = |ms| Fault::Slow(Duration::from_millis(ms));
    stage.neighbours.set_fault(Service::State, slow(50));
    stage.neighbours.set_fault(Service::Download, slow(150));
    let (sender, stop) = (stage.sender(&ingress), CancellationToken::new());
    let stopping = async {
        for _ in 0..5 {
            let begun = (events.count(), stage.neighbours.state_taken().len());
            eventually(SOON, "it is in work", async || {
                let now = (events.count(), stage.neighbours.state_taken().len());
                (now.0 > begun.0 + 40 && now.1 > begun.1 + 20).then_some(())
            })
            .await;
            assert!(worker.stop(SOON).await, "it ends by itself");
            worker.restart().await;
        }
        stop.cancel();
    };
    tokio::join!(load(&stage, &sender, &stop), stopping);
    drained(&stage).await;
    let seen = events.all();
    let seen: Vec<_> = seen.into_iter().filter(|it| !it.redelivered).collect();
    let followed = seen
        .iter()
        .filter(|it| it.kind.as_deref() == Some("media.stored"));
    assert!(followed.count() > 0, "files followed");
    assert_eq!(repeats(&seen), 0, "of {} events", seen.len());
    let posts = stage.neighbours.state_taken();
    let apart: HashSet<String> = posts.iter().map(ToString::to_string).collect();
    assert_eq!(posts.len() - apart.len(), 0, "of {} posts", posts.len());
}

/// Redis comes back without the last that it was told. What it still has of an entry holds, though the same
/// tenure read it before.
#[tokio::test]
async fn an_entry_that_is_pending_again_is_opened_with_what_is_noted_of_it() {
    const ITEMS: usize = 60;
    let stage = Stage::new().await;
    let (proxy, url) = behind_a_proxy(&stage.amqp_url).await;
    let ingress = stage.ingress().start().await;
    let _worker = stage.worker().env("AMQP_URL", url).start().await;
    let (events, number) = (stage.events(), Number::fresh());
    proxy.set(Mode::Slow(Duration::from_millis(20)));
    let items = (0..ITEMS).map(|n| payload::text("1111111111", &n.to_string()));
    let body = number.webhook([number.messages(items)]);
    stage.sender(&ingress).send(body).await;
    eventually(SOON, "some of it is done", async || {
        (noted(&stage, &number).await.len() >= 10).then_some(())
    })
    .await;
    let keys = shared::keys::Keys::new("whatsapp", 16);
    let partition = keys.partition_of(&number.waba_id);
    let keys = [keys.stream(partition), keys.progress(partition)];
    let mut redis = stage.redis.connection().await;
    let mut dump = redis::pipe();
    dump.atomic();
    for key in &keys {
        dump.cmd("DUMP").arg(key);
    }
    let dumps: Vec<Vec<u8>> = dump.query_async(&mut redis).await.expect("DUMP");
    let done = noted(&stage, &number).await.len();
    drained(&stage).await;
    let mut restore = redis::pipe();
    restore.atomic();
    for (key, dump) in keys.iter().zip(&dumps) {
        restore
            .cmd("RESTORE")
            .arg(key)
            .arg(0)
            .arg(dump)
            .arg("REPLACE");
    }
    restore.exec_async(&mut redis).await.expect("RESTORE");
    let done_then = noted(&stage, &number).await;
    assert!((10..=done).contains(&done_then.len()));
    drained(&stage).await;
    let seen = events.wait_for(2 * ITEMS - done_then.len(), SOON).await;
    let mut times: HashMap<usize, usize> = HashMap::new();
    for event in &seen {
        let n = event.text("/message/content/body").parse();
        *times.entry(n.expect("a number")).or_default() += 1;
    }
    let again: Vec<_> = done_then.iter().filter(|n| times[n] > 1).collect();
    assert_eq!(again, Vec::<&usize>::new());
}
