//! The real sensor where it cannot work, or is not let in: each gives one clear line that says what
//! to do, and nothing stays in the kernel.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program fails by panicking, its helpers too"
)]

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use keytrail_pki::ca::{Ca, Validity};
use keytrail_pki::identity::HostIdentity;
use keytrail_pki::request::KeyRequest;
use keytrail_tests::lab::cgroup::Slice;
use keytrail_tests::lab::child::{Proc, wait_for};
use keytrail_tests::probe;
use keytrail_tests::product::{Correlator, Enrolment, Programs, Sensor};

const DEMO: &str = env!("CARGO_BIN_EXE_demo");
const DAY: i64 = 86_400;

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A place where the sensor cannot work: how to get there (a shell script that ends in the sensor's
/// command line), and what the sensor must say.
struct Place {
    name: &'static str,
    script: &'static str,
    says: &'static [&'static str],
}

const PLACES: &[Place] = &[
    Place {
        name: "without the rights to load BPF",
        script: r#"exec setpriv --bounding-set=-all --inh-caps=-all "$@""#,
        says: &["CAP_BPF", "run it as root, or give"],
    },
    Place {
        name: "in a container's pid namespace",
        script: r#"exec unshare --pid --fork --mount-proc "$@""#,
        says: &["pid namespace", "--pid=host"],
    },
    Place {
        name: "on a kernel without BTF",
        script: r#"exec unshare --mount sh -c 'mount -t tmpfs none /sys/kernel/btf && exec "$@"' sh "$@""#,
        says: &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"],
    },
    Place {
        name: "without cgroup v2",
        script: r#"exec unshare --mount sh -c 'umount -l "$(awk "\$3==\"cgroup2\"{print \$2; exit}" /proc/self/mounts)" && exec "$@"' sh "$@""#,
        says: &["no cgroup v2", "mount -t cgroup2"],
    },
];

#[test]
fn where_the_sensor_cannot_work_it_says_why_in_one_line() {
    let name = "where_the_sensor_cannot_work_it_says_why_in_one_line";
    let Some(programs) = probe::sensor(name, DEMO) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let slice = Slice::new().unwrap();
    let scope = slice.group("refused").unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, "not read before the kernel has been asked").unwrap();
    let enrolment = Enrolment {
        ca,
        token: dir.path().join("no-token"),
    };
    for place in PLACES {
        let sensor = Sensor::command(
            &programs,
            "127.0.0.1:9",
            &enrolment,
            &dir.path().join("state"),
            &scope,
        );
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", place.script, "sh"]);
        shell.arg(sensor.get_program()).args(sensor.get_args());
        let out = shell.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let errors: Vec<&str> = said.lines().filter(|l| l.contains("ERROR")).collect();
        assert!(!out.status.success(), "{}: it went on: {said}", place.name);
        let [line] = errors.as_slice() else {
            panic!("{}: {} error lines: {said}", place.name, errors.len());
        };
        for words in place.says {
            assert!(
                line.contains(words),
                "{}: no `{words}` in: {line}",
                place.name
            );
        }
    }
}

/// What `/proc/PID/task/*/status` says of a process's rights, over all its threads.
fn rights(pid: u32, set: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut found: Vec<String> = tasks
        .map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .filter_map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix(set));
            line.map(|rest| rest.trim().to_owned())
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn once_loaded_the_sensor_keeps_only_the_right_to_read() {
    let name = "once_loaded_the_sensor_keeps_only_the_right_to_read";
    let Some(programs) = probe::sensor(name, DEMO) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let slice = Slice::new().unwrap();
    let correlator = Correlator::start(&programs, dir.path()).unwrap();
    let scope = slice.group("rights").unwrap();
    let mut sensor = Sensor::start(&programs, &correlator, dir.path(), &scope).unwrap();
    // CAP_DAC_READ_SEARCH (2), CAP_KILL (5), CAP_SETGID (6), CAP_SETUID (7), CAP_SYS_PTRACE (19), in
    // every thread and for good.
    let kept = format!("{:016x}", 1_u64 << 2 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 19);
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(rights(sensor.id(), set), [kept.as_str()], "{set}");
    }
    assert_eq!(rights(sensor.id(), "CapInh:"), ["0000000000000000"]);
    assert_eq!(rights(sensor.id(), "NoNewPrivs:"), ["1"]);
    sensor.stop().unwrap();
}

/// An identity as the authority in `pki` would have given it at `from_unix` for a day.
fn plant(state: &Path, pki: &Path, from_unix: i64) {
    let ca = Ca::load_or_create(pki, now()).unwrap();
    let request = KeyRequest::generate().unwrap();
    let identity = HostIdentity {
        tenant: "default".to_owned(),
        host: "laptop-1".to_owned(),
    };
    let validity = Validity::days(from_unix, 1);
    let chain = ca
        .certify_host(request.csr_pem(), &identity, validity)
        .unwrap();
    fs::create_dir_all(state).unwrap();
    let mut open = fs::OpenOptions::new();
    let file = open.write(true).create(true).truncate(true).mode(0o600);
    let mut file = file.open(state.join("identity.pem")).unwrap();
    std::io::Write::write_all(
        &mut file,
        format!("{}{chain}", request.key_pem()).as_bytes(),
    )
    .unwrap();
}

/// A sensor with a state folder and an enrolment of its own.
struct Case<'a> {
    programs: &'a Programs,
    correlator: &'a Correlator,
    dir: PathBuf,
    scope: PathBuf,
}

impl Case<'_> {
    /// Runs the sensor until its log has a line with every word, and returns that line and the
    /// whole log. It must live on.
    fn until_logged(&self, enrolment: &Enrolment, words: &[&str]) -> String {
        fs::create_dir_all(&self.dir).unwrap();
        let log = self.dir.join("sensor.log");
        let state = self.dir.join("sensor");
        let ingest = &self.correlator.ingest;
        let command = Sensor::command(self.programs, ingest, enrolment, &state, &self.scope);
        let mut proc = Proc::start_logged("sensor-agent", command, "", Some(&log)).unwrap();
        proc.ready(Duration::from_mins(3)).unwrap();
        let read = || fs::read_to_string(&log).unwrap_or_default();
        let found = wait_for("the sensor's line", Duration::from_mins(1), || {
            let hit = |line: &&str| words.iter().all(|word| line.contains(word));
            Ok(read().lines().find(hit).map(str::to_owned))
        });
        let line = found.unwrap_or_else(|e| panic!("no line with {words:?}: {e:#}\n{}", read()));
        assert!(proc.ended().unwrap().is_none(), "it ended:\n{}", read());
        proc.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = proc.finish(Duration::from_mins(1)).unwrap();
        assert!(status.success(), "{status}:\n{}", read());
        line
    }
}

#[test]
fn a_sensor_that_is_not_let_in_says_why_and_goes_on_watching() {
    let name = "a_sensor_that_is_not_let_in_says_why_and_goes_on_watching";
    let Some(programs) = probe::sensor(name, DEMO) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let slice = Slice::new().unwrap();
    let mut correlator = Correlator::start(&programs, dir.path()).unwrap();
    let own = correlator.data.join("pki");
    let strange = dir.path().join("another-pki");
    Ca::load_or_create(&strange, now()).unwrap();
    let good = Enrolment {
        ca: correlator.enrol_file("ca.pem"),
        token: correlator.enrol_file("join-token"),
    };
    let case = |name: &str| Case {
        programs: &programs,
        correlator: &correlator,
        dir: dir.path().join(name),
        scope: slice.group(name).unwrap(),
    };
    let counted = |counter: &str| correlator.counter(counter).unwrap();

    // An expired certificate and no token: it says so once, and keeps its facts.
    let expired = case("expired");
    plant(&expired.dir.join("sensor"), &own, now() - 3 * DAY);
    let no_token = Enrolment {
        token: dir.path().join("none"),
        ..good.clone()
    };
    let words = ["its certificate has expired", "ask the correlator for one"];
    expired.until_logged(&no_token, &words);
    // With a token it mends that itself; so it does with one of another authority.
    expired.until_logged(&good, &["enrolled host="]);
    let foreign = case("foreign");
    plant(&foreign.dir.join("sensor"), &strange, now());
    foreign.until_logged(&good, &["enrolled host="]);

    // It expects another authority than the correlator's.
    let misled = case("misled");
    let before = counted("sensor_handshakes_failed");
    let wrong = Enrolment {
        ca: strange.join("ca.crt"),
        ..good.clone()
    };
    misled.until_logged(&wrong, &["another CA"]);
    wait_for("the count", Duration::from_mins(1), || {
        Ok((counted("sensor_handshakes_failed") > before).then_some(()))
    })
    .unwrap();
    assert!(correlator.is_running().unwrap());
    correlator.stop().unwrap();
}
