//! What users of other receivers reported as broken: one kind of payload each, and what is right.

use serde_json::{Value, json};
use worker::item::customer::Customer;
use worker::item::event::{self, EventContext, item_type};
use worker::item::payload::Payload;
use worker::item::tenant::Tenant;
use worker::read::lanes::LaneHasher;

use crate::{Made, check, events, open, validator};

const METADATA: &str =
    r#"{"display_phone_number":"4930901820","phone_number_id":"204800000000077"}"#;

fn entry(entry: &Value) -> Payload {
    let body = json!({"object": "whatsapp_business_account", "entry": [entry]});
    open(body.to_string().as_bytes()).expect("a webhook")
}

fn change(field: &str, mut value: Value) -> Payload {
    value["metadata"] = serde_json::from_str(METADATA).expect("JSON");
    entry(&json!({"id": "204800000000001", "changes": [{"field": field, "value": value}]}))
}

/// Events that fit the schema and hold their items.
fn sound(payload: &Payload) -> Vec<Value> {
    let validator = validator();
    let made = events(payload);
    for made in &made {
        check(&validator, made).expect("a sound event");
    }
    made.iter().map(Made::json).collect()
}

/// Where a value says `""`, but for what is as Meta sent it.
fn empty_texts(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text.is_empty() => found.push(at.to_owned()),
        Value::Array(elements) => {
            let elements = elements.iter().enumerate();
            elements.for_each(|(n, value)| empty_texts(value, &format!("{at}/{n}"), found));
        }
        Value::Object(members) => {
            let typed = members.iter().filter(|(name, _)| *name != "raw");
            typed.for_each(|(name, value)| empty_texts(value, &format!("{at}/{name}"), found));
        }
        _ => {}
    }
}

#[test]
fn a_phone_that_is_there_as_empty_text_is_withheld() {
    let contact = json!({"profile": {"name": "Ana", "country_code": "PT"}, "wa_id": "",
        "user_id": "PT.81"});
    let message = |more: Value| {
        let mut message = json!({"id": "wamid.1", "type": "text", "text": {"body": "x"}});
        message
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("one").clone());
        message
    };
    let from = message(
        json!({"from": "", "from_user_id": "PT.81", "context": {"from": "", "id": "wamid.0"}}),
    );
    let to = message(json!({"from": "4930901820", "to": "", "to_user_id": "PT.81"}));
    let status = json!({"id": "wamid.1", "status": "read", "recipient_id": "",
        "recipient_user_id": "PT.81", "recipient_parent_user_id": ""});
    let call = json!({"id": "wacid.1", "event": "connect", "from": "", "from_user_id": "PT.81"});
    let thread =
        json!({"id": "", "context": {"wa_id": "", "user_id": "PT.81"}, "messages": [from]});
    for (field, value) in [
        (
            "messages",
            json!({"contacts": [contact], "messages": [from]}),
        ),
        (
            "messages",
            json!({"contacts": [contact], "statuses": [status]}),
        ),
        (
            "smb_message_echoes",
            json!({"contacts": [contact], "message_echoes": [to]}),
        ),
        ("calls", json!({"contacts": [contact], "calls": [call]})),
        ("history", json!({"history": [{"threads": [thread]}]})),
        (
            "standby",
            json!({"standby": {"contacts": [contact], "messages": [from]}}),
        ),
    ] {
        let event = &sound(&change(field, value))[0];
        let mut empty = Vec::new();
        empty_texts(event, "", &mut empty);
        assert_eq!(empty, [""; 0], "{field}: {event:#}");
        assert_eq!(event["customer"]["waId"], Value::Null, "{field}");
        assert_eq!(event["customer"]["phoneE164"], Value::Null, "{field}");
        assert_eq!(event["customer"]["userId"], "PT.81", "{field}");
        assert_eq!(event["customer"]["countryCode"], "PT", "{field}");
        assert_eq!(event["raw"], Value::Null, "{field}");
    }
}

#[test]
fn the_country_is_what_meta_says_where_no_phone_tells() {
    let value = json!({
        "contacts": [{"profile": {"name": "Ana", "username": "@ana", "country_code": "PT"},
            "wa_id": "", "user_id": "user.a1b2"}],
        "messages": [{"id": "wamid.1", "from": "", "from_user_id": "user.a1b2", "type": "text"}],
    });
    let event = &sound(&change("messages", value))[0];
    assert_eq!(event["customer"]["countryCode"], "PT");
    assert_eq!(event["customer"]["name"], "Ana");
    assert_eq!(event.get("beside"), None);
}

#[test]
fn two_people_without_a_phone_dont_wait_for_each_other() {
    let person = |user: &str| json!({"profile": {}, "wa_id": "", "user_id": user});
    let message =
        |user: &str| json!({"id": user, "from": "", "from_user_id": user, "type": "text"});
    let payload = change(
        "messages",
        json!({
            "contacts": [person("DE.1"), person("DE.2")],
            "messages": [message("DE.1"), message("DE.2")],
        }),
    );
    let hasher = LaneHasher::default();
    let lanes = payload.items.iter().map(|item| {
        let customer = Customer::of(&payload, item);
        customer.lane_keys(&hasher, &payload, item)
    });
    let lanes: Vec<_> = lanes.collect();
    assert!(lanes[0].iter().all(|key| !lanes[1].contains(key)));
}

#[test]
fn a_user_id_where_a_phone_was_is_a_user_id() {
    let contact = json!({"profile": {"name": "Cyd"}, "wa_id": "US.1349", "user_id": "US.1349"});
    let message =
        json!({"id": "wamid.1", "from": "US.1349", "type": "text", "text": {"body": "x"}});
    let status = json!({"id": "wamid.2", "status": "read", "recipient_id": "US.1349"});
    let value = json!({"contacts": [contact], "messages": [message], "statuses": [status]});
    for event in sound(&change("messages", value)) {
        let customer = &event["customer"];
        assert_eq!(customer["userId"], "US.1349");
        assert_eq!(customer["waId"], Value::Null);
        assert_eq!(customer["phoneE164"], Value::Null);
        assert_eq!(customer["countryCode"], "US");
        assert_eq!(customer["name"], "Cyd");
    }
}

#[test]
fn one_persons_items_and_one_contact_belong_together() {
    let message = |id: &str| json!({"id": id, "from": "5511955501234", "type": "text"});
    let of = |contact: &str| {
        change(
            "messages",
            json!({
                "contacts": [{"profile": {"name": "Bia"}, "wa_id": contact, "user_id": "BR.7"}],
                "messages": [message("wamid.1"), message("wamid.2")],
            }),
        )
    };
    for contact in ["551155501234", "16505550199"] {
        for event in sound(&of(contact)) {
            assert_eq!(event["customer"]["name"], "Bia");
            assert_eq!(event["customer"]["userId"], "BR.7");
            assert_eq!(event["customer"]["waId"], "5511955501234");
            // The other spelling isn't lost either.
            assert_eq!(event["beside"]["contact"]["wa_id"], contact);
        }
    }
}

#[test]
fn a_contact_that_fits_nobody_stands_beside() {
    let contact = |id: &str| json!({"profile": {"name": id}, "wa_id": id});
    let message = |from: &str| json!({"id": from, "from": from, "type": "text"});
    let value = json!({
        "contacts": [contact("4911"), contact("4933")],
        "messages": [message("4911"), message("4922")],
    });
    for event in sound(&change("messages", value.clone())) {
        assert_eq!(event["beside"]["contacts[1]"], value["contacts"][1]);
        assert_eq!(event["beside"].get("contacts[0]"), None);
    }
    // Two people and one contact: it isn't guessed whose it is.
    let value = json!({"contacts": [contact("4933")],
        "messages": [message("4911"), message("4922")]});
    for event in sound(&change("messages", value)) {
        assert_eq!(event["customer"]["name"], Value::Null);
        assert_eq!(event["beside"]["contacts[0]"]["wa_id"], "4933");
    }
}

#[test]
fn what_has_another_shape_is_an_event_that_holds_it() {
    let wrapped = json!({"field": "messages", "data": {"messages": [{"id": "wamid.1"}]}});
    let in_entry = json!({"id": "204800000000001", "changes": [wrapped]});
    let no_changes = json!({"id": "204800000000001", "messages": [{"id": "wamid.1"}]});
    let deeper = json!({"id": "204800000000001", "entry": [in_entry]});
    let array = json!({"id": "204800000000001", "changes": [{"field": "messages", "value": [1]}]});
    for (sent, field) in [
        (&in_entry, "messages"),
        (&no_changes, "unknown"),
        (&deeper, "unknown"),
        (&array, "messages"),
    ] {
        let payload = entry(sent);
        let [event] = &sound(&payload)[..] else {
            panic!("one item, one event: {sent}");
        };
        assert_eq!(item_type(&payload, &payload.items[0]), "account");
        assert_eq!(event["eventType"], "account.updated");
        assert_eq!(event["account"]["field"], field);
        let held = event["account"]["value"].to_string();
        assert!(sent.to_string().contains(&held), "{held} of {sent}");
    }
}

#[test]
fn echoes_under_the_name_of_messages_are_echoes() {
    let echo = |id: &str| {
        json!({"id": id, "from": "4930901820", "to": "4915112345678", "type": "text",
            "text": {"body": "x"}, "message_creation_type": "created_by_1p_bot"})
    };
    for field in ["message_echoes", "smb_message_echoes"] {
        let value = json!({"contacts": [{"wa_id": "4915112345678", "profile": {"name": "Kai"}}],
            "messages": [echo("wamid.1"), echo("wamid.2")]});
        let events = sound(&change(field, value));
        assert_eq!(events.len(), 2);
        for event in events {
            assert_eq!(event["eventType"], "message.echo");
            assert_eq!(event["message"]["direction"], "outbound");
            assert_eq!(event["message"]["messageCreationType"], "created_by_1p_bot");
            assert_eq!(event["customer"]["name"], "Kai");
            assert_eq!(event["raw"], Value::Null);
        }
    }
}

#[test]
fn a_receipt_that_calls_itself_a_message_is_a_receipt() {
    let status = json!({"id": "wamid.1", "status": "delivered", "timestamp": "1795599960",
        "recipient_id": "4915112345678", "type": "message",
        "message": {"recipient_id": "4915112345678"}});
    let event = &sound(&change("messages", json!({"statuses": [status]})))[0];
    assert_eq!(event["status"]["kind"], "receipt");
    assert_eq!(event["status"]["messageId"], "wamid.1");
    assert_eq!(event["status"]["rank"], 2);
}

#[test]
fn the_keys_of_a_form_are_as_they_are() {
    let reply = |response: Value| {
        json!({"type": "interactive", "interactive": {"type": "nfm_reply",
            "nfm_reply": {"name": "flow", "body": "Sent", "response_json": response}}})
    };
    let form = r#"{"screen_0_Rating_0":"Good","nested":{"camelCase":{"snake_case":1}}}"#;
    let value =
        json!({"messages": [reply(json!(form)), reply(json!("")), reply(json!({"a_b": 1}))]});
    let events = sound(&change("messages", value));
    let content = |n: usize| &events[n]["message"]["content"]["nfmReply"];
    let parsed: Value = serde_json::from_str(form).expect("JSON");
    assert_eq!(content(0)["response"], parsed);
    assert_eq!(content(0)["responseJson"], form);
    assert_eq!(
        events[2]["raw"]["interactive"]["nfm_reply"]["response_json"]["a_b"],
        1
    );
}

#[test]
fn what_is_no_accounts_has_no_tenant() {
    let portfolio = entry(
        &json!({"id": "330000000000003", "time": 1_795_599_960, "changes": [
        {"field": "partner_solutions", "value": {"event": "SOLUTION_CREATED", "solution_id": "7"}},
        {"field": "account_update", "value": {"event": "PARTNER_APP_UNINSTALLED"}}]}),
    );
    let test = entry(
        &json!({"id": "0", "changes": [{"field": "messages", "value": {
        "messages": [{"from": "16315551181", "id": "ABGGFlA5Fpa", "type": "text"}]}}]}),
    );
    let platform = Tenant::platform();
    for (payload, fields) in [
        (&portfolio, &["partner_solutions", "account_update"][..]),
        (&test, &["messages"]),
    ] {
        assert!(payload.has_no_account());
        for (item, field) in payload.items.iter().zip(fields) {
            let made = event::event(payload, item, &EventContext::of(&platform));
            let made = made.expect("an event");
            assert_eq!(made.routing_key, format!("account.{field}._platform"));
            assert_eq!(made.tenant_id, "");
            let event: Value = serde_json::from_slice(&made.body).expect("JSON");
            assert!(validator().is_valid(&event), "{event:#}");
            assert_eq!(event["tenant"], Value::Null);
            assert_eq!(event["eventType"], "account.updated");
        }
    }
    let of_account = json!({"id": "330000000000003", "changes": [{"field": "account_update",
        "value": {"event": "PARTNER_ADDED", "waba_info": {"waba_id": "7"}}}]});
    assert!(!entry(&of_account).has_no_account());
}

#[test]
fn an_event_about_a_number_says_which() {
    for (field, value, id, display) in [
        (
            "phone_number_quality_update",
            json!({"display_phone_number": "4930901820"}),
            None,
            Some("4930901820"),
        ),
        (
            "account_update",
            json!({"event": "X", "phone_number": "4930901820"}),
            None,
            Some("4930901820"),
        ),
        (
            "account_alerts",
            json!({"entity_type": "PHONE_NUMBER", "entity_id": "7"}),
            Some("7"),
            None,
        ),
        (
            "account_alerts",
            json!({"entity_type": "BUSINESS", "entity_id": "7"}),
            None,
            None,
        ),
        (
            "account_settings_update",
            json!({"phone_number_settings": {"phone_number_id": 7}}),
            Some("7"),
            None,
        ),
        (
            "messaging_handovers",
            json!({"recipient": {"phone_number_id": "7", "display_phone_number": "49"}}),
            Some("7"),
            Some("49"),
        ),
    ] {
        let payload = entry(&json!({"id": "1", "changes": [{"field": field, "value": value}]}));
        let channel = &sound(&payload)[0]["channel"];
        assert_eq!(channel["phoneNumberId"].as_str(), id, "{field}");
        assert_eq!(channel["displayPhoneNumber"].as_str(), display, "{field}");
    }
}
