//! What operators ask for and do by hand: [`inspect`] tells where everything is, [`locate`] where one
//! thing is that an id ([`given_id`]) is of, [`cat`] shows it, [`find`] looks for a customer's; [`tenant`] tells why
//! a tenant's events stopped, [`doctor`] what is wrong with settings, servers and work; [`failed`] is about
//! what was set aside, [`dead_letters`] about what consumers rejected, [`tail`] shows what goes out now;
//! [`erase`] deletes what is kept of a tenant or a customer, [`repartition`] changes the partition count,
//! [`settings`] tells what a worker is set to. [`arguments`] are what several of them take, [`objects`] how
//! they look through the store; [`output`] prints.

pub(crate) mod arguments;
pub(crate) mod given_id;
mod objects;

pub mod cat;
pub mod dead_letters;
pub mod doctor;
pub mod erase;
pub mod failed;
pub mod find;
pub mod inspect;
pub(crate) mod locate;
pub mod presign;
pub mod repartition;
pub mod replay;
pub mod settings;
pub mod tail;
pub mod tenant;

pub(crate) mod output;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::AMQPValue;
use redis::streams::StreamRangeReply;
use serde::Serialize;
use shared::entry::{EntryFields, EntryHeader};
use shared::keys::Keys;
use shared::limited;
use shared::redis::Connection;
use shared::telemetry::{CommandError, EndsWith, innermost_first};
use tokio::time::timeout;

use crate::ask::tenants::Tenants;
use crate::clients;
use crate::config::{Config, Secrets};
use crate::item::traffic;
use crate::metrics::Metrics;
use crate::out::store::Store;

/// Answer to any command.
const REDIS_TIMEOUT: Duration = Duration::from_secs(3);
/// Connecting and logging in.
const RABBITMQ_TIMEOUT: Duration = Duration::from_secs(10);

/// A deployment as a command sees it.
pub(crate) struct Deployment {
    pub connection: Connection,
    /// With the deployment's own partition count, where Redis tells it.
    pub keys: Keys,
    /// What Redis says of the partition count; `None`: nothing yet, or the command failed.
    pub stored_partitions: Option<u16>,
    pub store: Arc<Store>,
    pub secrets: Secrets,
}

impl Deployment {
    /// Nothing needs to be there: what is away shows when it is asked.
    ///
    /// # Errors
    /// Settings that can't be used.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        let secrets = config
            .secrets()
            .map_err(|problems| anyhow::anyhow!("{}", problems.join("\n")))?;
        let store_keys = secrets.store.clone();
        let store_keys = store_keys.context("MINIO_ACCESS_KEY is not set")?;
        let store = Arc::new(Store::new(&config.store, &config.objects, store_keys)?);
        let connection = secrets.redis.connection(REDIS_TIMEOUT);
        let (prefix, set) = (
            &config.redis.redis_key_prefix,
            config.redis.stream_partitions,
        );
        let mut get = redis::cmd("GET");
        get.arg(Keys::new(prefix, set).partition_count());
        let stored = timeout(REDIS_TIMEOUT, get.query_async(&mut connection.clone())).await;
        let stored_partitions: Option<u16> = stored.ok().and_then(Result::ok).flatten();
        Ok(Self {
            connection,
            keys: Keys::new(prefix, stored_partitions.unwrap_or(set)),
            stored_partitions,
            store,
            secrets,
        })
    }
}

impl Deployment {
    /// Who knows whose an account is, as workers ask.
    ///
    /// # Errors
    /// No client can be made.
    pub(crate) fn tenants(
        &self,
        config: &Config,
        metrics: &Metrics,
    ) -> anyhow::Result<Arc<Tenants>> {
        Ok(Arc::new(Tenants::new(
            &config.tenants,
            &self.secrets.tenants,
            clients::tenant_service(metrics)?,
            (self.connection.clone(), self.keys.clone()),
            metrics.caches.clone(),
        )))
    }

    /// A connection to RabbitMQ.
    ///
    /// # Errors
    /// It is away, or refuses.
    pub(crate) async fn rabbitmq(&self) -> anyhow::Result<lapin::Connection> {
        let url = self.secrets.amqp.current();
        let properties = lapin::ConnectionProperties::default();
        let connecting = lapin::Connection::connect(url.expose(), properties);
        let connected = timeout(RABBITMQ_TIMEOUT, connecting).await;
        let connected = connected.context("no answer in time").context("RabbitMQ")?;
        connected.context("RabbitMQ")
    }

    /// Accounts and their numbers that had traffic lately.
    pub(crate) async fn numbers(&self) -> redis::RedisResult<Vec<(String, String)>> {
        let read = traffic::read(&self.connection, &self.keys).await?;
        let numbers = read.into_iter();
        Ok(numbers
            .map(|(account, number, _)| (account, number))
            .collect())
    }

    /// Accounts of which most webhooks were answered 429 within the hour, and how many each.
    pub(crate) async fn accounts_at_limit(
        &self,
        most: usize,
    ) -> redis::RedisResult<Vec<(String, u64)>> {
        let refused = limited::of_last_hour(&self.connection, &self.keys).await?;
        let mut refused: Vec<_> = refused.into_iter().collect();
        refused.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        refused.truncate(most);
        Ok(refused)
    }

    /// The version of a worker that lives, if it tells.
    pub(crate) async fn version_of(&self, worker: &str) -> redis::RedisResult<Option<String>> {
        let mut get = redis::cmd("GET");
        get.arg(self.keys.worker(worker));
        get.query_async(&mut self.connection.clone()).await
    }

    /// Ids of the workers that live.
    pub(crate) async fn live_workers(&self) -> redis::RedisResult<Vec<String>> {
        let mut redis = self.connection.clone();
        let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await?;
        let mut range = redis::cmd("ZRANGEBYSCORE");
        range
            .arg(self.keys.workers())
            .arg(seconds.saturating_mul(1000));
        range.arg("+inf").query_async(&mut redis).await
    }
}

/// What was asked for is nothing that can be asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongCall(pub(crate) Cow<'static, str>);

/// A part of a report that may not be known.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Section<T> {
    Known(T),
    Unknown { unknown: String },
}

impl<T> Section<T> {
    pub(crate) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(known) => Some(known),
            Self::Unknown { .. } => None,
        }
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.known().is_none()
    }
}

/// How a command ends that only looks: an error means that it could not.
///
/// # Errors
/// The same, with exit status 2 unless it has one.
pub fn could_not_look(ended: anyhow::Result<()>) -> anyhow::Result<()> {
    ended.map_err(|error| match error.is::<EndsWith>() {
        true => error,
        false => CommandError(error).into(),
    })
}

/// The answer, if it comes within `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    asking: impl Future<Output = anyhow::Result<T>>,
) -> Section<T> {
    match timeout(limit, asking).await {
        Ok(Ok(known)) => Section::Known(known),
        Ok(Err(error)) => Section::Unknown {
            unknown: innermost_first(&error),
        },
        Err(_) => Section::Unknown {
            unknown: format!("no answer within {} s", limit.as_secs()),
        },
    }
}

/// Entries of a stream that one request brings.
const PAGE: usize = 50;

/// Shows `most` entries of a stream to `each`, oldest first; how many that were, and whether these
/// were all.
///
/// # Errors
/// A Redis command failed.
pub(crate) async fn scan_stream(
    connection: &Connection,
    key: &str,
    most: usize,
    mut each: impl FnMut(&redis::streams::StreamId),
) -> redis::RedisResult<(usize, bool)> {
    let (mut after, mut looked_at) = ("-".to_owned(), 0);
    loop {
        let mut range = redis::cmd("XRANGE");
        range.arg(key).arg(&after).arg("+").arg("COUNT").arg(PAGE);
        let page: StreamRangeReply = range.query_async(&mut connection.clone()).await?;
        let Some(last) = page.ids.last() else {
            return Ok((looked_at, true));
        };
        after = format!("({}", last.id);
        page.ids.iter().for_each(&mut each);
        looked_at += page.ids.len();
        if looked_at >= most {
            return Ok((looked_at, false));
        }
    }
}

/// A header of an AMQP message that is text.
pub(crate) fn header_text(properties: &BasicProperties, name: &str) -> Option<String> {
    let headers = properties.headers().as_ref()?.inner();
    let (_, value) = headers.iter().find(|(key, _)| key.as_str() == name)?;
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// All fields of a stream entry, of whatever version it is.
pub(crate) fn fields(entry: &redis::streams::StreamId) -> EntryFields {
    let names = entry.map.keys();
    names
        .filter_map(|name| Some((name.clone(), entry.get::<Bytes>(name)?)))
        .collect()
}

/// Whether a stream entry is of the webhook with this correlation id.
pub(crate) fn is_of_webhook(entry: &redis::streams::StreamId, correlation_id: &str) -> bool {
    let header = EntryHeader::of(&fields(entry));
    header.is_ok_and(|header| header.correlation_id == correlation_id)
}

/// A field of a stream entry.
pub(crate) fn field(entry: &redis::streams::StreamId, name: &str) -> Vec<u8> {
    entry.get(name).unwrap_or_default()
}
