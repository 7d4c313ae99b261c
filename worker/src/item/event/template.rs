//! `template` messages, in echoes: what the business sent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use serde_json::Value;

use super::values::Text;

/// The business sent a template with these parameters.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Template {
    /// The template has this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Text>,
    /// The template's name is in this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<Language>,
    /// These are the parameters of each part of the template, as the business sent them to Meta.
    #[serde(skip_serializing_if = "Option::is_none")]
    components: Option<Value>,
}

/// The template was sent in this language.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Language {
    /// This is the code of the language, such as `en_US`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Text>,
    /// WhatsApp chooses the language by this policy, such as `deterministic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Text>,
}
