//! How many webhooks of each account were answered 429 lately: counted by every ingress, read by operators. A
//! hash in Redis for each ten minutes, of the accounts with most of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::RedisResult;
use tokio_util::sync::CancellationToken;

use crate::keys::Keys;
use crate::redis::Connection;

const PERIOD_SECONDS: u64 = 600;
/// So many of them are an hour, with the one that isn't over yet.
const PERIODS: u64 = 7;
/// Accounts noted between two writes.
const MOST_NOTED: usize = 1000;
const WRITE_INTERVAL: Duration = Duration::from_secs(2);

/// What was noted and not written yet.
#[derive(Debug, Default)]
pub struct LimitedAccounts(Mutex<HashMap<String, u64>>);

impl LimitedAccounts {
    /// A webhook of an account was refused for its limit.
    pub fn note(&self, waba_id: &str) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = noted.get_mut(waba_id) {
            *count += 1;
        } else if noted.len() < MOST_NOTED {
            noted.insert(waba_id.to_owned(), 1);
        }
    }

    fn take(&self) -> HashMap<String, u64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes what was noted, until `stop`. What can't be written is lost: nothing hangs on it.
    pub async fn keep(&self, connection: Connection, keys: Keys, stop: CancellationToken) {
        let keeping = async {
            loop {
                tokio::time::sleep(WRITE_INTERVAL).await;
                if let Err(error) = write(self.take(), &connection, &keys).await {
                    tracing::debug!(%error, "redis command failed: refusals are not recorded");
                }
            }
        };
        stop.run_until_cancelled(keeping).await;
    }
}

async fn write(
    noted: HashMap<String, u64>,
    connection: &Connection,
    keys: &Keys,
) -> RedisResult<()> {
    if noted.is_empty() {
        return Ok(());
    }
    let key = keys.refused(period());
    let mut counts = redis::pipe();
    for (account, count) in noted {
        counts.hincr(&key, account, count).ignore();
    }
    let seconds = (PERIOD_SECONDS * (PERIODS + 1)) as i64;
    counts.expire(&key, seconds).ignore();
    counts.query_async(&mut connection.clone()).await
}

/// Of the ten minutes that it is now, counted since 1970.
fn period() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs() / PERIOD_SECONDS
}

/// Accounts with refused webhooks within the hour, and how many each has.
///
/// # Errors
/// A Redis command failed.
pub async fn of_last_hour(
    connection: &Connection,
    keys: &Keys,
) -> RedisResult<BTreeMap<String, u64>> {
    let now = period();
    let mut all = BTreeMap::new();
    for back in 0..PERIODS {
        let mut counts = redis::cmd("HGETALL");
        counts.arg(keys.refused(now.saturating_sub(back)));
        let counts: HashMap<String, u64> = counts.query_async(&mut connection.clone()).await?;
        for (account, count) in counts {
            *all.entry(account).or_default() += count;
        }
    }
    Ok(all)
}
