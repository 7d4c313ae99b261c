//! Looks for an id in every place.

use std::collections::BTreeSet;
use std::time::SystemTime;

use anyhow::Context;
use chrono::{DateTime, SecondsFormat};
use futures::stream::{self, StreamExt, TryStreamExt};
use shared::keys::{GROUP, Keys, OWED};
use shared::private::Hashed;
use shared::redis::Connection;
use shared::script::Script;
use shared::webhook::{Identity, IdentityParts, Place, identity};

use super::{MetItem, Occurrence, SearchExtent};
use crate::operator::given_id::GivenId;
use crate::operator::inspect::InspectArgs;
use crate::operator::objects::{KeyMatch, PayloadArea, Period, days};
use crate::operator::output::ProgressLine;
use crate::operator::{Deployment, field, is_of_webhook, scan_stream};
use crate::out::store::Bucket;

/// Entries of a stream that are looked at.
const MOST_ENTRIES: usize = 2000;
/// Objects whose names are looked at, in each of the folders.
const MOST_KEYS: usize = 200_000;
/// Objects that are read because their names don't tell, in each of the folders; and how many side by side.
const MOST_READ: usize = 20_000;
const READ_AT_ONCE: usize = 16;
/// Marks are fortieths of a generation.
const STEPS: f64 = 40.0;
/// What a status may say; it has the id of the message that it is about.
const STATUSES: [&str; 5] = ["sent", "delivered", "read", "played", "failed"];

pub(super) struct Search<'s> {
    deployment: &'s Deployment,
    id: &'s GivenId,
    args: &'s InspectArgs,
    found: BTreeSet<Occurrence>,
    items: BTreeSet<MetItem>,
    /// Account and identity of the items that were met.
    known: BTreeSet<(String, [u8; 32])>,
}

impl<'s> Search<'s> {
    pub(super) fn new(deployment: &'s Deployment, id: &'s GivenId, args: &'s InspectArgs) -> Self {
        Self {
            deployment,
            id,
            args,
            found: BTreeSet::new(),
            items: BTreeSet::new(),
            known: BTreeSet::new(),
        }
    }

    pub(super) fn ended(self) -> (BTreeSet<Occurrence>, BTreeSet<MetItem>) {
        (self.found, self.items)
    }

    /// Notes what a body has of it; all items where `whole`, since the id is that of the webhook or of the
    /// object.
    fn meet(&mut self, body: &[u8], whole: bool) -> bool {
        let mut met = false;
        let read = shared::webhook::read(body);
        for entry in read.map(|webhook| webhook.entries).unwrap_or_default() {
            for item in entry.items {
                let is_meant = self.id.is_in(&item);
                met |= is_meant;
                if !is_meant && !whole {
                    continue;
                }
                let account = entry.waba_id.clone().into_owned();
                self.known.insert((account, item.identity.0));
                self.items.extend(item.id.map(|id| MetItem {
                    message_hash: Hashed(&id).to_string(),
                    message_id: id.into_owned(),
                }));
            }
        }
        met || whole
    }

    pub(super) async fn streams(&mut self) -> anyhow::Result<SearchExtent> {
        let mut extent = SearchExtent {
            count: 0,
            all: true,
        };
        let mut redis = self.deployment.connection.clone();
        let (now, _): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await?;
        for partition in 0..self.deployment.keys.partitions() {
            let key = self.deployment.keys.stream(partition);
            let mut met = Vec::new();
            let scan = scan_stream(&self.deployment.connection, &key, MOST_ENTRIES, |entry| {
                let whole = match self.id {
                    GivenId::Entry(id) => entry.id == *id,
                    GivenId::Uuid(uuid) => is_of_webhook(entry, &uuid.to_string()),
                    GivenId::Key(key) => field(entry, "o") == key.as_bytes(),
                    GivenId::Item(_) | GivenId::Hash(_) => false,
                };
                if self.meet(&field(entry, "b"), whole) {
                    met.push(entry.id.clone());
                }
            });
            let (count, all) = scan.await.context("Redis")?;
            extent.count += count;
            extent.all &= all;
            self.entries_met(partition, met, now).await?;
        }
        Ok(extent)
    }

    /// What entries of a partition still owe, or whether a worker has them.
    async fn entries_met(
        &mut self,
        partition: u16,
        mut met: Vec<String>,
        now: u64,
    ) -> anyhow::Result<()> {
        let (connection, keys) = (&self.deployment.connection, &self.deployment.keys);
        let owed = owed_of(connection, keys, partition, &met).await;
        let owed = owed.context("Redis")?;
        met.retain(|entry| owed.iter().all(|(owing, _)| owing != entry));
        let owed = owed.into_iter().map(|(entry, kind)| Occurrence::Owed {
            partition,
            entry,
            kind,
        });
        self.found.extend(owed);
        for entry in met {
            let mut of = redis::cmd("XPENDING");
            of.arg(keys.stream(partition)).arg(GROUP);
            of.arg(&entry).arg(&entry).arg(1);
            let pending: redis::RedisResult<redis::Value> =
                of.query_async(&mut connection.clone()).await;
            let pending = matches!(pending, Ok(redis::Value::Array(some)) if !some.is_empty());
            let ms = entry.split('-').next().and_then(|ms| ms.parse().ok());
            self.found.insert(Occurrence::Stream {
                partition,
                pending,
                age_seconds: now.saturating_sub(ms.unwrap_or(0) / 1000),
                entry,
            });
        }
        Ok(())
    }

    pub(super) async fn spool(&mut self) -> anyhow::Result<SearchExtent> {
        let store = &self.deployment.store;
        let mut keys = store.listed(Bucket::Webhooks, "spool");
        let mut count = 0;
        while let Some(key) = keys.try_next().await.context("the object store")? {
            if count == MOST_ENTRIES {
                return Ok(SearchExtent { count, all: false });
            }
            count += 1;
            let Ok(kept) = store.read(&key).await else {
                continue;
            };
            // A line of JSON stands before the body.
            let end = kept.body.iter().position(|byte| *byte == b'\n');
            let (head, body) = kept.body.split_at(end.unwrap_or(0));
            let head: serde_json::Value = serde_json::from_slice(head).unwrap_or_default();
            let whole = self.id.names(&key) || head["correlationId"] == *self.id.text();
            if self.meet(body.get(1..).unwrap_or(body), whole) {
                self.found.insert(Occurrence::Spool { key });
            }
        }
        Ok(SearchExtent { count, all: true })
    }

    /// What was set aside, or was and is not any more.
    pub(super) async fn objects(&mut self, folder: &'static str) -> anyhow::Result<SearchExtent> {
        let tenant = self.args.tenant.as_deref().map(crate::out::store::segment);
        let below = tenant.map_or(folder.to_owned(), |tenant| format!("{folder}/{tenant}"));
        let (named, unclear, mut extent) = self.named(&below, Period::default()).await?;
        self.matched(named).await;
        extent.all &= self.read(unclear).await?;
        Ok(extent)
    }

    /// The newest days first.
    pub(super) async fn archive(&mut self) -> anyhow::Result<SearchExtent> {
        let period = match self.args.day {
            Some(day) => {
                let start = day.and_time(chrono::NaiveTime::MIN).and_utc();
                Period {
                    from: Some(start),
                    to: Some(start + chrono::TimeDelta::days(1)),
                }
            }
            None => self.id.period(),
        };
        let (store, tenant) = (&self.deployment.store, self.args.tenant.as_deref());
        let folders = match self.id {
            // Its own folder says all.
            GivenId::Key(_) => Vec::new(),
            GivenId::Item(_) | GivenId::Hash(_) | GivenId::Uuid(_) | GivenId::Entry(_) => {
                let folders = days(store, PayloadArea::Archive, tenant, period).await;
                folders.context("the object store")?
            }
        };
        if let GivenId::Key(key) = self.id
            && PayloadArea::of(key) == PayloadArea::Archive
            && store.described(key).await.is_ok()
        {
            self.matched(vec![key.clone()]).await;
        }
        let mut extent = SearchExtent {
            count: 0,
            all: true,
        };
        let mut unread = Vec::new();
        for folder in folders {
            if extent.count >= MOST_KEYS {
                extent.all = false;
                break;
            }
            let (named, unclear, of_day) = self.named(&folder.folder, period).await?;
            extent.count += of_day.count;
            extent.all &= of_day.all;
            self.matched(named).await;
            if unread.len() < MOST_READ {
                unread.extend(unclear);
            }
        }
        extent.all &= self.read(unread).await?;
        Ok(extent)
    }

    /// Keys below a folder that are called after it, and those whose names don't tell.
    async fn named(
        &self,
        folder: &str,
        period: Period,
    ) -> anyhow::Result<(Vec<String>, Vec<String>, SearchExtent)> {
        let (mut named, mut unclear, mut count) = (Vec::new(), Vec::new(), 0);
        let mut progress = ProgressLine::new("names of objects");
        let mut keys = self.deployment.store.listed(Bucket::Webhooks, folder);
        while let Some(key) = keys.try_next().await.context("the object store")? {
            if count == MOST_KEYS {
                return Ok((named, unclear, SearchExtent { count, all: false }));
            }
            count += 1;
            progress.at(count, None);
            match self.id.matches_key(&key) {
                KeyMatch::Yes => named.push(key),
                // One more than is read tells that there are more.
                KeyMatch::Unclear if period.has(&key) && unclear.len() <= MOST_READ => {
                    unclear.push(key);
                }
                KeyMatch::Unclear | KeyMatch::No => {}
            }
        }
        Ok((named, unclear, SearchExtent { count, all: true }))
    }

    /// Reads objects whose names don't tell; whether these were all. Objects are called after the first item
    /// of their batch, so one that is found somewhere by its own id is rarely in others too.
    async fn read(&mut self, mut keys: Vec<String>) -> anyhow::Result<bool> {
        let is_item = matches!(self.id, GivenId::Item(_) | GivenId::Hash(_));
        if is_item && !self.found.is_empty() {
            return Ok(true);
        }
        let all = keys.len() <= MOST_READ;
        keys.truncate(MOST_READ);
        let (of, mut progress) = (keys.len(), ProgressLine::new("objects read"));
        let (id, store) = (self.id, self.deployment.store.clone());
        let read = stream::iter(keys).map(async |key| {
            let has = id.is_in_stored(&store, &key).await?;
            anyhow::Ok(has.then_some(key))
        });
        let mut read = read.buffered(READ_AT_ONCE).enumerate().boxed_local();
        let mut matched = Vec::new();
        while let Some((n, found)) = read.next().await {
            progress.at(n + 1, Some(of));
            matched.extend(found.context("the object store")?);
        }
        drop(read);
        self.matched(matched).await;
        Ok(all)
    }

    /// Notes objects that it is of.
    async fn matched(&mut self, keys: Vec<String>) {
        for key in keys {
            let kept = self.deployment.store.read(&key).await.ok();
            let mut reason = None;
            if let Some(kept) = &kept {
                let described = self.id.is_described_by(&kept.described);
                let is_key = matches!(self.id, GivenId::Key(_));
                self.meet(&kept.body, described || is_key);
                reason = kept.described.get("reason").cloned();
            }
            self.found.insert(match PayloadArea::of(&key) {
                PayloadArea::Failed => Occurrence::Failed { key, reason },
                PayloadArea::Replayed => Occurrence::Replayed { key },
                PayloadArea::Discarded => Occurrence::Discarded { key },
                PayloadArea::Archive => Occurrence::Archive { key },
            });
        }
    }

    /// Files of the messages that were met, or of the id itself.
    pub(super) async fn media(&mut self) -> anyhow::Result<SearchExtent> {
        let tenant = self.args.tenant.as_deref();
        let given = match self.id {
            GivenId::Item(id) => Some(id.clone()),
            GivenId::Hash(_) | GivenId::Uuid(_) | GivenId::Entry(_) | GivenId::Key(_) => None,
        };
        let ids = self.items.iter().map(|item| item.message_id.clone());
        let ids: BTreeSet<String> = ids.chain(given).collect();
        let mut count = 0;
        for id in &ids {
            let keys = self.deployment.store.find_media(tenant, id).await;
            let keys = keys.context("the object store")?;
            count += keys.len();
            let keys = keys.into_iter().map(|key| Occurrence::Media { key });
            self.found.extend(keys);
        }
        Ok(SearchExtent { count, all: true })
    }

    /// Looks for marks of the items that were met, and of what the id could be of the numbers that
    /// had traffic lately.
    pub(super) async fn marks(&mut self) -> anyhow::Result<SearchExtent> {
        let mut asked: Vec<(String, &str, Identity)> = Vec::new();
        for (account, identity) in &self.known {
            asked.push((account.clone(), "item", Identity(*identity)));
        }
        if let GivenId::Item(id) = self.id {
            for (account, number) in self.deployment.numbers().await? {
                for (item, identity) in possible(&number, id) {
                    asked.push((account.clone(), item, identity));
                }
            }
        }
        let script = Script::new(include_str!("../../lua/marks.lua"));
        for (account, item, identity) in &asked {
            let partition = self.deployment.keys.partition_of(account);
            let call = script.call([self.deployment.keys.seen(partition)]);
            let call = call.arg(&identity.0[..14]);
            let marks: Vec<(usize, String, f64, f64)> =
                call.run(&mut self.deployment.connection.clone()).await?;
            for (_, generation, mark, expires) in marks {
                self.found.insert(Occurrence::Remembered {
                    business_account_id: account.clone(),
                    item: (*item).to_owned(),
                    at: made_at(&generation, mark, expires),
                });
            }
        }
        Ok(SearchExtent {
            count: asked.len(),
            all: true,
        })
    }
}

/// What of some entries is still owed: entry and kind.
async fn owed_of(
    connection: &Connection,
    keys: &Keys,
    partition: u16,
    entries: &[String],
) -> redis::RedisResult<Vec<(String, &'static str)>> {
    let mut owed = Vec::new();
    for kind in OWED {
        for entry in entries {
            let list = keys.owed_list(partition, kind);
            if has_piece(connection, &list, entry).await? {
                owed.push((entry.clone(), kind));
            }
        }
    }
    Ok(owed)
}

/// Whether there is a piece of an entry in a list: it begins with the entry.
async fn has_piece(connection: &Connection, list: &str, entry: &str) -> redis::RedisResult<bool> {
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("ZSCAN");
        scan.arg(list).arg(cursor).arg("MATCH");
        scan.arg(format!("{entry} *")).arg("COUNT").arg(1000);
        let (next, found): (u64, Vec<String>) = scan.query_async(&mut connection.clone()).await?;
        if !found.is_empty() {
            return Ok(true);
        }
        if next == 0 {
            return Ok(false);
        }
        cursor = next;
    }
}

/// What an id could stand for, of a number: a message, or a status of one.
fn possible(number: &str, id: &str) -> Vec<(&'static str, Identity)> {
    let of = |place, status: Option<&'static str>| {
        let parts = IdentityParts {
            id: Some(id.into()),
            status: status.map(Into::into),
            ..IdentityParts::default()
        };
        identity(place, "messages", number, &parts, &[], &[])
    };
    let statuses = STATUSES.map(|status| (status, of(Place::Status, Some(status))));
    std::iter::once(("message", of(Place::Message, None)))
        .chain(statuses)
        .collect()
}

/// When a mark was made, to 2.5 % of the time for which it is kept. That time isn't this program's
/// setting: it follows from when the hash of the mark expires.
fn made_at(generation: &str, mark: f64, expires: f64) -> String {
    let number: f64 = generation
        .trim_start_matches('s')
        .parse()
        .unwrap_or_default();
    let ttl = (expires / (number + 2.0 + 1.0 / STEPS)).round();
    let at = (number + mark / STEPS) * ttl;
    DateTime::from_timestamp(at as i64, 0)
        .unwrap_or_else(|| SystemTime::UNIX_EPOCH.into())
        .to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_when_it_was_made() {
        let day = 86_400.0;
        // Half of generation 20,000 of a day each.
        let expires = ((20_000.0 + 2.0) * day + day / STEPS).ceil();
        assert_eq!(made_at("20000", 20.0, expires), "2024-10-04T12:00:00Z");
        assert_eq!(made_at("nonsense", 0.0, 0.0), "1970-01-01T00:00:00Z");
    }
}
