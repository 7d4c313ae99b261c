//! `contacts` messages: an array of cards.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Text;

/// The cards, in their order.
pub(super) type Contacts = Vec<Card>;

/// A contact of the sender's address book.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Card {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<ContactName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<Address>>,
    /// `YYYY-MM-DD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    birthday: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    emails: Option<Vec<Email>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<Organisation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phones: Option<Vec<ContactPhone>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    urls: Option<Vec<Url>>,
    /// The card as vCard.
    #[serde(skip_serializing_if = "Option::is_none")]
    vcard: Option<Text>,
    /// `contact_request` or `other`.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Name")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ContactName {
    #[serde(skip_serializing_if = "Option::is_none")]
    formatted_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    middle_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suffix: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Address {
    #[serde(skip_serializing_if = "Option::is_none")]
    street: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zip: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country_code: Option<Text>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Email {
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<Text>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Organisation {
    #[serde(skip_serializing_if = "Option::is_none")]
    company: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    department: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Phone")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ContactPhone {
    /// As written in the address book.
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<Text>,
    /// If the number is on WhatsApp.
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Url {
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<Text>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
}
