//! From the kernel to facts: one actor does what makes each kind, the pipeline tells it.

use std::{
    net::TcpListener,
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use keytrail_model::fact::{ExposureSource, Fact, NameSource};

use super::{
    Outcome, cases,
    stage::{Dir, Stage, StageError, go},
};
use crate::{
    clock::BootClock,
    files::FsView,
    identity::{Identity, Knowledge},
    kernel::SensorConfig,
    paths::Vars,
    people::People,
    pipeline::Pipeline,
    tree::TreeLimits,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Name of the case.
pub(super) const NAME: &str = "facts of a process that reaches out";
/// Where nothing listens but this case; the resolver's answer leads there.
const NAMED: &str = "127.42.0.7:0";

pub(super) fn play(prefix: &[&str], config: &SensorConfig) -> Outcome {
    let mut stage = match Stage::set(prefix, config.clone()) {
        Ok(stage) => stage,
        Err(StageError::Cannot(why)) => return Outcome::Skipped(why),
        Err(StageError::Broken(why)) => return Outcome::Failed(why),
    };
    match facts(&mut stage) {
        Ok(facts) => check(&facts),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn facts(stage: &mut Stage) -> Result<Vec<Fact>> {
    let home = Dir(stage.dir.0.join("home"));
    for dir in [".aws", ".docker/run", ".ssh/agent", ".config/autostart"] {
        std::fs::create_dir_all(home.0.join(dir))?;
    }
    let text = "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n";
    std::fs::write(home.0.join(".aws/credentials"), text)?;
    let identity = Identity::new(Knowledge::builtin()?, People::read(), TreeLimits::default());
    let mut pipeline = Pipeline::new(identity, stage.sensor.watch(), BootClock::measure()?);
    let vars = Vars::home(home.0.display().to_string());
    pipeline.files().add_home(vars, FsView::host());
    let _docker = listen(&home.0.join(".docker/run/docker.sock"))?;
    let _agent = listen(&home.0.join(".ssh/agent/s"))?;
    let named = TcpListener::bind(NAMED)?;
    let resolver = cases::reach::resolver()?;
    let mut victim = Command::new("/bin/cat")
        .env_clear()
        .env("AWS_ACCESS_KEY_ID", "AKIAI44QH8DHBEXAMPLE")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let (home, address) = (home.0.display(), named.local_addr()?);
    let arg = format!("{home}|{}|{address}|{}", resolver.arg, victim.id());
    let mut actor = stage.actor("tour", &arg, None)?;
    go(&mut actor)?;
    let status = actor.wait()?;
    let events = stage.collect(Duration::from_millis(200));
    let mut out = Vec::new();
    for event in events {
        pipeline.handle(event, &mut out);
    }
    drop(victim.stdin.take());
    victim.wait()?;
    if !status.success() {
        return Err(format!("the actor ended with {status}").into());
    }
    out.extend(pipeline.sums(crate::clock::now()));
    Ok(out.into_iter().map(|(_, fact)| fact).collect())
}

fn listen(path: &Path) -> Result<UnixListener> {
    Ok(UnixListener::bind(path)?)
}

type Test = fn(&Fact) -> bool;

/// What must be told, each at least once.
const WANTED: &[(&str, Test)] = &[
    ("the credential in the file", |fact| {
        exposed(fact, "aws-access-key:AKIAIOSFODNN7EXAMPLE", |source| {
            matches!(source, ExposureSource::File { .. })
        })
    }),
    ("the request to the container daemon", |fact| {
        matches!(fact, Fact::RequestEdge(edge)
            if edge.daemon == "docker" && edge.through.ends_with("docker.sock"))
    }),
    ("the key agent", |fact| {
        exposed(
            fact,
            "credential-store:ssh-agent/",
            |source| matches!(source, ExposureSource::Socket { path } if path.ends_with("/s")),
        )
    }),
    ("the question to the resolver", |fact| {
        matches!(fact, Fact::NameLookups(sum) if sum.domain == "keytrail.example"
            && sum.questions == 1 && sum.names == 1 && sum.bytes == 16)
    }),
    ("the name of the connection", |fact| {
        matches!(fact, Fact::ConnectionNamed(named)
            if named.name == "keytrail.example" && named.source == NameSource::Dns)
    }),
    ("the environment of another process", |fact| {
        exposed(
            fact,
            "aws-access-key:AKIAI44QH8DHBEXAMPLE",
            |source| matches!(source, ExposureSource::Process { via, .. } if via == "environ"),
        )
    }),
    ("the file written for the next login", |fact| {
        matches!(fact, Fact::RequestEdge(edge)
            if edge.daemon == "autostart" && edge.through.ends_with("/x.desktop"))
    }),
    ("the file written for the next shell", |fact| {
        matches!(fact, Fact::RequestEdge(edge)
            if edge.daemon == "shell" && edge.through.ends_with("/.bashrc"))
    }),
    (
        "the listening socket",
        |fact| matches!(fact, Fact::Listening(socket) if socket.local.ip().is_loopback()),
    ),
    (
        "the connection taken in",
        |fact| matches!(fact, Fact::Accepted(conn) if conn.remote.ip().is_loopback()),
    ),
];

fn exposed(fact: &Fact, credential: &str, test: impl Fn(&ExposureSource) -> bool) -> bool {
    matches!(fact, Fact::Exposure(exposure)
        if exposure.credential.to_string().starts_with(credential) && test(&exposure.source))
}

fn check(facts: &[Fact]) -> Outcome {
    let missing: Vec<&str> = WANTED
        .iter()
        .filter(|(_, test)| !facts.iter().any(test))
        .map(|(what, _)| *what)
        .collect();
    if missing.is_empty() {
        Outcome::Passed
    } else {
        Outcome::Failed(format!("not told: {}; told: {facts:?}", missing.join(", ")))
    }
}
