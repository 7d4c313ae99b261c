//! `business_capability_update`: how much an account or its portfolio may do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{MessagingLimit, Number};

/// The limits as they are now. Which members are there depends on the API version of the subscription.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct BusinessCapability {
    /// A number, -1 for no limit, or a word: `TIER_2K`, `TIER_UNLIMITED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    max_daily_conversations_per_business: Option<MessagingLimit>,
    /// The older spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_daily_conversation_per_phone: Option<MessagingLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_phone_numbers_per_business: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_phone_numbers_per_waba: Option<Number>,
}
