//! What lies in a bucket, for tests that look.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{Attribute, Error, ObjectStore, ObjectStoreExt};
use reqwest::{Method, StatusCode};

use crate::servers::S3Access;

/// One bucket.
#[derive(Debug)]
pub struct Store {
    bucket: String,
    client: AmazonS3,
}

/// An object and what is written beside it.
#[derive(Debug, Clone)]
pub struct Object {
    pub bytes: Bytes,
    /// User metadata (`x-amz-meta-…`), names without that prefix.
    pub metadata: BTreeMap<String, String>,
    pub content_type: Option<String>,
}

impl Store {
    /// # Panics
    /// If the access can't make a client (an endpoint that is no URL).
    pub fn new(access: &S3Access, bucket: impl Into<String>) -> Self {
        crate::install_tls_provider();
        let bucket = bucket.into();
        let client = AmazonS3Builder::new()
            .with_endpoint(&access.endpoint)
            .with_access_key_id(&access.access_key)
            .with_secret_access_key(&access.secret_key)
            .with_region(&access.region)
            .with_bucket_name(&bucket)
            .with_allow_http(true)
            .build()
            .expect("a client of the test's S3");
        Self { bucket, client }
    }

    pub fn client(&self) -> &AmazonS3 {
        &self.client
    }

    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Creates the bucket; one that is there already stays.
    ///
    /// # Errors
    /// The store can't be reached or refuses.
    pub async fn create_bucket(&self) -> anyhow::Result<()> {
        let minute = Duration::from_secs(60);
        // The signed URL of the empty key is the bucket's.
        let url = self
            .client
            .signed_url(Method::PUT, &Path::default(), minute)
            .await?;
        let answer = reqwest::Client::builder()
            .timeout(minute)
            .build()?
            .put(url)
            .send()
            .await?;
        match answer.status() {
            status if status.is_success() || status == StatusCode::CONFLICT => Ok(()),
            status => bail!("creating bucket {}: {status}", self.bucket),
        }
    }

    /// Keys below a prefix of whole segments (`""`: all), sorted. A missing bucket has none.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn list(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let prefix = Path::parse(prefix)?;
        let found: Result<Vec<_>, _> = self.client.list(Some(&prefix)).try_collect().await;
        match found {
            Ok(objects) => {
                let keys = objects
                    .into_iter()
                    .map(|object| object.location.to_string());
                let mut keys: Vec<String> = keys.collect();
                keys.sort();
                Ok(keys)
            }
            // Unlike reading, listing has no typed error for this.
            Err(error) if error.to_string().contains("NoSuchBucket") => Ok(Vec::new()),
            Err(error) => Err(error).context("listing a bucket"),
        }
    }

    /// An object's bytes, or `None` if there is no such object (or bucket).
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn get(&self, key: &str) -> anyhow::Result<Option<Bytes>> {
        Ok(self.object(key).await?.map(|object| object.bytes))
    }

    /// An object with its metadata, or `None` if there is no such object (or bucket).
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn object(&self, key: &str) -> anyhow::Result<Option<Object>> {
        let result = match self.client.get(&Path::parse(key)?).await {
            Ok(result) => result,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error).context("reading an object"),
        };
        let mut metadata = BTreeMap::new();
        let mut content_type = None;
        for (name, value) in &result.attributes {
            match name {
                Attribute::Metadata(name) => {
                    metadata.insert(name.to_string(), value.to_string());
                }
                Attribute::ContentType => content_type = Some(value.to_string()),
                _ => {}
            }
        }
        Ok(Some(Object {
            bytes: result.bytes().await?,
            metadata,
            content_type,
        }))
    }
}
