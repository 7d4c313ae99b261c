//! Exchanges, queues and bindings in RabbitMQ.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Connection, Error, ErrorKind, ExchangeKind};
use serde::Serialize;

use crate::item::event::{FOLLOW_UPS, QUEUES, QUEUES_OF_FOLLOW_UPS};
use clap::{Args, ValueEnum};
use shared::config::duration;
use shared::secrets::Secret;
use std::path::PathBuf;
use std::time::Duration;

/// Where events go.
#[derive(Args, Debug, Clone)]
pub struct AmqpArgs {
    /// `amqps://` for TLS [default: amqp://guest:guest@127.0.0.1:5672/%2f]
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    pub amqp_url: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "AMQP_URL_FILE")]
    pub amqp_url_file: Option<PathBuf>,
    /// Durable topic exchange
    #[arg(long, env = "AMQP_EXCHANGE", default_value = "whatsapp.inbound")]
    pub amqp_exchange: String,
    /// Type of the queues; classic ones lose at-least-once dead lettering
    #[arg(long, env = "AMQP_QUEUE_TYPE", value_enum, default_value_t = QueueType::Quorum)]
    pub amqp_queue_type: QueueType,
    /// false: only check that the topology is there
    #[arg(long, env = "AMQP_DECLARE_TOPOLOGY", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub amqp_declare_topology: bool,
    /// How often a message returns to a quorum queue before it goes to the dead letters: rejected with
    /// requeue, or unacknowledged when its consumer's channel or connection closed. For queues that are
    /// declared anew; one that exists keeps its own, and another value here is refused at the start
    #[arg(long, env = "AMQP_DELIVERY_LIMIT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(NO_LIMIT)))]
    pub amqp_delivery_limit: u32,
    /// Publisher tasks, each with a connection and a channel of its own
    #[arg(long, env = "AMQP_CHANNELS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub amqp_channels: u16,
    /// Events published before their confirms are awaited
    #[arg(long, env = "PUBLISH_BATCH", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub publish_batch: u16,
    /// Then the outcome is unknown, and the events are published again
    #[arg(long, env = "CONFIRM_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub confirm_timeout: Duration,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueType {
    Quorum,
    Classic,
}

/// Returns after which a quorum queue of dead letters drops one. Without a limit RabbitMQ 4 takes 20,
/// and somebody who looks at dead letters by "get and requeue" loses them; -1 is no limit to RabbitMQ
/// 4 only, and RabbitMQ 3.10 drops at the first return.
pub(crate) const NO_LIMIT: u32 = 2_147_483_647;

/// Header of an event that ends what was pending: the type of the event that said so. (A headers exchange
/// doesn't look at names that begin with `x-`.)
pub(crate) const FOLLOWS: &str = "follows";

/// Why the topology isn't there.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The broker says which argument differs, or what is missing.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Broker(Error),
}

const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

/// Whether the broker answered so.
fn answered(error: &Error, code: u16) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(reply) if reply.get_id() == code)
}

impl From<Error> for TopologyError {
    fn from(error: Error) -> Self {
        match error.kind() {
            // 404 NOT_FOUND, 406 PRECONDITION_FAILED, 403 ACCESS_REFUSED, 405 RESOURCE_LOCKED.
            ErrorKind::ProtocolError(reply) if (403..=406).contains(&reply.get_id()) => {
                Self::Refused(reply.get_message().to_string())
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
        let dead = dead_letters_of(queue);
        declare_dead_letters(connection, &dead, args).await?;
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
    if !passive {
        bind_follow_ups(&channel, exchange).await?;
    }
    // A channel left open would last as long as the connection.
    channel.close(200, short("done")).await?;
    Ok(())
}

/// Events that end what was pending have one routing key whatever they follow, and go to the queue of that:
/// a headers exchange behind the other one tells them apart. Where the topology is an operator's own, and
/// doesn't have it, they go where that binds `media.#` to.
async fn bind_follow_ups(channel: &lapin::Channel, exchange: &str) -> Result<(), Error> {
    let follow_ups = format!("{exchange}.media");
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let kind = ExchangeKind::Headers;
    channel
        .exchange_declare(short(&follow_ups), kind, options, FieldTable::default())
        .await?;
    for (follows, queue) in QUEUES_OF_FOLLOW_UPS {
        let mut arguments = FieldTable::default();
        arguments.insert("x-match".into(), text("all"));
        arguments.insert(FOLLOWS.into(), text(follows.name()));
        let options = QueueBindOptions::default();
        channel
            .queue_bind(
                short(queue),
                short(&follow_ups),
                short(""),
                options,
                arguments,
            )
            .await?;
    }
    channel
        .exchange_bind(
            short(&follow_ups),
            short(exchange),
            short(FOLLOW_UPS),
            ExchangeBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    // The version before bound this queue to all of them.
    let (_, queue) = QUEUES_OF_FOLLOW_UPS[0];
    channel
        .queue_unbind(
            short(queue),
            short(exchange),
            short(FOLLOW_UPS),
            FieldTable::default(),
        )
        .await
}

/// Sees that a queue of dead letters is there. One that exists is taken as it is, since it may be of a
/// version that declared it without a limit: a queue's arguments can't be changed, and what they lack a
/// policy has.
async fn declare_dead_letters(
    connection: &Connection,
    dead: &str,
    args: &AmqpArgs,
) -> Result<(), Error> {
    match count(connection, dead).await {
        Ok(_) => return Ok(()),
        Err(error) if answered(&error, NOT_FOUND) && args.amqp_declare_topology => {}
        Err(error) => return Err(error),
    }
    match redeclare_dead_letters(connection, dead, args).await {
        // Another worker, of such a version, was faster.
        Err(error) if answered(&error, PRECONDITION_FAILED) => Ok(()),
        declared => declared,
    }
}

async fn redeclare_dead_letters(
    connection: &Connection,
    dead: &str,
    args: &AmqpArgs,
) -> Result<(), Error> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let arguments = dead_letter_arguments(args);
    channel
        .queue_declare(short(dead), options, arguments)
        .await?;
    channel.close(200, short("done")).await
}

/// What the broker says of the first queue of dead letters that has other arguments than a new one
/// would have; all of them must exist.
///
/// # Errors
/// Anything else that it says.
pub async fn dead_letters_that_differ(
    connection: &Connection,
    args: &AmqpArgs,
) -> Result<Option<String>, TopologyError> {
    for (queue, _) in QUEUES {
        let declared = redeclare_dead_letters(connection, &dead_letters_of(queue), args).await;
        match declared {
            Ok(()) => {}
            Err(error) if answered(&error, PRECONDITION_FAILED) => {
                return Ok(Some(TopologyError::from(error).to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// The command that gives queues of dead letters the limit that they were declared without.
pub fn dead_letter_policy(vhost: &str) -> String {
    let names = QUEUES.map(|(queue, _)| queue).join("|");
    format!(
        "rabbitmqctl set_policy -p '{vhost}' whatsapp-dead-letters '^({names})\\.DLQ$' \
         '{{\"delivery-limit\":{NO_LIMIT}}}' --apply-to queues"
    )
}

/// What the broker tells of a queue; of a quorum queue it may be 5 s old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QueueCounts {
    pub messages: u32,
    pub consumers: u32,
}

/// The queues, each before its dead letters.
pub fn queues() -> impl Iterator<Item = String> {
    let names = QUEUES.iter().map(|(queue, _)| queue);
    names.flat_map(|queue| [(*queue).to_owned(), dead_letters_of(queue)])
}

/// What the name of a queue's dead letters has behind the queue's.
pub const DEAD_LETTERS: &str = ".DLQ";
/// Whether a queue is the one of another's dead letters.
pub fn is_of_dead_letters(queue: &str) -> bool {
    queue.ends_with(DEAD_LETTERS)
}

fn dead_letters_of(queue: &str) -> String {
    format!("{queue}{DEAD_LETTERS}")
}

/// Asks for each queue, on a channel of its own: a refusal closes the channel.
pub async fn counts(connection: &Connection) -> Vec<(String, Result<QueueCounts, TopologyError>)> {
    let mut counted = Vec::new();
    for name in queues() {
        let counts = count(connection, &name).await;
        counted.push((name, counts.map_err(TopologyError::from)));
    }
    counted
}

async fn count(connection: &Connection, queue: &str) -> Result<QueueCounts, Error> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel.queue_declare(short(queue), options, FieldTable::default());
    let queue = queue.await?;
    let counts = QueueCounts {
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

/// What is lost with classic queues.
pub(crate) const CLASSIC: &str = "AMQP_QUEUE_TYPE=classic: queues are not replicated, a dead letter may be lost \
     on its way, and nothing limits how often a message returns";

/// Says so in the log.
pub(crate) fn warn_of_classic(args: &AmqpArgs) {
    if args.amqp_queue_type == QueueType::Classic {
        tracing::warn!("{CLASSIC}");
    }
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
            limit(&mut table, args.amqp_delivery_limit);
        }
        QueueType::Classic => {}
    }
    table
}

fn dead_letter_arguments(args: &AmqpArgs) -> FieldTable {
    let mut table = queue_type(args);
    match args.amqp_queue_type {
        QueueType::Quorum => limit(&mut table, NO_LIMIT),
        QueueType::Classic => {}
    }
    table
}

fn limit(table: &mut FieldTable, returns: u32) {
    let returns = AMQPValue::LongLongInt(returns.into());
    table.insert("x-delivery-limit".into(), returns);
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// A name; settings are checked to be short, the rest is ours.
fn short(name: &str) -> ShortString {
    ShortString::try_new(name.to_owned()).unwrap_or_default()
}
