//! Webhook bodies. An item (a message, a status) goes into a change, changes into an entry of one
//! business account, entries into a body. What tells one item from another (an id, or the time of
//! one without) is fresh on every call.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::canaries;

/// A business phone number and the account that it belongs to.
#[derive(Debug, Clone)]
pub struct Number {
    pub waba_id: String,
    pub phone_number_id: String,
    /// Digits without `+`
    pub display_phone_number: String,
}

impl Number {
    /// The first number of an account (`waba_id`: digits).
    pub fn of(waba_id: impl Into<String>) -> Self {
        let waba_id = waba_id.into();
        Self {
            phone_number_id: format!("7{waba_id}"),
            display_phone_number: "15550783881".to_owned(),
            waba_id,
        }
    }

    /// A number with an account that no other test has.
    pub fn fresh() -> Self {
        Self::of(format!(
            "1{:017}",
            rand::random_range(0..100_000_000_000_000_000_u64)
        ))
    }

    /// A change with messages, and a contact for each sender.
    pub fn messages(&self, messages: impl IntoIterator<Item = Value>) -> Value {
        self.messages_and_statuses(messages, [])
    }

    /// A change with statuses.
    pub fn statuses(&self, statuses: impl IntoIterator<Item = Value>) -> Value {
        self.messages_and_statuses([], statuses)
    }

    /// A change with both in one value; an empty list is left out.
    pub fn messages_and_statuses(
        &self,
        messages: impl IntoIterator<Item = Value>,
        statuses: impl IntoIterator<Item = Value>,
    ) -> Value {
        let messages: Vec<Value> = messages.into_iter().collect();
        let statuses: Vec<Value> = statuses.into_iter().collect();
        let mut value = self.value();
        if !messages.is_empty() {
            value["contacts"] = messages.iter().filter_map(contact).collect();
            value["messages"] = messages.into();
        }
        if !statuses.is_empty() {
            value["statuses"] = statuses.into();
        }
        change("messages", value)
    }

    /// A change of a field that lists its items: the envelope's members and `members`.
    pub fn change(&self, field: &str, members: Value) -> Value {
        let mut value = self.value();
        if let (Value::Object(value), Value::Object(members)) = (&mut value, members) {
            value.extend(members);
        }
        change(field, value)
    }

    /// The members that every value of this number has.
    pub fn value(&self) -> Value {
        json!({
            "messaging_product": "whatsapp",
            "metadata": {
                "display_phone_number": self.display_phone_number,
                "phone_number_id": self.phone_number_id,
            },
        })
    }

    /// A body with these changes in one entry of the account.
    pub fn webhook(&self, changes: impl IntoIterator<Item = Value>) -> Bytes {
        webhook([entry(&self.waba_id, changes)])
    }

    /// A body with one message.
    pub fn message(&self, message: Value) -> Bytes {
        self.webhook([self.messages([message])])
    }

    /// A body with one status.
    pub fn status(&self, status: Value) -> Bytes {
        self.webhook([self.statuses([status])])
    }
}

fn contact(message: &Value) -> Option<Value> {
    let from = message["from"].as_str()?;
    Some(json!({"profile": {"name": "Sheena Nelson"}, "wa_id": from}))
}

/// An element of `changes[]`.
pub fn change(field: &str, value: Value) -> Value {
    json!({"value": value, "field": field})
}

/// An element of `entry[]`.
pub fn entry(waba_id: &str, changes: impl IntoIterator<Item = Value>) -> Value {
    json!({"id": waba_id, "changes": changes.into_iter().collect::<Vec<_>>()})
}

/// A whole body, written as Meta writes it: `/` and everything beyond ASCII escaped.
pub fn webhook(entries: impl IntoIterator<Item = Value>) -> Bytes {
    let entries: Vec<Value> = entries.into_iter().collect();
    let body = json!({"object": "whatsapp_business_account", "entry": entries});
    escape(&body.to_string()).into()
}

/// Meta's spelling of a JSON text. Both kinds of characters stand only inside strings.
fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        match character {
            '/' => escaped.push_str("\\/"),
            character if character.is_ascii() => escaped.push(character),
            character => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(escaped, "\\u{unit:04x}").expect("a String takes all");
                }
            }
        }
    }
    escaped
}

/// A message id of its own.
pub fn wamid() -> String {
    format!("wamid.HBgL{}AA==", uuid::Uuid::new_v4().simple())
}

/// Now, in seconds since 1970, as Meta writes it.
pub fn timestamp() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs().to_string()
}

/// A message of any type: `content` becomes the member that is named like the type; `null` is left
/// out. `from` is a phone number, digits without `+`.
pub fn message(from: &str, kind: &str, content: Value) -> Value {
    canaries::phone(from);
    let mut message = json!({"from": from, "id": wamid(), "timestamp": timestamp(), "type": kind});
    if !content.is_null() {
        message[kind] = content;
    }
    message
}

pub fn text(from: &str, body: &str) -> Value {
    message(from, "text", json!({"body": body}))
}

/// `media_id` is what the Graph API is asked for.
pub fn image(from: &str, media_id: &str) -> Value {
    media(from, "image", media_id, "image/jpeg")
}

/// `kind`: `image`, `video`, `audio`, `document` or `sticker`. The digest is a placeholder, as in
/// Meta's own examples.
pub fn media(from: &str, kind: &str, media_id: &str, mime_type: &str) -> Value {
    let content = json!({"mime_type": mime_type, "sha256": "placeholder", "id": media_id});
    message(from, kind, content)
}

pub fn location(from: &str) -> Value {
    let content = json!({"latitude": 37.44, "longitude": -122.16, "name": "Philz Coffee"});
    message(from, "location", content)
}

/// `emoji: None` takes the reaction back.
pub fn reaction(from: &str, message_id: &str, emoji: Option<&str>) -> Value {
    let mut content = json!({"message_id": message_id});
    if let Some(emoji) = emoji {
        content["emoji"] = emoji.into();
    }
    message(from, "reaction", content)
}

/// What Meta sends for a message that the API can't show.
pub fn unsupported(from: &str, inner: &str) -> Value {
    let mut message = message(from, "unsupported", json!({"type": inner}));
    message["errors"] = json!([{
        "code": 131051,
        "title": "Message type unknown",
        "message": "Message type unknown",
        "error_data": {"details": "Message type is currently not supported."},
    }]);
    message
}

/// A type that nobody has heard of yet.
pub fn unknown(from: &str) -> Value {
    let content = json!({"name": "Lunch?", "options": [{"name": "Yes"}, {"name": "No"}]});
    message(from, "poll_creation", content)
}

/// `status`: `sent`, `delivered`, `read`, `failed` or anything else; `message_id`: of the message
/// that the business sent, the same for all its statuses.
pub fn status(message_id: &str, status: &str, recipient: &str) -> Value {
    canaries::phone(recipient);
    let mut item = json!({
        "id": message_id,
        "status": status,
        "timestamp": timestamp(),
        "recipient_id": recipient,
    });
    match status {
        "sent" | "delivered" => {
            item["pricing"] = json!({
                "billable": true,
                "pricing_model": "PMP",
                "type": "regular",
                "category": "marketing",
            });
        }
        "failed" => {
            item["errors"] = json!([{
                "code": 131026,
                "title": "Message undeliverable",
                "message": "Message undeliverable",
                "error_data": {"details": "Message Undeliverable."},
            }]);
        }
        _ => {}
    }
    item
}

/// A change of the field `user_preferences`.
pub fn user_preferences(number: &Number, wa_id: &str) -> Value {
    let preference = json!({
        "wa_id": wa_id,
        "detail": "User requested to resume marketing messages",
        "category": "marketing_messages",
        "value": "resume",
        "timestamp": 1_731_705_721_i64 + rand::random_range(0..1_000_000_000),
    });
    number.change(
        "user_preferences",
        json!({"user_preferences": [preference]}),
    )
}

/// A change of the field `account_update`.
pub fn account_update() -> Value {
    let tier = json!({
        "tier_update_time": 1_743_451_903_i64 + rand::random_range(0..1_000_000_000),
        "pricing_category": "UTILITY",
        "tier": "25000001:50000000",
        "effective_month": "2025-11",
        "region": "India",
    });
    let value = json!({"volume_tier_info": tier, "event": "VOLUME_BASED_PRICING_TIER_UPDATE"});
    change("account_update", value)
}

/// A change of the field `standby` with one message in it.
pub fn standby(number: &Number, message: Value) -> Value {
    let standby = json!({"standby": {"contacts": [contact(&message)], "messages": [message]}});
    number.change("standby", standby)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_change_nothing_but_the_spelling() {
        let value = json!({"a": "ä/😮\"\\"});
        let escaped = escape(&value.to_string());
        assert_eq!(escaped, r#"{"a":"\u00e4\/\ud83d\ude2e\"\\"}"#);
        let read: Value = serde_json::from_str(&escaped).expect("JSON");
        assert_eq!(read, value);
    }
}
