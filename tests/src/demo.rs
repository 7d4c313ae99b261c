//! The whole service on this machine, shown step by step; then it stays up to be tried.

mod addresses;
mod narration;
mod tour;

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use self::addresses::Files;
pub use self::narration::Narration;
use crate::events::{Event, Events};
use crate::output::column;
use crate::process;
use crate::programs::{Ingress, Worker};
use crate::servers::{self, RabbitMq, S3};
use crate::stage::{Stage, StageOptions};

/// Account of the conversation.
const ACCOUNT: &str = "102290";
/// Account whose tenant is suspended for a while.
const SUSPENDED: &str = "102291";
const CUSTOMER: &str = "16505551234";
const ADMIN_TOKEN: &str = "demo-admin-token";
/// What the Graph API has for the conversation's image.
const PICTURE_ID: &str = "1761991787669262";
const PICTURE: &[u8] = include_bytes!("demo/picture.png");
/// Those that can end while the demo stays up.
const SERVERS: [&str; 2] = ["Redis", "RabbitMQ"];

/// Servers, neighbours and programs. Dropping it stops all.
#[derive(Debug)]
pub struct Demo {
    // Programs before the servers they use.
    ingress: Ingress,
    worker: Worker,
    events: Events,
    stage: Stage,
    s3: S3,
    rabbitmq: RabbitMq,
    files: Files,
}

impl Demo {
    /// Starts everything (7 to 12 s).
    ///
    /// # Errors
    /// Something is not installed, or does not become ready.
    pub async fn start(told: &Narration) -> anyhow::Result<Self> {
        servers::redis::program()?;
        process::installed("epmd")?;
        let begun = Instant::now();
        let demo = Self::start_all(told).await?;
        told.quietly(&format!(
            "all are ready after {:.1} s",
            begun.elapsed().as_secs_f64()
        ));
        Ok(demo)
    }

    async fn start_all(told: &Narration) -> anyhow::Result<Self> {
        told.quietly("starting RabbitMQ, which takes 6 to 10 s …");
        let s3 = S3::embedded()?;
        let rabbitmq = RabbitMq::start().await.context("RabbitMQ")?;
        told.quietly("starting Redis, ingress and a worker …");
        let options = StageOptions {
            amqp_url: Some(rabbitmq.amqp_url("%2f")),
            s3: Some(s3.access().clone()),
            ..StageOptions::default()
        };
        let stage = Stage::try_with(options).await?;
        let neighbours = &stage.neighbours;
        neighbours.set_media(PICTURE_ID, "image/png", PICTURE);
        let ingress = stage.spooling_ingress();
        let ingress = ingress.env("INGRESS_ADMIN_TOKEN", ADMIN_TOKEN);
        let worker = stage.worker().env("WORKER_ADMIN_TOKEN", ADMIN_TOKEN);
        let (ingress, worker) = tokio::try_join!(
            async { ingress.try_start().await.context("ingress") },
            async { worker.try_start().await.context("worker") },
        )?;
        let files = Files::write(&ingress, &worker)?;
        Ok(Self {
            ingress,
            worker,
            events: stage.events(),
            stage,
            s3,
            rabbitmq,
            files,
        })
    }

    /// Tells every event from now on, and which server or program goes away, for ever.
    ///
    /// # Errors
    /// ingress or the worker ended.
    pub async fn follow(&mut self, told: &Narration) -> anyhow::Result<()> {
        let pause = Duration::from_millis(500);
        let mut seen = self.events.count();
        let mut were_running = [true; 2];
        loop {
            let more = |events: &[Event]| events.len() > seen;
            let all = self.events.try_wait_until(pause, more).await;
            for event in all.iter().flatten().skip(seen) {
                told.plain(&event_line(event));
                seen += 1;
            }
            let running = [self.stage.redis.is_running(), self.rabbitmq.is_running()];
            for (server, (was, is)) in SERVERS.iter().zip(were_running.iter().zip(&running)) {
                if *was && !is {
                    told.plain(&format!("{server} has ended, and is not started again"));
                }
            }
            were_running = running;
            if !self.ingress.is_running() {
                bail!("ingress ended:\n{}", self.ingress.process().log_tail(20));
            }
            if !self.worker.is_running() {
                bail!("worker ended:\n{}", self.worker.process().log_tail(20));
            }
        }
    }

    /// The end of the programs' logs, for when something is missing.
    pub fn logs(&mut self) -> String {
        let (ingress, worker) = (self.ingress.process(), self.worker.process());
        format!(
            "ingress says:\n{}\nworker says:\n{}\n",
            ingress.log_tail(5),
            worker.log_tail(15)
        )
    }

    /// Lets the programs finish, then stops everything.
    pub async fn stop(mut self) {
        let patience = Duration::from_secs(5);
        tokio::join!(self.ingress.stop(patience), self.worker.stop(patience));
    }
}

fn event_line(event: &Event) -> String {
    format!(
        "{}  {}  {}",
        event.text("/eventId"),
        column(event.text("/eventType"), 16),
        event.routing_key,
    )
}
