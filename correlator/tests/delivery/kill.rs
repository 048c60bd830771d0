//! SIGKILL at any moment, on the real program: nothing that was acknowledged or lies in a file is
//! lost, nothing counts twice.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::line;

const TOKEN: &str = "made-up-token-made-up-token-0003";

pub struct Program {
    child: Child,
    push: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        // SIGKILL.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Program {
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// The same with variables in its environment.
    pub fn start_with(dir: &Path, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_correlator"))
            .arg("serve")
            .args([
                "--listen-ingest",
                "127.0.0.1:0",
                "--listen-api",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(dir.join("data"))
            .arg("--config")
            .arg(dir.join("keytrail.toml"))
            .env("KEYTRAIL_LOG", "error")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        Self {
            child,
            push: ready["push"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

/// A request; the status and the body, or nothing when the server died meanwhile.
fn send(address: &str, head: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .ok()?;
    let request = format!(
        "{head}\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// Records taken in, as the database says: every id once.
pub fn taken(data: &Path) -> u64 {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let store = rusqlite::Connection::open_with_flags(data.join("keytrail.db"), flags).unwrap();
    let count = store.query_row("SELECT count(*) FROM records", [], |row| {
        row.get::<_, i64>(0)
    });
    u64::try_from(count.unwrap()).unwrap()
}

/// Writes lines and rotates now and then, as a busy service does.
fn write_log(path: PathBuf, written: &AtomicU32, stop: &AtomicBool) {
    let mut rotation = 0;
    while !stop.load(Ordering::SeqCst) {
        let n = written.load(Ordering::SeqCst);
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        for n in n..n + 20 {
            file.write_all(line(&format!("tail-{n:06}")).as_bytes())
                .unwrap();
        }
        written.store(n + 20, Ordering::SeqCst);
        if n % 400 == 380 {
            rotation += 1;
            std::fs::rename(&path, path.with_extension(format!("log.{rotation}"))).unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Pushes records until told to stop; each is sent until it is acknowledged.
fn push(target: &Mutex<String>, acknowledged: &AtomicU32, stop: &AtomicBool) {
    let head = format!("POST /v1/push/edge HTTP/1.1\r\nauthorization: Bearer {TOKEN}");
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        let body: String = (n..n + 5).map(|n| line(&format!("push-{n:06}"))).collect();
        let address = target.lock().unwrap().clone();
        if send(&address, &head, &body).is_some_and(|(status, _)| status == 200) {
            n += 5;
            acknowledged.store(n, Ordering::SeqCst);
        } else {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn sigkill_loses_nothing_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let hash: String = Sha256::digest(TOKEN.as_bytes())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let config = format!(
        "listen_push = \"127.0.0.1:0\"\n\
         [[source]]\nname = \"vault\"\nkind = \"aws.cloudtrail\"\nvia = \"file-tail\"\npath = {log:?}\n\
         [[source]]\nname = \"edge\"\nkind = \"aws.cloudtrail\"\nvia = \"http\"\ntoken_sha256 = \"{hash}\"\n"
    );
    std::fs::write(dir.path().join("keytrail.toml"), config).unwrap();
    let (written, acknowledged) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (stop, target) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Mutex::new(String::new())),
    );
    let data = dir.path().join("data");
    let mut program = Program::start(dir.path());
    program.push.clone_into(&mut target.lock().unwrap());
    // What was rotated away before reading ever began is history, not loss: begin first.
    std::fs::write(&log, line("tail-first")).unwrap();
    let start = Instant::now();
    while taken(&data) < 1 {
        assert!(start.elapsed() < Duration::from_secs(20), "never begun");
        std::thread::sleep(Duration::from_millis(10));
    }
    let writer = {
        let (log, written, stop) = (log.clone(), Arc::clone(&written), Arc::clone(&stop));
        std::thread::spawn(move || write_log(log, &written, &stop))
    };
    let pusher = {
        let (target, acknowledged, stop) = (
            Arc::clone(&target),
            Arc::clone(&acknowledged),
            Arc::clone(&stop),
        );
        std::thread::spawn(move || push(&target, &acknowledged, &stop))
    };
    for round in 0..5 {
        std::thread::sleep(Duration::from_millis(300 + round * 130));
        drop(program);
        program = Program::start(dir.path());
        program.push.clone_into(&mut target.lock().unwrap());
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    pusher.join().unwrap();
    let expected = 1
        + u64::from(written.load(Ordering::SeqCst))
        + u64::from(acknowledged.load(Ordering::SeqCst));
    assert!(
        acknowledged.load(Ordering::SeqCst) > 0,
        "something was pushed"
    );
    let start = Instant::now();
    let mut last = 0;
    while start.elapsed() < Duration::from_secs(40) && last < expected {
        last = taken(&data);
        std::thread::sleep(Duration::from_millis(50));
    }
    // A push that died between the commit and the answer is in the store, too, and was sent again.
    let counts = (
        written.load(Ordering::SeqCst),
        acknowledged.load(Ordering::SeqCst),
    );
    assert_eq!(last, expected, "written and acknowledged: {counts:?}");
}
