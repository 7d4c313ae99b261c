//! The one write of a webhook into the stream, and the retries around it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::RedisError;
use shared::intake::{Delivery, Envelope, IntakeOutcome, IntakeScript, RateWindow, Terms, outcome};
use shared::keys::Keys;
use shared::redis::{Connection, FailureKind, class};
use shared::webhook::NO_WABA;

use crate::metrics::RedisErrors;
use crate::queue::Queue;

/// Why a delivery was not stored.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    #[error("redis command failed ({class}): {0}", class = class(.0))]
    Redis(RedisError),
    #[error("Redis can't take it, nor can the spool: {0}")]
    Nowhere(String),
    #[error("too many webhooks wait to be stored")]
    Busy,
    #[error("the business account has sent its {} webhooks of this minute", .0.limit)]
    Limited(RateWindow),
}

/// Webhooks per minute of an account; a tenant's own limit takes its place.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// 0: no limit.
    pub per_minute: u32,
    /// Refuse what is beyond; else only tell.
    pub refuse: bool,
}

/// Writes deliveries into the stream.
pub struct Intake {
    script: IntakeScript,
    dedup_ttl: Duration,
    limit: Limit,
    patience: Duration,
    short_of_memory: AtomicBool,
    redis_errors: RedisErrors,
    /// By partition.
    queues: Vec<Queue>,
}

impl Intake {
    pub fn new(
        keys: Keys,
        dedup_ttl: Duration,
        limit: Limit,
        patience: Duration,
        redis_errors: RedisErrors,
    ) -> Self {
        Self {
            queues: (0..keys.partitions()).map(|_| Queue::default()).collect(),
            script: IntakeScript::new(keys),
            dedup_ttl,
            limit,
            patience,
            redis_errors,
            short_of_memory: AtomicBool::new(false),
        }
    }

    /// While Redis is short of memory, items are remembered for an hour only.
    pub fn set_short_of_memory(&self, short: bool) {
        self.short_of_memory.store(short, Ordering::Relaxed);
    }

    /// Writes what is fresh of a delivery into its account's partition, trying again for the patience
    /// where that may help. `redis` is the caller's thread's own.
    ///
    /// # Errors
    /// [`NotStored`]. After one of Redis it may be stored or not; a retry of the sender settles it.
    pub async fn store(
        &self,
        redis: &Connection,
        partition: u16,
        delivery: &Delivery,
        envelope: &Envelope,
    ) -> Result<IntakeOutcome, NotStored> {
        let _place = self.queues[usize::from(partition)]
            .join()
            .ok_or(NotStored::Busy)?;
        let give_up = tokio::time::Instant::now() + self.patience;
        let mut pause = Duration::from_millis(20);
        let call = self
            .script
            .call(partition, delivery, envelope, self.terms(delivery));
        loop {
            let error = match call.run(&mut redis.clone()).await {
                Ok(reply) => return outcome(reply).map_err(NotStored::Limited),
                Err(error) => error,
            };
            self.redis_errors.count(&error);
            let next = tokio::time::Instant::now() + pause;
            if next >= give_up || !FailureKind::of(&error).passes() {
                return Err(NotStored::Redis(error));
            }
            tokio::time::sleep_until(next).await;
            pause *= 2;
        }
    }

    fn terms(&self, delivery: &Delivery) -> Terms {
        Terms {
            dedup_ttl: self.dedup_ttl,
            // What names no account has no limit in common either.
            per_minute: match delivery.waba_id.as_str() {
                NO_WABA => 0,
                _ => self.limit.per_minute,
            },
            refuse: self.limit.refuse,
            short_of_memory: self.short_of_memory.load(Ordering::Relaxed),
        }
    }
}
