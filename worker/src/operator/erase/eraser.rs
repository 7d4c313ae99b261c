//! Listing and deleting: what both ways of erasing do with the store.

use std::collections::BTreeSet;

use anyhow::Context;
use futures::stream::{self, StreamExt};

use super::EraseArgs;
use super::erasure::{Erasure, LeftObject};
use super::folders::{folders_of, unresolved_folders};
use crate::operator::Deployment;
use crate::operator::output::ProgressLine;
use crate::out::store::Bucket;

/// Objects in work side by side; each may have some MB.
pub(super) const AT_ONCE: usize = 8;

/// The deployment, and whose what is kept there is.
pub(super) struct Eraser<'a> {
    pub(super) deployment: Deployment,
    pub(super) accounts: BTreeSet<String>,
    pub(super) args: &'a EraseArgs,
}

impl Eraser<'_> {
    pub(super) fn tenant_folders(&self, tenant_id: &str) -> impl Iterator<Item = String> {
        let accounts = self.accounts.iter();
        let unresolved = accounts.flat_map(|account| unresolved_folders(Some(account)));
        folders_of(tenant_id).chain(unresolved)
    }

    pub(super) async fn delete(
        &self,
        found: &mut Erasure,
        keys: Vec<(Bucket, String)>,
    ) -> anyhow::Result<()> {
        let (mut progress, of) = (ProgressLine::new("deleted"), keys.len());
        let store = &self.deployment.store;
        let deleted = stream::iter(keys).map(async |(bucket, key)| {
            let deleted = store.delete(bucket, &key).await;
            (bucket, key, deleted)
        });
        let mut deleted = deleted.buffer_unordered(AT_ONCE).enumerate();
        while let Some((n, (bucket, key, deleted))) = deleted.next().await {
            if let Err(error) = deleted {
                self.leave(found, bucket, key, error.to_string()).await?;
            }
            progress.at(n + 1, Some(of));
        }
        Ok(())
    }

    /// Notes an object that stays, unless the store does nothing at all.
    pub(super) async fn leave(
        &self,
        found: &mut Erasure,
        bucket: Bucket,
        key: String,
        why: String,
    ) -> anyhow::Result<()> {
        self.store_answers().await?;
        let bucket = self.deployment.store.bucket_name(bucket).to_owned();
        found.left.insert(LeftObject { bucket, key, why });
        Ok(())
    }

    async fn store_answers(&self) -> anyhow::Result<()> {
        let probed = self.deployment.store.probe().await;
        probed.context("the object store")
    }

    /// Keys below a folder, as far as it can be listed.
    pub(super) async fn list(
        &self,
        found: &mut Erasure,
        bucket: Bucket,
        folder: &str,
    ) -> anyhow::Result<Vec<String>> {
        let mut listed = self.deployment.store.listed(bucket, folder);
        let mut keys = Vec::new();
        while let Some(key) = listed.next().await {
            match key {
                Ok(key) => keys.push(key),
                Err(error) => {
                    self.store_answers().await?;
                    let bucket = self.deployment.store.bucket_name(bucket);
                    let why = error.to_string();
                    found.unseen.insert(format!("{bucket}/{folder}"), why);
                    break;
                }
            }
        }
        Ok(keys)
    }
}
