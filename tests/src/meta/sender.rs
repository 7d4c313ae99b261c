//! Signs and posts.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use sha2::Sha256;
use tokio::time::Instant;

pub const SIGNATURE: &str = "X-Hub-Signature-256";

/// How long [`Sender::send_like_meta`] repeats.
const META_PATIENCE: Duration = Duration::from_secs(30);

/// The value of `X-Hub-Signature-256`: `sha256=` and 64 lowercase hex digits.
pub fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    format!("sha256={}", HEXLOWER.encode(&digest))
}

/// What ingress answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// A header as text; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }
}

/// Posts to one URL over reused connections. Clones share them.
#[derive(Debug, Clone)]
pub struct Sender {
    client: reqwest::Client,
    url: String,
    secret: String,
}

impl Sender {
    /// # Panics
    /// If no HTTP client can be built.
    pub fn new(url: impl Into<String>, secret: impl Into<String>) -> Self {
        crate::install_tls_provider();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .pool_max_idle_per_host(1024)
            .tcp_nodelay(true)
            .build()
            .expect("an HTTP client");
        Self {
            client,
            url: url.into(),
            secret: secret.into(),
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Posts the signed body once.
    ///
    /// # Errors
    /// There was no answer within 10 s, or no connection.
    pub async fn post_once(&self, body: impl Into<Bytes>) -> anyhow::Result<Answer> {
        let body = body.into();
        let signature = sign(&self.secret, &body);
        self.post_with(body, &[(SIGNATURE, &signature)]).await
    }

    /// Posts a body with exactly these headers (and the content type): wrong signatures and such.
    ///
    /// # Errors
    /// There was no answer within 10 s, or no connection.
    pub async fn post_with(
        &self,
        body: impl Into<Bytes>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let mut request = self
            .client
            .post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await?;
        Ok(Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.text().await?,
        })
    }

    /// Posts once what must be accepted.
    ///
    /// # Panics
    /// If the answer isn't 200.
    pub async fn send(&self, body: impl Into<Bytes>) -> Answer {
        let answer = self.post_once(body).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    /// Posts until the answer is 200, as Meta does, for 30 s: only for tests in which something that
    /// ingress needs is away meanwhile, since what is refused elsewhere is a fault.
    ///
    /// # Panics
    /// If nothing answered 200 in time; with the last answer or failure.
    pub async fn send_like_meta(&self, body: impl Into<Bytes>) {
        let body = body.into();
        let end = Instant::now() + META_PATIENCE;
        let mut pause = Duration::from_millis(50);
        loop {
            let problem = match self.post_once(body.clone()).await {
                Ok(answer) if answer.status == 200 => return,
                Ok(answer) => format!("{} {}", answer.status, answer.body),
                Err(error) => format!("{error:#}"),
            };
            let next = Instant::now() + pause;
            assert!(next < end, "not accepted in {META_PATIENCE:?}: {problem}");
            tokio::time::sleep_until(next).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn signs_like_the_standard() {
        assert_eq!(
            sign("Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
