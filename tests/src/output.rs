//! What the tools write for people: colour on a terminal, plain text in a pipe.

use std::io::IsTerminal;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Effects};

/// What standard output can show.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    terminal: bool,
    colour: bool,
}

impl Paint {
    /// Colour if standard output is a terminal and `NO_COLOR` is not set.
    pub fn stdout() -> Self {
        let stdout = std::io::stdout();
        Self {
            terminal: stdout.is_terminal(),
            colour: AutoStream::choice(&stdout) != ColorChoice::Never,
        }
    }

    /// Whether a line can be written over.
    pub fn is_terminal(self) -> bool {
        self.terminal
    }

    pub fn good(self, text: &str) -> String {
        self.wrap(AnsiColor::Green.on_default(), text)
    }

    pub fn bad(self, text: &str) -> String {
        self.wrap(AnsiColor::Red.on_default().bold(), text)
    }

    pub fn quiet(self, text: &str) -> String {
        self.wrap(Effects::DIMMED.into(), text)
    }

    pub fn title(self, text: &str) -> String {
        self.wrap(Effects::BOLD.into(), text)
    }

    fn wrap(self, style: anstyle::Style, text: &str) -> String {
        if self.colour {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

/// Pads or cuts (with `…`) to a width in characters.
pub fn column(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return format!("{text:width$}");
    }
    let cut = text.chars().take(width.saturating_sub(1));
    cut.chain(std::iter::once('…')).collect()
}

/// The start and the end of a long id, which are what tells ids apart.
pub fn short(id: &str) -> String {
    let characters: Vec<char> = id.chars().collect();
    if characters.len() <= 22 {
        return id.to_owned();
    }
    let (start, end) = (&characters[..10], &characters[characters.len() - 10..]);
    start.iter().chain(&['…']).chain(end).collect()
}
