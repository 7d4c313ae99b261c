//! `phone_number_quality_update`: how much may be sent from a number, or how customers take it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{MessagingLimit, Text};

/// The quality of a number changed, or how much may be sent from it.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct PhoneNumberQuality {
    /// The change is one of this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    display_phone_number: Option<Text>,
    /// Meta's word for what happened is an open set: `ONBOARDING`, `THROUGHPUT_UPGRADE`, `FLAGGED`,
    /// …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    /// The business may write first to so many customers in 24 hours: a number, -1 for no limit, or
    /// a word such as `TIER_2K` or `TIER_UNLIMITED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_daily_conversations_per_business: Option<MessagingLimit>,
    /// This is the older name of `maxDailyConversationsPerBusiness`.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_limit: Option<MessagingLimit>,
    /// This is what `currentLimit` was before the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_limit: Option<MessagingLimit>,
}
