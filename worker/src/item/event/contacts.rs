//! `contacts` messages: an array of cards.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Text;

/// The cards, in their order.
pub(super) type Contacts = Vec<Card>;

/// The sender shared this contact of their address book. Each of its members may be missing.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Card {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<ContactName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<Address>>,
    /// The contact was born on this day, written as `YYYY-MM-DD`.
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
    /// This is the whole contact in the vCard format.
    #[serde(skip_serializing_if = "Option::is_none")]
    vcard: Option<Text>,
    /// The customer sent the contact because the business asked for it (`contact_request`), or not
    /// (`other`).
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Text>,
}

/// This is the contact's name, as a whole and in parts.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Name")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ContactName {
    /// This is the whole name, as a phone shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    formatted_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    middle_name: Option<Text>,
    /// The name ends in this, such as `Jr.`.
    #[serde(skip_serializing_if = "Option::is_none")]
    suffix: Option<Text>,
    /// The name begins with this, such as `Dr.`.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<Text>,
}

/// This is a postal address of the contact.
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
    /// This is the two-letter ISO 3166 code of the country, in upper or lower case as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    country_code: Option<Text>,
    /// The sender filed the address under this word, such as `HOME` or `WORK`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
}

/// This is an e-mail address of the contact.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Email {
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<Text>,
    /// The sender filed the address under this word, such as `HOME` or `WORK`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
}

/// The contact belongs to this organisation.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Organisation {
    #[serde(skip_serializing_if = "Option::is_none")]
    company: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    department: Option<Text>,
    /// The contact has this position there, such as `Clerk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<Text>,
}

/// This is a phone number of the contact.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Phone")]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ContactPhone {
    /// The number is written as in the sender's address book, such as `+44 1225 000000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<Text>,
    /// WhatsApp identifies the number's user by this id. It is missing if the number isn't on
    /// WhatsApp.
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<Text>,
    /// Meta identifies the number's user by this business-scoped id.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    /// The sender filed the number under this word, such as `MOBILE` or `WORK`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
}

/// This is a web address of the contact.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Url {
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<Text>,
    /// The sender filed the address under this word, such as `HOME` or `WORK`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
}
