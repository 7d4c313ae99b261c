//! Payload objects of the webhook bucket: which of them an id is of, and those of a time, newest days first.

use std::collections::BTreeMap;

use anyhow::Context;
use chrono::{DateTime, NaiveDate, Utc};
use futures::stream::{self, StreamExt, TryStreamExt};
use shared::webhook;

use super::given_id::GivenId;
use super::output::ProgressLine;
use crate::out::store::{self, Bucket, ReadError, Store, StoreResult, StoredObject};
use crate::owed::readmit;

const STORE: &str = "the object store";
/// Objects read side by side.
const READ_AT_ONCE: usize = 16;
/// Folders listed side by side.
const FOLDERS_AT_ONCE: usize = 16;
/// An entry comes into its stream this much later than its webhook was taken, or earlier by the clocks of two
/// machines; what went through the spool may come at any time.
const ENTRY_LATE_MS: i64 = 600_000;

/// Where payloads lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadArea {
    Archive,
    Failed,
    Replayed,
    Discarded,
}

impl PayloadArea {
    pub(super) const ALL: [Self; 4] =
        [Self::Failed, Self::Archive, Self::Replayed, Self::Discarded];

    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Archive => "",
            Self::Failed => "failed",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }

    pub(super) fn of(key: &str) -> Self {
        match key.split('/').next() {
            Some("failed") => Self::Failed,
            Some("replayed") => Self::Replayed,
            Some("discarded") => Self::Discarded,
            Some(_) | None => Self::Archive,
        }
    }
}

/// Tenant, or account without one, whose folder a key lies in.
pub(super) fn owner_of(key: &str) -> String {
    let area = PayloadArea::of(key).folder();
    let key = key.strip_prefix(area).unwrap_or(key);
    let key = key.trim_start_matches('/');
    let parts = if key.starts_with(store::UNRESOLVED) {
        2
    } else {
        1
    };
    key.split('/').take(parts).collect::<Vec<_>>().join("/")
}

/// A day's payloads of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DayFolder {
    pub(super) day: NaiveDate,
    pub(super) folder: String,
}

/// From and to when payloads came; `None`: no bound.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Period {
    pub(super) from: Option<DateTime<Utc>>,
    pub(super) to: Option<DateTime<Utc>>,
}

impl Period {
    /// Whether an object came in it, by its key; one that doesn't tell counts.
    pub(super) fn has(&self, key: &str) -> bool {
        readmit::received_at_of(key).is_none_or(|at| {
            self.from.is_none_or(|from| at >= from.timestamp_millis())
                && self.to.is_none_or(|to| at < to.timestamp_millis())
        })
    }

    fn has_day(&self, day: NaiveDate) -> bool {
        self.from.is_none_or(|from| from.date_naive() <= day)
            && self.to.is_none_or(|to| day <= to.date_naive())
    }
}

/// The folders of days of an area, newest first, of one tenant or of all.
///
/// # Errors
/// The store is away or refuses.
pub(super) async fn days(
    store: &Store,
    area: PayloadArea,
    tenant: Option<&str>,
    period: Period,
) -> StoreResult<Vec<DayFolder>> {
    let root = area.folder();
    let below = |name: &str| match root {
        "" => name.to_owned(),
        root => format!("{root}/{name}"),
    };
    let mut owners = match tenant {
        Some(tenant) => vec![below(&store::segment(tenant))],
        None => store.folders_in(Bucket::Webhooks, root).await?,
    };
    if area == PayloadArea::Archive {
        owners.retain(|folder| !store::is_reserved(folder));
    }
    let unresolved = below(store::UNRESOLVED);
    if let Some(at) = owners.iter().position(|folder| *folder == unresolved) {
        owners.swap_remove(at);
        owners.extend(store.folders_in(Bucket::Webhooks, &unresolved).await?);
    }
    let listed = stream::iter(owners)
        .map(async |owner| store.folders_in(Bucket::Webhooks, &owner).await)
        .buffer_unordered(FOLDERS_AT_ONCE);
    let folders: Vec<Vec<String>> = listed.try_collect().await?;
    let days = folders.into_iter().flatten().filter_map(|folder| {
        let day = folder.rsplit('/').next()?.parse().ok()?;
        Some(DayFolder { day, folder })
    });
    let mut days: Vec<_> = days.filter(|it| period.has_day(it.day)).collect();
    days.sort_unstable_by(|a, b| b.cmp(a));
    Ok(days)
}

/// Whether an object is what an id names, as far as its key tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyMatch {
    Yes,
    No,
    /// Its attributes or its bytes must be looked at.
    Unclear,
}

impl GivenId {
    pub(super) fn matches_key(&self, key: &str) -> KeyMatch {
        if self.names(key) {
            return KeyMatch::Yes;
        }
        match self {
            Self::Key(_) => KeyMatch::No,
            Self::Item(_) | Self::Hash(_) | Self::Uuid(_) | Self::Entry(_) => KeyMatch::Unclear,
        }
    }

    /// When a webhook was taken whose entry has this id, unless it went through the spool.
    pub(super) fn period(&self) -> Period {
        let Self::Entry(entry) = self else {
            return Period::default();
        };
        let ms = entry
            .split_once('-')
            .and_then(|(ms, _)| ms.parse::<i64>().ok());
        let at = |ms: Option<i64>| ms.and_then(DateTime::from_timestamp_millis);
        Period {
            from: at(ms.map(|ms| ms.saturating_sub(ENTRY_LATE_MS))),
            to: at(ms.map(|ms| ms.saturating_add(ENTRY_LATE_MS))),
        }
    }

    /// Whether an object's attributes name it: as the webhook that it came with, or the entry that it was.
    pub(super) fn is_described_by(&self, described: &BTreeMap<String, String>) -> bool {
        let is = |name: &str, text: &str| described.get(name).is_some_and(|value| value == text);
        match self {
            Self::Uuid(uuid) => is("correlation-id", &uuid.to_string()),
            Self::Entry(entry) => is("entry", entry),
            Self::Item(_) | Self::Hash(_) | Self::Key(_) => false,
        }
    }

    /// Whether an object has it.
    pub(super) fn is_in_object(&self, key: &str, object: &StoredObject) -> bool {
        self.names(key) || self.is_described_by(&object.described) || self.is_in_body(&object.body)
    }

    pub(super) fn is_in_body(&self, body: &[u8]) -> bool {
        let Ok(webhook) = webhook::read(body) else {
            return false;
        };
        let mut items = webhook.entries.iter().flat_map(|entry| &entry.items);
        items.any(|item| self.is_in(item))
    }

    /// Whether an object that its key doesn't tell enough of has it. Of an entry only the attributes are asked
    /// for; anything else may stand in the bytes.
    ///
    /// # Errors
    /// The store is away. An object that is gone or can't be read has it not.
    pub(super) async fn is_in_stored(&self, store: &Store, key: &str) -> StoreResult<bool> {
        let found = match self {
            Self::Entry(_) => {
                let described = store.described(key).await;
                described.map(|described| self.is_described_by(&described))
            }
            Self::Item(_) | Self::Hash(_) | Self::Uuid(_) | Self::Key(_) => {
                let read = store.read(key).await;
                read.map(|object| self.is_in_object(key, &object))
            }
        };
        match found {
            Ok(found) => Ok(found),
            Err(ReadError::Gone | ReadError::TooLarge(_) | ReadError::Corrupt) => Ok(false),
            Err(ReadError::Store(error)) => Err(error),
        }
    }
}

/// The objects of an area that an id names.
#[derive(Clone, Copy)]
pub(super) struct NamedObjects<'a> {
    pub(super) store: &'a Store,
    pub(super) area: PayloadArea,
    pub(super) tenant: Option<&'a str>,
}

impl NamedObjects<'_> {
    /// Keys of what is called after it, or, where nothing is, of what has it.
    ///
    /// # Errors
    /// The store is away.
    pub(super) async fn all(&self, id: &GivenId) -> anyhow::Result<Vec<String>> {
        let called = self.called(id).await?;
        match called.is_empty() {
            true => self.having(id).await,
            false => Ok(called),
        }
    }

    /// Keys of what is called after it.
    ///
    /// # Errors
    /// The store is away.
    pub(super) async fn called(&self, id: &GivenId) -> anyhow::Result<Vec<String>> {
        match id {
            GivenId::Key(key) if PayloadArea::of(key) == self.area => {
                match self.store.described(key).await {
                    Ok(_) => Ok(vec![key.clone()]),
                    Err(ReadError::Store(error)) => Err(error).context(STORE),
                    Err(ReadError::Gone | ReadError::TooLarge(_) | ReadError::Corrupt) => {
                        Ok(Vec::new())
                    }
                }
            }
            GivenId::Key(_) | GivenId::Uuid(_) | GivenId::Entry(_) => Ok(Vec::new()),
            GivenId::Item(_) | GivenId::Hash(_) => {
                let mut progress = ProgressLine::new("names of objects");
                let (mut found, mut count) = (Vec::new(), 0);
                for folder in self.folders(id).await? {
                    let mut keys = self.store.keys_below(&folder, None);
                    while let Some(key) = keys.try_next().await.context(STORE)? {
                        count += 1;
                        progress.at(count, None);
                        found.extend(Some(key).filter(|key| id.names(key)));
                    }
                    if !found.is_empty() {
                        break;
                    }
                }
                Ok(found)
            }
        }
    }

    /// Keys of what has it, in the folder that comes first.
    ///
    /// # Errors
    /// The store is away.
    pub(super) async fn having(&self, id: &GivenId) -> anyhow::Result<Vec<String>> {
        if matches!(id, GivenId::Key(_)) {
            return Ok(Vec::new());
        }
        let mut progress = ProgressLine::new("objects read");
        let (mut found, mut count) = (Vec::new(), 0);
        let period = match self.area {
            PayloadArea::Archive => id.period(),
            PayloadArea::Failed | PayloadArea::Replayed | PayloadArea::Discarded => {
                Period::default()
            }
        };
        for folder in self.folders(id).await? {
            let keys = self.store.keys_below(&folder, None);
            let keys = keys.try_filter(|key| std::future::ready(period.has(key)));
            let read = keys.map_ok(async |key| {
                let has = id.is_in_stored(self.store, &key).await?;
                StoreResult::Ok(has.then_some(key))
            });
            let mut read = read.try_buffered(READ_AT_ONCE).boxed_local();
            while let Some(read) = read.try_next().await.context(STORE)? {
                count += 1;
                progress.at(count, None);
                found.extend(read);
            }
            if !found.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    /// Of the archive a folder for each day, the newest first.
    async fn folders(&self, id: &GivenId) -> anyhow::Result<Vec<String>> {
        if self.area != PayloadArea::Archive {
            let folder = self.area.folder();
            let tenant = self.tenant.map(store::segment);
            let folder = tenant.map_or(folder.to_owned(), |tenant| format!("{folder}/{tenant}"));
            return Ok(vec![folder]);
        }
        let days = days(self.store, self.area, self.tenant, id.period()).await;
        let days = days.context(STORE)?.into_iter();
        Ok(days.map(|day| day.folder).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_whose_it_is() {
        for (key, owner) in [
            ("acme/2026-11-25/1-a.json", "acme"),
            ("failed/acme/2026-11-25/1-a.json", "acme"),
            ("failed/_unresolved/7/2026-11-25/1-a.json", "_unresolved/7"),
            ("discarded/acme/2026-11-25/1-a.json", "acme"),
        ] {
            assert_eq!(owner_of(key), owner);
        }
    }

    #[test]
    fn a_period_has_what_came_in_it() {
        let at = DateTime::from_timestamp_millis;
        let period = Period {
            from: at(1000),
            to: at(2000),
        };
        let has = |ms: u32| period.has(&format!("t/1970-01-01/{ms}-a.json"));
        assert_eq!([999, 1000, 1999, 2000].map(has), [false, true, true, false]);
        assert!(period.has("t/odd"));
    }
}
