//! `worker inspect --message-id`: where one message is. The id holds a phone number; it is the
//! operator's own input, written to the terminal and to no log.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use chrono::{DateTime, SecondsFormat};
use futures::stream::TryStreamExt;
use serde::Serialize;
use shared::keys::{GROUP, Keys, OWED};
use shared::redis::Connection;
use shared::script::Script;
use shared::webhook::{Identity, IdentityParts, Place, identity};

use super::inspect::InspectArgs;
use super::output::{Output, ProgressLine, Style, row, short};
use super::{Deployment, Section, field, scan_stream, within};
use crate::out::store::{self, Bucket};

/// All of one kind of place.
const LIMIT: Duration = Duration::from_secs(60);
/// Entries of a stream that are looked at.
const MOST_ENTRIES: usize = 2000;
/// Objects whose names are looked at, in each of the folders.
const MOST_KEYS: usize = 200_000;
/// Marks are fortieths of a generation.
const STEPS: f64 = 40.0;
/// What a status may say; it has the id of the message that it is about.
const STATUSES: [&str; 5] = ["sent", "delivered", "read", "played", "failed"];

/// Where it was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "place", rename_all = "kebab-case")]
enum Occurrence {
    /// Ingress has taken it: if it comes again, it is a duplicate.
    #[serde(rename_all = "camelCase")]
    Remembered {
        business_account_id: String,
        item: String,
        at: String,
    },
    #[serde(rename_all = "camelCase")]
    Stream {
        partition: u16,
        entry: String,
        /// Else nobody has read it yet.
        pending: bool,
        age_seconds: u64,
    },
    /// Its entry is acknowledged, and owes this still.
    #[serde(rename_all = "camelCase")]
    Owed {
        partition: u16,
        entry: String,
        kind: &'static str,
    },
    Spool {
        key: String,
    },
    Failed {
        key: String,
        reason: Option<String>,
    },
    Replayed {
        key: String,
    },
    Archive {
        key: String,
    },
    Media {
        key: String,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Located {
    message_id: String,
    found: BTreeSet<Occurrence>,
    /// Where it was looked for, and how thoroughly; or why that isn't known.
    #[serde(rename = "looked")]
    searched: Vec<SearchedPlace>,
}

#[derive(Debug, Serialize)]
struct SearchedPlace {
    at: &'static str,
    #[serde(flatten)]
    extent: Section<SearchExtent>,
}

#[derive(Debug, Serialize)]
struct SearchExtent {
    count: usize,
    /// There is more.
    all: bool,
}

/// Whom an item is of: account and identity.
type ItemIdentities = BTreeSet<(String, [u8; 32])>;

struct Search<'s> {
    deployment: &'s Deployment,
    message_id: &'s str,
    found: BTreeSet<Occurrence>,
    /// Identities of the items that were met.
    known: ItemIdentities,
}

pub(super) async fn run(
    deployment: &Deployment,
    message_id: &str,
    args: &InspectArgs,
) -> anyhow::Result<()> {
    let mut search = Search {
        deployment,
        message_id,
        found: BTreeSet::new(),
        known: ItemIdentities::new(),
    };
    let mut searched = Vec::new();
    let mut note = |at, extent| searched.push(SearchedPlace { at, extent });
    note("streams", within(LIMIT, search.streams()).await);
    note("spool", within(LIMIT, search.spool()).await);
    for (folder, name) in [("failed", "failed store"), ("replayed", "replayed")] {
        note(name, within(LIMIT, search.objects(folder, args)).await);
    }
    note("archive", within(LIMIT, search.archive(args)).await);
    note("media", within(LIMIT, search.media(args)).await);
    note("dedup marks", within(LIMIT, search.marks()).await);
    let located = Located {
        message_id: message_id.to_owned(),
        found: search.found,
        searched,
    };
    let mut output = Output::new();
    if args.json {
        output.json(&located)?;
    } else {
        write(&mut output, &located);
    }
    Ok(output.show()?)
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

impl Search<'_> {
    /// Whether a body has the message; notes its identity.
    fn is_in(&mut self, body: &[u8]) -> bool {
        let before = self.known.len();
        let mut met = false;
        for entry in shared::webhook::read(body)
            .map(|webhook| webhook.entries)
            .unwrap_or_default()
        {
            for item in entry.items {
                if item.id.as_deref() == Some(self.message_id) {
                    met = true;
                    let account = entry.waba_id.clone().into_owned();
                    self.known.insert((account, item.identity.0));
                }
            }
        }
        met || self.known.len() > before
    }

    async fn streams(&mut self) -> anyhow::Result<SearchExtent> {
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
                if self.is_in(&field(entry, "b")) {
                    met.push(entry.id.clone());
                }
            });
            let (count, all) = scan.await.context("Redis")?;
            extent.count += count;
            extent.all &= all;
            let owed = owed_of(
                &self.deployment.connection,
                &self.deployment.keys,
                partition,
                &met,
            );
            let owed = owed.await.context("Redis")?;
            met.retain(|entry| owed.iter().all(|(owing, _)| owing != entry));
            let owed = owed.into_iter().map(|(entry, kind)| Occurrence::Owed {
                partition,
                entry,
                kind,
            });
            self.found.extend(owed);
            for entry in met {
                let mut of = redis::cmd("XPENDING");
                of.arg(&key).arg(GROUP).arg(&entry).arg(&entry).arg(1);
                let pending: redis::RedisResult<redis::Value> = of.query_async(&mut redis).await;
                let pending = matches!(pending, Ok(redis::Value::Array(some)) if !some.is_empty());
                let ms: u64 = entry
                    .split('-')
                    .next()
                    .and_then(|ms| ms.parse().ok())
                    .unwrap_or(0);
                self.found.insert(Occurrence::Stream {
                    partition,
                    pending,
                    age_seconds: now.saturating_sub(ms / 1000),
                    entry,
                });
            }
        }
        Ok(extent)
    }

    /// Whether a key is of an object that is called after the message.
    fn is_named(&self, key: &str) -> bool {
        let file = key.rsplit('/').next().unwrap_or_default();
        let name = file.split_once('-').map_or("", |(_, name)| name);
        let after = name.strip_prefix(&store::segment(self.message_id));
        after.is_some_and(|after| after.starts_with('.'))
    }

    async fn spool(&mut self) -> anyhow::Result<SearchExtent> {
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
            let body = kept.body.slice(end.map_or(0, |end| end + 1)..);
            if self.is_in(&body) {
                self.found.insert(Occurrence::Spool { key });
            }
        }
        Ok(SearchExtent { count, all: true })
    }

    async fn objects(&mut self, folder: &str, args: &InspectArgs) -> anyhow::Result<SearchExtent> {
        let of_tenant = args.tenant.as_deref().map(store::segment);
        let below = of_tenant.map_or(folder.to_owned(), |tenant| format!("{folder}/{tenant}"));
        let (keys, extent) = self.named(&below, |_| true).await?;
        for key in keys {
            let kept = self.deployment.store.read(&key).await.ok();
            if let Some(kept) = &kept {
                self.is_in(&kept.body);
            }
            let reason = kept.and_then(|kept| kept.described.get("reason").cloned());
            self.found.insert(match folder {
                "failed" => Occurrence::Failed { key, reason },
                _ => Occurrence::Replayed { key },
            });
        }
        Ok(extent)
    }

    async fn archive(&mut self, args: &InspectArgs) -> anyhow::Result<SearchExtent> {
        let of_tenant = args.tenant.as_deref().map(store::segment);
        let day = args.day.map(|day| format!("/{day}")).unwrap_or_default();
        let folders = match of_tenant {
            Some(tenant) => vec![format!("{tenant}{day}")],
            None => {
                let all = self.deployment.store.folders_in(Bucket::Webhooks, "").await;
                all.context("the object store")?
            }
        };
        let mut extent = SearchExtent {
            count: 0,
            all: true,
        };
        let archives = folders.iter().filter(|folder| !store::is_reserved(folder));
        for folder in archives {
            let (keys, more) = self.named(folder, |_| true).await?;
            extent.count += more.count;
            extent.all &= more.all;
            for key in keys {
                if let Ok(kept) = self.deployment.store.read(&key).await {
                    self.is_in(&kept.body);
                }
                self.found.insert(Occurrence::Archive { key });
            }
        }
        Ok(extent)
    }

    /// Keys below a folder that are called after the message.
    async fn named(
        &self,
        folder: &str,
        also: impl Fn(&str) -> bool,
    ) -> anyhow::Result<(Vec<String>, SearchExtent)> {
        let (mut named, mut count) = (Vec::new(), 0);
        let mut progress = ProgressLine::new("names of objects");
        let mut keys = self.deployment.store.listed(Bucket::Webhooks, folder);
        while let Some(key) = keys.try_next().await.context("the object store")? {
            if count == MOST_KEYS {
                return Ok((named, SearchExtent { count, all: false }));
            }
            count += 1;
            progress.at(count, None);
            if self.is_named(&key) && also(&key) {
                named.push(key);
            }
        }
        Ok((named, SearchExtent { count, all: true }))
    }

    async fn media(&mut self, args: &InspectArgs) -> anyhow::Result<SearchExtent> {
        let found = self
            .deployment
            .store
            .find_media(args.tenant.as_deref(), self.message_id);
        let keys = found.await.context("the object store")?;
        let count = keys.len();
        let keys = keys.into_iter().map(|key| Occurrence::Media { key });
        self.found.extend(keys);
        Ok(SearchExtent { count, all: true })
    }

    /// Looks for marks of the items that were met, and of what the id could be of the numbers that
    /// had traffic lately.
    async fn marks(&mut self) -> anyhow::Result<SearchExtent> {
        let mut asked: Vec<(String, &str, Identity)> = Vec::new();
        for (account, identity) in &self.known {
            asked.push((account.clone(), "item", Identity(*identity)));
        }
        for (account, number) in self.deployment.numbers().await? {
            for (item, identity) in possible(&number, self.message_id) {
                asked.push((account.clone(), item, identity));
            }
        }
        let script = Script::new(include_str!("../lua/marks.lua"));
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

fn write(output: &mut Output, located: &Located) {
    output.head(&located.message_id);
    let rows: Vec<_> = located.found.iter().map(occurrence_row).collect();
    if rows.is_empty() {
        output.line(Style::Bad, "found nowhere");
    }
    output.table(&rows);
    let searched: Vec<_> = located
        .searched
        .iter()
        .map(|place| match &place.extent {
            Section::Known(SearchExtent { count, all }) => {
                let more = if *all { "" } else { ", not all" };
                format!("{} ({count}{more})", place.at)
            }
            Section::Unknown { unknown } => format!("{} (unknown: {unknown})", place.at),
        })
        .collect();
    output.line(Style::Faint, format!("looked at: {}", searched.join(", ")));
    output.line(
        Style::Faint,
        "objects have the name of the first message of their batch; queues are not looked into",
    );
}

fn occurrence_row(found: &Occurrence) -> Vec<(Style, String)> {
    match found {
        Occurrence::Remembered {
            business_account_id,
            item,
            at,
        } => {
            let text = format!("taken about {at} ({item} of account {business_account_id})");
            row(Style::Plain, ["remembered", &text])
        }
        Occurrence::Stream {
            partition,
            entry,
            pending,
            age_seconds,
        } => {
            let state = if *pending {
                "with a worker"
            } else {
                "waits for a worker"
            };
            let age = short(*age_seconds);
            let text = format!("partition {partition}, entry {entry}: {state}, for {age}");
            row(Style::Doubtful, ["stream", &text])
        }
        Occurrence::Owed {
            partition,
            entry,
            kind,
        } => {
            let text = format!("partition {partition}, entry {entry}: {kind}");
            row(Style::Doubtful, ["owed", &text])
        }
        Occurrence::Spool { key } => row(Style::Doubtful, ["spool", key]),
        Occurrence::Failed { key, reason } => {
            let reason = reason.as_deref().unwrap_or("reason unknown");
            row(Style::Bad, ["failed", &format!("{key} ({reason})")])
        }
        Occurrence::Replayed { key } => row(Style::Plain, ["replayed", key]),
        Occurrence::Archive { key } => row(Style::Good, ["archive", key]),
        Occurrence::Media { key } => row(Style::Good, ["media", key]),
    }
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
