//! What commands take as arguments: times, tenants, reasons, ids, and whoever calls.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use clap::Args;
use serde::{Deserialize, Deserializer};
use strum::IntoEnumIterator;

use super::objects::Period;
use crate::out::error::Reason;
use crate::out::store;

/// Which payloads are meant, by what is known of them.
#[derive(Args, Debug, Clone, Default, Deserialize)]
pub struct PayloadFilter {
    /// Of this tenant only
    #[arg(long, value_name = "ID", value_parser = tenant)]
    #[serde(default, deserialize_with = "any_tenant")]
    pub tenant: Option<String>,
    /// Set aside for this reason only
    #[arg(long, value_name = "R", value_parser = reason)]
    #[serde(default, deserialize_with = "any_reason")]
    pub reason: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub period: PeriodArgs,
}

impl PayloadFilter {
    /// Its flags as they were typed, each with a space before it.
    pub(super) fn typed(&self) -> String {
        let moment = |moment: &Option<Moment>| moment.as_ref().map(|it| it.typed.clone());
        let flags = [
            ("--from", moment(&self.period.from)),
            ("--to", moment(&self.period.to)),
            ("--tenant", self.tenant.clone()),
            ("--reason", self.reason.clone()),
        ];
        let flags = flags.into_iter();
        flags
            .filter_map(|(flag, value)| Some(format!(" {flag} {}", value?)))
            .collect()
    }
}

/// When payloads came.
#[derive(Args, Debug, Clone, Default, Deserialize)]
pub struct PeriodArgs {
    /// Came at this time or later: 2026-11-25T08:00:00Z, 2026-11-25 (0:00 UTC), or 2h (two hours ago)
    #[arg(long, value_name = "T", value_parser = Moment::parse)]
    pub from: Option<Moment>,
    /// Came before this time [default: now]
    #[arg(long, value_name = "T", value_parser = Moment::parse)]
    pub to: Option<Moment>,
}

impl PeriodArgs {
    pub(super) fn period(&self) -> Period {
        Period {
            from: self.from.as_ref().map(|from| from.at),
            to: self.to.as_ref().map(|to| to.at),
        }
    }
}

impl PayloadFilter {
    /// Nothing was named.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            tenant,
            reason,
            period: PeriodArgs { from, to },
        } = self;
        tenant.is_none() && reason.is_none() && from.is_none() && to.is_none()
    }
}

/// Who does something by hand.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct CallerArgs {
    /// Who does this, for the audit line and what is kept of it [default: the user's name]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

impl CallerArgs {
    /// Whoever calls himself so.
    pub(crate) fn named(name: &str) -> Self {
        let by = Some(name.to_owned());
        Self { by }
    }

    pub(super) fn name(&self) -> String {
        let user = || {
            ["SUDO_USER", "USER"]
                .iter()
                .find_map(|name| std::env::var(name).ok())
        };
        let name = self.by.clone().or_else(user);
        let name = name.map(|name| store::header_text(&name));
        name.filter(|name| !name.is_empty())
            .unwrap_or_else(|| "unknown".to_owned())
    }
}

/// A time as it was typed, and what it meant then.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Moment {
    pub(super) typed: String,
    pub(super) at: DateTime<Utc>,
}

impl Moment {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let at = moment(text, Utc::now()).ok_or(
            "write it like 2026-11-25T08:00:00Z, 2026-11-25 (0:00 UTC) or 2h (two hours ago)",
        )?;
        let typed = text.to_owned();
        Ok(Self { typed, at })
    }
}

impl TryFrom<String> for Moment {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

fn moment(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.to_utc());
    }
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(day.and_time(NaiveTime::MIN).and_utc());
    }
    let ago: Duration = shared::config::any_duration(text).ok()?;
    now.checked_sub_signed(TimeDelta::from_std(ago).ok()?)
}

pub(super) fn tenant(text: &str) -> Result<String, &'static str> {
    let taken = store::is_reserved(text) || matches!(text, ".." | "." | store::UNRESOLVED);
    if text.is_empty() || taken || text.contains(['/', '\\']) || text.chars().any(char::is_control)
    {
        return Err("is no tenant's id (it names one folder of the store, no path)");
    }
    Ok(text.to_owned())
}

/// The same where it comes as JSON or in a query.
pub(super) fn any_tenant<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text: Option<String> = Option::deserialize(from)?;
    let read = text.map(|text| tenant(&text)).transpose();
    read.map_err(serde::de::Error::custom)
}

fn any_reason<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text: Option<String> = Option::deserialize(from)?;
    let read = text.map(|text| reason(&text)).transpose();
    read.map_err(serde::de::Error::custom)
}

/// What a page has unless it is told otherwise.
pub(super) fn page_size() -> u16 {
    50
}

pub(super) fn any_page_size<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let size = u16::deserialize(from)?;
    match size {
        1..=1000 => Ok(size),
        _ => Err(serde::de::Error::custom("is from 1 to 1000")),
    }
}

pub(super) fn message_id(text: &str) -> Result<String, &'static str> {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    if text.is_empty() || text.len() > 1024 || text.contains("..") || text.contains(odd) {
        return Err("is no message's id; it looks like wamid.HBgL…");
    }
    Ok(text.to_owned())
}

pub(super) fn reason(text: &str) -> Result<String, String> {
    if text.parse::<Reason>().is_ok() {
        return Ok(text.to_owned());
    }
    let names: Vec<_> = Reason::iter().map(Reason::name).collect();
    Err(format!("is one of {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_a_day_or_a_while_ago() {
        let now = DateTime::from_timestamp(1_764_000_000, 0).unwrap_or_default();
        let read = |text| moment(text, now).map(|at| at.timestamp());
        assert_eq!(read("2h"), Some(1_764_000_000 - 7200));
        assert_eq!(read("2025-11-24"), Some(1_763_942_400));
        assert_eq!(read("2025-11-24T01:00:00+01:00"), Some(1_763_942_400));
        for nonsense in ["", "yesterday", "2025-13-01", "-2h", "99999999999years"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn no_word_leads_to_another_folder() {
        for no in [
            "",
            "a/b",
            "..",
            "../failed",
            "failed",
            "_unresolved",
            "a\\b",
            "spool",
        ] {
            assert!(tenant(no).is_err(), "{no}");
        }
        for no in ["", "raw/../x", "a b"] {
            assert!(message_id(no).is_err(), "{no}");
        }
        assert!(tenant("tenant-1").is_ok());
        assert!(message_id("wamid.HBgL/+=").is_ok());
        assert!(reason("tenant_suspended").is_ok() && reason("bad").is_err());
    }
}
