//! What webhooks say of the health of accounts, numbers and templates, noted for whoever watches.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::webhook::Place;

use crate::item::event::health::HealthKind;
use crate::item::payload::Payload;

/// Notes between two writes.
const MOST_NOTES: usize = 10_000;
/// What waited for longer, or is replayed, is no news.
const NEWS_MS: i64 = 3_600_000;
const LONGEST_WORD: usize = 200;

/// A state that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthNote {
    pub kind: HealthKind,
    pub account: String,
    /// The number or template, if it is about one.
    pub subject: Option<String>,
    pub state: String,
    pub detail: Option<String>,
    pub at_ms: i64,
    /// It ends by itself then (seconds since 1970).
    pub until: Option<i64>,
}

impl HealthNote {
    pub fn is_well(&self) -> bool {
        self.kind.is_well(&self.state)
    }

    /// What the state is of.
    pub fn key(&self) -> String {
        let subject = self.subject.as_deref().unwrap_or_default();
        format!("{}:{}:{subject}", self.kind.name(), self.account)
    }

    /// The account of a [`HealthNote::key`].
    pub fn account_of(key: &str) -> Option<&str> {
        key.split(':').nth(1)
    }
}

/// What was noted and not written yet.
#[derive(Default)]
pub struct HealthNotes(Mutex<Vec<HealthNote>>);

impl HealthNotes {
    /// Notes what an entry's changes say.
    pub fn note(&self, payload: &Payload, now_ms: i64) {
        let at_ms = payload.entry.received_at_ms;
        if now_ms - at_ms > NEWS_MS {
            return;
        }
        let changes = payload.items.iter().filter(|it| it.place == Place::Change);
        let seen = changes.filter_map(|item| {
            let said = serde_json::from_str(payload.raw(item).get()).ok()?;
            Some(HealthNote {
                account: payload.entry.waba_id.clone(),
                at_ms,
                ..read(payload.field(item), said)?
            })
        });
        let seen: Vec<_> = seen.collect();
        if seen.is_empty() {
            return;
        }
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < MOST_NOTES {
            notes.extend(seen);
        }
    }

    /// What could not be written goes before what was noted since.
    pub fn put_back(&self, mut taken: Vec<HealthNote>) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.append(&mut notes);
        taken.truncate(MOST_NOTES);
        *notes = taken;
    }

    pub fn take(&self) -> Vec<HealthNote> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the fields that are looked at say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HealthWords {
    event: String,
    ban_info: Option<BanWords>,
    restriction_info: Option<Vec<RestrictionWords>>,
    display_phone_number: Option<String>,
    /// A number, or a text such as `TIER_2K`; it has one of two names.
    current_limit: Value,
    max_daily_conversations_per_business: Value,
    message_template_id: Value,
    message_template_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BanWords {
    waba_ban_state: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RestrictionWords {
    restriction_type: Option<String>,
    /// A number, or a text of one.
    expiration: Value,
}

fn read(field: &str, said: HealthWords) -> Option<HealthNote> {
    match field {
        "account_update" => account(&said),
        "phone_number_quality_update" => quality(said),
        "message_template_status_update" => template(said),
        _ => None,
    }
}

fn noted(kind: HealthKind, state: &str) -> HealthNote {
    HealthNote {
        kind,
        account: String::new(),
        subject: None,
        state: state.to_owned(),
        detail: None,
        at_ms: 0,
        until: None,
    }
}

fn account(said: &HealthWords) -> Option<HealthNote> {
    let restriction = |state| noted(HealthKind::Restriction, state);
    let offboarding = |state| HealthNote {
        detail: Some(short(&said.event)),
        ..noted(HealthKind::Offboarding, state)
    };
    let restrictions = said.restriction_info.as_deref().unwrap_or_default();
    let ban = said.ban_info.as_ref();
    let ban_state = ban.and_then(|it| it.waba_ban_state.as_deref());
    Some(match said.event.as_str() {
        "ACCOUNT_RESTRICTION" if restrictions.is_empty() => restriction("lifted"),
        "ACCOUNT_RESTRICTION" => {
            let types = restrictions.iter();
            let types = types.filter_map(|it| it.restriction_type.as_deref());
            let ends = restrictions.iter().map(|it| number(&it.expiration));
            HealthNote {
                detail: Some(short(&types.collect::<Vec<_>>().join(", "))),
                // One that doesn't say when it ends lasts.
                until: ends
                    .collect::<Option<Vec<_>>>()
                    .and_then(|it| it.into_iter().max()),
                ..restriction("restricted")
            }
        }
        "DISABLED_UPDATE" => match ban_state {
            Some("DISABLE") => restriction("banned"),
            Some("SCHEDULE_FOR_DISABLE") => restriction("ban_scheduled"),
            Some("REINSTATE") => restriction("lifted"),
            _ => return None,
        },
        "ACCOUNT_OFFBOARDED"
        | "ACCOUNT_DELETED"
        | "PARTNER_REMOVED"
        | "PARTNER_APP_UNINSTALLED" => offboarding("offboarded"),
        "ACCOUNT_RECONNECTED" | "PARTNER_ADDED" | "PARTNER_APP_INSTALLED" => {
            offboarding("onboarded")
        }
        _ => return None,
    })
}

fn quality(said: HealthWords) -> Option<HealthNote> {
    let state = match said.event.as_str() {
        "FLAGGED" | "DOWNGRADE" => "dropped",
        "UNFLAGGED" | "UPGRADE" | "ONBOARDING" => "recovered",
        _ => return None,
    };
    let limits = [
        said.current_limit,
        said.max_daily_conversations_per_business,
    ];
    let limit = limits.iter().find_map(text).unwrap_or_default();
    Some(HealthNote {
        subject: Some(short(&said.display_phone_number?)),
        detail: Some(short(format!("{} {limit}", said.event).trim_end())),
        ..noted(HealthKind::Quality, state)
    })
}

fn template(said: HealthWords) -> Option<HealthNote> {
    let state = match said.event.as_str() {
        "PAUSED" => "paused",
        "DISABLED" => "disabled",
        "FLAGGED" => "flagged",
        "APPROVED" | "REINSTATED" => "active",
        _ => return None,
    };
    let id = number(&said.message_template_id)?;
    Some(HealthNote {
        subject: Some(id.to_string()),
        detail: said.message_template_name.as_deref().map(short),
        ..noted(HealthKind::Template, state)
    })
}

fn number(value: &Value) -> Option<i64> {
    let text = value.as_str().and_then(|text| text.parse().ok());
    value.as_i64().or(text)
}

fn text(value: &Value) -> Option<String> {
    let text = value.as_str().map(str::to_owned);
    text.or_else(|| value.as_number().map(ToString::to_string))
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST_WORD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(field: &str, said: Value) -> Option<(HealthKind, String)> {
        let note = read(field, serde_json::from_value(said).ok()?)?;
        Some((note.kind, note.state))
    }

    #[test]
    fn fields_of_accounts_say_how_they_are() {
        use HealthKind::{Offboarding, Quality, Restriction, Template};
        let restricted = json!({"event": "ACCOUNT_RESTRICTION", "restriction_info": [{"restriction_type": "X"}]});
        let number = |event| json!({"event": event, "display_phone_number": "4930901820"});
        let template = |event| json!({"event": event, "message_template_id": 123});
        for (field, said, expected) in [
            ("account_update", restricted, (Restriction, "restricted")),
            (
                "account_update",
                json!({"event": "ACCOUNT_RESTRICTION", "restriction_info": []}),
                (Restriction, "lifted"),
            ),
            (
                "account_update",
                json!({"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "DISABLE"}}),
                (Restriction, "banned"),
            ),
            (
                "account_update",
                json!({"event": "ACCOUNT_OFFBOARDED"}),
                (Offboarding, "offboarded"),
            ),
            (
                "phone_number_quality_update",
                number("FLAGGED"),
                (Quality, "dropped"),
            ),
            (
                "phone_number_quality_update",
                number("UPGRADE"),
                (Quality, "recovered"),
            ),
            (
                "message_template_status_update",
                template("PAUSED"),
                (Template, "paused"),
            ),
            (
                "message_template_status_update",
                template("APPROVED"),
                (Template, "active"),
            ),
        ] {
            let (kind, name) = expected;
            assert_eq!(state(field, said), Some((kind, name.to_owned())), "{field}");
        }
        assert_eq!(
            state("account_update", json!({"event": "VERIFIED_ACCOUNT"})),
            None
        );
        assert_eq!(state("flows", json!({"event": "FLAGGED"})), None);
        assert_eq!(state("account_update", json!([])), None);
    }

    #[test]
    fn a_limit_is_read_in_each_spelling_and_null_is_nothing() {
        for (limit, detail) in [
            (json!({"current_limit": "TIER_2K"}), "FLAGGED TIER_2K"),
            (json!({"current_limit": 2000}), "FLAGGED 2000"),
            (
                json!({"max_daily_conversations_per_business": -1}),
                "FLAGGED -1",
            ),
            (json!({"current_limit": null}), "FLAGGED"),
        ] {
            let mut said = json!({"event": "FLAGGED", "display_phone_number": "4930901820",
                "ban_info": null, "restriction_info": null});
            let members = said.as_object_mut().expect("an object");
            members.extend(limit.as_object().expect("an object").clone());
            let said = serde_json::from_value(said).expect("readable");
            let note = read("phone_number_quality_update", said).expect("a note");
            assert_eq!(note.detail.as_deref(), Some(detail));
        }
    }

    #[test]
    fn a_restriction_lasts_until_its_last_part_ends() {
        let said = json!({"event": "ACCOUNT_RESTRICTION", "restriction_info": [
            {"restriction_type": "A", "expiration": 1_795_686_360},
            {"restriction_type": "B", "expiration": "1796200000"},
        ]});
        let note = read("account_update", serde_json::from_value(said).expect("it"));
        let note = note.expect("a note");
        assert_eq!(note.until, Some(1_796_200_000));
        assert_eq!(note.detail.as_deref(), Some("A, B"));
    }
}
