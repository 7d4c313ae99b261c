//! What comes out of RabbitMQ.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, Consumer};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

pub const MESSAGES: &str = "INBOUND_WHATSAPP_MESSAGES";
pub const STATUSES: &str = "WHATSAPP_STATUS_UPDATES";
pub const EVENTS: &str = "WHATSAPP_EVENTS";
/// The queues that a worker's events end in.
pub const QUEUES: [&str; 3] = [MESSAGES, STATUSES, EVENTS];

/// How long connecting and asking for a queue may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A consumer that gets nothing for so long is made anew.
const IDLE: Duration = Duration::from_secs(20);

/// One message as it came out of a queue.
#[derive(Debug, Clone)]
pub struct Event {
    pub queue: &'static str,
    pub exchange: String,
    pub routing_key: String,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    /// The property `type`.
    pub kind: Option<String>,
    pub content_type: Option<String>,
    /// 2: persistent.
    pub delivery_mode: Option<u8>,
    /// Headers that are text or numbers.
    pub headers: BTreeMap<String, String>,
    /// The broker has delivered this message before (our acknowledgement was lost): a second
    /// delivery of one publication, not a second publication.
    pub redelivered: bool,
    /// When it came.
    pub at: Instant,
    /// The body as it came.
    pub bytes: Vec<u8>,
    /// The body; `null` if it isn't JSON.
    pub payload: Value,
}

impl Event {
    /// Text at a JSON pointer of the payload such as `/message/id`; empty if there is none.
    pub fn text(&self, pointer: &str) -> &str {
        let found = self.payload.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default()
    }

    /// `message.id`, or of a status event `status.messageId`; empty for others.
    pub fn wamid(&self) -> &str {
        match self.text("/message/id") {
            "" => self.text("/status/messageId"),
            id => id,
        }
    }

    fn new(queue: &'static str, delivery: &Delivery) -> Self {
        let properties = &delivery.properties;
        let text = |value: &Option<lapin::types::ShortString>| {
            value.as_ref().map(|value| value.as_str().to_owned())
        };
        let headers = properties.headers().iter().flat_map(FieldTable::inner);
        Self {
            queue,
            exchange: delivery.exchange.as_str().to_owned(),
            routing_key: delivery.routing_key.as_str().to_owned(),
            message_id: text(properties.message_id()),
            correlation_id: text(properties.correlation_id()),
            kind: text(properties.kind()),
            content_type: text(properties.content_type()),
            delivery_mode: *properties.delivery_mode(),
            headers: headers
                .filter_map(|(name, value)| Some((name.as_str().to_owned(), header(value)?)))
                .collect(),
            redelivered: delivery.redelivered,
            at: Instant::now(),
            payload: serde_json::from_slice(&delivery.data).unwrap_or_default(),
            bytes: delivery.data.clone(),
        }
    }
}

fn header(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        AMQPValue::LongInt(number) => Some(number.to_string()),
        AMQPValue::LongLongInt(number) => Some(number.to_string()),
        AMQPValue::ShortInt(number) => Some(number.to_string()),
        AMQPValue::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Takes everything out of the three queues, acknowledges it, and remembers it in the order of each
/// queue. Survives restarts of the broker, and waits for queues that aren't declared yet. Stops
/// when dropped.
#[derive(Debug)]
pub struct Events {
    seen: watch::Receiver<Vec<Event>>,
    _stop: DropGuard,
}

impl Events {
    /// Starts to consume in the background, one connection per queue.
    pub fn consume(amqp_url: impl Into<String>) -> Self {
        crate::install_tls_provider();
        let amqp_url = amqp_url.into();
        let (events, seen) = watch::channel(Vec::new());
        let stop = CancellationToken::new();
        for queue in QUEUES {
            let (amqp_url, events, stop) = (amqp_url.clone(), events.clone(), stop.clone());
            tokio::spawn(async move {
                let take = |event| events.send_modify(|events| events.push(event));
                let consuming = consume_each(&amqp_url, queue, &take);
                stop.run_until_cancelled(consuming).await
            });
        }
        Self {
            seen,
            _stop: stop.drop_guard(),
        }
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Event> {
        self.seen.borrow().clone()
    }

    /// Everything so far of one queue.
    pub fn of(&self, queue: &str) -> Vec<Event> {
        let seen = self.seen.borrow();
        let of_queue = seen.iter().filter(|event| event.queue == queue);
        of_queue.cloned().collect()
    }

    pub fn count(&self) -> usize {
        self.seen.borrow().len()
    }

    /// How many of those after the first `n` are so.
    pub fn count_since(&self, n: usize, predicate: impl FnMut(&&Event) -> bool) -> usize {
        self.seen.borrow().iter().skip(n).filter(predicate).count()
    }

    /// Waits until there are at least `n` events, and returns all.
    ///
    /// # Panics
    /// After `deadline`, telling what there is.
    pub async fn wait_for(&self, n: usize, deadline: Duration) -> Vec<Event> {
        let what = format!("{n} events");
        self.wait(deadline, &what, |events| events.len() >= n).await
    }

    /// Waits until `predicate` is true of all events so far, and returns them.
    ///
    /// # Panics
    /// After `deadline`, telling what there is.
    pub async fn wait_until(
        &self,
        deadline: Duration,
        predicate: impl FnMut(&[Event]) -> bool,
    ) -> Vec<Event> {
        self.wait(deadline, "the events waited for", predicate)
            .await
    }

    /// Like [`Events::wait_until`], `None` after `deadline`.
    pub async fn try_wait_until(
        &self,
        deadline: Duration,
        mut predicate: impl FnMut(&[Event]) -> bool,
    ) -> Option<Vec<Event>> {
        let mut seen = self.seen.clone();
        let waiting = seen.wait_for(|events| predicate(events));
        match tokio::time::timeout(deadline, waiting).await {
            Ok(Ok(events)) => Some(events.clone()),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    async fn wait(
        &self,
        deadline: Duration,
        what: &str,
        predicate: impl FnMut(&[Event]) -> bool,
    ) -> Vec<Event> {
        if let Some(events) = self.try_wait_until(deadline, predicate).await {
            return events;
        }
        let seen = self.seen.borrow();
        let lines = seen.iter().map(|event| {
            let kind = event.kind.as_deref().unwrap_or("-");
            format!(
                "  {} {} {kind} {}\n",
                event.queue,
                event.routing_key,
                event.wamid()
            )
        });
        panic!(
            "not within {deadline:?}: {what}; there are {}:\n{}",
            seen.len(),
            lines.collect::<String>()
        );
    }
}

/// Hands on every message of a queue, and acknowledges it, for ever.
pub async fn consume_each(amqp_url: &str, queue: &'static str, take: &(dyn Fn(Event) + Sync)) {
    loop {
        // A broker that is away, one that is still starting and doesn't answer, and a queue that
        // isn't there yet are all tried again.
        let connecting = Connection::connect(amqp_url, ConnectionProperties::default());
        if let Ok(Ok(connection)) = timeout(PATIENCE, connecting).await {
            if let Ok(Ok(deliveries)) = timeout(PATIENCE, consume(&connection, queue)).await {
                drop(collect(deliveries, queue, take).await);
            }
            // Else a node that lost the others for a while goes on giving messages to it.
            let closing = connection.close(200, "bye".into());
            drop(timeout(PATIENCE, closing).await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn consume(connection: &Connection, queue: &str) -> lapin::Result<Consumer> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(512, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
}

async fn collect(
    mut deliveries: Consumer,
    queue: &'static str,
    take: &(dyn Fn(Event) + Sync),
) -> lapin::Result<()> {
    // It may hang after faults of the broker.
    while let Ok(Some(delivery)) = timeout(IDLE, deliveries.next()).await {
        let delivery = delivery?;
        take(Event::new(queue, &delivery));
        let acked = delivery.ack(BasicAckOptions::default());
        let Ok(acked) = timeout(PATIENCE, acked).await else {
            break;
        };
        acked?;
    }
    Ok(())
}
