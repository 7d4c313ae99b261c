//! The object store: raw archive, failed store and media.

mod media;

mod kept;

mod spool;
mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use chrono::DateTime;
use data_encoding::HEXLOWER;
use object_store::aws::AmazonS3;
use object_store::{
    Attribute, AttributeValue, Attributes, GetOptions, ObjectStore, PutMode, PutOptions,
};
use sha2::{Digest, Sha256};
use shared::entry::StreamEntry;
use shared::outgoing;
use shared::store::{StoreArgs, StoreKeys, StorePatience, path};
use shared::webhook::{Identity, Place};
use tokio::sync::Semaphore;
use tracing::Instrument;
use url::Url;

use crate::item::event::RawObject;
use crate::item::payload::{Payload, PayloadItem};
use clap::Args;
use shared::config::duration;

/// What else the worker keeps in the object store.
#[derive(Args, Debug, Clone)]
pub struct ObjectArgs {
    /// The store as those see it who get presigned URLs; default: the endpoint
    #[arg(long, env = "MINIO_PUBLIC_ENDPOINT")]
    pub minio_public_endpoint: Option<Url>,
    /// Media; created if missing
    #[arg(long, env = "MINIO_MEDIA_BUCKET", default_value = "media-inbound")]
    pub minio_media_bucket: String,
    /// How long a presigned URL works; 7 days at most
    #[arg(long, env = "PRESIGN_EXPIRY", default_value = "1h", value_parser = duration)]
    pub presign_expiry: Duration,
    /// false: no raw archive
    #[arg(long, env = "ARCHIVE", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub archive: bool,
}

pub use self::spool::SpoolObject;
pub use shared::store::{StoreError, StoreResult};

pub use self::kept::{ReadError, StoredObject};
pub use self::media::{MediaFound, MediaHead, MediaPutError, Presigned};
pub use self::survey::{Bucket, Canary};

/// More would not make the store faster, only each write later.
const WRITES_AT_ONCE: usize = 32;
/// What fails is owed, and tried for ever.
const PATIENCE: StorePatience = StorePatience {
    connect: Duration::from_secs(2),
    request: Duration::from_secs(30),
    retry: Duration::from_secs(5),
};
/// Ids longer than this are hashed.
const LONGEST_ID: usize = 200;

/// Folder of what was set aside, and of what of it went out in the end.
pub const FAILED: &str = "failed/";
pub const REPLAYED: &str = "replayed/";
/// Folder of what an operator discarded; a lifecycle rule may delete it.
pub const DISCARDED: &str = "discarded/";
/// Folder of the accounts without a tenant.
pub const UNRESOLVED: &str = "_unresolved";
/// An object's attribute: hex digest of its bytes.
const SHA256: &str = "sha256";

/// An object's attributes: short texts by name.
pub type ObjectAttributes = BTreeMap<&'static str, String>;

/// The buckets.
pub struct Store {
    webhooks: AmazonS3,
    media: AmazonS3,
    /// The media bucket as the public sees it; only signs.
    public: AmazonS3,
    args: StoreArgs,
    more: ObjectArgs,
    keys: Arc<StoreKeys>,
    client: reqwest::Client,
    /// Without a time limit: its requests have the size of a file, and are watched.
    uploads: reqwest::Client,
    writes: Semaphore,
}

impl Store {
    /// # Errors
    /// Settings that can't be used.
    pub fn new(args: &StoreArgs, more: &ObjectArgs, keys: StoreKeys) -> anyhow::Result<Self> {
        let keys = Arc::new(keys);
        let bucket =
            |endpoint: &Url, name: &str| args.bucket(endpoint, name, keys.clone(), PATIENCE);
        let webhooks = bucket(&args.minio_endpoint, &args.minio_webhook_bucket)
            .context("MINIO_ENDPOINT (--minio-endpoint)")?;
        let media = bucket(&args.minio_endpoint, &more.minio_media_bucket)
            .context("MINIO_ENDPOINT (--minio-endpoint)")?;
        let public = more.minio_public_endpoint.as_ref();
        let public = bucket(
            public.unwrap_or(&args.minio_endpoint),
            &more.minio_media_bucket,
        )
        .context("MINIO_PUBLIC_ENDPOINT (--minio-public-endpoint)")?;
        let client = outgoing::client().timeout(PATIENCE.request).build()?;
        let uploads = outgoing::client()
            .connect_timeout(PATIENCE.connect)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            webhooks,
            media,
            public,
            args: args.clone(),
            more: more.clone(),
            keys,
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
            &self.more.minio_media_bucket,
        ] {
            self.args
                .create_bucket(&self.client, &self.keys, bucket)
                .await?;
        }
        Ok(())
    }

    /// Whether the store answers and lets us in.
    ///
    /// # Errors
    /// It doesn't.
    pub async fn probe(&self) -> StoreResult<()> {
        shared::store::probe(&self.webhooks).await
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
        self.more.archive
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
    ) -> StoreResult<()> {
        self.put_as(PutMode::Overwrite, key, described, body).await
    }

    /// Writes an object that may not take another one's place: where its key has other bytes (of another
    /// webhook with the same message id that came in the same millisecond), it goes under the [`alternative_key`]. The same key and bytes
    /// may be written twice.
    ///
    /// # Errors
    /// The store is away or refuses.
    pub async fn put_apart(
        &self,
        key: &str,
        described: &BTreeMap<String, String>,
        body: Bytes,
    ) -> StoreResult<()> {
        let created = self
            .put_as(PutMode::Create, key, described, body.clone())
            .await;
        match created {
            Err(error) if error.is_there_already() => {}
            ended => return ended,
        }
        let options = GetOptions::new().with_head(true);
        let there = self.webhooks.get_opts(&path(key), options).await?;
        let digest = Attribute::Metadata(SHA256.into());
        let same = there.attributes.get(&digest).map(AsRef::as_ref) == Some(&*sha256(&body));
        if same {
            return self.put(key, described, body).await;
        }
        let alternative = alternative_key(key, Identity::of_body(&body));
        self.put(&alternative, described, body).await
    }

    async fn put_as(
        &self,
        mode: PutMode,
        key: &str,
        described: &BTreeMap<String, String>,
        body: Bytes,
    ) -> StoreResult<()> {
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, "application/json".into());
        attributes.insert(Attribute::Metadata(SHA256.into()), sha256(&body).into());
        for (name, value) in described {
            attributes.insert(
                Attribute::Metadata(name.clone().into()),
                AttributeValue::from(header_text(value)),
            );
        }
        let options = PutOptions {
            mode,
            attributes,
            ..PutOptions::default()
        };
        // The semaphore is never closed.
        let _permit = self.writes.acquire().await;
        let span = tracing::debug_span!("minio put", otel.kind = "client", bucket = "webhooks");
        let key = path(key);
        let put = self.webhooks.put_opts(&key, body.into(), options);
        put.instrument(span).await?;
        Ok(())
    }
}

/// What an entry of this id says of the objects that are made of it.
pub fn described_by(id: &str, entry: &StreamEntry) -> ObjectAttributes {
    let all = [
        ("entry", id.to_owned()),
        ("correlation-id", entry.correlation_id.clone()),
        ("signature", entry.signature.clone()),
        ("waba-id", entry.waba_id.clone()),
        ("received-at", entry.received_at_ms.to_string()),
        ("traceparent", entry.traceparent.clone()),
    ];
    let said = all.into_iter().filter(|(_, value)| !value.is_empty());
    said.collect()
}

/// The folder of a tenant, or of an account that has none.
pub fn folder(tenant_id: Option<&str>, waba_id: &str) -> String {
    match tenant_id {
        Some(tenant_id) => segment(tenant_id),
        None => format!("{UNRESOLVED}/{}", segment(waba_id)),
    }
}

/// Whether a folder of the webhook bucket is no tenant's archive.
pub fn is_reserved(folder: &str) -> bool {
    ["discarded", "failed", "replayed", "returning", "spool"].contains(&folder)
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
    format!("{FAILED}{}", archive_key(folder, received_at_ms, name))
}

/// What an object is called after its first item: an inbound message's id; of anything else its id,
/// or field, with a piece of its identity.
pub fn item_name(payload: &Payload, item: &PayloadItem) -> String {
    let id = item.id.as_deref().filter(|id| !id.is_empty());
    match (item.place, id) {
        (Place::Message, Some(id)) => segment(id),
        (_, Some(_) | None) => name_apart(payload, item),
    }
}

/// What the objects of an entry are called: after its first fresh item.
pub fn entry_name(payload: &Payload) -> String {
    let first = payload.entry.fresh.first();
    match first.and_then(|n| payload.items.get(*n)) {
        Some(item) => item_name(payload, item),
        None => body_name(&payload.entry.body),
    }
}

/// The same where another object of the same time may be called after a message of the same id.
pub fn name_apart(payload: &Payload, item: &PayloadItem) -> String {
    let id = item.id.as_deref().filter(|id| !id.is_empty());
    let id = segment(id.unwrap_or(payload.field(item)));
    format!("{id}.{}", item.identity.short())
}

/// The key of an object whose own key is taken by other bytes. `body`: identity of its own.
pub fn alternative_key(key: &str, body: Identity) -> String {
    let stem = key.strip_suffix(".json").unwrap_or(key);
    format!("{stem}.{}.json", body.short())
}

/// What the object of a body without items is called.
pub fn body_name(body: &[u8]) -> String {
    format!("body.{}", Identity::of_body(body).short())
}

/// Text as one segment of a key: nothing in it can lead out of its folder.
pub(crate) fn segment(text: &str) -> String {
    if text.len() > LONGEST_ID {
        return sha256(text.as_bytes());
    }
    let dots = text.bytes().all(|byte| byte == b'.');
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'.' if dots => segment.push_str("%2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'=' => {
                segment.push(char::from(byte));
            }
            other => segment.push_str(&format!("%{other:02X}")),
        }
    }
    segment
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// Printable ASCII without double spaces, which break signatures in some stores; at most 500 bytes.
pub fn header_text(text: &str) -> String {
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
