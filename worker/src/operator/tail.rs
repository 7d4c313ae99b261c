//! `worker tail`: the events that go out now, one a line, from a queue of its own that is gone with the
//! command. What messages say is shown on demand only.
//!
//! RabbitMQ counts an event that reaches this queue as routed, whatever else is bound: so the bindings of the
//! deployment's own queues are seen to first, and now and then.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use chrono::{SecondsFormat, Utc};
use clap::Args;
use futures::StreamExt;
use lapin::Connection;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::telemetry::audit;
use tokio::time::interval;

use super::arguments::CallerArgs;
use super::output::printable;
use super::{Deployment, header_text};
use crate::config::Config;
use crate::out::topology;

/// Events that the broker keeps for a terminal that is slow; the oldest are dropped beyond.
const MOST_KEPT: i32 = 1000;
/// Events on their way to this process.
const PREFETCH: u16 = 100;
const BINDINGS_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Args, Debug, Clone, Deserialize)]
pub struct TailArgs {
    /// Of this tenant only
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Of this type only: message.received, status.updated, …, or what it begins with
    #[arg(long = "type", value_name = "TYPE")]
    #[serde(rename = "type")]
    kind: Option<String>,
    /// The events themselves too
    #[arg(long)]
    #[serde(skip)]
    contents: bool,
    /// Ends after so many
    #[arg(long, value_name = "N")]
    #[serde(skip)]
    count: Option<usize>,
    #[command(flatten)]
    #[serde(skip)]
    caller: CallerArgs,
    /// JSON, one object a line
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

/// An event that went out, by its properties.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TailedEvent {
    at: String,
    event_type: String,
    routing_key: String,
    tenant_id: String,
    event_id: String,
    correlation_id: String,
    replay_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Value>,
}

/// # Errors
/// RabbitMQ is away, or this user may not declare a queue.
pub async fn run(config: &Config, args: &TailArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    let connection = deployment.rabbitmq().await?;
    let stop = shared::telemetry::shutdown_on_signal()?;
    if args.contents {
        let by = args.caller.name();
        audit(
            "tail --contents",
            &by,
            args.tenant.as_deref().unwrap_or("all tenants"),
            0,
        );
    }
    let tailing = tail(&connection, config, args, |event| show(&event, args.json));
    let ended = stop.run_until_cancelled(tailing).await;
    drop(connection.close(200, "done".into()).await);
    ended.unwrap_or(Ok(()))
}

/// Shows each event to `each`, from now on.
///
/// # Errors
/// The connection broke, or `each` fails.
pub(crate) async fn tail(
    connection: &Connection,
    config: &Config,
    args: &TailArgs,
    mut each: impl FnMut(TailedEvent) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    topology::ensure(connection, &config.amqp)
        .await
        .context("RabbitMQ")?;
    let channel = connection.create_channel().await.context("RabbitMQ")?;
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(MOST_KEPT));
    let queue = channel.queue_declare("".into(), options, arguments).await;
    let queue = queue.context("RabbitMQ")?.name().clone();
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let options = BasicConsumeOptions::default();
    let tag = ShortString::default();
    let consuming = channel.basic_consume(queue.clone(), tag, options, FieldTable::default());
    let mut consumer = consuming.await.context("RabbitMQ")?;
    let exchange = ShortString::try_new(config.amqp.amqp_exchange.clone()).unwrap_or_default();
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(queue, exchange, "#".into(), options, FieldTable::default());
    bound.await.context("RabbitMQ")?;
    let (mut shown, mut look) = (0, interval(BINDINGS_INTERVAL));
    while args.count.is_none_or(|count| shown < count) {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery,
            _ = look.tick() => {
                topology::ensure(connection, &config.amqp).await.context("RabbitMQ")?;
                continue;
            }
        };
        let delivery = delivery
            .context("RabbitMQ closed the queue")?
            .context("RabbitMQ")?;
        let event = TailedEvent::of(&delivery, args.contents);
        if event.is_meant(args) {
            shown += 1;
            each(event)?;
        }
        delivery
            .acker
            .ack(BasicAckOptions::default())
            .await
            .context("RabbitMQ")?;
    }
    Ok(())
}

impl TailedEvent {
    fn of(delivery: &Delivery, contents: bool) -> Self {
        let properties = &delivery.properties;
        let text = |value: &Option<ShortString>| value.clone().unwrap_or_default().to_string();
        let header = |name: &str| header_text(properties, name);
        Self {
            at: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            event_type: text(properties.kind()),
            routing_key: delivery.routing_key.to_string(),
            tenant_id: header("x-tenant-id").unwrap_or_default(),
            event_id: text(properties.message_id()),
            correlation_id: text(properties.correlation_id()),
            replay_id: header("x-replay-id"),
            event: contents.then(|| serde_json::from_slice(&delivery.data).unwrap_or_default()),
        }
    }

    fn is_meant(&self, args: &TailArgs) -> bool {
        let of_tenant = args
            .tenant
            .as_ref()
            .is_none_or(|tenant| *tenant == self.tenant_id);
        let kind = args.kind.as_ref();
        of_tenant && kind.is_none_or(|kind| self.event_type.starts_with(kind))
    }
}

fn show(event: &TailedEvent, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, event)?;
        writeln!(out)?;
        return Ok(out.flush()?);
    }
    let line = format!(
        "{}  {}  {}  event {}  webhook {}",
        event.at, event.routing_key, event.tenant_id, event.event_id, event.correlation_id
    );
    writeln!(out, "{}", printable(&line))?;
    if let Some(event) = &event.event {
        writeln!(out, "    {event}")?;
    }
    Ok(out.flush()?)
}
