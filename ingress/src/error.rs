//! The one place that turns what became of a request into an HTTP answer and a log level.

#![deny(clippy::wildcard_enum_match_arm)]

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use shared::webhook::Unreadable;

use crate::intake::Unavailable;
use crate::signature;

/// What became of a request.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Signature(#[from] signature::Refused),
    #[error("the body can't be read: {0}")]
    Unreadable(Unreadable),
    #[error("the body has more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body did not arrive in time")]
    BodyTimeout,
    #[error("the body broke off")]
    BodyBroken,
    #[error("bodies must not be encoded: send them without Content-Encoding")]
    Encoded,
    #[error("nothing is here")]
    NotFound,
    #[error("only {allowed} is served here")]
    Method { allowed: &'static str },
    #[error("Redis has not been seen yet")]
    Unchecked,
    #[error("too many webhooks are in work")]
    TooBusy,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("storing took too long")]
    Deadline,
}

/// Seconds until a refused sender may well come again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Signature(_) => StatusCode::UNAUTHORIZED,
            Self::Unreadable(_) | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unchecked | Self::TooBusy | Self::Unavailable(_) | Self::Deadline => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    fn log(&self, correlation_id: &str) {
        match self {
            Self::Signature(_) => {
                tracing::warn!(correlation_id, "refused: {self}");
            }
            Self::Unavailable(_) | Self::Deadline => {
                tracing::warn!(correlation_id, "not stored: {self}");
            }
            Self::Unreadable(_)
            | Self::TooLarge { .. }
            | Self::BodyTimeout
            | Self::BodyBroken
            | Self::Encoded
            | Self::NotFound
            | Self::Method { .. }
            | Self::Unchecked
            | Self::TooBusy => tracing::debug!(correlation_id, "refused: {self}"),
        }
    }

    /// The answer, as `application/problem+json` (RFC 9457).
    pub fn answer(&self, correlation_id: &str) -> Response<Full<Bytes>> {
        self.log(correlation_id);
        let status = self.status();
        // What Redis said stays in the log.
        let detail = match self {
            Self::Unavailable(_) => "the webhook can't be stored now".to_owned(),
            Self::Signature(_)
            | Self::Unreadable(_)
            | Self::TooLarge { .. }
            | Self::BodyTimeout
            | Self::BodyBroken
            | Self::Encoded
            | Self::NotFound
            | Self::Method { .. }
            | Self::Unchecked
            | Self::TooBusy
            | Self::Deadline => self.to_string(),
        };
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
            "correlationId": correlation_id,
        });
        let mut response = Response::new(Full::new(Bytes::from(problem.to_string())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self {
            Self::Method { allowed } => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::Unchecked | Self::TooBusy | Self::Unavailable(_) | Self::Deadline => {
                headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
            }
            // The rest of the body is not waited for, so the connection can't go on.
            Self::TooLarge { .. } | Self::BodyTimeout | Self::BodyBroken | Self::Encoded => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Signature(_) | Self::Unreadable(_) | Self::NotFound => {}
        }
        response
    }
}
