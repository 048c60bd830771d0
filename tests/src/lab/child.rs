//! Child processes of a run: started in their place, their output kept in memory (bounded), ended
//! with the run.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::space::Space;

/// Set when the user asked to stop (Ctrl-C): every wait of the lab ends with an error then.
static STOP: AtomicBool = AtomicBool::new(false);

/// Asks every wait of this process to end.
pub fn request_stop() {
    STOP.store(true, Ordering::SeqCst);
}

/// Fails once a stop was asked for.
///
/// # Errors
/// After [`request_stop`].
pub fn check_stop() -> Result<()> {
    ensure!(!STOP.load(Ordering::SeqCst), "stopped on request");
    Ok(())
}

/// Polls `probe` until it gives a value.
///
/// # Errors
/// At the time limit (the text names `what`), after a request to stop, or when `probe` fails.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let until = Instant::now() + limit;
    loop {
        check_stop()?;
        if let Some(value) = probe()? {
            return Ok(value);
        }
        ensure!(
            Instant::now() < until,
            "{what} did not happen within {limit:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A place of the lab: where processes run.
#[derive(Debug)]
pub struct Place {
    /// What the place is called in the story and in errors.
    pub name: &'static str,
    /// Its network.
    pub net: Space,
    /// Its cgroup's folder.
    pub cgroup: PathBuf,
}

/// How to start a program in a place.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The `demo` program, which does the entering.
    pub demo: &'a Path,
    /// Where.
    pub place: &'a Place,
    /// The mount namespace with the lab's names, when the program resolves names.
    pub mounts: Option<&'a Space>,
    /// The folder to start in.
    pub cwd: &'a Path,
    /// The whole environment: nothing of the runner's own is passed on.
    pub env: Vec<(OsString, OsString)>,
}

impl Launch<'_> {
    /// Starts `program` with `args`; `input` is given on its standard input, which is then closed.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(
        &self,
        name: &str,
        program: &Path,
        args: &[OsString],
        input: &str,
    ) -> Result<Proc> {
        let mut command = Command::new(self.demo);
        command.arg("enter").arg("--cgroup").arg(&self.place.cgroup);
        command
            .arg("--net")
            .arg(self.place.net.path())
            .arg("--cwd")
            .arg(self.cwd);
        if let Some(mounts) = self.mounts {
            command.arg("--mnt").arg(mounts.path());
        }
        command.arg("--").arg(program).args(args);
        command
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        Proc::start(name, command, input)
    }
}

/// Lines that a program wrote to standard error, the latest ones.
type Tail = Arc<Mutex<VecDeque<String>>>;

/// A running child. Dropping it ends it.
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    lines: Receiver<String>,
    errors: Tail,
}

impl Proc {
    /// Starts a command; see [`Launch::start`].
    ///
    /// # Errors
    /// When the process cannot be started or does not take its input.
    pub fn start(name: &str, command: Command, input: &str) -> Result<Self> {
        Self::start_logged(name, command, input, None)
    }

    /// As [`Self::start`], and appends everything that the program writes to `log`.
    ///
    /// # Errors
    /// As [`Self::start`], and when the log cannot be written.
    pub fn start_logged(
        name: &str,
        mut command: Command,
        input: &str,
        log: Option<&Path>,
    ) -> Result<Self> {
        let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        let (out_log, err_log) = (log.map(open).transpose()?, log.map(open).transpose()?);
        command.stdin(if input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(input.as_bytes())
                .with_context(|| format!("feeding {name}"))?;
        }
        let (sender, lines) = sync_channel(4096);
        let out = child.stdout.take().context("no standard output")?;
        std::thread::spawn(move || forward(out, &sender, out_log));
        let errors = Tail::default();
        let (err, tail) = (
            child.stderr.take().context("no standard error")?,
            errors.clone(),
        );
        std::thread::spawn(move || keep_tail(err, &tail, err_log));
        Ok(Self {
            name: name.to_owned(),
            child,
            lines,
            errors,
        })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output, or nothing when `limit` passes or the program has ended.
    #[must_use]
    pub fn line(&self, limit: Duration) -> Option<String> {
        self.lines.recv_timeout(limit).ok()
    }

    /// Every line that is there now.
    #[must_use]
    pub fn lines_now(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Waits for the line in which a program says, in JSON, that it is ready.
    ///
    /// # Errors
    /// When it ends first or takes longer than `limit`; the text holds its last words.
    pub fn ready(&mut self, limit: Duration) -> Result<serde_json::Value> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            check_stop()?;
            if let Some(line) = self.line(Duration::from_millis(50))
                && let Ok(value) = serde_json::from_str::<serde_json::Value>(&line)
                && value.get("ready") == Some(&serde_json::Value::Bool(true))
            {
                return Ok(value);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended before it was ready ({status}):\n{}",
                    self.name,
                    self.last_words()
                );
            }
        }
        bail!(
            "{} was not ready within {limit:?}:\n{}",
            self.name,
            self.last_words()
        )
    }

    /// Whether the program has ended, and how.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it takes longer than `limit`.
    pub fn finish(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = format!("the end of {}", self.name);
        let child = &mut self.child;
        let ended = wait_for(&name, limit, || Ok(child.try_wait()?));
        ended.with_context(|| self.last_words())
    }

    /// Asks the program to end (SIGTERM or alike), as a service manager would.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// The last lines of standard error.
    #[must_use]
    pub fn last_words(&self) -> String {
        let tail = self
            .errors
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        tail.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Hands lines on; when nobody takes them any more, the pipe is drained so that the program does not
/// block on it.
fn forward(out: impl Read, sender: &SyncSender<String>, mut log: Option<File>) {
    for line in BufReader::new(out).lines() {
        let Ok(line) = line else { return };
        record(&mut log, &line);
        drop(sender.try_send(line));
    }
}

fn keep_tail(err: impl Read, tail: &Tail, mut log: Option<File>) {
    for line in BufReader::new(err).lines() {
        let Ok(line) = line else { return };
        record(&mut log, &line);
        let mut tail = tail
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if tail.len() >= 60 {
            tail.pop_front();
        }
        tail.push_back(line);
    }
}

fn record(log: &mut Option<File>, line: &str) {
    if let Some(log) = log {
        drop(writeln!(log, "{line}"));
    }
}
