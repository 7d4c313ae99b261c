//! What came out of RabbitMQ, as much of each event as the checker needs.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::history::{History, Millis, now};
use crate::events::{self, Event, QUEUES};

/// One delivery.
#[derive(Debug, Clone)]
pub struct Received {
    pub at: Millis,
    pub queue: &'static str,
    pub event_id: String,
    pub event_type: String,
    pub key: String,
    pub redelivered: bool,
    pub processed: Millis,
    pub waba_id: String,
    pub tenant_id: String,
    pub customer: String,
    pub raw_key: String,
    pub media: Option<MediaSaid>,
    /// Of all that a copy must have in common with the first.
    pub digest: u64,
    /// Why its properties aren't those of its body.
    pub malformed: Option<String>,
}

/// `message.media`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaSaid {
    pub status: String,
    pub key: String,
    pub sha256: String,
    pub error: String,
}

/// What tells which item an event is about: the message's id, a status' message and status, a made-up
/// number in a change.
pub fn key(event_type: &str, payload: &Value) -> String {
    let text = |pointer: &str| {
        let found = payload.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    match event_type {
        "status.updated" => format!("{} {}", text("/status/messageId"), text("/status/status")),
        "account.updated" => text("/account/value/serial"),
        _ => text("/message/id"),
    }
}

impl Received {
    fn new(event: &Event) -> Self {
        let text = |pointer: &str| event.text(pointer).to_owned();
        let media = event.payload.pointer("/message/media");
        let media = media.filter(|media| !media.is_null()).map(|media| {
            let text = |name: &str| media[name].as_str().unwrap_or_default().to_owned();
            MediaSaid {
                status: text("status"),
                key: text("key"),
                sha256: text("sha256"),
                error: text("error"),
            }
        });
        let event_type = text("/eventType");
        Self {
            at: now(),
            queue: event.queue,
            event_id: event.message_id.clone().unwrap_or_default(),
            key: key(&event_type, &event.payload),
            redelivered: event.redelivered,
            processed: millis(event.text("/processedAt")),
            waba_id: text("/channel/businessAccountId"),
            tenant_id: text("/tenant/id"),
            customer: text("/customer/waId"),
            raw_key: text("/rawObject/key"),
            media,
            digest: digest(&event.payload),
            malformed: malformed(event),
            event_type,
        }
    }
}

fn malformed(event: &Event) -> Option<String> {
    let header = |name: &str| event.headers.get(name).map_or("", String::as_str);
    let pairs = [
        ("message_id", event.message_id.as_deref(), "/eventId"),
        ("type", event.kind.as_deref(), "/eventType"),
        ("x-tenant-id", Some(header("x-tenant-id")), "/tenant/id"),
    ];
    let differs = pairs
        .iter()
        .find(|(_, property, pointer)| *property != Some(event.text(pointer)));
    if let Some((name, property, pointer)) = differs {
        let body = event.text(pointer);
        return Some(format!("{name} is {property:?}, {pointer} `{body}`"));
    }
    (event.delivery_mode != Some(2)).then(|| "it isn't persistent".to_owned())
}

fn millis(text: &str) -> Millis {
    let parsed = humantime::parse_rfc3339(text).ok();
    let since = parsed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}

/// Of the body without what depends on the moment: when it was made, what neighbours said then, and
/// of media how it was signed and how far it was.
fn digest(payload: &Value) -> u64 {
    let mut payload = payload.clone();
    for (pointer, names) in [
        ("", &["processedAt", "conversation", "degraded"][..]),
        ("/channel", &["verifiedName", "qualityRating", "official"]),
        ("/message", &["media"]),
    ] {
        if let Some(Value::Object(object)) = payload.pointer_mut(pointer) {
            names.iter().for_each(|name| drop(object.remove(*name)));
        }
    }
    let mut hasher = DefaultHasher::new();
    payload.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Takes everything out of the queues until dropped.
#[derive(Debug)]
pub struct Consumers {
    received: Arc<Mutex<Vec<Received>>>,
    _stop: DropGuard,
}

impl Consumers {
    pub fn start(amqp_url: &str, history: &Arc<History>) -> Self {
        crate::install_tls_provider();
        let received = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        for queue in QUEUES {
            let (list, history) = (received.clone(), history.clone());
            let (amqp_url, stop) = (amqp_url.to_owned(), stop.clone());
            tokio::spawn(async move {
                let take = move |event: Event| {
                    let one = Received::new(&event);
                    let line = json!({
                        "at": one.at, "queue": queue, "redelivered": one.redelivered,
                        "key": one.key, "event": event.payload,
                    });
                    history.event(&line);
                    list.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(one);
                };
                let consuming = events::consume_each(&amqp_url, queue, &take);
                stop.run_until_cancelled(consuming).await
            });
        }
        Self {
            received,
            _stop: stop.drop_guard(),
        }
    }

    pub fn all(&self) -> Vec<Received> {
        self.lock().clone()
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Received>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
