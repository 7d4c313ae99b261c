//! What an event says of the number that a webhook came for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
}

impl NumberProfile {
    pub const FIELDS: &str = "verified_name,quality_rating,is_official_business_account";
}

/// The business's number and account.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Channel<'a> {
    /// The WhatsApp Business Account (WABA).
    business_account_id: &'a str,
    phone_number_id: Option<&'a str>,
    /// As sent.
    display_phone_number: Option<&'a str>,
    #[schemars(extend("pattern" = "^\\+[0-9]{7,16}$"))]
    phone_e164: Option<String>,
    /// Of the number's profile, which is looked up in the background: `null` until it is known.
    verified_name: Option<&'a str>,
    /// `GREEN`, `YELLOW`, `RED`, … as above.
    quality_rating: Option<&'a str>,
    /// Whether it is an official business account; as above.
    official: Option<bool>,
}

pub(super) fn channel<'a>(
    payload: &'a Payload,
    item: &'a PayloadItem,
    profile: Option<&'a NumberProfile>,
) -> Channel<'a> {
    let number = payload.change(item).display_phone_number.as_deref();
    Channel {
        business_account_id: &payload.entry.waba_id,
        phone_number_id: item.phone_number_id.as_deref(),
        display_phone_number: number,
        phone_e164: number.and_then(phone::parse).map(|phone| phone.e164),
        verified_name: profile.and_then(|of| of.verified_name.as_deref()),
        quality_rating: profile.and_then(|of| of.quality_rating.as_deref()),
        official: profile.and_then(|of| of.is_official_business_account),
    }
}
