//! Programs that run beside xtask until they are told to stop, and the signals that say so.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cmd::{self, Line};
use crate::workspace::which;

/// How often a waiting loop looks around.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// SIGINT, SIGTERM and SIGHUP, taken as requests instead of as an end.
pub(crate) struct Signals {
    fd: SignalFd,
    arrived: bool,
}

impl Signals {
    /// From here on the three signals are only noticed. To be called while there is no other thread.
    ///
    /// # Errors
    /// When the kernel refuses the signal mask or the descriptor.
    pub(crate) fn take() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().context("cannot block signals")?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("cannot watch signals")?;
        Ok(Self { fd, arrived: false })
    }

    /// Whether we were asked to stop, now or before.
    pub(crate) fn arrived(&mut self) -> bool {
        self.arrived |= matches!(self.fd.read_signal(), Ok(Some(_)));
        self.arrived
    }
}

/// A running program. Dropping it stops it.
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
    lines: Receiver<Line>,
    stopped: bool,
}

impl Program {
    /// Starts a program in a process group of its own, so that Ctrl-C reaches only us and we stop
    /// things in order. What it writes on standard error goes into `log`. Where `setpriv` exists, it
    /// is told to end when we die without a chance to stop it.
    ///
    /// # Errors
    /// When it cannot be started or the log not be written.
    pub(crate) fn start(name: &'static str, command: &Command, log: &Path) -> Result<Self> {
        let mut wrapped = match which("setpriv") {
            Some(setpriv) => {
                let mut wrapped = Command::new(setpriv);
                wrapped
                    .args(["--pdeathsig", "TERM", "--"])
                    .arg(command.get_program());
                wrapped
            }
            None => Command::new(command.get_program()),
        };
        wrapped
            .args(command.get_args())
            .process_group(0)
            .stdin(Stdio::null());
        wrapped.stdout(Stdio::piped()).stderr(cmd::create_log(log)?);
        let mut child = wrapped
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let (sender, lines) = cmd::lines();
        if let Some(out) = child.stdout.take() {
            cmd::read_lines(out, cmd::Output::Out, sender);
        }
        Ok(Self {
            name,
            child,
            log: log.to_owned(),
            lines,
            stopped: false,
        })
    }

    /// Waits for the JSON line with `"ready":true`; `None` when a signal came first.
    ///
    /// # Errors
    /// When the program ends or says nothing within `limit`; the text holds its last words.
    pub(crate) fn ready(
        &mut self,
        signals: &mut Signals,
        limit: Duration,
    ) -> Result<Option<Value>> {
        let deadline = Instant::now() + limit;
        loop {
            if signals.arrived() {
                return Ok(None);
            }
            match self.lines.try_recv() {
                Ok((_, line)) => {
                    let said: Option<Value> = serde_json::from_str(&line).ok();
                    let ready =
                        said.filter(|v| v.get("ready").and_then(Value::as_bool) == Some(true));
                    if ready.is_some() {
                        return Ok(ready);
                    }
                }
                Err(TryRecvError::Disconnected) => {
                    let status = self.child.wait().context("waiting for a program")?;
                    self.stopped = true;
                    bail!(
                        "{} ended at its start ({status}):\n{}",
                        self.name,
                        self.last_words()
                    );
                }
                Err(TryRecvError::Empty) if Instant::now() >= deadline => {
                    bail!(
                        "{} was not ready after {} s:\n{}",
                        self.name,
                        limit.as_secs(),
                        self.last_words()
                    );
                }
                Err(TryRecvError::Empty) => thread::sleep(PAUSE),
            }
        }
    }

    /// Hands over what it printed since, without waiting.
    pub(crate) fn printed(&self) -> impl Iterator<Item = String> {
        self.lines.try_iter().map(|(_, line)| line)
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self
            .child
            .try_wait()
            .with_context(|| format!("waiting for {}", self.name))?;
        self.stopped |= status.is_some();
        Ok(status)
    }

    /// Its last lines on standard error, and where the rest is.
    pub(crate) fn last_words(&self) -> String {
        format!(
            "{}\n  whole log: {}",
            cmd::tail_of(&self.log),
            self.log.display()
        )
    }

    /// Asks it to end and waits; after `grace` ends it by force.
    ///
    /// # Errors
    /// When it had to be ended by force or ended with an error.
    pub(crate) fn stop(&mut self, grace: Duration) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("process id")?);
        kill(pid, Signal::SIGTERM).with_context(|| format!("cannot stop {}", self.name))?;
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            // a program that waits for its reader could not end
            self.printed().for_each(drop);
            if let Some(status) = self.ended()? {
                if status.success() {
                    return Ok(());
                }
                bail!("{} ended with {status}:\n{}", self.name, self.last_words());
            }
            thread::sleep(PAUSE);
        }
        self.child
            .kill()
            .with_context(|| format!("cannot kill {}", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("waiting for {}", self.name))?;
        self.stopped = true;
        bail!(
            "{} did not end within {} s and was killed",
            self.name,
            grace.as_secs()
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.stopped
            && let Err(error) = self.stop(Duration::from_secs(10))
        {
            eprintln!("warning: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, name: &str) -> Program {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let log = std::env::temp_dir().join(format!("keytrail-{}-{name}.log", std::process::id()));
        Program::start("a program", &command, &log).unwrap()
    }

    fn forget_log(program: &Program) {
        std::fs::remove_file(&program.log).unwrap();
    }

    #[test]
    fn a_program_is_awaited_and_stopped() {
        let mut signals = Signals::take().unwrap();
        let mut program = sh(
            r#"trap 'exit 0' TERM; echo chatter; echo '{"ready":true,"port":7}'; while :; do sleep 0.05; done"#,
            "good",
        );
        let ready = program
            .ready(&mut signals, Duration::from_secs(20))
            .unwrap()
            .unwrap();
        assert_eq!(ready.get("port"), Some(&Value::from(7)));
        assert!(program.ended().unwrap().is_none());
        program.stop(Duration::from_secs(20)).unwrap();
        assert!(program.ended().unwrap().is_some());
        forget_log(&program);
    }

    #[test]
    fn a_program_that_dies_says_its_last_words() {
        let mut signals = Signals::take().unwrap();
        let mut program = sh("echo port 7443 is taken >&2; exit 3", "dead");
        let error = program
            .ready(&mut signals, Duration::from_secs(20))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("port 7443 is taken") && error.contains("exit status: 3"),
            "{error}"
        );
        forget_log(&program);
    }

    #[test]
    fn a_program_that_does_not_listen_is_killed() {
        let mut signals = Signals::take().unwrap();
        let mut program = sh(
            r#"trap '' TERM; echo '{"ready":true}'; while :; do sleep 0.05; done"#,
            "deaf",
        );
        program
            .ready(&mut signals, Duration::from_secs(20))
            .unwrap()
            .unwrap();
        let error = program
            .stop(Duration::from_millis(300))
            .unwrap_err()
            .to_string();
        assert!(error.contains("was killed"), "{error}");
        forget_log(&program);
    }
}
