//! What everybody sees who reaches the port. It is asked for anew every few seconds only, however many look.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};
use shared::config::version;
use strum::IntoEnumIterator;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Console;
use super::problem::ConsoleProblem;
use crate::item::traffic;
use crate::operator::{Deployment, Section, inspect, replay, within};
use crate::out::error::Reason;
use crate::out::store::FAILED;
use crate::watch::health;

/// Each part; one that takes longer is unknown.
const LIMIT: Duration = Duration::from_secs(5);
const MOST_LISTED: usize = 50;

/// A part of the overview, and when it was asked for.
struct KeptPart {
    every: Duration,
    last: Mutex<Option<(Instant, Value)>>,
}

impl KeptPart {
    fn every(seconds: u64) -> Self {
        Self {
            every: Duration::from_secs(seconds),
            last: Mutex::default(),
        }
    }

    /// Those who ask at the same time wait for the same answer.
    async fn get(&self, asking: impl Future<Output = Value>) -> Value {
        let mut last = self.last.lock().await;
        if let Some((at, value)) = &*last
            && at.elapsed() < self.every
        {
            return value.clone();
        }
        let value = asking.await;
        *last = Some((Instant::now(), value.clone()));
        value
    }
}

/// Redis is asked often, RabbitMQ by a connection each time, and the store by a thousand requests at most.
pub(super) struct OverviewCache {
    redis: KeptPart,
    rabbitmq: KeptPart,
    store: KeptPart,
}

impl Default for OverviewCache {
    fn default() -> Self {
        Self {
            redis: KeptPart::every(2),
            rabbitmq: KeptPart::every(5),
            store: KeptPart::every(20),
        }
    }
}

#[derive(Debug, Serialize)]
struct LiveWorker {
    id: String,
    /// `None`: it is of a version that doesn't tell.
    version: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LimitedAccount {
    business_account_id: String,
    /// Webhooks answered 429 within the hour.
    refused: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SilentNumber {
    business_account_id: String,
    phone_number_id: String,
    hours: u64,
}

/// Without the number or template that it is about: that may be a phone number.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UnwellAccount {
    business_account_id: String,
    kind: &'static str,
    state: String,
    since_ms: i64,
}

pub(super) async fn overview(
    State(console): State<Arc<Console>>,
) -> Result<Json<Value>, ConsoleProblem> {
    let views = console.views.clone();
    let asked = console.ask(&views, async |console| {
        let (deployment, cache) = (&console.deployment, &console.overview);
        let (redis, rabbitmq, store) = tokio::join!(
            cache.redis.get(of_redis(deployment)),
            cache.rabbitmq.get(of_rabbitmq(deployment)),
            cache.store.get(of_store(deployment)),
        );
        Ok(json!({
            "version": version(),
            "atMs": now_ms(),
            "reasons": Reason::iter().map(Reason::name).collect::<Vec<_>>(),
            "partitionCount": deployment.keys.partitions(),
            "redis": redis,
            "rabbitmq": rabbitmq,
            "store": store,
        }))
    });
    asked.await.map(Json)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

async fn of_redis(deployment: &Deployment) -> Value {
    let (workers, (partitions, read), replay, limited, silent, unwell) = tokio::join!(
        within(LIMIT, workers(deployment)),
        busy_partitions(deployment),
        within(LIMIT, replay::progress(deployment)),
        within(LIMIT, limited(deployment)),
        within(LIMIT, silent(deployment)),
        within(LIMIT, unwell(deployment)),
    );
    json!({
        "workers": workers,
        "partitions": partitions,
        "read": read,
        "replay": replay,
        "limited": limited,
        "silent": silent,
        "unwell": unwell,
    })
}

async fn of_rabbitmq(deployment: &Deployment) -> Value {
    json!({ "queues": within(LIMIT, inspect::queues(deployment)).await })
}

async fn of_store(deployment: &Deployment) -> Value {
    let all = [FAILED.to_owned()];
    let (failed, spool) = tokio::join!(
        within(LIMIT, inspect::failed(&deployment.store, &all)),
        within(LIMIT, inspect::spool(&deployment.store)),
    );
    json!({ "failed": failed, "spool": spool })
}

async fn workers(deployment: &Deployment) -> anyhow::Result<Vec<LiveWorker>> {
    let mut workers = Vec::new();
    for id in deployment.live_workers().await.context("Redis")? {
        let version = deployment.version_of(&id).await.context("Redis")?;
        workers.push(LiveWorker { id, version });
    }
    Ok(workers)
}

/// How many webhooks workers had read at a time: two of these make a rate.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReadSoFar {
    webhooks: u64,
    at_ms: u64,
}

/// Partitions that aren't idle, and what was read of all of them.
async fn busy_partitions(
    deployment: &Deployment,
) -> (Section<Vec<inspect::PartitionReport>>, Option<ReadSoFar>) {
    let mut partitions = within(LIMIT, inspect::partitions(deployment)).await;
    let Section::Known(all) = &mut partitions else {
        return (partitions, None);
    };
    let read = ReadSoFar {
        webhooks: all.iter().map(|it| it.ever_read).sum(),
        at_ms: now_ms(),
    };
    all.retain(|it| !it.is_idle());
    (partitions, Some(read))
}

async fn limited(deployment: &Deployment) -> anyhow::Result<Vec<LimitedAccount>> {
    let limited = deployment.accounts_at_limit(MOST_LISTED).await;
    let limited = limited.context("Redis")?.into_iter();
    let limited = limited.map(|(business_account_id, refused)| LimitedAccount {
        business_account_id,
        refused,
    });
    Ok(limited.collect())
}

async fn silent(deployment: &Deployment) -> anyhow::Result<Vec<SilentNumber>> {
    let now = traffic::this_hour();
    let numbers = traffic::read(&deployment.connection, &deployment.keys).await;
    let numbers = numbers.context("Redis")?.into_iter();
    let silent = numbers.filter_map(|(business_account_id, phone_number_id, hours)| {
        Some(SilentNumber {
            business_account_id,
            phone_number_id,
            hours: hours.silent(now)?,
        })
    });
    Ok(silent.take(MOST_LISTED).collect())
}

async fn unwell(deployment: &Deployment) -> anyhow::Result<Vec<UnwellAccount>> {
    let unwell = health::unwell(&deployment.connection, &deployment.keys).await;
    let unwell = unwell.context("Redis")?.into_iter();
    let unwell = unwell.map(|note| UnwellAccount {
        kind: note.kind.name(),
        business_account_id: note.account,
        state: note.state,
        since_ms: note.at_ms,
    });
    Ok(unwell.take(MOST_LISTED).collect())
}
