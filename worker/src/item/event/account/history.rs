//! `history` without a message: the business did not share its history, or sharing it failed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::errors::MetaError;
use crate::item::event::message::History;

/// The business did not share the history of its number, or sharing it failed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct DeclinedHistory {
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<HistoryChunk>>,
}

/// This part of the history was not shared.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct HistoryChunk {
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<History>,
    /// It was not shared because of these errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}
