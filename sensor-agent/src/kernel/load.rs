//! Loading and attaching. Nothing is pinned: when the [`Sensor`] is dropped, or its process ends in
//! whatever way, the kernel removes programs, links and maps.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader, Endianness,
    maps::{HashMap, MapData, PerCpuArray},
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSockAddr, Lsm,
        ProgramError,
    },
};
use keytrail_abi::{
    Config,
    maps::{Conn, STATE_ESTABLISHED},
};
use keytrail_model::coverage::{Coverage, CoverageRow, CoverageState};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    btf::Btf,
    canary,
    decode::address,
    event::{ConnBytes, ConnEvent, Head, KernelEvent, ProcKey},
    hooks::{Attach, HOOKS, Hook, Plan, UNSEEN},
    preflight::{self, LoadError},
    rings::{Drained, RINGS, Rings},
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
        }
    }
}

/// A loaded sensor.
pub struct Sensor {
    rings: Rings,
    watch: Watch,
    loss: PerCpuArray<MapData, RawRow>,
    conns: HashMap<MapData, u64, [u8; size_of::<Conn>()]>,
    coverage: Coverage,
    plan: Plan,
    /// Programs and links live as long as this.
    bpf: Ebpf,
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
    /// Loads the programs, attaches them and proves them. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// One clear reason, see [`LoadError`].
    pub fn load(config: &SensorConfig) -> Result<Self, LoadError> {
        preflight::check()?;
        let scope = scope(config.scope.as_deref())?;
        let btf = Btf::read(&config.btf)?;
        let offs = btf.offsets()?;
        drop(btf);
        let aya_btf = AyaBtf::parse_file(&config.btf, Endianness::default())
            .map_err(|e| LoadError::Object(e.to_string()))?;
        let abi = Config {
            scope_cgroup_id: if config.scope.is_some() { scope.id } else { 0 },
            scope_level: scope.level,
            generation: 1,
            dedupe_ns: 1_000_000_000,
            self_tgid: std::process::id(),
            pad: 0,
        };
        let mut loader = EbpfLoader::new();
        loader
            .btf(Some(&aya_btf))
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
        let mut bpf = loader
            .load(OBJECT)
            .map_err(|e| LoadError::Object(chain(&e)))?;
        let object = |e: aya::maps::MapError| LoadError::Object(chain(&e));
        let missing = || LoadError::Object("a map is missing from the object".to_owned());
        let loss = bpf
            .take_map("LOSS")
            .ok_or_else(missing)?
            .try_into()
            .map_err(object)?;
        let conns = bpf
            .take_map("CONN")
            .ok_or_else(missing)?
            .try_into()
            .map_err(object)?;
        let mut sensor = Self {
            rings: Rings::take(&mut bpf).map_err(object)?,
            watch: Watch::take(&mut bpf).map_err(object)?,
            loss,
            conns,
            coverage: Coverage {
                kernel: preflight::kernel_release(),
                plan: String::new(),
                scope: config.scope.as_ref().map(|p| p.display().to_string()),
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                rows: Vec::new(),
            },
            plan: Plan::B,
            bpf,
        };
        sensor.attach(config, &scope, &aya_btf)?;
        Ok(sensor)
    }

    fn attach(
        &mut self,
        config: &SensorConfig,
        scope: &Scope,
        btf: &AyaBtf,
    ) -> Result<(), LoadError> {
        let cgroup = File::open(&scope.dir).map_err(|source| LoadError::Io {
            what: format!("cannot open the cgroup {}", scope.dir.display()),
            source,
        })?;
        let mut results: BTreeMap<&str, Result<(), String>> = BTreeMap::new();
        for hook in HOOKS.iter().filter(|h| h.plan.is_none()) {
            let result = attach(&mut self.bpf, hook, &cgroup, btf);
            if let (true, Err(reason)) = (hook.vital, &result) {
                let (program, reason) = (hook.program.to_owned(), reason.clone());
                return Err(LoadError::Program { program, reason });
            }
            results.insert(hook.program, result);
        }
        let scope_dir = config.scope.as_ref().map(|_| scope.dir.as_path());
        if config.force_plan != Some(Plan::B) {
            let results_a = attach_plan(&mut self.bpf, Plan::A, config, &cgroup, btf);
            let opens = results_a.get("lsm_file_open").is_some_and(Result::is_ok);
            results.extend(results_a);
            // Without `bpf` in the kernel's list of LSMs the hooks attach and never fire.
            let fires = opens && canary::run(self, scope_dir)?.saw_file("lsm/file_open");
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
                let program: Option<&mut Lsm> = self
                    .bpf
                    .program_mut(hook.program)
                    .and_then(|p| p.try_into().ok());
                if let Some(program) = program {
                    // Not loaded is as good as unloaded.
                    drop(program.unload());
                }
            }
            results.extend(attach_plan(&mut self.bpf, Plan::B, config, &cgroup, btf));
        }
        let seen = canary::run(self, scope_dir)?;
        seen.prove(&mut results);
        self.coverage.plan = self.plan.name().to_owned();
        self.coverage.rows = rows(self.plan, &results);
        Ok(())
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

/// The coverage table from what became of each program.
fn rows(plan: Plan, results: &BTreeMap<&str, Result<(), String>>) -> Vec<CoverageRow> {
    let applies = |p: Option<Plan>| p.is_none_or(|p| p == plan);
    let hooks = HOOKS.iter().filter(|h| applies(h.plan)).map(|hook| {
        let state = match results.get(hook.program) {
            Some(Ok(())) => CoverageState::Live {
                hook: hook_name(hook),
            },
            Some(Err(reason)) => CoverageState::Missing {
                reason: format!("{}: {reason}", hook_name(hook)),
                blinds_verdicts: hook.judges,
            },
            None => CoverageState::Missing {
                reason: "not attached".to_owned(),
                blinds_verdicts: hook.judges,
            },
        };
        CoverageRow {
            area: hook.area,
            what: hook.what.to_owned(),
            state,
        }
    });
    let unseen = UNSEEN
        .iter()
        .filter(|(p, ..)| applies(*p))
        .map(|(_, area, what, reason)| {
            let state = CoverageState::Missing {
                reason: (*reason).to_owned(),
                blinds_verdicts: false,
            };
            CoverageRow {
                area: *area,
                what: (*what).to_owned(),
                state,
            }
        });
    hooks.chain(unseen).collect()
}

pub(super) fn hook_name(hook: &Hook) -> String {
    match hook.attach {
        Attach::Tracepoint(name) => format!("tp_btf/{name}"),
        Attach::Lsm(name) => format!("lsm/{name}"),
        Attach::Egress => "cgroup_skb/egress".to_owned(),
        Attach::Ingress => "cgroup_skb/ingress".to_owned(),
        Attach::SockAddr => format!("cgroup/{}", hook.program.trim_start_matches("sock_")),
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

fn attach_plan(
    bpf: &mut Ebpf,
    plan: Plan,
    config: &SensorConfig,
    cgroup: &File,
    btf: &AyaBtf,
) -> BTreeMap<&'static str, Result<(), String>> {
    HOOKS
        .iter()
        .filter(|h| h.plan == Some(plan))
        .map(|hook| {
            let wanted = hook.program != "syscall_exit" || config.syscall_exit;
            let result = if wanted {
                attach(bpf, hook, cgroup, btf)
            } else {
                Err("switched off in the configuration".to_owned())
            };
            (hook.program, result)
        })
        .collect()
}

fn attach(bpf: &mut Ebpf, hook: &Hook, cgroup: &File, btf: &AyaBtf) -> Result<(), String> {
    let Some(program) = bpf.program_mut(hook.program) else {
        return Err("it is missing from the object".to_owned());
    };
    let result: Result<(), ProgramError> = (|| {
        match hook.attach {
            Attach::Tracepoint(name) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(name, btf)?;
                program.attach()?;
            }
            Attach::Lsm(name) => {
                let program: &mut Lsm = program.try_into()?;
                program.load(name, btf)?;
                program.attach()?;
            }
            Attach::Egress | Attach::Ingress => {
                let direction = if hook.attach == Attach::Egress {
                    CgroupSkbAttachType::Egress
                } else {
                    CgroupSkbAttachType::Ingress
                };
                let program: &mut CgroupSkb = program.try_into()?;
                program.load()?;
                program.attach(cgroup, direction, CgroupAttachMode::Single)?;
            }
            Attach::SockAddr => {
                let program: &mut CgroupSockAddr = program.try_into()?;
                program.load()?;
                program.attach(cgroup, CgroupAttachMode::Single)?;
            }
        }
        Ok(())
    })();
    result.map_err(|error| chain(&error))
}

/// An error with its causes, on one line, cut where a verifier's log would fill the screen.
fn chain(error: &dyn std::error::Error) -> String {
    const MAX: usize = 1500;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().rev().nth(MAX) {
        // The end of the log is where the reason is.
        Some((at, _)) => format!("...{}", text.get(at..).unwrap_or_default()),
        None => text,
    }
}
