//! `reaction` messages, and their removal.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Text;

/// The sender put an emoji on an earlier message, or took it back.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(from = "SentReaction", rename_all = "camelCase")]
pub(super) struct Reaction {
    /// The sender reacted to the message with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<Text>,
    /// The sender chose this emoji, which may have several code points. It is missing or empty if
    /// `removed` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    emoji: Option<Text>,
    /// This is true if the sender took an earlier reaction back.
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
