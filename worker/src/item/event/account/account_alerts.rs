//! `account_alerts`: Meta reports on limits, the profile or the official account of a business or number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::Text;

/// An alert.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AccountAlerts {
    /// `BUSINESS`, `PHONE_NUMBER`, `CURRENT_STATUS_ID` (a number's profile), …
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_type: Option<Text>,
    /// Of the portfolio or of the number.
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_info: Option<AlertInfo>,
}

/// What the alert says.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AlertInfo {
    /// `CRITICAL`, `WARNING`, `INFORMATIONAL`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_severity: Option<Text>,
    /// `ACTIVE`, `NONE`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_status: Option<Text>,
    /// `OBA_APPROVED`, `PROFILE_PICTURE_LOST`, `INCREASED_CAPABILITIES_ELIGIBILITY_DEFERRED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_type: Option<Text>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_description: Option<Text>,
}
