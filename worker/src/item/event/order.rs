//! `order` messages: a basket of the catalogue.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Number, Text};

/// The customer ordered products of the business's catalogue.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct Order {
    /// Meta identifies the catalogue by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    catalog_id: Option<Text>,
    /// The customer wrote this text with the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    product_items: Option<Vec<ProductItem>>,
}

/// This is one line of the order: a product, how many pieces of it, and the price.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(deserialize = "snake_case", serialize = "camelCase"))]
pub(super) struct ProductItem {
    /// The business identifies the product by this id of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    product_retailer_id: Option<Text>,
    /// The customer ordered so many pieces.
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<Number>,
    /// One piece costs so much, in `currency`.
    #[serde(skip_serializing_if = "Option::is_none")]
    item_price: Option<Number>,
    /// The price is in this currency, an ISO 4217 code such as `EUR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<Text>,
}
