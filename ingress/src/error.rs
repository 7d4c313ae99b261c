//! The one place that turns what became of a request into an HTTP answer and a log line.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use hyper::{Response, StatusCode};
use shared::intake::RateWindow;
use shared::telemetry::SampledLog;
use shared::webhook::UnreadableBody;

use crate::admission::Overloaded;
use crate::keep::NotStored;
use crate::{challenge, signature};

/// What became of a request.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Signature(#[from] signature::SignatureRefused),
    #[error(transparent)]
    Challenge(#[from] challenge::ChallengeRefused),
    #[error("the body can't be read: {0}")]
    Unreadable(UnreadableBody),
    #[error("the body has more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the headers did not arrive in time")]
    HeaderTimeout,
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
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    #[error("{0}")]
    NotStored(#[from] NotStored),
    #[error("storing took too long")]
    Deadline,
    #[error("this request ran into a fault of ours")]
    Panicked,
}

/// Log lines about refusals, one a second for each status.
pub struct Log(HashMap<StatusCode, SampledLog>);

impl Default for Log {
    fn default() -> Self {
        let statuses = [401, 403, 429, 500, 503];
        let sampled = |status| Some((StatusCode::from_u16(status).ok()?, SampledLog::default()));
        Self(statuses.into_iter().filter_map(sampled).collect())
    }
}

/// How loud a refusal is, and what of it the sender is told.
enum Reporting {
    /// Everyday, or the sender's own affair.
    Debug,
    Warn,
    /// Loudly, and the sender learns this instead.
    WarnWithout(&'static str),
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Signature(_) => StatusCode::UNAUTHORIZED,
            Self::Challenge(challenge::ChallengeRefused::Token) => StatusCode::FORBIDDEN,
            Self::Challenge(challenge::ChallengeRefused::Malformed)
            | Self::Unreadable(_)
            | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeaderTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotStored(NotStored::Limited(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded(_)
            | Self::NotStored(NotStored::Redis(_) | NotStored::Nowhere(_) | NotStored::Unseen)
            | Self::NotStored(NotStored::Overloaded(_))
            | Self::Deadline => StatusCode::SERVICE_UNAVAILABLE,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn reporting(&self) -> Reporting {
        match self {
            // What Redis or the store said stays in the log.
            Self::NotStored(NotStored::Redis(_) | NotStored::Nowhere(_)) => {
                Reporting::WarnWithout("the webhook can't be stored now")
            }
            Self::Signature(_)
            | Self::Challenge(challenge::ChallengeRefused::Token)
            | Self::NotStored(NotStored::Overloaded(_))
            | Self::Overloaded(_)
            | Self::Deadline
            | Self::Panicked => Reporting::Warn,
            // Told with its account, where that is known.
            Self::NotStored(NotStored::Limited(_))
            | Self::Challenge(challenge::ChallengeRefused::Malformed)
            | Self::Unreadable(_)
            | Self::TooLarge { .. }
            | Self::HeaderTimeout
            | Self::BodyTimeout
            | Self::BodyBroken
            | Self::Encoded
            | Self::NotFound
            | Self::Method { .. }
            | Self::NotStored(NotStored::Unseen) => Reporting::Debug,
        }
    }

    fn write_headers(&self, headers: &mut HeaderMap) {
        match self {
            Self::Method { allowed } => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::NotStored(NotStored::Limited(window)) => {
                write_window(window, headers);
                headers.insert(RETRY_AFTER, seconds(window.resets_in).into());
            }
            // Meta sends it again, soon and then ever later.
            Self::NotStored(
                NotStored::Redis(_)
                | NotStored::Nowhere(_)
                | NotStored::Unseen
                | NotStored::Overloaded(_),
            )
            | Self::Overloaded(Overloaded::Turn | Overloaded::InFlight | Overloaded::Queue)
            | Self::Deadline => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Overloaded(Overloaded::Connections | Overloaded::Memory) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            // The rest of the request is not waited for, so the connection can't go on.
            Self::TooLarge { .. }
            | Self::HeaderTimeout
            | Self::BodyTimeout
            | Self::BodyBroken
            | Self::Encoded
            | Self::Panicked => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Signature(_) | Self::Challenge(_) | Self::Unreadable(_) | Self::NotFound => {}
        }
    }

    /// The answer, as `application/problem+json` (RFC 9457).
    pub fn answer(&self, correlation_id: &str, log: &Log) -> Response<Bytes> {
        let (loud, detail) = match self.reporting() {
            Reporting::Debug => (false, self.to_string()),
            Reporting::Warn => (true, self.to_string()),
            Reporting::WarnWithout(detail) => (true, detail.to_owned()),
        };
        let status = self.status();
        match log.0.get(&status).filter(|_| loud).map(SampledLog::pass) {
            Some(Some(skipped)) => tracing::warn!(correlation_id, skipped, "refused: {self}"),
            Some(None) => {}
            None => tracing::debug!(correlation_id, "refused: {self}"),
        }
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
            "correlationId": correlation_id,
        });
        let mut response = Response::new(Bytes::from(problem.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        self.write_headers(headers);
        response
    }
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// `X-RateLimit-Limit`, `-Remaining`, and `-Reset`: seconds since 1970.
pub(crate) fn write_window(window: &RateWindow, headers: &mut HeaderMap) {
    let reset = (SystemTime::now() + window.resets_in).duration_since(SystemTime::UNIX_EPOCH);
    headers.insert(LIMIT, window.limit.into());
    headers.insert(REMAINING, window.remaining.into());
    headers.insert(RESET, seconds(reset.unwrap_or_default()).into());
}

/// Whole seconds, rounded up: what is told as over is over then.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
