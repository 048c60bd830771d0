//! The narrator: what happens, line by line, with the time since the start. Colour only on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Instant;

use owo_colors::OwoColorize;

/// How a line is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tone {
    Chapter,
    Plain,
    Good,
    Bad,
}

/// Writes the story to standard output. Cheap to share by reference between threads.
#[derive(Debug)]
pub struct Story {
    started: Instant,
    colour: bool,
    out: Mutex<()>,
}

impl Default for Story {
    fn default() -> Self {
        Self::new()
    }
}

impl Story {
    /// A narrator that speaks to standard output.
    #[must_use]
    pub fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            started: Instant::now(),
            colour,
            out: Mutex::new(()),
        }
    }

    /// A new chapter.
    pub fn chapter(&self, text: &str) {
        self.line(Tone::Chapter, text);
    }

    /// Something that happened.
    pub fn say(&self, text: &str) {
        self.line(Tone::Plain, text);
    }

    /// An expectation that held.
    pub fn good(&self, text: &str) {
        self.line(Tone::Good, text);
    }

    /// An expectation that did not hold.
    pub fn bad(&self, text: &str) {
        self.line(Tone::Bad, text);
    }

    /// Text of a program of the product, shown as it is (indented), without control characters.
    pub fn quote(&self, text: &str) {
        let clean: String = text
            .chars()
            .map(|c| {
                if c.is_control() && c != '\n' {
                    '\u{fffd}'
                } else {
                    c
                }
            })
            .collect();
        for line in clean.lines() {
            self.write(&format!("          | {line}"));
        }
    }

    fn line(&self, tone: Tone, text: &str) {
        let at = format!("{:>7.2} s", self.started.elapsed().as_secs_f64());
        let text = match (tone, self.colour) {
            (Tone::Chapter, true) => format!("\n{} {}", at.dimmed(), text.bold().cyan()),
            (Tone::Plain, true) => format!("{}   {text}", at.dimmed()),
            (Tone::Good, true) => format!("{} {} {text}", at.dimmed(), "ok".green()),
            (Tone::Bad, true) => format!("{} {} {text}", at.dimmed(), "WRONG".red().bold()),
            (Tone::Chapter, false) => format!("\n{at} == {text}"),
            (Tone::Plain, false) => format!("{at}    {text}"),
            (Tone::Good, false) => format!("{at} ok {text}"),
            (Tone::Bad, false) => format!("{at} WRONG {text}"),
        };
        self.write(&text);
    }

    fn write(&self, text: &str) {
        let _guard = self
            .out
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // A closed pipe (`demo | head`) must not turn the story into a panic.
        let mut out = std::io::stdout().lock();
        drop(writeln!(out, "{text}").and_then(|()| out.flush()));
    }
}
