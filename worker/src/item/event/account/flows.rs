//! `flows`: the state of a flow changed, or its endpoint does badly.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Number, Text};

/// Something happened to a flow (a form inside WhatsApp). `event` says what, and which other
/// members there are.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct FlowUpdate {
    /// Meta's word for what happened is an open set: `FLOW_STATUS_CHANGE`, `CLIENT_ERROR_RATE`,
    /// `ENDPOINT_ERROR_RATE`, `ENDPOINT_LATENCY`, `ENDPOINT_AVAILABILITY`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Text>,
    /// Meta identifies the flow by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    flow_id: Option<Text>,
    /// This text tells people about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Text>,
    /// This text warns people.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<Text>,
    /// The flow had this status before: `DRAFT`, `PUBLISHED`, `THROTTLED`, `BLOCKED`, `DEPRECATED`,
    /// …
    #[serde(skip_serializing_if = "Option::is_none")]
    old_status: Option<Text>,
    /// The flow has this status now, one of the words of `oldStatus`.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_status: Option<Text>,
    /// The alert began (`ACTIVATED`) or ended (`DEACTIVATED`).
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_state: Option<Text>,
    /// The alert is about this limit, in the unit of what is measured (percent or milliseconds).
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<Number>,
    /// So many percent of the requests failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_rate: Option<Number>,
    /// Meta measured so many requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_count: Option<Number>,
    /// Half of the requests took no more than so many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_latency: Option<Number>,
    /// Nine of ten requests took no more than so many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    p90_latency: Option<Number>,
    /// This is the availability of the flow's endpoint, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    availability: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<FlowError>>,
}

/// This says how often an error happened.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct FlowError {
    /// Meta's word for the error is an open set: `TIMEOUT`, `INVALID_SCREEN_TRANSITION`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<Text>,
    /// So many percent of all errors were of this type.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_rate: Option<Number>,
    /// The error happened so many times.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_count: Option<Number>,
}
