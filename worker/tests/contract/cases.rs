//! What users of other receivers reported as broken: one kind of payload each, and what is right.

use serde_json::{Value, json};
use shared::webhook::{self, UnreadableBody};
use uuid::Uuid;
use worker::ask::state;
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

/// An item with more members.
fn with(mut item: Value, more: Value) -> Value {
    if let (Value::Object(item), Value::Object(more)) = (&mut item, more) {
        item.extend(more);
    }
    item
}

fn text(more: Value) -> Value {
    let text = json!({"id": "wamid.1", "type": "text", "text": {"body": "x"}});
    with(text, more)
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
    let from = text(
        json!({"from": "", "from_user_id": "PT.81", "context": {"from": "", "id": "wamid.0"}}),
    );
    let to = text(json!({"from": "4930901820", "to": "", "to_user_id": "PT.81"}));
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
fn a_person_of_two_user_ids_waits_for_what_either_sent() {
    let message = |from: &str, user: &str| json!({"id": from, "from": from, "from_user_id": user, "type": "text"});
    let messages = [
        message("US.1", "US.2"),
        message("US.1", ""),
        message("", "US.2"),
    ];
    let payload = change("messages", json!({ "messages": messages }));
    let hasher = LaneHasher::default();
    let lanes = payload.items.iter().map(|item| {
        let customer = Customer::of(&payload, item);
        customer.lane_keys(&hasher, &payload, item)
    });
    let lanes: Vec<_> = lanes.collect();
    for other in &lanes[1..] {
        assert!(other.iter().all(|key| lanes[0].contains(key)));
    }
    assert!(lanes[1].iter().all(|key| !lanes[2].contains(key)));
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

/// Its numbers of items mean nothing to a worker that counts others: it is set aside as a whole.
#[test]
fn a_body_in_which_ingress_found_other_items_is_not_read() {
    let body = br#"{"entry":[{"id":"1","changes":[{"field":"x","value":{"a":1}}]}]}"#;
    let counted = |items| {
        let entry = open(body).expect("a webhook").entry;
        Payload::open(shared::entry::StreamEntry { items, ..entry })
    };
    for known in [0, 1] {
        assert_eq!(counted(known).expect("as many").items.len(), 1);
    }
    let unopened = counted(2).expect_err("another number");
    assert_eq!(
        unopened.unreadable.to_string(),
        "ingress, of another version, found 2 items in it, and this version finds 1"
    );
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
    let replies = [
        json!(form),
        json!(""),
        json!({"a_b": 1}),
        json!(r#""{\"a\":1}""#),
        json!(r#"{"big":12345678901234567890,"flow_token":"x"}"#),
    ];
    let value = json!({"messages": replies.map(reply)});
    let events = sound(&change("messages", value));
    let content = |n: usize| &events[n]["message"]["content"]["nfmReply"];
    let parsed: Value = serde_json::from_str(form).expect("JSON");
    assert_eq!(content(0)["response"], parsed);
    assert_eq!(content(0)["responseJson"], form);
    assert_eq!(
        events[2]["raw"]["interactive"]["nfm_reply"]["response_json"]["a_b"],
        1
    );
    assert_eq!(content(3)["response"], r#"{"a":1}"#, "a text as it is");
    let response = json!({"big": 12_345_678_901_234_567_890_u64, "flow_token": "x"});
    assert_eq!(content(4)["response"], response);
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

#[test]
fn a_member_that_names_nobody_is_as_if_it_were_missing() {
    let nobody = text(json!({"from": "", "from_user_id": "", "from_parent_user_id": ""}));
    let nowhere = text(json!({"to": "", "to_user_id": "", "to_parent_user_id": ""}));
    let sent = json!({"recipient": "", "type": "text", "text": {"body": "x"}});
    let wrapped = json!({"id": "wamid.1", "message": sent});
    let receipt = |members| with(json!({"id": "wamid.1", "status": "read"}), members);
    let read = receipt(json!({"recipient_id": "", "recipient_user_id": "",
        "recipient_parent_user_id": ""}));
    let old = receipt(json!({"parent_recipient_user_id": ""}));
    let oldest = receipt(json!({"parent_user_id": ""}));
    let of_group = receipt(json!({"recipient_type": "group", "recipient_id": "9",
        "recipient_participant_id": "", "recipient_participant_user_id": "",
        "recipient_participant_parent_user_id": ""}));
    let of_old_group = receipt(json!({"recipient_type": "group", "recipient_id": "9",
        "participant_recipient_id": ""}));
    let system = |members: Value| json!({"id": "wamid.1", "type": "system", "system": members});
    let changed = system(json!({"wa_id": "", "user_id": "", "parent_user_id": ""}));
    let renumbered = system(
        json!({"new_wa_id": "", "customer": "", "previous_user_id": "",
        "previous_parent_user_id": ""}),
    );
    let preference = json!({"wa_id": "", "user_id": "", "category": "marketing_messages"});
    let control = json!({"sender": {"phone_number": "", "user_id": ""}});
    let added = json!({"type": "contact", "action": "add", "contact": {"phone_number": ""}});
    for (field, value) in [
        (
            "messages",
            json!({"messages": [nobody, changed, renumbered]}),
        ),
        ("message_echoes", json!({"message_echoes": [nowhere]})),
        ("standby", json!({"standby": {"message_echoes": [wrapped]}})),
        (
            "messages",
            json!({"statuses": [read, old, oldest, of_group, of_old_group]}),
        ),
        (
            "user_preferences",
            json!({"user_preferences": [preference]}),
        ),
        ("messaging_handovers", control),
        ("smb_app_state_sync", json!({"state_sync": [added]})),
    ] {
        for event in sound(&change(field, value)) {
            let mut typed = event.clone();
            // As Meta sent it.
            typed["account"]["value"] = Value::Null;
            let mut empty = Vec::new();
            empty_texts(&typed, "", &mut empty);
            assert_eq!(empty, [""; 0], "{field}: {event:#}");
            assert_eq!(event["customer"], Value::Null, "{field}");
        }
    }
}

#[test]
fn a_withheld_phone_is_one_in_an_item_that_is_read_in_parts_too() {
    let sent = r#"{"id":"wamid.1","from":"","from_user_id":"PT.81","type":"text","text":{"body":"\ud83d"}}"#;
    let value = format!(r#"{{"messages":[{sent}]}}"#);
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"field":"messages","value":{value}}}]}}]}}"#
    );
    let event = &sound(&open(body.as_bytes()).expect("a webhook"))[0];
    assert_eq!(event["message"].get("from"), None);
    assert_eq!(event["message"]["fromUserId"], "PT.81");
    assert_eq!(event["raw"], sent);
}

#[test]
fn a_user_id_is_one_wherever_a_phone_would_stand() {
    for id in ["US.1349", "US.ENT.1349", "user.a1b2"] {
        let from = text(json!({"from": id}));
        let to = text(json!({"from": "4930901820", "to": id}));
        let sent = json!({"id": "wamid.1", "message": {"recipient": id, "type": "text"}});
        let status = json!({"id": "wamid.1", "status": "read", "recipient_id": id});
        let call = json!({"id": "wacid.1", "event": "connect", "from": id});
        let thread = json!({"id": id, "messages": [from]});
        for (field, value) in [
            (
                "messages",
                json!({"messages": [from], "statuses": [status]}),
            ),
            ("smb_message_echoes", json!({"message_echoes": [to]})),
            ("calls", json!({"calls": [call]})),
            ("history", json!({"history": [{"threads": [thread]}]})),
            ("history", json!({"messages": [from]})),
            (
                "standby",
                json!({"standby": {"messages": [from], "message_echoes": [to, sent]}}),
            ),
        ] {
            for event in sound(&change(field, value)) {
                let customer = &event["customer"];
                assert_eq!(customer["userId"], id, "{field}");
                assert_eq!(customer["waId"], Value::Null, "{field}");
                assert_eq!(customer["phoneE164"], Value::Null, "{field}");
                if field == "history" {
                    assert_eq!(event["message"]["direction"], "inbound");
                }
            }
        }
    }
}

#[test]
fn the_state_manager_is_told_of_the_customer_of_the_event() {
    let contact =
        |wa_id: &str, user_id: &str| json!({"profile": {}, "wa_id": wa_id, "user_id": user_id});
    let message = |from: &str| json!({"id": "wamid.1", "from": from, "type": "text"});
    for (contact, message) in [
        (contact("US.1349", "US.1349"), message("US.1349")),
        (
            contact("", "US.1349"),
            json!({"id": "wamid.1", "from": "", "from_user_id": "US.1349", "type": "text"}),
        ),
        (contact("4911", ""), message("4911")),
        (contact("4911", "DE.1"), message("4911")),
        (
            contact("4911", "DE.1"),
            json!({"id": "wamid.1", "from": "", "from_user_id": "DE.1", "type": "text"}),
        ),
    ] {
        let payload = change(
            "messages",
            json!({"contacts": [contact], "messages": [message]}),
        );
        let event = &sound(&payload)[0];
        let post = state::message_post(&payload, &payload.items[0], "acme", Uuid::nil(), None);
        let post: Value = serde_json::from_str(&post.expect("a message has one")).expect("JSON");
        assert_eq!(post["waId"], event["customer"]["waId"], "{message}");
        assert_eq!(post["userId"], event["customer"]["userId"], "{message}");
    }
}

#[test]
fn a_contact_of_another_user_id_is_somebody_elses() {
    let contact = json!({"profile": {"name": "Bia"}, "wa_id": "4933", "user_id": "BR.7"});
    let message = json!({"id": "wamid.1", "from": "4911", "from_user_id": "BR.1", "type": "text"});
    let value = json!({"contacts": [contact], "messages": [message]});
    let event = &sound(&change("messages", value))[0];
    assert_eq!(event["customer"]["name"], Value::Null);
    assert_eq!(event["customer"]["userId"], "BR.1");
    assert_eq!(event["beside"]["contacts[0]"], contact);
    // Two people whom only their user ids tell apart.
    let message =
        |user: &str| json!({"id": user, "from": "", "from_user_id": user, "type": "text"});
    let stranger = json!({"profile": {"name": "Bia"}, "wa_id": "4933"});
    let value = json!({"contacts": [stranger], "messages": [message("BR.1"), message("BR.2")]});
    for event in sound(&change("messages", value)) {
        assert_eq!(event["customer"]["name"], Value::Null);
        assert_eq!(event["beside"]["contacts[0]"], stranger);
    }
}

#[test]
fn lists_that_nobody_knows_are_an_event_that_holds_them() {
    for field in ["messages", "standby", "message_echoes", "history", "calls"] {
        let payload = change(
            field,
            json!({"parcels": [{"id": "wamid.1"}, {"id": "wamid.2"}]}),
        );
        let [event] = &sound(&payload)[..] else {
            panic!("one change, one event: {field}");
        };
        assert_eq!(event["eventType"], "account.updated");
        assert_eq!(event["account"]["field"], field);
        assert_eq!(event["account"]["value"]["parcels"][1]["id"], "wamid.2");
    }
}

#[test]
fn an_envelope_that_nobody_knows_is_refused_with_the_reason() {
    let body = |entry: &str| format!(r#"{{"object":"whatsapp_business_account"{entry}}}"#);
    for (entry, reason) in [
        ("", "`entry` is missing"),
        (r#","entry":{"id":"1"}"#, "`entry` is not an array"),
        (
            r#","entry":[["id"]]"#,
            "an element of `entry` is not an object",
        ),
        (
            r#","entry":[{"changes":{"field":"messages"}}]"#,
            "`changes` is not an array",
        ),
        (
            r#","entry":[{"changes":[[{"field":"messages"}]]}]"#,
            "an element of `changes` is not an object",
        ),
    ] {
        let body = body(entry);
        let refused = webhook::read(body.as_bytes()).expect_err("another shape");
        assert_eq!(refused, UnreadableBody::Shape(reason));
    }
    let deeper = br#"{"data":{"object":"whatsapp_business_account","entry":[]}}"#;
    assert_eq!(
        webhook::read(deeper).expect_err("another shape"),
        UnreadableBody::OtherObject
    );
}
