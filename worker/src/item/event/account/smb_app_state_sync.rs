//! `smb_app_state_sync`: the contacts of the WhatsApp Business app.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// Contacts of the WhatsApp Business app were added, changed or removed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AppStateSync {
    #[serde(skip_serializing_if = "Option::is_none")]
    state_sync: Option<Vec<StateSync>>,
}

/// One contact was added, changed or removed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct StateSync {
    /// This says what was synchronised: `contact`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    /// The contact was added or changed (`add`), or removed (`remove`).
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<SyncedContact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<SyncMetadata>,
}

/// This is the contact as the business wrote it down.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct SyncedContact {
    #[serde(skip_serializing_if = "Option::is_none")]
    full_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_name: Option<Text>,
    /// This is the contact's phone number. It is missing if Meta withholds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<Text>,
    /// This is the contact's business-scoped id (`CC.…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    /// This is the contact's parent business-scoped id (`CC.ENT.…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<Text>,
}

/// This says when the contact was changed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct SyncMetadata {
    /// The contact was changed at this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
}
