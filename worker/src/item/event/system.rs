//! `system` messages: a customer's number, user id or identity changed. A change of number makes a
//! new user id too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Text;

/// WhatsApp tells that the customer's number, business-scoped id or identity changed. The old
/// number is `message.from`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(from = "SentSystem", rename_all = "camelCase")]
pub(super) struct System {
    /// This says what changed: `user_changed_number`, `user_changed_user_id`,
    /// `customer_identity_changed`, …
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    /// This text tells people about the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Text>,
    /// This is WhatsApp's id of the customer's new number. Older webhooks call it `new_wa_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<Text>,
    /// This is Meta's `new_wa_id`. It is there only if Meta sent both names.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_wa_id: Option<Text>,
    /// This is WhatsApp's id of the customer's old number. Only older webhooks have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    customer: Option<Text>,
    /// This is the customer's new business-scoped id (`CC.…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Text>,
    /// This is the customer's new parent business-scoped id (`CC.ENT.…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<Text>,
    /// This is the customer's old business-scoped id.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_user_id: Option<Text>,
    /// This is the customer's old parent business-scoped id.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_parent_user_id: Option<Text>,
    /// This stands for the customer's identity that changed. Only older webhooks have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct SentSystem {
    #[serde(rename = "type")]
    kind: Option<Text>,
    body: Option<Text>,
    wa_id: Option<Text>,
    new_wa_id: Option<Text>,
    customer: Option<Text>,
    user_id: Option<Text>,
    parent_user_id: Option<Text>,
    previous_user_id: Option<Text>,
    previous_parent_user_id: Option<Text>,
    identity: Option<Text>,
}

impl From<SentSystem> for System {
    fn from(sent: SentSystem) -> Self {
        let (wa_id, new_wa_id) = match (sent.wa_id, sent.new_wa_id) {
            (None, new) => (new, None),
            both => both,
        };
        Self {
            kind: sent.kind,
            body: sent.body,
            wa_id,
            new_wa_id,
            customer: sent.customer,
            user_id: sent.user_id,
            parent_user_id: sent.parent_user_id,
            previous_user_id: sent.previous_user_id,
            previous_parent_user_id: sent.previous_parent_user_id,
            identity: sent.identity,
        }
    }
}
