//! The object store: raw archive, failed store and media.

mod media;

mod failed;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use object_store::CredentialProvider;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::{ClientOptions, HttpRequestBody};
use object_store::path::Path;
use object_store::{
    Attribute, AttributeValue, Attributes, BackoffConfig, ObjectStore, ObjectStoreExt, PutOptions,
    RetryConfig,
};
use sha2::{Digest, Sha256};
use shared::webhook::{Identity, Place};
use tokio::sync::Semaphore;
use url::Url;

use crate::config::{StoreArgs, StoreKeys};
use crate::event::RawObject;
use crate::payload::PayloadItem;

pub use self::media::{MediaFound, MediaHead, MediaPutError, Presigned};

/// More would not make the store faster, only each write later.
const WRITES_AT_ONCE: usize = 32;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Ids longer than this are hashed.
const LONGEST_ID: usize = 200;

/// An object's attributes: short texts by name.
pub type Described = BTreeMap<&'static str, String>;

#[async_trait]
impl CredentialProvider for StoreKeys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Ok(Arc::new(AwsCredential {
            key_id: self.access.current().expose().to_owned(),
            secret_key: self.secret.current().expose().to_owned(),
            token: None,
        }))
    }
}

/// The buckets.
pub struct Store {
    webhooks: AmazonS3,
    media: AmazonS3,
    /// The media bucket as the public sees it; only signs.
    public: AmazonS3,
    args: StoreArgs,
    client: reqwest::Client,
    /// Without a time limit: its requests have the size of a file, and are watched.
    uploads: reqwest::Client,
    writes: Semaphore,
}

impl Store {
    /// # Errors
    /// Settings that can't be used.
    pub fn new(args: &StoreArgs, keys: StoreKeys) -> anyhow::Result<Self> {
        let keys = Arc::new(keys);
        let bucket =
            |endpoint: &Url, name: &str| builder(args, keys.clone(), endpoint, name).build();
        let webhooks = bucket(&args.minio_endpoint, &args.minio_webhook_bucket)
            .context("MINIO_ENDPOINT (--minio-endpoint)")?;
        let media = bucket(&args.minio_endpoint, &args.minio_media_bucket)
            .context("MINIO_ENDPOINT (--minio-endpoint)")?;
        let public = args.minio_public_endpoint.as_ref();
        let public = bucket(
            public.unwrap_or(&args.minio_endpoint),
            &args.minio_media_bucket,
        )
        .context("MINIO_PUBLIC_ENDPOINT (--minio-public-endpoint)")?;
        let client = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .build()?;
        let uploads = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            webhooks,
            media,
            public,
            args: args.clone(),
            client,
            uploads,
            writes: Semaphore::new(WRITES_AT_ONCE),
        })
    }

    /// Creates the buckets that are missing.
    ///
    /// # Errors
    /// The store is away, or refuses.
    pub async fn create_buckets(&self) -> anyhow::Result<()> {
        for bucket in [
            &self.args.minio_webhook_bucket,
            &self.args.minio_media_bucket,
        ] {
            self.create_bucket(bucket)
                .await
                .with_context(|| format!("bucket {bucket} can't be created"))?;
        }
        Ok(())
    }

    async fn create_bucket(&self, bucket: &str) -> anyhow::Result<()> {
        let mut url: Url = self.args.minio_endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("MINIO_ENDPOINT can't have a path added"))?
            .pop_if_empty()
            .push(bucket);
        let body = if self.args.minio_region == "us-east-1" {
            String::new()
        } else {
            format!(
                "<CreateBucketConfiguration><LocationConstraint>{}</LocationConstraint>\
                 </CreateBucketConfiguration>",
                self.args.minio_region
            )
        };
        let credential = self.webhooks.credentials().get_credential().await?;
        let mut signed =
            hyper::Request::put(url.as_str()).body(HttpRequestBody::from(body.clone()))?;
        AwsAuthorizer::new(&credential, "s3", &self.args.minio_region)
            .try_authorize(&mut signed, None)?;
        let answer = self
            .client
            .put(url)
            .headers(signed.headers().clone())
            .body(body)
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        // 409 also says that it is another's: then writing fails, and says so.
        if status.is_success() || status == 409 || text.contains("BucketAlreadyOwnedByYou") {
            return Ok(());
        }
        bail!("the store answered {status}");
    }

    /// Whether the store answers and lets us in.
    ///
    /// # Errors
    /// It doesn't.
    pub async fn probe(&self) -> object_store::Result<()> {
        match self.webhooks.head(&Path::from("probe")).await {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Where an event says that its raw payload lies.
    pub fn raw_object(&self, key: &str) -> RawObject {
        RawObject {
            bucket: self.args.minio_webhook_bucket.clone(),
            key: key.to_owned(),
        }
    }

    /// Whether raw payloads are archived.
    pub fn archives(&self) -> bool {
        self.args.archive
    }

    /// Writes an object. The same key and bytes may be written twice.
    ///
    /// # Errors
    /// The store is away or refuses.
    pub async fn put(
        &self,
        key: &str,
        described: &BTreeMap<String, String>,
        body: Bytes,
    ) -> object_store::Result<()> {
        let path = Path::parse(key).unwrap_or_else(|_| Path::from(key));
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, "application/json".into());
        for (name, value) in described {
            attributes.insert(
                Attribute::Metadata(name.clone().into()),
                AttributeValue::from(header_text(value)),
            );
        }
        let options = PutOptions {
            attributes,
            ..PutOptions::default()
        };
        // The semaphore is never closed.
        let _permit = self.writes.acquire().await;
        self.webhooks.put_opts(&path, body.into(), options).await?;
        Ok(())
    }
}

fn builder(
    args: &StoreArgs,
    keys: Arc<StoreKeys>,
    endpoint: &Url,
    bucket: &str,
) -> AmazonS3Builder {
    AmazonS3Builder::new()
        .with_endpoint(endpoint.as_str().trim_end_matches('/'))
        .with_region(&args.minio_region)
        .with_bucket_name(bucket)
        .with_credentials(keys)
        .with_virtual_hosted_style_request(false)
        .with_client_options(
            ClientOptions::new()
                .with_allow_http(true)
                .with_timeout(REQUEST_TIMEOUT)
                .with_connect_timeout(CONNECT_TIMEOUT),
        )
        // What fails goes to the later-list, which tries for ever.
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 1,
            retry_timeout: Duration::from_secs(5),
        })
}

/// An error of the store, for the log: without keys, since a message's id holds a phone number.
pub fn told(error: &object_store::Error) -> String {
    let text = error.to_string();
    let words = text
        .split_whitespace()
        .map(|word| match word.split_once("://") {
            Some((scheme, rest)) => {
                let host = rest.split('/').next().unwrap_or_default();
                format!("{scheme}://{host}/…")
            }
            None if word.contains('/') || word.contains("wamid") => "…".to_owned(),
            None => word.to_owned(),
        });
    words.collect::<Vec<_>>().join(" ")
}

/// The folder of a tenant, or of an account that has none.
pub fn folder(tenant_id: Option<&str>, waba_id: &str) -> String {
    match tenant_id {
        Some(tenant_id) => segment(tenant_id),
        None => format!("_unresolved/{}", segment(waba_id)),
    }
}

/// Key of a raw payload.
pub fn archive_key(folder: &str, received_at_ms: i64, name: &str) -> String {
    let day = DateTime::from_timestamp_millis(received_at_ms)
        .unwrap_or_default()
        .format("%Y-%m-%d");
    format!("{folder}/{day}/{received_at_ms}-{name}.json")
}

/// Key of what was set aside.
pub fn failed_key(folder: &str, received_at_ms: i64, name: &str) -> String {
    format!("failed/{}", archive_key(folder, received_at_ms, name))
}

/// What an object is called after its first item: an inbound message's id; of anything else its id,
/// or field, with a piece of its identity.
pub fn item_name(item: &PayloadItem) -> String {
    let id = item.id.as_deref().filter(|id| !id.is_empty());
    match (item.place, id) {
        (Place::Message, Some(id)) => segment(id),
        (_, Some(id)) => format!("{}.{}", segment(id), item.identity.short()),
        (_, None) => format!("{}.{}", segment(&item.field), item.identity.short()),
    }
}

/// What the object of a body without items is called.
pub fn body_name(body: &[u8]) -> String {
    format!("body.{}", Identity::of_body(body).short())
}

/// Text as one segment of a key: nothing in it can lead out of its folder.
pub(crate) fn segment(text: &str) -> String {
    if text.len() > LONGEST_ID {
        let hash = Sha256::digest(text.as_bytes());
        return hash.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    let dots = text.bytes().all(|byte| byte == b'.');
    text.bytes()
        .map(|byte| match byte {
            b'.' if dots => "%2E".to_owned(),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'=' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Printable ASCII without double spaces, which break signatures in some stores; at most 500 bytes.
fn header_text(text: &str) -> String {
    let ascii: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .take(500)
        .collect();
    ascii.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_no_key() {
        let at = "http://store:9000/bucket/t/2026-01-02/1-wamid.HBgLMTY.json";
        for error in [
            object_store::Error::NotFound {
                path: "t/2026-01-02/1-wamid.HBgLMTY.json".to_owned(),
                source: "none".into(),
            },
            object_store::Error::Generic {
                store: "S3",
                source: format!("Error performing PUT {at} in 1ms - 503").into(),
            },
        ] {
            let told = told(&error);
            assert!(!told.contains("HBgLMTY"), "{told}");
        }
        assert_eq!(
            told(&object_store::Error::Generic {
                store: "S3",
                source: format!("PUT {at} in 1ms").into(),
            }),
            "Generic S3 error: PUT http://store:9000/… in 1ms"
        );
    }

    #[test]
    fn no_id_leaves_its_folder() {
        assert_eq!(segment(".."), "%2E%2E");
        assert_eq!(segment("a/../b"), "a%2F..%2Fb");
        assert_eq!(segment(&"x".repeat(300)).len(), 64);
        assert_eq!(
            archive_key(&folder(Some("t/1"), "7"), 1_700_000_000_000, "wamid.A"),
            "t%2F1/2023-11-14/1700000000000-wamid.A.json"
        );
    }
}
