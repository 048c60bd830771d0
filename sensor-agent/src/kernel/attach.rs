//! Attaching programs, and the table of what that gave.

use std::{collections::BTreeMap, fs::File};

use aya::{
    Btf as AyaBtf, Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSockAddr, Lsm,
        ProgramError, links::FdLink,
    },
};
use keytrail_model::coverage::{CoverageRow, CoverageState};

use super::{
    hooks::{Attach, HOOKS, Hook, Plan, UNSEEN},
    load::{Pinned, SensorConfig},
};

/// What became of each program.
pub(super) type Results = BTreeMap<&'static str, Result<(), String>>;

/// What keeps programs and links alive.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) bpf: Option<Ebpf>,
    pub(super) links: BTreeMap<&'static str, FdLink>,
    pub(super) pinned: Option<Pinned>,
}

impl Kept {
    pub(super) fn attach_plan(
        &mut self,
        plan: Plan,
        config: &SensorConfig,
        cgroup: &File,
        btf: &AyaBtf,
    ) -> Results {
        HOOKS
            .iter()
            .filter(|h| h.plan == Some(plan))
            .map(|hook| {
                let wanted = hook.program != "syscall_exit" || config.syscall_exit;
                let result = if wanted {
                    self.attach(hook, cgroup, btf)
                } else {
                    Err("switched off in the configuration".to_owned())
                };
                (hook.program, result)
            })
            .collect()
    }

    pub(super) fn attach(
        &mut self,
        hook: &Hook,
        cgroup: &File,
        btf: &AyaBtf,
    ) -> Result<(), String> {
        let bpf = self.bpf.as_mut().ok_or("the object is not loaded")?;
        let link = attach(bpf, hook.program, hook, cgroup, btf).or_else(|reason| {
            let instead = hook.instead.ok_or(reason)?;
            attach(bpf, instead, hook, cgroup, btf)
        })?;
        self.links.insert(hook.program, link);
        Ok(())
    }

    pub(super) fn unload(&mut self, hook: &Hook) {
        self.links.remove(hook.program);
        let program: Option<&mut Lsm> = self
            .bpf
            .as_mut()
            .and_then(|bpf| bpf.program_mut(hook.program)?.try_into().ok());
        if let Some(program) = program {
            // Not loaded is as good as unloaded.
            drop(program.unload());
        }
    }
}

fn attach(
    bpf: &mut Ebpf,
    name: &str,
    hook: &Hook,
    cgroup: &File,
    btf: &AyaBtf,
) -> Result<FdLink, String> {
    let Some(program) = bpf.program_mut(name) else {
        return Err("it is missing from the object".to_owned());
    };
    let result: Result<FdLink, AttachError> = (|| {
        Ok(match hook.attach {
            Attach::Tracepoint(name) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(name, btf)?;
                let id = program.attach()?;
                program.take_link(id)?.into()
            }
            Attach::Lsm(name) => {
                let program: &mut Lsm = program.try_into()?;
                program.load(name, btf)?;
                let id = program.attach()?;
                program.take_link(id)?.into()
            }
            Attach::Egress | Attach::Ingress => {
                let direction = if hook.attach == Attach::Egress {
                    CgroupSkbAttachType::Egress
                } else {
                    CgroupSkbAttachType::Ingress
                };
                let program: &mut CgroupSkb = program.try_into()?;
                program.load()?;
                let id = program.attach(cgroup, direction, CgroupAttachMode::Single)?;
                program.take_link(id)?.try_into()?
            }
            Attach::SockAddr => {
                let program: &mut CgroupSockAddr = program.try_into()?;
                program.load()?;
                let id = program.attach(cgroup, CgroupAttachMode::Single)?;
                program.take_link(id)?.try_into()?
            }
        })
    })();
    result.map_err(|error| chain(&error))
}

/// A program could not be attached, or its link not be taken.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Link(#[from] aya::programs::links::LinkError),
}

/// The coverage table from what became of each program.
pub(super) fn rows(plan: Plan, results: &Results) -> Vec<CoverageRow> {
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

/// An error with its causes, on one line, cut where a verifier's log would fill the screen.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
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
