//! One item becomes one event. What a type's own file doesn't type travels in `raw`, so a type that
//! nobody has seen before is an event too.

pub mod media;
mod status;
mod text;

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::webhook::{Place, all_members, members, scalar, string};
use uuid::Uuid;

use crate::customer::Customer;
use crate::payload::{Payload, PayloadItem};
use crate::tenants::Tenant;

pub const SCHEMA_VERSION: &str = "1.0";

/// Namespace of event ids (UUIDv5 of the item's identity and the event type).
const EVENT_IDS: Uuid = Uuid::from_u128(0x6f1c_7b1e_52a4_4a3c_9d10_6b0f_e1d2_a7c4);

/// Types of messages that Meta documents. Any other routes as `unknown`: a stranger must not be able
/// to make routing keys.
const MESSAGE_TYPES: [&str; 24] = [
    "audio",
    "button",
    "contacts",
    "document",
    "edit",
    "ephemeral",
    "errors",
    "group",
    "image",
    "interactive",
    "location",
    "media_placeholder",
    "message_history_status",
    "order",
    "reaction",
    "request_welcome",
    "revoke",
    "sticker",
    "system",
    "template",
    "text",
    "unsupported",
    "video",
    "voice",
];
const STATUSES: [&str; 11] = [
    "accepted",
    "captured",
    "deleted",
    "delivered",
    "failed",
    "pending",
    "played",
    "read",
    "sent",
    "warning",
    "success",
];
const CALL_EVENTS: [&str; 8] = [
    "accepted",
    "call_created",
    "call_recording_available",
    "connect",
    "rejected",
    "ringing",
    "terminate",
    "failed",
];

/// An event ready to be published.
#[derive(Debug)]
pub struct Event {
    pub id: Uuid,
    pub kind: &'static str,
    pub routing_key: String,
    pub body: Vec<u8>,
    pub correlation_id: String,
    pub traceparent: String,
    pub tenant_id: String,
    /// Seconds since 1970.
    pub occurred_at: u64,
}

/// Why an item can't be an event.
#[derive(Debug, thiserror::Error)]
#[error("the event can't be written: {0}")]
pub struct Unwritable(#[from] serde_json::Error);

/// Where the raw payload lies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RawObject {
    pub bucket: String,
    pub key: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    schema_version: &'static str,
    event_id: Uuid,
    event_type: &'static str,
    correlation_id: &'a str,
    source: &'static str,
    occurred_at: String,
    received_at: String,
    processed_at: String,
    tenant: TenantPart<'a>,
    channel: ChannelPart<'a>,
    customer: Option<CustomerPart<'a>>,
    conversation: Option<&'a RawValue>,
    group_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessagePart<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<status::Status<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<AccountPart<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<CallPart<'a>>,
    /// Errors that Meta reports beside the items of a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<&'a RawValue>,
    /// The item as Meta sent it, unless all of it is typed above.
    raw: Option<&'a RawValue>,
    raw_object: Option<&'a RawObject>,
    degraded: &'a [&'static str],
}

#[derive(Serialize)]
struct TenantPart<'a> {
    id: &'a str,
    name: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChannelPart<'a> {
    business_account_id: &'a str,
    phone_number_id: Option<&'a str>,
    display_phone_number: Option<&'a str>,
    phone_e164: Option<String>,
    verified_name: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CustomerPart<'a> {
    user_id: Option<&'a str>,
    parent_user_id: Option<&'a str>,
    wa_id: Option<&'a str>,
    phone_e164: Option<String>,
    country_code: Option<&'a str>,
    name: Option<&'a str>,
    username: Option<&'a str>,
    profile_picture_url: Option<&'a str>,
    account_type: Option<&'a str>,
}

#[derive(Serialize)]
struct MessagePart<'a> {
    id: Option<&'a str>,
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    timestamp: Option<Cow<'a, str>>,
    content: Option<serde_json::Value>,
    media: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct AccountPart<'a> {
    field: &'a str,
    value: &'a RawValue,
}

#[derive(Serialize)]
struct CallPart<'a> {
    id: Option<&'a str>,
    event: Cow<'a, str>,
}

/// Id of the event of an item.
pub fn event_id(item: &PayloadItem, kind: &str) -> Uuid {
    let mut name = item.identity.0.to_vec();
    name.extend(kind.as_bytes());
    Uuid::new_v5(&EVENT_IDS, &name)
}

/// stub
pub fn follow_up(
    payload: &Payload,
    item: &PayloadItem,
    tenant: &Arc<Tenant>,
    raw_object: Option<&RawObject>,
    media: &media::MediaState,
) -> Result<Event, Unwritable> {
    let mut event = event(payload, item, tenant, raw_object, Some(media), None, &[])?;
    let name = if matches!(media, media::MediaState::Stored { .. }) {
        "stored"
    } else {
        "failed"
    };
    event.kind = if name == "stored" {
        "media.stored"
    } else {
        "media.failed"
    };
    event.id = event_id(item, event.kind);
    event.routing_key = format!("media.{name}.{}", word(&tenant.id));
    let mut body: serde_json::Value = serde_json::from_slice(&event.body)?;
    body["eventId"] = event.id.to_string().into();
    body["eventType"] = event.kind.into();
    event.body = serde_json::to_vec(&body)?;
    Ok(event)
}

/// Makes the event of an item.
///
/// # Errors
/// [`Unwritable`], which no input is known to cause.
pub fn event(
    payload: &Payload,
    item: &PayloadItem,
    tenant: &Arc<Tenant>,
    raw_object: Option<&RawObject>,
    media: Option<&media::MediaState>,
    conversation: Option<&RawValue>,
    degraded: &[&'static str],
) -> Result<Event, Unwritable> {
    let raw = payload.raw(item);
    let change = payload.change(item);
    let customer = Customer::of(payload, item);
    let [kind, status, call_event, timestamp] =
        members(raw, ["type", "status", "event", "timestamp"]).unwrap_or_default();
    let message_type = kind.and_then(string).unwrap_or(Cow::Borrowed("unknown"));
    let status_name = status.and_then(string).unwrap_or(Cow::Borrowed("unknown"));
    let timestamp = timestamp.and_then(scalar);
    let received_at = time(payload.entry.received_at_ms);
    let occurred_at = timestamp
        .as_deref()
        .and_then(|seconds| seconds.parse::<i64>().ok())
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .unwrap_or(received_at);
    let route = |group: &str, known: &[&str], name: &str| {
        let name = if known.contains(&name) {
            name
        } else {
            "unknown"
        };
        format!("{group}.{}.{}", word(name), word(&tenant.id))
    };

    let mut document = Document {
        schema_version: SCHEMA_VERSION,
        event_id: Uuid::nil(),
        event_type: "",
        correlation_id: &payload.entry.correlation_id,
        source: "whatsapp",
        occurred_at: rfc3339(occurred_at),
        received_at: rfc3339(received_at),
        processed_at: rfc3339(Utc::now()),
        tenant: TenantPart {
            id: &tenant.id,
            name: tenant.name.as_deref(),
        },
        channel: ChannelPart {
            business_account_id: &payload.entry.waba_id,
            phone_number_id: item.phone_number_id.as_deref(),
            display_phone_number: change.display_phone_number.as_deref(),
            phone_e164: change.display_phone_number.as_deref().and_then(e164),
            verified_name: None,
        },
        customer: customer_part(&customer),
        conversation,
        group_id: customer.group_id.as_deref(),
        message: None,
        status: None,
        account: None,
        call: None,
        errors: payload.change_errors(item),
        raw: Some(raw),
        raw_object,
        degraded,
    };
    let message = |content| MessagePart {
        id: item.id.as_deref(),
        kind: message_type.clone(),
        timestamp: timestamp.clone(),
        content,
        media: media.and_then(|state| Some(media::json(&media::media_ref(raw)?, state))),
    };
    let account = AccountPart {
        field: &item.field,
        value: raw,
    };
    let routing_key;
    match item.place {
        Place::Message => {
            document.event_type = "message.received";
            routing_key = route("message", &MESSAGE_TYPES, &message_type);
            let typed = match &*message_type {
                "text" => text::content(raw),
                _ => None,
            };
            if let Some(typed) = typed {
                document.message = Some(message(Some(typed.content)));
                document.raw = Some(raw).filter(|_| !typed.complete);
            } else {
                document.message = Some(message(None));
            }
        }
        Place::Status => {
            document.event_type = "status.updated";
            routing_key = route("status", &STATUSES, &status_name);
            if let Some((status, complete)) = status::status(raw) {
                document.status = Some(status);
                document.raw = Some(raw).filter(|_| !complete);
            }
        }
        Place::StandbyMessage | Place::StandbyEcho => {
            document.event_type = "message.standby";
            routing_key = route("standby", &MESSAGE_TYPES, &message_type);
            document.message = Some(message(None));
        }
        Place::StandbyStatus => {
            document.event_type = "message.standby";
            routing_key = route("standby", &STATUSES, &status_name);
        }
        Place::Echo => {
            document.event_type = "message.echo";
            routing_key = route("echo", &MESSAGE_TYPES, &message_type);
            document.message = Some(message(None));
        }
        Place::HistoryThreadMessage | Place::HistoryMessage | Place::HistoryEcho => {
            document.event_type = "message.history";
            routing_key = route("history", &MESSAGE_TYPES, &message_type);
            document.message = Some(message(None));
        }
        Place::Call | Place::CallStatus => {
            document.event_type = "call.updated";
            let event = match item.place {
                Place::Call => call_event
                    .and_then(string)
                    .unwrap_or(Cow::Borrowed("unknown")),
                _ => Cow::Owned(status_name.to_ascii_lowercase()),
            };
            routing_key = route("call", &CALL_EVENTS, &event);
            document.call = Some(CallPart {
                id: item.id.as_deref(),
                event,
            });
        }
        Place::UserAction => {
            document.event_type = "account.updated";
            routing_key = format!("account.user_actions.{}", word(&tenant.id));
            document.account = Some(account);
        }
        Place::ValueErrors => {
            document.event_type = "account.updated";
            routing_key = format!("account.errors.{}", word(&tenant.id));
            document.account = Some(account);
        }
        Place::Change => {
            document.event_type = "account.updated";
            let field = if item.field.is_empty() {
                "unknown"
            } else {
                &item.field
            };
            routing_key = format!("account.{}.{}", word(field), word(&tenant.id));
            document.account = Some(account);
        }
    }
    document.event_id = event_id(item, document.event_type);
    Ok(Event {
        id: document.event_id,
        kind: document.event_type,
        routing_key,
        body: serde_json::to_vec(&document)?,
        correlation_id: payload.entry.correlation_id.clone(),
        traceparent: payload.entry.traceparent.clone(),
        tenant_id: tenant.id.clone(),
        occurred_at: occurred_at.timestamp().try_into().unwrap_or(0),
    })
}

fn customer_part(customer: &Customer) -> Option<CustomerPart<'_>> {
    let contact = customer.contact.as_ref();
    let of_contact = |part: fn(&crate::payload::Contact) -> &Option<String>| {
        contact.and_then(|contact| part(contact).as_deref())
    };
    let user_id = customer.user_id.as_deref().or(of_contact(|c| &c.user_id));
    let wa_id = customer.wa_id.as_deref().or(of_contact(|c| &c.wa_id));
    let parent_user_id = customer
        .parent_user_id
        .as_deref()
        .or(of_contact(|c| &c.parent_user_id));
    user_id.or(wa_id).or(parent_user_id)?;
    Some(CustomerPart {
        user_id,
        parent_user_id,
        wa_id,
        phone_e164: wa_id.and_then(e164),
        country_code: None,
        name: of_contact(|c| &c.name),
        username: of_contact(|c| &c.username),
        profile_picture_url: None,
        account_type: None,
    })
}

/// `+` and digits, of a number that Meta writes with or without `+`, spaces and dashes.
fn e164(number: &str) -> Option<String> {
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    let other = number
        .chars()
        .any(|c| !(c.is_ascii_digit() || matches!(c, '+' | ' ' | '-' | '(' | ')')));
    (!other && (7..=15).contains(&digits.len())).then(|| format!("+{digits}"))
}

/// A word of a routing key: dots would add levels, `*` and `#` mean something, and AMQP allows 255
/// bytes in all.
fn word(text: &str) -> String {
    text.chars()
        .take(100)
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') {
                c
            } else {
                '_'
            }
        })
        .collect()
}

fn time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Meta's members in camelCase; names that are data (of flows, of templates) are not touched: their
/// values are kept as they are.
fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        match c {
            '_' => upper = !camel.is_empty(),
            c if upper => {
                camel.extend(c.to_uppercase());
                upper = false;
            }
            c => camel.push(c),
        }
    }
    camel
}

/// An object with its members renamed to camelCase, at every level; `None` where the JSON can't be
/// held as a value (a lone surrogate, `1e400`), which then stays in `raw`.
fn camel_cased(raw: &RawValue) -> Option<serde_json::Value> {
    fn rename(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(members) => members
                .into_iter()
                .map(|(name, value)| (camel_case(&name), rename(value)))
                .collect(),
            serde_json::Value::Array(elements) => elements.into_iter().map(rename).collect(),
            other => other,
        }
    }
    serde_json::from_str(raw.get()).ok().map(rename)
}

/// Whether an object has no members but these, none of them twice.
fn has_only(raw: &RawValue, names: &[&str]) -> bool {
    all_members(raw).is_some_and(|members| {
        let mut seen: Vec<_> = members.iter().map(|(name, _)| &**name).collect();
        seen.sort_unstable();
        seen.windows(2).all(|pair| pair[0] != pair[1])
            && seen.iter().all(|name| names.contains(name))
    })
}

/// Whether a message has nothing but the envelope's members, readable, and `own`.
fn envelope_and(raw: &RawValue, own: &str) -> bool {
    let names: Vec<_> = MESSAGE_ENVELOPE.into_iter().chain([own]).collect();
    has_only(raw, &names)
        && members(raw, MESSAGE_ENVELOPE)
            .is_some_and(|members| members.into_iter().flatten().all(|m| scalar(m).is_some()))
}

/// Content of a message in an event, and whether it and the envelope hold all that Meta sent.
struct Typed {
    content: serde_json::Value,
    complete: bool,
}

/// The members that every message's envelope holds.
const MESSAGE_ENVELOPE: [&str; 7] = [
    "id",
    "type",
    "timestamp",
    "from",
    "from_user_id",
    "from_parent_user_id",
    "group_id",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routing_key_has_no_more_words_than_it_should() {
        assert_eq!(word("a.b*c#d-é_1"), "a_b_c_d-__1");
    }

    #[test]
    fn numbers_become_e164() {
        assert_eq!(e164("+1 (555) 078-3881").as_deref(), Some("+15550783881"));
        assert_eq!(e164("US.1349"), None);
    }
}
