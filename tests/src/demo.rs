//! One conversation through the real programs, to be looked at.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::Value;
use tokio::time::timeout;

use crate::events::{Event, Events};
use crate::meta::payload::{self, Number};
use crate::output::{Paint, column, short};
use crate::programs::{APP_SECRET, Ingress, Worker};
use crate::servers::{RabbitMq, S3};
use crate::stage::{Stage, StageOptions};
use crate::store::Store;
use crate::waiting::poll;

/// Account of the conversation; short, so that a line of the table fits on a screen.
const WABA: &str = "102290";
/// For everything, servers included.
const START: Duration = Duration::from_secs(40);
const EVENTS: Duration = Duration::from_secs(12);
const OBJECTS: Duration = Duration::from_secs(5);

/// The whole service on this machine: servers, neighbours, programs. Dropping it stops all.
#[derive(Debug)]
pub struct Demo {
    // Programs before the servers they use.
    ingress: Ingress,
    worker: Worker,
    events: Events,
    stage: Stage,
    s3: S3,
    rabbitmq: RabbitMq,
    sent: Vec<Post>,
}

/// One webhook of the conversation.
#[derive(Debug)]
struct Post {
    kind: &'static str,
    /// Of its one item
    message_id: String,
    body: Bytes,
    answer: u16,
}

impl Demo {
    /// Starts everything.
    ///
    /// # Errors
    /// Something is not installed or not ready within 40 s.
    pub async fn start() -> anyhow::Result<Self> {
        timeout(START, Self::start_all())
            .await
            .context("the servers and programs did not start within 40 s")?
    }

    async fn start_all() -> anyhow::Result<Self> {
        let (rabbitmq, s3) = tokio::try_join!(
            async { RabbitMq::start().await.context("RabbitMQ") },
            async { S3::start().await.context("S3 (Ceph)") },
        )?;
        let options = StageOptions {
            amqp_url: Some(rabbitmq.amqp_url("%2f")),
            s3: Some(s3.access().clone()),
            ..StageOptions::default()
        };
        let stage = Stage::with(options).await;
        let (ingress, worker) = tokio::try_join!(
            async { stage.ingress().try_start().await.context("ingress") },
            async { stage.worker().try_start().await.context("worker") },
        )?;
        Ok(Self {
            ingress,
            worker,
            events: stage.events(),
            stage,
            s3,
            rabbitmq,
            sent: Vec::new(),
        })
    }

    /// Posts a text, an image, a status and a message of an unknown type.
    ///
    /// # Errors
    /// ingress doesn't answer.
    pub async fn converse(&mut self) -> anyhow::Result<()> {
        let number = Number::of(WABA);
        let customer = "16505551234";
        let conversation = [
            (
                "text",
                payload::text(customer, "Does it come in another color?"),
            ),
            ("image", payload::image(customer, "1761991787669262")),
            (
                "status",
                payload::status(&payload::wamid(), "delivered", customer),
            ),
            ("unknown", payload::unknown(customer)),
        ];
        let sender = self.ingress.sender();
        for (kind, item) in conversation {
            let message_id = item["id"].as_str().unwrap_or_default().to_owned();
            let body = match kind {
                "status" => number.status(item),
                _ => number.message(item),
            };
            let answer = sender.post_once(body.clone()).await.context("posting")?;
            self.sent.push(Post {
                kind,
                message_id,
                body,
                answer: answer.status,
            });
        }
        Ok(())
    }

    /// Waits for the events and raw objects of the conversation.
    pub async fn outcome(&self) -> Outcome {
        let complete = |events: &[Event]| {
            let came_out = |post: &Post| events.iter().any(|event| belongs(event, post));
            self.sent.iter().all(came_out)
        };
        let events = match self.events.try_wait_until(EVENTS, complete).await {
            Some(events) => events,
            None => self.events.all(),
        };
        let mut rows = Vec::new();
        for post in &self.sent {
            let event = events.iter().find(|event| belongs(event, post)).cloned();
            let object = match &event {
                Some(event) => self.object(event, &post.body).await,
                None => Object::Missing,
            };
            rows.push(Row {
                kind: post.kind,
                message_id: post.message_id.clone(),
                answer: post.answer,
                event,
                object,
            });
        }
        Outcome { rows }
    }

    async fn object(&self, event: &Event, sent: &Bytes) -> Object {
        let key = event.text("/rawObject/key");
        let bucket = event.text("/rawObject/bucket");
        if key.is_empty() || bucket.is_empty() {
            return Object::Missing;
        }
        let store = Store::new(&self.stage.s3, bucket);
        // The archive may be written after its event.
        let bytes = poll(OBJECTS, async || store.get(key).await.ok().flatten()).await;
        match bytes {
            Some(bytes) if bytes == *sent => Object::Identical,
            Some(_) => Object::Different,
            None => Object::Missing,
        }
    }

    /// Prints every event beyond the first `seen`, for ever.
    ///
    /// # Errors
    /// A program ended.
    pub async fn follow(&mut self, mut seen: usize, print: impl Fn(&str)) -> anyhow::Result<()> {
        let pause = Duration::from_millis(500);
        loop {
            let more = |events: &[Event]| events.len() > seen;
            let all = self.events.try_wait_until(pause, more).await;
            for event in all.iter().flatten().skip(seen) {
                print(&event_line(event, 48));
                seen += 1;
            }
            if !self.ingress.is_running() {
                bail!("ingress ended:\n{}", self.ingress.process().log_tail(20));
            }
            if !self.worker.is_running() {
                bail!("worker ended:\n{}", self.worker.process().log_tail(20));
            }
        }
    }

    /// Where everything listens, and a request to try.
    pub fn endpoints(&self) -> String {
        let number = Number::of(WABA);
        let mut message = payload::text("16505551234", "Hello");
        message["id"] = Value::from(format!("wamid.try{}", rand::random_range(0..1000)));
        let body = number.webhook([number.messages([message])]);
        let signature = crate::meta::sign(APP_SECRET, &body);
        let url = self.ingress.webhook_url();
        let (access, webhooks) = (self.s3.access(), &self.stage.webhook_bucket);
        format!(
            "ingress   {url} (secret {APP_SECRET}), http://{}/metrics\n\
             worker    http://{}/metrics\n\
             RabbitMQ  {}, {} (guest/guest)\n\
             S3        {} ({}, {}), bucket {webhooks}\n\
             Redis     {}\n\
             others    {}/_control\n\n\
             curl -i {url} -H 'X-Hub-Signature-256: {signature}' -d '{}'\n",
            self.ingress.admin(),
            self.worker.admin(),
            self.stage.amqp_url,
            self.rabbitmq.management(),
            access.endpoint,
            access.access_key,
            access.secret_key,
            self.stage.redis.url(),
            self.stage.neighbours.url(),
            String::from_utf8_lossy(&body),
        )
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

    /// Events so far.
    pub fn event_count(&self) -> usize {
        self.events.count()
    }

    /// Lets the programs finish, then stops everything.
    pub async fn stop(mut self) {
        let patience = Duration::from_secs(5);
        tokio::join!(self.ingress.stop(patience), self.worker.stop(patience));
    }
}

/// The main event of a post; follow-ups about its media carry the same message id.
fn belongs(event: &Event, post: &Post) -> bool {
    event.wamid() == post.message_id && !event.text("/eventType").starts_with("media.")
}

fn event_line(event: &Event, key_width: usize) -> String {
    format!(
        "{}  {}  {}  {}",
        column(event.queue, 25),
        column(&event.routing_key, key_width),
        column(event.text("/eventType"), 16),
        column(&short(event.text("/eventId")), 21),
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    Identical,
    Different,
    Missing,
}

#[derive(Debug)]
struct Row {
    kind: &'static str,
    message_id: String,
    answer: u16,
    event: Option<Event>,
    object: Object,
}

/// What came of each post.
#[derive(Debug)]
pub struct Outcome {
    rows: Vec<Row>,
}

impl Outcome {
    /// Every post was answered 200, came out, and its raw object is what was sent.
    pub fn is_complete(&self) -> bool {
        !self.rows.is_empty() && self.missing().is_empty()
    }

    /// What is not as it should be, one sentence each.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for row in &self.rows {
            let kind = row.kind;
            if row.answer != 200 {
                missing.push(format!("{kind}: ingress answered {}, not 200", row.answer));
            }
            match (&row.event, row.object) {
                (None, _) => missing.push(format!("{kind}: no event came out")),
                (Some(_), Object::Identical) => {}
                (Some(_), Object::Missing) => {
                    missing.push(format!("{kind}: its raw object is not in the store"));
                }
                (Some(_), Object::Different) => {
                    missing.push(format!("{kind}: its raw object is not what was sent"));
                }
            }
        }
        missing
    }

    /// Two tables: what went in, what came out.
    pub fn tables(&self, paint: Paint) -> String {
        let head = format!(
            "{}  {}  answer\n",
            column("IN", 7),
            column("message id", 22)
        );
        let mut text = paint.title(&head);
        for row in &self.rows {
            let answer = row.answer.to_string();
            let answer = match row.answer {
                200 => paint.good(&answer),
                _ => paint.bad(&answer),
            };
            let id = column(&short(&row.message_id), 22);
            text += &format!("{}  {id}  {answer}\n", column(row.kind, 7));
        }
        let head = format!(
            "\n{}  {}  {}  {}  {}  raw object\n",
            column("OUT", 7),
            column("queue", 25),
            column("routing key", 31),
            column("eventType", 16),
            column("eventId", 21),
        );
        text += &paint.title(&head);
        for row in &self.rows {
            let kind = column(row.kind, 7);
            text += &match &row.event {
                None => format!("{kind}  {}\n", paint.bad("nothing came out")),
                Some(event) => {
                    let object = match row.object {
                        Object::Identical => paint.good("identical"),
                        Object::Different => paint.bad("different"),
                        Object::Missing => paint.bad("missing"),
                    };
                    format!("{kind}  {}  {object}\n", event_line(event, 31))
                }
            };
        }
        text
    }
}
