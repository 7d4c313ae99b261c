//! What is still on its way: in the spool and the streams. What is acknowledged and still owes something lies
//! in its stream, too.

use std::collections::{BTreeSet, HashMap};

use anyhow::Context;
use bytes::Bytes;
use strum::IntoEnumIterator;

use super::eraser::Eraser;
use super::erasure::Erasure;
use crate::metrics::OwedKind;
use crate::operator::{field, scan_stream};
use crate::out::store::{Bucket, ReadError};
use crate::read::owed::{Owed, entry_of};

/// Pieces of a list that one request brings.
const PIECES: usize = 1000;

/// Something on its way; what it has not is empty.
pub(super) struct InTransit<'w> {
    pub(super) account: &'w str,
    /// Those it owes something for, or their folders.
    pub(super) tenants: &'w BTreeSet<String>,
    pub(super) key: &'w str,
    pub(super) body: &'w [u8],
}

/// The account of an entry; empty if it doesn't say.
fn account_of(entry: &redis::streams::StreamId) -> String {
    let named = ["h", "w"].into_iter();
    let fields = named.filter_map(|name| Some((name.to_owned(), entry.get::<Bytes>(name)?)));
    shared::entry::account(&fields.collect()).unwrap_or_default()
}

impl Eraser<'_> {
    /// How much of spool and streams is theirs: in the order in which it moves, so that it is met at least
    /// once.
    pub(super) async fn in_transit(
        &self,
        found: &mut Erasure,
        theirs: impl Fn(&InTransit<'_>) -> bool,
    ) -> anyhow::Result<usize> {
        let (keys, redis) = (&self.deployment.keys, &self.deployment.connection);
        let mut count = self.spooled(found, &theirs).await?;
        for partition in 0..keys.partitions() {
            let owing = self.owing(partition).await.context("Redis")?;
            let nobody = BTreeSet::new();
            let stream = keys.stream(partition);
            let scan = scan_stream(redis, &stream, usize::MAX, |entry| {
                let text = |name| String::from_utf8(field(entry, name)).unwrap_or_default();
                let (account, key) = (account_of(entry), text("o"));
                let waiting = InTransit {
                    account: &account,
                    tenants: owing.get(&entry.id).unwrap_or(&nobody),
                    key: &key,
                    body: &field(entry, "b"),
                };
                count += usize::from(theirs(&waiting));
            });
            scan.await.context("Redis")?;
        }
        Ok(count)
    }

    /// For whom entries of a partition still owe something: tenants or their folders.
    async fn owing(&self, partition: u16) -> redis::RedisResult<HashMap<String, BTreeSet<String>>> {
        let mut owing: HashMap<_, BTreeSet<_>> = HashMap::new();
        let mut redis = self.deployment.connection.clone();
        for kind in OwedKind::iter() {
            let list = self.deployment.keys.owed_list(partition, kind.into());
            for page in 0.. {
                let mut range = redis::cmd("ZRANGE");
                range.arg(&list).arg(page * PIECES);
                range.arg((page + 1) * PIECES - 1);
                let pieces: Vec<String> = range.query_async(&mut redis).await?;
                for piece in &pieces {
                    let tenants = owing.entry(entry_of(piece).to_owned()).or_default();
                    tenants.extend(Owed::read(kind, piece).map(|it| it.tenant().to_owned()));
                }
                if pieces.len() < PIECES {
                    break;
                }
            }
        }
        Ok(owing)
    }

    async fn spooled(
        &self,
        found: &mut Erasure,
        theirs: impl Fn(&InTransit<'_>) -> bool,
    ) -> anyhow::Result<usize> {
        let mut count = 0;
        for key in self.list(found, Bucket::Webhooks, "spool").await? {
            let kept = match self.deployment.store.read(&key).await {
                Ok(kept) => kept,
                Err(ReadError::Gone) => continue,
                Err(error) => {
                    let why = error.to_string();
                    self.leave(found, Bucket::Webhooks, key, why).await?;
                    continue;
                }
            };
            // A line of JSON stands before the body.
            let end = kept.body.iter().position(|byte| *byte == b'\n');
            let end = end.unwrap_or(0);
            let head: serde_json::Value =
                serde_json::from_slice(&kept.body[..end]).unwrap_or_default();
            let waiting = InTransit {
                account: head["wabaId"].as_str().unwrap_or_default(),
                tenants: &BTreeSet::new(),
                key: "",
                body: &kept.body[end..],
            };
            count += usize::from(theirs(&waiting));
        }
        Ok(count)
    }
}
