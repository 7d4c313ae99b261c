//! Where webhooks go while Redis can't take them: objects that a worker puts into the stream later.
//! Which partitions are away is known here, so that their webhooks don't wait for Redis each; a probe
//! finds them well again. In good times a webhook pays one atomic load for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use object_store::aws::AmazonS3;
use object_store::{Attribute, Attributes, ObjectStore, PutOptions, PutPayload};
use prometheus_client::metrics::gauge::Gauge;
use redis::RedisError;
use shared::intake::{Delivery, Envelope, IntakeOutcome};
use shared::keys::Keys;
use shared::redis::{Connection, FailureKind, Redis, class};
use shared::spool;
use shared::store::{StoreError, path};
use shared::write_probe::WriteProbe;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::intake::{Intake, NotStored};
use crate::metrics::RedisErrors;

/// Objects on their way to the store; more would wait there instead of here.
const PUTS_AT_ONCE: usize = 64;
/// How often a partition that is away is probed.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// In a cluster every partition is asked how full its node is, so less often: each is a write.
const LOOK_EVERY: u32 = 10;
/// Share of Redis' memory from which on nothing more goes there, so that workers, which need some for
/// their work, can empty it; and the share below which it takes webhooks again.
const FULL: (f64, f64) = (0.90, 0.85);

/// The spool, and what is known of the partitions.
pub struct SpoolWriter {
    bucket: AmazonS3,
    puts: Semaphore,
    keys: Keys,
    redis: Redis,
    write_probe: WriteProbe,
    dedup_ttl: Duration,
    patience: Duration,
    partitions: Vec<PartitionState>,
    /// How many of them are away.
    away: Gauge,
    redis_errors: RedisErrors,
    /// The log has it that webhooks are spooled.
    outage_logged: AtomicBool,
}

struct PartitionState {
    /// Nothing is sent to Redis.
    away: AtomicBool,
    /// That is so, or also so, for want of memory: it lasts until there is room again.
    short_of_memory: AtomicBool,
    /// When that was learned: what began before says nothing about now.
    since: Mutex<Instant>,
}

/// What a webhook or a probe found out about a partition.
#[derive(Debug, Clone, Copy)]
enum PartitionHealth<'a> {
    TakesWebhooks,
    ShortOfMemory,
    Failing { class: &'static str, why: &'a str },
}

/// What a [`SpoolWriter`] is made of.
pub struct SpoolParts {
    pub bucket: AmazonS3,
    pub keys: Keys,
    pub redis: Redis,
    pub write_probe: WriteProbe,
    /// Shows how many partitions are away.
    pub away: Gauge,
    pub redis_errors: RedisErrors,
    pub dedup_ttl: Duration,
    /// How long a webhook waits for Redis.
    pub patience: Duration,
}

impl SpoolWriter {
    /// All partitions are taken for away until they are seen.
    pub fn new(parts: SpoolParts) -> Self {
        let SpoolParts {
            bucket,
            keys,
            redis,
            write_probe,
            away,
            redis_errors,
            dedup_ttl,
            patience,
        } = parts;
        away.set(i64::from(keys.partitions()));
        let partition = |_| PartitionState {
            away: AtomicBool::new(true),
            short_of_memory: AtomicBool::new(false),
            since: Mutex::new(Instant::now()),
        };
        Self {
            partitions: (0..keys.partitions()).map(partition).collect(),
            outage_logged: AtomicBool::new(false),
            bucket,
            puts: Semaphore::new(PUTS_AT_ONCE),
            keys,
            redis,
            write_probe,
            away,
            redis_errors,
            dedup_ttl,
            patience,
        }
    }

    /// Stores a delivery in the stream, or, if Redis can't take it, here.
    ///
    /// # Errors
    /// [`NotStored`]
    pub async fn keep(
        &self,
        (intake, redis): (&Intake, &Connection),
        partition: u16,
        delivery: &Delivery,
        envelope: &Envelope,
    ) -> Result<IntakeOutcome, NotStored> {
        if self.is_away(partition) {
            self.log_outage(partition, "unseen", "Redis has not been seen yet");
            return self.put(partition, delivery, envelope).await;
        }
        let began = Instant::now();
        let storing = intake.store(redis, partition, delivery, envelope);
        let error = match timeout(self.patience, storing).await {
            Ok(Err(NotStored::Redis(error))) => Some(error),
            Ok(settled) => return settled,
            Err(_) => {
                self.redis_errors.count_unanswered();
                None
            }
        };
        self.failed(partition, began, error.as_ref());
        self.put(partition, delivery, envelope).await
    }

    /// Redis was seen for the first time.
    pub fn begin(&self) {
        for partition in 0..self.keys.partitions() {
            self.switch(partition, Instant::now(), PartitionHealth::TakesWebhooks);
        }
    }

    fn is_away(&self, partition: u16) -> bool {
        self.partitions[usize::from(partition)]
            .away
            .load(Ordering::Relaxed)
    }

    /// Writes an object. It may be there though this failed, and then what it holds is stored twice;
    /// the dedup of whoever empties the spool settles it.
    async fn put(
        &self,
        partition: u16,
        delivery: &Delivery,
        envelope: &Envelope,
    ) -> Result<IntakeOutcome, NotStored> {
        let key = spool::key(partition, envelope.received_at_ms());
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, "application/octet-stream".into());
        let options = PutOptions {
            attributes,
            ..PutOptions::default()
        };
        let pieces = spool::encode(delivery, envelope, self.dedup_ttl);
        let payload = PutPayload::from_iter(pieces);
        // The semaphore is never closed.
        let _permit = self.puts.acquire().await;
        match self.bucket.put_opts(&path(&key), payload, options).await {
            Ok(_) => Ok(IntakeOutcome::Spooled),
            Err(error) => Err(NotStored::Nowhere(StoreError::from(error).to_string())),
        }
    }

    /// A delivery that began at `began` found Redis unable to take it; `None`: it got no answer.
    fn failed(&self, partition: u16, began: Instant, error: Option<&RedisError>) {
        let why = error.map_or_else(|| "no answer in time".to_owned(), ToString::to_string);
        let health = match error.map_or(FailureKind::NoAnswer, FailureKind::of) {
            FailureKind::NoAnswer | FailureKind::Recovering | FailureKind::ReadOnly => {
                PartitionHealth::Failing {
                    class: error.map_or("timeout", class),
                    why: &why,
                }
            }
            FailureKind::OutOfMemory => PartitionHealth::ShortOfMemory,
            // It may be this account's alone.
            FailureKind::NeedsRepair => return,
        };
        for partition in self.alike(partition) {
            self.switch(partition, began, health);
        }
    }

    /// The partitions of which the same is true: a single server has all of them.
    fn alike(&self, partition: u16) -> std::ops::Range<u16> {
        match self.redis.single() {
            Some(_) => 0..self.keys.partitions(),
            None => partition..partition + 1,
        }
    }

    /// Something that began at `began` found this of the partition. `since` decides between two who
    /// found different things.
    fn switch(&self, partition: u16, began: Instant, health: PartitionHealth<'_>) {
        let state = &self.partitions[usize::from(partition)];
        let mut since = state.since.lock().unwrap_or_else(PoisonError::into_inner);
        if began < *since {
            return;
        }
        let (away, class, why) = match health {
            PartitionHealth::TakesWebhooks => (false, "", ""),
            PartitionHealth::ShortOfMemory => (true, "oom", "short of memory"),
            PartitionHealth::Failing { class, why } => (true, class, why),
        };
        match health {
            PartitionHealth::TakesWebhooks => state.short_of_memory.store(false, Ordering::Relaxed),
            PartitionHealth::ShortOfMemory => state.short_of_memory.store(true, Ordering::Relaxed),
            PartitionHealth::Failing { .. } => {}
        }
        if state.away.load(Ordering::Relaxed) == away {
            return;
        }
        *since = Instant::now();
        state.away.store(away, Ordering::Relaxed);
        if away {
            self.away.inc();
            self.log_outage(partition, class, why);
        } else if self.away.dec() == 1 && self.outage_logged.swap(false, Ordering::Relaxed) {
            tracing::info!("Redis takes all webhooks again: nothing is spooled");
        }
    }

    /// Logs it once, until no partition is away any more.
    fn log_outage(&self, partition: u16, class: &str, why: &str) {
        if !self.outage_logged.load(Ordering::Relaxed)
            && !self.outage_logged.swap(true, Ordering::Relaxed)
        {
            tracing::error!(
                partition,
                class,
                why,
                "Redis can't take webhooks: they are spooled"
            );
        }
    }

    /// Probes what is away, and looks how full Redis is, until `shutdown`; nothing before `checked`.
    pub async fn watch(&self, checked: &AtomicBool, shutdown: CancellationToken) {
        let mut round = 0;
        while !shutdown.is_cancelled() {
            if checked.load(Ordering::Relaxed) {
                let step = self.alike(0).len().max(1);
                let all = (0..self.keys.partitions()).step_by(step);
                let single = step > 1;
                let due = all.filter(|it| single || round % LOOK_EVERY == 0 || self.is_away(*it));
                join_all(due.map(|partition| self.probe(partition))).await;
                round += 1;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
            }
        }
    }

    async fn probe(&self, partition: u16) {
        let began = Instant::now();
        let (full, not_full) = FULL;
        let used = match self.write_probe.memory_used(partition).await {
            Ok(used) => used,
            // What takes no writes is found out by who needs it.
            Err(error) => return self.redis_errors.count(&error),
        };
        let state = &self.partitions[usize::from(partition)];
        let health = if used >= full {
            PartitionHealth::ShortOfMemory
        } else if used < not_full || !state.short_of_memory.load(Ordering::Relaxed) {
            PartitionHealth::TakesWebhooks
        } else {
            return;
        };
        for partition in self.alike(partition) {
            self.switch(partition, began, health);
        }
    }
}
