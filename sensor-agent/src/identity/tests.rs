//! A made-up home with the files that real installs have, and the execs that were recorded.

use std::path::PathBuf;

use keytrail_model::credential::CredentialKind;

use super::*;
use crate::tree::{FdKind, RawArgv, SecretEnv};

struct Host {
    dir: tempfile::TempDir,
    identity: Identity,
}

fn key(pid: u32) -> ProcessKey {
    ProcessKey {
        pid,
        start_ns: u64::from(pid) * 1_000_000_007,
    }
}

impl Host {
    fn new(files: &[(&str, &str)]) -> Self {
        let knowledge = Knowledge::builtin().unwrap();
        let people = People::parse("ada:x:1000:1000::/home/ada:/bin/sh\n");
        let identity = Identity::new(knowledge, people, TreeLimits::default());
        let host = Self {
            dir: tempfile::tempdir().unwrap(),
            identity,
        };
        for (path, text) in files {
            let path = host.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        host
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(relative)
    }

    fn root(&self) -> String {
        self.path("")
            .to_string_lossy()
            .trim_end_matches('/')
            .to_owned()
    }

    /// `stdio`: `pipes` (to the parent), `null`, `tty`.
    fn info(
        &self,
        pid: u32,
        parent: u32,
        sid: u32,
        stdio: &str,
        exe: &str,
        line: &str,
    ) -> ExecInfo {
        let argv = line
            .split(' ')
            .map(|w| w.replace("ROOT", &self.root()))
            .collect();
        let (stdin, stdout) = match stdio {
            "pipes" => (
                FdKind::Pipe(u64::from(pid) * 10),
                FdKind::Pipe(u64::from(pid) * 10 + 1),
            ),
            "null" => (FdKind::Null, FdKind::Pipe(u64::from(pid) * 10 + 1)),
            _ => (FdKind::Terminal, FdKind::Terminal),
        };
        let home = format!(
            "HOME={}\0GITHUB_TOKEN=0123456789abcdef0123456789abcdef01234567\0",
            self.root()
        );
        ExecInfo {
            key: key(pid),
            parent: Some(key(parent)),
            sid: Some(sid),
            pgid: Some(sid),
            exe: PathBuf::from(exe.replace("ROOT", &self.root())),
            exe_id: None,
            argv: RawArgv::new(argv),
            env: SecretEnv::new(home.into_bytes()),
            cwd: Some(self.path("")),
            stdin,
            stdout,
            uid: 1000,
            login_uid: Some(1000),
            cgroup: None,
            view: FsView::host(),
            started: Timestamp::UNIX_EPOCH,
        }
    }

    fn exec(&mut self, info: &ExecInfo) -> String {
        match self.identity.on_exec(info) {
            Some(placed) => format!("{:?} {}", placed.kind, placed.unit.pid),
            None => "untracked".to_owned(),
        }
    }
}

const CODEX: &str = "n/node_modules/@openai/codex";
const NPX: &str = ".npm/_npx/5b2dd62b9d0bddd4/node_modules/@m/server-files";

fn codex_host() -> Host {
    let codex = format!("{CODEX}/package.json");
    let vendor = "n/node_modules/@openai/codex-linux-x64";
    Host::new(&[
        (
            &codex,
            r#"{"name":"@openai/codex","version":"0.169.0","bin":{"codex":"bin/codex.js"}}"#,
        ),
        (&format!("{CODEX}/bin/codex.js"), ""),
        (
            &format!("{vendor}/package.json"),
            r#"{"name":"@openai/codex","version":"0.169.0-linux-x64"}"#,
        ),
        (&format!("{vendor}/vendor/x/bin/codex"), ""),
        (
            ".codex/config.toml",
            "[mcp_servers.files]\ncommand='npx'\nargs=['-y','@m/server-files']\n",
        ),
        (
            &format!("{NPX}/package.json"),
            r#"{"name":"@m/server-files","version":"1.4.2","bin":{"sf":"i.js"}}"#,
        ),
        (&format!("{NPX}/i.js"), ""),
        (
            "esbuild/package.json",
            r#"{"name":"esbuild","version":"9.9.9"}"#,
        ),
        ("esbuild/install.js", ""),
        (
            ".aws/credentials",
            "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n",
        ),
    ])
}

fn start_codex(host: &mut Host) {
    let wrapper = host.info(
        10,
        1,
        5,
        "tty",
        "/usr/bin/node",
        &format!("node ROOT/{CODEX}/bin/codex.js exec hi"),
    );
    assert_eq!(host.exec(&wrapper), "Agent 10");
    let exe = "ROOT/n/node_modules/@openai/codex-linux-x64/vendor/x/bin/codex";
    let native = host.info(11, 10, 5, "tty", exe, "codex exec hi");
    assert_eq!(
        host.exec(&native),
        "Agent 10",
        "the wrapper and the executable are one session"
    );
}

fn start_server(host: &mut Host) {
    for (pid, parent, exe, line) in [
        (
            20,
            11,
            "/usr/bin/env",
            "/usr/bin/env node /usr/bin/npx -y @m/server-files",
        ),
        (
            20,
            11,
            "/usr/bin/node",
            "node /usr/bin/npx -y @m/server-files",
        ),
        (21, 20, "/usr/bin/node", "node ROOT/esbuild/install.js"),
        (22, 20, "/bin/dash", "sh -c server-files"),
        (23, 22, "/usr/bin/node", &format!("node ROOT/{NPX}/i.js")),
    ] {
        let info = host.info(pid, parent, 5, "pipes", exe, line);
        assert_eq!(host.exec(&info), "McpServer 20", "{line}");
    }
}

#[test]
fn an_mcp_server_is_named_with_its_package_and_agent() {
    let mut host = codex_host();
    start_codex(&mut host);
    start_server(&mut host);
    let actor = host.identity.actor_for(key(23)).unwrap();
    let agent = actor.agent.as_ref().unwrap();
    assert_eq!(
        (agent.product.as_str(), agent.version.as_deref()),
        ("codex-cli", Some("0.169.0"))
    );
    assert_eq!(agent.root, key(10));
    let server = actor.mcp_server.as_ref().unwrap();
    assert_eq!(server.name.as_deref(), Some("files"));
    assert_eq!(server.scope.as_deref(), Some("user"));
    assert_eq!(
        server.config.as_deref(),
        host.path(".codex/config.toml").to_str()
    );
    assert_eq!(
        server.package.as_ref().unwrap().to_string(),
        "@m/server-files@1.4.2"
    );
    assert_eq!(actor.user.unwrap().name.as_deref(), Some("ada"));
    let lineage: Vec<u32> = actor.lineage.iter().map(|p| p.key.pid).collect();
    assert_eq!(lineage, [23, 22, 20, 11, 10]);
}

#[test]
fn a_shell_tool_command_is_its_own_unit_even_when_it_runs_a_listed_server() {
    let mut host = codex_host();
    start_codex(&mut host);
    let bash = host.info(30, 11, 30, "null", "/bin/bash", "/bin/bash -c ls");
    assert_eq!(host.exec(&bash), "ShellTool 30");
    let npx = host.info(
        31,
        30,
        30,
        "null",
        "/usr/bin/node",
        "node /usr/bin/npx -y @m/server-files",
    );
    assert_eq!(host.exec(&npx), "ShellTool 30");
    assert!(
        host.identity
            .on_fork(key(31), key(32), Timestamp::UNIX_EPOCH)
    );
    assert_eq!(
        host.identity.unit_of(key(32)),
        Some((key(30), UnitKind::ShellTool))
    );
    let git = host.info(33, 11, 5, "pipes", "/usr/bin/git", "git status");
    assert_eq!(host.exec(&git), "Agent 10");
    // A second session of the product inside a shell command is a session of its own.
    let nested = host.info(
        34,
        30,
        30,
        "null",
        "/usr/bin/node",
        &format!("node ROOT/{CODEX}/bin/codex.js"),
    );
    assert_eq!(host.exec(&nested), "Agent 34");
}

#[test]
fn an_unlisted_server_has_no_name_but_a_package() {
    let mut host = codex_host();
    start_codex(&mut host);
    let rogue = host.info(
        40,
        11,
        5,
        "pipes",
        "/usr/bin/node",
        "node ROOT/esbuild/install.js",
    );
    assert_eq!(host.exec(&rogue), "McpServer 40");
    let server = host
        .identity
        .actor_for(key(40))
        .unwrap()
        .mcp_server
        .unwrap();
    assert_eq!(
        (server.name, server.package.unwrap().to_string()),
        (None, "esbuild@9.9.9".to_owned())
    );
}

#[test]
fn processes_of_nobody_are_left_alone_and_clients_are_followed() {
    let mut host = codex_host();
    let script = host.info(
        50,
        1,
        50,
        "tty",
        "/usr/bin/node",
        "node ROOT/esbuild/install.js",
    );
    assert_eq!(host.exec(&script), "untracked");
    assert!(
        !host
            .identity
            .on_fork(key(50), key(51), Timestamp::UNIX_EPOCH)
    );
    let aws = host.info(52, 1, 52, "tty", "/usr/bin/aws", "aws s3 ls");
    assert_eq!(host.exec(&aws), "Other 52");
    assert_eq!(host.identity.actor_for(key(52)).unwrap().agent, None);
    let adopted = host.identity.adopt(&script).unwrap();
    assert_eq!((adopted.kind, adopted.unit), (UnitKind::Other, key(50)));
}

#[test]
fn exposures_say_who_holds_what_and_never_the_secret() {
    let mut host = codex_host();
    start_codex(&mut host);
    start_server(&mut host);
    let leaf = host.info(
        23,
        22,
        5,
        "pipes",
        "/usr/bin/node",
        &format!("node ROOT/{NPX}/i.js"),
    );
    let held = host.identity.environment_exposures(&leaf);
    assert_eq!(held.len(), 1);
    assert!(
        held[0].unexpected_reader,
        "the configuration does not grant it"
    );
    assert_eq!(held[0].credential.kind(), CredentialKind::GithubToken);
    assert!(
        host.identity.environment_exposures(&leaf).is_empty(),
        "once per unit"
    );

    let vars = host.identity.places(&leaf);
    let targets = host
        .identity
        .knowledge()
        .watch
        .home_targets(&FsView::host(), &vars);
    let target = targets
        .iter()
        .find(|t| t.path.ends_with(".aws/credentials"))
        .unwrap();
    let read = |pid| {
        let id = target.id.unwrap();
        let read = host
            .identity
            .read_target(&FsView::host(), target, id, i128::MAX)
            .unwrap();
        host.identity.file_exposures(key(pid), target, id, read)
    };
    let exposure = &read(23).exposures[0];
    assert_eq!(
        exposure.credential.to_string(),
        "aws-access-key:AKIAIOSFODNN7EXAMPLE"
    );
    assert!(exposure.unexpected_reader);
    assert_eq!(exposure.actor.unit, key(20));
    assert!(read(999).exposures.is_empty(), "an untracked process");
    assert!(!format!("{held:?}").contains("0123456789abcdef0123456789abcdef01234567"));
}

#[test]
fn a_unit_is_forgotten_with_its_last_process() {
    let mut host = codex_host();
    host.identity.tree = ProcessTree::new(TreeLimits {
        live: 10,
        exited: 0,
    });
    start_codex(&mut host);
    let bash = host.info(30, 11, 30, "null", "/bin/bash", "/bin/bash -c ls");
    host.exec(&bash);
    assert_eq!(host.identity.units.len(), 2);
    for pid in [30, 11, 10] {
        host.identity.on_exit(key(pid));
    }
    assert!(host.identity.units.is_empty() && host.identity.tree.is_empty());
}

#[test]
fn a_running_agent_is_found_in_proc() {
    let mut host = codex_host();
    let own = std::process::id();
    let row = "[[agent]]\nid='cat-agent'\nname='Cat'\nsource='test'\nexe=['**/bin/cat']\n";
    host.identity.knowledge.agents.add("test", row).unwrap();
    let mut child = std::process::Command::new("/bin/cat")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    let seeded = host
        .identity
        .seed(Timestamp::UNIX_EPOCH, |p| p == pid || p == own);
    let rounded = seeded
        .iter()
        .find(|info| info.key.pid == pid)
        .map(|info| info.key)
        .unwrap();
    let exact = ProcessKey {
        start_ns: rounded.start_ns + 77,
        ..rounded
    };
    host.identity.on_fork(exact, key(70), Timestamp::UNIX_EPOCH);
    let actor = host.identity.actor_for(key(70)).unwrap();
    assert_eq!((actor.unit, actor.agent.unwrap().root), (exact, exact));
    child.kill().unwrap();
    child.wait().unwrap();
}
