//! Colours on a terminal only, and writing that ends quietly when nobody reads any more.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use owo_colors::{OwoColorize as _, Style as Colour};

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// True on a terminal.
    pub colour: bool,
}

impl Style {
    /// No colours: files, pipes, tests.
    pub const PLAIN: Self = Self { colour: false };

    /// Colours when standard output is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn detect() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self {
            colour: wanted && std::io::stdout().is_terminal(),
        }
    }

    fn paint(self, colour: Colour, text: impl Display) -> String {
        if self.colour {
            text.style(colour).to_string()
        } else {
            text.to_string()
        }
    }

    pub(super) fn alarm(self, text: impl Display) -> String {
        self.paint(Colour::new().red().bold(), text)
    }

    pub(super) fn warn(self, text: impl Display) -> String {
        self.paint(Colour::new().yellow().bold(), text)
    }

    pub(super) fn good(self, text: impl Display) -> String {
        self.paint(Colour::new().green(), text)
    }

    pub(super) fn head(self, text: impl Display) -> String {
        self.paint(Colour::new().bold(), text)
    }

    pub(super) fn faint(self, text: impl Display) -> String {
        self.paint(Colour::new().dimmed(), text)
    }
}

/// Prints to standard output at once; a closed pipe (`| head`) is a reader that has enough.
pub(super) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other,
    }
}

/// One line on standard error, with the chain of causes.
pub(super) fn complain(error: &anyhow::Error) {
    let line = format!("correlator: {error:#}\n");
    // Nothing is left to tell a failure to.
    drop(std::io::stderr().write_all(line.as_bytes()));
}
