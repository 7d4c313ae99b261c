//! Which numbers had traffic in which hours of the last week, so that silence is noticed: one hash in
//! Redis with some 200 bytes a number, written by all workers.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use redis::RedisResult;
use shared::keys::Keys;
use shared::redis::Connection;
use shared::script::Script;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::item::payload::Payload;
use crate::metrics::Metrics;

const HOUR_MS: i64 = 3_600_000;
/// A week, and the hours that are compared with it.
const REMEMBERED_HOURS: u64 = 172;
/// Then a number is forgotten.
const FORGOTTEN_HOURS: u64 = 8 * 24;
/// Numbers that are remembered, and those noted between two writes.
const MOST_NUMBERS: usize = 10_000;
const WRITE_INTERVAL: Duration = Duration::from_secs(5);
/// Writes between two looks for silence.
const LOOK_EVERY: u32 = 12;
/// The last whole hours, all without traffic, of which each usually has some.
const SILENT_HOURS: u64 = 2;

/// What was noted and not written yet.
#[derive(Default)]
pub struct Traffic(Mutex<BTreeSet<String>>);

impl Traffic {
    /// Notes the numbers of what has just come in. What waited for an hour, or is replayed, is no sign
    /// of life.
    pub fn note(&self, payload: &Payload) {
        if now_ms() - payload.entry.received_at_ms > HOUR_MS {
            return;
        }
        let account = &payload.entry.waba_id;
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for number in payload.phone_number_ids().filter(|id| is_id(id)) {
            if is_id(account) && noted.len() < MOST_NUMBERS {
                noted.insert(format!("{account}:{number}"));
            }
        }
    }

    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn is_id(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The time, in ms since 1970.
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as i64)
}

/// This hour, counted since 1970.
pub fn this_hour() -> u64 {
    (now_ms() / HOUR_MS).unsigned_abs()
}

/// The hours of a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    last: u64,
    /// `1`: with traffic; from the last hour backwards.
    hours: String,
}

impl Hours {
    fn read(text: &str) -> Option<Self> {
        let (last, hours) = text.split_once(':')?;
        Some(Self {
            last: last.parse().ok()?,
            hours: hours.to_owned(),
        })
    }

    fn had(&self, hour: u64) -> bool {
        let back = self
            .last
            .checked_sub(hour)
            .and_then(|n| usize::try_from(n).ok());
        back.and_then(|back| self.hours.as_bytes().get(back)) == Some(&b'1')
    }

    /// How many hours ago its last traffic was.
    pub fn quiet(&self, now: u64) -> u64 {
        now.saturating_sub(self.last)
    }

    /// How many hours ago its last traffic was, if it is silent: nothing in this hour and in the last
    /// two, and in each of these two there was some both the day and the week before.
    pub fn silent(&self, now: u64) -> Option<u64> {
        let mut hours = (1..=SILENT_HOURS).map(|back| now.saturating_sub(back));
        let usually = |hour: u64| {
            let before = |hours| hour.checked_sub(hours).is_some_and(|hour| self.had(hour));
            before(24) && before(7 * 24)
        };
        let quiet = self.quiet(now);
        (quiet > SILENT_HOURS && hours.all(usually)).then_some(quiet)
    }
}

/// The hours of all numbers, by account and number.
///
/// # Errors
/// A Redis command failed.
pub async fn read(
    connection: &Connection,
    keys: &Keys,
) -> RedisResult<Vec<(String, String, Hours)>> {
    let mut all = redis::cmd("HGETALL");
    all.arg(keys.traffic());
    let all: HashMap<String, String> = all.query_async(&mut connection.clone()).await?;
    let read = all.into_iter().filter_map(|(field, hours)| {
        let (account, number) = field.split_once(':')?;
        Some((account.to_owned(), number.to_owned(), Hours::read(&hours)?))
    });
    let mut numbers: Vec<_> = read.collect();
    numbers.sort_by(|(a, b, _), (c, d, _)| (a, b).cmp(&(c, d)));
    Ok(numbers)
}

/// Forgets numbers.
///
/// # Errors
/// A Redis command failed.
pub async fn forget(
    connection: &Connection,
    keys: &Keys,
    numbers: &[(String, String)],
) -> RedisResult<()> {
    if numbers.is_empty() {
        return Ok(());
    }
    let mut del = redis::cmd("HDEL");
    del.arg(keys.traffic());
    for (account, number) in numbers {
        del.arg(format!("{account}:{number}"));
    }
    del.query_async(&mut connection.clone()).await
}

/// Writes what was noted, and counts the silent numbers, until `stop`. What can't be written is lost:
/// a number with traffic is noted again.
pub async fn keep(
    traffic: std::sync::Arc<Traffic>,
    connection: Connection,
    keys: Keys,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let keeping = async {
        let script = Script::new(include_str!("../lua/traffic.lua"));
        let mut ticks = interval(WRITE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 0_u32.. {
            ticks.tick().await;
            let noted = traffic.take();
            if !noted.is_empty() {
                let call = script.call([keys.traffic()]);
                let call = call.arg(this_hour()).arg(MOST_NUMBERS);
                let call = call.arg(REMEMBERED_HOURS);
                let call = noted
                    .into_iter()
                    .fold(call, shared::script::ScriptCall::arg);
                let written: RedisResult<()> = call.run(&mut connection.clone()).await;
                if let Err(error) = written {
                    tracing::debug!(%error, "redis command failed: traffic is not recorded");
                }
            }
            if n.is_multiple_of(LOOK_EVERY)
                && let Err(error) = count(&connection, &keys, &metrics).await
            {
                tracing::debug!(%error, "redis command failed: silent numbers are not looked for");
            }
        }
    };
    stop.run_until_cancelled(keeping).await;
}

async fn count(connection: &Connection, keys: &Keys, metrics: &Metrics) -> RedisResult<()> {
    let (now, numbers) = (this_hour(), read(connection, keys).await?);
    let silent = numbers.iter().filter_map(|(.., hours)| hours.silent(now));
    metrics.silent_numbers.set(silent.count() as i64);
    let gone = numbers.into_iter().filter_map(|(account, number, hours)| {
        (now.saturating_sub(hours.last) > FORGOTTEN_HOURS).then_some((account, number))
    });
    forget(connection, keys, &gone.collect::<Vec<_>>()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_traffic_at_this_time_yesterday_and_a_week_ago_is_missed() {
        let now = 500_000;
        let of = |last: u64, hours: &str| Hours::read(&format!("{last}:{hours}")).expect("hours");
        let week = "1".repeat(172);
        assert_eq!(of(now - 3, &week).silent(now), Some(3));
        assert_eq!(of(now - 2, &week).silent(now), None);
        assert_eq!(of(now, &week).silent(now), None);
        // By day only: nobody is missed at night.
        let by_day: String = (0..172)
            .map(|n| if n % 24 < 12 { '1' } else { '0' })
            .collect();
        assert_eq!(of(now - 8, &by_day).silent(now), None);
        assert_eq!(of(now - 20, &by_day).silent(now), Some(20));
        // Nobody knows yet what is usual.
        assert_eq!(of(now - 3, "1111").silent(now), None);
        assert_eq!(Hours::read("nonsense"), None);
    }
}
