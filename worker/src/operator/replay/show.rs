//! What a replay tells: a bar on a terminal, plain lines in a pipe, or JSON.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use serde_json::json;
use tokio::time::{Duration, Instant};

use super::runner_lease::{Replay, ReplayCounts};

const BAR: usize = 30;
/// Lines in a pipe are this far apart.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct ReplayOutput {
    quiet: bool,
    json: bool,
    terminal: bool,
    last: Option<Instant>,
    /// A bar stands in the terminal's line.
    bar: bool,
}

/// How many objects there are, by reason and tenant.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) total: u64,
    pub(super) by: BTreeMap<(String, String), u64>,
}

impl ReplayOutput {
    pub(super) fn new(json: bool) -> Self {
        Self {
            quiet: false,
            json,
            terminal: !json && io::stdout().is_terminal(),
            last: None,
            bar: false,
        }
    }

    /// Says nothing: whoever wants to know looks at Redis.
    pub(super) fn quiet() -> Self {
        Self {
            quiet: true,
            ..Self::new(true)
        }
    }

    /// A sentence for people; with `--json` it goes to standard error, for whoever watches.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        if self.json {
            return writeln!(io::stderr(), "{text}");
        }
        self.end_bar()?;
        writeln!(io::stdout(), "{text}")
    }

    pub(super) fn tally(&mut self, tally: &Tally) -> io::Result<()> {
        if self.json {
            let by = tally.by.iter().map(
                |((reason, tenant), payloads)| json!({"reason": reason, "tenant": tenant, "payloads": payloads}),
            );
            let by: Vec<_> = by.collect();
            return writeln!(
                io::stdout(),
                "{}",
                json!({"payloads": tally.total, "by": by})
            );
        }
        self.say(&format!("{} payloads would be put back", tally.total))?;
        let reason = tally.by.keys().map(|(reason, _)| reason.len()).max();
        let tenant = tally.by.keys().map(|(_, tenant)| tenant.len()).max();
        let (reason_width, tenant_width) = (reason.unwrap_or(0), tenant.unwrap_or(0));
        for ((reason, tenant), payloads) in &tally.by {
            self.say(&format!(
                "  {reason:reason_width$}  {tenant:tenant_width$}  {payloads:>8}"
            ))?;
        }
        Ok(())
    }

    /// An object that stays where it is.
    pub(super) fn left(&mut self, key: &str, why: &str) -> io::Result<()> {
        if self.json && !self.quiet {
            return writeln!(io::stdout(), "{}", json!({"left": key, "why": why}));
        }
        self.say(&format!("left where it is: {key}: {why}"))
    }

    pub(super) fn progress(
        &mut self,
        replay: &Replay,
        counts: ReplayCounts,
        waits: Option<&str>,
    ) -> io::Result<()> {
        let due = |last: Instant| last.elapsed() >= LINE_INTERVAL;
        if !self.terminal && !self.last.is_none_or(due) {
            return Ok(());
        }
        self.last = Some(Instant::now());
        self.line(replay, counts, waits)
    }

    fn line(
        &mut self,
        replay: &Replay,
        counts: ReplayCounts,
        waits: Option<&str>,
    ) -> io::Result<()> {
        if self.json {
            return self.json_line(replay, counts, false);
        }
        let Replay {
            id, total, left, ..
        } = replay;
        let ReplayCounts { put, out, again } = counts;
        let left = if *left > 0 {
            format!(", {left} left")
        } else {
            String::new()
        };
        let waits = waits.map_or(String::new(), |waits| format!("; {waits}"));
        let text = format!(
            "{put} of {total} put back, {out} went out, {again} set aside again{left}{waits}"
        );
        let mut stdout = io::stdout();
        if !self.terminal {
            return writeln!(stdout, "{id}: {text}");
        }
        let full = BAR as u64 * (put + replay.left).min(*total) / (*total).max(1);
        let bar = "#".repeat(full as usize);
        write!(stdout, "\r\x1b[2K[{bar:BAR$}] {text}")?;
        self.bar = true;
        stdout.flush()
    }

    fn json_line(&self, replay: &Replay, counts: ReplayCounts, ended: bool) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        let line = json!({
            "replay": replay.id,
            "payloads": replay.total,
            "putBack": counts.put,
            "wentOut": counts.out,
            "setAsideAgain": counts.again,
            "left": replay.left,
            "ended": ended,
        });
        writeln!(io::stdout(), "{line}")
    }

    /// The last line.
    pub(super) fn ended(&mut self, replay: &Replay, counts: ReplayCounts) -> io::Result<()> {
        if self.json {
            return self.json_line(replay, counts, true);
        }
        self.line(replay, counts, None)?;
        self.end_bar()?;
        if counts.again > 0 {
            let id = &replay.id;
            self.say(&format!("what was set aside again has `.{id}.` in its key"))?;
        }
        Ok(())
    }

    fn end_bar(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.bar) {
            writeln!(io::stdout())?;
        }
        Ok(())
    }
}
