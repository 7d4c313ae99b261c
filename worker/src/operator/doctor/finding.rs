//! A line of the report.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::Serialize;

use crate::operator::output::Style;

/// Meta's times and ours are compared; signatures of the store allow 15 min.
const SKEW_DOUBTFUL_MS: u64 = 2_000;
const SKEW_BAD_MS: u64 = 60_000;
/// No account's.
pub(super) const NO_ACCOUNT: &str = "0";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(in crate::operator) enum CheckStatus {
    Ok,
    Warn,
    Fail,
    /// It can't be seen from here.
    Unknown,
}

impl CheckStatus {
    pub(in crate::operator) fn text(self) -> (&'static str, Style) {
        match self {
            Self::Ok => ("OK", Style::Good),
            Self::Warn => ("WARN", Style::Doubtful),
            Self::Fail => ("FAIL", Style::Bad),
            Self::Unknown => ("UNKNOWN", Style::Doubtful),
        }
    }
}

/// What was found, and what to do about it.
#[derive(Debug, Serialize)]
pub(in crate::operator) struct Finding {
    pub(in crate::operator) status: CheckStatus,
    pub(super) check: &'static str,
    #[serde(rename = "said")]
    pub(in crate::operator) text: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) advice: Cow<'static, str>,
}

/// What a check found; `Err`: it couldn't be made.
pub(super) type Findings = anyhow::Result<Vec<Finding>>;

pub(super) fn finding(
    status: CheckStatus,
    check: &'static str,
    text: impl Into<String>,
    advice: impl Into<Cow<'static, str>>,
) -> Finding {
    Finding {
        status,
        check,
        text: text.into(),
        advice: advice.into(),
    }
}

pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Finding {
    finding(CheckStatus::Ok, check, text, "")
}

pub(super) fn warn(
    check: &'static str,
    text: impl Into<String>,
    advice: impl Into<Cow<'static, str>>,
) -> Finding {
    finding(CheckStatus::Warn, check, text, advice)
}

pub(super) fn fail(
    check: &'static str,
    text: impl Into<String>,
    advice: impl Into<Cow<'static, str>>,
) -> Finding {
    finding(CheckStatus::Fail, check, text, advice)
}

pub(super) fn unknown(
    check: &'static str,
    text: impl Into<String>,
    advice: impl Into<Cow<'static, str>>,
) -> Finding {
    finding(CheckStatus::Unknown, check, text, advice)
}

/// How far a server's clock (ms since 1970) and this machine's are apart.
pub(super) fn clock_skew(check: &'static str, theirs_ms: i64) -> Finding {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ours = now.map_or(0, |now| now.as_millis() as i64);
    let off = ours.abs_diff(theirs_ms);
    let text = format!(
        "its clock and this machine's differ by {}.{} s",
        off / 1000,
        off % 1000 / 100
    );
    let advice = "synchronise the clocks (NTP)";
    match off {
        ..SKEW_DOUBTFUL_MS => ok(check, text),
        SKEW_DOUBTFUL_MS..SKEW_BAD_MS => warn(check, text, advice),
        _ => fail(check, text, advice),
    }
}
