//! Events that are published side by side on one channel, and what RabbitMQ says of each. Only when every
//! confirm is there it is known which came back as unroutable, by their `message_id`: lapin hands a return
//! to whichever confirm resolves next.

use std::collections::HashSet;

use futures::future::join_all;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};

use super::sizes::refuses_size;
use super::{NotPublished, Publication};
use crate::item::event::{Event, SCHEMA_VERSION};
use crate::out::topology;

/// `delivery_mode` of a message that survives the broker.
const PERSISTENT: u8 = 2;
/// Bytes of events that lapin gets before what it has is written: it copies them.
const SENT_AT_ONCE: usize = 256 * 1024;

/// What became of one message of a batch.
pub(super) enum PublicationOutcome {
    Settled(Result<(), NotPublished>),
    Unknown,
}

/// What became of a batch.
pub(super) struct BatchOutcome {
    /// As many as messages, in their order.
    pub(super) outcomes: Vec<PublicationOutcome>,
    /// The broker closed the channel over the size of one whose outcome isn't known.
    pub(super) one_too_large: bool,
}

/// Nothing is known of any.
pub(super) fn unknown(batch: &[Publication]) -> BatchOutcome {
    BatchOutcome {
        outcomes: batch.iter().map(|_| PublicationOutcome::Unknown).collect(),
        one_too_large: false,
    }
}

/// Publishes all, then awaits every confirm.
pub(super) async fn publish_batch(
    channel: &Channel,
    batch: &[Publication],
    exchange: &str,
) -> BatchOutcome {
    let mut one_too_large = false;
    let mut failed = None;
    let mut returned = HashSet::new();
    let mut acknowledged = Vec::with_capacity(batch.len());
    for sent in send_all(channel, batch, exchange).await {
        let confirmed = match sent {
            Ok(confirm) => confirm.await,
            Err(error) => {
                one_too_large |= refuses_size(&error);
                failed.get_or_insert(error);
                acknowledged.push(None);
                continue;
            }
        };
        let (outcome, message) = match confirmed {
            Ok(Confirmation::Ack(message)) => (Some(true), message),
            Ok(Confirmation::Nack(message)) => (Some(false), message),
            // Not a success, even if it isn't an error to lapin.
            Ok(Confirmation::NotRequested) => (None, None),
            Err(error) => {
                one_too_large |= refuses_size(&error);
                (None, None)
            }
        };
        if let Some(id) = message.and_then(|m| m.delivery.properties.message_id().clone()) {
            returned.insert(id.to_string());
        }
        acknowledged.push(outcome);
    }
    if let Some(error) = failed.filter(|_| !one_too_large) {
        tracing::warn!(%error, "publishing failed");
    }
    let outcomes = batch.iter().zip(acknowledged);
    let outcomes = outcomes.map(|(message, acknowledged)| match acknowledged {
        _ if !returned.is_empty() && returned.contains(&message.event.id.to_string()) => {
            PublicationOutcome::Settled(Err(NotPublished::Unroutable))
        }
        Some(true) => PublicationOutcome::Settled(Ok(())),
        Some(false) => PublicationOutcome::Settled(Err(NotPublished::Refused)),
        None => PublicationOutcome::Unknown,
    });
    BatchOutcome {
        outcomes: outcomes.collect(),
        one_too_large,
    }
}

/// Sends all, in their order. lapin's thread tells when it has written a message: who waits for each before
/// the next wakes that thread, and RabbitMQ, for each.
async fn send_all(
    channel: &Channel,
    batch: &[Publication],
    exchange: &str,
) -> Vec<lapin::Result<PublisherConfirm>> {
    let mut all = Vec::with_capacity(batch.len());
    let mut left = batch;
    while !left.is_empty() {
        let mut bytes = 0;
        let fit = left.iter().take_while(|message| {
            let fits = bytes < SENT_AT_ONCE;
            bytes += message.event.body.len();
            fits
        });
        let (now, later) = left.split_at(fit.count());
        let sending = now.iter();
        let sending = sending.map(|message| send(channel, &message.event, exchange));
        all.extend(join_all(sending).await);
        left = later;
    }
    all
}

async fn send(channel: &Channel, event: &Event, exchange: &str) -> lapin::Result<PublisherConfirm> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    channel
        .basic_publish(
            short(exchange),
            short(&event.routing_key),
            options,
            &event.body,
            properties(event),
        )
        .await
}

pub(crate) fn properties(event: &Event) -> BasicProperties {
    let id = event.id.to_string();
    let mut headers = FieldTable::default();
    let mut header = |name: &str, value: &str| {
        headers.insert(short(name), AMQPValue::LongString(LongString::from(value)));
    };
    header("x-schema-version", SCHEMA_VERSION);
    header("x-deduplication-header", &id);
    for (name, value) in [
        ("x-tenant-id", &event.tenant_id),
        ("traceparent", &event.traceparent),
        ("x-replay-id", &event.replay_id),
    ] {
        if !value.is_empty() {
            header(name, value);
        }
    }
    if let Some(follows) = event.follows {
        header(topology::FOLLOWS, follows);
    }
    BasicProperties::default()
        .with_content_type(short("application/json"))
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short(&id))
        .with_correlation_id(short(&event.correlation_id))
        .with_type(short(event.kind))
        .with_timestamp(event.occurred_at)
        .with_headers(headers)
}

/// AMQP's short strings have 255 bytes at most; lapin panics on a longer one. Ours are ids, and
/// routing keys built of short words.
pub(crate) fn short(text: &str) -> ShortString {
    ShortString::try_new(text.to_owned()).unwrap_or_default()
}
