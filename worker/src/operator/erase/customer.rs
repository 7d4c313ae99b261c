//! What is kept of a customer, in payloads that may be others' too.

use std::collections::HashSet;

use anyhow::Context;
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::cut::{ClearedPayload, ErasedMedia, clear, cuts, renamed};
use super::eraser::{AT_ONCE, Eraser};
use super::erasure::{ErasedPayload, Erasure};
use super::in_transit::InTransit;
use crate::operator::output::ProgressLine;
use crate::out::store::{Bucket, ReadError, StoreError};

impl Eraser<'_> {
    /// Counts, and deletes or rewrites if told to.
    ///
    /// # Errors
    /// Redis or the store can't be used.
    pub(super) async fn of_customer(
        &self,
        mut found: Erasure,
        customer: &str,
    ) -> anyhow::Result<Erasure> {
        let is_theirs = |waiting: &InTransit<'_>| {
            let of_tenant = self.args.tenant.is_none() || self.accounts.contains(waiting.account);
            let in_body = !cuts(waiting.body, customer).is_empty();
            (of_tenant || waiting.account.is_empty()) && in_body
        };
        let before = self.in_transit(&mut found, is_theirs).await?;
        let returning = self.returning().await.context("Redis")?;
        let mut progress = ProgressLine::new("payloads read");
        let mut read = 0;
        for folder in self.payload_folders().await? {
            // Keys first: what is rewritten under another name must not be met again.
            let keys = self.list(&mut found, Bucket::Webhooks, &folder).await?;
            // Whoever settles these looks for them under their names.
            let (returning, keys): (Vec<_>, Vec<_>) =
                keys.into_iter().partition(|key| returning.contains(key));
            for key in returning {
                match self.deployment.store.read(&key).await {
                    Ok(kept) => {
                        found.waiting += usize::from(!cuts(&kept.body, customer).is_empty())
                    }
                    Err(ReadError::Gone) => {}
                    Err(error) => {
                        let why = error.to_string();
                        self.leave(&mut found, Bucket::Webhooks, key, why).await?;
                    }
                }
            }
            let done = stream::iter(keys).map(async |key| {
                let done = self.payload(&key, customer).await;
                (key, done)
            });
            let mut done = done.buffer_unordered(AT_ONCE);
            let top = folder.split('/').next().unwrap_or_default();
            while let Some((key, done)) = done.next().await {
                read += 1;
                progress.at(read, None);
                match done {
                    Ok(done) => found.count(top, done),
                    Err(why) => self.leave(&mut found, Bucket::Webhooks, key, why).await?,
                }
            }
        }
        // What was on its way before may have become an object since.
        found.waiting += before.max(self.in_transit(&mut found, is_theirs).await?);
        Ok(found)
    }

    /// Keys of the objects that are entries again, or about to be moved.
    async fn returning(&self) -> redis::RedisResult<HashSet<String>> {
        let mut redis = self.deployment.connection.clone();
        let mut all = HashSet::new();
        for partition in 0..self.deployment.keys.partitions() {
            let mut keys = redis::cmd("HKEYS");
            keys.arg(self.deployment.keys.returning(partition));
            let keys: Vec<String> = keys.query_async(&mut redis).await?;
            all.extend(keys);
        }
        Ok(all)
    }

    async fn payload_folders(&self) -> anyhow::Result<Vec<String>> {
        if let Some(tenant) = &self.args.tenant {
            return Ok(self.tenant_folders(tenant).collect());
        }
        let all = self.deployment.store.folders_in(Bucket::Webhooks, "").await;
        let mut all = all.context("the object store")?;
        all.retain(|folder| folder != "spool");
        Ok(all)
    }

    /// Deletes or rewrites one payload, if told to.
    ///
    /// # Errors
    /// Why it stays.
    async fn payload(&self, key: &str, customer: &str) -> Result<ErasedPayload, String> {
        let store = &self.deployment.store;
        let kept = match store.read(key).await {
            Ok(kept) => kept,
            Err(ReadError::Gone) => return Err("it was moved or deleted meanwhile".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let mut described = kept.described.clone();
        let (files, other_ids, rest) = match clear(&kept.body, &described, customer) {
            ClearedPayload::Untouched => return Ok(ErasedPayload::Untouched),
            ClearedPayload::Unreadable => return Err("it is no webhook, and has the id".to_owned()),
            ClearedPayload::Cut {
                gone,
                other_ids,
                rest,
            } => (self.media_of(key, &gone).await?, other_ids, rest),
        };
        let media = files.len();
        let why = |error: StoreError| error.to_string();
        if self.args.yes {
            // The files first: they are found through the payload.
            for file in files {
                store.delete(Bucket::Media, &file).await.map_err(why)?;
            }
        }
        let Some(rest) = rest else {
            if self.args.yes {
                store.delete(Bucket::Webhooks, key).await.map_err(why)?;
            }
            return Ok(ErasedPayload::Deleted { media, other_ids });
        };
        if self.args.yes {
            // Neither is true of the other bytes.
            for name in ["signature", "sha256"] {
                described.remove(name);
            }
            described.insert("items".to_owned(), rest.items.clone());
            described.insert("erased".to_owned(), "a customer's items".to_owned());
            let new_key = renamed(key, &rest);
            let put = store.put(&new_key, &described, Bytes::from(rest.body));
            put.await.map_err(why)?;
            if new_key != key {
                store.delete(Bucket::Webhooks, key).await.map_err(why)?;
            }
        }
        Ok(ErasedPayload::Rewritten { media, other_ids })
    }

    /// Files of messages that go, where the day of their payload's receipt has them.
    async fn media_of(&self, key: &str, gone: &[ErasedMedia]) -> Result<Vec<String>, String> {
        let mut parts = key.rsplit('/');
        let (_, day, tenant) = (parts.next(), parts.next(), parts.next());
        let (Some(day), Some(tenant)) = (day, tenant) else {
            return Ok(Vec::new());
        };
        let mut files = Vec::new();
        for ErasedMedia { id, kind } in gone {
            let folder = format!("{tenant}/{kind}/{day}");
            let named = self.deployment.store.media_in(&folder, id).await;
            files.extend(named.map_err(|error| error.to_string())?);
        }
        Ok(files)
    }
}
