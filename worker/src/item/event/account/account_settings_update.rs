//! `account_settings_update`: settings of a number were changed, those of calls for example.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Number, Text, Timestamp};

/// What was changed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AccountSettings {
    /// `PHONE_NUMBER_SETTINGS`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number_settings: Option<PhoneNumberSettings>,
}

/// Settings of a number.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct PhoneNumberSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calling: Option<CallingSettings>,
}

/// Settings of calls as they are now, as the Graph API has them.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallingSettings {
    /// `ENABLED` or `DISABLED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text>,
    /// `DEFAULT`, `DISABLE_ALL`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    call_icon_visibility: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_icons: Option<CallIcons>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_permission_status: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_hours: Option<CallHours>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sip: Option<Sip>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio: Option<AudioSettings>,
    /// `DTLS` or `SDES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    srtp_key_exchange_protocol: Option<Text>,
}

/// Who sees that the number can be called.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallIcons {
    /// ISO 3166.
    #[serde(skip_serializing_if = "Option::is_none")]
    restrict_to_user_countries: Option<Vec<Text>>,
}

/// When the number can be called.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallHours {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text>,
    /// `America/New_York`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weekly_operating_hours: Option<Vec<OperatingHours>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holiday_schedule: Option<Vec<Holiday>>,
}

/// Hours of a day of the week.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct OperatingHours {
    /// `MONDAY`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    day_of_week: Option<Text>,
    /// `HHMM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_time: Option<Text>,
    /// `HHMM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    close_time: Option<Text>,
}

/// Other hours of one day.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Holiday {
    /// `YYYY-MM-DD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<Text>,
    /// `HHMM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Text>,
    /// `HHMM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Text>,
}

/// Calls by SIP.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Sip {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<Vec<SipServer>>,
}

/// A server that takes calls.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct SipServer {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<Number>,
}

/// How calls sound.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AudioSettings {
    /// `PCMU`, `PCMA`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    additional_codecs: Option<Vec<Text>>,
}
