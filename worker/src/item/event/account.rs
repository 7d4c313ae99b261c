//! Everything that is no message, status or call. `value` is what Meta sent; of the fields that
//! consumers act on, `details` holds the same typed.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::errors::MetaError;
use super::message::{ConversationContext, History};
use super::read::Reading;
use super::values::{Text, Timestamp};

/// A change of an account, a template, a preference, …
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Account<'a> {
    /// Meta's name of it. `user_actions` and `errors` are Meta's field `messages`.
    pub(super) field: &'a str,
    /// The change's value, or the action, as Meta sent it, names and all. `null` if it can't stand in
    /// JSON that everybody reads: then `raw` has its text.
    #[schemars(with = "Value")]
    pub(super) value: Option<&'a RawValue>,
    /// The same, typed, for fields that are known; its shape follows from `field`.
    #[schemars(with = "Option<Value>")]
    pub(super) details: Option<Box<RawValue>>,
}

/// How a field is read, and what it looks like in an event.
#[derive(Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    read: fn(&mut Reading<'_>) -> Option<Box<RawValue>>,
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
}

const fn field<T: DeserializeOwned + Default + Serialize + JsonSchema>(
    name: &'static str,
) -> Field {
    Field {
        name,
        read: |reading| to_raw_value(&reading.rest::<T>()).ok(),
        schema: |generator| generator.subschema_for::<T>(),
    }
}

pub(super) const USER_ACTIONS: &str = "user_actions";
pub(super) const ERRORS: &str = "errors";

/// The fields with `details`.
pub(super) const TYPED: [Field; 7] = [
    field::<AccountUpdate>("account_update"),
    field::<DeclinedHistory>("history"),
    field::<TemplateStatus>("message_template_status_update"),
    field::<Handover>("messaging_handovers"),
    field::<ValueErrors>(ERRORS),
    field::<UserAction>(USER_ACTIONS),
    field::<UserPreferences>("user_preferences"),
];

/// Types what `field` says.
pub(super) fn details(reading: &mut Reading<'_>, field: &str) -> Option<Box<RawValue>> {
    let typed = TYPED.iter().find(|typed| typed.name == field)?;
    (typed.read)(reading)
}

/// What customers want to get.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct UserPreferences {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_preferences: Option<Vec<UserPreference>>,
}

/// One wish of one customer.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct UserPreference {
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
    /// `marketing_messages`.
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Text>,
    /// `stop`, `resume` or `signup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Text>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signup_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
}

/// A template was approved, rejected, …
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TemplateStatus {
    /// `APPROVED`, `REJECTED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    /// Text, since it may be more than a double holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_language: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_category: Option<Text>,
    /// `NONE`, or why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection_info: Option<RejectionInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_info: Option<DisableInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_info: Option<OtherInfo>,
}

/// Why a template was rejected.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct RejectionInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recommendation: Option<Text>,
}

/// When a template was disabled.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct DisableInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_date: Option<Text>,
}

/// What else there is to say.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct OtherInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Text>,
}

/// A chat passed between Meta's agent and the business.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Handover {
    /// `control_passed` or `control_taken`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<Sender>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<Recipient>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_passed: Option<Control>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_taken: Option<Control>,
}

/// The customer.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Sender {
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
}

/// The number of the business.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Recipient {
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_phone_number: Option<Text>,
}

/// From whom to whom.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Control {
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_owner_app_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_owner_app_role: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_owner_role: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_owner_role: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_context: Option<ConversationContext>,
}

/// Something a customer did that is no message.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct UserAction {
    /// `marketing_messages_link_click`.
    #[serde(skip_serializing_if = "Option::is_none")]
    action_type: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marketing_messages_link_click_data: Option<LinkClick>,
}

/// A tap on a link of a marketing message.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct LinkClick {
    /// `cta` or `body`.
    #[serde(skip_serializing_if = "Option::is_none")]
    click_component: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    product_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    click_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_token: Option<Text>,
}

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
    auth_international_rate_eligibility: Option<RateEligibility>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct BanInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    waba_ban_state: Option<Text>,
    /// For people: `April 17, 2025`.
    #[serde(skip_serializing_if = "Option::is_none")]
    waba_ban_date: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ViolationInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    violation_type: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Restriction {
    #[serde(skip_serializing_if = "Option::is_none")]
    restriction_type: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<Timestamp>,
}

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
    #[serde(skip_serializing_if = "Option::is_none")]
    ad_account_linked: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_app_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    solution_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    solution_partner_business_ids: Option<Vec<Text>>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct DisconnectionInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initiated_by: Option<Text>,
}

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

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Certification {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_business_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection_reasons: Option<Vec<Text>>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct RateEligibility {
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exception_countries: Option<Vec<ExceptionCountry>>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ExceptionCountry {
    #[serde(skip_serializing_if = "Option::is_none")]
    country_code: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Timestamp>,
}

/// The business did not share its history, or sharing it failed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct DeclinedHistory {
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<HistoryChunk>>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct HistoryChunk {
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<History>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}

/// Errors that stood alone.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ValueErrors {
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<MetaError>>,
}
