//! What a person sees while xtask works: a spinner on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The terminal, or what stands for it.
pub(crate) struct Ui {
    terminal: bool,
}

/// A piece of work that is shown from its start to its end.
pub(crate) struct Step {
    bar: Option<ProgressBar>,
    label: String,
    since: Instant,
}

impl Ui {
    pub(crate) fn new() -> Self {
        Self {
            terminal: stderr().is_terminal(),
        }
    }

    /// Whether a person sits before it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Starts to show a piece of work.
    pub(crate) fn step(&self, label: impl Into<String>) -> Step {
        let label = label.into();
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {wide_msg:.dim}") {
                bar.set_style(style);
            }
            bar.set_prefix(label.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("==> {label}");
        }
        Step {
            bar,
            label,
            since: Instant::now(),
        }
    }

    /// One line of information.
    #[expect(clippy::unused_self, reason = "all output goes through the Ui")]
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        eprintln!("    {}", text.as_ref());
    }

    /// One line about something that is missing but does not stop the work.
    #[expect(clippy::unused_self, reason = "all output goes through the Ui")]
    pub(crate) fn warn(&self, text: impl AsRef<str>) {
        eprintln!("warning: {}", text.as_ref());
    }

    /// The last words: what failed, where, and how to mend it.
    #[expect(clippy::unused_self, reason = "all output goes through the Ui")]
    pub(crate) fn error(&self, error: &anyhow::Error) {
        eprintln!("error: {error:#}");
    }
}

impl Step {
    /// What is being done right now; shown on a terminal only.
    pub(crate) fn now(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.trim().to_owned());
        }
    }

    /// A line that stays, above the spinner.
    pub(crate) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// The work is done.
    pub(crate) fn done(self) {
        let seconds = self.since.elapsed().as_secs_f64();
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                eprintln!("  ✓ {} ({seconds:.1} s)", self.label);
            }
            None => eprintln!("    done in {seconds:.1} s"),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar
            && !bar.is_finished()
        {
            bar.finish_and_clear();
            eprintln!("  ✗ {}", self.label);
        }
    }
}

/// Another program's text for a terminal: control characters are spelled out, the rest stays.
pub(crate) fn plain(text: &str) -> String {
    let spelled = |c: char| match c {
        c if c.is_control() => c.escape_unicode().to_string(),
        c => c.to_string(),
    };
    text.chars().map(spelled).collect()
}

/// A duration as people say it: `8.2 s`, `3 min 05 s`.
pub(crate) fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        return format!("{:.1} s", time.as_secs_f64());
    }
    format!("{} min {:02} s", seconds / 60, seconds % 60)
}
