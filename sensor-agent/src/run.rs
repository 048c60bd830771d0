//! The agent's life: check -> load -> seed -> run -> drain. Nothing else ends the process.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keytrail_model::coverage::Coverage;
use keytrail_model::fact::TamperKind;
use keytrail_model::ids::BootId;
use keytrail_pki::files::{FileError, private_folder};
use keytrail_pki::token::JoinToken;
use keytrail_spool::Limits;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::carry::{Carrier, LastMark};
use crate::clock::{self, BootClock};
use crate::config::{Config, ConfigError};
use crate::credentials::{Hasher, HasherError, Recogniser, Sandbox, TokenCatalogue};
use crate::health::Health;
use crate::identity::{Identity, IdentityError, Knowledge};
use crate::kernel::hooks::Plan;
use crate::kernel::{LoadError, Positions, Sensor, SensorConfig, memory};
use crate::people::People;
use crate::pipeline::{Pipeline, Timed};
use crate::privileges;
use crate::seed;
use crate::tree::TreeLimits;
use crate::uplink::enrol::{self, Enrolment};
use crate::uplink::{Uplink, UplinkConfig, UplinkError};
use crate::vigil::{Vigil, sign};

/// The watch lists, the clock and the counters are looked at this often.
const TICK: Duration = Duration::from_secs(1);
/// The catalogue's paths and executables are looked for anew this often.
const REFRESH: Duration = Duration::from_secs(10);
/// The watermark goes out this often.
const WATERMARK: Duration = Duration::from_millis(250);
/// How long the end waits for the last acknowledgements.
const DRAIN: Duration = Duration::from_secs(3);
/// How long the start waits for a first enrolment.
const ENROL_PATIENCE: Duration = Duration::from_secs(3);
/// Between attempts to enrol.
const ENROL_RETRY: Duration = Duration::from_secs(2);
/// A wall clock that steps by more than this is reported.
const CLOCK_STEP_MS: i128 = 1_000;
/// An agent that did not come round for this long, while the machine was awake, is reported: it was
/// stopped, or starved.
const STOPPED: Duration = Duration::from_secs(10);

/// Why the agent cannot start. Each is one clear line.
#[derive(Debug, Error)]
pub enum RunError {
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A catalogue.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The kernel side.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Outbox and stream.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// A file that is needed.
    #[error("cannot read {path}: {source}{hint}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// How to mend it.
        hint: &'static str,
    },
    /// The key for hashing secrets.
    #[error(transparent)]
    Hasher(#[from] HasherError),
    /// The state folder.
    #[error(transparent)]
    StateDir(#[from] FileError),
    /// The clock.
    #[error("cannot read CLOCK_BOOTTIME: {0}")]
    Clock(#[from] nix::Error),
    /// `/proc/sys/kernel/random/boot_id` is no UUID.
    #[error("this kernel's boot id cannot be read: is /proc mounted?")]
    BootId,
    /// The stream's threads.
    #[error("cannot start the threads of the stream: {0}")]
    Threads(std::io::Error),
    /// The correlator's address.
    #[error("correlator `{0}`: write https://host:port")]
    Address(String),
}

fn read(path: &Path, hint: &'static str) -> Result<String, RunError> {
    std::fs::read_to_string(path).map_err(|source| RunError::File {
        path: path.to_owned(),
        source,
        hint,
    })
}

/// Knowledge that comes with the sensor, and the user's own.
fn knowledge(config: &Config) -> Result<Knowledge, RunError> {
    let mut knowledge = Knowledge::builtin()?;
    let own = |path: &PathBuf| read(path, " (a catalogue file of the settings)");
    for path in &config.catalogues.agents {
        let text = own(path)?;
        knowledge
            .agents
            .add(&path.display().to_string(), &text)
            .map_err(IdentityError::from)?;
    }
    for path in &config.catalogues.watch {
        let more =
            crate::credentials::WatchCatalogue::parse(&path.display().to_string(), &own(path)?)
                .map_err(IdentityError::from)?;
        knowledge.watch.extend(more);
    }
    for path in &config.catalogues.readers {
        let more = crate::credentials::Readers::parse(&path.display().to_string(), &own(path)?)
            .map_err(IdentityError::from)?;
        knowledge.readers.extend(more);
    }
    let mut tokens = TokenCatalogue::builtin().map_err(IdentityError::from)?;
    for path in &config.catalogues.tokens {
        tokens
            .add(&path.display().to_string(), &own(path)?)
            .map_err(IdentityError::from)?;
    }
    knowledge.watch.add_configs(&knowledge.agents);
    let hasher = Hasher::load(config.tenant_key_file.as_deref(), &config.state_dir)?;
    info!(
        key = hasher.describe(),
        "secrets without identifier are hashed"
    );
    knowledge.recogniser = Recogniser::new(tokens, hasher);
    knowledge.decoys = config.decoys.iter().cloned().collect();
    Ok(knowledge)
}

/// The process that parses credential files, started.
fn sandbox(config: &Config, knowledge: &Knowledge) -> Result<Sandbox, RunError> {
    // Empty, inside a private folder, and open: nobody must be able to enter it.
    let root = config.state_dir.join("parse-root");
    let made = std::fs::create_dir_all(&root)
        .and_then(|()| std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)));
    made.map_err(|source| RunError::File {
        path: root.clone(),
        source,
        hint: " (the empty folder that the parsing process is locked into)",
    })?;
    let tokens = config
        .catalogues
        .tokens
        .iter()
        .map(|path| Ok((path.display().to_string(), read(path, "")?)))
        .collect::<Result<Vec<_>, RunError>>()?;
    let sandbox = Sandbox::new(
        PathBuf::from("/proc/self/exe"),
        root,
        tokens,
        knowledge.recogniser.hasher(),
    );
    match sandbox.probe().map(|layers| layers.missing()) {
        Ok(missing) if missing.is_empty() => info!("credential files are parsed in a sandbox"),
        Ok(missing) => warn!(
            ?missing,
            "the parsing process is not held by everything it should be"
        ),
        Err(error) => warn!(%error, "credential files are parsed in the agent itself"),
    }
    Ok(sandbox)
}

/// What the kernel side is told.
///
/// # Errors
/// A scope or plan that is not understood.
pub fn sensor_config(config: &Config) -> Result<SensorConfig, ConfigError> {
    let force_plan = match config.plan.as_deref() {
        None => None,
        Some("a" | "A") => Some(Plan::A),
        Some("b" | "B") => Some(Plan::B),
        Some(other) => return Err(ConfigError::Plan(other.to_owned())),
    };
    Ok(SensorConfig {
        scope: config.scope_path()?,
        force_plan,
        pins: config.pin_dir.clone(),
        canary_dir: Some(config.state_dir.clone()),
        ..SensorConfig::default()
    })
}

mod agent;

use agent::Agent;

/// How the agent is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// Not yet.
    #[default]
    Not,
    /// Another one will follow: what is pinned stays, and goes on recording.
    Leave,
    /// For good: what is pinned goes.
    Remove,
}

/// Runs until `stop` says so. `ready` is called once, when everything is live.
///
/// # Errors
/// When it cannot start. Afterwards nothing but `stop` ends it.
pub async fn run(
    config: &Config,
    mut stop: watch::Receiver<Stop>,
    ready: impl FnOnce(&Coverage),
) -> Result<(), RunError> {
    memory::settle();
    let since = clock::now();
    let clock = BootClock::measure()?;
    private_folder(&config.state_dir)?;
    let knowledge = knowledge(config)?;
    let uplink_config = uplink_config(config, &clock)?;
    let sensor = load(config, &uplink_config)?;
    if let Err(error) = privileges::keep_reading_only() {
        warn!("{error}; the sensor goes on with more rights than it needs");
    }
    let io = Io::start()?;
    // A first enrolment usually takes milliseconds; without one the stream would only fail and
    // wait. A correlator that is away must not keep the sensor from seeing.
    let enrolling = io.spawn(keep_enrolling(config.clone(), uplink_config.clone()));
    let enrolled = wait_for(&enrolling, ENROL_PATIENCE).await;
    if !enrolled {
        warn!("not enrolled yet: watching begins, facts wait in the outbox");
    }
    let carrier = Carrier::new(&config.state_dir, uplink_config.boot);
    let uplink = io.within(|| Uplink::start(uplink_config))?;

    let people = People::read();
    let homes = people.homes();
    let sandbox = sandbox(config, &knowledge)?;
    let identity = Identity::new(knowledge, people, TreeLimits::default()).parsing_in(sandbox);
    let pipeline = Pipeline::new(identity, sensor.watch(), clock);
    let mut agent = Agent {
        vigil: Vigil::new(config.canary_seconds),
        health: Health::new(sensor.counted_from().clone(), since),
        outbox: uplink.outbox(),
        last: LastMark::at(&config.state_dir),
        held: None,
        noted: Positions::default(),
        sensor,
        pipeline,
        carrier,
        executables: seed::Executables::new(homes.clone()),
        homes,
    };
    agent.begin(config.scope_path()?.as_deref());
    let (inodes, dirs) = agent.pipeline.files().len();
    let plan = agent.sensor.plan().name();
    info!(plan, inodes, dirs, "watching");
    memory::give_back();
    ready(agent.sensor.coverage());

    let how = agent.work(&uplink, &mut stop).await;

    info!("stopping: no more events are taken");
    enrolling.abort();
    agent.end(how);
    if !uplink.drain(DRAIN).await {
        info!("what is not acknowledged stays in the outbox on disk");
    }
    uplink.stop().await;
    Ok(())
}

/// Loads the kernel side, or takes over what a predecessor left.
fn load(config: &Config, uplink: &UplinkConfig) -> Result<Sensor, RunError> {
    let mut kernel = sensor_config(config)?;
    let note = Uplink::note(uplink).unwrap_or_default();
    kernel.resume = Positions::from_note(&note);
    match Sensor::load(&kernel) {
        // Seeing matters more than seeing across a restart.
        Err(error @ LoadError::NoBpffs { .. }) => {
            warn!("{error}; going on without");
            kernel.pins = None;
            Ok(Sensor::load(&kernel)?)
        }
        loaded => Ok(loaded?),
    }
}

/// Takes a new measurement of the clock; a step of it is worth a fact.
fn tick_clock(pipeline: &mut Pipeline) -> Option<Timed> {
    let clock = match BootClock::measure() {
        Ok(clock) => clock,
        Err(error) => {
            warn!(%error, "cannot read the clock");
            return None;
        }
    };
    let step = pipeline.clock().step_to(&clock).as_millis();
    pipeline.set_clock(clock);
    clock_moved(step)
}

fn clock_moved(step_ms: i128) -> Option<Timed> {
    if step_ms.abs() <= CLOCK_STEP_MS {
        return None;
    }
    let detail = format!("the wall clock moved by {step_ms} ms");
    Some(sign(TamperKind::ClockMoved, detail))
}

/// The time since the last round, on a clock that stands still while the machine sleeps, was so long
/// that something must have kept the agent from running. The kernel went on recording meanwhile; what
/// it had no room for is counted and told as a gap.
fn stopped(elapsed: Duration) -> Option<Timed> {
    if elapsed < STOPPED {
        return None;
    }
    let detail = format!("the agent did not run for {} s", elapsed.as_secs());
    Some(sign(TamperKind::AgentStopped, detail))
}

fn uplink_config(config: &Config, clock: &BootClock) -> Result<UplinkConfig, RunError> {
    let address = config
        .correlator
        .strip_prefix("https://")
        .filter(|rest| rest.contains(':'))
        .ok_or_else(|| RunError::Address(config.correlator.clone()))?;
    let boot = read(Path::new("/proc/sys/kernel/random/boot_id"), "")?;
    Ok(UplinkConfig {
        address: address.trim_end_matches('/').to_owned(),
        ca_pem: read(
            &config.ca,
            " (the correlator's CA; copy it from <data-dir>/enrol/ca.pem)",
        )?,
        state_dir: config.state_dir.clone(),
        boot: BootId(
            boot.trim()
                .parse()
                .map_err(|_not_a_uuid| RunError::BootId)?,
        ),
        boot_time: clock.wall(0),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        spool: Limits {
            max_bytes: config.outbox_max_bytes.max(Limits::SMALLEST),
        },
    })
}

/// Enrols if need be. The correlator may be away: facts wait in the outbox meanwhile.
async fn keep_enrolling(config: Config, uplink: UplinkConfig) {
    let hostname = nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_else(|_| "host".to_owned());
    let mut told = None;
    loop {
        // Read anew each time: the operator may put it there later.
        let token = config
            .join_token_file
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok())
            .map(|text| JoinToken::new(&text));
        let enrolment = Enrolment {
            state_dir: &uplink.state_dir,
            address: &uplink.address,
            ca_pem: &uplink.ca_pem,
            token: token.as_ref(),
            hostname: &hostname,
        };
        match enrol::ensure(&enrolment).await {
            Ok(_) => return,
            Err(error) => {
                let text = error.to_string();
                if told.as_ref() != Some(&text) {
                    warn!("{text}; trying again, facts are kept meanwhile");
                    told = Some(text);
                }
            }
        }
        tokio::time::sleep(ENROL_RETRY).await;
    }
}

/// The threads of the stream and its TLS.
struct Io(Option<Runtime>);

impl Io {
    fn start() -> Result<Self, RunError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("uplink")
            .enable_all()
            .build()
            .map_err(RunError::Threads)?;
        Ok(Self(Some(runtime)))
    }

    fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.within(|| tokio::spawn(task))
    }

    /// Runs `start`, whose tasks then belong to these threads.
    fn within<T>(&self, start: impl FnOnce() -> T) -> T {
        let _inside = self.0.as_ref().map(Runtime::enter);
        start()
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // A runtime that is dropped inside another one panics unless it may leave its threads.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// True when the task ends within `patience`.
async fn wait_for(task: &JoinHandle<()>, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while !task.is_finished() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    task.is_finished()
}

#[cfg(test)]
mod tests {
    use keytrail_model::fact::Fact;

    use super::*;

    #[test]
    fn signs_of_tampering_are_told_once_they_are_clear() {
        let kind = |sign: Option<Timed>| match sign {
            Some((_, Fact::Tampering(tampering))) => Some(tampering.what),
            Some((_, other)) => panic!("{other:?}"),
            None => None,
        };
        assert_eq!(kind(stopped(Duration::from_secs(2))), None);
        assert_eq!(
            kind(stopped(Duration::from_secs(11))),
            Some(TamperKind::AgentStopped)
        );
        assert_eq!(kind(clock_moved(-900)), None);
        assert_eq!(kind(clock_moved(-3_600_000)), Some(TamperKind::ClockMoved));
    }
}
