//! Loading and attaching. Unless it is asked to pin (`pins`), nothing outlives the agent: when the
//! [`Sensor`] is dropped, or its process ends in whatever way, the kernel removes programs, links and
//! maps.

use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aya::{
    Btf as AyaBtf, EbpfLoader, Endianness,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::links::PinnedLink,
};
use keytrail_abi::{
    Config, Offs,
    maps::{Agent, Conn, STATE_ESTABLISHED},
};
use keytrail_model::coverage::Coverage;
use sha2::{Digest as _, Sha256};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    attach::{Kept, Results, chain, rows},
    btf::Btf,
    canary,
    decode::address,
    event::{ConnBytes, ConnEvent, Head, KernelEvent, ProcKey},
    handover,
    hooks::{HOOKS, Plan},
    pins::{self, Draft, Pins, Source},
    preflight::{self, LoadError},
    rings::{Drained, Positions, RINGS, Rings, boot_ns},
    stats::{self, Loss, RawRow},
    watch::Watch,
};

/// The BPF object, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/keytrail.bpf.o"));

/// What the sensor is to do.
#[derive(Clone, Debug)]
pub struct SensorConfig {
    /// Cgroup (v2) directory that the sensor is limited to; `None`: the whole machine.
    pub scope: Option<PathBuf>,
    /// Take this plan, whatever the kernel could do.
    pub force_plan: Option<Plan>,
    /// Where the kernel's BTF is.
    pub btf: PathBuf,
    /// Bytes of each ring, a power of two of at least a page; `None`: the defaults.
    pub ring_bytes: Option<u32>,
    /// Processes that can be tracked at once; `None`: the default.
    pub max_tracked: Option<u32>,
    /// Also watch opens on return from system calls in plan B (costs every system call on the
    /// machine about 0.1 µs). Without it, files outside the page cache are not seen.
    pub syscall_exit: bool,
    /// Folder in a BPF file system below which programs, links and maps are kept while no agent
    /// runs; `None`: nothing outlives the agent.
    pub pins: Option<PathBuf>,
    /// Up to where the rings of a pinned set have been read and made durable.
    pub resume: Positions,
    /// Where the canary's file may be made when the usual folders cannot be written to, as below
    /// systemd's `ProtectSystem=strict`.
    pub canary_dir: Option<PathBuf>,
}

impl Default for SensorConfig {
    fn default() -> Self {
        Self {
            scope: None,
            force_plan: None,
            btf: PathBuf::from("/sys/kernel/btf/vmlinux"),
            ring_bytes: None,
            max_tracked: None,
            syscall_exit: true,
            pins: None,
            resume: Positions::default(),
            canary_dir: None,
        }
    }
}

/// A loaded sensor.
pub struct Sensor {
    pub(super) rings: Rings,
    watch: Watch,
    loss: PerCpuArray<MapData, RawRow>,
    conns: HashMap<MapData, u64, [u8; size_of::<Conn>()]>,
    pub(super) coverage: Coverage,
    plan: Plan,
    /// Where the canary runs.
    pub(super) scope_dir: Option<PathBuf>,
    /// Counters of the set that recorded while no agent ran.
    pub(super) left: Option<Loss>,
    /// Counters from which this agent's own losses count.
    base: Loss,
    pub(super) canary_dir: Option<PathBuf>,
    /// Which process is the agent. Held open: programs that are loaded later refer to it.
    _own: Array<MapData, [u8; size_of::<Agent>()]>,
    /// Programs and links live as long as this.
    kept: Kept,
}

/// A pinned set and the right to it.
pub(super) struct Pinned {
    /// `None` only until the set is whole.
    pins: Option<Pins>,
    set: PathBuf,
    links: Vec<(String, PinnedLink)>,
}

/// An open connection and its bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenConnection {
    /// Owner and addresses; the time is that of establishment.
    pub conn: ConnEvent,
    /// Counted from sequence numbers on the way out; exact counts come at close.
    pub bytes: ConnBytes,
}

/// Where the cgroup programs are attached and what the tracing programs are limited to.
struct Scope {
    dir: PathBuf,
    id: u64,
    level: u32,
}

impl Sensor {
    /// Loads the programs, attaches them and proves them; or takes over a pinned set. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// One clear reason, see [`LoadError`].
    pub fn load(config: &SensorConfig) -> Result<Self, LoadError> {
        preflight::check()?;
        let scope = scope(config.scope.as_deref())?;
        let btf = Btf::read(&config.btf)?;
        let offs = btf.offsets()?;
        drop(btf);
        let mut abi = Config {
            scope_cgroup_id: if config.scope.is_some() { scope.id } else { 0 },
            scope_level: scope.level,
            generation: 0,
            dedupe_ns: 1_000_000_000,
        };
        let Some(root) = &config.pins else {
            abi.generation = generation();
            return Self::fresh(config, &scope, &offs, &abi, None);
        };
        let part = if config.scope.is_some() {
            format!("cgroup-{}", scope.id)
        } else {
            "all".to_owned()
        };
        let pins = Pins::open(root, &part)?;
        let name = set_name(config, &offs, &abi);
        if let Some(set) = pins.find(&name).filter(|set| is_whole(set)) {
            return Self::adopt(config, pins, set);
        }
        abi.generation = generation();
        let old = pins.others(&name)?;
        // One that has lost a map cannot be taken over from; seeing matters more.
        let readable = old
            .iter()
            .find(|set| handover::is_readable(set) && pins::missing(set, &[]).is_empty());
        let sensor = match readable {
            Some(old) => handover::succeed(config, old, |copy| {
                let draft = pins.draft(&name)?;
                Self::fresh(config, &scope, &offs, &abi, Some((draft, copy)))
            })?,
            None => {
                let draft = pins.draft(&name)?;
                Self::fresh(config, &scope, &offs, &abi, Some((draft, &|_| Ok(()))))?
            }
        };
        for set in &old {
            pins::remove_set(set)?;
        }
        Ok(sensor.kept_by(pins))
    }

    /// Loads the object. With a draft, everything is pinned, after `copy` has filled the maps.
    fn fresh(
        config: &SensorConfig,
        scope: &Scope,
        offs: &Offs,
        abi: &Config,
        draft: Option<(Draft, handover::Copy<'_>)>,
    ) -> Result<Self, LoadError> {
        let btf = AyaBtf::parse_file(&config.btf, Endianness::default())
            .map_err(|e| LoadError::Object(e.to_string()))?;
        let mut loader = EbpfLoader::new();
        loader
            .btf(Some(&btf))
            .override_global("OFFS", offs.as_bytes(), true)
            .override_global("CONFIG", abi.as_bytes(), true);
        if let Some(bytes) = config.ring_bytes {
            for ring in RINGS {
                loader.map_max_entries(ring, bytes);
            }
        }
        if let Some(max) = config.max_tracked {
            loader.map_max_entries("TRACKED", max);
        }
        let bpf = loader
            .load(OBJECT)
            .map_err(|e| LoadError::Object(chain(&e)))?;
        if let Some((draft, copy)) = &draft {
            draft.maps(&bpf)?;
            copy(draft.set())?;
        }
        let mut source = Source::Loaded(bpf);
        let mut sensor = Self::from_maps(config, &mut source)?;
        if let Source::Loaded(bpf) = source {
            sensor.kept.bpf = Some(bpf);
        }
        let results = sensor.attach(config, scope, &btf)?;
        sensor.tell(&results);
        if let Some((draft, _)) = draft {
            let links = std::mem::take(&mut sensor.kept.links);
            let links = links
                .into_iter()
                .map(|(program, link)| Ok((program.to_owned(), draft.link(program, link)?)))
                .collect::<Result<_, LoadError>>()?;
            let set = draft.finish()?;
            sensor.kept.pinned = Some(Pinned {
                pins: None,
                set,
                links,
            });
        }
        Ok(sensor)
    }

    /// Takes over a pinned set: nothing is loaded or attached, so nothing is missed.
    fn adopt(config: &SensorConfig, pins: Pins, set: PathBuf) -> Result<Self, LoadError> {
        let mut sensor = Self::from_maps(config, &mut Source::Pinned(set.clone()))?;
        sensor.rings.resume(&config.resume);
        let links = pins::links(&set);
        let has = |program: &str| links.iter().any(|(known, _)| known == program);
        if has("lsm_file_open") {
            sensor.plan = Plan::A;
        }
        let mut results: Results = HOOKS
            .iter()
            .map(|hook| {
                let never = "was not attached when this set was loaded";
                let found = if has(hook.program) {
                    Ok(())
                } else {
                    Err(never.to_owned())
                };
                (hook.program, found)
            })
            .collect();
        sensor.kept.pinned = Some(Pinned {
            pins: Some(pins),
            set,
            links,
        });
        sensor.base = sensor.loss();
        sensor.left = Some(sensor.base.clone());
        canary::run(&mut sensor)?.prove(&mut results);
        sensor.tell(&results);
        Ok(sensor)
    }

    fn from_maps(config: &SensorConfig, source: &mut Source) -> Result<Self, LoadError> {
        let object = |e: aya::maps::MapError| LoadError::Object(chain(&e));
        let mut own: Array<MapData, [u8; size_of::<Agent>()]> = source
            .take("SELF")
            .and_then(TryInto::try_into)
            .map_err(object)?;
        let agent: [u8; size_of::<Agent>()] = zerocopy::transmute!(this_agent());
        own.set(0, agent, 0).map_err(object)?;
        Ok(Self {
            rings: Rings::take(source, config.pins.is_some()).map_err(object)?,
            watch: Watch::take(source).map_err(object)?,
            loss: source
                .take("LOSS")
                .and_then(TryInto::try_into)
                .map_err(object)?,
            conns: source
                .take("CONN")
                .and_then(TryInto::try_into)
                .map_err(object)?,
            coverage: Coverage {
                kernel: preflight::kernel_release(),
                plan: String::new(),
                scope: config.scope.as_ref().map(|p| p.display().to_string()),
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                rows: Vec::new(),
            },
            plan: Plan::B,
            scope_dir: config.scope.clone(),
            left: None,
            base: Loss::default(),
            canary_dir: config.canary_dir.clone(),
            _own: own,
            kept: Kept::default(),
        })
    }

    fn kept_by(mut self, pins: Pins) -> Self {
        if let Some(pinned) = &mut self.kept.pinned {
            pinned.pins = Some(pins);
        }
        self
    }

    fn tell(&mut self, results: &Results) {
        self.coverage.plan = self.plan.name().to_owned();
        self.coverage.rows = rows(self.plan, results);
    }

    fn attach(
        &mut self,
        config: &SensorConfig,
        scope: &Scope,
        btf: &AyaBtf,
    ) -> Result<Results, LoadError> {
        let cgroup = File::open(&scope.dir).map_err(|source| LoadError::Io {
            what: format!("cannot open the cgroup {}", scope.dir.display()),
            source,
        })?;
        let mut results = Results::new();
        for hook in HOOKS.iter().filter(|h| h.plan.is_none()) {
            let result = self.kept.attach(hook, &cgroup, btf);
            if let (true, Err(reason)) = (hook.vital, &result) {
                let (program, reason) = (hook.program.to_owned(), reason.clone());
                return Err(LoadError::Program { program, reason });
            }
            results.insert(hook.program, result);
        }
        if config.force_plan != Some(Plan::B) {
            let results_a = self.kept.attach_plan(Plan::A, config, &cgroup, btf);
            let opens = results_a.get("lsm_file_open").is_some_and(Result::is_ok);
            results.extend(results_a);
            // Without `bpf` in the kernel's list of LSMs the hooks attach and never fire.
            let fires = opens && canary::run(self)?.saw_file("lsm/file_open");
            if fires || config.force_plan == Some(Plan::A) {
                self.plan = Plan::A;
            }
            if opens && !fires {
                for hook in HOOKS.iter().filter(|h| h.plan == Some(Plan::A)) {
                    let never =
                        "attaches but never fires: `bpf` is not in the kernel's list of LSMs";
                    results.insert(hook.program, Err(never.to_owned()));
                }
            }
        }
        if self.plan == Plan::B {
            for hook in HOOKS.iter().filter(|h| h.plan == Some(Plan::A)) {
                self.kept.unload(hook);
            }
            results.extend(self.kept.attach_plan(Plan::B, config, &cgroup, btf));
        }
        canary::run(self)?.prove(&mut results);
        Ok(results)
    }

    /// What the programs that recorded while no agent ran had seen and lost by the time this one took
    /// over; `None` when there were none, so that what happened meanwhile was not seen.
    #[must_use]
    pub fn left_behind(&self) -> Option<&Loss> {
        self.left.as_ref()
    }

    /// The counters from which on losses are this agent's to tell.
    #[must_use]
    pub fn counted_from(&self) -> &Loss {
        &self.base
    }

    /// True when programs, links and maps stay when this agent ends.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.kept.pinned.is_some()
    }

    /// The folder of the pinned set.
    pub(super) fn set(&self) -> Option<PathBuf> {
        self.kept.pinned.as_ref().map(|pinned| pinned.set.clone())
    }

    /// Names of pins that somebody removed.
    #[must_use]
    pub fn missing_pins(&self) -> Vec<String> {
        let Some(pinned) = &self.kept.pinned else {
            return Vec::new();
        };
        let programs: Vec<String> = pinned.links.iter().map(|(name, _)| name.clone()).collect();
        pins::missing(&pinned.set, &programs)
    }

    /// Ends, and takes what was pinned with it.
    ///
    /// # Errors
    /// When a pin cannot be removed; `sensor-agent unpin` tries again.
    pub fn unpin(mut self) -> Result<(), LoadError> {
        match self.kept.pinned.take().and_then(|pinned| pinned.pins) {
            Some(pins) => pins.clear(),
            None => Ok(()),
        }
    }

    /// Up to where the rings have been handed over.
    #[must_use]
    pub fn positions(&self) -> Positions {
        self.rings.positions()
    }

    /// What lies before these positions is durable: gives its room back to the kernel. Without pins
    /// that happened already.
    pub fn release(&mut self, positions: &Positions) {
        self.rings.release(positions);
    }

    /// What is and is not seen on this kernel.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// The plan in use.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// A handle to the watch lists.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Takes a program's link off, as somebody else could: for the self-test.
    pub(super) fn detach(&mut self, program: &str) -> bool {
        self.kept.links.remove(program).is_some()
    }

    /// Waits for events (or a tenth of a second) and appends them to `out`, ordered by time within
    /// the batch. Every event up to the watermark has then been handed over.
    pub async fn next_batch(&mut self, out: &mut Vec<KernelEvent>) -> Drained {
        self.rings.ready().await;
        self.rings.drain(out)
    }

    /// Takes what is there, without waiting.
    pub fn drain(&mut self, out: &mut Vec<KernelEvent>) -> Drained {
        self.rings.drain(out)
    }

    /// What was seen and lost since loading.
    #[must_use]
    pub fn loss(&self) -> Loss {
        Loss {
            kinds: stats::read(&self.loss),
            undecodable: self.rings.undecodable(),
            orphan_chunks: self.rings.orphans(),
        }
    }

    /// Connections that are open now, with their bytes so far.
    #[must_use]
    pub fn open_connections(&self) -> Vec<OpenConnection> {
        let cookies: Vec<u64> = self.conns.keys().filter_map(Result::ok).collect();
        cookies
            .into_iter()
            .filter_map(|cookie| self.open_connection(cookie))
            .collect()
    }

    fn open_connection(&self, cookie: u64) -> Option<OpenConnection> {
        let raw = self.conns.get(&cookie, 0).ok()?;
        let c = Conn::read_from_bytes(&raw).ok()?;
        if c.state != STATE_ESTABLISHED {
            return None;
        }
        Some(OpenConnection {
            conn: ConnEvent {
                head: Head {
                    ts_boot_ns: c.opened_ns,
                    process: ProcKey {
                        tgid: c.tgid,
                        start_ns: c.start_ns,
                    },
                    tid: c.tid,
                    uid: c.uid,
                    cgroup_id: c.cgroup_id,
                },
                cookie,
                local: address(&c.local).ok()?,
                remote: address(&c.remote).ok()?,
            },
            bytes: ConnBytes {
                sent: c.sent,
                received: c.received,
                acked: 0,
            },
        })
    }
}

fn scope(given: Option<&Path>) -> Result<Scope, LoadError> {
    let mount = preflight::cgroup2_mount()?;
    let dir = given.unwrap_or(&mount).to_path_buf();
    let wrong = || LoadError::Scope {
        path: dir.display().to_string(),
        mount: mount.display().to_string(),
    };
    let below = dir.strip_prefix(&mount).map_err(|_| wrong())?;
    let level = u32::try_from(below.components().count()).map_err(|_| wrong())?;
    // The id of a cgroup (v2) is the inode number of its directory.
    let id = dir.metadata().map_err(|_| wrong())?.ino();
    Ok(Scope { dir, id, level })
}

/// Distinguishes the records of this set from those of a predecessor: seconds since boot.
fn generation() -> u32 {
    u32::try_from(boot_ns() / 1_000_000_000).unwrap_or(u32::MAX)
}

/// This process as the kernel side compares it.
fn this_agent() -> Agent {
    let own = std::process::id();
    let start = crate::tree::proc::ProcEntry::open_pid(own);
    Agent {
        start_tick: start.map_or(0, |entry| crate::tree::proc::start_tick(entry.key())),
        tgid: own,
        pad: 0,
    }
}

/// Whether what nothing can be tracked or judged without is still pinned. A set that has lost more
/// than that is not taken over for good: it is replaced.
fn is_whole(set: &Path) -> bool {
    let links = pins::links(set);
    let has = |program: &str| links.iter().any(|(known, _)| known == program);
    let sees = has("lsm_file_open") || has("filemap_get_pages") || has("syscall_exit");
    let mut needed = HOOKS
        .iter()
        .filter(|hook| hook.plan.is_none() && (hook.vital || hook.judges));
    sees && needed.all(|hook| has(hook.program))
}

/// Names a set by everything that shapes its programs and maps.
fn set_name(config: &SensorConfig, offs: &Offs, abi: &Config) -> String {
    let mut hasher = Sha256::new();
    for part in [OBJECT, offs.as_bytes(), abi.as_bytes()] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let (rings, tracked) = (config.ring_bytes, config.max_tracked);
    let choice = (
        rings,
        tracked,
        config.force_plan.map(Plan::name),
        config.syscall_exit,
    );
    hasher.update(format!("{choice:?}"));
    let digest = hasher.finalize();
    let short = digest.iter().take(8).fold(String::new(), |mut text, byte| {
        text += &format!("{byte:02x}");
        text
    });
    format!("{}{short}", handover::prefix())
}
