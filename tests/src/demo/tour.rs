//! The steps: what the service does on a good day, and on four bad ones.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use data_encoding::BASE64;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{ACCOUNT, ADMIN_TOKEN, CUSTOMER, Demo, Narration, PICTURE, PICTURE_ID, SUSPENDED};
use crate::events::Event;
use crate::load::{self, Kind, Plan, Report};
use crate::meta::payload::{self, Number};
use crate::neighbours::Tenant;
use crate::programs::Worker;
use crate::store::Store;
use crate::waiting::poll;

/// How long an event may take while everything is well.
const EVENTS: Duration = Duration::from_secs(12);
/// The same after a crash.
const HEALED: Duration = Duration::from_secs(40);
/// Texts under which a worker is killed: for four seconds.
const LOAD: u64 = 1000;
const LOAD_PER_SECOND: f64 = 250.0;

/// A webhook with one item.
#[derive(Debug)]
struct Sent {
    kind: &'static str,
    message_id: String,
    body: Bytes,
    answer: u16,
    at: Instant,
}

impl Sent {
    /// Its main event; follow-ups about its media have the same message id.
    fn event<'e>(&self, events: &'e [Event]) -> Option<&'e Event> {
        let main = |event: &&Event| !event.text("/eventType").starts_with("media.");
        let mut of_it = events
            .iter()
            .filter(|event| event.wamid() == self.message_id);
        of_it.find(main)
    }
}

impl Demo {
    /// Shows everything, step by step. What was not as it should be is in the narration.
    pub async fn tour(&mut self, told: &mut Narration) {
        let conversation = self.conversation(told).await;
        finished(conversation, told);
        let suspended = self.suspended_tenant(told).await;
        finished(suspended, told);
        let redis = self.redis_killed(told).await;
        finished(redis, told);
        let worker = self.worker_killed(told).await;
        finished(worker, told);
    }

    async fn conversation(&mut self, told: &mut Narration) -> anyhow::Result<()> {
        told.step("Four webhooks: a text, an image, a status, a type that nobody knows");
        let mut image = payload::media(CUSTOMER, "image", PICTURE_ID, "image/png");
        image["image"]["sha256"] = BASE64.encode(&Sha256::digest(PICTURE)).into();
        let mut sent = Vec::new();
        for (kind, item) in [
            (
                "text",
                payload::text(CUSTOMER, "Does it come in another color?"),
            ),
            ("image", image),
            (
                "status",
                payload::status(&payload::wamid(), "delivered", CUSTOMER),
            ),
            ("unknown", payload::unknown(CUSTOMER)),
        ] {
            sent.push(self.post(ACCOUNT, kind, item).await?);
        }
        let events = self.events_of(&sent, EVENTS).await;
        let mut identical = 0;
        for one in &sent {
            let event = one.event(&events);
            let after = event.map(|event| event.at.duration_since(one.at).as_millis());
            let after = after.map_or("no event".to_owned(), |ms| format!("event after {ms} ms"));
            told.say(&format!("{}: answered {}, {after}", one.kind, one.answer));
            if let Some(event) = event {
                describe(event, told);
                identical += usize::from(self.raw_object_is(event, &one.body, told).await);
            }
        }
        let of_all = sent.len();
        told.expect(
            sent.iter().all(|one| one.answer == 200) && identical == of_all,
            &format!(
                "{of_all} of {of_all} came out, and each raw object is byte for byte what was posted"
            ),
        );
        let picture = self.picture(&sent, &events).await;
        told.expect(
            picture,
            "the image's URL works, and has the bytes that the Graph API had",
        );
        Ok(())
    }

    async fn post(
        &self,
        account: &str,
        kind: &'static str,
        item: serde_json::Value,
    ) -> anyhow::Result<Sent> {
        let message_id = item["id"].as_str().unwrap_or_default().to_owned();
        let number = Number::of(account);
        let body = match kind {
            "status" => number.status(item),
            _ => number.message(item),
        };
        let at = Instant::now();
        let sender = self.ingress.sender();
        let answer = sender.post_once(body.clone()).await.context("ingress")?;
        Ok(Sent {
            kind,
            message_id,
            body,
            answer: answer.status,
            at,
        })
    }

    /// All events, when those of `sent` are among them or the patience is over.
    async fn events_of(&self, sent: &[Sent], patience: Duration) -> Vec<Event> {
        let complete = |events: &[Event]| sent.iter().all(|one| one.event(events).is_some());
        let events = self.events.try_wait_until(patience, complete).await;
        events.unwrap_or_else(|| self.events.all())
    }

    async fn raw_object_is(&self, event: &Event, posted: &Bytes, told: &Narration) -> bool {
        let (bucket, key) = (
            event.text("/rawObject/bucket"),
            event.text("/rawObject/key"),
        );
        told.fact("raw", format!("{bucket}/{key}"));
        let store = Store::new(&self.stage.s3, bucket);
        // The archive may be written after its event.
        let bytes = poll(EVENTS, async || store.get(key).await.ok().flatten()).await;
        bytes.is_some_and(|bytes| bytes == *posted)
    }

    /// Whether the stored file can be fetched by the URL of its event.
    async fn picture(&self, sent: &[Sent], events: &[Event]) -> bool {
        let image = sent.iter().find(|one| one.kind == "image");
        let Some(event) = image.and_then(|image| image.event(events)) else {
            return false;
        };
        let Ok(answer) = reqwest::get(event.text("/message/media/url")).await else {
            return false;
        };
        answer.bytes().await.is_ok_and(|bytes| bytes == PICTURE)
    }

    async fn suspended_tenant(&mut self, told: &mut Narration) -> anyhow::Result<()> {
        told.step("A tenant is suspended: its webhooks are set aside, and replayed later");
        self.stage
            .neighbours
            .set_tenant(SUSPENDED, Tenant::Suspended);
        let mut sent = Vec::new();
        for text in ["Are you open on Sunday?", "Hello?"] {
            let item = payload::text(CUSTOMER, text);
            sent.push(self.post(SUSPENDED, "text", item).await?);
        }
        told.say(&format!(
            "2 texts for account {SUSPENDED}: {}",
            answers(&sent)
        ));
        let folder = format!("failed/tenant-{SUSPENDED}");
        let webhooks = self.stage.webhooks();
        let set_aside = poll(EVENTS, async || {
            let keys = webhooks.list(&folder).await.ok()?;
            (keys.len() == sent.len()).then_some(())
        });
        let is_set_aside = set_aside.await.is_some();
        let tenant = format!("tenant-{SUSPENDED}");
        self.run(told, &["failed", "list", "--tenant", &tenant])
            .await?;
        self.stage.neighbours.set_tenant(SUSPENDED, Tenant::Active);
        told.say("The tenant is active again. Workers ask once an hour, or when they are told to:");
        let path = format!("/tenants/{SUSPENDED}/invalidate");
        let url = format!("http://{}{path}", self.worker.admin());
        let (status, _) = self.worker.post(&path, Some(ADMIN_TOKEN)).await?;
        told.command(
            &format!("curl -X POST -H 'Authorization: Bearer {ADMIN_TOKEN}' {url}"),
            status.as_str(),
        );
        self.run(told, &["failed", "replay", "--tenant", &tenant])
            .await?;
        let events = self.events_of(&sent, EVENTS).await;
        let out = sent.iter().filter_map(|one| one.event(&events));
        let out: Vec<_> = out.collect();
        for event in &out {
            let text = event.text("/message/content/body");
            told.fact("event", format!("{}  “{text}”", event.text("/eventId")));
        }
        told.expect(
            is_set_aside && out.len() == sent.len(),
            "both were set aside, and both came out of the replay",
        );
        Ok(())
    }

    /// Runs a command of the worker and shows what it prints.
    async fn run(&self, told: &Narration, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = self.worker.command();
        command.args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = [&*output.stdout, &*output.stderr].concat();
        let command = format!("worker {}", arguments.join(" "));
        told.command(&command, &String::from_utf8_lossy(&text));
        ensure!(
            output.status.success(),
            "{command} ended with {}",
            output.status
        );
        Ok(())
    }

    async fn redis_killed(&mut self, told: &mut Narration) -> anyhow::Result<()> {
        told.step("Redis is killed: ingress goes on taking webhooks, into the object store");
        self.stage.redis.kill();
        let posted = (0..5).map(|n| {
            let customer = format!("1650555200{n}");
            self.post(
                ACCOUNT,
                "text",
                payload::text(&customer, "Is anybody there?"),
            )
        });
        let begun = Instant::now();
        let sent = futures::future::try_join_all(posted).await?;
        let took = begun.elapsed().as_secs_f64();
        told.say(&format!(
            "kill -9 of Redis; 5 texts meanwhile: {}, in {took:.1} s",
            answers(&sent)
        ));
        let webhooks = self.stage.webhooks();
        let spooled = webhooks.list("spool").await?;
        for key in &spooled {
            told.fact("spool", format!("{}/{key}", webhooks.bucket()));
        }
        let begun = Instant::now();
        self.stage.redis.restart().await?;
        let events = self.events_of(&sent, HEALED).await;
        let out = sent
            .iter()
            .filter(|one| one.event(&events).is_some())
            .count();
        let empty = async || webhooks.list("spool").await.ok()?.is_empty().then_some(());
        let drained = poll(HEALED, empty).await.is_some();
        let took = begun.elapsed().as_secs_f64();
        told.say(&format!(
            "Redis is back: {out} events, the spool is drained after {took:.1} s"
        ));
        let accepted = sent.iter().all(|one| one.answer == 200);
        told.expect(
            accepted && !spooled.is_empty() && out == sent.len() && drained,
            "all 5 were accepted without Redis, waited in the spool, and came out",
        );
        Ok(())
    }

    async fn worker_killed(&mut self, told: &mut Narration) -> anyhow::Result<()> {
        told.step("A worker is killed under load: another one takes over, nothing is lost");
        let mut second = self.stage.worker().try_start().await.context("worker")?;
        let half = async || (owned(&second).await >= 8).then_some(());
        poll(HEALED, half)
            .await
            .context("two workers don't share the partitions")?;
        told.say(&format!(
            "2 workers share 16 partitions; {LOAD} texts of 20 accounts at {LOAD_PER_SECOND}/s, \
             and after 300 events a kill -9"
        ));
        let before = self.events.count();
        let plan = Plan {
            kind: Kind::Text,
            count: LOAD,
            rate: Some(LOAD_PER_SECOND),
            wabas: 20,
            conversations: 10,
            batch: 1,
            duplicates: 0,
            connections: 16,
        };
        let sender = self.ingress.sender();
        let killed = async {
            let enough = |events: &[Event]| events.len() >= before + 300;
            self.events.try_wait_until(HEALED, enough).await;
            second.kill();
        };
        let (report, ()) = tokio::join!(load::run(&sender, &plan, |_| {}), killed);
        self.nothing_lost(told, &report, before).await;
        Ok(())
    }

    async fn nothing_lost(&self, told: &mut Narration, report: &Report, before: usize) {
        let accepted = usize::try_from(report.accepted()).unwrap_or(usize::MAX);
        let all_out = |events: &[Event]| distinct(events, before) >= accepted;
        let events = self.events.try_wait_until(HEALED, all_out).await;
        let events = events.unwrap_or_else(|| self.events.all());
        let out = distinct(&events, before);
        let repeated = events.len() - before - out;
        told.say(&format!(
            "{accepted} accepted, {out} came out, {repeated} of them twice, with the same eventId"
        ));
        let refused = report.webhooks - report.accepted();
        if refused > 0 {
            told.say(&format!("{refused} were refused: Meta sends them again"));
        }
        // One that had no answer may have been stored.
        told.expect(
            accepted > 0 && out >= accepted,
            "every text that was accepted came out",
        );
    }
}

/// Messages among the events behind the first `before`.
fn distinct(events: &[Event], before: usize) -> usize {
    let ids: HashSet<_> = events.iter().skip(before).map(Event::wamid).collect();
    ids.len()
}

/// How many partitions a worker has; 0 if it doesn't answer.
async fn owned(worker: &Worker) -> usize {
    let Ok((_, metrics)) = worker.get("/metrics").await else {
        return 0;
    };
    let partitions = metrics.lines();
    let partitions = partitions.filter(|line| line.starts_with("whatsapp_partition_owned{"));
    partitions.filter(|line| line.ends_with(" 1")).count()
}

fn answers(sent: &[Sent]) -> String {
    let answers = sent.iter().map(|one| one.answer.to_string());
    format!("answered {}", answers.collect::<Vec<_>>().join(", "))
}

/// What stopped a step is missing too.
fn finished(step: anyhow::Result<()>, told: &mut Narration) {
    if let Err(error) = step {
        told.expect(false, &format!("{error:#}"));
    }
}

fn describe(event: &Event, told: &Narration) {
    told.fact("message", event.wamid());
    let (id, kind) = (event.text("/eventId"), event.text("/eventType"));
    told.fact("event", format!("{id}  {kind}"));
    told.fact("queue", format!("{}  {}", event.queue, event.routing_key));
    let content = &event.payload["message"]["content"];
    if let Some(text) = content["body"].as_str() {
        told.fact("content", format!("“{text}”"));
    }
    let url = event.text("/message/media/url");
    if !url.is_empty() {
        told.fact("image", url);
    }
    if !event.payload["raw"].is_null() {
        told.fact("raw part", &event.payload["raw"]);
    }
}
