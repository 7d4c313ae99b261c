//! Who an item is about. The same ids decide which items wait for each other and what the event
//! says of the customer.

use std::collections::HashSet;

use shared::webhook::{Json, Place, members, scalar};

use crate::item::event::Direction;
use crate::item::payload::{Contact, Payload, PayloadItem, is_user_id};
use crate::read::lanes::{LaneHasher, LaneKey};

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
    /// Reads the ids of an item, and finds their contact. One that has none is about nobody.
    pub fn of(payload: &Payload, item: &PayloadItem) -> Self {
        let mut customer = Self::named(payload, item);
        let contacts = &payload.change(item).contacts;
        let found = customer.find(contacts).or_else(|| match &contacts[..] {
            // Meta spells one phone in two ways, and some gateways send another one.
            [only] if customer.may_be(only) && is_of_one_person(payload, item) => Some(only),
            _ => None,
        });
        customer.contact = found.cloned().or(customer.contact);
        customer
    }

    /// The id that stands in the item, else their contact's: what an event and the State Manager have.
    pub(crate) fn known_wa_id(&self) -> Option<&str> {
        let of_contact = || self.contact.as_ref()?.wa_id.as_deref();
        self.wa_id.as_deref().or_else(of_contact)
    }

    /// As [`Self::known_wa_id`].
    pub(crate) fn known_user_id(&self) -> Option<&str> {
        let of_contact = || self.contact.as_ref()?.user_id.as_deref();
        self.user_id.as_deref().or_else(of_contact)
    }

    /// The ids that stand in the item, and of a history's message in its thread.
    pub(crate) fn named(payload: &Payload, item: &PayloadItem) -> Self {
        let raw = payload.raw(item);
        let mut customer = Self::default();
        let ids = |names| texts(raw, names);
        match item.place {
            Place::Message | Place::StandbyMessage => customer.set(ids(FROM)),
            Place::Echo | Place::HistoryEcho => customer.set(ids(TO)),
            Place::StandbyEcho => {
                // What was sent through an API is wrapped as it was sent.
                let wrapped = members(raw, ["message"]).and_then(|[sent]| sent);
                customer.receives(wrapped.unwrap_or(raw));
            }
            Place::Status | Place::StandbyStatus => customer.got(raw),
            // Either side may be the business.
            Place::HistoryThreadMessage
            | Place::HistoryMessage
            | Place::Call
            | Place::CallStatus => customer.is_either(payload, item),
            Place::UserAction | Place::ValueErrors | Place::Change | Place::UnknownShape => {}
        }
        let [group_id, system] = members(raw, ["group_id", "system"]).unwrap_or_default();
        customer.group_id = customer.group_id.or_else(|| text(group_id?));
        customer
            .aliases
            .extend(system.map(system_ids).unwrap_or_default());
        customer
    }

    /// The customer is whoever of the two isn't the business.
    fn is_either(&mut self, payload: &Payload, item: &PayloadItem) {
        let raw = payload.raw(item);
        let business = payload.change(item).display_phone_number.as_deref();
        let business = business.map(digits);
        let not_business = |id: &String| business.as_deref() != Some(digits(id).as_str());
        let [from, from_user, from_parent] = texts(raw, FROM);
        let [to, to_user, to_parent] = texts(raw, TO);
        let [recipient, recipient_user, recipient_parent] = texts(
            raw,
            [
                "recipient_id",
                "recipient_user_id",
                "recipient_parent_user_id",
            ],
        );
        let thread = payload.thread(item);
        let of_thread = |part: fn(&Contact) -> &Option<String>| {
            thread.and_then(|thread| part(&thread.contact).clone())
        };
        self.set([
            thread
                .and_then(|thread| thread.id.clone())
                .or_else(|| of_thread(|contact| &contact.wa_id))
                .or(from.filter(not_business))
                .or(to.filter(not_business))
                .or(recipient),
            of_thread(|contact| &contact.user_id)
                .or(from_user)
                .or(to_user)
                .or(recipient_user),
            of_thread(|contact| &contact.parent_user_id)
                .or(from_parent)
                .or(to_parent)
                .or(recipient_parent),
        ]);
        self.contact = thread.map(|thread| thread.contact.clone());
    }

    /// The ids of a status. Of a group's, the customer is the member of the group.
    fn got(&mut self, raw: Json<'_>) {
        let [id, user, parent, older_parent, oldest_parent, kind] = texts(
            raw,
            [
                "recipient_id",
                "recipient_user_id",
                "recipient_parent_user_id",
                "parent_recipient_user_id",
                "parent_user_id",
                "recipient_type",
            ],
        );
        if kind.as_deref() != Some("group") {
            return self.set([id, user, parent.or(older_parent).or(oldest_parent)]);
        }
        self.group_id = id;
        let [member, older_member, user, parent] = texts(
            raw,
            [
                "recipient_participant_id",
                "participant_recipient_id",
                "recipient_participant_user_id",
                "recipient_participant_parent_user_id",
            ],
        );
        self.set([member.or(older_member), user, parent]);
    }

    /// The ids of what the business sent through an API, where `recipient` is a user id.
    fn receives(&mut self, sent: Json<'_>) {
        let [to, user, parent] = texts(sent, TO);
        let [recipient, kind] = texts(sent, ["recipient", "recipient_type"]);
        if kind.as_deref() == Some("group") {
            self.group_id = to;
        } else {
            self.set([to, user.or(recipient), parent]);
        }
    }

    /// Who wrote a message of the history; `None` where that can't be told.
    pub fn direction(&self, payload: &Payload, item: &PayloadItem) -> Option<Direction> {
        let [from, from_user, _] = texts(payload.raw(item), FROM);
        let business = payload.change(item).display_phone_number.as_deref();
        let (from, user) = (from.as_deref(), from.as_deref().filter(|id| is_user_id(id)));
        let from_user = from_user.as_deref().or(user);
        let Some(from) = from.filter(|id| !is_user_id(id)).map(digits) else {
            return from_user.map(|_| Direction::Inbound);
        };
        if business.map(digits).as_ref() == Some(&from) {
            return Some(Direction::Outbound);
        }
        let customer = self.wa_id.as_deref().map(digits);
        (customer.as_ref() == Some(&from)).then_some(Direction::Inbound)
    }

    fn set(&mut self, [wa_id, user_id, parent_user_id]: [Option<String>; 3]) {
        self.wa_id = wa_id;
        self.user_id = user_id;
        self.parent_user_id = parent_user_id;
        // A business-scoped id stands where a phone was.
        if let Some(id) = self.wa_id.take_if(|id| is_user_id(id)) {
            let mine = self.user_id.get_or_insert_with(|| id.clone());
            if *mine != id {
                self.aliases.push(id);
            }
        }
    }

    /// Whether two items name the same person.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.wa_id, &self.user_id) == (&other.wa_id, &other.user_id)
    }

    /// Whether nothing speaks against it that a contact is theirs: no other business-scoped id.
    fn may_be(&self, contact: &Contact) -> bool {
        match (&self.user_id, &contact.user_id) {
            (Some(mine), Some(theirs)) => mine == theirs,
            (Some(_), None) | (None, _) => true,
        }
    }

    /// Whether a contact of theirs has another id than the item.
    pub(crate) fn differs(&self, contact: &Contact) -> bool {
        let of_two = [
            (&self.wa_id, &contact.wa_id),
            (&self.user_id, &contact.user_id),
            (&self.parent_user_id, &contact.parent_user_id),
        ];
        of_two.iter().any(|two| match two {
            (Some(mine), Some(theirs)) => plain(mine) != plain(theirs),
            (None, _) | (_, None) => false,
        })
    }

    /// The contact of this customer: by user id, then by phone; never by position, since Meta
    /// gathers contacts of several items.
    fn find<'c>(&self, contacts: &'c [Contact]) -> Option<&'c Contact> {
        let by = |mine: &Option<String>, theirs: fn(&Contact) -> &Option<String>| {
            let mine = mine.as_ref()?;
            contacts
                .iter()
                .find(|contact| theirs(contact).as_deref().map(plain) == Some(plain(mine)))
        };
        by(&self.user_id, |contact| &contact.user_id)
            .or_else(|| by(&self.wa_id, |contact| &contact.wa_id))
    }

    /// Every id of theirs: the item's, their contact's, and those of a `system` message.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let contact = self.contact.as_ref();
        [&self.wa_id, &self.user_id, &self.parent_user_id]
            .into_iter()
            .flatten()
            .chain(contact.and_then(|contact| contact.wa_id.as_ref()))
            .chain(contact.and_then(|contact| contact.user_id.as_ref()))
            .chain(contact.and_then(|contact| contact.parent_user_id.as_ref()))
            .chain(&self.aliases)
            .map(String::as_str)
    }

    /// What the item must be in order with: its group, else each id of its customer, else its
    /// account and field.
    pub fn lane_keys(
        &self,
        hasher: &LaneHasher,
        payload: &Payload,
        item: &PayloadItem,
    ) -> Vec<LaneKey> {
        let account = &*payload.entry.waba_id;
        let number = payload.phone_number_id(item).unwrap_or(account);
        if let Some(group) = &self.group_id {
            return vec![hasher.key(&["group", number, group])];
        }
        let keys: Vec<_> = self
            .ids()
            .map(|id| hasher.key(&["customer", number, plain(id)]))
            .collect();
        if keys.is_empty() {
            vec![hasher.key(&["field", account, payload.field(item)])]
        } else {
            keys
        }
    }
}

/// Whether all items of an item's change name the same person, or none of them names any.
fn is_of_one_person(payload: &Payload, item: &PayloadItem) -> bool {
    let of_one = || {
        let mut people = payload
            .beside(item)
            .map(|item| Customer::named(payload, item));
        let first = people.next();
        people.all(|other| first.as_ref().is_some_and(|first| first.is_same(&other)))
    };
    *payload.change(item).of_one_person.get_or_init(of_one)
}

/// Contacts beside an item that are no item's of their change, with their positions. `customer`: the item's.
pub(crate) fn strangers<'p>(
    payload: &'p Payload,
    item: &PayloadItem,
    customer: &Customer,
) -> impl Iterator<Item = (usize, &'p Contact)> {
    let change = payload.change(item);
    // Where an item is the value, its contacts are in it.
    let is_listed = !matches!(
        item.place,
        Place::Change | Place::ValueErrors | Place::UnknownShape
    );
    let find = || {
        let items = payload.beside(item);
        let known: HashSet<usize> = items
            .filter_map(|other| match std::ptr::eq(other, item) {
                true => Some(customer.contact.as_ref()?.position),
                false => Some(Customer::of(payload, other).contact?.position),
            })
            .collect();
        let positions = 0..change.contacts.len();
        positions.filter(|at| !known.contains(at)).collect()
    };
    let some = is_listed && !change.contacts.is_empty();
    let strangers = some.then(|| change.strangers.get_or_init(find));
    let positions = strangers.into_iter().flatten().copied();
    positions.filter_map(|at| Some((at, change.contacts.get(at)?)))
}

/// Of a `system` message.
fn system_ids(system: Json<'_>) -> Vec<String> {
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

fn texts<const N: usize>(raw: Json<'_>, names: [&str; N]) -> [Option<String>; N] {
    members(raw, names)
        .unwrap_or([None; N])
        .map(|member| text(member?))
}

fn text(raw: Json<'_>) -> Option<String> {
    let text = scalar(raw).map(|text| text.into_owned());
    text.filter(|text| !text.is_empty())
}

/// Meta writes some phones with `+`.
fn plain(id: &str) -> &str {
    id.trim_start_matches('+')
}

fn digits(text: impl AsRef<str>) -> String {
    text.as_ref().chars().filter(char::is_ascii_digit).collect()
}
