//! The console's routes: who may ask for what, and that they do what the commands do.

use data_encoding::BASE64URL_NOPAD;
use futures::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::neighbours::Tenant;
use tests::programs::Worker;
use tests::waiting::eventually;

use crate::commands::id;
use crate::operator::{ADA, ADMIN, Scene, TEXT, keys, reject};
use crate::{SOON, drained};

/// A browser's view of the routes, signed in or not.
pub(crate) struct ConsoleClient {
    client: reqwest::Client,
    base: String,
    cookie: String,
    csrf: String,
}

impl ConsoleClient {
    pub(crate) fn of(worker: &Worker) -> Self {
        Self {
            client: reqwest::Client::new(),
            base: format!("http://{}/console", worker.admin()),
            cookie: String::new(),
            csrf: String::new(),
        }
    }

    pub(crate) async fn signed_in(worker: &Worker) -> Self {
        let mut console = Self::of(worker);
        let body = json!({"token": ADMIN, "name": "Ada"});
        let answer = console.request(Method::POST, "/api/session").json(&body);
        let answer = answer.send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let cookie = answer.headers()["set-cookie"].to_str().expect("text");
        for part in [
            "HttpOnly",
            "SameSite=Strict",
            "Max-Age=43200",
            "Path=/console",
        ] {
            assert!(cookie.contains(part), "{cookie}");
        }
        console.cookie = cookie.split(';').next().expect("a part").to_owned();
        let session: Value = answer.json().await.expect("JSON");
        assert_eq!(session["by"], "Ada");
        console.csrf = session["csrfToken"].as_str().expect("a token").to_owned();
        console
    }

    /// What a browser that has signed in sends with everything.
    pub(crate) fn headers(&self) -> [(&'static str, String); 2] {
        [
            ("Cookie", self.cookie.clone()),
            ("X-CSRF-Token", self.csrf.clone()),
        ]
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match self.cookie.is_empty() {
            true => request,
            false => request.header("cookie", &self.cookie),
        }
    }

    async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let url = reqwest::Url::parse_with_params("http://host/", query).expect("a URL");
        let query = url.query().filter(|query| !query.is_empty());
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        let request = self.request(Method::GET, &format!("{path}{query}"));
        let (status, body) = Self::answer(request).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.request(Method::POST, path).json(&body);
        let (status, body) = Self::answer(request.header("x-csrf-token", &self.csrf)).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// The cookie of somebody with another token, or of a session that has ended.
    fn with_cookie(&self, token: &str, expires_at: i64) -> Self {
        let told = format!("{expires_at}.0a1b.{}", BASE64URL_NOPAD.encode(b"Eve"));
        let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("a key");
        mac.update(format!("whatsapp console session\n{told}").as_bytes());
        let signature = BASE64URL_NOPAD.encode(&mac.finalize().into_bytes());
        Self {
            client: self.client.clone(),
            base: self.base.clone(),
            cookie: format!("whatsapp_console={told}.{signature}"),
            csrf: self.csrf.clone(),
        }
    }
}

/// Lines of the audit in a worker's log.
fn audits(worker: &Worker, action: &str) -> Vec<Value> {
    let lines = worker.log_lines().into_iter();
    let audits = lines.filter(|line| line["message"] == "audit" && line["action"] == action);
    audits.collect()
}

/// Every route that needs a session.
const GUARDED: [(&str, &str); 14] = [
    ("GET", "/api/failed"),
    ("GET", "/api/failed/show?id=1-0"),
    ("POST", "/api/failed/replay"),
    ("POST", "/api/failed/discard"),
    ("POST", "/api/replay/resume"),
    ("GET", "/api/search?id=1-0"),
    ("POST", "/api/find"),
    ("POST", "/api/cat"),
    ("GET", "/api/tail"),
    ("GET", "/api/tenant?id=1"),
    ("GET", "/api/dlq"),
    ("POST", "/api/dlq/requeue"),
    ("POST", "/api/dlq/discard"),
    ("POST", "/api/session/end"),
];

#[tokio::test]
async fn no_route_answers_without_a_session_of_this_token_and_this_page() {
    let source = include_str!("../../../worker/src/console/mod.rs");
    let guarded = source.split_once("let guarded").expect("routes").1;
    let guarded = guarded.split_once(".route_layer").expect("an end").0;
    assert_eq!(guarded.matches(".route(").count(), GUARDED.len());
    let stage = Stage::new().await;
    let worker = stage
        .worker()
        .env("WORKER_ADMIN_TOKEN", ADMIN)
        .start()
        .await;
    let signed_in = ConsoleClient::signed_in(&worker).await;
    let stranger = ConsoleClient::of(&worker);
    let forged = signed_in.with_cookie("another-token", 9_999_999_999);
    let expired = signed_in.with_cookie(ADMIN, 1_764_000_000);
    let own = signed_in.with_cookie(ADMIN, 9_999_999_999);
    for (method, path) in GUARDED {
        let ask = async |console: &ConsoleClient, origin: &str, csrf: &str| {
            let method = method.parse().expect("a method");
            let mut request = console.request(method, path).json(&json!({"id": "1-0"}));
            for (name, value) in [("origin", origin), ("x-csrf-token", csrf)] {
                if !value.is_empty() {
                    request = request.header(name, value);
                }
            }
            // A tail's answer has no end.
            request.send().await.expect("an answer").status().as_u16()
        };
        let csrf = &*signed_in.csrf;
        for (who, console) in [
            ("stranger", &stranger),
            ("forged", &forged),
            ("expired", &expired),
        ] {
            assert_eq!(ask(console, "", csrf).await, 401, "{who}: {method} {path}");
        }
        let foreign = ask(&signed_in, "http://elsewhere.example", csrf).await;
        assert_eq!(foreign, 403, "foreign origin: {method} {path}");
        assert_eq!(
            ask(&signed_in, "null", csrf).await,
            403,
            "no origin: {method} {path}"
        );
        if method == "POST" {
            assert_eq!(ask(&signed_in, "", "").await, 403, "no CSRF token: {path}");
            // The token of another session.
            assert_eq!(
                ask(&own, "", csrf).await,
                403,
                "another's CSRF token: {path}"
            );
        }
        let origin = format!("http://{}", worker.admin());
        let allowed = ask(&signed_in, &origin, csrf).await;
        assert!(
            ![401, 403, 404, 405].contains(&allowed),
            "{allowed}: {method} {path}"
        );
    }
}

#[tokio::test]
async fn signing_in_needs_the_token_and_wrong_ones_are_counted() {
    let stage = Stage::new().await;
    let worker = stage.worker().env("WORKER_ADMIN_TOKEN", ADMIN).start();
    let (worker, open) = tokio::join!(worker, stage.worker().start());
    let session = async |worker: &Worker, token: &str, origin: &str| {
        let request = ConsoleClient::of(worker).request(Method::POST, "/api/session");
        let request = request
            .json(&json!({"token": token}))
            .header("origin", origin);
        ConsoleClient::answer(request).await.0.as_u16()
    };
    let own = format!("http://{}", worker.admin());
    assert_eq!(
        session(&worker, ADMIN, "http://elsewhere.example").await,
        403
    );
    for _ in 0..5 {
        assert_eq!(session(&worker, "wrong-token", &own).await, 401);
    }
    // Or the right one could be guessed without end.
    assert_eq!(session(&worker, ADMIN, &own).await, 429);
    let own = format!("http://{}", open.admin());
    assert_eq!(session(&open, "", &own).await, 404, "no admin token is set");
    let report = ConsoleClient::of(&open).get("/api/session", &[]).await;
    assert_eq!(
        (&report["signedIn"], &report["canSignIn"]),
        (&json!(false), &json!(false))
    );
}

#[tokio::test]
async fn who_only_reaches_the_port_sees_the_deployment_and_nobodys_words() {
    let scene = Scene::new().await;
    let worker = &scene.worker;
    let other = scene.stage.worker().start().await;
    let console = ConsoleClient::of(&other);
    let overview = eventually(SOON, "both workers are seen", async || {
        let overview = console.get("/api/overview", &[]).await;
        let workers = overview["redis"]["workers"].as_array()?;
        // A worker is known by its lease before it has said its version.
        let told = workers.iter().filter(|it| it["version"].is_string());
        let count = told.count();
        let queues = overview["rabbitmq"]["queues"].as_array()?.len();
        let aside = overview["store"]["failed"]["objects"] == 1;
        let done = overview["redis"]["partitions"] == json!([]);
        (count == 2 && queues == 6 && aside && done).then_some(overview)
    })
    .await;
    for worker in overview["redis"]["workers"].as_array().expect("a list") {
        let version = worker["version"].as_str().expect("a version");
        assert!(version.starts_with("0.1.0"), "{version}");
    }
    assert_eq!(
        overview["store"]["failed"]["byReason"]["tenant_suspended"],
        1
    );
    let mut shown = overview.to_string();
    for path in ["", "/app.js", "/style.css", "/api/session"] {
        let request = console.request(Method::GET, path);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        let policy = answer.headers()["content-security-policy"]
            .to_str()
            .expect("text")
            .to_owned();
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        shown += &answer.text().await.expect("a body");
    }
    assert_eq!(worker.private_parts(&shown), Vec::<String>::new());
    assert!(!shown.contains(TEXT), "{shown}");
    assert!(
        !shown.contains("<script>") && !shown.contains("https://"),
        "nothing inline, nothing from outside"
    );
}

#[tokio::test]
async fn a_server_that_is_away_is_told_of_and_the_rest_is_shown() {
    let mut stage = Stage::new().await;
    let worker = stage.worker().start().await;
    stage.redis.kill();
    let console = ConsoleClient::of(&worker);
    let overview = eventually(SOON, "Redis is unknown", async || {
        let overview = console.get("/api/overview", &[]).await;
        overview["redis"]["workers"]["unknown"]
            .is_string()
            .then_some(overview)
    })
    .await;
    for part in ["partitions", "replay", "limited", "silent", "unwell"] {
        assert!(
            overview["redis"][part]["unknown"].is_string(),
            "{part}: {overview:#}"
        );
    }
    assert!(overview["rabbitmq"]["queues"].is_array(), "{overview:#}");
    assert_eq!(overview["store"]["failed"]["objects"], 0, "{overview:#}");
}

#[tokio::test]
async fn what_is_set_aside_is_listed_by_a_filter_and_a_wrong_one_is_named() {
    let scene = Scene::new().await;
    let console = ConsoleClient::signed_in(&scene.worker).await;
    let tenant = format!("tenant-{}", scene.suspended.waba_id);
    for (query, count) in [
        (vec![("limit", "10")], 1),
        (
            vec![
                ("tenant", &*tenant),
                ("reason", "tenant_suspended"),
                ("from", "1h"),
            ],
            1,
        ),
        (vec![("reason", "crashes")], 0),
    ] {
        let page = console.get("/api/failed", &query).await;
        assert_eq!(
            page["objects"].as_array().map(Vec::len),
            Some(count),
            "{query:?}: {page:#}"
        );
    }
    for wrong in [
        "reason=bad",
        "limit=0",
        "limit=x",
        "from=yesterday",
        "tenant=a/b",
    ] {
        let request = console.request(Method::GET, &format!("/api/failed?{wrong}"));
        let (status, told) = ConsoleClient::answer(request).await;
        assert_eq!(status, 400, "{wrong}");
        assert!(told["error"].is_string(), "{told}");
    }
}

#[tokio::test]
async fn what_is_set_aside_is_shown_and_looked_at_with_an_audit_line() {
    let scene = Scene::new().await;
    let console = ConsoleClient::signed_in(&scene.worker).await;
    let tenant = format!("tenant-{}", scene.suspended.waba_id);
    for id in scene.ids(&scene.failed_key, &scene.failed).await {
        let shown = console.get("/api/failed/show", &[("id", &id)]).await;
        assert_eq!(shown[0]["key"], scene.failed_key, "{id}: {shown:#}");
        assert!(!shown.to_string().contains(TEXT), "{shown:#}");
    }
    let shown = console
        .post("/api/cat", json!({"id": scene.failed_key}))
        .await;
    assert!(
        shown["lines"][0]
            .as_str()
            .is_some_and(|line| line.contains(TEXT)),
        "{shown}"
    );
    let event = console
        .post("/api/cat", json!({"id": scene.failed_key, "event": true}))
        .await;
    let event: Value =
        serde_json::from_str(event["lines"][0].as_str().expect("a line")).expect("JSON");
    assert_eq!(event["tenant"]["id"], tenant, "{event:#}");
    let looks = audits(&scene.worker, "cat");
    assert_eq!(looks.len(), 2, "{looks:#?}");
    assert_eq!(looks[0]["by"], "Ada");
    let nothing = console
        .post("/api/cat", json!({"id": "wamid.neverCame"}))
        .await;
    assert_eq!(nothing, json!({"lines": []}));
}

/// Sets another payload aside, and tells its key.
async fn another_set_aside(scene: &Scene) -> String {
    let stage = &scene.stage;
    let message = scene.suspended.message(payload::text(ADA, "b"));
    stage.sender(&scene.ingress).send(message).await;
    let other = eventually(SOON, "both are set aside", async || {
        let keys = keys(stage, "failed").await;
        keys.into_iter().find(|key| *key != scene.failed_key)
    });
    let other = other.await;
    drained(stage).await;
    other
}

#[tokio::test]
async fn one_payload_is_discarded_and_another_stays() {
    let scene = Scene::new().await;
    let console = ConsoleClient::signed_in(&scene.worker).await;
    let other = another_set_aside(&scene).await;
    let discard = async |body| console.post("/api/failed/discard", body).await;
    let counted = discard(json!({"ids": [other]})).await;
    assert_eq!(
        (&counted["count"], &counted["discarded"]),
        (&json!(1), &json!(0))
    );
    let done = discard(json!({"ids": [other], "yes": true})).await;
    assert_eq!(done["discarded"], 1, "{done}");
    let show = async |id: &str| console.get("/api/failed/show", &[("id", id)]).await;
    assert_eq!(show(&id(&scene.failed)).await[0]["place"], "failed");
    let shown = show(&other.replacen("failed/", "discarded/", 1)).await;
    assert_eq!(shown[0]["discardedBy"], "Ada", "{shown:#}");
    assert_eq!(audits(&scene.worker, "failed discard").len(), 1);
}

#[tokio::test]
async fn one_payload_is_replayed_and_the_overview_tells_how_far_it_is() {
    let scene = Scene::new().await;
    let Scene {
        stage,
        worker,
        suspended,
        ..
    } = &scene;
    let console = ConsoleClient::signed_in(worker).await;
    let other = another_set_aside(&scene).await;
    stage
        .neighbours
        .set_tenant(&suspended.waba_id, Tenant::Active);
    let path = format!("/tenants/{}/invalidate", suspended.waba_id);
    let invalidated = worker.post(&path, Some(ADMIN)).await;
    assert_eq!(invalidated.expect("an answer").0, 200);
    let events = stage.events();
    let replay = json!({"ids": [scene.failed_key]});
    let begun = console.post("/api/failed/replay", replay).await;
    assert_eq!(
        (&begun["payloads"], &begun["another"]),
        (&json!(1), &json!(false)),
        "{begun}"
    );
    let seen = events.wait_for(1, SOON).await;
    assert_eq!(seen[0].wamid(), id(&scene.failed));
    eventually(SOON, "it has ended", async || {
        let overview = console.get("/api/overview", &[]).await;
        let replay = &overview["redis"]["replay"];
        // Ids that it was begun with may hold phone numbers.
        assert!(!overview.to_string().contains("wamid"), "{overview}");
        let ended = replay["state"] == "ended" && replay["wentOut"] == 1;
        (ended && replay["id"] == begun["replay"]).then_some(())
    })
    .await;
    eventually(SOON, "the other one is left", async || {
        (keys(stage, "failed").await == [other.clone()]).then_some(())
    })
    .await;
    assert_eq!(audits(worker, "replay").len(), 1);
    let resumed = console.post("/api/replay/resume", json!({})).await;
    assert_eq!(resumed["replay"], Value::Null, "{resumed}");
}

#[tokio::test]
async fn every_id_a_customer_and_a_tenant_lead_to_what_there_is_of_them() {
    let scene = Scene::new().await;
    let console = ConsoleClient::signed_in(&scene.worker).await;
    let mut ids = scene.ids(&scene.archive_key, &scene.published).await;
    ids.push(scene.event.message_id.clone().expect("an event's id"));
    for id in &ids {
        let found = console.get("/api/search", &[("id", id)]).await;
        assert!(
            found["found"].to_string().contains(&scene.archive_key),
            "{id}: {found:#}"
        );
    }
    let found = console
        .get("/api/search", &[("id", "wamid.neverCame")])
        .await;
    assert_eq!(found["found"], json!([]));
    let found = console
        .post("/api/find", json!({"customer": "+49 151 0000-0001"}))
        .await;
    assert_eq!(
        (&found["all"], &found["found"][0]["key"]),
        (&json!(true), &json!(scene.archive_key))
    );
    let request = console
        .request(Method::POST, "/api/find")
        .json(&json!({"customer": "ada"}));
    let (status, _) = ConsoleClient::answer(request.header("x-csrf-token", &console.csrf)).await;
    assert_eq!(status, 400);
    let replay = json!({"from": "2h", "to": "2026-11-25"});
    let request = console
        .request(Method::POST, "/api/failed/replay")
        .json(&replay);
    let (status, _) = ConsoleClient::answer(request.header("x-csrf-token", &console.csrf)).await;
    assert_eq!(status, 400, "a selection that nobody can mean");
    let account = &scene.suspended.waba_id;
    let report = console.get("/api/tenant", &[("id", account)]).await;
    assert_eq!(report["accounts"][0]["verdict"], "suspended", "{report:#}");
    assert_eq!(
        report["setAside"]["byReason"]["tenant_suspended"], 1,
        "{report:#}"
    );
}

#[tokio::test]
async fn dead_letters_are_listed_put_back_and_deleted() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let worker = stage
        .worker()
        .env("WORKER_ADMIN_TOKEN", ADMIN)
        .start()
        .await;
    let console = ConsoleClient::signed_in(&worker).await;
    let (number, sender) = (Number::fresh(), stage.sender(&ingress));
    for body in ["a", "b"] {
        sender.send(number.message(payload::text(ADA, body))).await;
    }
    reject(&stage, 2).await;
    let listed = async |count: usize| {
        eventually(SOON, "dead letters", async || {
            let letters = console.get("/api/dlq", &[]).await;
            (letters.as_array()?.len() == count).then_some(letters)
        })
        .await
    };
    let letters = listed(2).await;
    assert!(!letters.to_string().contains(ADA), "{letters}");
    let event_id = &letters[0]["eventId"];
    let requeue = json!({"ids": [event_id], "yes": true});
    assert_eq!(console.post("/api/dlq/requeue", requeue).await["done"], 1);
    let seen = stage.events().wait_for(1, SOON).await;
    assert_eq!(seen[0].message_id.as_deref(), event_id.as_str());
    listed(1).await;
    let all = json!({"all": true, "yes": true});
    assert_eq!(console.post("/api/dlq/discard", all).await["done"], 1);
    listed(0).await;
    let by: Vec<_> = audits(&worker, "dlq requeue")
        .iter()
        .map(|it| it["by"].clone())
        .collect();
    assert_eq!(by, ["Ada"]);
}

#[tokio::test]
async fn a_tail_shows_what_goes_out_and_nothing_of_what_it_says() {
    let scene = Scene::new().await;
    let console = ConsoleClient::signed_in(&scene.worker).await;
    let request = console.request(Method::GET, "/api/tail?type=message");
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let (mut told, number) = (answer.bytes_stream(), Number::fresh());
    let (sender, mut seen) = (scene.stage.sender(&scene.ingress), String::new());
    // Sent until its queue is bound and has seen one.
    while !seen.contains("data:") {
        sender.send(number.message(payload::text(ADA, TEXT))).await;
        let next = tokio::time::timeout(std::time::Duration::from_millis(500), told.next());
        if let Ok(part) = next.await {
            let part = part.expect("it goes on").expect("a part");
            seen += &String::from_utf8_lossy(&part);
        }
    }
    assert!(
        seen.contains("message.received") && seen.contains(&number.waba_id),
        "{seen}"
    );
    assert_eq!(scene.worker.private_parts(&seen), Vec::<String>::new());
    assert!(!seen.contains(TEXT), "{seen}");
}
