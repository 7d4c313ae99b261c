//! Everything around the programs that one test needs, apart from every other test.

use anyhow::Context;
use redis::aio::MultiplexedConnection;

use crate::events::Events;
use crate::meta::Sender;
use crate::neighbours::Neighbours;
use crate::programs::{Builder, Ingress, Worker};
use crate::servers::{Redis, RedisCluster, RedisOptions, S3Access, Shared, Vhost};
use crate::store::Store;

/// What a stage is made of where the default won't do.
#[derive(Debug, Default)]
pub struct StageOptions {
    pub redis: RedisOptions,
    /// Instead of a fresh vhost of the test run's RabbitMQ: a vhost of a node of one's own
    pub amqp_url: Option<String>,
    /// Instead of the test run's S3: one of one's own
    pub s3: Option<S3Access>,
    /// Webhooks go through a Redis Cluster
    pub cluster: Option<RedisCluster>,
}

/// A private Redis, a fresh vhost, buckets with names of their own, and the neighbours. To put a
/// proxy in front of one of them, start the program with another setting:
/// `stage.worker().env("AMQP_URL", …)`.
#[derive(Debug)]
pub struct Stage {
    pub redis: Redis,
    pub cluster: Option<RedisCluster>,
    pub amqp_url: String,
    pub s3: S3Access,
    pub webhook_bucket: String,
    pub media_bucket: String,
    pub neighbours: Neighbours,
    _vhost: Option<Vhost>,
}

impl Stage {
    /// # Panics
    /// If a server can't be started, or the test run's are missing.
    pub async fn new() -> Self {
        Self::with(StageOptions::default()).await
    }

    /// # Panics
    /// Like [`Stage::new`].
    pub async fn with(options: StageOptions) -> Self {
        match Self::try_with(options).await {
            Ok(stage) => stage,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// # Errors
    /// A server can't be started.
    ///
    /// # Panics
    /// If the test run's servers are missing and needed.
    pub async fn try_with(options: StageOptions) -> anyhow::Result<Self> {
        let (amqp_url, vhost) = match options.amqp_url {
            Some(url) => (url, None),
            None => {
                let vhost = Shared::from_env().vhost().await;
                (vhost.url(), Some(vhost))
            }
        };
        let id = uuid::Uuid::new_v4().simple();
        Ok(Self {
            redis: Redis::start(options.redis).await.context("Redis")?,
            cluster: options.cluster,
            amqp_url,
            s3: options.s3.unwrap_or_else(|| Shared::from_env().s3),
            webhook_bucket: format!("webhooks-{id}"),
            media_bucket: format!("media-{id}"),
            neighbours: Neighbours::start().await.context("neighbours")?,
            _vhost: vhost,
        })
    }

    /// What `REDIS_URL` is.
    pub fn redis_url(&self) -> String {
        let cluster = self.cluster.as_ref().map(RedisCluster::url);
        cluster.unwrap_or_else(|| self.redis.url())
    }

    /// A connection to where `key` lies.
    pub async fn redis_for(&self, key: &str) -> MultiplexedConnection {
        match &self.cluster {
            Some(cluster) => cluster.connection_for(key).await,
            None => self.redis.connection().await,
        }
    }

    /// An ingress on this stage; `.start().await` it.
    pub fn ingress(&self) -> Builder<Ingress> {
        Ingress::builder(&self.redis_url())
    }

    /// An ingress that spools what Redis can't take.
    pub fn spooling_ingress(&self) -> Builder<Ingress> {
        self.ingress()
            .env("MINIO_ENDPOINT", &self.s3.endpoint)
            .env("MINIO_ACCESS_KEY", &self.s3.access_key)
            .env("MINIO_SECRET_KEY", &self.s3.secret_key)
            .env("MINIO_REGION", &self.s3.region)
            .env("MINIO_WEBHOOK_BUCKET", &self.webhook_bucket)
    }

    /// A worker on this stage; `.start().await` it, or several.
    pub fn worker(&self) -> Builder<Worker> {
        let neighbours = self.neighbours.url();
        Worker::builder(&self.redis_url(), &self.amqp_url, &self.s3, &neighbours)
            .env("MINIO_WEBHOOK_BUCKET", &self.webhook_bucket)
            .env("MINIO_MEDIA_BUCKET", &self.media_bucket)
    }

    /// Consumes what workers publish from now on, and what waits in the queues.
    pub fn events(&self) -> Events {
        Events::consume(&self.amqp_url)
    }

    pub fn sender(&self, ingress: &Ingress) -> Sender {
        ingress.sender()
    }

    /// The bucket of raw payloads and of what failed.
    pub fn webhooks(&self) -> Store {
        Store::new(&self.s3, &self.webhook_bucket)
    }

    pub fn media(&self) -> Store {
        Store::new(&self.s3, &self.media_bucket)
    }
}
