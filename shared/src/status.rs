//! The status page of the admin port: one page without anything from elsewhere, that asks for
//! `/status.json` every two seconds. It shows what `/metrics` and `/ready` say, and what was set aside last;
//! it changes nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::admin::Readiness;
use crate::telemetry::SampledLog;

const PAGE: &str = include_str!("status.html");
/// Set-aside entries that are remembered.
const REMEMBERED: usize = 50;
/// Accounts of which it is known when their last line was.
const MOST_ACCOUNTS: usize = 1000;

/// An entry of which something was set aside: where to find it, nothing of what it says.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetAsideEntry {
    pub reason: &'static str,
    /// In the stream; it is gone from there.
    pub entry: String,
    pub correlation_id: String,
    pub waba_id: String,
    pub tenant_id: Option<String>,
    /// 0: the whole body.
    pub items: usize,
}

/// The last of them, with when that was (ms since 1970).
#[derive(Clone, Default)]
pub struct SetAsides {
    last: Arc<Mutex<VecDeque<(u64, SetAsideEntry)>>>,
    lines: Arc<Mutex<HashMap<String, SampledLog>>>,
}

impl SetAsides {
    /// Remembers it, and writes a log line: one a second for each account.
    pub fn push(&self, set_aside: SetAsideEntry) {
        self.log(&set_aside);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let at_ms = now.map_or(0, |now| now.as_millis() as u64);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.truncate(REMEMBERED - 1);
        last.push_front((at_ms, set_aside));
    }

    fn log(&self, set_aside: &SetAsideEntry) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= MOST_ACCOUNTS && !lines.contains_key(&set_aside.waba_id) {
            lines.clear();
        }
        let line = lines.entry(set_aside.waba_id.clone()).or_default();
        let SetAsideEntry {
            reason,
            entry,
            correlation_id,
            waba_id,
            tenant_id,
            items,
        } = set_aside;
        if let Some(skipped) = line.pass() {
            tracing::warn!(
                reason,
                entry,
                correlation_id,
                waba_id,
                tenant_id,
                items,
                skipped,
                "set aside"
            );
        }
    }

    fn report(&self) -> Vec<Value> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let report = last.iter().map(|(at_ms, set_aside)| {
            let mut report = json!(set_aside);
            report["atMs"] = json!(at_ms);
            report
        });
        report.collect()
    }
}

/// What the page may do: its own style and script, and asking where it came from.
pub(crate) fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let hash = |tag: &str| {
            let (start, end) = (format!("<{tag}>"), format!("</{tag}>"));
            let inner = PAGE.split_once(&start).map_or("", |(_, rest)| rest);
            let inner = inner.split_once(&end).map_or("", |(inner, _)| inner);
            format!("'sha256-{}'", BASE64.encode(&Sha256::digest(inner)))
        };
        format!(
            "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash("style"),
            hash("script")
        )
    });
    &POLICY
}

pub(crate) fn page() -> &'static str {
    PAGE
}

/// `/status.json`. Series that differ by tenant only are added up: the page shows none.
///
/// # Errors
/// A metric can't be written.
pub(crate) fn report(
    program: &str,
    registry: &Registry,
    readiness: &Readiness,
    set_asides: &SetAsides,
) -> Result<Value, std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    let (_, ready) = readiness.report(true);
    Ok(json!({
        "program": program,
        "version": crate::config::version(),
        "ready": ready,
        "metrics": metrics(&text),
        "setAside": set_asides.report(),
    }))
}

/// By name, the series: labels and value.
fn metrics(text: &str) -> Value {
    let mut metrics: BTreeMap<&str, BTreeMap<BTreeMap<&str, &str>, f64>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",");
        let labels = labels.filter_map(|label| label.split_once("=\""));
        let labels = labels.map(|(name, value)| (name, value.trim_end_matches('"')));
        let labels = labels.filter(|(name, _)| *name != "tenant").collect();
        let series = metrics.entry(name).or_default().entry(labels).or_default();
        *series += value.parse().unwrap_or(0.0);
    }
    let metrics = metrics.into_iter().map(|(name, series)| {
        let series = series
            .into_iter()
            .map(|(labels, value)| json!({"labels": labels, "value": value}));
        (name.to_owned(), series.collect())
    });
    Value::Object(metrics.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_tenants_are_added_up() {
        let text = "# TYPE a counter\na_total{tenant=\"x, {y}\",kind=\"k\"} 2\na_total{tenant=\"z\",kind=\"k\"} 3\nb 1.5\n# EOF\n";
        let expected = json!({
            "a_total": [{"labels": {"kind": "k"}, "value": 5.0}],
            "b": [{"labels": {}, "value": 1.5}],
        });
        assert_eq!(metrics(text), expected);
    }

    #[test]
    fn only_the_last_ones_are_remembered() {
        let set_asides = SetAsides::default();
        for n in 0..REMEMBERED + 5 {
            set_asides.push(SetAsideEntry {
                reason: "unreadable",
                entry: n.to_string(),
                correlation_id: String::new(),
                waba_id: String::new(),
                tenant_id: None,
                items: 0,
            });
        }
        let report = set_asides.report();
        assert_eq!(
            (report.len(), &report[0]["entry"]),
            (REMEMBERED, &json!("54"))
        );
    }
}
