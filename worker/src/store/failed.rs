//! Reading back what was set aside.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::{Attribute, Attributes, GetOptions, ObjectStore, ObjectStoreExt};

use shared::store::path;

use super::Store;

/// An object that was read back.
pub struct Kept {
    /// By name, as they were written.
    pub described: BTreeMap<String, String>,
    pub body: Bytes,
}

impl Store {
    /// The keys below a folder.
    pub fn keys_below(&self, folder: &str) -> BoxStream<'_, object_store::Result<String>> {
        let folder = path(folder);
        let listed = self.webhooks.list(Some(&folder));
        listed
            .map(|object| object.map(|object| object.location.to_string()))
            .boxed()
    }

    /// How many objects were set aside, counted up to `most`.
    ///
    /// # Errors
    /// The store is away.
    pub async fn count_failed(&self, most: usize) -> object_store::Result<usize> {
        let keys = self.keys_below("failed").take(most);
        keys.try_fold(0, async |count, _| Ok(count + 1)).await
    }

    /// What an object says of itself.
    ///
    /// # Errors
    /// The store is away, or there is no such object.
    pub async fn described(&self, key: &str) -> object_store::Result<BTreeMap<String, String>> {
        let options = GetOptions::new().with_head(true);
        let head = self.webhooks.get_opts(&path(key), options).await?;
        Ok(described(&head.attributes))
    }

    /// An object.
    ///
    /// # Errors
    /// The store is away, or there is no such object.
    pub async fn read(&self, key: &str) -> object_store::Result<Kept> {
        let object = self.webhooks.get(&path(key)).await?;
        Ok(Kept {
            described: described(&object.attributes),
            body: object.bytes().await?,
        })
    }

    /// Moves an object. Stopped in between, it lies at both keys.
    ///
    /// # Errors
    /// The store is away, or there is no such object.
    pub async fn shift(&self, from: &str, to: &str) -> object_store::Result<()> {
        self.webhooks.copy(&path(from), &path(to)).await?;
        self.remove(from).await
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The store is away.
    pub async fn remove(&self, key: &str) -> object_store::Result<()> {
        self.webhooks.delete(&path(key)).await
    }
}

fn described(attributes: &Attributes) -> BTreeMap<String, String> {
    let described = attributes.iter().filter_map(|(name, value)| match name {
        Attribute::Metadata(name) => Some((name.to_string(), value.to_string())),
        _ => None,
    });
    described.collect()
}
