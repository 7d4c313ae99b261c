//! Reading back what was written: the failed store and the archive.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::{Attribute, Attributes, GetOptions, ObjectStore, ObjectStoreExt};
use shared::store::{path, whole};

use super::{SHA256, Store, StoreError, StoreResult, sha256};

/// A larger object is none of ours: webhooks are bounded, and a fault may have put anything there.
const LARGEST: u64 = 64 * 1024 * 1024;

/// An object that was read back.
#[derive(Debug)]
pub struct StoredObject {
    /// By name, as they were written.
    pub described: BTreeMap<String, String>,
    pub body: Bytes,
}

impl StoredObject {
    /// An attribute; empty if it has none of the name.
    pub fn of(&self, name: &str) -> &str {
        self.described.get(name).map_or("", String::as_str)
    }
}

/// Why an object can't be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("it is gone")]
    Gone,
    #[error("it has {0} bytes, more than any webhook")]
    TooLarge(u64),
    #[error("its bytes are not those that were written: their SHA-256 differs")]
    Corrupt,
    #[error("the object store: {0}")]
    Store(StoreError),
}

impl From<object_store::Error> for ReadError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Gone,
            error => Self::Store(error.into()),
        }
    }
}

impl Store {
    /// The keys below a folder that come after `after`, in ascending order of their bytes.
    pub fn keys_below(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> BoxStream<'_, StoreResult<String>> {
        let folder = path(folder);
        let listed = match after {
            Some(after) => self.webhooks.list_with_offset(Some(&folder), &path(after)),
            None => self.webhooks.list(Some(&folder)),
        };
        listed
            .map_ok(|object| object.location.to_string())
            .map_err(StoreError::from)
            .boxed()
    }

    /// How many objects were set aside, counted up to `most`.
    ///
    /// # Errors
    /// The store is away.
    pub async fn count_failed(&self, most: usize) -> StoreResult<usize> {
        let keys = self.keys_below("failed", None).take(most);
        keys.try_fold(0, async |count, _| Ok(count + 1)).await
    }

    /// What an object says of itself.
    ///
    /// # Errors
    /// The store is away, or there is no such object.
    pub async fn described(&self, key: &str) -> Result<BTreeMap<String, String>, ReadError> {
        let options = GetOptions::new().with_head(true);
        let head = self.webhooks.get_opts(&path(key), options).await?;
        Ok(described(&head.attributes))
    }

    /// An object.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, key: &str) -> Result<StoredObject, ReadError> {
        let object = self.webhooks.get(&path(key)).await?;
        let size_bytes = object.meta.size;
        if size_bytes > LARGEST {
            return Err(ReadError::TooLarge(size_bytes));
        }
        let described = described(&object.attributes);
        let body = whole(object, size_bytes).await?;
        match described.get(SHA256) {
            Some(digest) if *digest != sha256(&body) => Err(ReadError::Corrupt),
            Some(_) | None => Ok(StoredObject { described, body }),
        }
    }

    /// Moves an object. Stopped in between, it lies at both keys.
    ///
    /// # Errors
    /// The store is away, or there is no such object.
    pub async fn shift(&self, from: &str, to: &str) -> StoreResult<()> {
        self.webhooks.copy(&path(from), &path(to)).await?;
        self.remove(from).await
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The store is away.
    pub async fn remove(&self, key: &str) -> StoreResult<()> {
        Ok(self.webhooks.delete(&path(key)).await?)
    }
}

fn described(attributes: &Attributes) -> BTreeMap<String, String> {
    let described = attributes.iter().filter_map(|(name, value)| match name {
        Attribute::Metadata(name) => Some((name.to_string(), value.to_string())),
        _ => None,
    });
    described.collect()
}
