//! Looking over both buckets, for commands.

use bytes::Bytes;
use chrono::DateTime;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use shared::store::{path, whole};
use uuid::Uuid;

use super::{Store, StoreError, StoreResult};

/// No canary is larger.
const CANARY_BYTES: u64 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    Webhooks,
    Media,
}

impl Store {
    pub(super) fn bucket(&self, bucket: Bucket) -> &AmazonS3 {
        match bucket {
            Bucket::Webhooks => &self.webhooks,
            Bucket::Media => &self.media,
        }
    }

    /// Keys below a folder (`""`: all), in their order.
    pub fn listed(&self, bucket: Bucket, folder: &str) -> BoxStream<'_, StoreResult<String>> {
        let folder = path(folder);
        let listed = self.bucket(bucket).list(Some(&folder));
        listed
            .map_ok(|object| object.location.to_string())
            .map_err(StoreError::from)
            .boxed()
    }

    /// Folders directly below a folder (`""`: the root) of a bucket.
    ///
    /// # Errors
    /// The store is away or refuses.
    pub async fn folders_in(&self, bucket: Bucket, folder: &str) -> StoreResult<Vec<String>> {
        let folder = path(folder);
        let listed = self
            .bucket(bucket)
            .list_with_delimiter(Some(&folder))
            .await?;
        let folders = listed.common_prefixes.into_iter();
        Ok(folders.map(|folder| folder.to_string()).collect())
    }

    /// Deletes an object; one that is gone already is deleted.
    ///
    /// # Errors
    /// The store is away or refuses.
    pub async fn delete(&self, bucket: Bucket, key: &str) -> StoreResult<()> {
        match self.bucket(bucket).delete(&path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Store {
    pub fn bucket_name(&self, bucket: Bucket) -> &str {
        match bucket {
            Bucket::Webhooks => &self.args.minio_webhook_bucket,
            Bucket::Media => &self.more.minio_media_bucket,
        }
    }

    /// A small object of its own, to try out what the key is allowed and the store can do.
    pub fn canary(&self, bucket: Bucket) -> Canary<'_> {
        Canary {
            store: self,
            bucket,
            key: format!("_doctor/{}", Uuid::new_v4()),
        }
    }
}

pub struct Canary<'s> {
    store: &'s Store,
    bucket: Bucket,
    pub key: String,
}

impl Canary<'_> {
    fn client(&self) -> &AmazonS3 {
        self.store.bucket(self.bucket)
    }

    /// # Errors
    /// The store is away or refuses.
    pub async fn put(&self, bytes: Bytes) -> StoreResult<()> {
        self.client().put(&path(&self.key), bytes.into()).await?;
        Ok(())
    }

    /// The bytes, and the store's time (ms).
    ///
    /// # Errors
    /// The store is away or refuses.
    pub async fn get(&self) -> StoreResult<(Bytes, Option<i64>)> {
        let got = self.client().get(&path(&self.key)).await?;
        let written = got.meta.last_modified;
        let written = (written > DateTime::UNIX_EPOCH).then(|| written.timestamp_millis());
        let size_bytes = got.meta.size;
        Ok((whole(got, size_bytes.min(CANARY_BYTES)).await?, written))
    }

    /// Whether a second write that must not replace anything is refused.
    ///
    /// # Errors
    /// The store is away or refuses.
    pub async fn is_conditional(&self) -> StoreResult<bool> {
        let (key, bytes) = (path(&self.key), Bytes::from_static(b"canary"));
        let put = self
            .client()
            .put_opts(&key, bytes.into(), PutMode::Create.into());
        match put.await {
            Ok(_) => Ok(false),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// How many of three writes at once that must not replace anything win: one, where the store decides
    /// about them one after the other.
    ///
    /// # Errors
    /// The store is away or refuses.
    pub async fn winners_at_once(&self) -> StoreResult<usize> {
        let key = path(&format!("_doctor/at-once/{}", Uuid::new_v4()));
        let write = async || {
            let put = self.client().put_opts(
                &key,
                Bytes::from_static(b"canary").into(),
                PutMode::Create.into(),
            );
            match put.await {
                Ok(_) => Ok(1),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(0),
                Err(error) => Err(error),
            }
        };
        let (first, second, third) = tokio::join!(write(), write(), write());
        self.client().delete(&key).await?;
        Ok(first? + second? + third?)
    }

    /// Whether it is given to those who sign nothing.
    ///
    /// # Errors
    /// The store is away.
    pub async fn is_public(&self) -> anyhow::Result<bool> {
        let mut url = self.store.args.minio_endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            path.push(self.store.bucket_name(self.bucket));
            path.extend(self.key.split('/'));
        }
        let answer = self.store.client.get(url).send().await;
        Ok(answer
            .map_err(reqwest::Error::without_url)?
            .status()
            .is_success())
    }

    /// # Errors
    /// The store is away or refuses.
    pub async fn delete(&self) -> StoreResult<()> {
        Ok(self.client().delete(&path(&self.key)).await?)
    }
}
