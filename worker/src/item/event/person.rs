//! What an event says of the customer.

use schemars::JsonSchema;
use serde::Serialize;

use super::phone;
use crate::item::customer::Customer;

/// A customer is a WhatsApp user who writes to the business, or to whom it writes. Meta withholds
/// the phone of users with a username, so one person can appear with either of `userId` and `waId`,
/// or with both.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Person<'a> {
    /// This is Meta's business-scoped id of the user (`CC.…`), which stays the same until they
    /// change their number. It is `null` if Meta sent none.
    user_id: Option<&'a str>,
    /// This is the user's parent business-scoped id (`CC.ENT.…`), which linked portfolios share. It
    /// is `null` if Meta sent none.
    parent_user_id: Option<&'a str>,
    /// This is WhatsApp's id of the user's phone, to which answers are sent; it isn't always a
    /// number that can be dialled. It is `null` if Meta withholds it.
    pub(super) wa_id: Option<&'a str>,
    /// This is the user's phone number as it can be dialled, `+` and digits. It is `null` if it
    /// isn't known.
    #[schemars(extend("pattern" = "^\\+[0-9]{7,16}$"))]
    phone_e164: Option<String>,
    /// This is the two-letter ISO 3166 code of the user's country: as Meta says, else of the phone
    /// number, else of the business-scoped id. It is `null` if none of them tells it.
    #[schemars(extend("pattern" = "^[A-Z]{2}$"))]
    country_code: Option<String>,
    /// The user chose this name. It is `null` if Meta sent none.
    name: Option<&'a str>,
    /// The user chose this username, here without a leading `@`. It is `null` if Meta sent none.
    username: Option<&'a str>,
    /// This is always `null`, since Meta offers no such URL.
    profile_picture_url: Option<&'a str>,
    account_type: AccountType,
    /// This is a hash of the user's identity key. It is there only if the business has the identity
    /// check on.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity_key_hash: Option<&'a str>,
}

/// This is always `unknown` today, since Meta sends nothing that tells a person from a business.
/// The other two words are reserved for the day when Meta does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum AccountType {
    #[expect(dead_code, reason = "part of the contract")]
    Personal,
    #[expect(dead_code, reason = "part of the contract")]
    Business,
    Unknown,
}

pub(super) fn person(customer: &Customer) -> Option<Person<'_>> {
    let contact = customer.contact.as_ref();
    let (user_id, wa_id) = (customer.known_user_id(), customer.known_wa_id());
    let parent_user_id = (customer.parent_user_id.as_deref())
        .or(contact.and_then(|of| of.parent_user_id.as_deref()));
    user_id.or(wa_id).or(parent_user_id)?;
    let phone = wa_id.and_then(phone::parse);
    let prefix = || user_id.or(parent_user_id).and_then(country_of);
    let (phone_e164, country) = phone.map_or((None, None), |of| (Some(of.e164), of.country));
    let username = contact.and_then(|of| of.username.as_deref());
    Some(Person {
        user_id,
        parent_user_id,
        wa_id,
        phone_e164,
        country_code: (contact.and_then(|of| of.country_code.clone()))
            .or(country)
            .or_else(prefix),
        name: contact.and_then(|of| of.name.as_deref()),
        username: username.map(|name| name.strip_prefix('@').unwrap_or(name)),
        profile_picture_url: None,
        account_type: AccountType::Unknown,
        identity_key_hash: contact.and_then(|of| of.identity_key_hash.as_deref()),
    })
}

/// `US` of `US.1349…`.
fn country_of(user_id: &str) -> Option<String> {
    let (country, _) = user_id.split_once('.')?;
    let is_country = country.len() == 2 && country.bytes().all(|c| c.is_ascii_uppercase());
    is_country.then(|| country.to_owned())
}
