//! `business_capability_update`: how much an account or its portfolio may do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{MessagingLimit, Number};

/// These are the limits of the account or its portfolio as they are now. Which members there are
/// depends on the API version of the app's subscription.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct BusinessCapability {
    /// The business may write first to so many customers in 24 hours: a number, -1 for no limit, or
    /// a word such as `TIER_2K` or `TIER_UNLIMITED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_daily_conversations_per_business: Option<MessagingLimit>,
    /// This is the older name of `maxDailyConversationsPerBusiness`.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_daily_conversation_per_phone: Option<MessagingLimit>,
    /// The portfolio may have so many numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_phone_numbers_per_business: Option<Number>,
    /// The account may have so many numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_phone_numbers_per_waba: Option<Number>,
}
