//! A thread's writes into the streams. While a call of a partition is on its way, the deliveries that come
//! for it gather, and go together in the next one: what a call costs Redis is paid once for all of them. At
//! low load a delivery goes at once; there is no timer.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use redis::{ErrorKind, RedisError, RedisResult};
use shared::intake::{IntakeRow, IntakeScript, RowOutcome, Terms};
use shared::keys::Keys;
use shared::redis::Connection;
use tokio::sync::oneshot;

/// Most of one call: it holds up everybody else's.
const MOST_ROWS: usize = 32;
const MOST_BYTES: usize = 256 * 1024;

/// Webhooks per minute of an account; a tenant's own limit takes its place.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// 0: no limit.
    pub per_minute: u32,
    /// Refuse what is beyond; else only tell.
    pub refuse: bool,
}

/// A thread's way into the streams.
pub(crate) struct Intake {
    script: IntakeScript,
    redis: Connection,
    dedup_ttl: Duration,
    limit: Limit,
    short_of_memory: Arc<AtomicBool>,
    /// By partition.
    gathering: Vec<Mutex<Gathering>>,
}

/// The deliveries of a partition.
#[derive(Default)]
struct Gathering {
    /// A task makes calls, and ends when nothing waits.
    under_way: bool,
    waiting: VecDeque<GatheredRow>,
}

/// A delivery that waits for its answer.
struct GatheredRow {
    row: Arc<IntakeRow>,
    answer: oneshot::Sender<RedisResult<RowOutcome>>,
}

impl Intake {
    /// `redis` is the thread's own. While `short_of_memory`, items are remembered for an hour only.
    pub(crate) fn new(
        keys: Keys,
        redis: Connection,
        (dedup_ttl, limit): (Duration, Limit),
        short_of_memory: Arc<AtomicBool>,
    ) -> Self {
        let gathering = (0..keys.partitions()).map(|_| Mutex::default());
        Self {
            gathering: gathering.collect(),
            script: IntakeScript::new(keys),
            redis,
            dedup_ttl,
            limit,
            short_of_memory,
        }
    }

    /// Writes what is fresh of a delivery into its account's partition; `Err` within if it is beyond its
    /// account's limit.
    ///
    /// # Errors
    /// What Redis says. It may be stored or not then.
    pub(crate) async fn store(
        self: &Arc<Self>,
        partition: u16,
        row: Arc<IntakeRow>,
    ) -> RedisResult<RowOutcome> {
        let (answer, answered) = oneshot::channel();
        let begins = {
            let mut gathering = self.gathering(partition);
            gathering.waiting.push_back(GatheredRow { row, answer });
            !std::mem::replace(&mut gathering.under_way, true)
        };
        if begins {
            tokio::spawn(self.clone().make_calls(partition));
        }
        let unanswered = |_| Err((ErrorKind::Client, "the call panicked").into());
        answered.await.unwrap_or_else(unanswered)
    }

    fn gathering(&self, partition: u16) -> MutexGuard<'_, Gathering> {
        let gathering = self.gathering[usize::from(partition)].lock();
        gathering.unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes calls until nothing waits. Not a part of any delivery's own future: one whose sender hangs up
    /// must not take the others along.
    async fn make_calls(self: Arc<Self>, partition: u16) {
        while let Some(rows) = self.next_call(partition) {
            let call = AssertUnwindSafe(self.call(partition, rows));
            if call.catch_unwind().await.is_err() {
                tracing::error!("a call of Redis panicked");
            }
        }
    }

    /// What goes in the next call; `None`: nobody waits, and whoever comes begins anew.
    fn next_call(&self, partition: u16) -> Option<Vec<GatheredRow>> {
        let mut gathering = self.gathering(partition);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < MOST_ROWS
            && let Some(next) = gathering.waiting.front()
        {
            bytes += next.row.size_bytes();
            if bytes > MOST_BYTES && !rows.is_empty() {
                break;
            }
            // Nobody waits for the answers of some.
            let next = gathering.waiting.pop_front();
            rows.extend(next.filter(|next| !next.answer.is_closed()));
        }
        gathering.under_way = !rows.is_empty();
        (!rows.is_empty()).then_some(rows)
    }

    async fn call(&self, partition: u16, gathered: Vec<GatheredRow>) {
        let rows: Vec<&IntakeRow> = gathered.iter().map(|it| &*it.row).collect();
        let outcomes: Vec<RedisResult<RowOutcome>> = match self.run(partition, &rows).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            // It may be the fault of one, which must not be the others'. What was stored before it is a
            // duplicate now.
            Err(error) if rows.len() > 1 && error.code().is_some() => {
                let alone = rows.iter().map(|row| self.run_alone(partition, row));
                join_all(alone).await
            }
            Err(error) => vec![Err(error); rows.len()],
        };
        for (gathered, outcome) in gathered.into_iter().zip(outcomes) {
            // Some have hung up meanwhile.
            drop(gathered.answer.send(outcome));
        }
    }

    async fn run_alone(&self, partition: u16, row: &IntakeRow) -> RedisResult<RowOutcome> {
        let outcomes = self.run(partition, &[row]).await?;
        let none = || RedisError::from((ErrorKind::UnexpectedReturnType, "no answer"));
        outcomes.into_iter().next().ok_or_else(none)
    }

    async fn run(&self, partition: u16, rows: &[&IntakeRow]) -> RedisResult<Vec<RowOutcome>> {
        let terms = Terms {
            dedup_ttl: self.dedup_ttl,
            per_minute: self.limit.per_minute,
            refuse: self.limit.refuse,
            short_of_memory: self.short_of_memory.load(Ordering::Relaxed),
        };
        let mut redis = self.redis.clone();
        self.script.run(&mut redis, partition, rows, terms).await
    }
}
