//! Running other programs: their whole output goes into a log, the last lines into the error.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ui::{Step, Ui, plain};
use crate::workspace::Workspace;

/// How many lines of a failed program's output an error repeats.
const TAIL: usize = 20;
/// Lines on their way from a program to us; when full, the program waits.
const LINES: usize = 1024;

/// A line of a program and where it came from.
pub(crate) type Line = (Output, String);

/// Which of its two outputs a program wrote a line on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Out,
    Err,
}

/// Runs a program without input, hands each line of its output to `each`, and writes it to `log`.
///
/// # Errors
/// When the program cannot be started or the log cannot be written. A bad exit is not an error here.
pub(crate) fn stream(
    command: &mut Command,
    log: &Path,
    mut each: impl FnMut(Output, &str),
) -> Result<ExitStatus> {
    let mut file = create_log(log)?;
    writeln!(file, "$ {}", spelled(command))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", spelled(command)))?;
    let (sender, lines) = sync_channel(LINES);
    let readers = [
        child
            .stdout
            .take()
            .map(|out| read_lines(out, Output::Out, sender.clone())),
        child
            .stderr
            .take()
            .map(|err| read_lines(err, Output::Err, sender.clone())),
    ];
    drop(sender);
    for (output, line) in lines {
        writeln!(file, "{line}")?;
        each(output, &line);
    }
    for reader in readers.into_iter().flatten() {
        if reader.join().is_err() {
            bail!("the reader of `{}` failed", spelled(command));
        }
    }
    child
        .wait()
        .with_context(|| format!("waiting for `{}`", spelled(command)))
}

/// Sends each line of `from` until it ends. Bytes that are not UTF-8 are replaced.
pub(crate) fn read_lines(
    from: impl Read + Send + 'static,
    output: Output,
    to: SyncSender<Line>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']).to_owned();
            if to.send((output, text)).is_err() {
                return;
            }
            line.clear();
        }
    })
}

/// A bounded channel of lines, for callers that read a program beside other work.
pub(crate) fn lines() -> (SyncSender<Line>, Receiver<Line>) {
    sync_channel(LINES)
}

/// Runs a program as part of a shown step; its output is seen only when it fails.
///
/// # Errors
/// When it cannot be started or fails; the text holds its last lines and the log's place.
pub(crate) fn quiet(ws: &Workspace, step: &Step, name: &str, command: &mut Command) -> Result<()> {
    let log = ws.logs().join(format!("{name}.log"));
    let mut tail = Tail::default();
    let status = stream(command, &log, |_, line| {
        step.now(line);
        tail.push(line);
    })?;
    if status.success() {
        return Ok(());
    }
    bail!(
        "`{}` failed ({status}):\n{}\n  whole log: {}",
        spelled(command),
        tail,
        log.display()
    )
}

/// Runs cargo so that its warnings and errors show, and the names of the crates that it compiles
/// only on a terminal (there through cargo's own progress bar).
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn cargo(ws: &Workspace, ui: &Ui, label: &str, command: &mut Command) -> Result<bool> {
    if ui.is_terminal() {
        eprintln!("==> {label}");
        let status = command
            .stdin(Stdio::null())
            .status()
            .context("cannot start cargo")?;
        return Ok(status.success());
    }
    let step = ui.step(label);
    let log = ws
        .logs()
        .join(format!("{}.log", label.replace([' ', '/'], "-")));
    let mut crates = Crates::default();
    let status = stream(command, &log, |_, line| {
        if !crates.is_noise(line) {
            step.line(line);
        }
    })?;
    step.done();
    Ok(status.success())
}

/// Counts the crates that cargo names, and says the count now and then instead of every name.
pub(crate) struct Crates {
    seen: u32,
    said: Instant,
}

impl Default for Crates {
    fn default() -> Self {
        Self {
            seen: 0,
            said: Instant::now(),
        }
    }
}

impl Crates {
    const EVERY: Duration = Duration::from_secs(30);

    /// Whether `line` is one of the hundreds that only say that cargo is alive.
    pub(crate) fn is_noise(&mut self, line: &str) -> bool {
        let word = line.split_whitespace().next().unwrap_or_default();
        match word {
            "Compiling" | "Checking" => self.seen += 1,
            "Downloaded" | "Downloading" | "Updating" | "Locking" | "Blocking" | "Fresh" => {}
            _ => return false,
        }
        if self.said.elapsed() >= Self::EVERY {
            self.said = Instant::now();
            eprintln!("    ... {} crates so far", self.seen);
        }
        true
    }
}

/// Runs a program and gives its standard output when it succeeds.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let done = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    done.status
        .success()
        .then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

/// The last lines of an output.
#[derive(Default)]
pub(crate) struct Tail(VecDeque<String>);

impl Tail {
    pub(crate) fn push(&mut self, line: &str) {
        if self.0.len() == TAIL {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }
}

impl std::fmt::Display for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, line) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "  | {}", plain(line))?;
        }
        Ok(())
    }
}

/// The last lines of a log file; none when it cannot be read.
pub(crate) fn tail_of(log: &Path) -> Tail {
    let text = fs::read(log).unwrap_or_default();
    let mut tail = Tail::default();
    for line in String::from_utf8_lossy(&text).lines() {
        tail.push(line);
    }
    tail
}

/// Makes a log file and the folder that it is in.
pub(crate) fn create_log(log: &Path) -> Result<File> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    File::create(log).with_context(|| format!("cannot write {}", log.display()))
}

fn spelled(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned();
    command.get_args().fold(name, |text, arg| {
        format!("{text} {}", arg.to_string_lossy())
    })
}
