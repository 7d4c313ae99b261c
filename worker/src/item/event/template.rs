//! `template` messages, in echoes: what the business sent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use serde_json::Value;

use super::values::Text;

/// A template and its parameters.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Template {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<Language>,
    /// As sent to Meta.
    #[serde(skip_serializing_if = "Option::is_none")]
    components: Option<Value>,
}

/// Of the template.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Language {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Text>,
}
