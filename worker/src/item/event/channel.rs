//! What an event says of the number that a webhook came for.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::webhook::{Json, Place, members, scalar};

use super::phone;
use crate::item::payload::{Payload, PayloadItem};

/// The business profile of a number, as `GET /{phone_number_id}` of the Graph API answers when asked
/// for [`NumberProfile::FIELDS`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct NumberProfile {
    #[serde(default)]
    pub verified_name: Option<String>,
    /// `GREEN`, `YELLOW`, `RED`, `NA`, `UNKNOWN`.
    #[serde(default)]
    pub quality_rating: Option<String>,
    #[serde(default)]
    pub is_official_business_account: Option<bool>,
    /// For people: `+49 30 901820`.
    #[serde(default)]
    pub display_phone_number: Option<String>,
}

impl NumberProfile {
    pub const FIELDS: &str =
        "verified_name,quality_rating,is_official_business_account,display_phone_number";
}

/// A number that is known by its id.
#[derive(Debug, Clone)]
pub struct KnownNumber {
    pub id: String,
    pub profile: Option<Arc<NumberProfile>>,
}

/// The number that an item names as its own: beside it, or of some fields in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NamedNumber {
    pub id: Option<String>,
    /// As sent.
    pub display: Option<String>,
}

impl NamedNumber {
    /// Reads what stands beside the item, else what its field has.
    pub fn of(payload: &Payload, item: &PayloadItem) -> Self {
        let beside = Self {
            id: (payload.phone_number_id(item).filter(|id| !id.is_empty())).map(str::to_owned),
            display: payload.change(item).display_phone_number.clone(),
        };
        if item.place != Place::Change || beside != Self::default() {
            return beside;
        }
        Self::within(payload.field(item), payload.raw(item)).unwrap_or_default()
    }

    fn within(field: &str, value: Json<'_>) -> Option<Self> {
        let text = |raw: Option<Json<'_>>| {
            let text = raw.and_then(scalar).map(|text| text.into_owned());
            text.filter(|text| !text.is_empty())
        };
        let by_id = |id| Self { id, display: None };
        let by_display = |display| Self { id: None, display };
        match field {
            "account_alerts" => {
                let [kind, id] = members(value, ["entity_type", "entity_id"])?;
                (text(kind)? == "PHONE_NUMBER").then(|| by_id(text(id)))
            }
            "account_settings_update" => {
                let [settings] = members(value, ["phone_number_settings"])?;
                let [id] = members(settings?, ["phone_number_id"])?;
                Some(by_id(text(id)))
            }
            "account_update" => {
                let [display] = members(value, ["phone_number"])?;
                Some(by_display(text(display)))
            }
            "messaging_handovers" => {
                let [recipient] = members(value, ["recipient"])?;
                let [id, display] =
                    members(recipient?, ["phone_number_id", "display_phone_number"])?;
                Some(Self {
                    id: text(id),
                    display: text(display),
                })
            }
            _ => {
                let [display] = members(value, ["display_phone_number"])?;
                Some(by_display(text(display)))
            }
        }
    }
}

/// This is the account of the business, and the number if the event is about one.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Channel<'a> {
    /// This is Meta's id of the WhatsApp Business account (WABA). If `tenant` is `null`, it may be
    /// the id of a business portfolio, or `0`.
    business_account_id: &'a str,
    /// This is Meta's id of the number. It is `null` if the event is about no number, or if the
    /// number's id isn't known.
    phone_number_id: Option<&'a str>,
    /// This is the number as Meta writes it, such as `4930901820` or `+49 30 901820`. It is `null`
    /// if it isn't known.
    display_phone_number: Option<&'a str>,
    /// This is the number as it can be dialled, `+` and digits. It is `null` if it isn't known.
    #[schemars(extend("pattern" = "^\\+[0-9]{7,16}$"))]
    phone_e164: Option<String>,
    /// Customers see this name of the business. It is `null` until the number's profile has been
    /// looked up at Meta.
    verified_name: Option<&'a str>,
    /// Meta rates the number's quality by this word: `GREEN`, `YELLOW`, `RED`, `NA`, `UNKNOWN`. It
    /// is `null` until the number's profile has been looked up.
    quality_rating: Option<&'a str>,
    /// This is true if Meta calls the number an official business account. It is `null` until the
    /// number's profile has been looked up.
    official: Option<bool>,
}

impl<'a> Channel<'a> {
    /// Of which nothing but the ids is known.
    pub(super) fn of_account(
        business_account_id: &'a str,
        phone_number_id: Option<&'a str>,
    ) -> Self {
        Self {
            business_account_id,
            phone_number_id,
            display_phone_number: None,
            phone_e164: None,
            verified_name: None,
            quality_rating: None,
            official: None,
        }
    }

    /// Of a number of which only is known how it is written.
    pub(super) fn of_written(business_account_id: &'a str, display: Option<&'a str>) -> Self {
        Self {
            display_phone_number: display,
            phone_e164: display.and_then(phone::parse).map(|phone| phone.e164),
            ..Self::of_account(business_account_id, None)
        }
    }
}

pub(super) fn channel<'a>(
    payload: &'a Payload,
    named: &'a NamedNumber,
    known: Option<&'a KnownNumber>,
) -> Channel<'a> {
    let profile = known.and_then(|known| known.profile.as_deref());
    let of_profile = profile.and_then(|of| of.display_phone_number.as_deref());
    let number = named.display.as_deref().or(of_profile);
    Channel {
        business_account_id: &payload.entry.waba_id,
        phone_number_id: named.id.as_deref().or(known.map(|known| &*known.id)),
        display_phone_number: number,
        phone_e164: number.and_then(phone::parse).map(|phone| phone.e164),
        verified_name: profile.and_then(|of| of.verified_name.as_deref()),
        quality_rating: profile.and_then(|of| of.quality_rating.as_deref()),
        official: profile.and_then(|of| of.is_official_business_account),
    }
}
