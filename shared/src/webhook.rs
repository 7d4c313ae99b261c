//! Reads the envelope of a webhook body: which business accounts, which items, and what each item's
//! identity is. The items themselves stay raw JSON, so an odd one costs nobody else anything.
//!
//! Both programs number the items of a body by this walk: ingress writes the numbers of the fresh
//! ones into the stream entry, the worker picks these out again. ingress has a faster walk for
//! everyday bodies; its result must equal this one's.

mod identity;
mod json;

use std::borrow::Cow;

pub use self::identity::{Identity, IdentityParts, Place, identity, identity_parts};
use self::json::list;
pub use self::json::{Json, all_members, elements, members, scalar, string};

/// The `object` that Meta puts into every WhatsApp webhook.
pub const OBJECT: &str = "whatsapp_business_account";

/// The account of a body that names none (`"entry":[]`); Meta's dashboard sends it too.
pub const NO_WABA: &str = "0";

/// Items and entries of a body. Meta sends at most 1000 updates, and some thousand messages of a
/// history; far more of them in one script would hold up everybody else's.
pub const MOST_ITEMS: usize = 20_000;
pub const MOST_ENTRIES: usize = 1000;
/// Accounts that one element of `entry[]` may name, and bytes that are copied for each of them.
const MOST_ACCOUNTS: usize = 100;
const MOST_COPIED: usize = 1000;

/// Why a body can't be taken apart. It is stored whole and set aside, never dropped.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnreadableBody {
    #[error("not JSON")]
    NotJson,
    #[error("`object` is not {OBJECT}")]
    OtherObject,
    #[error("not the shape of a webhook: {0}")]
    Shape(&'static str),
    #[error(
        "more than {MOST_ITEMS} items, {MOST_ENTRIES} entries, or {MOST_ACCOUNTS} accounts in one of them"
    )]
    TooMany,
    /// Only in the worker: the numbers of its items mean nothing then.
    #[error("ingress, of another version, found {0} items in it, and this version finds {1}")]
    OtherItems(usize, usize),
}

/// A body, taken apart as far as its items.
#[derive(Debug)]
pub struct Webhook<'a> {
    pub entries: Vec<WebhookEntry<'a>>,
}

/// Updates of one business account: an element of `entry[]`, or a part of one that names several.
#[derive(Debug)]
pub struct WebhookEntry<'a> {
    /// The account's id, or [`NO_WABA`].
    pub waba_id: Cow<'a, str>,
    /// The element's bytes as they came.
    pub raw: Json<'a>,
    /// Of an element that names several accounts: what of it is this one's.
    part: Option<EntryPart<'a>>,
    /// `time`, as sent.
    pub time: Option<Json<'a>>,
    /// Those that have items.
    pub changes: Vec<WebhookChange<'a>>,
    pub items: Vec<WebhookItem<'a>>,
}

#[derive(Debug)]
struct EntryPart<'a> {
    changes: Vec<Json<'a>>,
    /// The other members.
    beside: Vec<(Cow<'a, str>, Json<'a>)>,
}

/// What items share.
#[derive(Debug, Clone)]
pub struct WebhookChange<'a> {
    /// `changes[].field`, empty where it is missing.
    pub field: Cow<'a, str>,
    /// The whole `value`; where there is none, the change or the entry.
    pub value: Json<'a>,
    /// Of the value; `None` where it is no object.
    pub members: Option<Vec<(Cow<'a, str>, Json<'a>)>>,
    pub phone_number_id: Option<Cow<'a, str>>,
}

/// One thing that happened: one event.
#[derive(Debug, Clone)]
pub struct WebhookItem<'a> {
    pub place: Place,
    /// Which of the entry's `changes` it is part of.
    pub change: usize,
    /// The item's JSON as it came.
    pub raw: Json<'a>,
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
    let top = Json::parse(body).ok_or(UnreadableBody::NotJson)?;
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
    let raw_entries = entries;
    let (mut entries, mut items) = (Vec::with_capacity(raw_entries.len()), 0);
    for raw in raw_entries {
        let read = read_entry(raw)?;
        items += read.iter().map(|entry| entry.items.len()).sum::<usize>();
        entries.extend(read);
        if items > MOST_ITEMS || entries.len() > MOST_ENTRIES {
            return Err(UnreadableBody::TooMany);
        }
    }
    if items == 0 && says_something(top, &BODY_ENVELOPE) {
        // Its entries say nothing beside the account, so it is one entry, as a whole.
        let first = entries.first().map(|entry| entry.waba_id.clone());
        let one_account = first.filter(|id| entries.iter().all(|entry| entry.waba_id == *id));
        let waba_id = one_account.unwrap_or(Cow::Borrowed(NO_WABA));
        let mut body = WebhookEntry::empty(waba_id, top, None);
        body.add(Cow::default(), None, (top, &BODY_ENVELOPE));
        entries = vec![body];
    }
    Ok(Webhook { entries })
}

/// An element of `changes[]`.
struct RawChange<'a> {
    raw: Json<'a>,
    field: Option<Json<'a>>,
    value: Option<Json<'a>>,
}

/// Of each account that an element of `entry[]` names what is its own.
fn read_entry(raw: Json<'_>) -> Result<Vec<WebhookEntry<'_>>, UnreadableBody> {
    let [id, time, changes, entry_field] = members(raw, ["id", "time", "changes", "field"]).ok_or(
        UnreadableBody::Shape("an element of `entry` is not an object"),
    )?;
    let own = id.and_then(scalar).filter(|id| !id.is_empty());
    let own = own.unwrap_or(Cow::Borrowed(NO_WABA));
    let accounts = by_account(read_changes(changes)?)?;
    let several = accounts.len() > 1;
    let beside = [("id", id), ("time", time), ("field", entry_field)];
    let beside = beside.into_iter();
    let beside = beside.filter_map(|(name, member)| Some((Cow::Borrowed(name), member?)));
    let beside: Vec<_> = beside.collect();
    if several && beside.iter().map(|(_, it)| it.get().len()).sum::<usize>() > MOST_COPIED {
        return Err(UnreadableBody::TooMany);
    }
    let (mut parts, mut silent, mut items) = (Vec::with_capacity(accounts.len()), Vec::new(), 0);
    for (account, changes) in accounts {
        let raws = changes.iter().map(|change| change.raw).collect();
        let mut part = WebhookEntry::empty(account.unwrap_or_else(|| own.clone()), raw, time);
        part.add_changes(changes, entry_field);
        items += part.items.len();
        if items > MOST_ITEMS {
            return Err(UnreadableBody::TooMany);
        }
        if part.items.is_empty() {
            silent.push((part.waba_id, raws));
        } else {
            part.part = several.then(|| EntryPart {
                changes: raws,
                beside: beside.clone(),
            });
            parts.push(part);
        }
    }
    let Some(first) = parts.first_mut() else {
        let only = silent.pop().filter(|_| silent.is_empty());
        let waba_id = only.map_or(own, |(waba_id, _)| waba_id);
        let mut whole = WebhookEntry::empty(waba_id, raw, time);
        whole.add(field_name(None, entry_field), None, (raw, &ENTRY_ENVELOPE));
        return Ok(vec![whole]);
    };
    if let Some(first) = &mut first.part {
        // What tells nothing and what is unknown are nobody's: the first one keeps them for the archive.
        let silent = silent.into_iter().flat_map(|(_, raws)| raws);
        first.changes.extend(silent);
        first.beside = members_but_changes(raw);
    }
    Ok(parts)
}

/// The elements of `changes`, which may be absent or `null`.
fn read_changes(changes: Option<Json<'_>>) -> Result<Vec<RawChange<'_>>, UnreadableBody> {
    let Some(changes) = changes.filter(|changes| changes.get() != "null") else {
        return Ok(Vec::new());
    };
    let changes = elements(changes).ok_or(UnreadableBody::Shape("`changes` is not an array"))?;
    let changes = changes.into_iter().map(|raw| {
        let [field, value] = members(raw, ["field", "value"]).ok_or(UnreadableBody::Shape(
            "an element of `changes` is not an object",
        ))?;
        Ok(RawChange {
            raw,
            field,
            value: value.filter(|value| value.get() != "null"),
        })
    });
    changes.collect()
}

/// All but the `changes` that count: of a name that stands twice, the last.
fn members_but_changes(entry: Json<'_>) -> Vec<(Cow<'_, str>, Json<'_>)> {
    let mut members = all_members(entry).unwrap_or_default();
    if let Some(at) = members.iter().rposition(|(name, _)| name == "changes") {
        members.remove(at);
    }
    members
}

/// An account that changes name, or `None`: the element's own.
type ChangesOf<'a> = (Option<Cow<'a, str>>, Vec<RawChange<'a>>);

/// The accounts of an element's changes, in the order in which they first stand in it, and what is whose.
fn by_account<'a>(changes: Vec<RawChange<'a>>) -> Result<Vec<ChangesOf<'a>>, UnreadableBody> {
    let mut accounts: Vec<ChangesOf<'a>> = Vec::new();
    for change in changes {
        let named = change.value.and_then(portfolio_waba);
        match accounts.iter_mut().find(|(account, _)| *account == named) {
            Some((_, changes)) => changes.push(change),
            None => accounts.push((named, vec![change])),
        }
        if accounts.len() > MOST_ACCOUNTS {
            return Err(UnreadableBody::TooMany);
        }
    }
    Ok(accounts)
}

/// Two of Meta's published examples carry `field` beside `changes`.
fn field_name<'a>(of_change: Option<Json<'a>>, of_entry: Option<Json<'a>>) -> Cow<'a, str> {
    let name = of_change.and_then(string);
    name.or_else(|| of_entry.and_then(string))
        .unwrap_or_default()
}

/// `value.waba_info.waba_id`: there where `entry[].id` is a business portfolio's.
fn portfolio_waba(value: Json<'_>) -> Option<Cow<'_, str>> {
    let [info] = members(value, ["waba_info"])?;
    let [waba_id] = members(info?, ["waba_id"])?;
    scalar(waba_id?).filter(|id| !id.is_empty())
}

/// Whether each value of a field has its items in lists: the fields that [`WebhookEntry::take_items`] knows,
/// but `history`, since one that was declined has none. A value without any such list has an unknown shape.
pub fn has_lists(field: &str) -> bool {
    matches!(
        field,
        "messages" | "standby" | "smb_message_echoes" | "message_echoes" | "calls"
    )
}

impl<'a> WebhookEntry<'a> {
    fn empty(waba_id: Cow<'a, str>, raw: Json<'a>, time: Option<Json<'a>>) -> Self {
        Self {
            waba_id,
            raw,
            part: None,
            time,
            changes: Vec::new(),
            items: Vec::new(),
        }
    }

    /// The element as it came, or the part of it.
    pub fn json(&self) -> Cow<'a, str> {
        let Some(part) = &self.part else {
            return Cow::Borrowed(self.raw.get());
        };
        let beside = part.beside.iter();
        let beside = beside.map(|(name, member)| {
            format!("{}:{},", serde_json::Value::from(&**name), member.get())
        });
        let beside: String = beside.collect();
        let changes: Vec<_> = part.changes.iter().map(|change| change.get()).collect();
        format!(r#"{{{beside}"changes":[{}]}}"#, changes.join(",")).into()
    }

    fn add_changes(&mut self, changes: Vec<RawChange<'a>>, entry_field: Option<Json<'a>>) {
        for change in changes {
            if self.items.len() > MOST_ITEMS {
                break;
            }
            let field = field_name(change.field, entry_field);
            self.add(field, change.value, (change.raw, &CHANGE_ENVELOPE));
        }
    }

    /// Takes the items of `value`. Where it has none, `whole` (its change; the entry, or the body, that has no
    /// items at all) is one, if it has more than its envelope.
    fn add(
        &mut self,
        field: Cow<'a, str>,
        value: Option<Json<'a>>,
        (whole, envelope): (Json<'a>, &[&str]),
    ) {
        let mut change = WebhookChange {
            field,
            value: value.unwrap_or(whole),
            members: all_members(value.unwrap_or(whole)),
            phone_number_id: None,
        };
        let before = self.items.len();
        if value.is_some() {
            let [metadata] = change.named(["metadata"]);
            change.phone_number_id = metadata
                .and_then(|metadata| members(metadata, ["phone_number_id"]))
                .and_then(|[id]| scalar(id?));
            self.take_items(&change);
        }
        if self.items.len() == before && says_something(whole, envelope) {
            change.value = whole;
            change.members = all_members(whole);
            self.take(&change, Place::UnknownShape, whole);
        }
        if self.items.len() > before {
            self.changes.push(change);
        }
    }

    fn take_items(&mut self, change: &WebhookChange<'a>) {
        let before = self.items.len();
        let mut take = |place, raw| self.take(change, place, raw);
        match &*change.field {
            "messages" => {
                let [messages, statuses, user_actions] =
                    change.named(["messages", "statuses", "user_actions"]);
                list(messages).for_each(|raw| take(Place::Message, raw));
                list(statuses).for_each(|raw| take(Place::Status, raw));
                list(user_actions).for_each(|raw| take(Place::UserAction, raw));
            }
            "standby" => {
                let [standby] = change.named(["standby"]);
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
                let [echoes, messages] = change.named(["message_echoes", "messages"]);
                list(echoes).for_each(|raw| take(Place::Echo, raw));
                list(messages).for_each(|raw| take(Place::Echo, raw));
            }
            "history" => {
                let [history, messages, echoes] =
                    change.named(["history", "messages", "message_echoes"]);
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
                let [calls, statuses] = change.named(["calls", "statuses"]);
                list(calls).for_each(|raw| take(Place::Call, raw));
                list(statuses).for_each(|raw| take(Place::CallStatus, raw));
            }
            _ => {}
        }
        if self.items.len() == before
            && let Some(place) = whole_value(change)
        {
            self.take(change, place, change.value);
        }
    }

    fn take(&mut self, change: &WebhookChange<'a>, place: Place, raw: Json<'a>) {
        // One beyond the limit tells that there are too many; a million need not be hashed for that.
        if self.items.len() > MOST_ITEMS {
            return;
        }
        let parts = identity_parts(raw);
        let number = change.phone_number_id.as_deref().unwrap_or(&self.waba_id);
        let entry_time = self.time.map_or("", Json::get).as_bytes();
        let identity = identity(
            place,
            &change.field,
            number,
            &parts,
            raw.get().as_bytes(),
            entry_time,
        );
        self.items.push(WebhookItem {
            place,
            change: self.changes.len(),
            raw,
            id: parts.id,
            identity,
        });
    }
}

impl<'a> WebhookChange<'a> {
    /// Members of the value, in the order asked for. Of a name that stands twice the last counts.
    fn named<const N: usize>(&self, names: [&str; N]) -> [Option<Json<'a>>; N] {
        let members = self.members.as_deref().unwrap_or_default();
        names.map(|name| {
            let mut named = members.iter().rev().filter(|(other, _)| other == name);
            named.next().map(|(_, member)| *member)
        })
    }
}

/// What a value without listed items is: nothing, or one item. Of the fields that list their items
/// only the envelope (`messaging_product`, `metadata`, `contacts`) and empty members are nothing.
fn whole_value(change: &WebhookChange<'_>) -> Option<Place> {
    let lists_items = has_lists(&change.field) || change.field == "history";
    let Some(members) = &change.members else {
        return (change.value.get() != "null").then_some(Place::Change);
    };
    let mut content = members
        .iter()
        .filter(|(name, value)| {
            !lists_items
                || !(matches!(&**name, "messaging_product" | "metadata" | "contacts")
                    || is_empty(*value))
        })
        .peekable();
    content.peek()?;
    if change.field == "messages" && content.all(|(name, _)| name == "errors") {
        Some(Place::ValueErrors)
    } else {
        Some(Place::Change)
    }
}

/// What a body, an entry and a change have beside what they tell.
const BODY_ENVELOPE: [&str; 2] = ["object", "entry"];
const ENTRY_ENVELOPE: [&str; 6] = ["id", "time", "uid", "object", "field", "changes"];
const CHANGE_ENVELOPE: [&str; 7] = ["id", "time", "uid", "object", "field", "changes", "value"];

/// Whether a change, an entry or a body holds more than its envelope.
fn says_something(whole: Json<'_>, envelope: &[&str]) -> bool {
    let members = all_members(whole).unwrap_or_default();
    let mut content = members.iter();
    content.any(|(name, member)| !envelope.contains(&&**name) && !is_empty(*member))
}

/// `null`, `[]`, `{}`, and arrays or objects of only such.
fn is_empty(value: Json<'_>) -> bool {
    value
        .get()
        .bytes()
        .all(|byte| matches!(byte, b'[' | b']' | b'{' | b'}' | b',') || byte.is_ascii_whitespace())
        || value.get() == "null"
}
