//! How fast one worker empties a full stream of texts, beside what RabbitMQ and the store do with the
//! same bytes and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueuePurgeOptions,
};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::all::Plan;
use super::figures::{Figures, Goal};
use super::load;
use super::machine::{cpu_us, lent_cpu_us};
use super::wire::{Requests, Shape};
use crate::Stage;
use crate::events::{MESSAGES, QUEUES};
use crate::meta::payload::{self, Number};
use crate::programs::APP_SECRET;
use crate::waiting::poll;

const CHANNELS: usize = 4;
const OUTSTANDING: usize = 64;
/// A body with more of them is set aside whole.
const STATUSES: usize = 20_000;

/// The VM of RabbitMQ, and the programs of the store.
const RABBITMQ: &[&str] = &["beam.smp"];
const STORE: &[&str] = &["radosgw", "ceph-osd", "ceph-mon"];

/// One run. Each measurement fills the stream for as long as the others last.
///
/// # Errors
/// Something can't be started or doesn't do its work.
pub async fn run(figures: &mut Figures, plan: &Plan, time: Duration) -> anyhow::Result<()> {
    let stage = Stage::new().await;
    let ours = Emptying {
        settings: plan.settings.clone(),
        ..Emptying::for_time(time)
    };
    let theirs = plan.against.as_ref().map(|folder| Emptying {
        programs: Some(folder.clone()),
        ..Emptying::for_time(time)
    });
    // Another version may have other keys and other queues.
    let their_stage = match theirs {
        Some(_) => Some(Stage::new().await),
        None => None,
    };
    let both = [false, true].into_iter();
    for archive in both.filter(|it| plan.archive.is_none_or(|only| only == *it)) {
        let what = if archive { "archive on" } else { "archive off" };
        let of = |emptying: &Emptying| Emptying {
            archive,
            ..emptying.clone()
        };
        let measured = of(&ours).drain(&stage).await?;
        measured.tell(figures, &format!("worker, {what}"));
        let event = first_event(&stage).await?;
        if let (Some(theirs), Some(stage)) = (&theirs, &their_stage) {
            let other = of(theirs).drain(stage).await?;
            first_event(stage).await?;
            other.tell(figures, &format!("other worker, {what}"));
            let mut ratio = |name: &str, goal, value| {
                figures.add(format!("{name}, {what}"), "x", goal, value);
            };
            let cpu = |drained: &Drained| drained.worker_us + drained.redis_us;
            ratio(
                "CPU of worker and Redis to the other worker's",
                Goal::AtMost(0.4),
                cpu(&measured) / cpu(&other),
            );
            let rate = measured.per_second / other.per_second;
            ratio("rate to the other worker's", Goal::None, rate);
        }
        if archive {
            let puts = put(&stage, time).await?;
            figures.add("bare PUT", "/s", Goal::None, puts);
            let rate = measured.per_second / puts;
            figures.add("worker to bare PUT", "x", Goal::AtLeast(1.5), rate);
        } else {
            let rate = measured.per_second / publish(&stage, figures, &event, false, time).await?;
            figures.add("worker to bare lapin", "x", Goal::AtLeast(0.6), rate);
            let rate = measured.per_second / publish(&stage, figures, &event, true, time).await?;
            let name = "worker to bare lapin with its messages' properties";
            figures.add(name, "x", Goal::None, rate);
        }
    }
    let peak = peak_with_many_statuses(&stage, &plan.settings).await?;
    let name = format!("peak memory, {STATUSES} statuses in a body");
    figures.add(name, "MB", Goal::AtMost(70.0), peak);
    Ok(())
}

/// How a stream is filled and emptied.
#[derive(Debug, Clone)]
pub struct Emptying {
    pub archive: bool,
    pub workers: usize,
    pub fill: Duration,
    /// The folder of other builds of ingress and worker.
    pub programs: Option<PathBuf>,
    /// Of the workers.
    pub settings: Vec<(String, String)>,
}

/// What workers did with a full stream.
#[derive(Debug)]
pub struct Drained {
    pub entries: usize,
    pub per_second: f64,
    /// CPU per entry, in µs: of all workers, of Redis, of RabbitMQ and of the store.
    pub worker_us: f64,
    pub redis_us: f64,
    pub rabbitmq_us: f64,
    pub store_us: f64,
}

impl Drained {
    fn tell(&self, figures: &mut Figures, name: &str) {
        figures.add(name, "/s", Goal::None, self.per_second);
        for (of, us) in [
            ("worker", self.worker_us),
            ("Redis", self.redis_us),
            ("RabbitMQ", self.rabbitmq_us),
            ("the store", self.store_us),
        ] {
            figures.add(format!("{name}, CPU of {of}"), "µs", Goal::None, us);
        }
    }
}

impl Emptying {
    /// By one worker with its defaults, without archive.
    pub fn for_time(fill: Duration) -> Self {
        Self {
            archive: false,
            workers: 1,
            fill,
            programs: None,
            settings: Vec::new(),
        }
    }

    /// Fills the stream, then lets the workers empty it.
    ///
    /// # Errors
    /// Something can't be started, or the stream isn't emptied.
    pub async fn drain(&self, stage: &Stage) -> anyhow::Result<Drained> {
        self.fill(stage).await?;
        let (workers, archive) = (self.workers, self.archive);
        super::tell(&format!("{workers} worker(s) empty it, archive {archive}"));
        let mut running = Vec::new();
        let full = waiting(stage).await?;
        for _ in 0..workers {
            let worker = stage
                .worker()
                .env("ARCHIVE", archive)
                .env("LOG_LEVEL", "warn")
                .until(crate::programs::Until::Healthy);
            let worker = match &self.programs {
                Some(folder) => worker.built_at(folder.join("worker")),
                None => worker,
            };
            let settings = self.settings.iter();
            let worker = settings.fold(worker, |it, (name, value)| it.env(name, value));
            running.push(worker.try_start().await?);
        }
        let mut cpu = || {
            let workers = running.iter_mut().map(|it| cpu_us(it.process().id()));
            let workers: f64 = workers.sum::<anyhow::Result<f64>>()?;
            let redis = cpu_us(stage.redis.id())?;
            anyhow::Ok([workers, redis, lent_cpu_us(RABBITMQ)?, lent_cpu_us(STORE)?])
        };
        let mut left = full;
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while left == full {
            pause.tick().await;
            left = waiting(stage).await?;
        }
        let (began, entries, before) = (Instant::now(), left, cpu()?);
        while left > 0 {
            ensure!(
                began.elapsed() < Duration::from_secs(300),
                "{left} entries stay"
            );
            pause.tick().await;
            left = waiting(stage).await?;
        }
        let (took, after) = (began.elapsed().as_secs_f64(), cpu()?);
        let of = |n: usize| (after[n] - before[n]) / entries as f64;
        Ok(Drained {
            entries,
            per_second: entries as f64 / took,
            worker_us: of(0),
            redis_us: of(1),
            rabbitmq_us: of(2),
            store_us: of(3),
        })
    }

    async fn fill(&self, stage: &Stage) -> anyhow::Result<()> {
        let ingress = stage
            .ingress()
            .env("RATE_LIMIT_PER_MINUTE", 100_000_000)
            .env("LOG_LEVEL", "warn");
        let ingress = match &self.programs {
            Some(folder) => ingress.built_at(folder.join("ingress")),
            None => ingress,
        };
        let ingress = ingress.try_start().await?;
        super::tell("filling the stream");
        let requests = Requests::new(
            ingress.address(),
            "/webhook/meta",
            APP_SECRET,
            Shape::default(),
        );
        let (address, time) = (ingress.address().to_owned(), self.fill);
        let first = (cpu_us(std::process::id())? * 1e3) as u64;
        let filling = move || load::closed(&address, &requests, first, 128, time);
        tokio::task::spawn_blocking(filling).await?;
        Ok(())
    }
}

/// The most memory, in MB, of a worker that has only one body to do, with as many items as a body may have.
async fn peak_with_many_statuses(
    stage: &Stage,
    settings: &[(String, String)],
) -> anyhow::Result<f64> {
    let ingress = stage.ingress().env("LOG_LEVEL", "warn").try_start().await?;
    let statuses = (0..STATUSES).map(|n| {
        let (message, customer) = (format!("wamid.{n:08}"), format!("1650{n:07}"));
        payload::status(&message, "read", &customer)
    });
    let number = Number::fresh();
    let body = number.webhook([number.statuses(statuses)]);
    let answer = ingress.sender().post_once(body).await?;
    ensure!(
        answer.status == 200,
        "{} statuses: {}",
        STATUSES,
        answer.status
    );
    let worker = settings.iter().fold(
        stage.worker().env("LOG_LEVEL", "warn"),
        |it, (name, value)| it.env(name, value),
    );
    let mut worker = worker.try_start().await?;
    let empty = async || (waiting(stage).await.ok()? == 0).then_some(());
    let done = poll(Duration::from_secs(300), empty).await;
    done.context("the statuses are published")?;
    let peak = worker.process().peak_memory_mb().context("its memory")?;
    Ok(peak as f64)
}

pub(super) async fn waiting(stage: &Stage) -> anyhow::Result<usize> {
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

/// An event that came out.
struct Published {
    body: Bytes,
    exchange: ShortString,
    routing_key: ShortString,
    properties: BasicProperties,
}

/// One of the events that came out; empties the queues.
async fn first_event(stage: &Stage) -> anyhow::Result<Published> {
    let (_connection, channel) = channel(stage).await?;
    let got = channel.basic_get(MESSAGES.into(), BasicGetOptions { no_ack: true });
    let event = got.await?.context("an event")?.delivery;
    for queue in QUEUES {
        channel
            .queue_purge(queue.into(), QueuePurgeOptions::default())
            .await?;
    }
    Ok(Published {
        body: event.data.into(),
        exchange: event.exchange,
        routing_key: event.routing_key,
        properties: event.properties,
    })
}

/// Publications a second, each confirmed, over as many channels as a worker has. `alike`: to the exchange
/// of the worker's events and with their properties, else to the queue and with none.
async fn publish(
    stage: &Stage,
    figures: &mut Figures,
    event: &Published,
    alike: bool,
    time: Duration,
) -> anyhow::Result<f64> {
    let name = match alike {
        true => "bare lapin, the worker's messages",
        false => "bare lapin, publish with confirm",
    };
    super::tell(name);
    let mut tasks = JoinSet::new();
    let cpu = || anyhow::Ok([cpu_us(std::process::id())?, lent_cpu_us(RABBITMQ)?]);
    let before = cpu()?;
    let began = Instant::now();
    for _ in 0..CHANNELS {
        let (connection, channel) = channel(stage).await?;
        let event = match alike {
            true => Published {
                body: event.body.clone(),
                exchange: event.exchange.clone(),
                routing_key: event.routing_key.clone(),
                properties: event.properties.clone(),
            },
            false => Published {
                body: event.body.clone(),
                exchange: "".into(),
                routing_key: MESSAGES.into(),
                properties: BasicProperties::default().with_delivery_mode(2),
            },
        };
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
    let (took, after) = (began.elapsed().as_secs_f64(), cpu()?);
    let (_connection, channel) = channel(stage).await?;
    channel
        .queue_purge(MESSAGES.into(), QueuePurgeOptions::default())
        .await?;
    let rate = published as f64 / took;
    figures.add(name, "/s", Goal::None, rate);
    for (n, of) in ["client", "RabbitMQ"].into_iter().enumerate() {
        let us = (after[n] - before[n]) / published as f64;
        figures.add(format!("{name}, CPU of {of}"), "µs", Goal::None, us);
    }
    Ok(rate)
}

async fn publish_on(
    channel: &Channel,
    event: &Published,
    began: Instant,
    time: Duration,
) -> anyhow::Result<usize> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let mut confirms = FuturesUnordered::new();
    let mut published = 0;
    loop {
        while confirms.len() < OUTSTANDING && began.elapsed() < time {
            let publishing = channel.basic_publish(
                event.exchange.clone(),
                event.routing_key.clone(),
                options,
                &event.body,
                event.properties.clone(),
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
