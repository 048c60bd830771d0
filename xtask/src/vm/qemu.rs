//! One guest from power-on to its last line.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cmd;
use crate::setup::{Kernel, Series};
use crate::ui::{Step, plain};
use crate::workspace::Workspace;

/// The line with the self-test's exit code; nothing that counts comes after it.
pub(super) const EXIT: &str = "KEYTRAIL-EXIT ";
/// The first line of the init script: the guest has booted.
const INIT: &str = "KEYTRAIL-INIT ";
/// What QEMU prints when the host's KVM cannot run the guest.
const KVM_ERROR: &str = "KVM internal error";
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=3 panic=-1 lsm=lockdown,capability,bpf";

/// How a case ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// One thing that was tried in the guest.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct Case {
    #[serde(rename = "case")]
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    /// Why it failed or was skipped, or what was seen.
    pub(crate) reason: Option<String>,
}

/// What came of one guest.
pub(crate) struct Run {
    pub(crate) cases: Vec<Case>,
    /// `kvm` or `tcg`.
    pub(crate) accelerator: &'static str,
    pub(crate) time: Duration,
    pub(crate) log: PathBuf,
}

/// What the serial line said.
#[derive(Default)]
struct Serial {
    booted: bool,
    exit: Option<i32>,
    cases: Vec<Case>,
    /// How many of the cases are the self-test's own.
    self_tested: usize,
    kvm_failed: bool,
}

/// Boots `kernel` and collects its cases. KVM is used where it works: on some machines it opens and
/// then fails, so a guest that did not reach its init under KVM is booted again without, and the
/// machine remembered until it is restarted.
///
/// # Errors
/// When QEMU cannot be started.
pub(super) fn boot(
    ws: &Workspace,
    step: &Step,
    series: Series,
    kernel: &Kernel,
    image: &Path,
    self_test: bool,
) -> Result<Run> {
    let log = ws.logs().join(format!("guest-{}.log", series.name()));
    let since = Instant::now();
    let verdict = ws.cache.join("vm/kvm-fails");
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let known_bad = fs::read_to_string(&verdict).is_ok_and(|id| id == boot_id);
    if !known_bad
        && fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
    {
        let serial = attempt(
            step,
            &log,
            kernel,
            image,
            &["-accel", "kvm"],
            Duration::from_mins(2),
        )?;
        if serial.booted {
            return Ok(conclude(serial, self_test, "kvm", since.elapsed(), log));
        }
        step.line("    KVM is there but no guest boots with it: using emulation");
        fs::write(&verdict, boot_id)
            .with_context(|| format!("cannot write {}", verdict.display()))?;
    }
    let tcg = ["-accel", "tcg,thread=multi"];
    let serial = attempt(step, &log, kernel, image, &tcg, Duration::from_mins(8))?;
    Ok(conclude(serial, self_test, "tcg", since.elapsed(), log))
}

fn attempt(
    step: &Step,
    log: &Path,
    kernel: &Kernel,
    image: &Path,
    accelerator: &[&str],
    limit: Duration,
) -> Result<Serial> {
    let mut file = cmd::create_log(log)?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(accelerator)
        .args(["-cpu", "max", "-smp", "2", "-m", "1024", "-nodefaults"]);
    qemu.args([
        "-display",
        "none",
        "-serial",
        "stdio",
        "-monitor",
        "none",
        "-no-reboot",
    ]);
    qemu.arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image);
    qemu.args(["-append", COMMAND_LINE]);
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let (sender, lines) = cmd::lines();
    let out = child
        .stdout
        .take()
        .map(|out| cmd::read_lines(out, cmd::Output::Out, sender.clone()));
    let err = child
        .stderr
        .take()
        .map(|err| cmd::read_lines(err, cmd::Output::Err, sender));
    let deadline = Instant::now() + limit;
    let mut serial = Serial::default();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok((_, line)) => {
                writeln!(file, "{line}")?;
                step.now(&line);
                serial.read(&line);
                if serial.kvm_failed {
                    break;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                writeln!(file, "(stopped after {} s)", limit.as_secs())?;
                break;
            }
        }
    }
    // it has ended by itself unless it hangs; a failed kill means just that
    drop(child.kill());
    child.wait().context("waiting for QEMU")?;
    drop(lines);
    for reader in [out, err].into_iter().flatten() {
        drop(reader.join());
    }
    Ok(serial)
}

impl Serial {
    fn read(&mut self, line: &str) {
        // the firmware may leave terminal sequences before the first line's text
        let line = line.trim();
        self.booted |= line.contains(INIT);
        self.kvm_failed |= line.starts_with(KVM_ERROR);
        if let Some(code) = line.strip_prefix(EXIT) {
            self.exit = code.trim().parse().ok();
        } else if let Some(case) = line.strip_prefix("CASE ") {
            let (outcome, name) = case.split_once(' ').unwrap_or(("failed", case));
            let outcome = if outcome == "passed" {
                Outcome::Passed
            } else {
                Outcome::Failed
            };
            self.cases.push(Case {
                name: name.to_owned(),
                outcome,
                reason: None,
            });
        } else if line.starts_with('{')
            && let Ok(case) = serde_json::from_str(line)
        {
            self.cases.push(case);
            self.self_tested += 1;
        }
    }
}

/// Adds the case that says whether the guest itself came to its end.
fn conclude(
    serial: Serial,
    self_test: bool,
    accelerator: &'static str,
    time: Duration,
    log: PathBuf,
) -> Run {
    let mut cases = serial.cases;
    let told_failure = cases.iter().any(|c| c.outcome == Outcome::Failed);
    let reason = match serial.exit {
        Some(0) if self_test && serial.self_tested == 0 => {
            Some("the self-test named no case".to_owned())
        }
        Some(0) => None,
        Some(code) if told_failure => Some(format!("the self-test exited with {code}")),
        Some(code) => Some(format!(
            "the self-test exited with {code} and named no failed case"
        )),
        None if serial.booted => Some("the guest died before its end".to_owned()),
        None => Some("the guest did not boot".to_owned()),
    };
    let reason = reason.map(|why| format!("{why}; {}", last_line(&log)));
    let outcome = if reason.is_some() {
        Outcome::Failed
    } else {
        Outcome::Passed
    };
    cases.push(Case {
        name: "the guest came to its end".to_owned(),
        outcome,
        reason,
    });
    Run {
        cases,
        accelerator,
        time,
        log,
    }
}

fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last = text
        .lines()
        .rfind(|l| !l.trim().is_empty() && !l.starts_with(EXIT));
    format!("last line: {}", plain(last.unwrap_or("(none)")))
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.outcome {
            Outcome::Passed => "passed ",
            Outcome::Failed => "FAILED ",
            Outcome::Skipped => "skipped",
        };
        write!(f, "{mark} {}", plain(&self.name))?;
        match &self.reason {
            Some(reason) => write!(f, ": {}", plain(reason)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Run {
        let mut serial = Serial::default();
        for line in lines {
            serial.read(line);
        }
        conclude(
            serial,
            true,
            "tcg",
            Duration::ZERO,
            PathBuf::from("/nonexistent"),
        )
    }

    fn failures(run: &Run) -> Vec<&str> {
        let failed = run.cases.iter().filter(|c| c.outcome == Outcome::Failed);
        failed.map(|c| c.name.as_str()).collect()
    }

    #[test]
    fn a_clean_guest_has_no_failure() {
        let run = read(&[
            "KEYTRAIL-INIT 6.1.0",
            "CASE passed kernel has BTF",
            r#"{"case":"open","outcome":"passed"}"#,
            r#"{"case":"kprobe","outcome":"skipped","reason":"no trampolines"}"#,
            "KEYTRAIL-EXIT 0",
        ]);
        assert!(failures(&run).is_empty());
        assert_eq!(run.cases.len(), 4);
        assert_eq!(run.cases[2].to_string(), "skipped kprobe: no trampolines");
    }

    #[test]
    fn every_way_to_fail_is_a_failed_case() {
        let end = "the guest came to its end";
        assert_eq!(failures(&read(&[])), [end]);
        assert_eq!(
            failures(&read(&["KEYTRAIL-INIT 6.1", "Kernel panic"])),
            [end]
        );
        assert_eq!(
            failures(&read(&["KEYTRAIL-INIT 6.1", "KEYTRAIL-EXIT 3"])),
            [end]
        );
        assert_eq!(failures(&read(&["KEYTRAIL-EXIT x"])), [end]);
        let silent = [
            "KEYTRAIL-INIT 6.1",
            "CASE passed kernel has BTF",
            "KEYTRAIL-EXIT 0",
        ];
        assert_eq!(failures(&read(&silent)), [end]);
        let told = read(&[
            r#"{"case":"open","outcome":"failed","reason":"no event"}"#,
            "KEYTRAIL-EXIT 1",
        ]);
        assert_eq!(failures(&told), ["open", end]);
        assert_eq!(
            failures(&read(&[
                "CASE failed kernel has BTF",
                r#"{"case":"open","outcome":"passed","reason":null}"#,
                "KEYTRAIL-EXIT 0"
            ])),
            ["kernel has BTF"]
        );
    }
}
