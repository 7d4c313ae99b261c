//! `account_update`: something happened to the account; what, says `event`. Each event has a part of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// Something happened to the account. `event` says what, and which other members there are.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct AccountUpdate {
    /// Meta's word for what happened is an open set: `ACCOUNT_RESTRICTION`, `DISABLED_UPDATE`,
    /// `PARTNER_ADDED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    /// It happened to this number of the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<Text>,
    /// Meta takes this country for the main location of the business (ISO 3166 code).
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ban_info: Option<BanInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    violation_info: Option<ViolationInfo>,
    /// These restrictions are in force. An empty array means that none is left.
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
    /// The account is disabled (`DISABLE`), will be (`SCHEDULE_FOR_DISABLE`), no longer is
    /// (`REINSTATE`), …
    #[serde(skip_serializing_if = "Option::is_none")]
    waba_ban_state: Option<Text>,
    /// This is the date of the ban, written for people: `April 17, 2025`.
    #[serde(skip_serializing_if = "Option::is_none")]
    waba_ban_date: Option<Text>,
}

/// The account broke one of Meta's rules.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ViolationInfo {
    /// Meta's word for the broken rule is an open set: `ADULT`,
    /// `USER_INITIATED_CALLS_LOW_PICKUP_RATE`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    violation_type: Option<Text>,
    /// This text tells people what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remediation: Option<Text>,
}

/// Meta forbids the account something.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Restriction {
    /// Meta's word for what is forbidden is an open set: `RESTRICTED_BIZ_INITIATED_MESSAGING`,
    /// `RESTRICTED_DIRECT_SEND_UTILITY_TEMPLATES`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    restriction_type: Option<Text>,
    /// The restriction ends at this time. It is missing if Meta names no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<Timestamp>,
    /// This text tells people what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remediation: Option<Text>,
}

/// The account is locked.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct LockInfo {
    /// The lock ends at this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<Timestamp>,
}

/// This says which account and which partners an event is about.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct WabaInfo {
    /// Meta identifies the account by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    waba_id: Option<Text>,
    /// The business portfolio with this id owns the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_business_id: Option<Text>,
    /// The advertising account with this id was linked. This is the older name of `adAccountId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ad_account_linked: Option<Text>,
    /// The advertising account with this id was linked.
    #[serde(skip_serializing_if = "Option::is_none")]
    ad_account_id: Option<Text>,
    /// The app with this id is the partner's.
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_app_id: Option<Text>,
    /// The account joined by the multi-partner solution with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    solution_id: Option<Text>,
    /// These are the ids of the portfolios of the solution's partners.
    #[serde(skip_serializing_if = "Option::is_none")]
    solution_partner_business_ids: Option<Vec<Text>>,
}

/// This says why a number of the WhatsApp Business app left the API.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct DisconnectionInfo {
    /// Meta's word for the reason is an open set: `PRIMARY_INACTIVITY`, `CHANGE_NUMBER`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    /// Meta's `SYSTEM` or the `USER` disconnected the number.
    #[serde(skip_serializing_if = "Option::is_none")]
    initiated_by: Option<Text>,
}

/// The account reached another tier of prices. If several webhooks tell of one change, that with
/// the smallest `tierUpdateTime` counts.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct VolumeTier {
    /// The tier changed at this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier_update_time: Option<Timestamp>,
    /// The tier is for messages of this category, such as `UTILITY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pricing_category: Option<Text>,
    /// The tier goes from one count of messages to another, such as `25000001:50000000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<Text>,
    /// The tier is in force in this month, written as `YYYY-MM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_month: Option<Text>,
    /// The tier is for messages to this country or region, such as `India`.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Text>,
}

/// A partner asked Meta to verify a client's business. This tells how that stands.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Certification {
    /// Meta identifies the client's portfolio by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_business_id: Option<Text>,
    /// The request has this status: `APPROVED`, `FAILED`, `PENDING`, `DISCARDED`, `REVOKED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text>,
    /// Meta rejected the request for these reasons. The only one is `NONE` if it was not rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection_reasons: Option<Vec<Text>>,
}

/// A client without a website must be verified before it can send messages.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct CertificationNeeded {
    /// Meta identifies the client's portfolio by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_business_id: Option<Text>,
}

/// International rates will apply to authentication messages of the account.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct RateEligibility {
    /// The rates apply from this time on, except in `exceptionCountries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Timestamp>,
    /// In these countries the rates apply from other times on.
    #[serde(skip_serializing_if = "Option::is_none")]
    exception_countries: Option<Vec<ExceptionCountry>>,
}

/// In this country the rates apply from a time of its own on.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ExceptionCountry {
    /// This is the country's two-letter ISO 3166 code.
    #[serde(skip_serializing_if = "Option::is_none")]
    country_code: Option<Text>,
    /// The rates apply from this time on.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Timestamp>,
}
