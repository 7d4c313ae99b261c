//! The media bucket: objects written in one streamed request each, so that an upload that breaks
//! off leaves nothing behind, and URLs for people who have no keys.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{Attribute, GetOptions, ObjectStore, ObjectStoreExt};
use reqwest::header::{
    CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH,
};
use reqwest::{Method, StatusCode};

use sha2::{Digest, Sha256};
use shared::store::path;

use super::{Store, StoreError, StoreResult};

/// The store looks at this when the request begins.
const PUT_URL_LIFE: Duration = Duration::from_secs(900);

/// What is written beside a media object.
#[derive(Debug, Clone)]
pub struct MediaHead {
    pub content_type: String,
    pub content_disposition: String,
    /// Printable ASCII by name.
    pub metadata: Vec<(&'static str, String)>,
    /// Base64; a store that knows `x-amz-checksum-sha256` refuses other bytes.
    pub sha256: Option<String>,
}

/// A media object that is there.
#[derive(Debug, Clone)]
pub struct MediaFound {
    pub size_bytes: u64,
    pub metadata: BTreeMap<String, String>,
}

/// A URL that gives an object to whoever has it.
#[derive(Debug, Clone)]
pub struct Presigned {
    pub url: String,
    pub expires_at: DateTime<Utc>,
}

/// Why an object wasn't written. Names no URL, since a URL is signed.
#[derive(Debug, thiserror::Error)]
pub enum MediaPutError {
    #[error("an object of this key is there already")]
    Exists,
    #[error("the store answered {0}")]
    Answer(StatusCode),
    #[error("the store can't be reached")]
    Unreachable,
    #[error("the request can't be signed")]
    Unsignable,
}

impl Store {
    /// What is known of the object of a key.
    ///
    /// # Errors
    /// The store is away or refuses.
    pub async fn media_found(&self, key: &str) -> StoreResult<Option<MediaFound>> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let found = match self.media.get_opts(&path(key), options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = found.attributes.iter().filter_map(|(name, value)| {
            let Attribute::Metadata(name) = name else {
                return None;
            };
            Some((name.to_string(), value.to_string()))
        });
        Ok(Some(MediaFound {
            size_bytes: found.meta.size,
            metadata: metadata.collect(),
        }))
    }

    /// SHA-256 of an object's bytes.
    ///
    /// # Errors
    /// The store is away or refuses.
    pub async fn media_sha256(&self, key: &str) -> StoreResult<[u8; 32]> {
        let mut pieces = self.media.get(&path(key)).await?.into_stream();
        let mut sha = Sha256::new();
        while let Some(piece) = pieces.try_next().await? {
            sha.update(&piece);
        }
        Ok(sha.finalize().into())
    }

    /// Writes an object of exactly `length` bytes, if there is none of this key. If `body` fails or
    /// ends before, nothing is written.
    ///
    /// # Errors
    /// [`MediaPutError`]
    pub async fn put_media(
        &self,
        key: &str,
        head: &MediaHead,
        length: u64,
        body: reqwest::Body,
    ) -> Result<(), MediaPutError> {
        let signed = headers(head).ok_or(MediaPutError::Unsignable)?;
        let mut options = SignedUrlOptions::new();
        options.signed_headers = signed.clone();
        let url = self
            .media
            .signed_url_opts(Method::PUT, &path(key), PUT_URL_LIFE, &options)
            .await
            .map_err(|_| MediaPutError::Unsignable)?;
        let answer = self
            .uploads
            .put(url)
            .headers(signed)
            .header(CONTENT_LENGTH, length)
            .header(IF_NONE_MATCH, "*")
            .body(body)
            .send()
            .await
            .map_err(|_| MediaPutError::Unreachable)?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => Err(MediaPutError::Exists),
            status => Err(MediaPutError::Answer(status)),
        }
    }

    /// A URL of an object, for as long as `--presign-expiry` says, at the public endpoint.
    ///
    /// # Errors
    /// It can't be signed.
    pub async fn presign_media(&self, key: &str) -> StoreResult<Presigned> {
        let expiry = self.more.presign_expiry;
        let expires_at = Utc::now() + expiry;
        let url = self
            .public
            .signed_url(Method::GET, &path(key), expiry)
            .await?;
        Ok(Presigned {
            url: url.into(),
            expires_at,
        })
    }

    pub fn media_bucket(&self) -> &str {
        &self.more.minio_media_bucket
    }

    /// Keys of the media of a message, of one tenant or of all (`None`). It walks the folders of
    /// days, newest first, so it takes a request per day and kind.
    ///
    /// # Errors
    /// The store is away or refuses.
    pub async fn find_media(
        &self,
        tenant_id: Option<&str>,
        message_id: &str,
    ) -> StoreResult<Vec<String>> {
        let name = super::segment(message_id);
        let tenants = match tenant_id {
            Some(tenant_id) => vec![path(&super::segment(tenant_id))],
            None => self.folders(None).await?,
        };
        let mut found = Vec::new();
        for tenant in tenants {
            for kind in self.folders(Some(&tenant)).await? {
                let mut days = self.folders(Some(&kind)).await?;
                days.sort_unstable_by(|a, b| b.cmp(a));
                for day in days {
                    found.extend(self.named(&day, &name).await?);
                }
            }
        }
        Ok(found)
    }

    /// Keys of the media of a message in one folder.
    ///
    /// # Errors
    /// The store is away or refuses.
    pub async fn media_in(&self, folder: &str, message_id: &str) -> StoreResult<Vec<String>> {
        self.named(&path(folder), &super::segment(message_id)).await
    }

    async fn folders(&self, of: Option<&Path>) -> StoreResult<Vec<Path>> {
        Ok(self.media.list_with_delimiter(of).await?.common_prefixes)
    }

    /// Objects of a folder whose name is `name` and an extension, and perhaps what tells two apart.
    async fn named(&self, folder: &Path, name: &str) -> StoreResult<Vec<String>> {
        let start = format!("{folder}/{name}.");
        // The listing begins behind the offset, and keys are sorted.
        let offset = path(&format!("{folder}/{name}"));
        let listed = self.media.list_with_offset(Some(folder), &offset);
        listed
            .try_take_while(|object| {
                let more = object.location.as_ref() <= start.as_str()
                    || object.location.as_ref().starts_with(&start);
                std::future::ready(Ok(more))
            })
            .try_filter_map(|object| {
                let key = object.location.to_string();
                std::future::ready(Ok(key.starts_with(&start).then_some(key)))
            })
            .map_err(StoreError::from)
            .try_collect()
            .await
    }
}

fn headers(head: &MediaHead) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let content_type = HeaderValue::from_str(&head.content_type).ok()?;
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(
        CONTENT_DISPOSITION,
        HeaderValue::from_str(&head.content_disposition).ok()?,
    );
    for (name, value) in &head.metadata {
        let name = HeaderName::try_from(format!("x-amz-meta-{name}")).ok()?;
        headers.insert(
            name,
            HeaderValue::from_str(&super::header_text(value)).ok()?,
        );
    }
    if let Some(sha256) = &head.sha256 {
        headers.insert(
            HeaderName::from_static("x-amz-checksum-sha256"),
            HeaderValue::from_str(sha256).ok()?,
        );
    }
    Some(headers)
}
