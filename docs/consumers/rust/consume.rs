//! Prints one line per event of a queue. `AMQP_URL` and `QUEUE` say which. Needs lapin, futures,
//! serde_json, anyhow and tokio; here `cargo run -p tests --bin consume`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "that is what it does"
)]

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("AMQP_URL").context("AMQP_URL")?;
    let queue = std::env::var("QUEUE").unwrap_or("INBOUND_WHATSAPP_MESSAGES".to_owned());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(50, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let tag = "".into();
    let mut deliveries = channel
        .basic_consume(queue.into(), tag, options, Default::default())
        .await?;
    // In earnest: a table with the event id as its key, in the transaction of the work.
    let mut seen = HashSet::new();
    // Of each message that we sent: the highest status so far.
    let mut ranks = HashMap::new();
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        let id = delivery.properties.message_id().clone();
        if !seen.contains(&id) {
            let event = serde_json::from_slice(&delivery.data).unwrap_or(Value::Null);
            let Some(line) = line(&event, &mut ranks) else {
                eprintln!("not an event");
                delivery
                    .reject(BasicRejectOptions { requeue: false })
                    .await?; // to <queue>.DLQ
                continue;
            };
            println!("{line}");
            seen.insert(id);
        }
        delivery.ack(BasicAckOptions::default()).await?;
    }
    anyhow::bail!("the queue is gone")
}

fn line(event: &Value, ranks: &mut HashMap<String, i64>) -> Option<String> {
    let parts = ["message", "status", "call", "account"];
    let part = parts.into_iter().find_map(|part| event.get(part))?;
    let first = |names: &[&str]| names.iter().find_map(|name| part[*name].as_str());
    let word = first(&["event", "status", "field", "type"])?;
    let id = first(&["messageId", "id"]).or(event["eventId"].as_str())?;
    // Statuses come in any order; `failed` and others without rank always count. Each member of a
    // group has statuses of their own.
    let member = first(&["recipientParticipantUserId", "recipientParticipantId"]);
    let late = part["rank"].as_i64().is_some_and(|rank| {
        let highest = ranks.entry(format!("{id} {member:?}")).or_insert(-1);
        std::mem::replace(highest, rank.max(*highest)) >= rank
    });
    let late = if late { " late" } else { "" };
    Some(format!(
        "{} {word} {id}{late}",
        event["eventType"].as_str()?
    ))
}
