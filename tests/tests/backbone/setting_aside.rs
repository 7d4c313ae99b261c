//! What can't be an event is set aside, whole, and hurts nobody else.

use data_encoding::BASE64;
use redis::AsyncCommands;
use sha2::{Digest, Sha256};
use tests::Stage;
use tests::events::Event;
use tests::meta::payload::{self, Number};
use tests::neighbours::{Fault, Service, Tenant, Turn};
use tests::programs::Until;
use tests::proxy::{Mode, Proxy};
use tests::waiting::eventually;

use crate::ownership::pending_entries;
use crate::{SOON, drained, repeats};

/// The one object below `prefix`.
async fn only_object(stage: &Stage, prefix: &str) -> tests::store::Object {
    let store = stage.webhooks();
    let key = eventually(SOON, "an object in the failed store", async || {
        store.list(prefix).await.ok()?.into_iter().next()
    })
    .await;
    store
        .object(&key)
        .await
        .expect("the store")
        .expect("the object")
}

#[tokio::test]
async fn a_signed_body_that_nobody_can_read_is_kept_whole() {
    let stage = Stage::new().await;
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let body = b"{\"object\":\"whatsapp_business_account\", \xff".to_vec();
    stage.sender(&ingress).send(body.clone()).await;
    let object = only_object(&stage, "failed/_unresolved/0/").await;
    assert_eq!(object.bytes, body);
    assert_eq!(object.metadata["reason"], "unreadable");
    assert_eq!(object.metadata["error"], "not JSON");
    assert_eq!(object.metadata["attempts"], "1");
}

#[tokio::test]
async fn an_undecodable_entry_hurts_only_itself() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    let partition = shared::keys::Keys::new("whatsapp", 16).partition_of(&number.waba_id);
    let stream = format!("whatsapp:{{{partition}}}:stream");
    let mut redis = stage.redis.connection().await;
    redis
        .xadd::<_, _, _, _, ()>(&stream, "*", &[("v", "99"), ("x", "from the future")])
        .await
        .expect("XADD");
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    stage
        .sender(&ingress)
        .send(number.message(payload::text("1111111111", "a")))
        .await;
    events.wait_for(1, SOON).await;
    let object = only_object(&stage, "failed/_unresolved/0/").await;
    assert_eq!(object.metadata["reason"], "undecodable");
    assert!(String::from_utf8_lossy(&object.bytes).contains("from the future"));
    drained(&stage).await;
}

#[tokio::test]
async fn items_of_an_account_without_a_tenant_are_set_aside() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    stage
        .neighbours
        .set_tenant(&number.waba_id, Tenant::Unknown);
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let body = number.message(payload::text("1111111111", "a"));
    stage.sender(&ingress).send(body.clone()).await;
    let object = only_object(&stage, &format!("failed/_unresolved/{}/", number.waba_id)).await;
    assert_eq!(object.bytes, body);
    assert_eq!(object.metadata["reason"], "tenant_unknown");
    assert_eq!(object.metadata["items"], "0");
    assert_eq!(object.metadata["attempts"], "1");
    assert!(!object.metadata["error"].is_empty());
}

#[tokio::test]
async fn a_silent_tenant_service_holds_back_only_whom_it_does_not_know() {
    let stage = Stage::new().await;
    let (known, unknown) = (Number::fresh(), Number::fresh());
    let (ingress, _worker) = (
        stage.ingress().env("STREAM_PARTITIONS", 1).start().await,
        stage.worker().env("STREAM_PARTITIONS", 1).start().await,
    );
    let events = stage.events();
    let sender = stage.sender(&ingress);
    sender
        .send(known.message(payload::text("1111111111", "0")))
        .await;
    events.wait_for(1, SOON).await;
    stage
        .neighbours
        .set_fault(Service::Tenants, Fault::Status(500));
    for n in 0..20 {
        sender
            .send(unknown.message(payload::text("2222222222", &n.to_string())))
            .await;
    }
    sender
        .send(known.message(payload::text("1111111111", "1")))
        .await;
    let seen = events.wait_for(2, SOON).await;
    assert!(
        seen.iter()
            .all(|e| e.text("/channel/businessAccountId") == known.waba_id)
    );
    stage.neighbours.set_fault(Service::Tenants, Fault::None);
    let seen = events.wait_for(22, SOON).await;
    let texts = &crate::first_texts(&seen)["2222222222"];
    assert_eq!(*texts, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// An account in a partition, whose worker dies of each image, and one beside it that is well.
struct Neighbourhood {
    poisoned: Number,
    well: Number,
    partition: u16,
    body: bytes::Bytes,
    /// Of the image: the Graph API never answers for it, so it stays in work.
    media_id: String,
}

impl Neighbourhood {
    fn new(stage: &Stage, is_partition: impl Fn(u16) -> bool) -> Self {
        let keys = shared::keys::Keys::new("whatsapp", 16);
        let partition_of = |number: &Number| keys.partition_of(&number.waba_id);
        let number = |wanted: &dyn Fn(u16) -> bool| loop {
            let number = Number::fresh();
            if wanted(partition_of(&number)) {
                break number;
            }
        };
        let poisoned = number(&is_partition);
        let media_id = rand::random_range(1_000_000_000_u64..9_000_000_000).to_string();
        let hang = Turn::Fault(Fault::Hang);
        stage.neighbours.always(Service::Graph, &media_id, hang);
        Self {
            well: number(&|partition| partition == partition_of(&poisoned)),
            partition: partition_of(&poisoned),
            body: poisoned.message(payload::image("1111111111", &media_id)),
            poisoned,
            media_id,
        }
    }

    /// How often workers had the image in work, at least.
    fn asked(&self, stage: &Stage) -> usize {
        let asked = stage.neighbours.received(Service::Graph).into_iter();
        asked
            .filter(|asked| asked.path.contains(&self.media_id))
            .count()
    }
}

/// What a worker sends when it has read a suspect's bytes: held back, that entry stays named in Redis, as if
/// the worker were still at its bytes.
fn end_of_alone(partition: u16, entry: &str) -> Mode {
    let script = redis::Script::new(include_str!("../../../worker/src/lua/end_alone.lua"));
    let keys = ["alone", "deaths"].map(|name| format!("whatsapp:{{{partition}}}:{name}"));
    let [alone, deaths] = &keys;
    let mut request = "*7\r\n".to_owned();
    for part in ["EVALSHA", script.get_hash(), "2", alone, deaths, entry] {
        request += &format!("${}\r\n{part}\r\n", part.len());
    }
    Mode::Hold(Box::leak(request.into_bytes().into_boxed_slice()))
}

/// The entry of a partition that lies longest in its stream.
async fn oldest(redis: &mut redis::aio::MultiplexedConnection, partition: u16) -> Option<String> {
    let key = format!("whatsapp:{{{partition}}}:stream");
    let range = redis.xrange_count(key, "-", "+", 1);
    let entries: redis::streams::StreamRangeReply = range.await.expect("a range");
    entries.ids.into_iter().next().map(|entry| entry.id)
}

/// From three crashes on an entry that was pending is a suspect, whose bytes are read alone. Five deaths
/// over them are enough, and nothing else is counted: not a crash while it waits for a file, not what the
/// other partition's suspect does.
#[tokio::test]
async fn entries_of_two_partitions_that_kill_every_worker_are_set_aside() {
    const CRASHES: usize = 3;
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let ingress = stage.ingress().start().await;
    let url = format!("redis://{}", proxy.address());
    let worker = stage.worker().env("LEASE_TTL", "1s").env("REDIS_URL", url);
    let worker = worker.env("MEDIA_DEADLINE", "10m").until(Until::Healthy);
    let mut worker = worker.start().await;
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    let one = Neighbourhood::new(&stage, |_| true);
    let partition = one.partition;
    let both = [one, Neighbourhood::new(&stage, |own| own != partition)];
    for place in &both {
        sender.send(place.body.clone()).await;
    }
    let mut redis = stage.redis.connection().await;
    let mut poisoned = Vec::new();
    for place in &both {
        poisoned.push(
            oldest(&mut redis, place.partition)
                .await
                .expect("it was stored"),
        );
    }
    let mut asked = [0; 2];
    for crash in 0..CRASHES {
        eventually(SOON, "both are in work", async || {
            let now = [0, 1].map(|n| both[n].asked(&stage));
            (now[0] > asked[0] && now[1] > asked[1]).then(|| asked = now)
        })
        .await;
        for place in &both {
            let text = payload::text("2222222222", &crash.to_string());
            sender.send(place.well.message(text)).await;
        }
        worker.kill();
        asked = [0, 1].map(|n| both[n].asked(&stage));
        worker.restart().await;
    }
    for (place, poisoned) in both.iter().zip(&poisoned) {
        proxy.set(end_of_alone(place.partition, poisoned));
        let keys = shared::keys::Keys::new("whatsapp", 16);
        let alone = keys.alone(place.partition);
        let (lease, mut last) = (keys.lease(place.partition), String::new());
        loop {
            let asked = place.asked(&stage);
            worker.restart().await;
            // What wasn't held back, since it came together with other requests, is in work now.
            let killed_as = eventually(SOON, "a new worker reads its bytes", async || {
                let owner: String = redis.get(&lease).await.ok()?;
                let named: Option<String> = redis.get(&alone).await.ok()?;
                if oldest(&mut redis, place.partition).await.as_ref() != Some(poisoned) {
                    return Some(None);
                }
                let read = named.is_some_and(|named| named.starts_with(poisoned))
                    || place.asked(&stage) > asked;
                (owner != last && read).then_some(Some(owner))
            })
            .await;
            match killed_as {
                Some(owner) => last = owner,
                None => break,
            }
            worker.kill();
        }
    }
    proxy.set(Mode::Pass);
    let all = |seen: &[Event]| seen.len() - repeats(seen) == 2 * CRASHES;
    let seen = events.wait_until(SOON, all).await;
    drained(&stage).await;
    let expected: Vec<_> = (0..CRASHES).map(|n| n.to_string()).collect();
    for place in &both {
        let folder = format!("failed/tenant-{}/", place.poisoned.waba_id);
        let object = only_object(&stage, &folder).await;
        assert_eq!(object.bytes, place.body);
        assert_eq!(object.metadata["reason"], "crashes");
        assert_eq!(object.metadata["items"], "0");
        assert_eq!(object.metadata["attempts"], "5");
        let own = seen
            .iter()
            .filter(|event| event.text("/channel/businessAccountId") == place.well.waba_id);
        let own: Vec<_> = own.cloned().collect();
        assert_eq!(crate::first_texts(&own)["2222222222"], expected);
    }
    let failed = stage.webhooks().list("failed/").await.expect("a list");
    assert_eq!(failed.len(), 2, "{failed:?}");
}

/// A worker that is killed while it waits for a server was at nobody's bytes: nothing is set aside for it,
/// however often that happens.
#[tokio::test]
async fn workers_killed_while_they_wait_for_a_server_set_nothing_aside() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let worker = stage
        .worker()
        .env("LEASE_TTL", "1s")
        .env("MAX_DELIVERIES", 1);
    let mut worker = worker.env("MEDIA_DEADLINE", "10m").start().await;
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    let mut places: Vec<Neighbourhood> = Vec::new();
    for _ in 0..4 {
        let taken: Vec<u16> = places.iter().map(|place| place.partition).collect();
        places.push(Neighbourhood::new(&stage, |own| !taken.contains(&own)));
    }
    for place in &places {
        sender.send(place.body.clone()).await;
    }
    let mut asked = vec![0; places.len()];
    for _ in 0..6 {
        eventually(SOON, "all of them are in work", async || {
            let now: Vec<usize> = places.iter().map(|place| place.asked(&stage)).collect();
            let all = now.iter().zip(&asked).all(|(now, asked)| now > asked);
            all.then(|| asked = now)
        })
        .await;
        worker.kill();
        worker.restart().await;
    }
    worker.restart_with("MEDIA_DEADLINE", "100ms").await;
    let all = |seen: &[Event]| seen.len() - repeats(seen) == places.len();
    events.wait_until(SOON, all).await;
    let failed = stage.webhooks().list("failed/").await.expect("a list");
    assert!(failed.is_empty(), "{failed:?}");
}

/// It was cut off while it read a suspect's bytes, and somebody else has the partition since: it lives, so
/// nobody died of that entry.
#[tokio::test]
async fn a_worker_that_loses_its_lease_takes_back_its_suspects_death() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let number = Number::fresh();
    let body = number.message(payload::text("1111111111", "a"));
    stage.sender(&ingress).send(body).await;
    let keys = shared::keys::Keys::new("whatsapp", 16);
    let partition = keys.partition_of(&number.waba_id);
    let mut redis = stage.redis.connection().await;
    let id = pending_entries(&mut redis, partition).await.remove(0);
    let suspects = redis.hset::<_, _, _, ()>(keys.suspects(partition), &id, 3);
    suspects.await.expect("HSET");
    redis
        .del::<_, ()>(keys.lease(partition))
        .await
        .expect("DEL");
    let proxy = Proxy::start(stage.redis.address()).await.expect("a proxy");
    let url = format!("redis://{}", proxy.address());
    let worker = stage.worker().env("LEASE_TTL", "1s").env("REDIS_URL", url);
    proxy.set(end_of_alone(partition, &id));
    let worker = worker.until(Until::Healthy).start().await;
    eventually(SOON, "it reads its bytes", async || {
        let named: Option<String> = redis.get(keys.alone(partition)).await.ok()?;
        named.filter(|named| named.starts_with(&id))
    })
    .await;
    redis
        .del::<_, ()>(keys.lease(partition))
        .await
        .expect("DEL");
    let acquire = redis::Script::new(include_str!("../../../worker/src/lua/acquire.lua"));
    let mut call = acquire.key(keys.lease(partition));
    call.key(keys.owner(partition)).key(keys.stream(partition));
    call.key(keys.suspects(partition))
        .key(keys.deaths(partition));
    call.key(keys.alone(partition))
        .key("{0}:none")
        .key("{0}:none");
    call.arg(&["other:1", "600000", "workers", "other"]);
    let taken: u8 = call.invoke_async(&mut redis).await.expect("acquire");
    let deaths: Option<String> = redis.hget(keys.deaths(partition), &id).await.expect("HGET");
    assert!(taken == 1 && deaths.is_some(), "it counts as a death");
    eventually(SOON, "it knows", async || {
        worker.log().contains("lost a partition").then_some(())
    })
    .await;
    proxy.set(Mode::Pass);
    eventually(SOON, "its death is taken back", async || {
        let deaths: Option<String> = redis.hget(keys.deaths(partition), &id).await.ok()?;
        deaths.is_none_or(|deaths| deaths.is_empty()).then_some(())
    })
    .await;
}

/// The image of a body went out as pending, and then nothing more of it does: its file still follows, and
/// its raw body lies in the archive.
#[tokio::test]
async fn an_entry_that_is_given_up_keeps_what_its_events_promised() {
    const JPEG: &[u8] = b"\xff\xd8\xff\xe0 a picture that was promised";
    let stage = Stage::new().await;
    let (ingress, events) = (stage.ingress().start().await, stage.events());
    let keys = shared::keys::Keys::new("whatsapp", 16);
    let mut redis = stage.redis.connection().await;
    let mut promised = Vec::new();
    for reason in ["crashes", "tenant_suspended"] {
        let taken = |number: &Number| {
            let same = |one: &(_, Number, _, _)| {
                keys.partition_of(&one.1.waba_id) == keys.partition_of(&number.waba_id)
            };
            promised.iter().any(same)
        };
        // Each is the oldest entry of its partition.
        let number = std::iter::repeat_with(Number::fresh).find(|number| !taken(number));
        let number = number.expect("a number of another partition");
        let media_id = rand::random_range(1_000_000_000_u64..9_000_000_000).to_string();
        stage.neighbours.set_media(&media_id, "image/jpeg", JPEG);
        let mut image = payload::image("1111111111", &media_id);
        image["image"]["sha256"] = BASE64.encode(&Sha256::digest(JPEG)).into();
        let wamid = image["id"].as_str().expect("an id").to_owned();
        let items = [image, payload::text("2222222222", "never")];
        let body = number.webhook([number.messages(items)]);
        stage.sender(&ingress).send(body.clone()).await;
        let partition = keys.partition_of(&number.waba_id);
        let id = oldest(&mut redis, partition).await.expect("it is stored");
        pending_entries(&mut redis, partition).await;
        let mut notes = redis::pipe();
        notes.hset(keys.progress(partition), &id, "0");
        notes.hset(keys.media(partition), &id, "0:pending,");
        if reason == "crashes" {
            notes.hset(keys.deaths(partition), &id, "a,b,c,d,e,");
        } else {
            let tenant = Tenant::Suspended;
            stage.neighbours.set_tenant(&number.waba_id, tenant);
        }
        notes.del(keys.lease(partition));
        notes.exec_async(&mut redis).await.expect("notes");
        promised.push((reason, number, wamid, body));
    }
    let _worker = stage.worker().start().await;
    let is_promised = |event: &Event| {
        let kind = event.kind.as_deref();
        kind == Some("media.stored") && promised.iter().any(|one| one.2 == event.wamid())
    };
    let all = |seen: &[Event]| seen.iter().filter(|event| is_promised(event)).count() == 2;
    let seen = events.wait_until(SOON, all).await;
    assert_eq!(seen.len(), 2, "the text doesn't go out");
    drained(&stage).await;
    for (reason, number, _, body) in &promised {
        let tenant = format!("tenant-{}/", number.waba_id);
        let object = only_object(&stage, &format!("failed/{tenant}")).await;
        assert_eq!(object.metadata["reason"], *reason);
        assert_eq!(object.metadata["items"], "1");
        assert_eq!(only_object(&stage, &tenant).await.bytes, *body);
    }
}

#[tokio::test]
async fn what_is_no_accounts_goes_out_without_a_tenant() {
    let stage = Stage::new().await;
    let portfolio = Number::fresh();
    for account in [portfolio.waba_id.as_str(), "0"] {
        stage.neighbours.set_tenant(account, Tenant::Unknown);
    }
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let solution = serde_json::json!({"field": "partner_solutions", "value": {
        "event": "SOLUTION_CREATED", "solution_id": "774485461512159"}});
    sender.send(portfolio.webhook([solution])).await;
    // Meta's dashboard sends the same test each time its button is pressed.
    let test = Number::of("0").message(payload::text("16315551181", "this is a text message"));
    for _ in 0..2 {
        sender.send(test.clone()).await;
    }
    let seen = events.wait_for(2, SOON).await;
    let mut keys: Vec<_> = seen
        .iter()
        .map(|event| event.routing_key.as_str())
        .collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "account.messages._platform",
            "account.partner_solutions._platform"
        ]
    );
    for event in &seen {
        assert_eq!(event.queue, tests::events::EVENTS);
        assert_eq!(event.payload["tenant"], serde_json::Value::Null);
        assert_eq!(event.headers.get("x-tenant-id"), None);
    }
    drained(&stage).await;
    assert_eq!(
        ingress
            .metric("whatsapp_ingress_test_webhooks_total", "")
            .await,
        2.0
    );
    let lines = ingress.log_lines();
    let arrived = lines.iter().filter(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("a test webhook of Meta's dashboard")
    });
    assert_eq!(arrived.count(), 2, "the second press is seen too");
    let archived = stage.webhooks().list("").await.expect("a list");
    let of_platform = archived.iter().filter(|key| key.starts_with("_platform/"));
    assert_eq!(
        (of_platform.count(), archived.len()),
        (2, 2),
        "{archived:?}"
    );
}

#[tokio::test]
async fn an_event_about_a_number_finds_it_among_its_accounts() {
    let stage = Stage::new().await;
    let (ingress, _worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let quality = |display: &str| {
        let value = serde_json::json!({"display_phone_number": display, "event": "FLAGGED"});
        number
            .webhook([serde_json::json!({"field": "phone_number_quality_update", "value": value})])
    };
    sender
        .send(number.message(payload::text("1111111111", "a")))
        .await;
    events.wait_for(1, SOON).await;
    sender.send(quality(&number.display_phone_number)).await;
    sender.send(quality("4930000000")).await;
    let seen = events.wait_for(3, SOON).await;
    let id = |display: &str| {
        let mut of = seen
            .iter()
            .filter(|event| event.kind.as_deref() == Some("account.updated"));
        let event = of.find(|event| event.text("/channel/displayPhoneNumber") == display);
        event
            .expect("its event")
            .text("/channel/phoneNumberId")
            .to_owned()
    };
    assert_eq!(id(&number.display_phone_number), number.phone_number_id);
    assert_eq!(id("4930000000"), "");
}
