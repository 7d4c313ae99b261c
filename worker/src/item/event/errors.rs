//! Errors as Meta reports them: of a message, of a status, or beside the items of a change.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Number, Text};
use crate::item::meta_error::{self, ErrorClass};

/// Meta reports this error. Its `class` says what can be done about it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(from = "SentError", rename_all = "camelCase")]
pub(super) struct MetaError {
    /// This number is Meta's code of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Number>,
    pub class: ErrorClass,
    /// This names the error in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<Text>,
    /// This describes the error. Mostly it repeats `title`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Text>,
    /// This explains the error in a sentence or two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Text>,
    /// This is a second explanation, from a place that older webhooks use. It is there only if Meta
    /// sent both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former_details: Option<Text>,
    /// Meta documents the error at this address, which is a whole URL or only a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub href: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct SentError {
    code: Option<Number>,
    title: Option<Text>,
    message: Option<Text>,
    error_data: Option<SentErrorData>,
    details: Option<Text>,
    href: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct SentErrorData {
    details: Option<Text>,
}

impl From<SentError> for MetaError {
    fn from(sent: SentError) -> Self {
        let (details, former_details) = match sent.error_data.and_then(|data| data.details) {
            Some(details) => (Some(details), sent.details),
            None => (sent.details, None),
        };
        let code = sent.code.as_ref().and_then(Number::as_i64);
        Self {
            class: code.map_or(ErrorClass::Unknown, meta_error::class),
            code: sent.code,
            title: sent.title,
            message: sent.message,
            details,
            former_details,
            href: sent.href,
        }
    }
}

impl MetaError {
    /// In one line: `131052: Media download error`.
    pub(super) fn line(&self) -> String {
        let code = self.code.as_ref().map(|code| code.0.to_string());
        let title = self.title.as_ref().or(self.message.as_ref());
        let parts: Vec<_> = code
            .into_iter()
            .chain(title.map(|text| text.0.clone()))
            .collect();
        parts.join(": ")
    }
}
