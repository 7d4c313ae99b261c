//! `template_category_update`, in two shapes. Announced: `correctCategory` and `categoryUpdateTimestamp` are there, and
//! `newCategory` is what the template is *now*. Done: `previousCategory` is there, and `newCategory` is what it became.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::item::event::values::{Text, Timestamp};

/// A template gets another category, or got it.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct TemplateCategory {
    /// Text, since it may be more than a double holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_template_language: Option<Text>,
    /// Of a change that is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_category: Option<Text>,
    /// What it is now; `MARKETING`, `UTILITY`, `AUTHENTICATION`.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_category: Option<Text>,
    /// Of a change that is announced: what it will be.
    #[serde(skip_serializing_if = "Option::is_none")]
    correct_category: Option<Text>,
    /// When it will be that.
    #[serde(skip_serializing_if = "Option::is_none")]
    category_update_timestamp: Option<Timestamp>,
}
