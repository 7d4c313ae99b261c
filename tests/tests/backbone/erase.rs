//! `worker erase`: what is kept of a tenant or a customer goes, whatever else lies beside it.

use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutOptions};
use redis::AsyncCommands;
use serde_json::{Value, json};
use std::process::Output;
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::neighbours::Tenant;
use tests::programs::Worker;
use tests::proxy::{Mode, Proxy};
use tests::store::Store;

use crate::canaries::{Fault, Works, failing_store};
use crate::commands::{id, run, run_with, said, text};
use crate::{SOON, drained};

const ADA: &str = "4915100000001";
const BEN: &str = "4915100000002";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command tells besides its report: nothing of the customer's, of no message.
#[track_caller]
fn assert_discreet(worker: &Worker, output: &Output) {
    let errors = errors(output);
    assert_eq!(
        worker.private_parts(&errors),
        Vec::<String>::new(),
        "{errors}"
    );
}

/// Writes an object as the worker would; `sha256` may be another's.
async fn put(store: &Store, key: &str, body: &[u8], metadata: &[(&str, &str)]) {
    let mut attributes = Attributes::new();
    for (name, value) in metadata {
        let name = Attribute::Metadata((*name).to_owned().into());
        attributes.insert(name, (*value).to_owned().into());
    }
    let options = PutOptions {
        attributes,
        ..PutOptions::default()
    };
    let key = Path::parse(key).expect("a key");
    let put = store.client().put_opts(&key, body.to_vec().into(), options);
    put.await.expect("the store");
}

async fn list(store: &Store, folder: &str) -> Vec<String> {
    store.list(folder).await.expect("a list")
}

fn left(found: &Value) -> Vec<&str> {
    let left = found["left"].as_array().expect("a list").iter();
    left.map(|it| it["key"].as_str().expect("a key")).collect()
}

#[tokio::test]
async fn erase_deletes_what_is_theirs_and_nothing_else() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let (one, other) = (Number::fresh(), Number::fresh());
    let tenant = |number: &Number| format!("tenant-{}", number.waba_id);
    let sender = stage.sender(&ingress);
    let (first, kept) = (payload::text(ADA, "a"), payload::text(BEN, "kept"));
    let image = payload::image(ADA, "1001");
    for body in [
        one.webhook([one.messages([first.clone(), kept.clone()])]),
        one.message(image.clone()),
        one.message(payload::image(BEN, "1002")),
        one.status(payload::status("wamid.to-ada", "sent", ADA)),
        other.message(payload::text(ADA, "of another tenant")),
    ] {
        sender.send(body).await;
    }
    stage.events().wait_for(6, SOON).await;
    drained(&stage).await;
    let (webhooks, media) = (stage.webhooks(), stage.media());
    let list = async |store: &tests::store::Store, of: &Number| {
        store.list(&tenant(of)).await.expect("a list")
    };
    assert_eq!(list(&webhooks, &one).await.len(), 4);
    assert_eq!(list(&media, &one).await.len(), 2);

    let tenant_one = tenant(&one);
    let mut erase = vec![
        "erase",
        "--json",
        "--customer",
        ADA,
        "--tenant",
        &tenant_one,
    ];
    let counted = said(&run(&worker, &erase).await);
    assert_eq!(counted["erased"], false);
    assert_eq!(list(&webhooks, &one).await.len(), 4);
    erase.push("--yes");
    let output = run(&worker, &erase).await;
    let audits: Vec<_> = errors(&output)
        .lines()
        .filter(|line| line.contains(r#""message":"audit""#))
        .map(str::to_owned)
        .collect();
    assert_eq!(audits.len(), 1, "{}", errors(&output));
    assert!(audits[0].contains(r#""action":"erase""#) && !audits[0].contains(ADA));
    let erased = said(&output);
    for found in [&counted, &erased] {
        assert_eq!(found["payloads"][&tenant_one], 2, "{found}");
        assert_eq!(
            (&found["rewritten"], &found["media"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(found["waiting"], 0);
    }
    let left = list(&webhooks, &one).await;
    assert_eq!(left.len(), 2);
    for key in &left {
        let object = webhooks.object(key).await.expect("the store").expect("it");
        let body = String::from_utf8(object.bytes.to_vec()).expect("text");
        assert!(!body.contains(ADA) && body.contains(BEN), "{body}");
        assert!(!key.contains(&id(&first)), "{key}");
    }
    let renamed = left.iter().find(|key| key.contains(&id(&kept)));
    let renamed = webhooks.object(renamed.expect("the rest")).await;
    assert_eq!(
        renamed.expect("the store").expect("it").metadata["items"],
        "0"
    );
    assert_eq!(list(&media, &one).await.len(), 1);
    assert!(!list(&media, &one).await[0].contains(&id(&image)));
    assert_eq!(list(&webhooks, &other).await.len(), 1);

    let mut redis = stage.redis.connection().await;
    let health = |number: &Number| format!("quality:{}:4930901820", number.waba_id);
    for number in [&one, &other] {
        let state = json!({"kind": "quality", "account": number.waba_id, "subject": "4930901820",
            "state": "dropped", "detail": null, "at_ms": 1, "until": null});
        redis
            .hset::<_, _, _, ()>("whatsapp:health", health(number), state.to_string())
            .await
            .expect("HSET");
    }
    let tenant_other = tenant(&other);
    let erase = [
        "erase",
        "--tenant",
        &tenant_other,
        "--account",
        &other.waba_id,
        "--yes",
    ];
    let output = run(&worker, &erase).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text(&output).contains(&format!("1  payloads in {tenant_other}")));
    assert_eq!(list(&webhooks, &other).await, Vec::<String>::new());
    assert_eq!(list(&webhooks, &one).await, left);
    let states: Vec<String> = redis.hkeys("whatsapp:health").await.expect("HKEYS");
    assert_eq!(states, [health(&one)]);
    let there = async |redis: &mut redis::aio::MultiplexedConnection, number: &Number| {
        let key = format!("whatsapp:tenant:{}", number.waba_id);
        redis.exists::<_, bool>(key).await.expect("EXISTS")
    };
    assert!(!there(&mut redis, &other).await);
    assert!(there(&mut redis, &one).await);
}

#[tokio::test]
async fn erase_asks_whose_before_it_deletes_anything() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await;
    for (wrong, why) in [
        (vec!["erase", "--yes"], "say whose"),
        (vec!["erase", "--tenant", "", "--yes"], "nobody's"),
        (
            vec!["erase", "--tenant", "t", "--account", "", "--yes"],
            "nobody's",
        ),
        (vec!["erase", "--tenant", "failed", "--yes"], "all tenants"),
    ] {
        let output = run(&worker, &wrong).await;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(why), "{told}");
        assert_eq!(output.status.code(), Some(2), "{told}");
    }
}

#[tokio::test]
async fn erase_says_what_is_still_on_its_way() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let mut worker = stage.worker().start().await;
    assert!(worker.stop(SOON).await);
    let number = Number::fresh();
    let sender = stage.sender(&ingress);
    sender.send(number.message(payload::text(ADA, "a"))).await;
    for (customer, waiting) in [(ADA, 1), (BEN, 0)] {
        let output = run(
            &worker,
            &["erase", "--json", "--customer", customer, "--yes"],
        )
        .await;
        assert_eq!(said(&output)["waiting"], waiting);
        assert_eq!(output.status.code(), Some(1));
        let why = ["nothing", "still on their way"][waiting];
        assert!(errors(&output).contains(why), "{}", errors(&output));
    }
}

#[tokio::test]
async fn erase_goes_on_behind_what_it_cannot_read_and_a_rerun_finishes() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await;
    let store = stage.webhooks();
    let number = Number::fresh();
    let body = |of: &str| number.message(payload::text(of, "a"));
    let key = |n: u8| format!("t/2026-01-02/170000000000{n}-{}.json", payload::wamid());
    let (damaged, moved, foreign, theirs, others) = (key(0), key(1), key(2), key(3), key(4));
    let wrong = [("sha256", "0000")];
    put(&store, &damaged, &body(ADA), &wrong).await;
    put(&store, &moved, &body(ADA), &[]).await;
    put(
        &store,
        &foreign,
        format!("no JSON, but {ADA}").as_bytes(),
        &[],
    )
    .await;
    put(&store, &theirs, &body(ADA), &[]).await;
    put(&store, &others, &body(BEN), &[]).await;

    let upstream = stage.s3.endpoint.trim_start_matches("http://");
    let proxy = Proxy::start(upstream).await.expect("a proxy");
    let endpoint = format!("http://{}", proxy.address());
    // As an object that was moved after it was listed.
    let get = format!(
        "GET /{}/{}",
        stage.webhook_bucket,
        moved.replace('=', "%3D")
    );
    proxy.set(Mode::AnswerTo(get, NOT_FOUND));
    let erase = ["erase", "--json", "--customer", ADA, "--yes"];
    let output = run_with(&worker, &erase, &[("MINIO_ENDPOINT", &endpoint)]).await;
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    let found = said(&output);
    assert_eq!(found["payloads"]["t"], 1, "{found}");
    assert_eq!(left(&found), [&*damaged, &moved, &foreign]);
    assert!(errors(&output).contains("3 objects"), "{}", errors(&output));
    assert_discreet(&worker, &output);
    assert_eq!(list(&store, "t").await.len(), 4);

    for key in [&damaged, &foreign] {
        let key = Path::parse(key).expect("a key");
        store.client().delete(&key).await.expect("the store");
    }
    let output = run(&worker, &erase).await;
    assert_eq!(said(&output)["payloads"]["t"], 1);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(list(&store, "t").await, [others]);
}

#[tokio::test]
async fn erase_tells_a_store_that_is_away_from_an_object_that_is_damaged() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await;
    let works = Works::Listings(payload::wamid());
    let (goes_away, _guard) = failing_store(Fault::Status(500), works).await;
    for endpoint in ["http://127.0.0.1:1", &goes_away] {
        let away = [("MINIO_ENDPOINT", endpoint)];
        for whose in [["--customer", ADA], ["--tenant", "acme"]] {
            let erase = ["erase", whose[0], whose[1], "--yes"];
            let output = run_with(&worker, &erase, &away).await;
            assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
            assert_discreet(&worker, &output);
        }
    }
}

#[tokio::test]
async fn erase_of_a_tenants_customer_looks_where_its_accounts_had_no_tenant() {
    let stage = Stage::new().await;
    let mut worker = stage.worker().start().await;
    assert!(worker.stop(SOON).await);
    let store = stage.webhooks();
    // The Tenant Service knows the first; of the second only the archive tells whose it was.
    let (known, archived, stranger) = (Number::fresh(), Number::fresh(), Number::fresh());
    let tenant = format!("tenant-{}", known.waba_id);
    for number in [&archived, &stranger] {
        stage
            .neighbours
            .set_tenant(&number.waba_id, Tenant::Unknown);
    }
    let folders = [
        "_unresolved",
        "failed/_unresolved",
        "replayed/_unresolved",
        "discarded/_unresolved",
    ];
    for number in [&known, &archived, &stranger] {
        for folder in folders {
            for of in [ADA, BEN] {
                let name = format!("1700000000000-{}.json", payload::wamid());
                let key = format!("{folder}/{}/2026-01-02/{name}", number.waba_id);
                put(&store, &key, &number.message(payload::text(of, "a")), &[]).await;
            }
        }
    }
    let key = format!("{tenant}/2026-01-02/1700000000000-wamid.X.json");
    let account = [("waba-id", &*archived.waba_id)];
    put(
        &store,
        &key,
        &archived.message(payload::text(BEN, "a")),
        &account,
    )
    .await;

    let erase = ["erase", "--json", "--tenant", &tenant, "--yes"];
    let customer = [&erase[..], &["--customer", "+49 151 0000-0001"]].concat();
    let output = run(&worker, &customer).await;
    assert!(output.status.success(), "{}", errors(&output));
    let found = said(&output);
    for folder in ["_unresolved", "failed", "replayed", "discarded"] {
        assert_eq!(found["payloads"][folder], 2, "{found}");
    }
    assert_eq!(found["unowned"], json!([stranger.waba_id]));
    let of = async |number: &Number| {
        let mut keys = Vec::new();
        for folder in folders {
            keys.extend(list(&store, &format!("{folder}/{}", number.waba_id)).await);
        }
        keys.len()
    };
    assert_eq!(
        [of(&known).await, of(&archived).await, of(&stranger).await],
        [4, 4, 8]
    );

    let output = run(&worker, &erase).await;
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(
        [of(&known).await, of(&archived).await, of(&stranger).await],
        [0, 0, 8]
    );
    let output = run(
        &worker,
        &[&erase[..], &["--account", &stranger.waba_id]].concat(),
    )
    .await;
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(of(&stranger).await, 0);
}

#[tokio::test]
async fn erase_takes_numbers_as_people_write_them_and_refuses_what_is_no_id() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await;
    let store = stage.webhooks();
    let number = Number::fresh();
    for typed in [
        "+49 151 0000-0001",
        "0049 (151) 00000001",
        "49.151.00000001",
        "+49 (0) 151 00000001",
    ] {
        let key = format!("t/2026-01-02/1700000000000-{}.json", payload::wamid());
        put(&store, &key, &number.message(payload::text(ADA, "a")), &[]).await;
        let output = run(&worker, &["erase", "--customer", typed, "--yes"]).await;
        assert!(output.status.success(), "{typed}: {}", errors(&output));
        assert_eq!(list(&store, "t").await, Vec::<String>::new(), "{typed}");
        let again = run(&worker, &["erase", "--customer", typed, "--yes"]).await;
        assert_eq!(again.status.code(), Some(1), "{typed}");
        assert!(errors(&again).contains("nothing"), "{}", errors(&again));
    }
    for refused in [
        "0151 00000001",
        "ada",
        "",
        "+",
        "wamid.HBgL",
        "4915100000001x",
        "de.77123",
        "12",
    ] {
        let output = run(&worker, &["erase", "--customer", refused, "--yes"]).await;
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(2), "{refused}: {errors}");
        assert!(
            errors.contains("country code") && errors.contains("BSUID"),
            "{errors}"
        );
        assert_discreet(&worker, &output);
    }
}

#[tokio::test]
async fn erase_names_the_other_ids_seen_beside_the_erased_ones() {
    let stage = Stage::new().await;
    let worker = stage.worker().start().await;
    let store = stage.webhooks();
    let number = Number::fresh();
    let mut first = payload::text(ADA, "a");
    first["from_user_id"] = json!("DE.7712345");
    first["from_parent_user_id"] = json!("DE.ENT.88");
    let mut moved = payload::message(ADA, "system", Value::Null);
    moved["system"] = json!({"type": "user_changed_number", "wa_id": "4915100000009",
        "customer": ADA, "previous_user_id": "DE.66"});
    let contact = json!({"wa_id": ADA, "user_id": "DE.55", "profile": {"name": "Sheena Nelson"}});
    let echo = json!({"from": number.display_phone_number, "to": ADA, "to_user_id": "DE.44",
        "id": payload::wamid(), "timestamp": payload::timestamp(), "type": "text", "text": {"body": "a"}});
    let state = json!({"type": "contact", "action": "add",
        "contact": {"phone_number": ADA, "user_id": "DE.33"}});
    let changes = [
        number.messages([first, moved, payload::text(BEN, "b")]),
        number.change("messages", json!({"contacts": [contact]})),
        number.change("smb_message_echoes", json!({"message_echoes": [echo]})),
        number.change("smb_app_state_sync", json!({"state_sync": [state]})),
    ];
    let key = "t/2026-01-02/1700000000000-x.json";
    put(&store, key, &number.webhook(changes), &[]).await;
    let seen = json!([
        "4915100000009",
        "DE.33",
        "DE.44",
        "DE.55",
        "DE.66",
        "DE.7712345",
        "DE.ENT.88"
    ]);
    let output = run(&worker, &["erase", "--customer", ADA]).await;
    assert!(
        text(&output).contains("--customer DE.7712345"),
        "{}",
        text(&output)
    );
    assert_discreet(&worker, &output);
    let output = run(&worker, &["erase", "--json", "--customer", ADA, "--yes"]).await;
    assert_eq!(said(&output)["otherIds"], seen, "{}", said(&output));
    assert_eq!(said(&output)["rewritten"], 1);
    let rest = list(&store, "t").await;
    let rest = store.get(&rest[0]).await.expect("the store").expect("it");
    let rest = String::from_utf8(rest.to_vec()).expect("text");
    assert!(!rest.contains(ADA) && rest.contains(BEN), "{rest}");
}
