//! Recorded process trees: cases are files in `tests/data/trees`; see the README there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::*;
use crate::tree::{FdKind, RawArgv, SecretEnv};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    #[serde(rename = "source")]
    _source: String,
    #[serde(default)]
    files: BTreeMap<String, String>,
    exec: Vec<Exec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exec {
    pid: u32,
    parent: u32,
    sid: u32,
    /// `tty`, `pipes`, `sockets` (to the parent), `null` (shell tool), `inherit`.
    stdio: String,
    exe: String,
    argv: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    cwd: Option<String>,
    /// It ends right after.
    #[serde(default)]
    exits: bool,
}

fn key(pid: u32) -> ProcessKey {
    ProcessKey {
        pid,
        start_ns: u64::from(pid) * 1_000_000_007,
    }
}

fn info(exec: &Exec, root: &str) -> ExecInfo {
    let here = |text: &str| text.replace("ROOT", root);
    let base = u64::from(exec.pid) * 10;
    let (stdin, stdout) = match exec.stdio.as_str() {
        "pipes" => (FdKind::Pipe(base), FdKind::Pipe(base + 1)),
        "sockets" => (FdKind::Socket(base), FdKind::Socket(base + 1)),
        "null" => (FdKind::Null, FdKind::Pipe(base + 1)),
        "inherit" => {
            let base = u64::from(exec.parent) * 10;
            (FdKind::Pipe(base), FdKind::Pipe(base + 1))
        }
        "tty" => (FdKind::Terminal, FdKind::Terminal),
        other => panic!("stdio `{other}`"),
    };
    let mut block = format!("HOME={root}\0").into_bytes();
    for (name, value) in &exec.env {
        block.extend(format!("{name}={}\0", here(value)).bytes());
    }
    ExecInfo {
        key: key(exec.pid),
        parent: Some(key(exec.parent)),
        sid: Some(exec.sid),
        pgid: Some(exec.sid),
        exe: PathBuf::from(here(&exec.exe)),
        exe_id: None,
        argv: RawArgv::new(exec.argv.iter().map(|a| here(a)).collect()),
        env: SecretEnv::new(block),
        cwd: Some(PathBuf::from(here(exec.cwd.as_deref().unwrap_or("ROOT")))),
        stdin,
        stdout,
        uid: 1000,
        login_uid: Some(1000),
        cgroup: None,
        view: FsView::host(),
        started: Timestamp::UNIX_EPOCH,
    }
}

/// One line for each exec: who that is.
fn shown(identity: &Identity, pid: u32, root: &str) -> String {
    let Some(actor) = identity.actor_for(key(pid)) else {
        return format!("{pid} nobody");
    };
    let mut line = format!("{pid} {:?} {}", actor.unit_kind, actor.unit.pid);
    if let Some(agent) = &actor.agent {
        let version = agent.version.as_deref().unwrap_or("?");
        line += &format!(
            " of {}@{version} ({:?}) {}",
            agent.product, agent.confidence, agent.root.pid
        );
    }
    if let Some(server) = &actor.mcp_server {
        let config = server.config.as_deref().unwrap_or("-").replace(root, "~");
        line += &format!(
            " server {} in {config} ({}) package {}",
            server.name.as_deref().unwrap_or("(unlisted)"),
            server.scope.as_deref().unwrap_or("-"),
            server
                .package
                .as_ref()
                .map_or("-".to_owned(), |p| format!("{}:{p}", p.ecosystem)),
        );
    }
    line
}

fn replay(tree: &Tree, root: &Path) -> String {
    for (path, text) in &tree.files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = text.replace("ROOT", &root.to_string_lossy());
        match text.strip_prefix("-> ") {
            Some(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
            None => std::fs::write(&path, text).unwrap(),
        }
    }
    let root = root.to_string_lossy().into_owned();
    let people = People::parse("ada:x:1000:1000::/home/ada:/bin/sh\n");
    let mut identity = Identity::new(Knowledge::builtin().unwrap(), people, TreeLimits::default());
    let mut lines = String::new();
    for exec in &tree.exec {
        let placed = identity.on_exec(&info(exec, &root));
        lines += &match placed {
            Some(_) => shown(&identity, exec.pid, &root),
            None => format!("{} nobody", exec.pid),
        };
        lines.push('\n');
        if exec.exits {
            identity.on_exit(key(exec.pid));
        }
    }
    // What was learned later counts for all: the first process once more, at the end.
    lines += &format!(
        "in the end: {}\n",
        shown(&identity, tree.exec[0].pid, &root)
    );
    lines
}

#[test]
fn every_recorded_tree_is_recognised() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/trees");
    let mut cases = 0;
    let mut wrong = String::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let tree: Tree = toml::from_str(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let home = tempfile::tempdir().unwrap();
        let found = replay(&tree, &home.path().canonicalize().unwrap());
        let expected = path.with_extension("expect");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&expected, &found).unwrap();
        }
        let wanted = std::fs::read_to_string(&expected).unwrap_or_default();
        if found != wanted {
            wrong += &format!("{}: found\n{found}expected\n{wanted}\n", path.display());
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cases >= 40, "{cases} trees in {}", dir.display());
}
