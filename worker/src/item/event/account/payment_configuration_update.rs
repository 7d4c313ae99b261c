//! `payment_configuration_update`: the connection to a payment provider changed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// A connection to a payment provider.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct PaymentConfiguration {
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration_name: Option<Text>,
    /// `razorpay`, `payu`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_name: Option<Text>,
    /// The merchant's id there.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_mid: Option<Text>,
    /// `Active`, `Needs Connecting`, `Needs Testing`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_timestamp: Option<Timestamp>,
}
