//! What is replayed: which objects, by their key and by what they hold.

use anyhow::{bail, ensure};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use clap::{Args, ValueEnum};
use futures::stream::{self, BoxStream, StreamExt};
use serde::{Deserialize, Serialize};
use shared::webhook;

use crate::operator::arguments::{CallerArgs, PayloadFilter, PeriodArgs, message_id};
use crate::operator::given_id::GivenId;
use crate::out::store::{self, Bucket, Store, StoreResult, StoredObject};
use crate::owed::readmit;

/// A longer range is a slip of the pen.
const LONGEST_RANGE: TimeDelta = TimeDelta::days(400);
const FASTEST: u32 = 10_000;
/// As the default of `--rate` says.
const USUAL_RATE: u32 = 100;

#[derive(Args, Debug, Clone)]
pub struct ReplayArgs {
    /// Payloads of these only: messages, their hashes, correlation ids, events, entries or keys
    #[arg(value_name = "ID", num_args = 0..=100)]
    pub ids: Vec<GivenId>,
    /// What was set aside, or the raw archive
    #[arg(long, value_enum, default_value_t = ReplaySource::Failed)]
    pub source: ReplaySource,
    /// Payloads with this message
    #[arg(long, value_name = "ID", value_parser = message_id)]
    pub message_id: Option<String>,
    #[command(flatten)]
    pub filter: PayloadFilter,
    #[command(flatten)]
    pub running: ReplayRunArgs,
}

/// How a replay is run.
#[derive(Args, Debug, Clone)]
pub struct ReplayRunArgs {
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
    #[command(flatten)]
    pub(crate) caller: CallerArgs,
}

impl Default for ReplayRunArgs {
    fn default() -> Self {
        Self {
            rate: USUAL_RATE,
            dry_run: false,
            json: false,
            abandon: false,
            caller: CallerArgs::default(),
        }
    }
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplaySource {
    Failed,
    Archive,
}

impl ReplaySource {
    pub(super) fn place(self) -> &'static str {
        match self {
            Self::Failed => "failed store",
            Self::Archive => "archive",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Archive => "archive",
        }
    }
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
    pub tenant: Option<String>,
    message_id: Option<String>,
    pub reason: Option<String>,
    /// Keys of the objects that were named by ids, ascending; empty: all of the above.
    #[serde(default)]
    pub keys: Vec<String>,
    /// As it was typed; two callers who typed the same mean the same.
    pub typed: String,
}

impl Selection {
    /// # Errors
    /// What doesn't go together, and what to do about it.
    pub(super) fn of(args: &ReplayArgs) -> anyhow::Result<Self> {
        let now = Utc::now();
        let PayloadFilter {
            tenant,
            reason,
            period:
                PeriodArgs {
                    from: typed_from,
                    to: typed_to,
                },
        } = &args.filter;
        let from = typed_from.as_ref().map(|from| from.at);
        let to = typed_to.as_ref().map_or(now, |to| to.at);
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
            ReplaySource::Archive if reason.is_some() => {
                bail!("--reason is for --source failed: nothing in the archive has failed")
            }
            ReplaySource::Archive => ensure!(
                from.is_some() || !args.ids.is_empty(),
                "--source archive needs --from or ids: without it, everything that ever came would go out again"
            ),
            ReplaySource::Failed => {}
        }
        let message_id = args
            .message_id
            .iter()
            .map(|id| format!(" --message-id {id}"));
        let ids = args.ids.iter().map(|id| format!(" {}", id.text()));
        let typed = format!(
            "--source {}{}{}",
            args.source.name(),
            args.filter.typed(),
            message_id.chain(ids).collect::<String>()
        );
        Ok(Self {
            source: args.source,
            from_ms: from.map(|from| from.timestamp_millis()),
            to_ms: to.timestamp_millis(),
            tenant: tenant.clone(),
            message_id: args.message_id.clone(),
            reason: reason.clone(),
            keys: Vec::new(),
            typed,
        })
    }

    /// The keys that come after `after`, folder by folder, of objects that may be meant.
    ///
    /// # Errors
    /// The store is away.
    pub(super) async fn listed<'s>(
        &self,
        store: &'s Store,
        after: Option<String>,
    ) -> StoreResult<BoxStream<'s, StoreResult<String>>> {
        if self.keys.is_empty() {
            let folders = self.folders(store).await?;
            let keys = stream::iter(folders)
                .flat_map(move |folder| store.keys_below(&folder, after.as_deref()));
            return Ok(keys.boxed());
        }
        let keys = self.keys.iter();
        let left = keys.filter(|key| after.as_ref().is_none_or(|after| *key > after));
        let left: Vec<_> = left.cloned().map(Ok).collect();
        Ok(stream::iter(left).boxed())
    }

    /// Folders of which the keys, one folder after the other, ascend.
    ///
    /// # Errors
    /// The store is away.
    async fn folders(&self, store: &Store) -> StoreResult<Vec<String>> {
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
    fn a_rate_is_bounded() {
        for no in ["0", "1e9", "1000000000/s", "-1", "x"] {
            assert!(rate(no).is_err(), "{no}");
        }
        assert_eq!(rate("250/s"), Ok(250));
    }
}
