//! How fast one worker empties a full stream of texts, beside what RabbitMQ and the store do with the
//! same bytes and nothing else.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueuePurgeOptions,
};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::figures::{Figures, Goal};
use super::load;
use super::machine::cpu_us;
use super::wire::{Requests, Shape};
use crate::Stage;
use crate::events::{MESSAGES, QUEUES};
use crate::programs::APP_SECRET;

const CHANNELS: usize = 4;
const OUTSTANDING: usize = 64;

/// One run; `fill`: for how long the stream is filled before.
///
/// # Errors
/// Something can't be started or doesn't do its work.
pub async fn run(figures: &mut Figures, fill: Duration, time: Duration) -> anyhow::Result<()> {
    let stage = Stage::new().await;
    let without = drain(&stage, false, 1, fill).await?;
    let event = first_event(&stage).await?;
    let bare = publish(&stage, &event, time).await?;
    let with = drain(&stage, true, 1, fill).await?;
    let store = put(&stage, time).await?;
    let mut add = |name: &str, unit, goal, value| figures.add(name, unit, goal, value);
    add("worker, archive off", "/s", Goal::None, without.per_second);
    add(
        "worker, archive off, CPU per text",
        "µs",
        Goal::None,
        without.own_us,
    );
    add("bare lapin, publish with confirm", "/s", Goal::None, bare);
    add(
        "worker to bare lapin",
        "x",
        Goal::AtLeast(0.6),
        without.per_second / bare,
    );
    add("worker, archive on", "/s", Goal::None, with.per_second);
    add(
        "worker, archive on, CPU per text",
        "µs",
        Goal::None,
        with.own_us,
    );
    add("bare PUT", "/s", Goal::None, store);
    add(
        "worker to bare PUT",
        "x",
        Goal::AtLeast(0.8),
        with.per_second / store,
    );
    Ok(())
}

/// What workers did with a full stream.
#[derive(Debug)]
pub struct Drained {
    pub entries: usize,
    pub per_second: f64,
    /// CPU of all workers per entry, in µs.
    pub own_us: f64,
}

/// Fills the stream, then lets so many workers empty it.
///
/// # Errors
/// Something can't be started, or the stream isn't emptied.
pub async fn drain(
    stage: &Stage,
    archive: bool,
    workers: usize,
    fill: Duration,
) -> anyhow::Result<Drained> {
    let ingress = stage
        .ingress()
        .env("RATE_LIMIT_PER_MINUTE", 100_000_000)
        .env("LOG_LEVEL", "warn")
        .try_start()
        .await?;
    super::tell("filling the stream");
    let requests = Requests::new(
        ingress.address(),
        "/webhook/meta",
        APP_SECRET,
        Shape::default(),
    );
    let address = ingress.address().to_owned();
    let first = (cpu_us(std::process::id())? * 1e3) as u64;
    let filling =
        tokio::task::spawn_blocking(move || load::closed(&address, &requests, first, 128, fill));
    filling.await?;
    drop(ingress);
    super::tell(&format!("{workers} worker(s) empty it, archive {archive}"));
    let mut running = Vec::new();
    let full = waiting(stage).await?;
    for _ in 0..workers {
        let worker = stage
            .worker()
            .env("ARCHIVE", archive)
            .env("LOG_LEVEL", "warn");
        running.push(
            worker
                .until(crate::programs::Until::Healthy)
                .try_start()
                .await?,
        );
    }
    let mut left = full;
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    while left == full {
        pause.tick().await;
        left = waiting(stage).await?;
    }
    let (began, entries) = (Instant::now(), left);
    while left > 0 {
        ensure!(
            began.elapsed() < Duration::from_secs(300),
            "{left} entries stay"
        );
        pause.tick().await;
        left = waiting(stage).await?;
    }
    let took = began.elapsed().as_secs_f64();
    let mut cpu = 0.0;
    for worker in &mut running {
        cpu += cpu_us(worker.process().id())?;
    }
    Ok(Drained {
        entries,
        per_second: entries as f64 / took,
        own_us: cpu / full as f64,
    })
}

async fn waiting(stage: &Stage) -> anyhow::Result<usize> {
    let mut connection = stage.redis.connection().await;
    let mut lengths = redis::pipe();
    for partition in 0..16 {
        lengths
            .cmd("XLEN")
            .arg(format!("whatsapp:{{{partition}}}:stream"));
    }
    let lengths: Vec<usize> = lengths.query_async(&mut connection).await?;
    Ok(lengths.iter().sum())
}

async fn channel(stage: &Stage) -> anyhow::Result<(Connection, Channel)> {
    let connection = Connection::connect(&stage.amqp_url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok((connection, channel))
}

/// The body of an event that came out; empties the queues.
async fn first_event(stage: &Stage) -> anyhow::Result<Bytes> {
    let (_connection, channel) = channel(stage).await?;
    let got = channel.basic_get(MESSAGES.into(), BasicGetOptions { no_ack: true });
    let event = got.await?.context("an event")?.delivery.data.clone();
    for queue in QUEUES {
        channel
            .queue_purge(queue.into(), QueuePurgeOptions::default())
            .await?;
    }
    Ok(event.into())
}

/// Publications a second, each confirmed, over as many channels as a worker has.
async fn publish(stage: &Stage, event: &Bytes, time: Duration) -> anyhow::Result<f64> {
    super::tell("bare lapin");
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for _ in 0..CHANNELS {
        let (connection, channel) = channel(stage).await?;
        let event = event.clone();
        tasks.spawn(async move {
            let published = publish_on(&channel, &event, began, time).await;
            drop(connection);
            published
        });
    }
    let mut published = 0;
    while let Some(done) = tasks.join_next().await {
        published += done??;
    }
    let took = began.elapsed().as_secs_f64();
    let (_connection, channel) = channel(stage).await?;
    channel
        .queue_purge(MESSAGES.into(), QueuePurgeOptions::default())
        .await?;
    Ok(published as f64 / took)
}

async fn publish_on(
    channel: &Channel,
    event: &[u8],
    began: Instant,
    time: Duration,
) -> anyhow::Result<usize> {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let mut confirms = FuturesUnordered::new();
    let mut published = 0;
    loop {
        while confirms.len() < OUTSTANDING && began.elapsed() < time {
            let publishing = channel.basic_publish(
                "".into(),
                MESSAGES.into(),
                options,
                event,
                properties.clone(),
            );
            confirms.push(publishing.await?);
        }
        let Some(confirm) = confirms.next().await else {
            return Ok(published);
        };
        ensure!(confirm?.is_ack(), "not confirmed");
        published += 1;
    }
}

/// Objects of a webhook's size that the store takes a second.
async fn put(stage: &Stage, time: Duration) -> anyhow::Result<f64> {
    super::tell("bare PUT");
    let store = stage.webhooks();
    let body = Bytes::from(vec![b'x'; 1200]);
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..OUTSTANDING {
        let (client, body) = (store.client().clone(), body.clone());
        tasks.spawn(async move {
            let mut done = 0_usize;
            while began.elapsed() < time {
                let key = Path::from(format!("bench/{task}-{done}"));
                client.put(&key, PutPayload::from(body.clone())).await?;
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut done = 0;
    while let Some(of_task) = tasks.join_next().await {
        done += of_task??;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}
