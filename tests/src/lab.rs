//! The stage: three places (the user's laptop, the attacker's machine, the Internet between them),
//! each a network namespace and a cgroup of its own, and the servers of the Internet.
//!
//! ```text
//!   laptop 198.51.100.23 ------+                      +------ attacker 192.0.2.66
//!   Codex, MCP server, aws     |                      |       the stolen key
//!                              Internet (203.0.113.0/24)
//!            AWS's edge + moto · the model · the package registry · the collector
//! ```
//!
//! All addresses are documentation ranges (RFC 5737). The provider's names resolve to them only in
//! the lab's mount namespace, which has an `/etc/hosts` of its own and no name server.

pub mod agents;
pub mod authority;
pub mod bait;
pub mod cgroup;
pub mod child;
pub mod cloudtrail;
pub mod codex;
pub mod enter;
pub mod install;
mod internet;
pub mod space;
pub mod stand_in;

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use self::authority::Authority;
use self::bait::Bait;
use self::child::{Launch, Place, Proc};
use self::cloudtrail::Principal;
use self::codex::Server;
use self::install::Tools;
use self::internet::Builder;
use self::space::Space;
use self::stand_in::model::Turn;
use self::stand_in::{collector, edge, model};

/// The laptop's address, as the provider sees it.
pub const LAPTOP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 23);
/// The attacker's address.
pub const ATTACKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
/// The name of the thief's collector.
pub const COLLECTOR: &str = "collector.exfil.example";
/// The name of the model's API: the real one, so that a sensor sees what it would see in production.
pub const MODEL: &str = "api.openai.com";
/// The name of Anthropic's API.
pub const ANTHROPIC: &str = "api.anthropic.com";
/// The name of Google's API.
pub const GOOGLE: &str = "generativelanguage.googleapis.com";
/// The name of the package registry.
pub const REGISTRY: &str = "registry.npm.example";
/// The AWS account of the lab (one of the numbers that AWS uses in its documentation).
pub const ACCOUNT: &str = "111122223333";
/// The bucket that the benign session sees.
pub const BUCKET: &str = "team-artifacts";

const S3: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const STS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
const MODEL_ADDR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
const REGISTRY_ADDR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 30);
/// The collector's address.
pub const COLLECTOR_ADDR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);

const EDGE_NAMES: [(&str, Ipv4Addr); 4] = [
    ("s3.us-east-1.amazonaws.com", S3),
    ("s3.amazonaws.com", S3),
    ("sts.us-east-1.amazonaws.com", STS),
    ("sts.amazonaws.com", STS),
];
const OTHER_NAMES: [(&str, Ipv4Addr); 5] = [
    (MODEL, MODEL_ADDR),
    (ANTHROPIC, MODEL_ADDR),
    (GOOGLE, MODEL_ADDR),
    (REGISTRY, REGISTRY_ADDR),
    (COLLECTOR, COLLECTOR_ADDR),
];

const RUN_PREFIX: &str = "keytrail-lab-";

/// The assembled stage. Dropping it ends every process in it and removes every trace.
#[derive(Debug)]
pub struct Lab {
    // Declared, and so dropped, in this order: programs, their places, their files.
    agent: Option<Proc>,
    edge: Proc,
    collector: Proc,
    model: Option<Proc>,
    _registry: Proc,
    _moto: Proc,
    slice: cgroup::Slice,
    laptop: Place,
    internet: Place,
    attacker: Place,
    mounts: Space,
    authority: Authority,
    ca: PathBuf,
    bundle: PathBuf,
    demo: PathBuf,
    dir: TempDir,
    /// The installed programs.
    pub tools: Tools,
    /// The made-up secrets of this run.
    pub bait: Bait,
    /// Whose key it is.
    pub principal: Principal,
}

/// Why a lab cannot run on this machine; `None` when it can.
#[must_use]
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("it needs root (namespaces, cgroups and BPF)".to_owned());
    }
    if let Err(error) = cgroup::mount_point() {
        return Some(format!("{error:#}"));
    }
    if let Err(error) = Space::network() {
        return Some(format!("{error:#}"));
    }
    install::installed().err().map(|error| format!("{error:#}"))
}

impl Lab {
    /// Builds the stage. `demo` is the `demo` program (tests: `CARGO_BIN_EXE_demo`).
    ///
    /// # Errors
    /// When something that [`missing`] checks is absent or a server does not start; the text says
    /// which and shows its last words.
    pub fn build(tools: Tools, demo: &Path) -> Result<Self> {
        let dir = run_dir()?;
        let slice = cgroup::Slice::new()?;
        let place = |name: &'static str| -> Result<Place> {
            Ok(Place {
                name,
                net: Space::network()?,
                cgroup: slice.group(name)?,
            })
        };
        let (laptop, internet, attacker) =
            (place("laptop")?, place("internet")?, place("attacker")?);
        connect(&laptop, &internet, &attacker)?;
        let authority = Authority::new()?;
        let (ca, bundle) = authority.write(dir.path())?;
        let mounts = names(dir.path())?;
        let build = Builder {
            demo,
            dir: dir.path(),
            internet: &internet,
            authority: &authority,
        };
        let moto = build.moto(&tools)?;
        let (bait, principal) = build.mint_key()?;
        let edge = build.edge()?;
        let collector = build.collector(&bait)?;
        let registry = build.registry(&tools)?;
        Ok(Self {
            agent: None,
            edge,
            collector,
            model: None,
            _registry: registry,
            _moto: moto,
            slice,
            laptop,
            internet,
            attacker,
            mounts,
            authority,
            ca,
            bundle,
            demo: demo.to_owned(),
            dir,
            tools,
            bait,
            principal,
        })
    }

    /// The laptop's cgroup: the only thing that a sensor of the lab may watch.
    #[must_use]
    pub fn scope(&self) -> &Path {
        &self.laptop.cgroup
    }

    /// The folder of this run, removed with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The throwaway home.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Starts the agent with a task; the model plays `script` behind it.
    ///
    /// # Errors
    /// When the model or the agent cannot be started.
    pub fn start_agent(&mut self, server: Server, script: Vec<Turn>) -> Result<()> {
        self.start_model(script)?;
        let home = self.home();
        codex::furnish(&home, &self.tools, &self.bait, &self.ca, server)?;
        let launch = Launch {
            demo: &self.demo,
            place: &self.laptop,
            mounts: Some(&self.mounts),
            cwd: &home.join("work"),
            env: codex::environment(&home, &self.tools, &self.bait, &self.ca, &self.bundle),
        };
        let args = [
            "exec",
            "--skip-git-repo-check",
            "Show me what is in our AWS account.",
        ];
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        self.agent = Some(launch.start("codex", &self.tools.npm_bin.join("codex"), &args, "")?);
        Ok(())
    }

    /// Waits until the agent's session has ended by itself.
    ///
    /// # Errors
    /// When it fails or takes longer than `limit`.
    pub fn finish_agent(&mut self, limit: Duration) -> Result<()> {
        let agent = self.agent.as_mut().context("no agent was started")?;
        let status = agent.finish(limit)?;
        ensure!(
            status.success(),
            "the agent failed ({status}):\n{}",
            agent.last_words()
        );
        Ok(())
    }

    /// What the agent wrote to standard error so far (its transcript).
    #[must_use]
    pub fn agent_transcript(&self) -> String {
        self.agent
            .as_ref()
            .map(Proc::last_words)
            .unwrap_or_default()
    }

    /// Requests that reached AWS since the last call.
    ///
    /// # Errors
    /// When the edge wrote something else than entries.
    pub fn aws_requests(&self) -> Result<Vec<edge::Entry>> {
        events(&self.edge)
    }

    /// What reached the collector since the last call.
    ///
    /// # Errors
    /// When the collector wrote something else than its reports.
    pub fn loot(&self) -> Result<Vec<collector::Loot>> {
        events(&self.collector)
    }

    /// What the model was asked and answered since the last call.
    ///
    /// # Errors
    /// When the model wrote something else than its reports.
    pub fn exchanges(&self) -> Result<Vec<model::Exchange>> {
        self.model.as_ref().map_or_else(|| Ok(Vec::new()), events)
    }

    /// Uses the stolen key from the attacker's machine: who am I, and what is there.
    ///
    /// # Errors
    /// When the attacker's program fails.
    pub fn attack(&self) -> Result<()> {
        const SCRIPT: &str = "import boto3\n\
            print(boto3.client('sts', 'us-east-1').get_caller_identity()['Arn'])\n\
            print([b['Name'] for b in boto3.client('s3', 'us-east-1').list_buckets()['Buckets']])\n";
        let env: Vec<(OsString, OsString)> = vec![
            ("HOME".into(), "/nonexistent".into()),
            ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
            ("AWS_CA_BUNDLE".into(), self.ca.clone().into()),
            ("AWS_ACCESS_KEY_ID".into(), self.bait.key_id.clone().into()),
            (
                "AWS_SECRET_ACCESS_KEY".into(),
                self.bait.secret_key.clone().into(),
            ),
        ];
        let launch = Launch {
            demo: &self.demo,
            place: &self.attacker,
            mounts: Some(&self.mounts),
            cwd: Path::new("/"),
            env,
        };
        let args: Vec<OsString> = vec!["-c".into(), SCRIPT.into()];
        let mut thief = launch.start(
            "the attacker",
            &self.tools.python_bin.join("python3"),
            &args,
            "",
        )?;
        let status = thief.finish(Duration::from_mins(1))?;
        ensure!(
            status.success(),
            "the attacker's program failed:\n{}",
            thief.last_words()
        );
        Ok(())
    }

    /// Ends every process of the lab at once (Ctrl-C); the lab is of no more use then.
    pub fn kill(&self) {
        self.slice.kill();
    }
}

/// The reports that a stand-in wrote since the last call.
fn events<T: DeserializeOwned>(stand_in: &Proc) -> Result<Vec<T>> {
    let parse = |line: String| serde_json::from_str(&line).with_context(|| line.clone());
    stand_in.lines_now().into_iter().map(parse).collect()
}

/// A fresh folder for one run. Not under /tmp, where Codex refuses to keep its helpers. Folders of
/// runs that were killed are removed.
fn run_dir() -> Result<TempDir> {
    const PARENT: &str = "/var/tmp";
    for entry in fs::read_dir(PARENT)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(RUN_PREFIX) else {
            continue;
        };
        let pid = rest.split('-').next().unwrap_or("");
        if !pid.is_empty() && !Path::new("/proc").join(pid).exists() {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    tempfile::Builder::new()
        .prefix(&format!("{RUN_PREFIX}{}-", std::process::id()))
        .tempdir_in(PARENT)
        .context("making the run's folder in /var/tmp")
}

/// Folders of runs that exist now.
#[must_use]
pub fn run_dirs_present() -> Vec<PathBuf> {
    let entries = fs::read_dir("/var/tmp").map(|d| d.flatten().map(|e| e.path()).collect());
    let ours = |p: &PathBuf| {
        p.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with(RUN_PREFIX))
    };
    entries
        .unwrap_or_else(|_| Vec::new())
        .into_iter()
        .filter(ours)
        .collect()
}

fn connect(laptop: &Place, internet: &Place, attacker: &Place) -> Result<()> {
    let laptop_addr = format!("{LAPTOP}/24");
    space::cable(
        &laptop.net,
        &laptop_addr,
        &internet.net,
        "to-laptop",
        "198.51.100.1/24",
    )?;
    let attacker_addr = format!("{ATTACKER}/24");
    space::cable(
        &attacker.net,
        &attacker_addr,
        &internet.net,
        "to-attacker",
        "192.0.2.1/24",
    )?;
    for addr in [S3, STS, MODEL_ADDR, REGISTRY_ADDR, COLLECTOR_ADDR] {
        space::own_address(&internet.net, &addr.to_string())?;
    }
    Ok(())
}

/// The mount namespace in which the lab's names resolve, and nothing else does.
fn names(dir: &Path) -> Result<Space> {
    let line = |(name, addr): &(&str, Ipv4Addr)| format!("{addr} {name}\n");
    let names = EDGE_NAMES.iter().chain(&OTHER_NAMES).map(line);
    let local = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    let hosts = names.fold(local, |all, one| all + &one);
    let mut binds = Vec::new();
    for (file, text, over) in [
        ("hosts", hosts.as_str(), "/etc/hosts"),
        (
            "resolv.conf",
            "# no name server in the lab\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
            "/etc/resolv.conf",
        ),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n",
            "/etc/nsswitch.conf",
        ),
    ] {
        let path = dir.join(file);
        fs::write(&path, text)?;
        // Where resolv.conf is a link (systemd-resolved), the file that it names is covered.
        if let Ok(over) = Path::new(over).canonicalize() {
            binds.push((path, over));
        }
    }
    Space::mounts(&binds)
}
