//! What the worker itself notices of an account, a number or a template: no webhook is behind it, or one
//! that says it in passing. One event each time that a state changes.

use chrono::Utc;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{EnumIter, IntoStaticStr};
use uuid::Uuid;

use super::channel::Channel;
use super::{
    CountedFacts, EVENT_IDS, Event, EventDocument, EventType, OtherMembers, SCHEMA_VERSION,
    TenantPart, Unwritable, rfc3339, time, word,
};
use crate::item::tenant::Tenant;

/// What it is about.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumIter,
    IntoStaticStr,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum HealthKind {
    /// A number that usually has traffic: `silent`, `back`.
    Silence,
    /// The account's access token: `refused`, `accepted`.
    Token,
    /// Whether Meta sends the account's webhooks here: `unsubscribed`, `overridden`, `subscribed`.
    Subscription,
    /// The account: `restricted`, `banned`, `ban_scheduled`, `lifted`.
    Restriction,
    /// Whether the account is still this app's: `offboarded`, `onboarded`.
    Offboarding,
    /// A number's quality: `dropped`, `recovered`.
    Quality,
    /// A template: `paused`, `disabled`, `flagged`, `active`.
    Template,
}

impl HealthKind {
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether nothing needs to be done in this state.
    pub fn is_well(self, state: &str) -> bool {
        let well = match self {
            Self::Silence => "back",
            Self::Token => "accepted",
            Self::Subscription => "subscribed",
            Self::Restriction => "lifted",
            Self::Offboarding => "onboarded",
            Self::Quality => "recovered",
            Self::Template => "active",
        };
        state == well
    }
}

/// The part of an event of this type.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Health")]
pub(super) struct HealthPart<'a> {
    kind: HealthKind,
    /// A word; which ones there are follows from `kind`.
    state: &'a str,
    /// When this state was noticed.
    #[schemars(extend("format" = "date-time"))]
    since: String,
    /// Meta's words or numbers for it.
    detail: Option<&'a str>,
}

/// A state that has changed.
#[derive(Debug, Clone, Copy)]
pub struct HealthChange<'a> {
    pub kind: HealthKind,
    pub business_account_id: &'a str,
    /// The number or template, if it is about one.
    pub subject: Option<&'a str>,
    pub state: &'a str,
    pub since_ms: i64,
    pub detail: Option<&'a str>,
}

impl HealthChange<'_> {
    fn event_id(&self) -> Uuid {
        let name = format!(
            "{} {} {} {} {} {}",
            EventType::ChannelHealth.name(),
            self.kind.name(),
            self.business_account_id,
            self.subject.unwrap_or_default(),
            self.state,
            self.since_ms,
        );
        Uuid::new_v5(&EVENT_IDS, name.as_bytes())
    }
}

/// The event that tells a change. The same change has the same id, however often it is told.
///
/// # Errors
/// [`Unwritable`], which no input is known to cause.
pub fn health_event(change: &HealthChange<'_>, tenant: &Tenant) -> Result<Event, Unwritable> {
    let HealthChange { kind, state, .. } = *change;
    let kind_of_event = EventType::ChannelHealth;
    let id = change.event_id();
    let correlation_id = id.to_string();
    let since = rfc3339(time(change.since_ms));
    let of_number = matches!(kind, HealthKind::Silence | HealthKind::Quality);
    let document = EventDocument {
        schema_version: SCHEMA_VERSION,
        event_id: id,
        event_type: kind_of_event,
        correlation_id: &correlation_id,
        source: "whatsapp",
        occurred_at: since.clone(),
        received_at: since.clone(),
        processed_at: rfc3339(Utc::now()),
        tenant: Some(TenantPart {
            id: &tenant.id,
            name: tenant.name.as_deref(),
        }),
        channel: Channel::of_account(
            change.business_account_id,
            change.subject.filter(|_| of_number),
        ),
        customer: None,
        conversation: None,
        group_id: None,
        message: None,
        status: None,
        account: None,
        call: None,
        health: Some(HealthPart {
            kind,
            state,
            since,
            detail: change.detail,
        }),
        errors: None,
        beside: OtherMembers::default(),
        raw: None,
        unreadable: None,
        raw_object: None,
        degraded: &[],
    };
    Ok(Event {
        id,
        kind: kind_of_event.name(),
        routing_key: format!("health.{}.{}", kind.name(), word(&tenant.id)),
        body: serde_json::to_vec(&document)?,
        correlation_id: correlation_id.clone(),
        traceparent: String::new(),
        tenant_id: tenant.id.clone(),
        counted: CountedFacts::default(),
        follows: None,
        replay_id: String::new(),
        occurred_at: (change.since_ms / 1000).try_into().unwrap_or(0),
    })
}
