//! Single facts about odd items.

use serde_json::{Value, json};
use worker::item::event::media::{MediaKind, MediaPlace, media_ref};
use worker::item::payload::Payload;

use crate::{Made, check, events, json_files, manifest_dir, open, validator};

fn change(field: &str, value: &str) -> Payload {
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"field":"{field}","value":{value}}}]}}]}}"#
    );
    open(body.as_bytes()).expect("a webhook")
}

fn messages(list: &str) -> Vec<Made> {
    let made = events(&change("messages", &format!(r#"{{"messages":[{list}]}}"#)));
    let validator = validator();
    for made in &made {
        check(&validator, made).expect("a sound event");
    }
    made
}

fn message(json: &str) -> Value {
    let [made] = &messages(json)[..] else {
        panic!("one item, one event");
    };
    made.json()
}

fn fixture(name: &str) -> Payload {
    let path = manifest_dir().join(format!("tests/fixtures/{name}.json"));
    open(&std::fs::read(path).expect("the fixture")).expect("a webhook")
}

#[test]
fn a_lone_surrogate_costs_one_character_and_the_item_travels_as_text() {
    let sent = r#"{"id":"wamid.1","type":"text","text":{"body":"half a smile \ud83d!"}}"#;
    let event = message(sent);
    assert_eq!(
        event["message"]["content"]["body"],
        "half a smile \u{fffd}!"
    );
    assert_eq!(event["raw"], sent);
    assert_eq!(event["unreadable"]["path"], "text");
}

#[test]
fn what_json_readers_refuse_costs_its_own_member_only() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for bad in ["1e400", &deep] {
        let sent =
            format!(r#"{{"id":"wamid.1","type":"text","text":{{"body":"hi"}},"new":{bad}}}"#);
        let event = message(&sent);
        assert_eq!(event["message"]["content"]["body"], "hi");
        assert_eq!(event["raw"], sent);
        assert_eq!(event["unreadable"]["path"], "new");
    }
}

#[test]
fn a_number_that_a_double_cant_hold_keeps_the_item_raw() {
    let exact = r#"{"type":"location","location":{"latitude":52.516275,"longitude":13.377704}}"#;
    assert_eq!(message(exact)["raw"], Value::Null);
    for number in [
        "52.5162750000000000001",
        "123456789012345678901234",
        "1e-400",
    ] {
        let sent = format!(r#"{{"type":"location","location":{{"latitude":{number}}}}}"#);
        let made = messages(&sent);
        let text = String::from_utf8(made[0].body.clone()).expect("text");
        assert!(text.contains(&format!("\"raw\":{sent}")), "{text}");
    }
}

#[test]
fn u0000_and_characters_beyond_the_basic_plane_go_through() {
    let event = message(r#"{"type":"text","text":{"body":"\u0000 \ud83d\ude00 \u202e"}}"#);
    assert_eq!(
        event["message"]["content"]["body"],
        "\u{0} \u{1f600} \u{202e}"
    );
    assert_eq!(event["raw"], Value::Null);
}

#[test]
fn a_bad_item_costs_its_neighbours_nothing() {
    let good = r#"{"id":"wamid.1","type":"text","text":{"body":"hi"}}"#;
    let made = messages(&format!(
        r#"{good},{{"id":7,"type":"text","text":"hi"}},"what?",{good}"#
    ));
    let events: Vec<_> = made.iter().map(Made::json).collect();
    for good in [&events[0], &events[3]] {
        assert_eq!(
            (&good["raw"], &good["unreadable"]),
            (&Value::Null, &Value::Null)
        );
    }
    assert_eq!(events[1]["message"]["id"], "7");
    assert_eq!(events[1]["unreadable"]["path"], "text");
    assert_eq!(events[2]["raw"], "what?");
}

#[test]
fn missing_members_and_nulls_are_no_failures() {
    for (sent, kind) in [
        ("{}", "unknown"),
        (r#"{"type":"text"}"#, "text"),
        (
            r#"{"type":"text","text":null,"context":null,"from":null}"#,
            "text",
        ),
        (r#"{"type":"image","image":{}}"#, "image"),
        (r#"{"type":"interactive","interactive":{}}"#, "interactive"),
    ] {
        let event = message(sent);
        assert_eq!(event["message"]["type"], kind);
        assert_eq!(
            (&event["raw"], &event["unreadable"]),
            (&Value::Null, &Value::Null),
            "{sent}"
        );
    }
}

#[test]
fn a_stranger_makes_no_routing_keys() {
    for kind in ["a.b.c", "#", "text.#", "TEXT", "", "é"] {
        let made = messages(&format!(r#"{{"type":{}}}"#, Value::from(kind)));
        assert_eq!(made[0].routing_key, "message.unknown.acme", "{kind}");
        let expected = if kind.is_empty() { "unknown" } else { kind };
        assert_eq!(made[0].json()["message"]["type"], expected);
    }
}

#[test]
fn only_a_customers_new_message_looks_like_one() {
    for (name, body) in json_files(manifest_dir().join("tests/fixtures")).expect("fixtures") {
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let change = &body["entry"][0]["changes"][0];
        let received = change["field"] == "messages" && change["value"].get("messages").is_some();
        let made = &events(&fixture(&name))[0];
        assert_eq!(made.kind == "message.received", received, "{name}");
        assert_eq!(made.routing_key.starts_with("message."), received, "{name}");
    }
}

#[test]
fn media_is_found_wherever_an_item_has_it() {
    let of = |payload: &Payload| media_ref(payload, &payload.items[0]);
    let image = of(&fixture("image")).expect("media");
    assert_eq!(
        (image.kind, &*image.id),
        (MediaKind::Image, "880000000000123")
    );
    assert!(image.url.is_some() && image.sha256.is_some());
    let document = of(&fixture("document")).expect("media");
    assert_eq!(
        document.filename.as_deref(),
        Some("Lebenslauf – Übersicht ☕.pdf")
    );
    let voice = of(&fixture("audio_voice_note")).expect("media");
    assert_eq!(voice.mime_type.as_deref(), Some("audio/ogg; codecs=opus"));
    let odd = of(&fixture("image_without_digest")).expect("media");
    assert_eq!(odd.sha256, None);
    for (name, kind, place) in [
        ("image", MediaKind::Image, MediaPlace::Message),
        ("echo_image", MediaKind::Image, MediaPlace::Echo),
        ("history_media", MediaKind::Image, MediaPlace::History),
        ("edit_caption", MediaKind::Image, MediaPlace::Edit),
        ("call_recording", MediaKind::Audio, MediaPlace::Call),
    ] {
        let media = of(&fixture(name)).expect(name);
        assert_eq!((media.kind, media.place), (kind, place), "{name}");
        let made = events(&fixture(name))[0].json();
        let part = if place == MediaPlace::Call {
            "call"
        } else {
            "message"
        };
        // Of history nothing is fetched by default.
        let status = if place == MediaPlace::History {
            Value::Null
        } else {
            "pending".into()
        };
        assert_eq!(made[part]["media"]["status"], status, "{name}");
    }
    for without in [
        "text",
        "image_failed_at_meta",
        "call_connect",
        "echo_text",
        "edit_text",
    ] {
        assert_eq!(of(&fixture(without)), None, "{without}");
    }
}

#[test]
fn a_wrapped_echo_and_a_transcript_have_media_and_a_link_is_none() {
    let sent = |image: &str| {
        let echo = format!(r#"{{"id":"wamid.1","message":{{"type":"image","image":{image}}}}}"#);
        change(
            "standby",
            &format!(r#"{{"standby":{{"message_echoes":[{echo}]}}}}"#),
        )
    };
    let of = |payload: &Payload| media_ref(payload, &payload.items[0]);
    let wrapped = of(&sent(r#"{"id":"7"}"#)).expect("media");
    assert_eq!((&*wrapped.id, wrapped.place), ("7", MediaPlace::Standby));
    let link = sent(r#"{"link":"https://example.com/a.jpg"}"#);
    assert_eq!(of(&link), None);
    assert_eq!(events(&link)[0].json()["message"].get("media"), None);
    let transcript = change(
        "calls",
        r#"{"calls":[{"id":"wacid.1","event":"call_transcription_available","call_transcript":{"document":{"id":"8"}}}]}"#,
    );
    let transcript = of(&transcript).expect("media");
    assert_eq!(
        (transcript.kind, &*transcript.id),
        (MediaKind::Document, "8")
    );
}

#[test]
fn a_file_has_the_place_that_its_item_stood_at() {
    let image = r#"{"id":"wamid.1","type":"image","image":{"id":"7"}}"#;
    let edit = format!(r#"{{"id":"wamid.1","type":"edit","edit":{{"message":{image}}}}}"#);
    for (field, value, place, edited) in [
        ("messages", r#"{"messages":[#]}"#, MediaPlace::Message, true),
        (
            "smb_message_echoes",
            r#"{"message_echoes":[#]}"#,
            MediaPlace::Echo,
            true,
        ),
        (
            "message_echoes",
            r#"{"messages":[#]}"#,
            MediaPlace::Echo,
            true,
        ),
        (
            "standby",
            r#"{"standby":{"messages":[#]}}"#,
            MediaPlace::Standby,
            true,
        ),
        (
            "standby",
            r#"{"standby":{"message_echoes":[#]}}"#,
            MediaPlace::Standby,
            true,
        ),
        (
            "history",
            r#"{"history":[{"threads":[{"id":"49","messages":[#]}]}]}"#,
            MediaPlace::History,
            false,
        ),
        ("history", r#"{"messages":[#]}"#, MediaPlace::History, false),
        (
            "history",
            r#"{"message_echoes":[#]}"#,
            MediaPlace::History,
            false,
        ),
    ] {
        let of = |item: &str| {
            let payload = change(field, &value.replace('#', item));
            let media = media_ref(&payload, &payload.items[0]).expect("media");
            (media.id, media.place)
        };
        assert_eq!(of(image), ("7".to_owned(), place), "{field} {value}");
        let of_edit = if edited { MediaPlace::Edit } else { place };
        assert_eq!(of(&edit), ("7".to_owned(), of_edit), "{field} {value}");
    }
}

#[test]
fn a_digest_of_zeros_is_a_placeholder() {
    let zeros = "0".repeat(64);
    let image = format!(r#"{{"type":"image","image":{{"id":"7","sha256":"{zeros}"}}}}"#);
    let payload = change("messages", &format!(r#"{{"messages":[{image}]}}"#));
    let media = media_ref(&payload, &payload.items[0]).expect("media");
    assert_eq!(media.sha256, None);
}

#[test]
fn media_that_was_never_there_has_failed() {
    let event = message(r#"{"type":"video","video":{"mime_type":"video/mp4"}}"#);
    assert_eq!(event["message"]["media"]["status"], "failed");
}

#[test]
fn what_stands_beside_the_items_is_in_each_event() {
    let value = json!({
        "metadata": {"display_phone_number": "1", "phone_number_id": "2", "new": 3},
        "contacts": [{"wa_id": "4915112345678", "mood": "good"}],
        "messages": [{"from": "4915112345678", "type": "text"}, {"type": "text"}],
        "statuses": {"not": "a list"},
        "errors": [{"code": 1, "new": true}],
        "conversation_context": {"type": "summary", "new": 1},
        "nothing": null,
    });
    let made = events(&change("messages", &value.to_string()));
    assert_eq!(made.len(), 2);
    let first = made[0].json();
    let expected = json!({
        "metadata": value["metadata"],
        "statuses": value["statuses"],
        "contact": value["contacts"][0],
        "errors": value["errors"],
        "conversation_context": value["conversation_context"],
    });
    assert_eq!(first["beside"], expected);
    assert_eq!(first["errors"][0]["class"], "transient");
    assert_eq!(made[1].json()["errors"][0]["code"], 1);
    assert_eq!(made[1].json()["beside"].get("contact"), None);
}

#[test]
fn statuses_are_ranked_by_what_they_say() {
    let rank = |status: &str| {
        let value = format!(r#"{{"statuses":[{{"id":"a","status":"{status}"}}]}}"#);
        events(&change("messages", &value))[0].json()["status"]["rank"].clone()
    };
    let line = ["accepted", "sent", "delivered", "read", "played"].map(rank);
    assert_eq!(line, [0, 1, 2, 3, 4].map(Value::from));
    for other in ["failed", "deleted", "warning", "news"] {
        assert_eq!(rank(other), Value::Null, "{other}");
    }
}

#[test]
fn every_message_of_a_history_knows_its_thread() {
    let thread = |id: &str, froms: &[&str]| {
        let messages: Vec<_> = froms
            .iter()
            .map(|from| json!({"from": from, "type": "text"}))
            .collect();
        json!({"id": id, "messages": messages})
    };
    let value = json!({
        "metadata": {"display_phone_number": "15550783881"},
        "history": [
            {"metadata": {"phase": 0}, "threads": [
                thread("4911", &["4911", "15550783881"]), thread("4922", &[]), thread("4933", &["4933"]),
            ]},
            {"metadata": {"phase": 1}, "threads": [thread("4944", &["15550783881", "4955"])]},
        ],
    });
    let seen: Vec<_> = events(&change("history", &value.to_string()))
        .iter()
        .map(|made| {
            let message = &made.json()["message"];
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            (
                text(&message["history"]["threadId"]),
                text(&message["direction"]),
                message["history"]["phase"].clone(),
            )
        })
        .collect();
    let expected = [
        ("4911", "inbound", 0),
        ("4911", "outbound", 0),
        ("4933", "inbound", 0),
        ("4944", "outbound", 1),
        // Neither the business nor the customer of the thread.
        ("4944", "-", 1),
    ];
    let expected =
        expected.map(|(id, direction, phase)| (id.to_owned(), direction.to_owned(), json!(phase)));
    assert_eq!(seen, expected);
}
