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

/// This says what is no longer well, or is well again. Each kind has its own words for `state`.
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
    /// A number that usually has traffic is `silent`, or is `back`.
    Silence,
    /// Meta has `refused` the account's access token, or `accepted` it again.
    Token,
    /// Meta doesn't send the account's webhooks here (`unsubscribed`, or `overridden` by another
    /// address), or does so again (`subscribed`).
    Subscription,
    /// The account is `restricted`, `banned` or about to be banned (`ban_scheduled`), or no longer
    /// so (`lifted`).
    Restriction,
    /// The account has left this app (`offboarded`), or has come back (`onboarded`).
    Offboarding,
    /// The quality of a number has `dropped` or `recovered`.
    Quality,
    /// A template is `paused`, `disabled` or `flagged`, or is `active` again.
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

/// The worker noticed that an account, a number or a template is no longer well, or is well again.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Health")]
pub(super) struct HealthPart<'a> {
    kind: HealthKind,
    /// This word names the new state. `kind` says which words there are.
    state: &'a str,
    /// The worker noticed the state at this time.
    #[schemars(extend("format" = "date-time"))]
    since: String,
    /// This has words or numbers about the state, mostly Meta's; for the kind `template` it is the
    /// template's name. It is `null` if there are none.
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

    fn channel(&self) -> Channel<'_> {
        let account = self.business_account_id;
        match self.kind {
            HealthKind::Silence => Channel::of_account(account, self.subject),
            // Meta's word of a number's quality has no id of it.
            HealthKind::Quality => Channel::of_written(account, self.subject),
            HealthKind::Token
            | HealthKind::Subscription
            | HealthKind::Restriction
            | HealthKind::Offboarding
            | HealthKind::Template => Channel::of_account(account, None),
        }
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
        channel: change.channel(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_where_its_spelling_belongs() {
        for (kind, subject, place) in [
            (HealthKind::Silence, "106540352242922", "phoneNumberId"),
            (HealthKind::Quality, "4930901820", "displayPhoneNumber"),
        ] {
            let change = HealthChange {
                kind,
                business_account_id: "1",
                subject: Some(subject),
                state: "back",
                since_ms: 0,
                detail: None,
            };
            let event = health_event(&change, &Tenant::default()).expect("an event");
            let event: serde_json::Value = serde_json::from_slice(&event.body).expect("JSON");
            let channel = &event["channel"];
            for name in ["phoneNumberId", "displayPhoneNumber"] {
                assert_eq!(channel[name].as_str(), (name == place).then_some(subject));
            }
        }
    }
}
