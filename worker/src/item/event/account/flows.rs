//! `flows`: the state of a flow changed, or its endpoint does badly.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Number, Text};

/// What happened to a flow; which members are there depends on `event`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct FlowUpdate {
    /// `FLOW_STATUS_CHANGE`, `CLIENT_ERROR_RATE`, `ENDPOINT_ERROR_RATE`, `ENDPOINT_LATENCY`,
    /// `ENDPOINT_AVAILABILITY`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow_id: Option<Text>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Text>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<Text>,
    /// `DRAFT`, `PUBLISHED`, `THROTTLED`, `BLOCKED`, `DEPRECATED`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    old_status: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_status: Option<Text>,
    /// `ACTIVATED` or `DEACTIVATED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_state: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<Number>,
    /// Percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_rate: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_count: Option<Number>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_latency: Option<Number>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    p90_latency: Option<Number>,
    /// Percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    availability: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<FlowError>>,
}

/// How often an error happened.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct FlowError {
    /// `TIMEOUT`, `INVALID_SCREEN_TRANSITION`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<Text>,
    /// Percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_rate: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_count: Option<Number>,
}
