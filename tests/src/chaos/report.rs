//! What a run tells.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::model::{Findings, Violation};
use crate::output::{Paint, column};

/// Violations of a kind that are shown; all are in the file.
const SHOWN: usize = 5;

/// The outcome of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What repeats it
    pub command: String,
    pub seed: u64,
    pub build: &'static str,
    pub servers: String,
    /// Of faults
    pub seconds: u64,
    /// From healing the last fault until nothing was left to do
    pub drain_seconds: u64,
    pub posts: usize,
    /// By HTTP status; `none`: cut off
    pub answers: BTreeMap<String, usize>,
    pub items: usize,
    /// How often each fault struck
    pub faults: BTreeMap<String, usize>,
    pub raw_objects: usize,
    pub files: usize,
    /// At the end of each minute
    pub memory: Vec<Memory>,
    #[serde(flatten)]
    pub findings: Findings,
    /// What this machine didn't let happen
    pub left_out: Vec<String>,
    pub folder: PathBuf,
}

/// Of the largest of a kind, in MB.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Memory {
    pub ingress_mb: f64,
    pub worker_mb: f64,
}

impl Report {
    pub fn is_good(&self) -> bool {
        self.findings.violations.is_empty()
    }

    /// As text.
    pub fn text(&self, paint: Paint) -> String {
        let found = &self.findings;
        let mut lines = vec![
            ("run", self.command.clone()),
            ("servers", format!("{}, {} build", self.servers, self.build)),
            (
                "time",
                format!(
                    "{} s long, drained {} s after its end",
                    self.seconds, self.drain_seconds
                ),
            ),
            (
                "faults",
                format!(
                    "{}: {}",
                    self.faults.values().sum::<usize>(),
                    listed(&self.faults)
                ),
            ),
            (
                "posts",
                format!("{}: {}", self.posts, listed(&self.answers)),
            ),
            (
                "items",
                format!(
                    "{} sent, {} accepted, {} published, set aside as planned {}, still queued {}",
                    self.items,
                    found.accepted,
                    found.published,
                    found.set_aside.values().sum::<usize>(),
                    found.queued,
                ),
            ),
            (
                "order",
                format!(
                    "{} pairs in {} conversations, {} more reordered by RabbitMQ's redelivery; \
                     {} webhooks by way of the spool",
                    found.ordered_pairs,
                    found.conversations,
                    found.reordered_by_broker,
                    found.spooled
                ),
            ),
            (
                "files",
                format!(
                    "{} stored ({} objects), {} too large, {} by follow-up",
                    found.files_stored, self.files, found.files_failed, found.files_followed_up
                ),
            ),
            ("raw objects", self.raw_objects.to_string()),
            (
                "repeats",
                format!(
                    "{}; and {} delivered again by RabbitMQ",
                    found.repeats.values().sum::<usize>(),
                    found.redelivered
                ),
            ),
            (
                "200 → event",
                format!(
                    "median {} ms, p99 {} ms, longest {} ms",
                    found.p50_ms, found.p99_ms, found.max_ms
                ),
            ),
        ];
        for left_out in &self.left_out {
            lines.push(("left out", left_out.clone()));
        }
        lines.push(("history", self.folder.display().to_string()));
        let mut text: String = lines
            .iter()
            .map(|(name, value)| format!("{}  {value}\n", column(name, 11)))
            .collect();
        text += &self.minutes();
        if !found.repeats.is_empty() {
            text += "\nrepeats by cause\n";
            for (cause, count) in &found.repeats {
                text += &format!("  {count:>6}  {cause}\n");
            }
        }
        text += "\n";
        if self.is_good() {
            text + &paint.good("no violation") + "\n"
        } else {
            text + &self.violations(paint)
        }
    }

    /// How quick it was, and how large, minute by minute.
    fn minutes(&self) -> String {
        if self.memory.is_empty() {
            return String::new();
        }
        let mut text = "\nminute   events  median ms   p99 ms  ingress MB  worker MB\n".to_owned();
        for (n, (minute, memory)) in self.findings.minutes.iter().zip(&self.memory).enumerate() {
            text += &format!(
                "{:>6} {:>8} {:>10} {:>8} {:>11.1} {:>10.1}\n",
                n + 1,
                minute.events,
                minute.p50_ms,
                minute.p99_ms,
                memory.ingress_mb,
                memory.worker_mb
            );
        }
        text
    }

    fn violations(&self, paint: Paint) -> String {
        let mut kinds: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
        for violation in &self.findings.violations {
            kinds.entry(violation.kind).or_default().push(violation);
        }
        let mut text = String::new();
        for (kind, violations) in kinds {
            text += &paint.bad(&format!("{} × {kind}", violations.len()));
            text += "\n";
            for violation in violations.iter().take(SHOWN) {
                text += &format!("    {}\n", violation.what);
            }
        }
        text
    }
}

fn listed(counts: &BTreeMap<String, usize>) -> String {
    let each = counts
        .iter()
        .map(|(name, count)| format!("{name} × {count}"));
    each.collect::<Vec<_>>().join(", ")
}
