//! `smb_app_state_sync`: the contacts of the WhatsApp Business app.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// Contacts that were added, changed or removed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AppStateSync {
    #[serde(skip_serializing_if = "Option::is_none")]
    state_sync: Option<Vec<StateSync>>,
}

/// One of them.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct StateSync {
    /// `contact`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    /// `add` (also of a change) or `remove`.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<SyncedContact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<SyncMetadata>,
}

/// As the business wrote it down.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct SyncedContact {
    #[serde(skip_serializing_if = "Option::is_none")]
    full_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_name: Option<Text>,
    /// Missing where it is withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<Text>,
}

/// When it was changed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct SyncMetadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
}
