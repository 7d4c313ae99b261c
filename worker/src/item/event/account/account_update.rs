//! `account_update`: something happened to the account; what, says `event`. Each event has a part of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// Something happened to the account; what, says `event`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AccountUpdate {
    /// An open set: `ACCOUNT_RESTRICTION`, `DISABLED_UPDATE`, `PARTNER_ADDED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ban_info: Option<BanInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    violation_info: Option<ViolationInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restriction_info: Option<Vec<Restriction>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_info: Option<LockInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waba_info: Option<WabaInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnection_info: Option<DisconnectionInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_tier_info: Option<VolumeTier>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_client_certification_info: Option<Certification>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_client_certification_needed_info: Option<CertificationNeeded>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_international_rate_eligibility: Option<RateEligibility>,
}

/// The account was disabled, or will be, or no longer is.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct BanInfo {
    /// `DISABLE`, `REINSTATE`, `SCHEDULE_FOR_DISABLE`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    waba_ban_state: Option<Text>,
    /// For people: `April 17, 2025`.
    #[serde(skip_serializing_if = "Option::is_none")]
    waba_ban_date: Option<Text>,
}

/// Which rule the account broke.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ViolationInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    violation_type: Option<Text>,
    /// What to do about it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    remediation: Option<Text>,
}

/// What the account may not do.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Restriction {
    /// `RESTRICTED_BIZ_INITIATED_MESSAGING`, `RESTRICTED_DIRECT_SEND_UTILITY_TEMPLATES`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    restriction_type: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<Timestamp>,
    /// What to do about it, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    remediation: Option<Text>,
}

/// The account is locked.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct LockInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<Timestamp>,
}

/// Accounts of partners.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct WabaInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    waba_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_business_id: Option<Text>,
    /// The advertising account, in the older spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    ad_account_linked: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ad_account_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_app_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    solution_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    solution_partner_business_ids: Option<Vec<Text>>,
}

/// Why a number of the WhatsApp Business app left.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct DisconnectionInfo {
    /// `PRIMARY_INACTIVITY`, `CHANGE_NUMBER`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    /// `SYSTEM` or `USER`.
    #[serde(skip_serializing_if = "Option::is_none")]
    initiated_by: Option<Text>,
}

/// What messages cost from now on. Several webhooks may tell of one change: the smallest
/// `tierUpdateTime` counts.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct VolumeTier {
    #[serde(skip_serializing_if = "Option::is_none")]
    tier_update_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pricing_category: Option<Text>,
    /// From and to, like `25000001:50000000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<Text>,
    /// `YYYY-MM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_month: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Text>,
}

/// A partner asked Meta to verify a client's business.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Certification {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_business_id: Option<Text>,
    /// `APPROVED`, `FAILED`, `PENDING`, `DISCARDED`, `REVOKED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text>,
    /// `NONE` where there is no reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection_reasons: Option<Vec<Text>>,
}

/// A client without a website must be verified before it can send.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CertificationNeeded {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_business_id: Option<Text>,
}

/// From when international rates apply to authentication.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct RateEligibility {
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exception_countries: Option<Vec<ExceptionCountry>>,
}

/// A country with its own start.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ExceptionCountry {
    #[serde(skip_serializing_if = "Option::is_none")]
    country_code: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Timestamp>,
}
