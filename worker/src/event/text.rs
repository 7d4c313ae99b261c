//! `text` messages.

use serde_json::value::RawValue;
use shared::webhook::{members, string};

use super::{Typed, envelope_and, has_only};

/// `{"body":"…"}`. A text without a readable body stays raw.
pub(super) fn content(raw: &RawValue) -> Option<Typed> {
    let [text] = members(raw, ["text"])?;
    let [body] = members(text?, ["body"])?;
    let body = string(body?)?;
    Some(Typed {
        complete: envelope_and(raw, "text") && has_only(text?, &["body"]),
        content: serde_json::json!({ "body": body }),
    })
}
