//! `payment_configuration_update`: the connection to a payment provider changed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// The connection of the account to a payment provider changed.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct PaymentConfiguration {
    /// The connection has this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration_name: Option<Text>,
    /// The payment provider is `razorpay`, `payu`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_name: Option<Text>,
    /// The provider identifies the business by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_mid: Option<Text>,
    /// The connection has this status: `Active`, `Needs Connecting`, `Needs Testing`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text>,
    /// The connection was created at this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_timestamp: Option<Timestamp>,
    /// The connection was last changed at this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_timestamp: Option<Timestamp>,
}
