//! What an event says of the customer.

use schemars::JsonSchema;
use serde::Serialize;

use super::phone;
use crate::item::customer::Customer;

/// The customer. Meta withholds the phone of users with a username, so that either of `userId` and
/// `waId` may be missing, and one person can appear now by one, now by the other.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Person<'a> {
    /// Business-scoped id, `CC.…`: stable until the person changes their number.
    user_id: Option<&'a str>,
    /// `CC.ENT.…`: across linked portfolios.
    parent_user_id: Option<&'a str>,
    /// WhatsApp's id, as sent: what to answer to. Not always a number that can be dialled.
    pub(super) wa_id: Option<&'a str>,
    /// The number to dial.
    #[schemars(extend("pattern" = "^\\+[0-9]{7,16}$"))]
    phone_e164: Option<String>,
    /// ISO 3166: as Meta says it, else of the phone, else of the business-scoped id.
    #[schemars(extend("pattern" = "^[A-Z]{2}$"))]
    country_code: Option<String>,
    /// Chosen by the customer.
    name: Option<&'a str>,
    /// Without a leading `@`.
    username: Option<&'a str>,
    /// Always `null`: Meta offers none.
    profile_picture_url: Option<&'a str>,
    account_type: AccountType,
    /// Where the identity check is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity_key_hash: Option<&'a str>,
}

/// Nothing that Meta sends tells a person from a business, so it is always `unknown` today; consumers
/// should expect the other two.
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
    let user_id = customer
        .user_id
        .as_deref()
        .or(contact.and_then(|of| of.user_id.as_deref()));
    let wa_id = customer
        .wa_id
        .as_deref()
        .or(contact.and_then(|of| of.wa_id.as_deref()));
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
