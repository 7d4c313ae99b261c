//! Exchanges, queues and bindings in RabbitMQ.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Connection, Error, ErrorKind, ExchangeKind};
use serde::Serialize;

use crate::config::{AmqpArgs, QueueType};

/// The queues and what is bound to each.
pub(crate) const QUEUES: [(&str, &[&str]); 3] = [
    ("INBOUND_WHATSAPP_MESSAGES", &["message.#", "media.#"]),
    ("WHATSAPP_STATUS_UPDATES", &["status.#"]),
    (
        "WHATSAPP_EVENTS",
        &["account.#", "standby.#", "echo.#", "history.#", "call.#"],
    ),
];

/// Redeliveries after which a message that consumers reject goes to the dead letters.
const DELIVERY_LIMIT: i64 = 20;

/// Why the topology isn't there.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The broker says which argument differs, or what is missing.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Broker(Error),
}

impl From<Error> for TopologyError {
    fn from(error: Error) -> Self {
        match error.kind() {
            // 404 NOT_FOUND, 406 PRECONDITION_FAILED, 403 ACCESS_REFUSED, 405 RESOURCE_LOCKED.
            ErrorKind::ProtocolError(said) if (403..=406).contains(&said.get_id()) => {
                Self::Refused(said.get_message().to_string())
            }
            _ => Self::Broker(error),
        }
    }
}

/// Declares everything, or only checks that it is there, on a channel of its own: a refusal closes
/// the channel.
///
/// # Errors
/// [`TopologyError::Refused`] if something exists with other arguments or (when only checking) not
/// at all.
pub async fn ensure(connection: &Connection, args: &AmqpArgs) -> Result<(), TopologyError> {
    let channel = connection.create_channel().await?;
    let passive = !args.amqp_declare_topology;
    let exchange = &args.amqp_exchange;
    let dead_letters = format!("{exchange}.dlx");
    for (name, kind) in [
        (exchange, ExchangeKind::Topic),
        (&dead_letters, ExchangeKind::Direct),
    ] {
        let options = ExchangeDeclareOptions {
            durable: true,
            passive,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare(short(name), kind, options, FieldTable::default())
            .await?;
    }
    let options = QueueDeclareOptions {
        durable: true,
        passive,
        ..QueueDeclareOptions::default()
    };
    for (queue, keys) in QUEUES {
        let dead = format!("{queue}.DLQ");
        channel
            .queue_declare(short(&dead), options, queue_type(args))
            .await?;
        let arguments = queue_arguments(args, &dead_letters, queue);
        channel
            .queue_declare(short(queue), options, arguments)
            .await?;
        if passive {
            continue;
        }
        bind(&channel, &dead, &dead_letters, queue).await?;
        for key in keys {
            bind(&channel, queue, exchange, key).await?;
        }
    }
    // A channel left open would last as long as the connection.
    channel.close(200, short("done")).await?;
    Ok(())
}

/// What the broker tells of a queue; of a quorum queue it may be 5 s old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub messages: u32,
    pub consumers: u32,
}

/// The queues, each before its dead letters.
pub fn queues() -> impl Iterator<Item = String> {
    let names = QUEUES.iter().map(|(queue, _)| queue);
    names.flat_map(|queue| [(*queue).to_owned(), format!("{queue}.DLQ")])
}

/// Asks for each queue, on a channel of its own: a refusal closes the channel.
pub async fn counts(connection: &Connection) -> Vec<(String, Result<Counts, TopologyError>)> {
    let mut counted = Vec::new();
    for name in queues() {
        let counts = count(connection, &name).await;
        counted.push((name, counts.map_err(TopologyError::from)));
    }
    counted
}

async fn count(connection: &Connection, queue: &str) -> Result<Counts, Error> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel.queue_declare(short(queue), options, FieldTable::default());
    let queue = queue.await?;
    let counts = Counts {
        messages: queue.message_count(),
        consumers: queue.consumer_count(),
    };
    channel.close(200, short("done")).await?;
    Ok(counts)
}

async fn bind(
    channel: &lapin::Channel,
    queue: &str,
    exchange: &str,
    key: &str,
) -> Result<(), Error> {
    channel
        .queue_bind(
            short(queue),
            short(exchange),
            short(key),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
}

fn queue_type(args: &AmqpArgs) -> FieldTable {
    let mut table = FieldTable::default();
    let kind = match args.amqp_queue_type {
        QueueType::Quorum => "quorum",
        QueueType::Classic => "classic",
    };
    table.insert("x-queue-type".into(), text(kind));
    table
}

fn queue_arguments(args: &AmqpArgs, dead_letters: &str, queue: &str) -> FieldTable {
    let mut table = queue_type(args);
    table.insert("x-dead-letter-exchange".into(), text(dead_letters));
    table.insert("x-dead-letter-routing-key".into(), text(queue));
    match args.amqp_queue_type {
        QueueType::Quorum => {
            // Without both of these a dead letter can get lost on its way.
            table.insert("x-dead-letter-strategy".into(), text("at-least-once"));
            table.insert("x-overflow".into(), text("reject-publish"));
            table.insert(
                "x-delivery-limit".into(),
                AMQPValue::LongLongInt(DELIVERY_LIMIT),
            );
        }
        QueueType::Classic => {}
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// A name; settings are checked to be short, the rest is ours.
fn short(name: &str) -> ShortString {
    ShortString::try_new(name.to_owned()).unwrap_or_default()
}
