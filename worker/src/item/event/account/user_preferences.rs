//! `user_preferences`: what customers want to get.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// Customers changed what they want to get from the business.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct UserPreferences {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_preferences: Option<Vec<UserPreference>>,
}

/// One customer changed what they want to get from the business.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct UserPreference {
    /// This is WhatsApp's id of the customer. It is missing if Meta withholds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<Text>,
    /// This is the business-scoped id (`CC.…`) of the customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    /// This is the parent business-scoped id (`CC.ENT.…`) of the customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
    /// The wish is about messages of this category, which so far is always `marketing_messages`.
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Text>,
    /// The customer wants no such messages (`stop`), wants them again (`resume`), or signed up for
    /// them (`signup`).
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Text>,
    /// This text tells people about the wish.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Text>,
    /// Meta identifies the sign-up by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    signup_id: Option<Text>,
    /// It happened at this time, as Meta says.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
}
