//! Who an item is about. The same ids decide which items wait for each other and what the event
//! says of the customer.

use serde_json::value::RawValue;
use shared::webhook::{Place, members, scalar};

use crate::lanes::{LaneHasher, LaneKey};
use crate::payload::{Contact, Payload, PayloadItem};

/// The people of an item.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Customer {
    pub wa_id: Option<String>,
    pub user_id: Option<String>,
    pub parent_user_id: Option<String>,
    pub group_id: Option<String>,
    /// What `contacts[]` says of them.
    pub contact: Option<Contact>,
    /// Ids that stand elsewhere in the item: the old and new ones of a `system` message.
    aliases: Vec<String>,
}

/// Ids by the name Meta gives them, depending on who wrote.
const FROM: [&str; 3] = ["from", "from_user_id", "from_parent_user_id"];
const TO: [&str; 3] = ["to", "to_user_id", "to_parent_user_id"];

impl Customer {
    /// Reads the ids of an item. One that has none is about nobody.
    pub fn of(payload: &Payload, item: &PayloadItem) -> Self {
        let raw = payload.raw(item);
        let change = payload.change(item);
        let business = change.display_phone_number.as_deref().map(digits);
        let not_business = |id: &String| business.as_deref() != Some(digits(id).as_str());
        let mut customer = Self::default();
        let ids = |names| texts(raw, names);
        match item.place {
            Place::Message | Place::StandbyMessage => customer.set(ids(FROM)),
            Place::Echo | Place::StandbyEcho | Place::HistoryEcho => customer.set(ids(TO)),
            Place::Status | Place::StandbyStatus => {
                let [id, user, parent, old_parent, kind] = texts(
                    raw,
                    [
                        "recipient_id",
                        "recipient_user_id",
                        "recipient_parent_user_id",
                        "parent_recipient_user_id",
                        "recipient_type",
                    ],
                );
                if kind.as_deref() == Some("group") {
                    customer.group_id = id;
                } else {
                    customer.set([id, user, parent.or(old_parent)]);
                }
            }
            // Either side may be the business.
            Place::HistoryThreadMessage
            | Place::HistoryMessage
            | Place::Call
            | Place::CallStatus => {
                let [from, from_user, from_parent] = ids(FROM);
                let [to, to_user, to_parent] = ids(TO);
                let [recipient] = texts(raw, ["recipient_id"]);
                customer.set([
                    from.filter(not_business)
                        .or(to.filter(not_business))
                        .or(recipient),
                    from_user.or(to_user),
                    from_parent.or(to_parent),
                ]);
            }
            Place::UserAction | Place::ValueErrors | Place::Change => {}
        }
        let [group_id] = texts(raw, ["group_id"]);
        customer.group_id = customer.group_id.or(group_id);
        customer.aliases = system_ids(raw);
        customer.contact = customer.find(&change.contacts);
        customer
    }

    fn set(&mut self, [wa_id, user_id, parent_user_id]: [Option<String>; 3]) {
        self.wa_id = wa_id;
        self.user_id = user_id;
        self.parent_user_id = parent_user_id;
    }

    /// The contact of this customer: by user id, then by phone; never by position, since Meta
    /// gathers contacts of several items.
    fn find(&self, contacts: &[Contact]) -> Option<Contact> {
        let by = |mine: &Option<String>, theirs: fn(&Contact) -> &Option<String>| {
            let mine = mine.as_ref()?;
            contacts
                .iter()
                .find(|contact| theirs(contact).as_ref() == Some(mine))
        };
        by(&self.user_id, |contact| &contact.user_id)
            .or_else(|| by(&self.wa_id, |contact| &contact.wa_id))
            .cloned()
    }

    /// What the item must be in order with: its group, else each id of its customer, else its
    /// account and field.
    pub fn lane_keys(
        &self,
        hasher: &LaneHasher,
        payload: &Payload,
        item: &PayloadItem,
    ) -> Vec<LaneKey> {
        let number = item
            .phone_number_id
            .as_deref()
            .unwrap_or(&payload.entry.waba_id);
        if let Some(group) = &self.group_id {
            return vec![hasher.key(&["group", number, group])];
        }
        let contact = self.contact.as_ref();
        let keys: Vec<_> = [&self.wa_id, &self.user_id, &self.parent_user_id]
            .into_iter()
            .flatten()
            .chain(contact.and_then(|contact| contact.wa_id.as_ref()))
            .chain(contact.and_then(|contact| contact.user_id.as_ref()))
            .chain(contact.and_then(|contact| contact.parent_user_id.as_ref()))
            .chain(&self.aliases)
            .map(|id| hasher.key(&["customer", number, id.trim_start_matches('+')]))
            .collect();
        if keys.is_empty() {
            vec![hasher.key(&["field", &payload.entry.waba_id, &item.field])]
        } else {
            keys
        }
    }
}

fn system_ids(raw: &RawValue) -> Vec<String> {
    let Some([Some(system)]) = members(raw, ["system"]) else {
        return Vec::new();
    };
    texts(
        system,
        [
            "wa_id",
            "new_wa_id",
            "customer",
            "user_id",
            "parent_user_id",
            "previous_user_id",
            "previous_parent_user_id",
        ],
    )
    .into_iter()
    .flatten()
    .collect()
}

fn texts<const N: usize>(raw: &RawValue, names: [&str; N]) -> [Option<String>; N] {
    members(raw, names).unwrap_or([None; N]).map(|text| {
        text.and_then(scalar)
            .map(|text| text.into_owned())
            .filter(|text| !text.is_empty())
    })
}

fn digits(text: impl AsRef<str>) -> String {
    text.as_ref().chars().filter(char::is_ascii_digit).collect()
}
