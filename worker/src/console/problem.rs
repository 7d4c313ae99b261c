//! How a request of the console fails: a status, and a sentence.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use shared::telemetry::innermost_first;

use crate::operator::WrongCall;

#[derive(Debug)]
pub(super) struct ConsoleProblem {
    status: StatusCode,
    error: String,
    retry_after: Option<u64>,
}

impl ConsoleProblem {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            retry_after: None,
        }
    }

    fn later(status: StatusCode, error: &str, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..Self::new(status, error)
        }
    }

    pub(super) fn busy() -> Self {
        let error = "too much is asked for at the same time: try again";
        Self::later(StatusCode::SERVICE_UNAVAILABLE, error, 1)
    }

    pub(super) fn late(limit: Duration) -> Self {
        let error = format!(
            "no answer within {} s: narrow it, or use the command",
            limit.as_secs()
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    pub(super) fn broken() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "it broke off")
    }

    pub(super) fn too_many_attempts(wait: Duration) -> Self {
        let error = "too many wrong tokens: wait a minute";
        Self::later(StatusCode::TOO_MANY_REQUESTS, error, wait.as_secs() + 1)
    }
}

impl IntoResponse for ConsoleProblem {
    fn into_response(self) -> Response {
        let error = json!({"error": self.error});
        let mut answer = (self.status, Json(error)).into_response();
        if let Some(seconds) = self.retry_after {
            let seconds = HeaderValue::from(seconds);
            answer.headers_mut().insert(RETRY_AFTER, seconds);
        }
        answer
    }
}

impl From<anyhow::Error> for ConsoleProblem {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast_ref::<WrongCall>() {
            Some(wrong) => Self::new(StatusCode::BAD_REQUEST, wrong.to_string()),
            None => Self::new(StatusCode::SERVICE_UNAVAILABLE, innermost_first(&error)),
        }
    }
}

impl From<QueryRejection> for ConsoleProblem {
    fn from(refused: QueryRejection) -> Self {
        Self::new(refused.status(), refused.body_text())
    }
}

impl From<JsonRejection> for ConsoleProblem {
    fn from(refused: JsonRejection) -> Self {
        Self::new(refused.status(), refused.body_text())
    }
}

pub(super) async fn no_such_route() -> ConsoleProblem {
    ConsoleProblem::new(StatusCode::NOT_FOUND, "there is no such route")
}
