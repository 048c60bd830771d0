//! Other observers of opens and connections, run beside the sensor in the same rounds.
//!
//! They come from Debian (bpftrace, libbpf-tools, bpfcc-tools) and are limited to the bench's cgroup
//! where they can be. What cannot run on a machine is reported with what it said itself. Those that
//! need tracefs get it in a mount namespace of their own, as it is not mounted everywhere.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::Duration,
};

/// A peer.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    /// Its name in the table.
    pub(super) name: &'static str,
    /// Program and arguments; `{cgroup}` stands for the bench's cgroup directory.
    command: &'static [&'static str],
    /// What it prints once it is attached.
    ready: &'static str,
}

/// Opens as `opensnoop.bt` sees them, of the cgroup alone.
const OPENS: &str = r#"
tracepoint:syscalls:sys_enter_openat /cgroup == cgroupid("{cgroup}")/ { @name[tid] = args->filename; }
tracepoint:syscalls:sys_exit_openat /@name[tid]/ {
    printf("%d %s %d %s\n", pid, comm, args->ret, str(@name[tid]));
    delete(@name[tid]);
}"#;

/// The same, of a cgroup that nothing runs in: what the workload pays that is none of its business.
const OPENS_ELSEWHERE: &str = r#"
tracepoint:syscalls:sys_enter_openat /cgroup == 0/ { @name[tid] = args->filename; }
tracepoint:syscalls:sys_exit_openat /@name[tid]/ {
    printf("%d %s %d %s\n", pid, comm, args->ret, str(@name[tid]));
    delete(@name[tid]);
}"#;

/// TCP connections of the cgroup alone, as they are established.
const CONNECTS: &str = r#"
tracepoint:sock:inet_sock_set_state /cgroup == cgroupid("{cgroup}") && args->newstate == 1/ {
    printf("%d %s %s %d\n", pid, comm, ntop(args->daddr), args->dport);
}"#;

/// Every peer. auditd is not among them: once it is enabled, the kernel builds audit records for
/// every later process until it is booted anew, so the rounds after it would measure it too.
pub(super) const PEERS: &[Peer] = &[
    Peer {
        name: "bpftrace opens",
        command: &["bpftrace", "-e", OPENS],
        ready: "Attaching",
    },
    Peer {
        name: "bpftrace opens, of others",
        command: &["bpftrace", "-e", OPENS_ELSEWHERE],
        ready: "Attaching",
    },
    Peer {
        name: "bpftrace connects",
        command: &["bpftrace", "-e", CONNECTS],
        ready: "Attaching",
    },
    Peer {
        name: "libbpf-tools opensnoop",
        command: &["stdbuf", "-oL", "opensnoop"],
        ready: "PID",
    },
    Peer {
        name: "libbpf-tools tcpconnect",
        command: &["stdbuf", "-oL", "tcpconnect"],
        ready: "PID",
    },
    Peer {
        name: "bcc opensnoop",
        command: &["/usr/bin/python3", "-u", "/usr/sbin/opensnoop-bpfcc"],
        ready: "PID",
    },
    Peer {
        name: "bcc tcpconnect",
        command: &["/usr/bin/python3", "-u", "/usr/sbin/tcpconnect-bpfcc"],
        ready: "PID",
    },
];

/// How long a peer may take to compile and attach.
const START: Duration = Duration::from_secs(30);
/// From its announcement to its last attachment.
const SETTLE: Duration = Duration::from_millis(700);
/// Mounts tracefs where nobody else sees it, then becomes the peer.
const WITH_TRACEFS: &str =
    "mountpoint -q /sys/kernel/tracing || mount -t tracefs none /sys/kernel/tracing; exec \"$@\"";

/// A running peer; ends with this.
pub(super) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Its programs are gone with its descriptors.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Peer {
    /// Starts it and waits until it is attached.
    ///
    /// # Errors
    /// Why it cannot run here, in its own words.
    pub(super) fn start(&self, cgroup: &Path) -> Result<Running, String> {
        let said = std::env::temp_dir().join(format!("keytrail-peer-{}", std::process::id()));
        let errors = File::create(&said).map_err(|e| e.to_string())?;
        let place = cgroup.display().to_string();
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", WITH_TRACEFS, "sh"])
            .args(
                self.command
                    .iter()
                    .map(|arg| arg.replace("{cgroup}", &place)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("cannot start it: {e}"))?;
        let out = child.stdout.take();
        let running = Running(child);
        let (tell, told) = sync_channel(1);
        let ready = self.ready;
        std::thread::spawn(move || {
            // Read to the end: a peer that waits for its reader would cost less than it does.
            for line in out.map(BufReader::new).into_iter().flat_map(BufRead::lines) {
                let Ok(line) = line else { return };
                if line.contains(ready) {
                    // Once is enough: a channel that is full or closed has been told before.
                    let _told = tell.try_send(());
                }
            }
        });
        let result = match told.recv_timeout(START) {
            Ok(()) => {
                std::thread::sleep(SETTLE);
                Ok(running)
            }
            Err(RecvTimeoutError::Timeout) => Err("it did not attach within half a minute".into()),
            Err(RecvTimeoutError::Disconnected) => {
                drop(running);
                let text = fs::read_to_string(&said).unwrap_or_default();
                let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
                let from = lines.len().saturating_sub(2);
                Err(lines.get(from..).unwrap_or_default().join("; "))
            }
        };
        drop(fs::remove_file(&said));
        result
    }
}
