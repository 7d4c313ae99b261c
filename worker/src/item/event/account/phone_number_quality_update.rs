//! `phone_number_quality_update`: how much may be sent from a number, or how customers take it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{MessagingLimit, Text};

/// The quality or limit of a number.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct PhoneNumberQuality {
    #[serde(skip_serializing_if = "Option::is_none")]
    display_phone_number: Option<Text>,
    /// `ONBOARDING`, `THROUGHPUT_UPGRADE`, `FLAGGED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    /// A number, -1 for no limit, or a word: `TIER_2K`, `TIER_UNLIMITED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    max_daily_conversations_per_business: Option<MessagingLimit>,
    /// The older spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_limit: Option<MessagingLimit>,
    /// The limit before, in the older spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_limit: Option<MessagingLimit>,
}
