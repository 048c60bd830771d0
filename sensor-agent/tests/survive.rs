//! The agent is killed, ended and started again while processes go on reading credentials and
//! connecting: with pins, every event is told exactly once, whoever was there to hear it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "test code: it fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keytrail_model::fact::{ExposureSource, Fact, TamperKind};
use keytrail_spool::{Item, Limits, Spool};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sensor_agent::kernel::preflight;

/// Counts as skipped, with its reason.
fn skip(why: &str) {
    println!("SKIPPED survive: {why}");
    if let Some(path) = std::env::var_os("KEYTRAIL_SKIPS") {
        let file = fs::OpenOptions::new().append(true).create(true).open(path);
        drop(file.and_then(|mut file| writeln!(file, "SKIPPED survive: {why}")));
    }
}

/// Folder, BPF file system and cgroup that go away with this.
struct Ground {
    dir: tempfile::TempDir,
    cgroup: PathBuf,
}

impl Ground {
    fn new(name: &str) -> Result<Self, String> {
        preflight::check().map_err(|error| error.to_string())?;
        let mounted = preflight::cgroup2_mount().map_err(|error| error.to_string())?;
        let dir = tempfile::tempdir().unwrap();
        let bpf = dir.path().join("bpf");
        fs::create_dir_all(&bpf).unwrap();
        let none: Option<&str> = None;
        mount(Some("bpf"), &bpf, Some("bpf"), MsFlags::empty(), none)
            .map_err(|error| format!("no BPF file system can be mounted: {error}"))?;
        let cgroup = mounted.join(format!("keytrail-{name}-{}", std::process::id()));
        fs::create_dir_all(&cgroup).unwrap();
        Ok(Self { dir, cgroup })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pins(&self) -> PathBuf {
        self.path("bpf/keytrail")
    }

    /// How many sets are pinned.
    fn sets(&self) -> usize {
        let scopes = fs::read_dir(self.pins()).into_iter().flatten();
        let sets = scopes.flat_map(|scope| fs::read_dir(scope.unwrap().path()).unwrap());
        sets.count()
    }

    fn credential(number: usize) -> String {
        // Base32 has no 0 and 1.
        let letters: String = format!("{number:04}")
            .bytes()
            .map(|digit| char::from(digit - b'0' + b'A'))
            .collect();
        format!("AKIA{letters}SURVIVETEST7")
    }

    fn file(&self, number: usize) -> PathBuf {
        self.path(&format!("files/f{number}/credentials"))
    }

    /// Makes the files, and a catalogue that watches them.
    fn files(&self, count: usize) {
        let mut catalogue = String::new();
        for number in 0..count {
            let file = self.file(number);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let text = format!(
                "[default]\naws_access_key_id = {}\n",
                Self::credential(number)
            );
            fs::write(&file, text).unwrap();
            let row = "format = \"aws-ini\"\nsource = \"this test\"\n";
            catalogue += &format!("[[file]]\npath = \"{}\"\n{row}", file.display());
        }
        fs::write(self.path("watch.toml"), catalogue).unwrap();
        fs::write(self.path("ca.pem"), "nobody is reached in this test\n").unwrap();
    }

    /// Starts an agent, and waits until it watches.
    fn agent(&self, extra: &str) -> Agent {
        let config = format!(
            "correlator = \"https://127.0.0.1:1\"\nca = \"{}\"\nstate_dir = \"{}\"\n\
             scope = \"cgroup:{}\"\npin_dir = \"{}\"\n{extra}\n[catalogues]\nwatch = [\"{}\"]\n",
            self.path("ca.pem").display(),
            self.path("state").display(),
            self.cgroup.display(),
            self.pins().display(),
            self.path("watch.toml").display(),
        );
        let file = self.path("sensor.toml");
        fs::write(&file, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sensor-agent"))
            .args(["run", "--config"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert!(line.contains("\"ready\":true"), "it did not start: {line}");
        Agent(child)
    }

    /// Every fact that is durable.
    fn facts(&self) -> Vec<Fact> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let boot: uuid::Uuid = boot.trim().parse().unwrap();
        let limits = Limits {
            max_bytes: 512 << 20,
        };
        let path = self.path("state/spool.db");
        let (mut spool, _) = Spool::open(&path, boot.into_bytes(), limits).unwrap();
        let epoch = spool.current().unwrap().no;
        let items = spool.read_some(epoch, 1, usize::MAX, usize::MAX).unwrap();
        let mut facts = Vec::new();
        for item in items {
            let Item::Block(block) = item else {
                panic!("{item:?}")
            };
            for record in keytrail_spool::records(&block.zstd, block.raw_bytes).unwrap() {
                facts.push(keytrail_proto::block::decode_fact(&record).unwrap().1);
            }
        }
        facts
    }

    /// A process in the scope that runs this script with these arguments.
    fn actor(&self, script: &str, args: &[&str]) -> Child {
        let enter = format!("echo $$ > {}/cgroup.procs; {script}", self.cgroup.display());
        Command::new("/bin/bash")
            .args(["-c", &enter, "actor"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        drop(sensor_agent::kernel::pins::unpin(&self.pins()));
        let _gone_already = umount2(&self.path("bpf"), MntFlags::MNT_DETACH);
        for _ in 0..50 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

struct Agent(Child);

impl Agent {
    fn end(mut self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(pid, signal).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Reads a credential, connects, ends.
const VISIT: &str = "read -r x < \"$1\"; exec 3<>/dev/tcp/127.0.0.1/$2";
/// The same in two steps, each after a word, and the second by a child of its own.
const LINGER: &str = "read -r x < \"$1\"; echo read; read -r go; \
                      (exec 3<>/dev/tcp/127.0.0.1/$2); echo done";

fn visits(ground: &Ground, numbers: std::ops::Range<usize>, port: &str) {
    for number in numbers {
        let file = ground.file(number);
        let mut actor = ground.actor(VISIT, &[&file.display().to_string(), port]);
        assert!(actor.wait().unwrap().success());
    }
}

fn tally<T: Ord>(of: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut tally = BTreeMap::new();
    for one in of {
        *tally.entry(one).or_default() += 1;
    }
    tally
}

#[test]
fn a_killed_agent_misses_nothing() {
    const VISITS: usize = 60;
    let ground = match Ground::new("survive") {
        Ok(ground) => ground,
        Err(why) => return skip(&why),
    };
    ground.files(VISITS + 1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || while listener.accept().is_ok() {});
    let text = port.to_string();

    let first = ground.agent("");
    let lingering = ground.file(VISITS);
    let mut linger = ground.actor(LINGER, &[&lingering.display().to_string(), &text]);
    let mut said = BufReader::new(linger.stdout.take().unwrap());
    let mut word = String::new();
    said.read_line(&mut word).unwrap();
    visits(&ground, 0..5, &text);
    // Long enough for what the agent knows to be written; the rest happens while it is being killed.
    std::thread::sleep(Duration::from_secs(2));
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| visits(&ground, 5..25, &text));
        std::thread::sleep(Duration::from_millis(60));
        first.end(Signal::SIGKILL);
        busy.join().unwrap();
    });
    // Known to the first agent, connects while there is none, and is gone before the second comes.
    linger.stdin.take().unwrap().write_all(b"go\n").unwrap();
    said.read_to_string(&mut word).unwrap();
    linger.wait().unwrap();
    visits(&ground, 25..35, &text);

    let second = ground.agent("");
    visits(&ground, 35..40, &text);
    second.end(Signal::SIGTERM);
    visits(&ground, 40..50, &text);

    // Other programs than the ones that are pinned (a plan that is asked for counts as others): the
    // old ones go on until the new ones are live.
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| visits(&ground, 50..VISITS, &text));
        let third = ground.agent("plan = \"b\"");
        busy.join().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(ground.sets(), 1, "the old set is gone");
        third.end(Signal::SIGINT);
    });
    let left = fs::read_dir(ground.pins()).map_or(0, Iterator::count);
    assert_eq!(left, 0, "the last end leaves nothing pinned");

    check(&ground.facts(), VISITS, port);
}

/// Every visit is told once: its credential, its connection, both of the same unit.
fn check(facts: &[Fact], visits: usize, port: u16) {
    let mut readers = BTreeMap::new();
    let exposed = tally(facts.iter().filter_map(|fact| match fact {
        Fact::Exposure(e) if matches!(e.source, ExposureSource::File { .. }) => {
            readers.insert(e.credential.to_string(), e.actor.unit);
            Some(e.credential.to_string())
        }
        _ => None,
    }));
    let connected = tally(facts.iter().filter_map(|fact| match fact {
        Fact::ConnectionOpened(c) if c.remote.port() == port => Some(c.unit),
        _ => None,
    }));
    let closed = facts
        .iter()
        .filter(|fact| matches!(fact, Fact::ConnectionClosed(_)))
        .count();
    for number in 0..=visits {
        let credential = format!("aws-access-key:{}", Ground::credential(number));
        assert_eq!(exposed.get(&credential), Some(&1), "{credential}");
        let unit = readers[&credential];
        assert_eq!(connected.get(&unit), Some(&1), "visit {number} of {unit:?}");
    }
    assert_eq!(exposed.len(), visits + 1);
    assert_eq!(connected.len(), visits + 1);
    assert_eq!(closed, visits + 1, "connections ended");
    let gaps: Vec<_> = facts
        .iter()
        .filter(|fact| matches!(fact, Fact::Gap(_)))
        .collect();
    assert!(gaps.is_empty(), "{gaps:?}");
    let killed = facts
        .iter()
        .filter(|fact| matches!(fact, Fact::Tampering(t) if t.what == TamperKind::AgentStopped));
    assert_eq!(killed.count(), 1, "the kill is told, the restart is not");
}

/// Somebody takes a pin away, and one who is not to be missed.
#[test]
fn a_pin_that_is_removed_is_told() {
    let ground = match Ground::new("pins") {
        Ok(ground) => ground,
        Err(why) => return skip(&why),
    };
    ground.files(1);
    let agent = ground.agent("canary_seconds = 1");
    let scope = fs::read_dir(ground.pins())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let set = fs::read_dir(scope.path()).unwrap().next().unwrap().unwrap();
    fs::remove_file(set.path().join("links/process_exit")).unwrap();
    std::thread::sleep(Duration::from_secs(6));
    agent.end(Signal::SIGINT);
    let facts = ground.facts();
    let told: Vec<_> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Tampering(t) => Some((t.what, t.detail.contains("process_exit"))),
            _ => None,
        })
        .collect();
    // The agent holds the link itself: while it runs, the program is not silent.
    assert_eq!(told, [(TamperKind::PinRemoved, true)]);
}

/// Without pins the same ends in a gap.
#[test]
fn what_is_not_pinned_is_a_gap() {
    let ground = match Ground::new("gap") {
        Ok(ground) => ground,
        Err(why) => return skip(&why),
    };
    ground.files(1);
    // Not a BPF file system: told, and gone on without.
    fs::create_dir_all(ground.path("plain")).unwrap();
    umount2(&ground.path("bpf"), MntFlags::MNT_DETACH).unwrap();
    let first = ground.agent("");
    let until = Instant::now() + Duration::from_secs(10);
    while !Path::new(&ground.path("state/watched-until")).exists() {
        assert!(Instant::now() < until, "nothing was noted");
        std::thread::sleep(Duration::from_millis(100));
    }
    first.end(Signal::SIGKILL);
    let second = ground.agent("");
    second.end(Signal::SIGTERM);
    let gaps = ground.facts();
    let gaps = gaps.iter().filter(|fact| matches!(fact, Fact::Gap(_)));
    assert_eq!(gaps.count(), 1);
}
