//! What the worker notices of accounts, numbers and templates is an event, once for each change.

use redis::AsyncCommands;
use serde_json::{Value, json};
use tests::Stage;
use tests::events::Event;
use tests::meta::payload::{self, Number};
use tests::neighbours::{Service, Turn};
use tests::programs::Worker;
use tests::waiting::eventually;

use crate::SOON;

fn is_health(event: &Event) -> bool {
    event.kind.as_deref() == Some("channel.health")
}

/// Kind and state of the health events of an account, in their order.
fn told(events: &[Event], account: &str) -> Vec<(String, String)> {
    let of_account = events
        .iter()
        .filter(|it| is_health(it) && it.text("/channel/businessAccountId") == account);
    let words = of_account.map(|it| {
        assert_eq!(it.queue, "WHATSAPP_EVENTS");
        let kind = it.text("/health/kind");
        let key = format!("health.{kind}.tenant-{account}");
        assert_eq!(it.routing_key, key);
        assert_eq!(it.message_id.as_deref(), Some(it.text("/eventId")));
        (kind.to_owned(), it.text("/health/state").to_owned())
    });
    words.collect()
}

async fn unwell(worker: &Worker, kind: &str) -> f64 {
    let labels = format!("kind=\"{kind}\"");
    worker.metric("whatsapp_health_unwell", &labels).await
}

#[tokio::test]
async fn what_webhooks_say_of_an_account_is_told_once_per_change() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    // Whichever of the two watches.
    let workers = tokio::join!(stage.worker().start(), stage.worker().start());
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let account = |event, more: Value| {
        let mut value = json!({"event": event});
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
            value.extend(more);
        }
        payload::change("account_update", value)
    };
    let restriction = json!([{"restriction_type": "RESTRICTED_BIZ_INITIATED_MESSAGING"}]);
    let restricted = |n: u32| {
        account(
            "ACCOUNT_RESTRICTION",
            json!({"restriction_info": restriction, "n": n}),
        )
    };
    let quality = |event| {
        let value = json!({"event": event, "display_phone_number": "4930901820"});
        payload::change("phone_number_quality_update", value)
    };
    let template = |event| {
        let value =
            json!({"event": event, "message_template_id": 7, "message_template_name": "sale"});
        payload::change("message_template_status_update", value)
    };
    let said = [
        restricted(1),
        restricted(2),
        account("ACCOUNT_RESTRICTION", json!({"restriction_info": []})),
        account("ACCOUNT_OFFBOARDED", json!({})),
        account("ACCOUNT_RECONNECTED", json!({})),
        quality("FLAGGED"),
        quality("UNFLAGGED"),
        template("PAUSED"),
        template("APPROVED"),
    ];
    let expected = [
        ("restriction", "restricted"),
        ("restriction", "lifted"),
        ("offboarding", "offboarded"),
        ("offboarding", "onboarded"),
        ("quality", "dropped"),
        ("quality", "recovered"),
        ("template", "paused"),
        ("template", "active"),
    ];
    let expected = expected.map(|(kind, state)| (kind.to_owned(), state.to_owned()));
    for change in said {
        sender.send(number.webhook([change])).await;
    }
    eventually(SOON, "each change is told", async || {
        (told(&events.all(), &number.waba_id).len() >= expected.len()).then_some(())
    })
    .await;
    assert_eq!(told(&events.all(), &number.waba_id), expected);
    drop(workers);
}

#[tokio::test]
async fn tokens_subscriptions_and_silent_numbers_are_told_once_per_change() {
    let here = "https://here.example/webhook/meta";
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let worker = stage.worker().env("HEALTH_INTERVAL", "1s");
    let worker = worker.env("CALLBACK_URL", here).start().await;
    let events = stage.events();
    let numbers = [Number::fresh(), Number::fresh(), Number::fresh()];
    let [refused, unsubscribed, silent] = &numbers;
    for number in &numbers {
        let text = number.message(payload::text("16505551234", "hello"));
        stage.sender(&ingress).send(text).await;
    }
    events.wait_for(numbers.len(), SOON).await;
    let now = async |number: &Number, expected: &[(&str, &str)]| {
        let what = format!("{expected:?}");
        eventually(SOON, &what, async || {
            let all = events.all();
            let told = told(&all, &number.waba_id);
            let told: Vec<_> = told.iter().map(|(a, b)| (&**a, &**b)).collect();
            (told == expected).then_some(())
        })
        .await;
    };

    let token = format!("token-{}", refused.waba_id);
    stage.neighbours.refuse_token(&token);
    let elsewhere = json!({"data": [{
        "whatsapp_business_api_data": {"id": "670843887433847", "name": "Ours"},
        "override_callback_uri": "https://old.example/hook",
    }]});
    let account = &unsubscribed.waba_id;
    let graph = |answer: &Value| {
        let answer = Turn::json(200, answer);
        stage.neighbours.always(Service::Graph, account, answer);
    };
    graph(&json!({"data": []}));
    let mut redis = stage.redis.connection().await;
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("now");
    let field = format!("{}:{}", silent.waba_id, silent.phone_number_id);
    let hours = |back| format!("{}:{}", since.as_secs() / 3600 - back, "1".repeat(172));
    // What the worker writes of the number's own traffic would take the silence away.
    eventually(SOON, "its traffic is written", async || {
        let mut redis = stage.redis.connection().await;
        let written: bool = redis.hexists("whatsapp:traffic", &field).await.ok()?;
        written.then_some(())
    })
    .await;
    let set = redis.hset::<_, _, _, ()>("whatsapp:traffic", &field, hours(3));
    set.await.expect("HSET");
    now(refused, &[("token", "refused")]).await;
    now(unsubscribed, &[("subscription", "unsubscribed")]).await;
    now(silent, &[("silence", "silent")]).await;
    assert_eq!(unwell(&worker, "token").await, 1.0);

    stage.neighbours.take_token(&token);
    graph(&elsewhere);
    let set = redis.hset::<_, _, _, ()>("whatsapp:traffic", &field, hours(0));
    set.await.expect("HSET");
    now(refused, &[("token", "refused"), ("token", "accepted")]).await;
    let changes = [
        ("subscription", "unsubscribed"),
        ("subscription", "overridden"),
    ];
    now(unsubscribed, &changes).await;
    now(silent, &[("silence", "silent"), ("silence", "back")]).await;
    stage.neighbours.heal(account);
    let last = ("subscription", "subscribed");
    now(unsubscribed, &[changes[0], changes[1], last]).await;
    eventually(SOON, "all are well", async || {
        (worker.metric("whatsapp_health_unwell", "").await == 0.0).then_some(())
    })
    .await;
}
