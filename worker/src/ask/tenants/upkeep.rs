//! What nobody waits for: hearing of changes, keeping what is used from running out, and looking up
//! the accounts that had no tenant.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use shared::redis::Redis;
use shared::secrets::Rotating;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::redis::RedisCache;
use super::{Directory, Freshness, REFRESHED_PART, TenantSource, Tenants};
use crate::ask::neighbour::Trace;
use crate::retry::Backoff;

/// Accounts loaded at the start.
const MOST_WARMED: usize = 1000;
/// Accounts looked up side by side.
const AT_ONCE: usize = 8;
/// The connection that hears of changes is asked for an answer this often, and for this long: it is
/// known to be deaf within 15 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_PATIENCE: Duration = Duration::from_secs(5);
const NOTE_INTERVAL: Duration = Duration::from_secs(5);
/// A changed file is noticed this soon.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
/// Its limits are compared with those in Redis this often even if it has not changed.
const LIMITS_INTERVAL: Duration = Duration::from_secs(60);

/// Listens for accounts that changed, until `stop`.
pub async fn hear_changes(tenants: Arc<Tenants>, redis: Redis, stop: CancellationToken) {
    let listening = async {
        let mut backoff = Backoff::for_server();
        loop {
            let began = Instant::now();
            let version = redis.version();
            match redis.listen(&tenants.in_redis.changes()).await {
                Ok(channel) => {
                    // What was said while nobody listened shows in Redis, where it is gone.
                    tenants.doubt_all();
                    let same_redis = || redis.version() == version;
                    let why = tenants.hear(channel, same_redis).await;
                    tracing::info!(why, "changes of accounts are listened for anew");
                }
                Err(error) => tracing::debug!(%error, "changes of accounts can't be heard"),
            }
            if began.elapsed() > Duration::from_secs(10) {
                backoff.reset();
            }
            backoff.wait().await;
        }
    };
    stop.run_until_cancelled(listening).await;
}

impl Tenants {
    /// Hears of changes; why it ended. A connection can be gone without a sign of it, and then nothing is
    /// heard any more: so it is asked for an answer now and then.
    async fn hear(
        &self,
        channel: ::redis::aio::PubSub,
        same_redis: impl Fn() -> bool,
    ) -> &'static str {
        let (mut asks, mut changes) = channel.split();
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = changes.next() => {
                    let Some(change) = change else {
                        return "the connection ended";
                    };
                    if let Ok(waba_id) = change.get_payload::<String>() {
                        tracing::info!(waba_id, "an account has changed");
                        self.forget(&waba_id);
                    }
                }
                _ = pings.tick() => {
                    // What is heard meanwhile waits.
                    match timeout(PING_PATIENCE, asks.ping::<::redis::Value>()).await {
                        Ok(Ok(_)) if same_redis() => {}
                        Ok(Ok(_)) => return "Redis has another address",
                        Ok(Err(_)) => return "a ping failed",
                        Err(_) => return "a ping got no answer",
                    }
                }
            }
        }
    }
}

/// Loads the accounts seen last, and refreshes what is used before it runs out, until `stop`. Of a
/// file, lets ingress know the limits.
pub async fn keep_warm(tenants: Arc<Tenants>, stop: CancellationToken) {
    if let TenantSource::File(file) = &tenants.source {
        stop.run_until_cancelled(tell_limits(&tenants, file)).await;
        return;
    }
    let warming = async {
        let seen = tenants.in_redis.seen(MOST_WARMED).await;
        tenants.look_up_all(seen, Freshness::Fresh).await;
        let soon = tenants.ttl / REFRESHED_PART;
        let mut ticks = interval((soon / 4).clamp(Duration::from_millis(100), NOTE_INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut noted = Instant::now();
        loop {
            ticks.tick().await;
            tenants.write_unwritten_limits().await;
            let ending = tenants.memory.ending(Instant::now(), soon, tenants.ttl);
            tenants.look_up_all(ending, Freshness::Fresher).await;
            if noted.elapsed() >= NOTE_INTERVAL {
                let since = std::mem::replace(&mut noted, Instant::now());
                tenants
                    .in_redis
                    .saw(&tenants.memory.used_since(since))
                    .await;
            }
        }
    };
    stop.run_until_cancelled(warming).await;
}

/// Makes the limits that ingress knows those of the file, whenever that has changed, and now and then:
/// an account that was taken out, perhaps while no worker ran, has none any more.
async fn tell_limits(tenants: &Tenants, file: &Rotating<Directory>) {
    let mut ticks = interval(FILE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written = None;
    loop {
        ticks.tick().await;
        let version = file.version();
        let due = written.is_none_or(|(of, at): (u64, Instant)| {
            of != version || at.elapsed() >= LIMITS_INTERVAL
        });
        if !due {
            continue;
        }
        let limits: Vec<(String, u32)> = file
            .current()
            .limits()
            .filter_map(|(waba_id, limit)| Some((waba_id.to_owned(), limit?)))
            .collect();
        if tenants.in_redis.keep_limits(&limits).await {
            written = Some((version, Instant::now()));
        }
    }
}

impl Tenants {
    async fn write_unwritten_limits(&self) {
        let unwritten: Vec<_> = self.unwritten_limits().clone().into_iter().collect();
        for (waba_id, limit) in unwritten {
            if !self.keep_limit(&waba_id, limit).await {
                // A Redis command failed: so would the next ones.
                return;
            }
        }
    }

    async fn look_up_all(self: &Arc<Self>, waba_ids: Vec<String>, freshness: Freshness) {
        stream::iter(waba_ids)
            .for_each_concurrent(AT_ONCE, async |waba_id| {
                // What fails stays as it is, and is tried again with the next tick.
                drop(self.look_up(&waba_id, freshness, Trace::default()).await);
            })
            .await;
    }
}

/// A worker's turn to look up the accounts without a tenant: one's for all. It saves work; two who both
/// believe that it is theirs put nothing back twice.
pub struct LookupTurn {
    in_redis: RedisCache,
    token: String,
    began: Instant,
    lasts: Duration,
}

impl LookupTurn {
    /// Works for as long as the turn is kept. The next one begins an interval after this one did, or when
    /// the work is done if that takes longer.
    pub async fn work(self, work: impl Future<Output = ()>) {
        tokio::select! {
            () = work => self.end().await,
            () = self.lost() => {
                tracing::info!("another worker looks up the accounts without a tenant");
            }
        }
    }

    /// Keeps the turn; returns when it is another's, or may be.
    async fn lost(&self) {
        let mut good_until = self.began + self.lasts;
        loop {
            sleep(self.lasts / 3).await;
            let asked = Instant::now();
            let keeping = self.in_redis.keep_turn(&self.token, self.lasts);
            match timeout(self.lasts / 3, keeping).await {
                Ok(Ok(true)) => good_until = asked + self.lasts,
                Ok(Ok(false)) => return,
                Ok(Err(_)) | Err(_) if Instant::now() >= good_until => return,
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    async fn end(&self) {
        let rest = self.lasts.saturating_sub(self.began.elapsed());
        if let Err(error) = self.in_redis.keep_turn(&self.token, rest).await {
            tracing::debug!(%error, "the turn ends by itself");
        }
    }
}

impl Tenants {
    /// This worker's turn to look up the accounts without a tenant, if nobody has it in this `interval`.
    pub async fn take_turn(&self, interval: Duration) -> Option<LookupTurn> {
        let turn = LookupTurn {
            in_redis: self.in_redis.clone(),
            token: Uuid::new_v4().to_string(),
            began: Instant::now(),
            // A little shorter than the interval, so that the next one isn't missed.
            lasts: interval * 9 / 10,
        };
        let taken = self.in_redis.take_turn(&turn.token, turn.lasts).await;
        taken.then_some(turn)
    }

    /// Accounts without a tenant, and how often something of each was set aside.
    pub async fn unknown(&self) -> Vec<(String, u64)> {
        self.in_redis.unknown().await
    }

    /// How often something of an account was set aside for want of a tenant; `None`: never.
    pub async fn times_unknown(&self, waba_id: &str) -> Option<u64> {
        self.in_redis.times_unknown(waba_id).await
    }

    /// Takes an account off the list, unless something of it was set aside since it was counted.
    pub async fn no_longer_unknown(&self, waba_id: &str, times: u64) {
        self.in_redis.no_longer_unknown(waba_id, times).await;
    }

    /// All workers forget what they remember of an account.
    pub async fn tell_changed(&self, waba_id: &str) {
        if let Err(error) = self.in_redis.tell(waba_id).await {
            tracing::debug!(%error, "workers hear later of a new tenant");
        }
    }
}
