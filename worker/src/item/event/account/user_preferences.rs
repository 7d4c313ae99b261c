//! `user_preferences`: what customers want to get.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// What customers want to get.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct UserPreferences {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_preferences: Option<Vec<UserPreference>>,
}

/// One wish of one customer.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct UserPreference {
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
    /// `marketing_messages`.
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Text>,
    /// `stop`, `resume` or `signup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Text>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signup_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
}
