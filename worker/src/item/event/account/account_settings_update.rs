//! `account_settings_update`: settings of a number were changed, those of calls for example.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Number, Text, Timestamp};

/// Settings of a number were changed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AccountSettings {
    /// These settings were changed: `PHONE_NUMBER_SETTINGS`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    /// The settings were changed at this time, as Meta says.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number_settings: Option<PhoneNumberSettings>,
}

/// These are settings of a number.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct PhoneNumberSettings {
    /// Meta identifies the number by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calling: Option<CallingSettings>,
}

/// These are the number's settings of calls as they are now, with the Graph API's words.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallingSettings {
    /// Calls are `ENABLED` or `DISABLED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text>,
    /// WhatsApp shows the button for calls as usual (`DEFAULT`), nowhere (`DISABLE_ALL`), …
    #[serde(skip_serializing_if = "Option::is_none")]
    call_icon_visibility: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_icons: Option<CallIcons>,
    /// WhatsApp asks callers whether the business may call them back (`ENABLED`), or not
    /// (`DISABLED`).
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_permission_status: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_hours: Option<CallHours>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sip: Option<Sip>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio: Option<AudioSettings>,
    /// Calls exchange the keys of their encryption by `DTLS` or `SDES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    srtp_key_exchange_protocol: Option<Text>,
}

/// This says who sees the button for calls.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallIcons {
    /// Only users with numbers of these countries see it (ISO 3166 codes).
    #[serde(skip_serializing_if = "Option::is_none")]
    restrict_to_user_countries: Option<Vec<Text>>,
}

/// This says when customers can call the number.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CallHours {
    /// The hours are in force (`ENABLED`) or not (`DISABLED`).
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text>,
    /// The hours are in this time zone, such as `America/New_York`.
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weekly_operating_hours: Option<Vec<OperatingHours>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holiday_schedule: Option<Vec<Holiday>>,
}

/// Customers can call between these times on one day of the week.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct OperatingHours {
    /// This is the day: `MONDAY`, `TUESDAY`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    day_of_week: Option<Text>,
    /// Calls are possible from this time on, written as `HHMM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_time: Option<Text>,
    /// Calls are possible until this time, written as `HHMM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    close_time: Option<Text>,
}

/// On one date these hours replace those of the week.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Holiday {
    /// This is the date, written as `YYYY-MM-DD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<Text>,
    /// The hours begin at this time, written as `HHMM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Text>,
    /// The hours end at this time, written as `HHMM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Text>,
}

/// This says whether calls use SIP, and by which servers.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Sip {
    /// SIP is `ENABLED` or `DISABLED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<Vec<SipServer>>,
}

/// This SIP server takes calls.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct SipServer {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<Number>,
}

/// This says how sound is encoded in calls.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AudioSettings {
    /// Calls can use these codecs, too: `PCMU`, `PCMA`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    additional_codecs: Option<Vec<Text>>,
}
