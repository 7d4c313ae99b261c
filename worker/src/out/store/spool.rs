//! The folder in which ingress leaves what Redis can't take.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use shared::spool::FOLDER;
use shared::store::{path, whole};

use super::{Store, StoreError, StoreResult};

/// An object of the spool.
#[derive(Debug, Clone)]
pub struct SpoolObject {
    pub key: String,
    pub size_bytes: u64,
}

impl Store {
    /// The partitions of which something is in the spool.
    ///
    /// # Errors
    /// The store is away.
    pub async fn spooled_partitions(&self) -> StoreResult<BTreeSet<u16>> {
        let folder = path(FOLDER);
        let listed = self.webhooks.list_with_delimiter(Some(&folder)).await?;
        let names = listed.common_prefixes.iter();
        let numbers = names.filter_map(|folder| folder.filename()?.parse().ok());
        Ok(numbers.collect())
    }

    /// How much of a partition is in the spool, counted up to `most`.
    ///
    /// # Errors
    /// The store is away.
    pub async fn count_spooled(&self, partition: u16, most: usize) -> StoreResult<usize> {
        let objects = self.spooled(partition).take(most);
        objects.try_fold(0, async |count, _| Ok(count + 1)).await
    }

    /// A partition's objects, those received first at the front.
    pub fn spooled(&self, partition: u16) -> BoxStream<'_, StoreResult<SpoolObject>> {
        let folder = path(&format!("{FOLDER}/{partition}"));
        let listed = self.webhooks.list(Some(&folder));
        let objects = listed.map_ok(|object| SpoolObject {
            key: object.location.to_string(),
            size_bytes: object.size,
        });
        objects.map_err(StoreError::from).boxed()
    }

    /// An object's bytes, as many as were listed; `None` if it is gone.
    ///
    /// # Errors
    /// The store is away, or sends something else.
    pub async fn spool_object(&self, object: &SpoolObject) -> StoreResult<Option<Bytes>> {
        match self.webhooks.get(&path(&object.key)).await {
            Ok(found) => Ok(Some(whole(found, object.size_bytes).await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
