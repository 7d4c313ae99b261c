//! Which partitions take webhooks: while there is a spool, what is away isn't asked by each webhook. A
//! probe finds it well again. In good times a webhook pays one atomic load for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use prometheus_client::metrics::gauge::Gauge;
use redis::RedisError;
use shared::keys::Keys;
use shared::redis::{FailureKind, Redis, class};
use shared::write_probe::WriteProbe;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::RedisErrors;

/// How often a partition that is away is probed.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// In a cluster every partition is asked how full its node is, so less often: each is a write.
const LOOK_EVERY: u32 = 10;
/// Share of Redis' memory from which on nothing more goes there, so that workers, which need some for
/// their work, can empty it; and the share below which it takes webhooks again.
const FULL: (f64, f64) = (0.90, 0.85);

/// What is known of the partitions.
pub(crate) struct Partitions {
    keys: Keys,
    redis: Redis,
    write_probe: WriteProbe,
    partitions: Vec<PartitionState>,
    /// How many of them are away.
    away: Gauge,
    redis_errors: RedisErrors,
    /// A webhook has waited for the first sight of Redis in vain.
    unseen_for_long: AtomicBool,
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

impl Partitions {
    /// All are taken for away until they are seen.
    pub(crate) fn new(
        (keys, redis): (Keys, Redis),
        write_probe: WriteProbe,
        away: Gauge,
        redis_errors: RedisErrors,
    ) -> Self {
        away.set(i64::from(keys.partitions()));
        let partition = |_| PartitionState {
            away: AtomicBool::new(true),
            short_of_memory: AtomicBool::new(false),
            since: Mutex::new(Instant::now()),
        };
        Self {
            partitions: (0..keys.partitions()).map(partition).collect(),
            unseen_for_long: AtomicBool::new(false),
            outage_logged: AtomicBool::new(false),
            keys,
            redis,
            write_probe,
            away,
            redis_errors,
        }
    }

    /// Redis was seen for the first time.
    pub(super) fn begin(&self) {
        for partition in 0..self.keys.partitions() {
            self.switch(partition, Instant::now(), PartitionHealth::TakesWebhooks);
        }
    }

    /// Whether the first sight of Redis isn't waited for any more.
    pub(super) fn unseen_for_long(&self) -> bool {
        self.unseen_for_long.load(Ordering::Relaxed)
    }

    /// A webhook has waited for the first sight of Redis for its patience.
    pub(super) fn given_up_waiting(&self, partition: u16) {
        self.unseen_for_long.store(true, Ordering::Relaxed);
        self.log_outage(partition, "unseen", "Redis has not been seen yet");
    }

    pub(super) fn takes(&self, partition: u16) -> bool {
        !self.is_away(partition)
    }

    fn is_away(&self, partition: u16) -> bool {
        self.partitions[usize::from(partition)]
            .away
            .load(Ordering::Relaxed)
    }

    /// A delivery that began at `began` found Redis unable to take it.
    pub(super) fn failed(&self, partition: u16, began: Instant, error: &RedisError) {
        let why = error.to_string();
        let health = match FailureKind::of(error) {
            FailureKind::NoAnswer | FailureKind::Recovering | FailureKind::ReadOnly => {
                let (class, why) = (class(error), &*why);
                PartitionHealth::Failing { class, why }
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

    /// Probes what is away, and looks how full Redis is, until `shutdown`; nothing before `begun` says so.
    pub(crate) async fn watch(&self, begun: impl Fn() -> bool, shutdown: CancellationToken) {
        let mut round = 0;
        while !shutdown.is_cancelled() {
            if begun() {
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
