//! Delivery statuses: what became of a message that the business sent.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use shared::webhook::{elements, members, scalar, string};

use super::{camel_cased, has_only};

/// The `status` of an event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status<'a> {
    message_id: Option<Cow<'a, str>>,
    status: Cow<'a, str>,
    /// Later in a message's life is higher; Meta sends statuses in any order. `null`: not in that
    /// line.
    rank: Option<u8>,
    timestamp: Option<Cow<'a, str>>,
    recipient_id: Option<Cow<'a, str>>,
    recipient_user_id: Option<Cow<'a, str>>,
    recipient_parent_user_id: Option<Cow<'a, str>>,
    recipient_type: Option<Cow<'a, str>>,
    recipient_participant_id: Option<Cow<'a, str>>,
    errors: Vec<serde_json::Value>,
    pricing: Option<serde_json::Value>,
    conversation: Option<serde_json::Value>,
    callback_data: Option<Cow<'a, str>>,
}

/// Reads a status, and whether it holds all that Meta sent; `None` if it has no `status`.
pub(super) fn status(raw: &RawValue) -> Option<(Status<'_>, bool)> {
    const NAMES: [&str; 12] = [
        "id",
        "status",
        "timestamp",
        "recipient_id",
        "recipient_user_id",
        "recipient_parent_user_id",
        "recipient_type",
        "recipient_participant_id",
        "errors",
        "pricing",
        "conversation",
        "biz_opaque_callback_data",
    ];
    let [
        id,
        status,
        timestamp,
        recipient_id,
        user,
        parent,
        recipient_type,
        participant,
        errors,
        pricing,
        conversation,
        callback,
    ] = members(raw, NAMES)?;
    let name = string(status?)?;
    let scalars = [
        id,
        timestamp,
        recipient_id,
        user,
        parent,
        recipient_type,
        participant,
        callback,
    ];
    let error_list = errors.map(elements);
    let typed_errors: Option<Vec<_>> = error_list
        .clone()
        .flatten()
        .unwrap_or_default()
        .into_iter()
        .map(camel_cased)
        .collect();
    let objects = [pricing, conversation];
    let complete = has_only(raw, &NAMES)
        && scalars.iter().flatten().all(|raw| scalar(raw).is_some())
        && error_list.is_none_or(|list| list.is_some())
        && typed_errors.is_some()
        && objects
            .iter()
            .flatten()
            .all(|raw| camel_cased(raw).is_some());
    let status = Status {
        rank: rank(&name),
        message_id: text(id),
        status: name,
        timestamp: text(timestamp),
        recipient_id: text(recipient_id),
        recipient_user_id: text(user),
        recipient_parent_user_id: text(parent),
        recipient_type: text(recipient_type),
        recipient_participant_id: text(participant),
        errors: typed_errors.unwrap_or_default(),
        pricing: pricing.and_then(camel_cased),
        conversation: conversation.and_then(camel_cased),
        callback_data: text(callback),
    };
    Some((status, complete))
}

fn text(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    raw.and_then(scalar)
}

fn rank(status: &str) -> Option<u8> {
    match status {
        "accepted" => Some(0),
        "sent" => Some(1),
        "delivered" => Some(2),
        "read" => Some(3),
        "played" => Some(4),
        _ => None,
    }
}
