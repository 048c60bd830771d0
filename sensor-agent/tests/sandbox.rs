//! The parsing process, as the built agent starts it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sensor_agent::credentials::{FileFormat, Form, Hasher, Recogniser, Sandbox, TokenCatalogue};

fn agent() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sensor-agent"))
}

fn file(text: &str) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// An empty folder that nobody may enter.
fn empty() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    dir
}

const TEXT: &str =
    "DB_PASSWORD=s3cr3t-made-up\nAWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE\nOWN=corp-12345678\n";
const OWN: &str = "[[pattern]]\ntype='corp-token'\nregex='corp-[0-9]{8}'\nsource='the user'\n";

#[test]
fn the_child_finds_what_the_agent_would_and_is_held() {
    let root = empty();
    let hasher = Hasher::new(&[7; 32], true);
    let own = vec![("own.toml".to_owned(), OWN.to_owned())];
    let sandbox = Sandbox::new(agent(), root.path().to_owned(), own, &hasher);
    let layers = sandbox.probe().unwrap();
    println!("missing here: {:?}", layers.missing());
    assert!(layers.limited && layers.unprivileged);
    let form = Form::from(FileFormat::Dotenv);
    let path = Path::new("/home/ada/.env");
    let found = sandbox.identify(&form, path, &file(TEXT)).unwrap();
    let mut tokens = TokenCatalogue::builtin().unwrap();
    tokens.add("own.toml", OWN).unwrap();
    let here = Recogniser::new(tokens, hasher).identify_file(&form, path, TEXT.as_bytes());
    assert_eq!(found, here);
    assert_eq!(found.found.len(), 3);
    assert!(!format!("{found:?}").contains("s3cr3t"));
    // A file that is too long is cut, not refused.
    let long = format!("{TEXT}{}", "x".repeat(3 << 20));
    assert_eq!(
        sandbox
            .identify(&form, path, &file(&long))
            .unwrap()
            .found
            .len(),
        3
    );
    assert_eq!(sandbox.counters().parsed, 2);
}

#[test]
fn as_root_the_child_can_do_nothing_else() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED as_root_the_child_can_do_nothing_else: not root");
        return;
    }
    let root = empty();
    let sandbox = Sandbox::new(
        agent(),
        root.path().to_owned(),
        Vec::new(),
        &Hasher::ephemeral(),
    );
    let layers = sandbox.probe().unwrap();
    if !layers.missing().is_empty() {
        println!(
            "SKIPPED as_root_the_child_can_do_nothing_else: no {:?} here",
            layers.missing()
        );
        return;
    }
    let pid = sandbox.pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap().trim().to_owned()
    };
    assert_eq!(line("Uid:"), "65534\t65534\t65534\t65534");
    assert_eq!(line("CapEff:"), "0000000000000000");
    assert_eq!(line("CapPrm:"), "0000000000000000");
    assert_eq!(line("NoNewPrivs:"), "1");
    let links = |what: &str, pid: &str| std::fs::read_link(format!("/proc/{pid}/{what}")).unwrap();
    assert_eq!(
        links("root", &pid.to_string()),
        root.path().canonicalize().unwrap()
    );
    assert_ne!(links("ns/net", &pid.to_string()), links("ns/net", "self"));
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert!(
        limits
            .lines()
            .any(|l| l.starts_with("Max processes") && l.contains(" 0 ")),
        "{limits}"
    );
}

#[test]
fn a_child_that_dies_is_replaced_and_a_wrong_one_is_given_up() {
    let root = empty();
    let hasher = Hasher::ephemeral();
    let sandbox = Sandbox::new(agent(), root.path().to_owned(), Vec::new(), &hasher);
    sandbox.probe().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(sandbox.pid().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let form = Form::from(FileFormat::Dotenv);
    let path = Path::new("/x");
    assert!(
        sandbox.identify(&form, path, &file(TEXT)).is_none(),
        "the caller parses this one"
    );
    assert!(
        sandbox.identify(&form, path, &file(TEXT)).is_some(),
        "a new child parses the next"
    );
    let counters = sandbox.counters();
    assert_eq!(
        (counters.parsed, counters.in_process, counters.restarts),
        (1, 1, 1)
    );

    let wrong = Sandbox::new(
        PathBuf::from("/bin/true"),
        root.path().to_owned(),
        Vec::new(),
        &hasher,
    );
    for _ in 0..8 {
        assert!(wrong.identify(&form, path, &file(TEXT)).is_none());
    }
    assert_eq!(wrong.counters().in_process, 8);
    assert!(
        wrong
            .probe()
            .unwrap_err()
            .to_string()
            .contains("parsed in the agent")
    );
}
