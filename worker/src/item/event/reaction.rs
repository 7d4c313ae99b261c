//! `reaction` messages, and their removal.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Text;

/// An emoji on an earlier message, or its removal.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(from = "SentReaction", rename_all = "camelCase")]
pub(super) struct Reaction {
    /// The message reacted to.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<Text>,
    /// May have several code points; missing or empty in a removal.
    #[serde(skip_serializing_if = "Option::is_none")]
    emoji: Option<Text>,
    /// The sender took an earlier reaction back.
    removed: bool,
}

#[derive(Deserialize, JsonSchema)]
struct SentReaction {
    message_id: Option<Text>,
    emoji: Option<Text>,
}

impl From<SentReaction> for Reaction {
    fn from(sent: SentReaction) -> Self {
        Self {
            removed: sent.emoji.as_ref().is_none_or(|emoji| emoji.0.is_empty()),
            message_id: sent.message_id,
            emoji: sent.emoji,
        }
    }
}
