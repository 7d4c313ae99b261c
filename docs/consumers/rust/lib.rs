//! Consumes events of the WhatsApp webhook service: connects, again and again, acknowledges what was
//! handled, and leaves out what was handled before. The types are those that most consumers need;
//! `content` and `details` are JSON, whose shapes are in `event.schema.json`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, Connection, ConnectionProperties};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const EXCHANGE: &str = "whatsapp.inbound";
const PREFETCH: u16 = 50;
const REMEMBERED: usize = 100_000;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Of returns of a dead letter. Without it RabbitMQ 4 deletes one that was returned 20 times.
const NO_LIMIT: i32 = i32::MAX;

/// One thing that happened on WhatsApp; one of `message`, `status`, `account` and `call` is there.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub event_id: String,
    /// `message.received`, `status.updated`, …
    pub event_type: String,
    pub correlation_id: String,
    /// RFC 3339.
    pub occurred_at: String,
    /// `None` for what is no account's.
    pub tenant: Option<Tenant>,
    pub channel: BusinessNumber,
    pub customer: Option<Customer>,
    pub group_id: Option<String>,
    pub message: Option<Message>,
    pub status: Option<Status>,
    pub account: Option<Account>,
    pub call: Option<Value>,
    /// `null`, or the item as Meta sent it.
    pub raw: Value,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Tenant {
    pub id: String,
    pub name: Option<String>,
}

/// The business's number and account.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BusinessNumber {
    pub business_account_id: String,
    pub phone_number_id: Option<String>,
    pub phone_e164: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Customer {
    pub user_id: Option<String>,
    /// What to answer to.
    pub wa_id: Option<String>,
    /// What to dial.
    pub phone_e164: Option<String>,
    pub country_code: Option<String>,
    pub name: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    pub id: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    pub timestamp: Option<String>,
    /// `inbound` or `outbound`.
    pub direction: Option<String>,
    pub content: Value,
    pub media: Option<Media>,
}

impl Message {
    /// The content as a type of the consumer's own.
    ///
    /// # Errors
    /// It has another shape.
    pub fn content<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        T::deserialize(&self.content)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Media {
    /// `stored`, `pending` or `failed`.
    pub status: String,
    pub mime_type: Option<String>,
    pub size_bytes: Option<u64>,
    pub bucket: Option<String>,
    pub key: Option<String>,
    /// Presigned; good until `url_expires_at`.
    pub url: Option<String>,
    pub url_expires_at: Option<String>,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub message_id: Option<String>,
    pub status: String,
    pub rank: Option<u8>,
    pub recipient_participant_id: Option<String>,
    pub recipient_participant_user_id: Option<String>,
    pub pricing: Option<Value>,
    pub errors: Vec<Value>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Account {
    pub field: String,
    pub value: Value,
    pub details: Value,
}

/// Why an event was not handled.
#[derive(Debug)]
pub enum Unhandled {
    /// It never can be: it goes to `<queue>.DLQ`.
    Rejected(String),
    /// It returns to the queue.
    Later(String),
}

/// The key of an event: its `message_id`, and its `x-replay-id`, `""` unless a replay published it. A crash of
/// the worker repeats an event with the same key, a replay publishes it with another one.
pub type EventKey = (String, String);

/// What was handled: in earnest a table whose rows are written in the transaction of the work. This one
/// holds the last 100,000, and forgets them when the process ends.
#[derive(Debug)]
pub struct Recent<K> {
    known: HashSet<K>,
    order: VecDeque<K>,
}

impl<K> Default for Recent<K> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Recent<K> {
    pub fn contains(&self, key: &K) -> bool {
        self.known.contains(key)
    }

    pub fn insert(&mut self, key: K) {
        if self.known.insert(key.clone()) {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// The highest rank of each message's statuses, which come in any order.
#[derive(Debug, Default)]
pub struct Ranks(HashMap<(Option<String>, Option<String>), u8>);

impl Ranks {
    /// Whether a later status of the same message was seen. `failed` and others without a rank never are
    /// late, nor is one that is handled again. Each member of a group has statuses of their own.
    pub fn is_late(&mut self, status: &Status) -> bool {
        let Some(rank) = status.rank else {
            return false;
        };
        let user = status.recipient_participant_user_id.clone();
        let member = user.or_else(|| status.recipient_participant_id.clone());
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let key = (status.message_id.clone(), member);
        let before = self.0.get(&key).copied();
        self.0
            .insert(key, before.map_or(rank, |before| before.max(rank)));
        before.is_some_and(|before| before > rank)
    }
}

/// A queue to consume.
#[derive(Debug, Clone)]
pub struct Consumer {
    pub url: String,
    pub queue: String,
    /// The queue is the consumer's own, declared here and bound by these keys, those of one tenant for
    /// example: `message.*.acme`. Empty: it is there.
    pub bind: Vec<String>,
}

impl Consumer {
    /// Hands the events of the queue to `handle`, with their replay's id, one at a time, for ever. What it
    /// has handled is acknowledged; what is no event goes to the dead letters.
    pub async fn run(
        &self,
        mut handle: impl AsyncFnMut(&Event, &str) -> Result<(), Unhandled>,
    ) -> ! {
        let mut seen = Recent::default();
        let mut pause = Duration::from_secs(1);
        loop {
            if let Err(error) = self.consume(&mut handle, &mut seen, &mut pause).await {
                eprintln!("the connection to RabbitMQ ended: {error}");
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    async fn consume(
        &self,
        handle: &mut impl AsyncFnMut(&Event, &str) -> Result<(), Unhandled>,
        seen: &mut Recent<EventKey>,
        pause: &mut Duration,
    ) -> lapin::Result<()> {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        if !self.bind.is_empty() {
            self.declare(&channel).await?;
        }
        let options = BasicQosOptions::default();
        channel.basic_qos(PREFETCH, options).await?;
        let queue = ShortString::from(self.queue.as_str());
        let options = BasicConsumeOptions::default();
        let consuming = channel.basic_consume(queue, "".into(), options, FieldTable::default());
        let mut deliveries = consuming.await?;
        *pause = Duration::from_secs(1);
        while let Some(delivery) = deliveries.next().await {
            take(&delivery?, handle, seen).await?;
        }
        Ok(())
    }

    async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let dead = format!("{}.DLQ", self.queue);
        let text = |text: &str| AMQPValue::LongString(LongString::from(text));
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("quorum"));
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let name = ShortString::from(dead.as_str());
        let mut of_dead = arguments.clone();
        of_dead.insert("x-delivery-limit".into(), AMQPValue::LongInt(NO_LIMIT));
        channel.queue_declare(name, options, of_dead).await?;
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(&dead));
        // RabbitMQ keeps a dead letter until the other queue has it; that takes `reject-publish`.
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        arguments.insert("x-overflow".into(), text("reject-publish"));
        let name = ShortString::from(self.queue.as_str());
        let declared = channel.queue_declare(name.clone(), options, arguments);
        declared.await?;
        for key in &self.bind {
            let options = QueueBindOptions::default();
            let (exchange, key) = (EXCHANGE.into(), key.as_str().into());
            let bound =
                channel.queue_bind(name.clone(), exchange, key, options, FieldTable::default());
            bound.await?;
        }
        Ok(())
    }
}

async fn take(
    delivery: &Delivery,
    handle: &mut impl AsyncFnMut(&Event, &str) -> Result<(), Unhandled>,
    seen: &mut Recent<EventKey>,
) -> lapin::Result<()> {
    let properties = &delivery.properties;
    let headers = properties.headers().as_ref();
    let replay_id = match headers.and_then(|headers| headers.inner().get("x-replay-id")) {
        Some(AMQPValue::LongString(id)) => id.to_string(),
        _ => String::new(),
    };
    let id = properties.message_id().as_ref();
    let key = (id.map(ToString::to_string).unwrap_or_default(), replay_id);
    let handled = if seen.contains(&key) {
        Ok(())
    } else {
        match serde_json::from_slice(&delivery.data) {
            Ok(event) => handle(&event, &key.1).await,
            Err(error) => Err(Unhandled::Rejected(error.to_string())),
        }
    };
    let requeue = match handled {
        Ok(()) => {
            seen.insert(key);
            delivery.ack(BasicAckOptions::default()).await?;
            return Ok(());
        }
        Err(Unhandled::Rejected(reason)) => {
            eprintln!("rejected: {reason}");
            false
        }
        Err(Unhandled::Later(reason)) => {
            eprintln!("not handled, it returns to the queue: {reason}");
            tokio::time::sleep(Duration::from_secs(1)).await;
            true
        }
    };
    let options = BasicNackOptions {
        requeue,
        ..BasicNackOptions::default()
    };
    delivery.nack(options).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_an_event() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
        let mut read = 0;
        for file in std::fs::read_dir(folder).expect("the examples") {
            let path = file.expect("a file").path();
            if path.ends_with("index.json") {
                continue;
            }
            let text = std::fs::read(&path).expect("a readable file");
            let event: Event = serde_json::from_slice(&text).expect("an event");
            assert!(!event.event_id.is_empty(), "{}", path.display());
            read += 1;
        }
        assert!(read > 100, "{read}");
    }

    #[test]
    fn a_status_that_others_have_overtaken_is_late() {
        let mut ranks = Ranks::default();
        let mut is_late = |rank: Option<u8>| {
            ranks.is_late(&Status {
                message_id: Some("wamid.1".to_owned()),
                status: String::new(),
                rank,
                recipient_participant_id: None,
                recipient_participant_user_id: None,
                pricing: None,
                errors: Vec::new(),
            })
        };
        let seen = [Some(1), Some(3), Some(2), None, Some(3), Some(4)].map(&mut is_late);
        assert_eq!(seen, [false, false, true, false, false, false]);
    }
}
