//! The object store: its settings, and how both programs come to a bucket.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use clap::Args;
use futures::TryStreamExt;
use http_body_util::{BodyExt, Limited};
use hyper::Method;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::path::Path;
use object_store::{BackoffConfig, CredentialProvider, GetResult, ObjectStoreExt, RetryConfig};
use url::Url;

use crate::outgoing;
use crate::secrets::{Rotating, Secret, WatchedFile};

/// A page of a listing has a thousand keys of at most 1 KiB, and XML around them.
const LARGEST_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// What is told of an error.
const LONGEST_TOLD: usize = 500;

/// Where objects lie.
#[derive(Args, Debug, Clone)]
pub struct StoreArgs {
    /// Any S3
    #[arg(long, env = "MINIO_ENDPOINT", default_value = "http://127.0.0.1:9000")]
    pub minio_endpoint: Url,
    /// Name of the key that the store knows
    #[arg(long, env = "MINIO_ACCESS_KEY", hide_env_values = true)]
    pub minio_access_key: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "MINIO_ACCESS_KEY_FILE")]
    pub minio_access_key_file: Option<PathBuf>,
    /// The key itself
    #[arg(long, env = "MINIO_SECRET_KEY", hide_env_values = true)]
    pub minio_secret_key: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "MINIO_SECRET_KEY_FILE")]
    pub minio_secret_key_file: Option<PathBuf>,
    /// What requests are signed for
    #[arg(long, env = "MINIO_REGION", default_value = "us-east-1")]
    pub minio_region: String,
    /// Raw payloads, what was set aside, and the spool; created if missing
    #[arg(long, env = "MINIO_WEBHOOK_BUCKET", default_value = "webhooks-inbound")]
    pub minio_webhook_bucket: String,
}

/// What signs requests to the object store.
#[derive(Debug, Clone)]
pub struct StoreKeys {
    pub access: Arc<Rotating<Secret>>,
    pub secret: Arc<Rotating<Secret>>,
}

/// How long a request to the store may take.
#[derive(Debug, Clone, Copy)]
pub struct StorePatience {
    pub connect: Duration,
    pub request: Duration,
    /// From the first attempt to when a second one may still begin.
    pub retry: Duration,
}

impl StoreArgs {
    /// The keys; `None` where one is not set.
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn keys(&self) -> Result<Option<StoreKeys>, Vec<String>> {
        let access = Rotating::plain(
            "MINIO_ACCESS_KEY",
            self.minio_access_key.as_ref(),
            self.minio_access_key_file.as_deref(),
        );
        let secret = Rotating::plain(
            "MINIO_SECRET_KEY",
            self.minio_secret_key.as_ref(),
            self.minio_secret_key_file.as_deref(),
        );
        match (access, secret) {
            (Ok(access), Ok(secret)) => Ok(access
                .zip(secret)
                .map(|(access, secret)| StoreKeys { access, secret })),
            (access, secret) => Err(access.err().into_iter().chain(secret.err()).collect()),
        }
    }

    /// Which of the two keys are named.
    pub fn named_keys(&self) -> (bool, bool) {
        (
            self.minio_access_key.is_some() || self.minio_access_key_file.is_some(),
            self.minio_secret_key.is_some() || self.minio_secret_key_file.is_some(),
        )
    }

    /// A bucket at `endpoint`; nothing is connected yet.
    ///
    /// # Errors
    /// Settings that can't be used.
    pub fn bucket(
        &self,
        endpoint: &Url,
        name: &str,
        keys: Arc<StoreKeys>,
        patience: StorePatience,
    ) -> StoreResult<AmazonS3> {
        AmazonS3Builder::new()
            .with_endpoint(endpoint.as_str().trim_end_matches('/'))
            .with_region(&self.minio_region)
            .with_bucket_name(name)
            .with_credentials(keys)
            .with_virtual_hosted_style_request(false)
            .with_allow_http(true)
            .with_http_connector(BoundedConnector(patience))
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: 1,
                retry_timeout: patience.retry,
            })
            .build()
            .map_err(StoreError::from)
    }

    /// Creates a bucket if it is missing.
    ///
    /// # Errors
    /// The store is away, or refuses.
    pub async fn create_bucket(
        &self,
        client: &reqwest::Client,
        keys: &StoreKeys,
        name: &str,
    ) -> anyhow::Result<()> {
        self.try_create(client, keys, name)
            .await
            .with_context(|| format!("bucket {name} can't be created"))
    }

    async fn try_create(
        &self,
        client: &reqwest::Client,
        keys: &StoreKeys,
        name: &str,
    ) -> anyhow::Result<()> {
        let mut url = self.minio_endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("MINIO_ENDPOINT can't have a path added"))?
            .pop_if_empty()
            .push(name);
        let body = if self.minio_region == "us-east-1" {
            String::new()
        } else {
            format!(
                "<CreateBucketConfiguration><LocationConstraint>{}</LocationConstraint>\
                 </CreateBucketConfiguration>",
                self.minio_region
            )
        };
        let mut signed =
            hyper::Request::put(url.as_str()).body(HttpRequestBody::from(body.clone()))?;
        AwsAuthorizer::new(&keys.credential(), "s3", &self.minio_region)
            .try_authorize(&mut signed, None)?;
        let mut answer = client
            .put(url)
            .headers(signed.headers().clone())
            .body(body)
            .send()
            .await
            .map_err(reqwest::Error::without_url)?;
        let status = answer.status();
        let mut text = Vec::new();
        while text.len() < LARGEST_ANSWER_BYTES
            && let Ok(Some(piece)) = answer.chunk().await
        {
            text.extend_from_slice(&piece);
        }
        let text = String::from_utf8_lossy(&text);
        // 409 also says that it is another's: then writing fails, and says so.
        if status.is_success() || status == 409 || text.contains("BucketAlreadyOwnedByYou") {
            return Ok(());
        }
        bail!("the store answered {status}");
    }
}

impl StoreKeys {
    pub fn followed(&self) -> [Arc<dyn WatchedFile>; 2] {
        [self.access.clone(), self.secret.clone()]
    }

    fn credential(&self) -> AwsCredential {
        AwsCredential {
            key_id: self.access.current().expose().to_owned(),
            secret_key: self.secret.current().expose().to_owned(),
            token: None,
        }
    }
}

#[async_trait]
impl CredentialProvider for StoreKeys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Ok(Arc::new(self.credential()))
    }
}

/// Makes clients that hold no answer of any length in memory: what `object_store` collects (listings,
/// errors) is bounded. Objects are not; see [`whole`].
#[derive(Debug)]
struct BoundedConnector(StorePatience);

impl HttpConnector for BoundedConnector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = outgoing::client()
            .timeout(self.0.request)
            .connect_timeout(self.0.connect)
            .http1_only()
            .build()
            .map_err(|error| object_store::Error::Generic {
                store: "S3",
                source: error.into(),
            })?;
        Ok(HttpClient::new(BoundedHttpClient(HttpClient::new(client))))
    }
}

#[derive(Debug)]
struct BoundedHttpClient(HttpClient);

#[async_trait]
impl HttpService for BoundedHttpClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let query = request.uri().query().unwrap_or_default();
        let is_object = *request.method() == Method::GET && !query.contains("list-type=");
        let answer = self.0.execute(request).await?;
        if is_object && answer.status().is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER_BYTES);
        let body = body.map_err(|error| HttpError::new_boxed(HttpErrorKind::Decode, error));
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

/// Why an object's bytes can't be had.
#[derive(Debug, thiserror::Error)]
#[error("the object has other than {expected} bytes")]
struct WrongLength {
    expected: u64,
}

/// An object's bytes, if there are as many as `expected`: a store may say one length, and send without
/// end.
///
/// # Errors
/// There are more or fewer, or the store is away.
pub async fn whole(object: GetResult, expected: u64) -> object_store::Result<Bytes> {
    let mut pieces = object.into_stream();
    let mut whole = BytesMut::new();
    while let Some(piece) = pieces.try_next().await? {
        whole.extend_from_slice(&piece);
        if whole.len() as u64 > expected {
            break;
        }
    }
    if whole.len() as u64 == expected {
        Ok(whole.freeze())
    } else {
        Err(object_store::Error::Generic {
            store: "S3",
            source: WrongLength { expected }.into(),
        })
    }
}

/// Whether the store answers and lets us in.
///
/// # Errors
/// It doesn't.
pub async fn probe(bucket: &AmazonS3) -> StoreResult<()> {
    match bucket.head(&Path::from("probe")).await {
        Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A key as it was written, whatever it holds.
pub fn path(key: &str) -> Path {
    Path::parse(key).unwrap_or_else(|_| Path::from(key))
}

/// An error of the store, by its innermost cause. Neither form of it shows a key or the rest of a URL: a message's id holds a
/// phone number, and a URL may be signed.
pub struct StoreError(object_store::Error);

pub type StoreResult<T> = Result<T, StoreError>;

impl StoreError {
    /// There is no such object, or bucket.
    pub fn is_not_found(&self) -> bool {
        matches!(self.0, object_store::Error::NotFound { .. })
    }

    /// There is an object of this key, and it must not be replaced.
    pub fn is_there_already(&self) -> bool {
        matches!(self.0, object_store::Error::AlreadyExists { .. })
    }

    /// The store didn't answer, or it failed.
    pub fn is_away(&self) -> bool {
        matches!(self.0, object_store::Error::Generic { .. })
    }
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause: &dyn std::error::Error = &self.0;
        while let Some(source) = cause.source() {
            cause = source;
        }
        f.write_str(&redacted(&cause.to_string()))
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Without a source, which would show what this doesn't.
impl std::error::Error for StoreError {}

/// Not all of what a store may say, either.
fn redacted(text: &str) -> String {
    let text: String = text.chars().take(LONGEST_TOLD).collect();
    let words = text
        .split_whitespace()
        .map(|word| match word.split_once("://") {
            Some((scheme, rest)) => {
                let host = rest.split('/').next().unwrap_or_default();
                let host = host.rsplit('@').next().unwrap_or_default();
                format!("{scheme}://{host}/…")
            }
            None if word.contains('/') || word.contains("wamid") => "…".to_owned(),
            None => word.to_owned(),
        });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStore;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A bucket of a store that answers every request with a head and a body without end.
    async fn endless(head: &'static str) -> AmazonS3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 8192];
                    let read = client.read(&mut request).await;
                    let mut sent = client.write_all(head.as_bytes()).await;
                    while read.is_ok() && sent.is_ok() {
                        sent = client.write_all(&[b' '; 65_536]).await;
                    }
                });
            }
        });
        drop(rustls::crypto::ring::default_provider().install_default());
        let secret = || Some("secret".parse().expect("a secret"));
        let args = StoreArgs {
            minio_endpoint: endpoint.parse().expect("a URL"),
            minio_access_key: secret(),
            minio_access_key_file: None,
            minio_secret_key: secret(),
            minio_secret_key_file: None,
            minio_region: "us-east-1".to_owned(),
            minio_webhook_bucket: "bucket".to_owned(),
        };
        let keys = args.keys().expect("settings").expect("both");
        let patience = StorePatience {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(600),
            retry: Duration::ZERO,
        };
        args.bucket(&args.minio_endpoint, "bucket", Arc::new(keys), patience)
            .expect("a bucket")
    }

    /// None of these ends by itself, and what is set aside for the length that they name is no machine's.
    #[tokio::test]
    async fn no_answer_of_the_store_takes_all_memory() {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551614\r\n\r\n",
            "HTTP/1.1 404 None\r\nContent-Length: 1000000000000000\r\n\r\n",
            "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Length: 1000000000000000\r\n\r\n",
        ] {
            let bucket = endless(head).await;
            let listed = bucket.list_with_delimiter(None).await;
            assert!(listed.is_err(), "{head}");
            let key = Path::from("key");
            let put = bucket.put(&key, Bytes::from_static(b"x").into()).await;
            assert!(put.is_err() || head.contains("ETag"), "{head}");
            let got = match bucket.get(&key).await {
                Ok(object) => whole(object, 1000).await,
                Err(error) => Err(error),
            };
            assert!(got.is_err(), "{head}");
        }
    }

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
            let error = anyhow::Error::from(StoreError::from(error)).context("a context");
            for told in [format!("{error:#}"), format!("{error:?}")] {
                assert!(!told.contains("HBgLMTY"), "{told}");
            }
        }
        let error = StoreError::from(object_store::Error::Generic {
            store: "S3",
            source: format!("PUT {at} in 1ms").into(),
        });
        assert_eq!(error.to_string(), "PUT http://store:9000/… in 1ms");
    }
}
