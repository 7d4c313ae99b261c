//! How commands print: tables, colours where there is a terminal, and progress.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Effects};
use serde::Serialize;

/// Progress is printed this often where there is no terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// And on one.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// How a piece of text looks on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Head,
    Good,
    Doubtful,
    Bad,
    Faint,
}

impl Style {
    fn paint(self, text: &str) -> String {
        let look = match self {
            Self::Plain => anstyle::Style::new(),
            Self::Head => Effects::BOLD.into(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Doubtful => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Faint => Effects::DIMMED.into(),
        };
        format!("{look}{text}{look:#}")
    }
}

/// Standard output.
#[derive(Default)]
pub(crate) struct Output {
    /// With colours, wherever it goes.
    written: String,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn head(&mut self, text: &str) {
        if !self.written.is_empty() {
            self.written.push('\n');
        }
        self.line(Style::Head, text);
    }

    pub(crate) fn line(&mut self, tone: Style, text: impl Display) {
        // What others wrote must not move the cursor.
        let text = printable(&text.to_string());
        self.written += &tone.paint(&text);
        self.written.push('\n');
    }

    /// Lines up columns; numbers to the right.
    pub(crate) fn table(&mut self, rows: &[Vec<(Style, String)>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let length = |text: &str| printable(text).chars().count();
        let widths: Vec<usize> = (0..columns)
            .map(|n| {
                let cells = rows.iter().filter_map(|row| row.get(n));
                cells.map(|(_, text)| length(text)).max().unwrap_or(0)
            })
            .collect();
        for row in rows {
            let last = row.len().saturating_sub(1);
            for (n, (tone, text)) in row.iter().enumerate() {
                let text = &printable(text);
                let room = " ".repeat(widths[n] - text.chars().count());
                let number = text.starts_with(|c: char| c.is_ascii_digit())
                    && text.chars().all(|c| c.is_ascii_digit() || c == '+');
                let painted = tone.paint(text);
                match (number, n == last) {
                    (true, _) => self.written += &format!("{room}{painted}"),
                    (false, true) => self.written += &painted,
                    (false, false) => self.written += &format!("{painted}{room}"),
                }
                self.written += if n == last { "\n" } else { "  " };
            }
        }
    }

    /// # Errors
    /// A value that is no JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> serde_json::Result<()> {
        self.written = serde_json::to_string_pretty(value)?;
        self.written.push('\n');
        Ok(())
    }

    /// Writes it all, without the colours where they aren't wanted: in a pipe, or with `NO_COLOR`.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(crate) fn show(self) -> std::io::Result<()> {
        let mut out = anstream::stdout().lock();
        out.write_all(self.written.as_bytes())?;
        out.flush()
    }
}

/// What others wrote, without anything that moves a cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// A row of one tone.
pub(crate) fn row<const N: usize>(tone: Style, cells: [&str; N]) -> Vec<(Style, String)> {
    cells.map(|cell| (tone, cell.to_owned())).into()
}

/// `3s`, `5m`, `2h`, `4d`.
pub(crate) fn short(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

tokio::task_local! {
    /// Nobody reads this program's standard error as an answer.
    static SILENT: ();
}

/// The same, without any progress on standard error.
pub(crate) async fn without_progress<T>(looking: impl Future<Output = T>) -> T {
    SILENT.scope((), looking).await
}

/// How far something is, on standard error: a line that changes on a terminal, else one now and then.
pub(crate) struct ProgressLine {
    what: &'static str,
    silent: bool,
    terminal: bool,
    next: Instant,
    shown: bool,
}

impl ProgressLine {
    pub(crate) fn new(what: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            what,
            silent: SILENT.try_with(|()| ()).is_ok(),
            terminal,
            next: Instant::now()
                + if terminal {
                    REDRAW_INTERVAL
                } else {
                    LOG_INTERVAL
                },
            shown: false,
        }
    }

    pub(crate) fn at(&mut self, done: usize, of: Option<usize>) {
        if self.silent || Instant::now() < self.next {
            return;
        }
        let of = of.map_or(String::new(), |of| format!(" of {of}"));
        let (before, after, every) = if self.terminal {
            ("\r\x1b[K", "", REDRAW_INTERVAL)
        } else {
            ("", "\n", LOG_INTERVAL)
        };
        let mut to = std::io::stderr().lock();
        // Nobody who watches is no reason to stop.
        drop(write!(to, "{before}{}: {done}{of}{after}", self.what));
        drop(to.flush());
        self.shown = true;
        self.next = Instant::now() + every;
    }
}

impl ProgressLine {
    /// Takes it off a terminal, before a line of another kind.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) && self.terminal {
            drop(std::io::stderr().write_all(b"\r\x1b[K"));
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_a_pipe_gets_no_colours() {
        let mut output = Output::new();
        output.table(&[
            row(Style::Head, ["name", "n", "what"]),
            row(Style::Bad, ["a\x1b[1m", "10", "x"]),
            row(Style::Good, ["bb", "7+", "y"]),
        ]);
        assert_eq!(
            anstream::adapter::strip_str(&output.written).to_string(),
            "name   n   what\na?[1m  10  x\nbb     7+  y\n"
        );
        output.written.clear();
        output.table(&[row(Style::Good, ["OK", "x"])]);
        assert_eq!(output.written, "\x1b[32mOK\x1b[0m  \x1b[32mx\x1b[0m\n");
    }

    #[test]
    fn a_time_is_short() {
        let times = [5, 119, 120, 7200, 200_000].map(short);
        assert_eq!(times, ["5s", "119s", "2m", "2h", "2d"]);
    }
}
