//! Which partitions are this worker's. A lease is a key with a random token that expires; the
//! workers share the partitions evenly, by what each sees of the others' heartbeats.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use deadpool_redis::{Pool, PoolError};
use futures::future::join_all;
use rand::seq::SliceRandom;
use redis::{FromRedisValue, RedisError, RedisResult};
use shared::config::version;
use shared::keys::{GROUP, Keys};
use shared::redis::{Connection, Redis, class, warn_will_retry};
use shared::script::{Script, ScriptCall};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::metrics::Metrics;

/// Cycles in the life of a lease. A dead worker's partitions are free after one life and taken one
/// cycle later.
const CYCLES_PER_LEASE: u32 = 5;

/// One time of owning a partition.
#[derive(Debug)]
pub struct Tenure {
    pub partition: u16,
    pub token: String,
    /// Ms after `epoch` until which the lease surely holds, by this machine's monotonic clock.
    good_until: AtomicU64,
    epoch: Instant,
    /// As the partition's window has it.
    redis_failed: AtomicBool,
    /// Cancelled when the lease is gone: nothing may be published any more.
    pub lost: CancellationToken,
    /// Cancelled when the partition is to be handed over: nothing new is begun.
    pub drain: CancellationToken,
}

impl Tenure {
    fn new(partition: u16, token: String, until: Instant) -> Self {
        let tenure = Self {
            partition,
            token,
            good_until: AtomicU64::new(0),
            epoch: Instant::now(),
            redis_failed: AtomicBool::new(false),
            lost: CancellationToken::new(),
            drain: CancellationToken::new(),
        };
        tenure.extend(until);
        tenure
    }

    fn extend(&self, until: Instant) {
        let ms = until.saturating_duration_since(self.epoch).as_millis() as u64;
        self.good_until.fetch_max(ms, Ordering::Relaxed);
    }

    /// Until when the lease holds if nothing renews it.
    pub fn good_until(&self) -> Instant {
        self.epoch + Duration::from_millis(self.good_until.load(Ordering::Relaxed))
    }

    /// Whether the lease surely holds now: asked before each publication.
    pub fn holds(&self) -> bool {
        !self.lost.is_cancelled() && Instant::now() < self.good_until()
    }

    /// Whether Redis has failed to answer a command of this partition, and answered none since. Asked before
    /// each publication, too, since Redis could not be told of it.
    pub fn redis_failed(&self) -> bool {
        self.redis_failed.load(Ordering::Relaxed)
    }

    pub fn set_redis_failed(&self, failed: bool) {
        self.redis_failed.store(failed, Ordering::Relaxed);
    }
}

struct LeaseScripts {
    heartbeat: Script,
    acquire: Script,
    renew: Script,
    release: Script,
}

#[derive(Clone)]
enum LeaseConnection {
    Pool(Pool),
    /// Pooled connections know nothing of a cluster's dead nodes.
    Cluster(Connection),
}

/// This worker's leases.
pub struct Leases {
    redis: Redis,
    link: Mutex<Option<(u64, LeaseConnection)>>,
    keys: Keys,
    worker: String,
    ttl: Duration,
    scripts: LeaseScripts,
}

impl Leases {
    pub fn new(redis: Redis, keys: Keys, ttl: Duration) -> Self {
        let scripts = LeaseScripts {
            heartbeat: Script::new(include_str!("../lua/heartbeat.lua")),
            acquire: Script::new(include_str!("../lua/acquire.lua")),
            renew: Script::new(include_str!("../lua/renew.lua")),
            release: Script::new(include_str!("../lua/release.lua")),
        };
        Self {
            redis,
            link: Mutex::default(),
            keys,
            worker: Uuid::new_v4().to_string(),
            ttl,
            scripts,
        }
    }

    /// Holds this worker's share of the partitions until `shutdown`, running `own` for each one it
    /// gets. `own` returns when its tenure is lost, or when it is told to drain and has.
    pub async fn run<F>(
        &self,
        metrics: &Metrics,
        shutdown: CancellationToken,
        own: impl Fn(Arc<Tenure>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tenures: HashMap<u16, Arc<Tenure>> = HashMap::new();
        let mut tasks: JoinSet<Arc<Tenure>> = JoinSet::new();
        let mut cycle = tokio::time::interval(self.ttl / CYCLES_PER_LEASE);
        cycle.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut leaving = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled(), if !leaving => {
                    leaving = true;
                    tenures.values().for_each(|tenure| tenure.drain.cancel());
                    // The others take what is released from their next cycle on.
                    drop(self.heartbeat(Duration::ZERO).await);
                }
                Some(ended) = tasks.join_next() => match ended {
                    Ok(tenure) => {
                        tenures.remove(&tenure.partition);
                        self.release(&tenure).await;
                    }
                    // Items catch their panics, so this is a bug of the task: the process ends as it
                    // would by any other crash, and the next owner counts it as one.
                    Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
                },
                _ = cycle.tick() => {
                    if let Err(error) = self.cycle(&mut tenures, &mut tasks, leaving, &own).await {
                        // Each cycle asks, also while this worker owns nothing and reads nothing.
                        warn_will_retry(&error);
                    }
                }
            }
            metrics.owned.set(tenures.len() as i64);
            if let Some((_, LeaseConnection::Pool(pool))) = &*self.link.lock().await {
                let pool = pool.status();
                metrics.redis_pool(pool.size, pool.available);
            }
            if leaving && tenures.is_empty() {
                return;
            }
        }
    }

    async fn cycle<F>(
        &self,
        tenures: &mut HashMap<u16, Arc<Tenure>>,
        tasks: &mut JoinSet<Arc<Tenure>>,
        leaving: bool,
        own: &impl Fn(Arc<Tenure>) -> F,
    ) -> RedisResult<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        join_all(tenures.values().map(|tenure| self.renew(tenure))).await;
        if leaving {
            return Ok(());
        }
        let workers = self.heartbeat(self.ttl).await?;
        let share = share(self.keys.partitions(), &workers, &self.worker);
        let staying = tenures.values().filter(|t| !t.drain.is_cancelled());
        if let Some(surplus) = staying.clone().count().checked_sub(share) {
            for tenure in staying.take(surplus) {
                tracing::info!(partition = tenure.partition, "handing over a partition");
                tenure.drain.cancel();
            }
            return Ok(());
        }
        let mut missing = share - staying.count();
        let mut free: Vec<u16> = (0..self.keys.partitions())
            .filter(|partition| !tenures.contains_key(partition))
            .collect();
        free.shuffle(&mut rand::rng());
        let mut trouble = None;
        while missing > 0 && !free.is_empty() && trouble.is_none() {
            // Side by side: those on a dead node of a cluster must not hold up the others.
            let some = free.drain(..missing.min(free.len()));
            for taken in join_all(some.map(|partition| self.acquire(partition))).await {
                match taken {
                    Ok(Some(tenure)) => {
                        tracing::info!(partition = tenure.partition, "took a partition");
                        missing -= 1;
                        let tenure = Arc::new(tenure);
                        tenures.insert(tenure.partition, tenure.clone());
                        let owning = own(tenure.clone());
                        tasks.spawn(async move {
                            owning.await;
                            tenure
                        });
                    }
                    Ok(None) => {}
                    Err(error) => trouble = Some(error),
                }
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Connections of their own: a lease must not wait behind webhooks.
    async fn link(&self) -> RedisResult<LeaseConnection> {
        let version = self.redis.version();
        let mut link = self.link.lock().await;
        if let Some((made_for, link)) = &*link
            && *made_for == version
        {
            return Ok(link.clone());
        }
        let patience = self.ttl / 4;
        let made = match self.redis.single() {
            None => LeaseConnection::Cluster(self.redis.connection(patience)),
            Some(server) => LeaseConnection::Pool(
                Pool::builder(deadpool_redis::Manager::new(server)?)
                    .max_size(usize::from(self.keys.partitions()).clamp(4, 16))
                    .wait_timeout(Some(patience))
                    .create_timeout(Some(patience))
                    .recycle_timeout(Some(patience))
                    .runtime(deadpool_redis::Runtime::Tokio1)
                    .build()
                    .map_err(std::io::Error::other)?,
            ),
        };
        *link = Some((version, made.clone()));
        Ok(made)
    }

    async fn ask<T: FromRedisValue>(&self, call: ScriptCall<'_>) -> RedisResult<T> {
        match self.link().await? {
            LeaseConnection::Pool(pool) => {
                let mut connection = pool.get().await.map_err(no_connection)?;
                call.run(&mut connection).await
            }
            LeaseConnection::Cluster(mut connection) => call.run(&mut connection).await,
        }
    }

    /// Tells that this worker lives for `ttl` more (zero: leaves); the ids of all that live.
    async fn heartbeat(&self, ttl: Duration) -> RedisResult<Vec<String>> {
        let call = self.scripts.heartbeat.call([self.keys.workers()]);
        let call = call.arg(&self.worker).arg(ttl.as_millis() as u64);
        let workers = self.ask(call).await?;
        if !ttl.is_zero() {
            // Only shown: a version that isn't written is unknown, and nothing hangs on it.
            drop(self.tell_version(ttl).await);
        }
        Ok(workers)
    }

    async fn tell_version(&self, ttl: Duration) -> RedisResult<()> {
        let mut set = redis::cmd("SET");
        set.arg(self.keys.worker(&self.worker)).arg(version());
        set.arg("PX").arg(ttl.as_millis() as u64);
        match self.link().await? {
            LeaseConnection::Pool(pool) => {
                let mut connection = pool.get().await.map_err(no_connection)?;
                set.query_async(&mut connection).await
            }
            LeaseConnection::Cluster(mut connection) => set.query_async(&mut connection).await,
        }
    }

    async fn acquire(&self, partition: u16) -> RedisResult<Option<Tenure>> {
        let token = format!("{}:{}", self.worker, Uuid::new_v4());
        let asked = Instant::now();
        let call = self.scripts.acquire.call([
            self.keys.lease(partition),
            self.keys.owner(partition),
            self.keys.stream(partition),
            self.keys.suspects(partition),
            self.keys.deaths(partition),
            self.keys.alone(partition),
            self.keys.former_owed(partition, "later"),
            self.keys.former_owed(partition, "later-media"),
        ]);
        let call = call
            .arg(&token)
            .arg(self.ttl.as_millis() as u64)
            .arg(GROUP)
            .arg(&self.worker);
        let taken: bool = self.ask(call).await?;
        Ok(taken.then(|| Tenure::new(partition, token, self.good_until(asked))))
    }

    /// A lease holds from before it was asked for, and ends here a little before it does in Redis.
    fn good_until(&self, asked: Instant) -> Instant {
        asked + self.ttl - self.ttl / 10
    }

    async fn renew(&self, tenure: &Tenure) {
        let asked = Instant::now();
        let call = self.scripts.renew.call([self.keys.lease(tenure.partition)]);
        let call = call.arg(&tenure.token).arg(self.ttl.as_millis() as u64);
        match self.ask::<bool>(call).await {
            Ok(true) => tenure.extend(self.good_until(asked)),
            Ok(false) => {
                tracing::warn!(partition = tenure.partition, "lost a partition");
                tenure.lost.cancel();
            }
            // The tenure ends by itself when its time is over.
            Err(error) => {
                let partition = tenure.partition;
                tracing::warn!(partition, class = class(&error), %error, "a lease can't be renewed now");
            }
        }
    }

    async fn release(&self, tenure: &Tenure) {
        let call = self.scripts.release.call([
            self.keys.lease(tenure.partition),
            self.keys.owner(tenure.partition),
            self.keys.alone(tenure.partition),
        ]);
        let released: RedisResult<bool> = self.ask(call.arg(&tenure.token)).await;
        match released {
            Ok(_) => tracing::info!(partition = tenure.partition, "left a partition"),
            Err(error) => {
                let partition = tenure.partition;
                tracing::warn!(partition, class = class(&error), %error, "redis command failed: a lease is not released, it expires");
            }
        }
    }
}

/// Why the pool has no connection, as Redis' own errors say it.
fn no_connection(error: PoolError) -> RedisError {
    match error {
        PoolError::Backend(error) => error,
        PoolError::Timeout(_) => {
            std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time").into()
        }
        error @ (PoolError::Closed
        | PoolError::NoRuntimeSpecified
        | PoolError::PostCreateHook(_)) => std::io::Error::other(error).into(),
    }
}

/// How many partitions are this worker's: evenly many, the first by id get what is left over.
fn share(partitions: u16, workers: &[String], me: &str) -> usize {
    let (partitions, count) = (usize::from(partitions), workers.len().max(1));
    let rank = workers
        .iter()
        .position(|worker| worker == me)
        .unwrap_or(count);
    partitions / count + usize::from(rank < partitions % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_workers_are_all_partitions() {
        for count in 1..20 {
            let workers: Vec<_> = (0..count).map(|n| format!("{n:02}")).collect();
            let shares: Vec<_> = workers.iter().map(|me| share(16, &workers, me)).collect();
            assert_eq!(shares.iter().sum::<usize>(), 16, "{shares:?}");
            assert!(shares.iter().max() <= shares.iter().min().map(|least| least + 1).as_ref());
        }
    }
}
