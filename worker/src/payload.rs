//! A stream entry's body, taken apart once and owned: its items as ranges of the body, and of each
//! change what its items share.

use std::ops::Range;

use serde_json::value::RawValue;
use shared::entry::StreamEntry;
use shared::webhook::{self, Identity, Item, Place, Unreadable, elements, members, scalar, string};

/// An entry with its body taken apart.
#[derive(Debug)]
pub struct Payload {
    pub entry: StreamEntry,
    /// All items of the body, fresh or not, in the order of their numbers.
    pub items: Vec<PayloadItem>,
    changes: Vec<Change>,
}

/// One item of a body.
#[derive(Debug)]
pub struct PayloadItem {
    pub place: Place,
    pub field: String,
    pub phone_number_id: Option<String>,
    pub id: Option<String>,
    pub identity: Identity,
    raw: Range<usize>,
    change: usize,
}

/// What the items of one change share.
#[derive(Debug, Default)]
pub struct Change {
    pub display_phone_number: Option<String>,
    pub contacts: Vec<Contact>,
    errors: Option<Range<usize>>,
    value: Range<usize>,
}

/// An element of `contacts[]`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Contact {
    pub wa_id: Option<String>,
    pub user_id: Option<String>,
    pub parent_user_id: Option<String>,
    pub name: Option<String>,
    pub username: Option<String>,
}

impl Payload {
    /// Takes the body of `entry` apart, as ingress did.
    ///
    /// # Errors
    /// [`Unreadable`]. ingress says so in the entry itself, unless its version reads more than this
    /// one.
    pub fn open(entry: StreamEntry) -> Result<Self, Unreadable> {
        let (items, changes) = read(&entry.body)?;
        Ok(Self {
            entry,
            items,
            changes,
        })
    }

    /// The item's JSON as Meta sent it.
    pub fn raw(&self, item: &PayloadItem) -> &RawValue {
        self.json(&item.raw)
    }

    /// The change that the item is part of.
    pub fn change(&self, item: &PayloadItem) -> &Change {
        &self.changes[item.change]
    }

    /// The whole `value` that the item is part of.
    pub fn value(&self, item: &PayloadItem) -> &RawValue {
        self.json(&self.change(item).value)
    }

    /// `errors[]` beside the items of a change.
    pub fn change_errors(&self, item: &PayloadItem) -> Option<&RawValue> {
        let range = self.change(item).errors.as_ref()?;
        Some(self.json(range))
    }

    fn json(&self, range: &Range<usize>) -> &RawValue {
        serde_json::from_slice(&self.entry.body[range.clone()]).unwrap_or(RawValue::NULL)
    }
}

fn read(body: &[u8]) -> Result<(Vec<PayloadItem>, Vec<Change>), Unreadable> {
    let webhook = webhook::read(body)?;
    let mut items = Vec::new();
    let mut changes: Vec<Change> = Vec::new();
    let mut last_value: Option<Range<usize>> = None;
    for item in webhook.entries.into_iter().flat_map(|entry| entry.items) {
        let value = range(body, item.value);
        if last_value.as_ref() != Some(&value) {
            changes.push(change(body, &item));
            last_value = Some(value);
        }
        items.push(PayloadItem {
            place: item.place,
            raw: range(body, item.raw),
            change: changes.len() - 1,
            field: item.field.into_owned(),
            phone_number_id: item.phone_number_id.map(|id| id.into_owned()),
            id: item.id.map(|id| id.into_owned()),
            identity: item.identity,
        });
    }
    Ok((items, changes))
}

/// Where `part`, which was borrowed from `body`, lies in it.
fn range(body: &[u8], part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr() as usize - body.as_ptr() as usize;
    start..start + part.get().len()
}

fn change(body: &[u8], item: &Item<'_>) -> Change {
    let [metadata, contacts, errors] =
        members(item.value, ["metadata", "contacts", "errors"]).unwrap_or_default();
    let display_phone_number = metadata
        .and_then(|metadata| members(metadata, ["display_phone_number"]))
        .and_then(|[number]| scalar(number?));
    Change {
        display_phone_number: display_phone_number.map(|number| number.into_owned()),
        contacts: contacts
            .and_then(elements)
            .unwrap_or_default()
            .into_iter()
            .filter_map(contact)
            .collect(),
        value: range(body, item.value),
        errors: errors
            .filter(|_| item.place != Place::ValueErrors && item.place != Place::Change)
            .map(|errors| range(body, errors)),
    }
}

fn contact(raw: &RawValue) -> Option<Contact> {
    let [profile, wa_id, user_id, parent_user_id] =
        members(raw, ["profile", "wa_id", "user_id", "parent_user_id"])?;
    let [name, username] = profile
        .and_then(|profile| members(profile, ["name", "username"]))
        .unwrap_or_default();
    let text = |raw: Option<&RawValue>| raw.and_then(string).map(|text| text.into_owned());
    Some(Contact {
        wa_id: wa_id.and_then(scalar).map(|id| id.into_owned()),
        user_id: text(user_id),
        parent_user_id: text(parent_user_id),
        name: text(name),
        username: text(username),
    })
}
