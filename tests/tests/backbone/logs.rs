//! Logs say which message, and nothing of what it says or who sent it.

use serde_json::{Value, json};
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::neighbours::{Fault, Service};
use tests::programs::Program;
use tests::waiting::eventually;

use crate::SOON;

const SECRET_TEXT: &str = "plum jam by grandmother's recipe";

async fn put_level(program: &Program, token: &str, level: &str) -> (u16, String) {
    let url = format!("http://{}/log-level", program.admin());
    let asked = reqwest::Client::new().put(url).bearer_auth(token);
    let answer = asked
        .body(level.to_owned())
        .send()
        .await
        .expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.text().await.expect("text"))
}

/// Fields of a line and of the spans around it.
fn field<'l>(line: &'l Value, name: &str) -> Option<&'l Value> {
    let spans = line["spans"].as_array().into_iter().flatten();
    line.get(name)
        .or_else(|| spans.filter_map(|span| span.get(name)).next_back())
}

#[tokio::test]
async fn every_line_about_a_message_says_which_and_no_line_what() {
    let stage = Stage::new().await;
    let (token, level) = ("an-admin-token", "trace");
    let ingress = stage
        .ingress()
        .env("LOG_LEVEL", level)
        .env("INGRESS_ADMIN_TOKEN", token);
    let ingress = ingress
        .env("META_VERIFY_TOKEN", "a-verify-token")
        .start()
        .await;
    let worker = stage
        .worker()
        .env("LOG_LEVEL", level)
        .env("WORKER_ADMIN_TOKEN", token);
    let worker = worker
        .env("STATE_MANAGER_URL", stage.neighbours.url())
        .env(
            "TOKEN_ENCRYPTION_KEY",
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        )
        .start()
        .await;
    let events = stage.events();
    let number = Number::fresh();
    let text = payload::text("16505551234", SECRET_TEXT);
    let wamid = text["id"].as_str().expect("an id").to_owned();
    stage
        .neighbours
        .set_fault(Service::Download, Fault::Status(500));
    let mut odd = payload::message("16505551234", "hologram", json!({"body": SECRET_TEXT}));
    odd["context"] = json!({"from": "16505551234", "id": payload::wamid()});
    let bodies = [
        number.message(text),
        number.message(payload::image("16505551234", "12345")),
        number.message(odd),
        number.status(payload::status(&payload::wamid(), "failed", "16505551234")),
        format!("{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"id\":\"{SECRET_TEXT}\"")
            .into(),
    ];
    let sender = stage.sender(&ingress);
    for body in &bodies {
        sender.send(body.clone()).await;
    }
    let forger = tests::meta::Sender::new(ingress.webhook_url(), "another secret");
    forger
        .post_once(bodies[0].clone())
        .await
        .expect("an answer");
    let challenge = format!(
        "{}?hub.mode=subscribe&hub.verify_token=a-verify-token&hub.challenge=1",
        ingress.webhook_url()
    );
    reqwest::get(challenge).await.expect("an answer");
    events.wait_for(4, SOON).await;
    stage.neighbours.set_fault(Service::Download, Fault::None);
    events.wait_for(5, SOON).await;
    crate::drained(&stage).await;

    let hash = shared::private::Hashed(&wamid).to_string();
    let lines = worker.log_lines();
    let published = lines
        .iter()
        .find(|line| line["message"] == "published" && field(line, "wamid") == Some(&json!(hash)));
    let published = published.expect("a line about the message");
    for name in ["correlation_id", "entry", "waba_id", "tenant_id", "item"] {
        assert!(field(published, name).is_some(), "{name}: {published}");
    }
    let not_stored = lines
        .iter()
        .find(|line| line["message"] == "media was not stored");
    let not_stored = not_stored.expect("a line about the media");
    assert!(
        field(not_stored, "correlation_id").is_some(),
        "{not_stored}"
    );
    let answered = ingress.log_lines();
    let answered = answered.iter().find(|line| line["message"] == "answered");
    let answered = answered.expect("a line about a request");
    assert_eq!(
        (&answered["route"], &answered["status"]),
        (&json!("webhook"), &json!(200))
    );

    for program in [&*ingress, &*worker] {
        let (_, metrics) = program.get("/metrics").await.expect("/metrics");
        let said = program.log() + &metrics;
        assert_eq!(program.private_parts(&said), Vec::<String>::new());
        for secret in ["plum jam", token, "a-verify-token"] {
            assert!(!said.contains(secret), "{secret}");
        }
    }
}

#[tokio::test]
async fn the_level_of_logs_changes_at_run_time() {
    let stage = Stage::new().await;
    let token = "an-admin-token";
    let ingress = stage
        .ingress()
        .env("INGRESS_ADMIN_TOKEN", token)
        .start()
        .await;
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let stored = async |text: &str| {
        let body = number.message(payload::text("16505551234", text));
        let sent = sender.post_once(body).await.expect("an answer");
        let id = sent.header("x-correlation-id");
        let lines = ingress.log_lines();
        let about = lines.iter().filter(|line| line["correlation_id"] == id);
        about.filter(|line| line["level"] == "DEBUG").count()
    };
    assert_eq!(stored("at info").await, 0);
    assert_eq!(put_level(&ingress, "wrong", "debug").await.0, 401);
    let (status, said) = put_level(&ingress, token, "ingress=what").await;
    assert_eq!(status, 400, "{said}");
    let (status, said) = put_level(&ingress, token, "debgu").await;
    assert_eq!(status, 400, "{said}");
    assert!(said.contains("`debgu` is no level"), "{said}");
    assert_eq!(
        put_level(&ingress, token, "debug").await,
        (200, "{\"level\":\"debug\"}".into())
    );
    eventually(SOON, "a line at debug", async || {
        (stored("again").await > 0).then_some(())
    })
    .await;
    assert_eq!(put_level(&ingress, token, "error").await.0, 200);
    assert_eq!(stored("at error").await, 0);
}
