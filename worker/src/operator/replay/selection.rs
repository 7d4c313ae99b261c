//! What is replayed: which objects, by their key and by what they hold.

use std::time::Duration;

use anyhow::{bail, ensure};
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use shared::webhook;
use strum::IntoEnumIterator;

use crate::out::error::Reason;
use crate::out::store::{self, Bucket, Store, StoreResult, StoredObject};
use crate::owed::readmit;

/// A longer range is a slip of the pen.
const LONGEST_RANGE: TimeDelta = TimeDelta::days(400);
const FASTEST: u32 = 10_000;

#[derive(Args, Debug, Clone)]
pub struct ReplayArgs {
    /// What was set aside, or the raw archive
    #[arg(long, value_enum, default_value_t = ReplaySource::Failed)]
    pub source: ReplaySource,
    /// Came at this time or later: 2026-11-25T08:00:00Z, 2026-11-25 (0:00 UTC), or 2h (two hours ago)
    #[arg(long, value_name = "T", value_parser = Moment::parse)]
    pub from: Option<Moment>,
    /// Came before this time [default: now]
    #[arg(long, value_name = "T", value_parser = Moment::parse)]
    pub to: Option<Moment>,
    /// Of this tenant only
    #[arg(long, value_name = "ID", value_parser = tenant)]
    pub tenant: Option<String>,
    /// Payloads with this message
    #[arg(long, value_name = "ID", value_parser = message_id)]
    pub message_id: Option<String>,
    /// Set aside for this reason only
    #[arg(long, value_name = "R", value_parser = reason)]
    pub reason: Option<String>,
    /// Payloads a second at most
    #[arg(long, value_name = "N/s", default_value = "100/s", value_parser = rate)]
    pub rate: u32,
    /// Only count, by reason and tenant
    #[arg(long)]
    pub dry_run: bool,
    /// JSON, one object a line
    #[arg(long)]
    pub json: bool,
    /// End a replay that was stopped: what it hasn't put back stays where it is
    #[arg(long)]
    pub abandon: bool,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplaySource {
    Failed,
    Archive,
}

impl ReplaySource {
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Archive => "archive",
        }
    }
}

/// A time as it was typed, and what it meant then.
#[derive(Debug, Clone)]
pub struct Moment {
    typed: String,
    at: DateTime<Utc>,
}

impl Moment {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let at = moment(text, Utc::now()).ok_or(
            "write it like 2026-11-25T08:00:00Z, 2026-11-25 (0:00 UTC) or 2h (two hours ago)",
        )?;
        let typed = text.to_owned();
        Ok(Self { typed, at })
    }
}

fn moment(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.to_utc());
    }
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(day.and_time(NaiveTime::MIN).and_utc());
    }
    let ago: Duration = shared::config::any_duration(text).ok()?;
    now.checked_sub_signed(TimeDelta::from_std(ago).ok()?)
}

fn tenant(text: &str) -> Result<String, &'static str> {
    let taken = store::is_reserved(text) || matches!(text, ".." | "." | store::UNRESOLVED);
    if text.is_empty() || taken || text.contains(['/', '\\']) || text.chars().any(char::is_control)
    {
        return Err("is no tenant's id (it names one folder of the store, no path)");
    }
    Ok(text.to_owned())
}

fn message_id(text: &str) -> Result<String, &'static str> {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    if text.is_empty() || text.len() > 1024 || text.contains("..") || text.contains(odd) {
        return Err("is no message's id; it looks like wamid.HBgL…");
    }
    Ok(text.to_owned())
}

fn reason(text: &str) -> Result<String, String> {
    if text.parse::<Reason>().is_ok() {
        return Ok(text.to_owned());
    }
    let names: Vec<_> = Reason::iter().map(Reason::name).collect();
    Err(format!("is one of {}", names.join(", ")))
}

fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim().parse().ok();
    let number = number.filter(|number| (1..=FASTEST).contains(number));
    number.ok_or_else(|| format!("write it like 100/s; from 1/s to {FASTEST}/s"))
}

/// Which objects a replay is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Selection {
    pub source: ReplaySource,
    from_ms: Option<i64>,
    to_ms: i64,
    tenant: Option<String>,
    message_id: Option<String>,
    reason: Option<String>,
    /// As it was typed; two callers who typed the same mean the same.
    pub typed: String,
}

impl Selection {
    /// # Errors
    /// What doesn't go together, and what to do about it.
    pub(super) fn of(args: &ReplayArgs) -> anyhow::Result<Self> {
        let now = Utc::now();
        let from = args.from.as_ref().map(|from| from.at);
        let to = args.to.as_ref().map_or(now, |to| to.at);
        if let Some(from) = from {
            ensure!(from < now, "--from lies ahead");
            ensure!(from < to, "--from must lie before --to");
            ensure!(
                to - from <= LONGEST_RANGE,
                "from --from to --to are more than {} days: name a shorter range, or, of the failed \
                 store, leave out --from to replay all of it",
                LONGEST_RANGE.num_days()
            );
        }
        match args.source {
            ReplaySource::Archive if args.reason.is_some() => {
                bail!("--reason is for --source failed: nothing in the archive has failed")
            }
            ReplaySource::Archive => ensure!(
                from.is_some(),
                "--source archive needs --from: without it, everything that ever came would go out again"
            ),
            ReplaySource::Failed => {}
        }
        let moment = |moment: &Option<Moment>| moment.as_ref().map(|it| it.typed.clone());
        let words = [
            ("--from", moment(&args.from)),
            ("--to", moment(&args.to)),
            ("--tenant", args.tenant.clone()),
            ("--message-id", args.message_id.clone()),
            ("--reason", args.reason.clone()),
        ];
        let words = words
            .into_iter()
            .filter_map(|(flag, value)| Some(format!(" {flag} {}", value?)));
        let typed = format!(
            "--source {}{}",
            args.source.name(),
            words.collect::<String>()
        );
        Ok(Self {
            source: args.source,
            from_ms: from.map(|from| from.timestamp_millis()),
            to_ms: to.timestamp_millis(),
            tenant: args.tenant.clone(),
            message_id: args.message_id.clone(),
            reason: args.reason.clone(),
            typed,
        })
    }

    /// Folders of which the keys, one folder after the other, ascend.
    ///
    /// # Errors
    /// The store is away.
    pub(super) async fn folders(&self, store: &Store) -> StoreResult<Vec<String>> {
        let tenant = self.tenant.as_deref().map(store::segment);
        if self.source == ReplaySource::Failed {
            return Ok(vec![format!(
                "{}{}",
                store::FAILED,
                tenant.unwrap_or_default()
            )]);
        }
        let mut tenants = match tenant {
            Some(tenant) => vec![tenant],
            None => store.folders_in(Bucket::Webhooks, "").await?,
        };
        tenants.retain(|tenant| !store::is_reserved(tenant));
        tenants.sort_unstable_by_key(|tenant| format!("{tenant}/"));
        let days: Vec<_> = self.days().collect();
        let folders = tenants.iter().flat_map(|tenant| {
            let unresolved = tenant == store::UNRESOLVED;
            // Accounts without a tenant have a folder each.
            let days = if unresolved { &[] } else { &*days };
            let days = days.iter().map(move |day| format!("{tenant}/{day}"));
            days.chain(unresolved.then(|| tenant.clone()))
        });
        Ok(folders.collect())
    }

    fn days(&self) -> impl Iterator<Item = NaiveDate> {
        let day = |ms| DateTime::from_timestamp_millis(ms).map(|at| at.date_naive());
        let (first, last) = (self.from_ms.and_then(day), day(self.to_ms));
        let days = first.into_iter().flat_map(|first| first.iter_days());
        days.take_while(move |day| last.is_some_and(|last| *day <= last))
    }

    /// Whether an object of this key may be meant. What failed in the same replay isn't.
    pub(super) fn may_be(&self, key: &str, replay_id: &str) -> bool {
        let in_time = readmit::received_at_of(key)
            .is_none_or(|at| self.from_ms.is_none_or(|from| at >= from) && at < self.to_ms);
        let of_this = !replay_id.is_empty() && key.contains(&format!(".{replay_id}."));
        in_time && !of_this
    }

    /// Whether it takes what an object says of itself to know that it is meant.
    pub(super) fn asks_for_reason(&self) -> bool {
        self.reason.is_some()
    }

    /// Whether it takes an object's bytes to know that it is meant.
    pub(super) fn asks_for_body(&self) -> bool {
        self.message_id.is_some()
    }

    pub(super) fn is_of_reason(&self, reason: &str) -> bool {
        self.reason.as_ref().is_none_or(|wanted| wanted == reason)
    }

    /// Whether an object is meant.
    pub(super) fn is(&self, key: &str, kept: &StoredObject) -> bool {
        self.is_of_reason(kept.of("reason"))
            && self
                .message_id
                .as_ref()
                .is_none_or(|id| has_message(key, &kept.body, id))
    }
}

fn has_message(key: &str, body: &[u8], message_id: &str) -> bool {
    match webhook::read(body) {
        Ok(webhook) => {
            let mut items = webhook.entries.iter().flat_map(|entry| &entry.items);
            items.any(|item| item.id.as_deref() == Some(message_id))
        }
        Err(_) => key.contains(&store::segment(message_id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_a_day_or_a_while_ago() {
        let now = DateTime::from_timestamp(1_764_000_000, 0).unwrap_or_default();
        let read = |text| moment(text, now).map(|at| at.timestamp());
        assert_eq!(read("2h"), Some(1_764_000_000 - 7200));
        assert_eq!(read("2025-11-24"), Some(1_763_942_400));
        assert_eq!(read("2025-11-24T01:00:00+01:00"), Some(1_763_942_400));
        for nonsense in ["", "yesterday", "2025-13-01", "-2h", "99999999999years"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn no_word_leads_to_another_folder() {
        for no in [
            "",
            "a/b",
            "..",
            "../failed",
            "failed",
            "_unresolved",
            "a\\b",
            "spool",
        ] {
            assert!(tenant(no).is_err(), "{no}");
        }
        for no in ["", "raw/../x", "a b"] {
            assert!(message_id(no).is_err(), "{no}");
        }
        assert!(tenant("tenant-1").is_ok());
        assert!(message_id("wamid.HBgL/+=").is_ok());
        for no in ["0", "1e9", "1000000000/s", "-1", "x"] {
            assert!(rate(no).is_err(), "{no}");
        }
        assert_eq!(rate("250/s"), Ok(250));
        assert!(reason("tenant_suspended").is_ok() && reason("bad").is_err());
    }
}
