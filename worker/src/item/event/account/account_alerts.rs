//! `account_alerts`: Meta reports on limits, the profile or the official account of a business or number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// Meta alerts the business about its portfolio, a number or a number's profile.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AccountAlerts {
    /// The alert is about a portfolio (`BUSINESS`), a number (`PHONE_NUMBER`), a number's profile
    /// (`CURRENT_STATUS_ID`), …
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_type: Option<Text>,
    /// This is the id of the portfolio or of the number.
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_info: Option<AlertInfo>,
}

/// This says what the alert is.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AlertInfo {
    /// Meta takes the alert for this serious: `CRITICAL`, `WARNING`, `INFORMATIONAL`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_severity: Option<Text>,
    /// The alert has this status: `ACTIVE`, `NONE`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_status: Option<Text>,
    /// Meta's word for the alert is an open set: `OBA_APPROVED`, `PROFILE_PICTURE_LOST`,
    /// `INCREASED_CAPABILITIES_ELIGIBILITY_DEFERRED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_type: Option<Text>,
    /// This text tells people about the alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_description: Option<Text>,
}
