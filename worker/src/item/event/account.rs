//! Everything that is no message, status or call. `value` is what Meta sent; `details` holds the same
//! typed. A field has a file of its own, a variant of [`AccountField`] and an arm below it.

mod account_alerts;
mod account_review_update;
mod account_settings_update;
mod account_update;
mod automatic_events;
mod business_capability_update;
mod business_username_updates;
mod errors;
mod flows;
mod group_lifecycle_update;
mod group_participants_update;
mod group_settings_update;
mod group_status_update;
mod history;
mod message_template_components_update;
mod message_template_quality_update;
mod message_template_status_update;
mod messaging_handovers;
mod partner_solutions;
mod payment_configuration_update;
mod phone_number_name_update;
mod phone_number_quality_update;
mod security;
mod smb_app_state_sync;
mod template_category_update;
mod template_correct_category_detection;
mod user_actions;
mod user_preferences;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use shared::webhook::Json;
use strum::{EnumIter, EnumString, IntoStaticStr};

use super::read::Reading;
use super::values::Timestamp;

/// This is a change that is no message, status or call: of an account, a number, a template, a
/// group and so on.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Account<'a> {
    /// This is Meta's name of the sort of change, an open set. The changes `user_actions` and
    /// `errors` come under Meta's field `messages`.
    pub(super) field: &'a str,
    /// This is the change as Meta sent it, with its names. It is `null` if common JSON parsers
    /// would refuse it: then `raw` has its text.
    #[schemars(with = "Value")]
    pub(super) value: Option<Json<'a>>,
    /// This is the change with types, in a shape that follows from `field`. It is `null` if this
    /// version doesn't type the field.
    #[schemars(with = "Option<Value>")]
    pub(super) details: Option<Box<RawValue>>,
}

/// The fields whose changes are typed, and two arrays of the field `messages`. Any other is in the event
/// as sent, without `details`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum AccountField {
    AccountAlerts,
    AccountReviewUpdate,
    AccountSettingsUpdate,
    AccountUpdate,
    AutomaticEvents,
    BusinessCapabilityUpdate,
    BusinessUsernameUpdates,
    Errors,
    Flows,
    GroupLifecycleUpdate,
    GroupParticipantsUpdate,
    GroupSettingsUpdate,
    GroupStatusUpdate,
    History,
    MessageTemplateComponentsUpdate,
    MessageTemplateQualityUpdate,
    MessageTemplateStatusUpdate,
    MessagingHandovers,
    PartnerSolutions,
    PaymentConfigurationUpdate,
    PhoneNumberNameUpdate,
    PhoneNumberQualityUpdate,
    Security,
    SmbAppStateSync,
    TemplateCategoryUpdate,
    TemplateCorrectCategoryDetection,
    UserActions,
    UserPreferences,
}

impl AccountField {
    pub(super) fn name(self) -> &'static str {
        self.into()
    }

    /// What reads its value.
    pub(super) fn processor(self) -> FieldProcessor {
        match self {
            Self::AccountAlerts => typed::<account_alerts::AccountAlerts>(),
            Self::AccountReviewUpdate => typed::<account_review_update::AccountReview>(),
            Self::AccountSettingsUpdate => typed::<account_settings_update::AccountSettings>(),
            Self::AccountUpdate => typed::<account_update::AccountUpdate>(),
            Self::AutomaticEvents => typed::<automatic_events::AutomaticEvents>(),
            Self::BusinessCapabilityUpdate => {
                typed::<business_capability_update::BusinessCapability>()
            }
            Self::BusinessUsernameUpdates => typed::<business_username_updates::BusinessUsername>(),
            Self::Errors => typed::<errors::ValueErrors>(),
            Self::Flows => typed::<flows::FlowUpdate>(),
            Self::GroupLifecycleUpdate => typed::<group_lifecycle_update::GroupLifecycle>(),
            Self::GroupParticipantsUpdate => {
                typed::<group_participants_update::GroupParticipants>()
            }
            Self::GroupSettingsUpdate => typed::<group_settings_update::GroupSettings>(),
            Self::GroupStatusUpdate => typed::<group_status_update::GroupStatus>(),
            Self::History => typed::<history::DeclinedHistory>(),
            Self::MessageTemplateComponentsUpdate => {
                typed::<message_template_components_update::TemplateComponents>()
            }
            Self::MessageTemplateQualityUpdate => {
                typed::<message_template_quality_update::TemplateQuality>()
            }
            Self::MessageTemplateStatusUpdate => {
                typed::<message_template_status_update::TemplateStatus>()
            }
            Self::MessagingHandovers => typed::<messaging_handovers::Handover>(),
            Self::PartnerSolutions => typed::<partner_solutions::PartnerSolution>(),
            Self::PaymentConfigurationUpdate => {
                typed::<payment_configuration_update::PaymentConfiguration>()
            }
            Self::PhoneNumberNameUpdate => typed::<phone_number_name_update::PhoneNumberName>(),
            Self::PhoneNumberQualityUpdate => {
                typed::<phone_number_quality_update::PhoneNumberQuality>()
            }
            Self::Security => typed::<security::SecurityUpdate>(),
            Self::SmbAppStateSync => typed::<smb_app_state_sync::AppStateSync>(),
            Self::TemplateCategoryUpdate => typed::<template_category_update::TemplateCategory>(),
            Self::TemplateCorrectCategoryDetection => {
                typed::<template_correct_category_detection::CorrectCategory>()
            }
            Self::UserActions => typed::<user_actions::UserAction>(),
            Self::UserPreferences => typed::<user_preferences::UserPreferences>(),
        }
    }
}

/// How a field's value is read, and what it looks like in an event.
#[derive(Clone, Copy)]
pub(super) struct FieldProcessor {
    read: fn(&mut Reading<'_>) -> Option<Box<RawValue>>,
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
}

fn typed<T: DeserializeOwned + Default + Serialize + JsonSchema>() -> FieldProcessor {
    FieldProcessor {
        read: |reading| to_raw_value(&reading.rest::<T>()).ok(),
        schema: |generator| generator.subschema_for::<T>(),
    }
}

/// Types what a change of `field` says.
pub(super) fn details(reading: &mut Reading<'_>, field: &str) -> Option<Box<RawValue>> {
    let field: AccountField = field.parse().ok()?;
    (field.processor().read)(reading)
}

/// When a change happened: as it says itself, or the first thing that it lists.
pub(super) fn timestamp(reading: &Reading<'_>) -> Option<Timestamp> {
    let of = |member: &Value| Timestamp::of_json(member.get("timestamp")?);
    reading.member("timestamp").map_or_else(
        || reading.members().find_map(|member| of(member.get(0)?)),
        Timestamp::of_json,
    )
}
