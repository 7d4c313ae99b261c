//! Makes a delivery durable: in the stream, or, if Redis can't take it, in the spool. The one place that
//! waits for Redis, and says for how long.
//!
//! - Before Redis has been seen for the first time a delivery waits for that, so that a restart of ingress
//!   alone sends nothing through the spool, which keeps no order.
//! - A failure that may pass within a moment is tried again. All of this together takes `REDIS_PATIENCE`.
//! - What is known to be away isn't asked: [`partitions`] says what is, and finds it well again.
//! - A delivery that the spool can't take either goes to Redis once more before it is refused.

pub(crate) mod partitions;

use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use shared::intake::{Delivery, Envelope, IntakeOutcome, IntakeRow, RateWindow};
use shared::keys::Keys;
use shared::redis::{FailureKind, class};
use tokio::sync::SetOnce;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::partitions::Partitions;
use crate::admission::{Admission, Overloaded};
use crate::intake::Intake;
use crate::metrics::RedisErrors;
use crate::spool::SpoolWriter;

/// Before a failing Redis is tried again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Share of a request's time that is left for Redis when the spool doesn't answer.
const LAST_ATTEMPT: u32 = 5;

/// Why a delivery was not stored.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    #[error("Redis has not been seen yet")]
    Unseen,
    #[error("redis command failed ({class}): {0}", class = class(.0))]
    Redis(RedisError),
    #[error("Redis can't take it, nor can the spool: {0}")]
    Nowhere(String),
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    #[error("the business account has sent its {} webhooks of this minute", .0.limit)]
    Limited(RateWindow),
}

/// Where deliveries are kept.
pub(crate) struct Keep {
    keys: Keys,
    /// Redis has been seen, and its partition count and settings were checked. Before that nothing is
    /// stored in it.
    seen: SetOnce<()>,
    spool: Option<SpoolWay>,
    patience: Duration,
    request_deadline: Duration,
    redis_errors: RedisErrors,
}

/// The way around Redis.
pub(crate) struct SpoolWay {
    pub(crate) writer: SpoolWriter,
    pub(crate) partitions: Partitions,
}

/// One delivery on its way.
pub(crate) struct Keeping<'a> {
    /// Its thread's way to Redis.
    pub(crate) intake: &'a Arc<Intake>,
    pub(crate) admission: &'a Admission,
    pub(crate) delivery: &'a Delivery,
    pub(crate) envelope: &'a Envelope,
    /// When its request is over.
    pub(crate) deadline: Instant,
}

impl Keep {
    pub(crate) fn new(
        keys: Keys,
        spool: Option<SpoolWay>,
        (patience, request_deadline): (Duration, Duration),
        redis_errors: RedisErrors,
    ) -> Self {
        Self {
            keys,
            seen: SetOnce::new(),
            spool,
            patience,
            request_deadline,
            redis_errors,
        }
    }

    /// Redis was seen and checked for the first time.
    pub(crate) fn begin(&self) {
        if let Some(spool) = &self.spool {
            spool.partitions.begin();
        }
        // A second time changes nothing.
        drop(self.seen.set(()));
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.seen.get().is_some()
    }

    /// `None`: what Redis can't take is refused.
    pub(crate) fn partitions(&self) -> Option<&Partitions> {
        self.spool.as_ref().map(|spool| &spool.partitions)
    }

    /// Stores a delivery.
    ///
    /// # Errors
    /// [`NotStored`]. It may be stored all the same, if an answer was lost; a retry of the sender settles
    /// it.
    pub(crate) async fn keep(&self, keeping: Keeping<'_>) -> Result<IntakeOutcome, NotStored> {
        let partition = self.keys.partition_of(&keeping.delivery.waba_id);
        let give_up = Instant::now() + self.patience;
        let Some(spool) = &self.spool else {
            let seen = timeout_at(give_up, self.seen.wait()).await;
            seen.map_err(|_| NotStored::Unseen)?;
            return self
                .stream(&keeping, partition, (give_up, keeping.deadline))
                .await;
        };
        if self.takes(&spool.partitions, partition, give_up).await {
            let began = Instant::now();
            match self.stream(&keeping, partition, (give_up, give_up)).await {
                Err(NotStored::Redis(error)) => spool.partitions.failed(partition, began, &error),
                settled => return settled,
            }
        }
        self.spool(spool, &keeping, partition).await
    }

    /// Whether a partition takes webhooks; waits until the first time that Redis is seen, or nobody waits
    /// for that any more.
    async fn takes(&self, partitions: &Partitions, partition: u16, give_up: Instant) -> bool {
        if !self.has_begun() && !partitions.unseen_for_long() {
            let seen = timeout_at(give_up, self.seen.wait()).await;
            if seen.is_err() {
                partitions.given_up_waiting(partition);
            }
        }
        partitions.takes(partition)
    }

    /// Puts a delivery into the stream, and tries again until `give_up` where that may help. An answer is
    /// waited for until `latest`.
    async fn stream(
        &self,
        keeping: &Keeping<'_>,
        partition: u16,
        (give_up, latest): (Instant, Instant),
    ) -> Result<IntakeOutcome, NotStored> {
        let _place = keeping.admission.queue(partition)?;
        let row = Arc::new(IntakeRow::new(keeping.delivery, keeping.envelope));
        let mut pause = FIRST_PAUSE;
        loop {
            let storing = keeping.intake.store(partition, row.clone());
            let stored = timeout_at(latest, storing).await;
            let error = match stored.unwrap_or_else(|_| Err(no_answer())) {
                Ok(stored) => return stored.map_err(NotStored::Limited),
                Err(error) => error,
            };
            self.redis_errors.count(&error);
            let next = Instant::now() + pause;
            if next >= give_up || !FailureKind::of(&error).passes() {
                return Err(NotStored::Redis(error));
            }
            sleep_until(next).await;
            pause *= 2;
        }
    }

    /// Puts a delivery into the spool, or, if that fails, into the stream after all.
    async fn spool(
        &self,
        spool: &SpoolWay,
        keeping: &Keeping<'_>,
        partition: u16,
    ) -> Result<IntakeOutcome, NotStored> {
        let until = keeping.deadline - self.request_deadline / LAST_ATTEMPT;
        let put = spool
            .writer
            .put(partition, keeping.delivery, keeping.envelope);
        let why = match timeout_at(until, put).await {
            Ok(Ok(())) => return Ok(IntakeOutcome::Spooled),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if !self.has_begun() {
            return Err(NotStored::Nowhere(why));
        }
        let last = (Instant::now(), keeping.deadline);
        match self.stream(keeping, partition, last).await {
            Err(NotStored::Redis(_)) => Err(NotStored::Nowhere(why)),
            settled => settled,
        }
    }
}

fn no_answer() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time").into()
}
