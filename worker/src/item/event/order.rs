//! `order` messages: a basket of the catalogue.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Number, Text};

/// The basket.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Order {
    #[serde(skip_serializing_if = "Option::is_none")]
    catalog_id: Option<Text>,
    /// What the customer wrote beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    product_items: Option<Vec<ProductItem>>,
}

/// One line of it.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ProductItem {
    /// The business's own id of the product.
    #[serde(skip_serializing_if = "Option::is_none")]
    product_retailer_id: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<Number>,
    /// Of one piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    item_price: Option<Number>,
    /// ISO 4217.
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<Text>,
}
