//! Bodies that are signed and nasty: each is answered 200 and comes out as its items, or is kept whole.
//! Neither program stops, grows, or logs what was in them, not even where it logs everything.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Value, json};
use tests::Stage;
use tests::events::Event;
use tests::meta::Sender;
use tests::meta::payload::{self, Number};

use crate::hostile::peak_memory_mb;
use crate::{SOON, drained, stored};

/// In every body; must be in no log.
const CANARY: &str = "c4n4ry";
const PHONE: &str = "16505550987";
/// Debug builds that have 20,000 events of one body in work.
const MOST_MEMORY_MB: u64 = 768;

/// A debug build; a future for each item took 165 MB in a release build.
const MOST_MEMORY_OF_STATUSES_MB: u64 = 110;

/// What becomes of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// So many events.
    Events(usize),
    /// One object in the failed store.
    Aside,
    /// One object in the archive, and nothing else.
    Archived,
}
use End::{Archived, Aside, Events};

struct Case {
    name: &'static str,
    /// Whose it is; empty where it names nobody.
    waba_id: String,
    body: Bytes,
    end: End,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    /// A body as it is.
    fn body(&mut self, name: &'static str, end: End, body: impl Into<Bytes>) {
        self.0.push(Case {
            name,
            waba_id: String::new(),
            body: body.into(),
            end,
        });
    }

    /// The value of a change of `messages`, as text; `NUMBER` becomes the members that every value has.
    fn value(&mut self, name: &'static str, end: End, value: &str) {
        let number = Number::fresh();
        let own = number.value().to_string();
        let own = own.trim_matches(['{', '}']);
        // The braces of `metadata` are its own.
        let value = value.replace("NUMBER", &format!("{own}}}"));
        self.0.push(Case {
            name,
            body: format!(
                r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{}","changes":[{{"field":"messages","value":{value}}}]}}]}}"#,
                number.waba_id
            )
            .into(),
            waba_id: number.waba_id,
            end,
        });
    }

    /// One message, as text.
    fn message(&mut self, name: &'static str, message: &str) {
        self.value(
            name,
            Events(1),
            &format!(r#"{{NUMBER,"messages":[{message}]}}"#),
        );
    }

    /// One text message of which a member is `json`.
    fn member(&mut self, name: &'static str, member: &str, json: &str) {
        let mut message = payload::text(PHONE, CANARY);
        message[member] = "#".into();
        self.message(name, &message.to_string().replace("\"#\"", json));
    }
}

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

fn text(body: &[u8]) -> String {
    String::from_utf8(body.to_vec()).expect("text")
}

/// A megabyte.
fn long() -> String {
    CANARY.repeat(170_000)
}

fn all_cases() -> Vec<Case> {
    let mut cases = Cases::default();
    for add in [
        no_webhooks,
        nesting,
        odd_members,
        encodings_and_numbers,
        odd_ids,
        many_items,
        odd_accounts_and_texts,
        mixtures,
    ] {
        add(&mut cases);
    }
    cases.0
}

fn no_webhooks(cases: &mut Cases) {
    let whole = Number::fresh().message(payload::text(PHONE, CANARY));

    cases.body("39 no JSON", Aside, "c4n4ry");
    cases.body("39 cut off", Aside, whole.slice(..whole.len() - 3));
    cases.body("39 more behind it", Aside, text(&whole) + "c4n4ry");
    cases.body(
        "39 a byte order mark",
        Aside,
        "\u{feff}".to_owned() + &text(&whole),
    );
    cases.body(
        "32 UTF-16",
        Aside,
        text(&whole)
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<_>>(),
    );
    for (name, body) in [
        ("40 null", "null"),
        ("40 an array", "[]"),
        ("40 a text", "\"c4n4ry\""),
        ("40 an empty object", "{}"),
        ("40 no entry", r#"{"object":"whatsapp_business_account"}"#),
        (
            "40 entry is null",
            r#"{"object":"whatsapp_business_account","entry":null}"#,
        ),
        (
            "40 entry is an object",
            r#"{"object":"whatsapp_business_account","entry":{}}"#,
        ),
        (
            "40 entry holds no objects",
            r#"{"object":"whatsapp_business_account","entry":["c4n4ry"]}"#,
        ),
        (
            "41 another product's",
            r#"{"object":"page","entry":[{"id":"1","time":1}]}"#,
        ),
        ("41 of Instagram", r#"{"object":"instagram","entry":[]}"#),
    ] {
        cases.body(name, Aside, body);
    }
    cases.body("8 empty", Aside, "");
    cases.body(
        "40 nobody's",
        Archived,
        r#"{"object":"whatsapp_business_account","entry":[]}"#,
    );
    cases.value("40 no items", Archived, r#"{NUMBER,"messages":[]}"#);
}

fn nesting(cases: &mut Cases) {
    for (name, levels) in [
        ("42 128 levels", 128),
        ("42 10,000 levels", 10_000),
        ("42 a million levels", 1_000_000),
    ] {
        cases.member(name, "new", &nested(levels));
    }
    let inside = nested(100_000);
    cases.value(
        "42 deep beside the items",
        Events(1),
        &format!(
            r#"{{NUMBER,"deep":{inside},"messages":[{}]}}"#,
            payload::text(PHONE, CANARY)
        ),
    );
    cases.value(
        "42 deep contacts",
        Events(1),
        &format!(
            r#"{{NUMBER,"contacts":{inside},"messages":[{}]}}"#,
            payload::text(PHONE, CANARY)
        ),
    );
    let objects = r#"{"a":"#.repeat(50_000) + "1" + &"}".repeat(50_000);
    cases.member("42 deep objects in a known member", "text", &objects);
}

fn odd_members(cases: &mut Cases) {
    cases.message("43 an id twice", r#"{"id":"wamid.c4n4ry1","id":"wamid.c4n4ry2","from":"1","type":"text","text":{"body":"x"}}"#);
    cases.message(
        "44 an unknown name twice",
        r#"{"id":"wamid.c4n4ry3","a":1,"a":2,"type":"text","text":{"body":"x"}}"#,
    );
    let number = Number::fresh();
    cases.0.push(Case {
        name: "45 the other way round",
        body: format!(
            r#"{{"entry":[{{"changes":[{{"value":{{"messages":[{}],"metadata":{{"phone_number_id":"1"}}}},"field":"messages"}}],"id":"{}"}}],"object":"whatsapp_business_account"}}"#,
            payload::text(PHONE, CANARY), number.waba_id
        ).into(),
        waba_id: number.waba_id,
        end: Events(1),
    });
    cases.message(
        "46 a type of its own",
        r#"{"id":"wamid.c4n4ry4","type":"c4n4ry.#.*","c4n4ry":{"x":[1]},"new":true}"#,
    );
    cases.member("47 NUL in a text", "text", r#"{"body":"c4n4ry\u0000x"}"#);
    cases.member("47 NUL in an id", "id", r#""wamid.\u0000c4n4ry""#);
    cases.member(
        "47 NUL in a file's name",
        "document",
        r#"{"id":"1","filename":"c4n4ry\u0000.exe"}"#,
    );
    cases.member(
        "48 half a pair in a text",
        "text",
        r#"{"body":"c4n4ry \ud800"}"#,
    );
    cases.member(
        "48 half a pair in an unknown member",
        "new",
        r#""\udc00\ud800 c4n4ry""#,
    );
    cases.member("48 half a pair in an id", "id", r#""wamid.c4n4ry\ud800""#);
}

fn encodings_and_numbers(cases: &mut Cases) {
    let mut no_utf8 = text(&Number::fresh().message(payload::text(PHONE, "#"))).into_bytes();
    let at = no_utf8
        .iter()
        .position(|byte| *byte == b'#')
        .expect("the text");
    no_utf8[at] = 0xff;
    cases.body("49 no UTF-8", Aside, no_utf8.clone());
    no_utf8.splice(at..=at, [0xc0, 0xaf]);
    cases.body("49 overlong", Aside, no_utf8);
    for (name, number) in [
        ("50 1e400", "1e400"),
        ("50 1e-400", "1e-400"),
        ("50 -0", "-0"),
        ("50 2^53+1", "9007199254740993"),
        ("50 2^64", "18446744073709551616"),
    ] {
        cases.member(name, "new", number);
        cases.member(name, "id", number);
        cases.member(name, "timestamp", number);
    }
    cases.member("50 a number of 1 MB", "new", &"9".repeat(1_000_000));
    for (name, time) in [
        ("51 empty", "\"\""),
        ("51 no number", "\"abc\""),
        ("51 before 1970", "\"-1\""),
        ("51 a fraction", "1.5"),
        ("51 after all time", "9000000000000000000"),
        ("51 in ms", "\"1790000000000\""),
        ("51 the year 9999", "\"253402300799\""),
        ("51 a number", "1790000000"),
        ("51 an object", "{}"),
    ] {
        cases.member(name, "timestamp", time);
    }
}

fn odd_ids(cases: &mut Cases) {
    let long = long();
    for (name, id) in [
        ("52 empty", "\"\""),
        ("52 null", "null"),
        ("52 a number", "7"),
        ("52 an object", "{}"),
        ("52 a line end", r#""wamid.c4n4ry\r\nX: y""#),
        ("52 braces", r#""wamid.{c4n4ry}:*""#),
        ("52 a path", r#""../../c4n4ry""#),
        ("52 dots", r#""..""#),
        ("52 1 MB", &format!("\"{long}\"")),
    ] {
        cases.member(name, "id", id);
    }
}

fn many_items(cases: &mut Cases) {
    let one = payload::text(PHONE, CANARY);
    cases.value(
        "53 the same twice",
        Events(1),
        &format!(r#"{{NUMBER,"messages":[{one},{one}]}}"#),
    );
    let wamid = payload::wamid();
    let statuses: Vec<_> = ["sent", "delivered", "read", "read", "failed"]
        .map(|it| payload::status(&wamid, it, PHONE).to_string())
        .into();
    cases.value(
        "55 statuses of a message",
        Events(4),
        &format!(r#"{{NUMBER,"statuses":[{}]}}"#, statuses.join(",")),
    );
    let group: Vec<_> = (0..3)
        .map(|n| {
            let mut status = payload::status(&wamid, "read", PHONE);
            status["recipient_participant_id"] = n.to_string().into();
            status.to_string()
        })
        .collect();
    cases.value(
        "56 statuses of a group",
        Events(3),
        &format!(r#"{{NUMBER,"statuses":[{}]}}"#, group.join(",")),
    );
    let apart = [("a", "bc"), ("ab", "c")]
        .map(|(id, status)| payload::status(id, status, PHONE).to_string());
    cases.value(
        "57 parts that read alike",
        Events(2),
        &format!(r#"{{NUMBER,"statuses":[{}]}}"#, apart.join(",")),
    );
    cases.value(
        "60 1001 items",
        Events(1001),
        &format!(
            r#"{{NUMBER,"statuses":[{}]}}"#,
            (0..1001)
                .map(|n| format!(r#"{{"id":"c4n4ry{n}","status":"read"}}"#))
                .collect::<Vec<_>>()
                .join(",")
        ),
    );
    cases.body("60 a million items", Aside, format!(r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"field":"messages","value":{{"messages":[{}]}}}}]}}]}}"#, vec!["{}"; 1_000_000].join(",")));
}

fn odd_accounts_and_texts(cases: &mut Cases) {
    for (name, id) in [
        ("62 a path", "\"../../c4n4ry\"".to_owned()),
        ("62 10 KB", format!("\"{}\"", "9".repeat(10_000))),
        ("62 no digits", "\"\u{663}\u{664}é{c4n4ry}\"".to_owned()),
    ] {
        cases.value(
            name,
            Events(1),
            &format!(
                r#"{{"metadata":{{"phone_number_id":{id}}},"messages":[{}]}}"#,
                payload::text(PHONE, CANARY)
            ),
        );
    }
    let evil = r#""c4n4ry\r\n\u001b[2J${jndi:ldap://c4n4ry}{{7*7}}\u202e\u200b""#;
    cases.member(
        "63 a text that is none",
        "text",
        &format!(r#"{{"body":{evil}}}"#),
    );
    cases.value("63 a name that is none", Events(1), &format!(r#"{{NUMBER,"contacts":[{{"profile":{{"name":{evil}}},"wa_id":"{PHONE}"}}],"messages":[{}]}}"#, payload::text(PHONE, CANARY)));
    cases.member(
        "63 1 MB of emoji",
        "text",
        &format!(r#"{{"body":"{}"}}"#, "\u{1f600}".repeat(250_000)),
    );
    cases.member(
        "64 a text of 1 MB",
        "text",
        &format!(r#"{{"body":"{}"}}"#, long()),
    );
}

fn mixtures(cases: &mut Cases) {
    let contacts =
        vec![json!({"wa_id": PHONE, "profile": {"name": CANARY}}).to_string(); 1000].join(",");
    let messages = (0..200)
        .map(|_| payload::text(PHONE, CANARY).to_string())
        .collect::<Vec<_>>()
        .join(",");
    cases.value(
        "65 a thousand contacts",
        Events(200),
        &format!(r#"{{NUMBER,"contacts":[{contacts}],"messages":[{messages}]}}"#),
    );
    cases.value(
        "66 a message, a status and errors",
        Events(2),
        &format!(
            r#"{{NUMBER,"messages":[{}],"statuses":[{}],"errors":[{{"code":1}}]}}"#,
            payload::text(PHONE, CANARY),
            payload::status("c4n4ry5", "read", PHONE)
        ),
    );
    cases.value(
        "66 errors alone",
        Events(1),
        r#"{NUMBER,"errors":[{"code":131035,"title":"c4n4ry"}]}"#,
    );
    cases.value("66 nothing", Archived, "{}");
    cases.message("69 names of a prototype", r#"{"id":"wamid.c4n4ry6","type":"text","__proto__":{"x":1},"constructor":{"prototype":1},"text":{"body":"x"}}"#);
    cases.member("70 zeros in front", "from", "\"0016505550987\"");
    cases.member("70 other digits", "from", "\"\u{661}\u{662}\"");
    cases.message(
        "88 words of a broker",
        r#"{"id":"wamid.c4n4ry7","CC":"c4n4ry","BCC":["INBOUND_WHATSAPP_MESSAGES"],"headers":{"CC":"x"}}"#,
    );
}

/// Posts all of them, each account with a tenant that has this token.
async fn post_all(stage: &Stage, sender: &Sender, cases: &[Case], token: &str) {
    for case in cases.iter().filter(|case| !case.waba_id.is_empty()) {
        let tenant =
            json!({"tenantId": "t", "businessAccountId": case.waba_id, "accessToken": token});
        let tenant = tests::neighbours::Tenant::Custom(tenant);
        stage.neighbours.set_tenant(&case.waba_id, tenant);
    }
    for case in cases {
        let answer = sender.post_once(case.body.clone()).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{}: {}", case.name, answer.body);
    }
}

/// Every object, and whether it was set aside.
async fn kept(stage: &Stage) -> Vec<(bool, Bytes)> {
    let store = stage.webhooks();
    let mut kept = Vec::new();
    for key in store.list("").await.expect("a list") {
        let leads_away = key.split('/').any(|part| part == ".." || part == ".");
        assert!(!leads_away, "{key}");
        let object = store.get(&key).await.expect("the store");
        kept.push((key.starts_with("failed/"), object.expect("the object")));
    }
    kept
}

fn assert_ends(cases: &[Case], seen: &[Event], kept: &[(bool, Bytes)]) {
    let mut by_account: HashMap<&str, usize> = HashMap::new();
    for event in seen {
        let account = event.text("/channel/businessAccountId");
        *by_account.entry(account).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for case in cases {
        let has = |failed: bool| {
            kept.iter()
                .any(|(aside, bytes)| *aside == failed && *bytes == case.body)
        };
        let came = by_account.get(&*case.waba_id).copied().unwrap_or(0);
        let fits = match case.end {
            Events(count) => came == count && has(false) && !has(true),
            Aside => has(true),
            Archived => (has(false) || case.waba_id.is_empty()) && came == 0,
        };
        if !fits {
            wrong.push(format!(
                "{}: {came} events, archived {}, aside {}, not {:?}",
                case.name,
                has(false),
                has(true),
                case.end
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn assert_harmless(event: &Event) {
    let key = &event.routing_key;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    assert!(key.bytes().all(plain) && key.len() <= 255, "{key}");
    let mut names = event.headers.keys();
    assert!(!names.any(|name| matches!(name.as_str(), "CC" | "BCC")));
}

fn assert_silent(program: &str, log: &str) {
    for secret in [CANARY, PHONE] {
        let line = log
            .lines()
            .find(|line| line.contains(secret))
            .map(|line| line.chars().take(400).collect::<String>());
        assert_eq!(line, None, "{secret} in the log of {program}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_signed_comes_out_or_is_kept() {
    let stage = Stage::new().await;
    let ingress = stage
        .ingress()
        .env("META_APP_SECRETS", "c4n4rysecret")
        .env("LOG_LEVEL", "trace")
        .start();
    let worker = stage
        .worker()
        .env("LOG_LEVEL", "trace")
        .env("WORKER_ADMIN_TOKEN", "c4n4ryadmin")
        .start();
    let (mut ingress, mut worker) = (ingress.await, worker.await);
    let (events, sender) = (stage.events(), stage.sender(&ingress));
    let cases = all_cases();
    post_all(&stage, &sender, &cases, "EAAc4n4rytoken").await;
    drained(&stage).await;
    let counts = cases.iter().map(|case| match case.end {
        Events(count) => count,
        Aside | Archived => 0,
    });
    let expected: usize = counts.sum();
    let seen = events.wait_for(expected, SOON).await;
    assert_ends(&cases, &seen, &kept(&stage).await);
    assert_eq!(seen.len(), expected);

    // Sent again, with other spaces around it: the items are known.
    let again = cases.iter().find(|case| case.name.starts_with("55"));
    let again = &again.expect("a case").body;
    sender.send([b" ", &again[..], b"\n"].concat()).await;
    assert_eq!(stored(&stage).await, 0, "67: nothing of it is fresh");
    seen.iter().for_each(assert_harmless);
    assert_silent("ingress", &ingress.log());
    assert_silent("worker", &worker.log());
    assert!(ingress.is_running() && worker.is_running());
    let memory = (peak_memory_mb(&mut ingress), peak_memory_mb(&mut worker));
    assert!(
        memory.0 < MOST_MEMORY_MB && memory.1 < MOST_MEMORY_MB,
        "{memory:?} MB"
    );
    let (_, metrics) = worker.get("/metrics").await.expect("/metrics");
    assert!(!metrics.contains(CANARY) && !metrics.contains(PHONE));
    let first: Value = seen[0].payload.clone();
    assert_eq!(first["tenant"]["id"], "t");
}

#[tokio::test]
async fn a_change_of_a_shape_that_nobody_knows_is_counted_and_named_in_the_log() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let number = Number::fresh();
    let wrapped = json!({"messages": [payload::text(PHONE, CANARY)]});
    let change = json!({"field": "messages", "whatsapp_business_api_data": wrapped});
    let mut value = number.value();
    value["parcels"] = json!([payload::text(PHONE, CANARY)]);
    let other_list = json!({"field": "messages", "value": value});
    let sender = stage.sender(&ingress);
    sender
        .send(number.webhook([change.clone(), other_list]))
        .await;
    let seen = stage.events().wait_for(2, SOON).await;
    for event in &seen {
        assert_eq!(event.kind.as_deref(), Some("account.updated"));
    }
    for expected in [&change, &value] {
        let holds = |event: &Event| event.payload["account"]["value"] == *expected;
        assert!(seen.iter().any(holds), "{expected}");
    }
    drained(&stage).await;
    let lines = worker.log_lines();
    let named = lines.iter().filter(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        line["level"] == "WARN" && message.contains("a shape that nobody knows")
    });
    let fields: Vec<_> = named.map(|line| &line["field"]).collect();
    assert_eq!(fields, ["messages", "messages"]);
    assert_silent("worker", &worker.log());
    let counted = worker
        .metric("webhook_received_total", "message_type=\"account\"")
        .await;
    assert!((counted - 2.0).abs() < 0.1, "{counted}");
}

/// Items wait as numbers until they may run, not as events or tasks: a body of as many as ingress takes
/// costs little more than one of a few.
#[tokio::test]
async fn twenty_thousand_statuses_in_one_body_cost_little_memory() {
    let stage = Stage::new().await;
    let number = Number::fresh();
    let status = |n: usize| json!({"id": format!("wamid.{n}"), "status": "sent", "timestamp": "1767225600", "recipient_id": (16_505_550_000_usize + n).to_string()});
    let mut value = number.value();
    value["statuses"] = (0..20_000).map(status).collect();
    let body = json!({"object": "whatsapp_business_account", "entry": [{"id": number.waba_id, "changes": [{"field": "messages", "value": value}]}]});
    let (ingress, mut worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let before = peak_memory_mb(&mut worker);
    stage.sender(&ingress).send(body.to_string()).await;
    events.wait_for(20_000, SOON * 4).await;
    drained(&stage).await;
    let peak = peak_memory_mb(&mut worker);
    assert!(
        peak <= MOST_MEMORY_OF_STATUSES_MB,
        "{peak} MB, {before} before"
    );
}
