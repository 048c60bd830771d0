//! Proof that the attached programs fire and report sane values.
//!
//! A child in the scope opens and reads a file that is watched, and the agent itself connects to a
//! listener of its own. A hook that attaches but stays silent is then known as such, and so are
//! offsets that read garbage, which a 6.1 kernel loads without complaint.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use keytrail_model::coverage::CoverageState;

use super::{
    attach::hook_name,
    event::{FileId, KernelEvent, ProcKey},
    hooks::HOOKS,
    load::Sensor,
    preflight::LoadError,
    rings::boot_ns,
};

/// Why a program that was live is not any more.
const SILENT: &str = "it was live and no longer reports the canary";

/// What the sensor reported of the canary's doings.
#[derive(Debug, Default)]
pub(super) struct Seen {
    fork: bool,
    exec: bool,
    exit: bool,
    tcp: bool,
    files: Vec<&'static str>,
    /// The canary could not be run as meant.
    hindered: Option<String>,
}

impl Seen {
    /// Whether the canary's read was reported by this hook.
    pub(super) fn saw_file(&self, hook: &str) -> bool {
        self.files.contains(&hook)
    }

    /// The programs that the canary touches, and whether each reported it.
    pub(super) fn proofs(&self) -> [(&'static str, bool); 7] {
        let cache_seen = self.saw_file("tp_btf/mm_filemap_get_pages");
        [
            ("process_fork", self.fork),
            ("process_exec", self.exec),
            ("process_exit", self.exit),
            ("sock_state", self.tcp),
            ("lsm_file_open", self.saw_file("lsm/file_open")),
            ("filemap_get_pages", cache_seen),
            ("syscall_exit", self.saw_file("tp_btf/sys_exit")),
        ]
    }

    /// Turns attached programs that stayed silent into missing ones.
    pub(super) fn prove(&self, results: &mut BTreeMap<&'static str, Result<(), String>>) {
        for (program, fired) in self.proofs() {
            if let (false, Some(result @ Ok(()))) = (fired, results.get_mut(program)) {
                *result = Err(match &self.hindered {
                    Some(why) => format!("attached but not proven: {why}"),
                    None => "attached, but did not report the canary".to_owned(),
                });
            }
        }
    }
}

/// Runs the canary and reads what came of it. Events of others that arrive meanwhile, or that a
/// predecessor left, are kept for the next [`Sensor::drain`].
pub(super) fn run(sensor: &mut Sensor) -> Result<Seen, LoadError> {
    let mut canary = match Canary::start(sensor) {
        Ok(canary) => canary,
        Err(error) => {
            return Ok(Seen {
                hindered: Some(format!("the canary process failed: {error}")),
                ..Seen::default()
            });
        }
    };
    let waited = canary.child.wait();
    if let Err(error) = waited.and_then(|_| Canary::connect(sensor)) {
        canary.seen.hindered = Some(format!("the canary failed: {error}"));
    }
    sensor.rings.sift(|event| !canary.take(event));
    let wrong_start = canary.wrong_start;
    let seen = canary.end(sensor);
    if wrong_start {
        return Err(LoadError::Program {
            program: "process_exec".to_owned(),
            reason: "it reports an impossible start time, so the offsets in this kernel's structs \
                     are wrong"
                .to_owned(),
        });
    }
    Ok(seen)
}

impl Sensor {
    /// Starts a canary whose doings must be reported by the main programs, if they are said to be live.
    ///
    /// # Errors
    /// When the canary cannot be run as meant.
    pub fn pulse(&self) -> std::io::Result<Canary> {
        let canary = Canary::start(self)?;
        if let Err(error) = Canary::connect(self) {
            canary.end(self);
            return Err(error);
        }
        Ok(canary)
    }

    /// Ends a canary. Returns the programs that are said to be live and did not report it; from now
    /// on they are said to be missing, until one of them reports another. Where records were lost
    /// meanwhile, the canary's may be among them: nothing is said then.
    pub fn judge(&mut self, canary: Canary) -> Vec<&'static str> {
        let lost = self.loss().total_lost() != canary.lost;
        let seen = canary.end(self);
        if lost {
            return Vec::new();
        }
        let own = self.plan();
        let mut silent = Vec::new();
        for (program, fired) in seen.proofs() {
            let Some(hook) = HOOKS.iter().find(|hook| hook.program == program) else {
                continue;
            };
            let row = self
                .coverage
                .rows
                .iter_mut()
                .find(|row| row.what == hook.what);
            let Some(row) = row.filter(|_| hook.plan.is_none_or(|plan| plan == own)) else {
                continue;
            };
            let live = matches!(row.state, CoverageState::Live { .. });
            let fell_silent = matches!(&row.state, CoverageState::Missing { reason, .. }
                if reason.ends_with(SILENT));
            if live && !fired {
                silent.push(hook.program);
                row.state = CoverageState::Missing {
                    reason: format!("{}: {SILENT}", hook_name(hook)),
                    blinds_verdicts: hook.judges,
                };
            } else if fired && fell_silent {
                row.state = CoverageState::Live {
                    hook: hook_name(hook),
                };
            }
        }
        silent
    }
}

/// A canary that was let out.
#[derive(Debug)]
pub struct Canary {
    file: CanaryFile,
    id: FileId,
    child: Child,
    /// The child and what it started.
    children: Vec<u32>,
    /// When it began; a number can have been somebody else's before.
    since: u64,
    seen: Seen,
    /// Records that had been lost when it was let out.
    lost: u64,
    wrong_start: bool,
}

impl Canary {
    /// Starts it.
    fn start(sensor: &Sensor) -> std::io::Result<Self> {
        let since = boot_ns();
        let lost = sensor.loss().total_lost();
        let file = canary_file(sensor.canary_dir.as_deref())?;
        let id = FileId::at(&file.0).map_err(std::io::Error::other)?;
        // The shell waits until it is in the scope and tracked, then starts a program that reads.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read go; /bin/cat \"$0\"; /bin/cat \"$0\""])
            .arg(&file.0)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let tgid = child.id();
        let prepared = prepare(sensor, id, tgid);
        // Closing its input ends the shell's `read`, whether or not all went well.
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(b"\n")?;
        }
        let canary = Self {
            file,
            id,
            child,
            children: vec![tgid],
            since,
            seen: Seen::default(),
            lost,
            wrong_start: false,
        };
        match prepared {
            Ok(()) => Ok(canary),
            Err(error) => {
                canary.end(sensor);
                Err(error)
            }
        }
    }

    /// Connects from this process to itself.
    fn connect(sensor: &Sensor) -> std::io::Result<()> {
        let own = ProcKey {
            tgid: std::process::id(),
            start_ns: 0,
        };
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let watch = sensor.watch();
        watch.track(own).map_err(std::io::Error::other)?;
        let result = listener.local_addr().and_then(TcpStream::connect);
        watch.untrack(own);
        result.map(drop)
    }

    /// True when the event is the canary's doing, which is nobody else's business.
    pub fn take(&mut self, event: &KernelEvent) -> bool {
        let head = event.head();
        let (tgid, own) = (head.process.tgid, std::process::id());
        if head.ts_boot_ns < self.since || (tgid != own && !self.children.contains(&tgid)) {
            return false;
        }
        match event {
            KernelEvent::Fork { child, .. } => {
                self.seen.fork = true;
                self.children.push(child.tgid);
            }
            KernelEvent::Exec(exec) if exec.args.is_some() => {
                let start = head.process.start_ns;
                self.wrong_start |= start < self.since || start > boot_ns();
                self.seen.exec = true;
            }
            KernelEvent::Exit { .. } => self.seen.exit = true,
            KernelEvent::File(file) => self.seen.files.push(file.hook),
            KernelEvent::ConnOpen(_) | KernelEvent::ConnFailed(_) => self.seen.tcp |= tgid == own,
            _ => {}
        }
        true
    }

    /// Takes it in again.
    fn end(mut self, sensor: &Sensor) -> Seen {
        // By now it has ended, or something holds it, which must not hold us.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        sensor.watch().remove_inode(self.id);
        drop(self.file);
        self.seen
    }
}

/// A file that exists as long as this does.
#[derive(Debug)]
struct CanaryFile(PathBuf);

impl Drop for CanaryFile {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// In a usual folder, or else in `dir`, which is the agent's own: there a killed agent's is replaced.
fn canary_file(dir: Option<&Path>) -> std::io::Result<CanaryFile> {
    // A real file system if there is one: memory file systems do not show in the page cache's hooks.
    let name = format!(".keytrail-canary-{}", std::process::id());
    let usual = ["/var/tmp", "/tmp", "/"].map(|dir| Path::new(dir).join(&name));
    let own = dir.map(|dir| dir.join(".keytrail-canary"));
    let mut last = std::io::Error::other("no directory to write to");
    for path in usual.into_iter().chain(own) {
        drop(fs::remove_file(&path));
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
        {
            Ok(mut file) => {
                file.write_all(b"canary\n")?;
                return Ok(CanaryFile(path));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Puts the canary into the scope and has its file watched.
fn prepare(sensor: &Sensor, id: FileId, tgid: u32) -> std::io::Result<()> {
    if let Some(scope) = &sensor.scope_dir {
        fs::write(scope.join("cgroup.procs"), tgid.to_string())?;
    }
    let watch = sensor.watch();
    watch.add_inode(id).map_err(std::io::Error::other)?;
    watch
        .track(ProcKey { tgid, start_ns: 0 })
        .map_err(std::io::Error::other)
}
