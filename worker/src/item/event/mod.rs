//! One item becomes one event. [`read`] takes the item apart, whatever it is; the place it stood at
//! says which part types it ([`message`], [`status`], [`call`], [`account`]), of a message the
//! [`message_type`] says which file reads its content. What none of them holds travels in `raw`, so an
//! item that nobody has seen before is an event too.

mod read;
mod values;

pub mod message_type;

mod message;

mod audio;
mod button;
mod contacts;
mod document;
mod edit;
mod image;
mod interactive;
mod location;
mod order;
mod reaction;
mod revoke;
mod sticker;
mod system;
mod template;
mod text;
mod unsupported;
mod video;

pub mod media;

mod call;
mod errors;
mod status;

mod account;

pub mod channel;
pub mod health;
mod person;
pub mod phone;

pub mod contract;

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use shared::webhook::{Identity, Json, Place, members, scalar};
use strum::{EnumIter, IntoStaticStr};
use uuid::Uuid;

use self::account::{Account, AccountField};
use self::call::Call;
use self::channel::{Channel, KnownNumber, NamedNumber, channel};
use self::errors::MetaError;
use self::health::HealthPart;
use self::media::{MediaPlaces, MediaState, SentMedia};
pub use self::message::Direction;
use self::message::{History, Message};
use self::message_type::MessageType;
use self::person::{Person, person};
use self::read::{Reading, SentJson, UnreadableMember};
use self::status::Status;
use self::values::Text;
pub(crate) use self::values::Timestamp;
use crate::item::customer::{self, Customer};
use crate::item::payload::{Payload, PayloadItem};
use crate::item::tenant::{PLATFORM, Tenant};
use crate::metrics::Price;

const MESSAGES: &str = "INBOUND_WHATSAPP_MESSAGES";
const EVENTS: &str = "WHATSAPP_EVENTS";

/// Routing keys of events that end what was pending.
pub(crate) const FOLLOW_UPS: &str = "media.#";

/// The queue of such an event, by the type of the event that it follows.
pub(crate) const QUEUES_OF_FOLLOW_UPS: [(EventType, &str); 5] = [
    (EventType::MessageReceived, MESSAGES),
    (EventType::MessageEcho, EVENTS),
    (EventType::MessageStandby, EVENTS),
    (EventType::MessageHistory, EVENTS),
    (EventType::CallUpdated, EVENTS),
];

/// The queues and what is bound to each, beside [`QUEUES_OF_FOLLOW_UPS`].
pub(crate) const QUEUES: [(&str, &[&str]); 3] = [
    (MESSAGES, &["message.#"]),
    ("WHATSAPP_STATUS_UPDATES", &["status.#"]),
    (
        EVENTS,
        &[
            "account.#",
            "standby.#",
            "echo.#",
            "history.#",
            "call.#",
            "health.#",
        ],
    ),
];

pub const SCHEMA_VERSION: &str = "1.0";

/// Namespace of event ids (UUIDv5 of the item's identity and the event type).
const EVENT_IDS: Uuid = Uuid::from_u128(0x6f1c_7b1e_52a4_4a3c_9d10_6b0f_e1d2_a7c4);

/// An event ready to be published.
#[derive(Debug)]
pub struct Event {
    pub id: Uuid,
    pub kind: &'static str,
    pub routing_key: String,
    pub body: Vec<u8>,
    pub correlation_id: String,
    pub traceparent: String,
    /// Empty for what is no account's.
    pub tenant_id: String,
    /// Empty unless a replay publishes it.
    pub replay_id: String,
    /// Seconds since 1970.
    pub occurred_at: u64,
    pub counted: CountedFacts,
    /// Of one that ends what was pending: the type of the event that said so. Its queue is that one's.
    pub follows: Option<&'static str>,
}

/// What is counted of an event once it is out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CountedFacts {
    /// A message of the business by its id, and what it is priced as.
    pub priced: Option<(String, Price)>,
    /// It is a customer's message, and they came without a phone number.
    pub sender_without_phone: bool,
}

/// Why an item can't be an event.
#[derive(Debug, thiserror::Error)]
#[error("the event can't be written: {0}")]
pub struct Unwritable(#[from] serde_json::Error);

/// This names the object in the object store that holds the raw payload.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RawObject {
    /// The object is in this bucket.
    pub bucket: String,
    /// The object has this key in its bucket.
    pub key: String,
}

/// What is known of an item beside what it says itself.
#[derive(Debug, Clone, Copy)]
pub struct EventContext<'a> {
    pub tenant: &'a Tenant,
    pub raw_object: Option<&'a RawObject>,
    pub number: Option<&'a KnownNumber>,
    pub media: Option<&'a MediaState>,
    /// Whose media is fetched.
    pub media_places: MediaPlaces,
    /// What the State Manager says of the conversation, a JSON object.
    pub conversation: Option<&'a RawValue>,
    /// Neighbours that could not be asked.
    pub degraded: &'a [&'static str],
}

impl<'a> EventContext<'a> {
    /// Nothing but the tenant.
    pub fn of(tenant: &'a Tenant) -> Self {
        Self {
            tenant,
            raw_object: None,
            number: None,
            media: None,
            media_places: MediaPlaces::default(),
            conversation: None,
            degraded: &[],
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
pub enum EventType {
    #[strum(serialize = "message.received")]
    MessageReceived,
    #[strum(serialize = "message.standby")]
    MessageStandby,
    #[strum(serialize = "message.echo")]
    MessageEcho,
    #[strum(serialize = "message.history")]
    MessageHistory,
    #[strum(serialize = "media.stored")]
    MediaStored,
    #[strum(serialize = "media.failed")]
    MediaFailed,
    #[strum(serialize = "status.updated")]
    StatusUpdated,
    #[strum(serialize = "call.updated")]
    CallUpdated,
    #[strum(serialize = "account.updated")]
    AccountUpdated,
    #[strum(serialize = "channel.health")]
    ChannelHealth,
}

impl EventType {
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Id of the event of this type of the item of an identity.
    pub(crate) fn id(self, identity: &Identity) -> Uuid {
        let mut name = identity.0.to_vec();
        name.extend(self.name().as_bytes());
        Uuid::new_v5(&EVENT_IDS, &name)
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What sort of item it is, from a closed set: the type of a message, or `status`, `call`, `account`.
pub fn item_type(payload: &Payload, item: &PayloadItem) -> &'static str {
    match item.place {
        Place::Message
        | Place::StandbyMessage
        | Place::StandbyEcho
        | Place::Echo
        | Place::HistoryThreadMessage
        | Place::HistoryMessage
        | Place::HistoryEcho => {
            let [kind] = members(payload.raw(item), ["type"]).unwrap_or_default();
            let kind = kind.and_then(scalar).unwrap_or_default();
            MessageType::of(&kind).name()
        }
        Place::Status | Place::StandbyStatus => "status",
        Place::Call | Place::CallStatus => "call",
        Place::UserAction | Place::ValueErrors | Place::Change | Place::UnknownShape => "account",
    }
}

/// Each event tells one thing that happened on WhatsApp. An optional member is missing, or `null`,
/// if there is nothing to say.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Event")]
struct EventDocument<'a> {
    /// The contract has this version, `major.minor`. The major number is raised when something that
    /// was there goes, or changes its meaning.
    schema_version: &'static str,
    /// An event has the same id however often it is published, so it is the idempotency key. The
    /// AMQP property `message_id` is the same.
    #[schemars(with = "String", extend("format" = "uuid"))]
    event_id: Uuid,
    /// This says what happened, and which of the parts `message`, `status`, `account`, `call` and
    /// `health` the event has.
    #[schemars(with = "String")]
    event_type: EventType,
    /// All events and log lines of one webhook have the same correlation id.
    correlation_id: &'a str,
    /// This is always `whatsapp`.
    #[schemars(extend("const" = "whatsapp"))]
    source: &'static str,
    /// This is when it happened, as Meta says. If Meta doesn't say, it is the same as `receivedAt`.
    #[schemars(extend("format" = "date-time"))]
    occurred_at: String,
    /// The webhook came at this time.
    #[schemars(extend("format" = "date-time"))]
    received_at: String,
    /// The worker made this event at this time.
    #[schemars(extend("format" = "date-time"))]
    processed_at: String,
    /// This tenant owns the account. It is `null` if the item belongs to no account of a tenant: it
    /// is a business portfolio's, or a test from Meta's dashboard.
    tenant: Option<TenantPart<'a>>,
    channel: Channel<'a>,
    /// This is the WhatsApp user whom the event is about. It is `null` if the event is about
    /// nobody.
    customer: Option<Person<'a>>,
    /// The State Manager says this about the conversation, and it is passed on unchanged. It is
    /// `null` if the State Manager says nothing.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    conversation: Option<&'a RawValue>,
    /// The conversation is that of the group with this id. It is `null` if it isn't a group's.
    group_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<Account<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<Call>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<HealthPart<'a>>,
    /// Meta reported these errors beside the items of a change. Each event of that change has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
    /// These unknown members stood beside the items of a change, passed on as sent. The name of
    /// each is its path, such as `contacts[1]`.
    #[serde(skip_serializing_if = "OtherMembers::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    beside: OtherMembers<'a>,
    /// This is the item as Meta sent it, or `null` if the rest of the event has all of it. It is a
    /// string with the JSON text if common parsers would refuse the text (a lone surrogate,
    /// `1e400`, more than 56 levels).
    #[schemars(schema_with = "contract::raw")]
    raw: Option<SentJson<'a>>,
    /// This names the first member that could not be read. The member is in `raw`, or in
    /// `account.value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<UnreadableMember>,
    /// The whole webhook lies here in the object store. It is `null` if the webhook isn't archived.
    raw_object: Option<&'a RawObject>,
    /// The worker could not ask these services, such as `state-manager`. What they know is missing
    /// in this event.
    degraded: &'a [&'static str],
}

/// A tenant is the customer of this service who owns the account.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tenant")]
struct TenantPart<'a> {
    /// This is the tenant's id, from the Tenant Service or the file `TENANTS_FILE`.
    id: &'a str,
    /// This is the tenant's name. It is `null` if the tenant has none.
    name: Option<&'a str>,
}

/// Members of a change that stood beside its items.
#[derive(Default)]
struct OtherMembers<'a>(Vec<(Cow<'a, str>, SentJson<'a>)>);

impl OtherMembers<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for OtherMembers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, sent)| (name, sent)))
    }
}

/// The typed part of an item, and where the event goes.
struct TypedItem<'a> {
    kind: EventType,
    /// Routing key without the tenant.
    route: String,
    /// When it happened.
    timestamp: Option<Timestamp>,
    message: Option<Message>,
    status: Option<Status>,
    account: Option<Account<'a>>,
    call: Option<Call>,
    /// Account events hold the item in `account.value`.
    holds_all: bool,
}

impl TypedItem<'_> {
    fn new(kind: EventType, group: &str, word: &str) -> Self {
        Self {
            kind,
            route: format!("{group}.{word}"),
            timestamp: None,
            message: None,
            status: None,
            account: None,
            call: None,
            holds_all: false,
        }
    }
}

/// Makes the event of an item.
///
/// # Errors
/// [`Unwritable`], which no input is known to cause.
pub fn event(
    payload: &Payload,
    item: &PayloadItem,
    known: &EventContext<'_>,
) -> Result<Event, Unwritable> {
    let mut reading = Reading::of(payload.raw(item));
    let customer = Customer::of(payload, item);
    let named = NamedNumber::of(payload, item);
    let part = part(payload, item, known, &customer, &mut reading);
    let subject = (&customer, &named);
    let mut document = EventDocument::new(payload, item, known, subject, part.kind);
    document.occur(part.timestamp);
    document.message = part.message;
    document.status = part.status;
    document.account = part.account;
    document.call = part.call;
    document.add_surroundings(payload, item, &customer);
    document.raw = (reading.raw()).filter(|_| !(part.holds_all && reading.is_sound()));
    document.unreadable = reading.into_unreadable();
    document.into_event(payload, &part.route)
}

/// The event that ends a `pending` of an earlier one; `None` while `known.media` hasn't ended.
///
/// # Errors
/// [`Unwritable`], which no input is known to cause.
pub fn media_follow_up(
    payload: &Payload,
    item: &PayloadItem,
    known: &EventContext<'_>,
) -> Result<Option<Event>, Unwritable> {
    let (kind, word) = match known.media {
        None | Some(MediaState::Pending) => return Ok(None),
        Some(MediaState::Stored { .. }) => (EventType::MediaStored, "stored"),
        Some(MediaState::Failed { .. }) => (EventType::MediaFailed, "failed"),
    };
    let mut reading = Reading::of(payload.raw(item));
    let customer = Customer::of(payload, item);
    let part = part(payload, item, known, &customer, &mut reading);
    let named = NamedNumber::of(payload, item);
    let mut document = EventDocument::new(payload, item, known, (&customer, &named), kind);
    document.occur(part.timestamp);
    document.message = part.message.map(|message| Message {
        id: message.id,
        kind: message.kind,
        timestamp: message.timestamp,
        direction: message.direction,
        media: message.media,
        ..Message::default()
    });
    document.call = part.call.map(|call| Call {
        id: call.id,
        event: call.event,
        timestamp: call.timestamp,
        media: call.media,
        ..Call::default()
    });
    let event = document.into_event(payload, &format!("media.{word}"))?;
    let follows = Some(part.kind.name());
    Ok(Some(Event { follows, ..event }))
}

fn part<'a>(
    payload: &'a Payload,
    item: &'a PayloadItem,
    known: &EventContext<'_>,
    customer: &Customer,
    reading: &mut Reading<'a>,
) -> TypedItem<'a> {
    let of_media = (known.media_places, known.media);
    let message = |reading: &mut Reading<'a>, kind, group, direction| {
        let (mut message, word) = message::message(reading, item.place, of_media);
        message.direction = direction;
        TypedItem {
            timestamp: message.timestamp,
            message: Some(message),
            ..TypedItem::new(kind, group, word.name())
        }
    };
    let status = |reading: &mut Reading<'a>, kind, group| {
        let (status, word) = status::status(reading);
        TypedItem {
            timestamp: status.timestamp,
            status: Some(status),
            ..TypedItem::new(kind, group, word.into())
        }
    };
    let account = |reading: &mut Reading<'a>, field: &'a str| TypedItem {
        timestamp: account::timestamp(reading).or_else(|| {
            let seconds = payload.change(item).entry_time.as_deref()?;
            Timestamp::of_seconds(seconds)
        }),
        account: Some(Account {
            field,
            value: reading.sound(),
            details: account::details(reading, field),
        }),
        holds_all: true,
        ..TypedItem::new(EventType::AccountUpdated, "account", &word(field))
    };
    // What is no account's is no message to answer.
    let is_whole = matches!(item.place, Place::Change | Place::UnknownShape);
    if known.tenant.is_platform() && !is_whole {
        return account(reading, payload.field(item));
    }
    let (inbound, outbound) = (Some(Direction::Inbound), Some(Direction::Outbound));
    match item.place {
        Place::Message => message(reading, EventType::MessageReceived, "message", inbound),
        Place::StandbyMessage => message(reading, EventType::MessageStandby, "standby", inbound),
        Place::StandbyEcho => message(reading, EventType::MessageStandby, "standby", outbound),
        Place::Echo => message(reading, EventType::MessageEcho, "echo", outbound),
        Place::HistoryEcho => message(reading, EventType::MessageHistory, "history", outbound),
        Place::HistoryThreadMessage | Place::HistoryMessage => {
            let direction = customer.direction(payload, item);
            message(reading, EventType::MessageHistory, "history", direction)
        }
        Place::Status => status(reading, EventType::StatusUpdated, "status"),
        Place::StandbyStatus => status(reading, EventType::MessageStandby, "standby"),
        Place::Call | Place::CallStatus => {
            let media = SentMedia::of(reading, item.place);
            let (mut call, word) = call::call(reading);
            call.media = media.and_then(|sent| sent.part(known.media_places, known.media));
            TypedItem {
                timestamp: call.timestamp,
                call: Some(call),
                ..TypedItem::new(EventType::CallUpdated, "call", word.into())
            }
        }
        Place::UserAction => account(reading, AccountField::UserActions.name()),
        Place::ValueErrors => account(reading, AccountField::Errors.name()),
        Place::Change | Place::UnknownShape if payload.field(item).is_empty() => {
            account(reading, "unknown")
        }
        Place::Change => account(reading, payload.field(item)),
        Place::UnknownShape => account(reading, payload.field(item)),
    }
}

impl<'a> EventDocument<'a> {
    /// What all events of an item have.
    fn new(
        payload: &'a Payload,
        item: &'a PayloadItem,
        known: &EventContext<'a>,
        (customer, named): (&'a Customer, &'a NamedNumber),
        event_type: EventType,
    ) -> Self {
        let received_at = rfc3339(time(payload.entry.received_at_ms));
        Self {
            schema_version: SCHEMA_VERSION,
            event_id: event_type.id(&item.identity),
            event_type,
            correlation_id: &payload.entry.correlation_id,
            source: "whatsapp",
            occurred_at: received_at.clone(),
            received_at,
            processed_at: rfc3339(Utc::now()),
            tenant: (!known.tenant.is_platform()).then(|| TenantPart {
                id: &known.tenant.id,
                name: known.tenant.name.as_deref(),
            }),
            channel: channel(payload, named, known.number),
            customer: person(customer),
            conversation: known
                .conversation
                .filter(|raw| matches!(SentJson::of((*raw).into()), SentJson::Json(_))),
            group_id: customer.group_id.as_deref().map(Cow::Borrowed),
            message: None,
            status: None,
            account: None,
            call: None,
            health: None,
            errors: None,
            beside: OtherMembers::default(),
            raw: None,
            unreadable: None,
            raw_object: known.raw_object,
            degraded: known.degraded,
        }
    }

    /// What stands around an item in its change.
    fn add_surroundings(
        &mut self,
        payload: &'a Payload,
        item: &'a PayloadItem,
        customer: &'a Customer,
    ) {
        let contact = customer.contact.as_ref();
        let odd_contact = contact
            .filter(|contact| contact.is_odd || customer.differs(contact))
            .map(|contact| (Cow::Borrowed("contact"), payload.contact(contact)));
        let strangers = customer::strangers(payload, item, customer).map(|(at, contact)| {
            let path = Cow::Owned(format!("contacts[{at}]"));
            (path, payload.contact(contact))
        });
        for (name, raw) in payload
            .other_members(item)
            .chain(odd_contact)
            .chain(strangers)
        {
            self.beside.0.push((name, SentJson::of(raw)));
        }
        if let Some(raw) = payload.change_errors(item) {
            let errors: Vec<MetaError> = self.typed_member("errors", raw);
            self.errors = Some(errors).filter(|errors| !errors.is_empty());
        }
        let Some(mut message) = self.message.take() else {
            return;
        };
        if let Some(group_id) = message.group_id.take() {
            self.group_id = Some(Cow::Owned(group_id.0));
        }
        if let Some(raw) = payload.conversation_context(item) {
            message.conversation_context = Some(self.typed_member("conversation_context", raw));
        }
        if let Some(thread) = payload.thread(item) {
            let metadata = payload.history_metadata(thread);
            let chunk = metadata.map(|raw| self.typed_member("history.metadata", raw));
            message.history = Some(History {
                thread_id: thread.id.clone().map(Text),
                status: message.history.take().and_then(|history| history.status),
                ..chunk.unwrap_or_default()
            });
        }
        self.message = Some(message);
    }

    /// Types what stands beside the items; unless that holds all of it, it is there as sent too.
    fn typed_member<T: DeserializeOwned + Default>(
        &mut self,
        name: &'static str,
        raw: Json<'a>,
    ) -> T {
        let mut reading = Reading::of(raw);
        let typed = reading.rest();
        let sent = reading.raw().map(|sent| (Cow::Borrowed(name), sent));
        self.beside.0.extend(sent);
        typed
    }

    fn occur(&mut self, at: Option<Timestamp>) {
        if let Some(Timestamp(at)) = at {
            self.occurred_at = rfc3339(at);
        }
    }

    fn counted(&self) -> CountedFacts {
        let received = self.event_type == EventType::MessageReceived;
        let sender = self.customer.as_ref().filter(|_| received);
        CountedFacts {
            priced: self.status.as_ref().and_then(Status::price),
            sender_without_phone: sender.is_some_and(|sender| sender.wa_id.is_none()),
        }
    }

    fn into_event(self, payload: &Payload, route: &str) -> Result<Event, Unwritable> {
        let occurred_at = DateTime::parse_from_rfc3339(&self.occurred_at).unwrap_or_default();
        let tenant_id = self.tenant.as_ref().map(|tenant| tenant.id);
        Ok(Event {
            id: self.event_id,
            kind: self.event_type.name(),
            routing_key: format!("{route}.{}", tenant_id.map_or(PLATFORM.to_owned(), word)),
            body: serde_json::to_vec(&self)?,
            correlation_id: payload.entry.correlation_id.clone(),
            traceparent: payload.entry.traceparent.clone(),
            tenant_id: tenant_id.unwrap_or_default().to_owned(),
            replay_id: payload.entry.replay_id().to_owned(),
            occurred_at: occurred_at.timestamp().try_into().unwrap_or(0),
            counted: self.counted(),
            follows: None,
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routing_key_has_no_more_words_than_it_should() {
        assert_eq!(word("a.b*c#d-é_1"), "a_b_c_d-__1");
    }
}
