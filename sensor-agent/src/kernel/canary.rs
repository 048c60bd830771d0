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
    process::{Command, Stdio},
};

use super::{
    event::{FileId, KernelEvent, ProcKey},
    load::Sensor,
    preflight::LoadError,
    rings::boot_ns,
};

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

    /// Turns attached programs that stayed silent into missing ones.
    pub(super) fn prove(&self, results: &mut BTreeMap<&'static str, Result<(), String>>) {
        let cache_seen = self.saw_file("tp_btf/mm_filemap_get_pages");
        let proofs = [
            ("process_fork", self.fork),
            ("process_exec", self.exec),
            ("process_exit", self.exit),
            ("sock_state", self.tcp),
            ("lsm_file_open", self.saw_file("lsm/file_open")),
            ("filemap_get_pages", cache_seen),
            ("syscall_exit", self.saw_file("tp_btf/sys_exit")),
        ];
        for (program, fired) in proofs {
            if let (false, Some(result @ Ok(()))) = (fired, results.get_mut(program)) {
                *result = Err(match &self.hindered {
                    Some(why) => format!("attached but not proven: {why}"),
                    None => "attached, but did not report the canary".to_owned(),
                });
            }
        }
    }
}

/// Runs the canary and reads what came of it. Events of others that arrive meanwhile are dropped:
/// the caller looks at running processes after loading anyway.
pub(super) fn run(sensor: &mut Sensor, scope: Option<&Path>) -> Result<Seen, LoadError> {
    let mut seen = Seen::default();
    let since = boot_ns();
    let mut children = Vec::new();
    if let Err(error) = read_in_child(sensor, scope, &mut children) {
        seen.hindered = Some(format!("the canary process failed: {error}"));
    }
    let own = ProcKey {
        tgid: std::process::id(),
        start_ns: 0,
    };
    if let Err(error) = connect(sensor, own) {
        seen.hindered = Some(format!("the canary connection failed: {error}"));
    }
    let mut events = Vec::new();
    sensor.drain(&mut events);
    for event in events {
        let tgid = event.head().process.tgid;
        match event {
            KernelEvent::Fork { child, .. } if children.contains(&tgid) => {
                seen.fork = true;
                children.push(child.tgid);
            }
            KernelEvent::Exec(exec) if children.contains(&tgid) && exec.args.is_some() => {
                let start = exec.head.process.start_ns;
                if start < since || start > boot_ns() {
                    return Err(LoadError::Program {
                        program: "process_exec".to_owned(),
                        reason: "it reports an impossible start time, so the offsets in this \
                                 kernel's structs are wrong"
                            .to_owned(),
                    });
                }
                seen.exec = true;
            }
            KernelEvent::Exit { .. } if children.contains(&tgid) => seen.exit = true,
            KernelEvent::File(file) if children.contains(&tgid) => seen.files.push(file.hook),
            KernelEvent::ConnOpen(_) | KernelEvent::ConnFailed(_) if tgid == own.tgid => {
                seen.tcp = true;
            }
            _ => {}
        }
    }
    Ok(seen)
}

/// A file that exists as long as this does.
struct CanaryFile(PathBuf);

impl Drop for CanaryFile {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn canary_file() -> std::io::Result<CanaryFile> {
    // A real file system if there is one: memory file systems do not show in the page cache's hooks.
    let mut last = std::io::Error::other("no directory to write to");
    for dir in [Path::new("/var/tmp"), Path::new("/tmp"), Path::new("/")] {
        let path = dir.join(format!(".keytrail-canary-{}", std::process::id()));
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

fn read_in_child(
    sensor: &Sensor,
    scope: Option<&Path>,
    children: &mut Vec<u32>,
) -> std::io::Result<()> {
    let file = canary_file()?;
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
    children.push(tgid);
    let watch = sensor.watch();
    let prepared = (|| {
        if let Some(scope) = scope {
            fs::write(scope.join("cgroup.procs"), tgid.to_string())?;
        }
        watch.add_inode(id).map_err(std::io::Error::other)?;
        watch
            .track(ProcKey { tgid, start_ns: 0 })
            .map_err(std::io::Error::other)
    })();
    // Closing its input ends the shell's `read`, whether or not all went well.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(b"\n")?;
    }
    child.wait()?;
    watch.remove_inode(id);
    prepared
}

fn connect(sensor: &Sensor, own: ProcKey) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let watch = sensor.watch();
    watch.track(own).map_err(std::io::Error::other)?;
    let result = listener.local_addr().and_then(TcpStream::connect);
    watch.untrack(own);
    result.map(drop)
}
