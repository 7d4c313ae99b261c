//! A stream entry's body, taken apart once and owned: its items as ranges of the body, and of each
//! change what its items share.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use shared::entry::StreamEntry;
use shared::webhook::{
    self, Identity, Json, Place, UnreadableBody, WebhookChange, all_members, elements, members,
    scalar,
};

/// Events of `account_update` that Meta sends for a portfolio.
const OF_PORTFOLIOS: [&str; 6] = [
    "AD_ACCOUNT_LINKED",
    "MM_LITE_TERMS_SIGNED",
    "PARTNER_ADDED",
    "PARTNER_APP_INSTALLED",
    "PARTNER_APP_UNINSTALLED",
    "PARTNER_REMOVED",
];

/// An entry with its body taken apart.
#[derive(Debug)]
pub struct Payload {
    pub entry: StreamEntry,
    /// All items of the body, fresh or not, in the order of their numbers.
    pub items: Vec<PayloadItem>,
    changes: Vec<ChangeContext>,
}

/// An entry whose body can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{unreadable}")]
pub struct Unopened {
    pub entry: StreamEntry,
    pub unreadable: UnreadableBody,
}

/// One item of a body.
#[derive(Debug)]
pub struct PayloadItem {
    pub place: Place,
    pub id: Option<String>,
    pub identity: Identity,
    raw: Range<usize>,
    change: usize,
}

/// What the items of one change share.
#[derive(Debug, Default)]
pub struct ChangeContext {
    pub field: String,
    pub phone_number_id: Option<String>,
    pub display_phone_number: Option<String>,
    pub contacts: Vec<Contact>,
    /// `entry[].time`, as sent.
    pub entry_time: Option<String>,
    errors: Option<Range<usize>>,
    value: Range<usize>,
    conversation_context: Option<Range<usize>>,
    /// Members beside the items that nothing here reads, by their path.
    other_members: Vec<(String, Range<usize>)>,
    /// Of `history`, in the order of the body.
    threads: Vec<Thread>,
    /// Whether all its items are one person's; [`crate::item::customer`] finds out when it matters.
    pub(crate) of_one_person: OnceLock<bool>,
    /// Positions of contacts that are no item's; found out likewise.
    pub(crate) strangers: OnceLock<Vec<usize>>,
}

/// An element of `contacts[]`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Contact {
    pub wa_id: Option<String>,
    pub user_id: Option<String>,
    pub parent_user_id: Option<String>,
    pub name: Option<String>,
    pub username: Option<String>,
    pub identity_key_hash: Option<String>,
    /// ISO 3166, where Meta says it.
    pub country_code: Option<String>,
    /// Which of `contacts[]` it is.
    pub position: usize,
    /// The element.
    raw: Range<usize>,
    /// It has more than the above.
    pub is_odd: bool,
}

/// A conversation of `history[].threads[]`.
#[derive(Debug, Default)]
pub struct Thread {
    /// The customer's phone.
    pub id: Option<String>,
    /// The customer's ids, where the thread says more than their phone.
    pub contact: Contact,
    /// `history[].metadata`.
    metadata: Option<Range<usize>>,
    messages: Range<usize>,
}

impl Payload {
    /// Takes the body of `entry` apart, as ingress did.
    ///
    /// # Errors
    /// [`Unopened`]. ingress says so in the entry itself, unless its version reads more than this
    /// one.
    pub fn open(entry: StreamEntry) -> Result<Self, Box<Unopened>> {
        match read(&entry.body) {
            Ok((items, _)) if ![0, items.len()].contains(&entry.items) => {
                let unreadable = UnreadableBody::OtherItems(entry.items, items.len());
                Err(Box::new(Unopened { entry, unreadable }))
            }
            Ok((items, changes)) => Ok(Self {
                entry,
                items,
                changes,
            }),
            Err(unreadable) => Err(Box::new(Unopened { entry, unreadable })),
        }
    }

    /// Whether nothing of it is an account's: it is a portfolio's, or a test from Meta's dashboard.
    pub fn has_no_account(&self) -> bool {
        let is_portfolios = |item: &PayloadItem| match (item.place, self.field(item)) {
            (Place::Change, "partner_solutions") => true,
            // One that names an account is that account's.
            (Place::Change, "account_update") => members(self.raw(item), ["event", "waba_info"])
                .is_some_and(|[event, account]| {
                    let event = event.and_then(scalar).unwrap_or_default();
                    account.is_none() && OF_PORTFOLIOS.contains(&&*event)
                }),
            _ => false,
        };
        self.entry.waba_id == webhook::NO_WABA
            || (!self.items.is_empty() && self.items.iter().all(is_portfolios))
    }

    /// The item's JSON as Meta sent it.
    pub fn raw(&self, item: &PayloadItem) -> Json<'_> {
        self.json(&item.raw)
    }

    /// `changes[].field` of the item, empty where it is missing.
    pub fn field(&self, item: &PayloadItem) -> &str {
        &self.change(item).field
    }

    /// The number that the item is of, where the change names it.
    pub fn phone_number_id(&self, item: &PayloadItem) -> Option<&str> {
        self.change(item).phone_number_id.as_deref()
    }

    /// The numbers that its items are of; one of several changes more than once.
    pub fn phone_number_ids(&self) -> impl Iterator<Item = &str> {
        let changes = self.changes.iter();
        changes.filter_map(|change| change.phone_number_id.as_deref())
    }

    /// The change that the item is part of.
    pub fn change(&self, item: &PayloadItem) -> &ChangeContext {
        &self.changes[item.change]
    }

    /// The whole `value` that the item is part of.
    pub fn value(&self, item: &PayloadItem) -> Json<'_> {
        self.json(&self.change(item).value)
    }

    /// `errors[]` beside the items of a change.
    pub fn change_errors(&self, item: &PayloadItem) -> Option<Json<'_>> {
        let range = self.change(item).errors.as_ref()?;
        Some(self.json(range))
    }

    /// `conversation_context` beside the items of a change.
    pub fn conversation_context(&self, item: &PayloadItem) -> Option<Json<'_>> {
        let range = self.change(item).conversation_context.as_ref()?;
        Some(self.json(range))
    }

    /// What else stands beside the items of a change, by its path in the value.
    pub fn other_members(
        &self,
        item: &PayloadItem,
    ) -> impl Iterator<Item = (Cow<'_, str>, Json<'_>)> {
        let members = self.change(item).other_members.iter();
        members.map(|(path, range)| (Cow::Borrowed(path.as_str()), self.json(range)))
    }

    /// A contact as it came.
    pub(crate) fn contact(&self, contact: &Contact) -> Json<'_> {
        self.json(&contact.raw)
    }

    /// All items of an item's change.
    pub(crate) fn beside(&self, item: &PayloadItem) -> impl Iterator<Item = &PayloadItem> {
        let change = item.change;
        let start = self.items.partition_point(|other| other.change < change);
        let rest = self.items.iter().skip(start);
        rest.take_while(move |other| other.change == change)
    }

    /// The thread of history that a message stood in.
    pub fn thread(&self, item: &PayloadItem) -> Option<&Thread> {
        if item.place != Place::HistoryThreadMessage {
            return None;
        }
        let threads = &self.change(item).threads;
        let after = threads.partition_point(|thread| thread.messages.start <= item.raw.start);
        threads.get(after.checked_sub(1)?)
    }

    /// `history[].metadata` of a thread.
    pub fn history_metadata(&self, thread: &Thread) -> Option<Json<'_>> {
        Some(self.json(thread.metadata.as_ref()?))
    }

    fn json(&self, range: &Range<usize>) -> Json<'_> {
        Json::at(&self.entry.body, range)
    }
}

fn read(body: &[u8]) -> Result<(Vec<PayloadItem>, Vec<ChangeContext>), UnreadableBody> {
    let webhook = webhook::read(body)?;
    // Thousands of bodies may wait, most of them with one item: room for four would be most of their memory.
    let entries = webhook.entries.iter();
    let mut changes = Vec::with_capacity(entries.clone().map(|entry| entry.changes.len()).sum());
    let mut items = Vec::with_capacity(entries.map(|entry| entry.items.len()).sum());
    for entry in webhook.entries {
        let first = changes.len();
        let entry_time = entry.time.and_then(scalar);
        let mut of_change = entry.items.iter().peekable();
        for (n, change) in entry.changes.into_iter().enumerate() {
            // Where the value itself is the item, nothing stands beside it.
            let whole = of_change.peek().is_some_and(|item| {
                matches!(
                    item.place,
                    Place::Change | Place::ValueErrors | Place::UnknownShape
                )
            });
            while of_change.next_if(|item| item.change == n).is_some() {}
            changes.push(ChangeContext {
                entry_time: entry_time.as_deref().map(str::to_owned),
                ..context(body, change, whole)
            });
        }
        items.extend(entry.items.into_iter().map(|item| PayloadItem {
            place: item.place,
            raw: item.raw.range(body),
            change: first + item.change,
            id: item.id.map(Cow::into_owned),
            identity: item.identity,
        }));
    }
    Ok((items, changes))
}

/// The members of a field's value that list its items.
fn lists(field: &str) -> &'static [&'static str] {
    match field {
        "messages" => &["messages", "statuses", "user_actions"],
        "smb_message_echoes" | "message_echoes" => &["message_echoes", "messages"],
        "history" => &["messages", "message_echoes"],
        "calls" => &["calls", "statuses"],
        _ => &[],
    }
}

/// `whole`: the value itself is the item.
fn context(body: &[u8], read: WebhookChange<'_>, whole: bool) -> ChangeContext {
    let mut change = ChangeContext {
        phone_number_id: read.phone_number_id.map(Cow::into_owned),
        value: read.value.range(body),
        ..ChangeContext::default()
    };
    for (name, member) in read.members.unwrap_or_default() {
        match (&*name, &*read.field) {
            ("metadata", _) => {
                let [number] = members(member, ["display_phone_number"]).unwrap_or_default();
                change.display_phone_number = number.and_then(text);
                if has_only(member, &["display_phone_number", "phone_number_id"]) {
                    continue;
                }
            }
            ("contacts", _) if change.add_contacts(body, member) => continue,
            ("messaging_product", _) => continue,
            _ if whole => continue,
            ("errors", _) => {
                change.errors = Some(member.range(body));
                continue;
            }
            ("conversation_context", _) => {
                change.conversation_context = Some(member.range(body));
                continue;
            }
            ("standby", "standby") => {
                change.add_standby(body, member);
                continue;
            }
            ("history", "history") if change.add_history(body, member) => continue,
            (list, field) if lists(field).contains(&list) && is_array(member) => continue,
            _ => {}
        }
        change.add_other_member(body, &name, member);
    }
    change.field = read.field.into_owned();
    change
}

impl ChangeContext {
    fn add_other_member(&mut self, body: &[u8], path: &str, member: Json<'_>) {
        if !matches!(member.get(), "null" | "[]" | "{}") {
            self.other_members
                .push((path.to_owned(), member.range(body)));
        }
    }

    fn add_contacts(&mut self, body: &[u8], list: Json<'_>) -> bool {
        let Some(elements) = elements(list) else {
            return false;
        };
        self.contacts.reserve_exact(elements.len());
        for raw in elements {
            let position = self.contacts.len();
            let contact = contact(body, raw).map(|contact| Contact {
                position,
                ..contact
            });
            self.contacts.extend(contact);
        }
        true
    }

    /// `standby` has one level more than other fields.
    fn add_standby(&mut self, body: &[u8], standby: Json<'_>) {
        for (name, member) in all_members(standby).unwrap_or_default() {
            let read = match &*name {
                "contacts" => self.add_contacts(body, member),
                "messages" | "statuses" | "message_echoes" => is_array(member),
                _ => false,
            };
            if !read {
                self.add_other_member(body, &format!("standby.{name}"), member);
            }
        }
    }

    fn add_history(&mut self, body: &[u8], history: Json<'_>) -> bool {
        let Some(chunks) = elements(history) else {
            return false;
        };
        for chunk in chunks {
            let [metadata, threads] = members(chunk, ["metadata", "threads"]).unwrap_or_default();
            let metadata = metadata.map(|metadata| metadata.range(body));
            for thread in threads.and_then(elements).unwrap_or_default() {
                self.add_thread(body, metadata.clone(), thread);
            }
            for (name, member) in all_members(chunk).unwrap_or_default() {
                if !matches!(&*name, "metadata" | "threads") {
                    self.add_other_member(body, &format!("history.{name}"), member);
                }
            }
        }
        true
    }

    fn add_thread(&mut self, body: &[u8], metadata: Option<Range<usize>>, raw: Json<'_>) {
        let [id, context, messages] =
            members(raw, ["id", "context", "messages"]).unwrap_or_default();
        if let Some(messages) = messages {
            self.threads.push(Thread {
                id: id.and_then(text),
                contact: context
                    .and_then(|raw| contact(body, raw))
                    .unwrap_or_default(),
                metadata,
                messages: messages.range(body),
            });
        }
        for (name, member) in all_members(raw).unwrap_or_default() {
            if !matches!(&*name, "id" | "context" | "messages") {
                self.add_other_member(body, &format!("history.threads.{name}"), member);
            }
        }
    }
}

/// Reads an element of `contacts[]`, or the context of a thread, where the name isn't in a profile.
fn contact(body: &[u8], raw: Json<'_>) -> Option<Contact> {
    const NAMES: [&str; 6] = [
        "profile",
        "wa_id",
        "user_id",
        "parent_user_id",
        "identity_key_hash",
        "username",
    ];
    let [profile, wa_id, user_id, parent_user_id, hash, username] = members(raw, NAMES)?;
    const OF_PROFILE: [&str; 3] = ["name", "username", "country_code"];
    let [name, profile_username, country] = profile
        .and_then(|profile| members(profile, OF_PROFILE))
        .unwrap_or_default();
    let all = [
        wa_id,
        user_id,
        parent_user_id,
        hash,
        name,
        username,
        profile_username,
        country,
    ];
    let mut all = all.into_iter().flatten();
    let readable = all.all(|member| member.get() == "null" || scalar(member).is_some());
    let mut wa_id = wa_id.and_then(text);
    let mut user_id = user_id.and_then(text);
    // A business-scoped id stands where a phone was.
    let mut is_other = false;
    if let Some(id) = wa_id.take_if(|id| is_user_id(id)) {
        is_other = user_id.as_ref().is_some_and(|mine| *mine != id);
        user_id.get_or_insert(id);
    }
    let country_code = country.and_then(text);
    let known = readable
        && !is_other
        && has_only(raw, &NAMES)
        && profile.is_none_or(|profile| has_only(profile, &OF_PROFILE))
        && country_code.as_deref().is_none_or(is_country);
    Some(Contact {
        wa_id,
        user_id,
        parent_user_id: parent_user_id.and_then(text),
        name: name.and_then(text),
        username: profile_username.or(username).and_then(text),
        identity_key_hash: hash.and_then(text),
        country_code: country_code.filter(|code| is_country(code)),
        position: 0,
        raw: raw.range(body),
        is_odd: !known,
    })
}

/// Whether it is a business-scoped id (`CC.…`, also `user.…`), and no phone.
pub fn is_user_id(id: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '.';
    id.split_once('.').is_some_and(|(scope, rest)| {
        let scoped = !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_alphabetic());
        scoped && !rest.is_empty() && rest.chars().all(is_word)
    })
}

fn is_country(code: &str) -> bool {
    code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Text that says something: a withheld phone may be there as `""`.
fn text(raw: Json<'_>) -> Option<String> {
    let text = scalar(raw).map(Cow::into_owned);
    text.filter(|text| !text.is_empty())
}

/// JSON that was read once is an array if it begins like one.
fn is_array(raw: Json<'_>) -> bool {
    raw.get().starts_with('[')
}

/// Whether it is an object, of these members only; `null` counts as nothing.
fn has_only(raw: Json<'_>, names: &[&str]) -> bool {
    all_members(raw).is_some_and(|members| {
        members
            .iter()
            .all(|(name, member)| names.contains(&&**name) || member.get() == "null")
    })
}
