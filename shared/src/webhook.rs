//! Reads the envelope of a webhook body: which business accounts, which items, and what each item's
//! identity is. The items themselves stay raw JSON, so an odd one costs nobody else anything.
//!
//! Both programs number the items of a body by this walk: ingress writes the numbers of the fresh
//! ones into the stream entry, the worker picks these out again. ingress has a faster walk for
//! everyday bodies; its result must equal this one's.

mod identity;
mod json;

use std::borrow::Cow;

use serde_json::value::RawValue;

pub use self::identity::{Identity, IdentityParts, Place, identity, identity_parts};
use self::json::list;
pub use self::json::{all_members, elements, members, scalar, string};

/// The `object` that Meta puts into every WhatsApp webhook.
pub const OBJECT: &str = "whatsapp_business_account";

/// The account of a body that names none (`"entry":[]`); Meta's dashboard sends it too.
pub const NO_WABA: &str = "0";

/// Items and entries of a body. Meta sends at most 1000 updates, and some thousand messages of a
/// history; far more of them in one script would hold up everybody else's.
pub const MOST_ITEMS: usize = 20_000;
pub const MOST_ENTRIES: usize = 1000;

/// Why a body can't be taken apart. It is stored whole and set aside, never dropped.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnreadableBody {
    #[error("not JSON")]
    NotJson,
    #[error("`object` is not {OBJECT}")]
    OtherObject,
    #[error("not the shape of a webhook: {0}")]
    Shape(&'static str),
    #[error("more than {MOST_ITEMS} items or {MOST_ENTRIES} entries")]
    TooMany,
}

/// A body, taken apart as far as its items.
#[derive(Debug)]
pub struct Webhook<'a> {
    pub entries: Vec<WebhookEntry<'a>>,
}

/// One element of `entry[]`: updates of one business account.
#[derive(Debug)]
pub struct WebhookEntry<'a> {
    /// The account's id, or [`NO_WABA`].
    pub waba_id: Cow<'a, str>,
    /// The element's bytes as they came.
    pub raw: &'a RawValue,
    pub items: Vec<WebhookItem<'a>>,
}

/// One thing that happened: one event.
#[derive(Debug, Clone)]
pub struct WebhookItem<'a> {
    pub place: Place,
    /// `changes[].field`, empty where it is missing.
    pub field: Cow<'a, str>,
    /// The item's JSON as it came.
    pub raw: &'a RawValue,
    /// The change's whole `value`, of which the item is a part.
    pub value: &'a RawValue,
    pub phone_number_id: Option<Cow<'a, str>>,
    /// `id` of a message, status or call.
    pub id: Option<Cow<'a, str>>,
    pub identity: Identity,
}

/// Takes a body apart.
///
/// # Errors
/// [`UnreadableBody`] if it isn't JSON (UTF-8), is another product's, `entry` and `changes` are not
/// arrays of objects, or it has too many of them. Anything odd below that is an item.
pub fn read(body: &[u8]) -> Result<Webhook<'_>, UnreadableBody> {
    let top: &RawValue = serde_json::from_slice(body).map_err(|_| UnreadableBody::NotJson)?;
    let [object, entries] = members(top, ["object", "entry"]).ok_or(UnreadableBody::OtherObject)?;
    let entries = entries.map(elements);
    match (object.map(string), &entries) {
        // Two of Meta's published examples have no `object`.
        (None, Some(Some(_))) => {}
        (Some(Some(object)), _) if object == OBJECT => {}
        _ => return Err(UnreadableBody::OtherObject),
    }
    let entries = entries
        .ok_or(UnreadableBody::Shape("`entry` is missing"))?
        .ok_or(UnreadableBody::Shape("`entry` is not an array"))?;
    if entries.len() > MOST_ENTRIES {
        return Err(UnreadableBody::TooMany);
    }
    let mut items = 0;
    let entries = entries.into_iter().map(|entry| {
        let entry = read_entry(entry)?;
        items += entry.items.len();
        (items <= MOST_ITEMS)
            .then_some(entry)
            .ok_or(UnreadableBody::TooMany)
    });
    Ok(Webhook {
        entries: entries.collect::<Result<_, _>>()?,
    })
}

fn read_entry(raw: &RawValue) -> Result<WebhookEntry<'_>, UnreadableBody> {
    let [id, time, changes, entry_field] = members(raw, ["id", "time", "changes", "field"]).ok_or(
        UnreadableBody::Shape("an element of `entry` is not an object"),
    )?;
    let has_no_changes = changes.is_none_or(|changes| changes.get() == "null");
    let changes = match changes.filter(|_| !has_no_changes) {
        None => Vec::new(),
        Some(changes) => {
            elements(changes).ok_or(UnreadableBody::Shape("`changes` is not an array"))?
        }
    };
    let changes = changes
        .into_iter()
        .map(|change| -> Result<_, UnreadableBody> {
            let [field, value] = members(change, ["field", "value"]).ok_or(
                UnreadableBody::Shape("an element of `changes` is not an object"),
            )?;
            Ok((change, field, value))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let waba_id = changes
        .iter()
        .find_map(|(_, _, value)| portfolio_waba((*value)?))
        .or_else(|| id.and_then(scalar))
        .filter(|id| !id.is_empty())
        .unwrap_or(Cow::Borrowed(NO_WABA));
    let entry_time = time.map_or("", RawValue::get).as_bytes();
    let mut items = Vec::new();
    for (raw, field, value) in changes {
        if items.len() > MOST_ITEMS {
            break;
        }
        let value = value.filter(|value| value.get() != "null");
        Change {
            field: field_name(field, entry_field),
            value: value.unwrap_or(raw),
            waba_id: &waba_id,
            entry_time,
        }
        .read(value.is_some(), &mut items);
    }
    if has_no_changes {
        let whole = Change {
            field: field_name(None, entry_field),
            value: raw,
            waba_id: &waba_id,
            entry_time,
        };
        whole.read(false, &mut items);
    }
    Ok(WebhookEntry {
        waba_id,
        raw,
        items,
    })
}

/// Two of Meta's published examples carry `field` beside `changes`.
fn field_name<'a>(of_change: Option<&'a RawValue>, of_entry: Option<&'a RawValue>) -> Cow<'a, str> {
    let name = of_change.and_then(string);
    name.or_else(|| of_entry.and_then(string))
        .unwrap_or_default()
}

/// `value.waba_info.waba_id`: there where `entry[].id` is a business portfolio's.
fn portfolio_waba(value: &RawValue) -> Option<Cow<'_, str>> {
    let [info] = members(value, ["waba_info"])?;
    let [waba_id] = members(info?, ["waba_id"])?;
    scalar(waba_id?).filter(|id| !id.is_empty())
}

struct Change<'a, 'w> {
    field: Cow<'a, str>,
    value: &'a RawValue,
    waba_id: &'w str,
    entry_time: &'a [u8],
}

impl<'a> Change<'a, '_> {
    /// `has_value`: else `value` is the change, or the entry, as a whole.
    fn read(self, has_value: bool, items: &mut Vec<WebhookItem<'a>>) {
        if !has_value {
            if says_something(self.value) {
                items.push(self.item(Place::UnknownShape, self.value, None));
            }
            return;
        }
        let before = items.len();
        let phone_number_id = members(self.value, ["metadata"])
            .and_then(|[metadata]| members(metadata?, ["phone_number_id"]))
            .and_then(|[id]| scalar(id?));
        // One beyond the limit tells that there are too many; a million need not be hashed for that.
        let mut take = |place, raw| {
            if items.len() <= MOST_ITEMS {
                items.push(self.item(place, raw, phone_number_id.clone()));
            }
        };
        match &*self.field {
            "messages" => {
                let [messages, statuses, user_actions] =
                    members(self.value, ["messages", "statuses", "user_actions"])
                        .unwrap_or_default();
                list(messages).for_each(|raw| take(Place::Message, raw));
                list(statuses).for_each(|raw| take(Place::Status, raw));
                list(user_actions).for_each(|raw| take(Place::UserAction, raw));
            }
            "standby" => {
                let [standby] = members(self.value, ["standby"]).unwrap_or_default();
                let [messages, statuses, echoes] = standby
                    .and_then(|standby| {
                        members(standby, ["messages", "statuses", "message_echoes"])
                    })
                    .unwrap_or_default();
                list(messages).for_each(|raw| take(Place::StandbyMessage, raw));
                list(statuses).for_each(|raw| take(Place::StandbyStatus, raw));
                list(echoes).for_each(|raw| take(Place::StandbyEcho, raw));
            }
            "smb_message_echoes" | "message_echoes" => {
                // Some send them under the name of other messages.
                let [echoes, messages] =
                    members(self.value, ["message_echoes", "messages"]).unwrap_or_default();
                list(echoes).for_each(|raw| take(Place::Echo, raw));
                list(messages).for_each(|raw| take(Place::Echo, raw));
            }
            "history" => {
                let [history, messages, echoes] =
                    members(self.value, ["history", "messages", "message_echoes"])
                        .unwrap_or_default();
                list(history)
                    .filter_map(|chunk| members(chunk, ["threads"]))
                    .flat_map(|[threads]| list(threads))
                    .filter_map(|thread| members(thread, ["messages"]))
                    .flat_map(|[messages]| list(messages))
                    .for_each(|raw| take(Place::HistoryThreadMessage, raw));
                list(messages).for_each(|raw| take(Place::HistoryMessage, raw));
                list(echoes).for_each(|raw| take(Place::HistoryEcho, raw));
            }
            "calls" => {
                let [calls, statuses] =
                    members(self.value, ["calls", "statuses"]).unwrap_or_default();
                list(calls).for_each(|raw| take(Place::Call, raw));
                list(statuses).for_each(|raw| take(Place::CallStatus, raw));
            }
            _ => {}
        }
        if items.len() == before
            && let Some(place) = whole_value(&self.field, self.value)
        {
            items.push(self.item(place, self.value, phone_number_id));
        }
    }

    fn item(
        &self,
        place: Place,
        raw: &'a RawValue,
        phone_number_id: Option<Cow<'a, str>>,
    ) -> WebhookItem<'a> {
        let parts = identity_parts(raw);
        let number = phone_number_id.as_deref().unwrap_or(self.waba_id);
        WebhookItem {
            place,
            identity: identity(
                place,
                &self.field,
                number,
                &parts,
                raw.get().as_bytes(),
                self.entry_time,
            ),
            field: self.field.clone(),
            raw,
            value: self.value,
            phone_number_id,
            id: parts.id,
        }
    }
}

/// What a value without listed items is: nothing, or one item. Of the fields that list their items
/// only the envelope (`messaging_product`, `metadata`, `contacts`) and empty members are nothing.
fn whole_value(field: &str, value: &RawValue) -> Option<Place> {
    let lists_items = matches!(
        field,
        "messages" | "standby" | "smb_message_echoes" | "message_echoes" | "history" | "calls"
    );
    let Some(map) = all_members(value) else {
        return (value.get() != "null").then_some(Place::Change);
    };
    let mut content = map
        .iter()
        .filter(|(name, value)| {
            !lists_items
                || !(matches!(&**name, "messaging_product" | "metadata" | "contacts")
                    || is_empty(value))
        })
        .peekable();
    content.peek()?;
    if field == "messages" && content.all(|(name, _)| name == "errors") {
        Some(Place::ValueErrors)
    } else {
        Some(Place::Change)
    }
}

/// Whether a change without a value, or an entry without changes, holds more than its envelope.
fn says_something(raw: &RawValue) -> bool {
    const ENVELOPE: [&str; 6] = ["id", "time", "uid", "object", "field", "changes"];
    let members = all_members(raw).unwrap_or_default();
    let mut content = members
        .iter()
        .filter(|(name, _)| !ENVELOPE.contains(&&**name));
    content.any(|(_, member)| !is_empty(member))
}

/// `null`, `[]`, `{}`, and arrays or objects of only such.
fn is_empty(value: &RawValue) -> bool {
    value
        .get()
        .bytes()
        .all(|byte| matches!(byte, b'[' | b']' | b'{' | b'}' | b',') || byte.is_ascii_whitespace())
        || value.get() == "null"
}
