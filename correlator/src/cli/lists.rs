//! Lists and pages of the command line, besides alerts.

use std::fmt::Write as _;

use keytrail_join::{Lineage, UseState};
use keytrail_model::coverage::CoverageState;
use keytrail_model::text::shown;

use super::render::{call, caller, time, verdict};
use super::{Style, networks};
use crate::api::{AlertList, CredentialList, SensorList, SensorView, Status};
use crate::sources::SourceStatus;

/// Writing to a String cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}

pub(super) fn alerts(list: &AlertList, style: Style) -> String {
    let mut out = String::new();
    if list.alerts.is_empty() {
        return "no alerts\n".to_owned();
    }
    for alert in &list.alerts {
        put!(
            out,
            "{}  {}  {}{}\n    {}",
            style.faint(alert.id),
            time(alert.last_seen),
            verdict(alert.verdict, style),
            alert
                .blast_radius
                .map_or_else(String::new, |score| format!("  blast radius {score}")),
            shown(&alert.title, 300)
        );
    }
    if list.next_cursor.is_some() {
        put!(out, "(there are more: raise --limit)");
    }
    out
}

pub(super) fn credentials(list: &CredentialList) -> String {
    let mut out = String::new();
    if list.credentials.is_empty() {
        return "no sensor and no cloud log has named a credential\n".to_owned();
    }
    for credential in &list.credentials {
        let account = credential.account.as_deref().unwrap_or("-");
        put!(out, "{}  account {account}", credential.id);
    }
    if list.total > list.credentials.len() as u64 {
        put!(out, "({} in all)", list.total);
    }
    out
}

pub(super) fn lineage(lineage: &Lineage, style: Style) -> String {
    let mut out = String::new();
    let account = lineage.account.as_deref().unwrap_or("unknown");
    put!(
        out,
        "{}  account {}",
        style.head(&lineage.credential),
        shown(account, 64)
    );
    if let Some(parent) = &lineage.parent {
        put!(out, "minted from {parent}");
    }
    for child in &lineage.children {
        put!(out, "minted {child}");
    }
    put!(out, "\n{}", style.head("Holders"));
    for view in &lineage.holders {
        let watermark = view.watermark.map_or_else(|| "never".to_owned(), time);
        let holder = &view.holder;
        put!(
            out,
            "  {}  since {}, facts until {watermark}",
            shown(&holder.host.0, 100),
            time(holder.first)
        );
        for actor in &view.actors {
            put!(out, "    {}", shown(&actor.label(), 200));
        }
    }
    if lineage.holders.is_empty() {
        put!(
            out,
            "  none: no sensor has seen it, so its uses cannot be judged"
        );
    }
    let t = &lineage.totals;
    put!(
        out,
        "\n{}  {} explained, {} unexplained, {} undecided, {} by declared holders, {} before any sensor, {} by the provider",
        style.head("Uses"),
        t.explained,
        t.unexplained,
        t.undecided,
        t.declared,
        t.unwatched,
        t.service_side
    );
    for view in &lineage.uses {
        let state = match &view.state {
            UseState::Unwatched => style.faint("unwatched  "),
            UseState::Undecided { .. } => style.warn("undecided  "),
            UseState::ServiceSide { .. } => style.faint("provider   "),
            UseState::Explained { .. } => style.good("explained  "),
            UseState::Declared { .. } => style.good("declared   "),
            UseState::Unexplained { .. } => style.alarm("UNEXPLAINED"),
        };
        let (usage, from) = (&view.usage, caller(&view.usage));
        put!(
            out,
            "  {}  {state}  {} from {from}",
            time(usage.time),
            call(usage)
        );
        let why: Vec<String> = match &view.state {
            UseState::Undecided { waiting_for: lines }
            | UseState::Unexplained { because: lines } => lines.clone(),
            UseState::Explained { by, .. } => vec![format!("by {by}")],
            UseState::Declared { holder } => vec![format!("by {holder}, a declared holder")],
            UseState::Unwatched | UseState::ServiceSide { .. } => Vec::new(),
        };
        for line in why {
            put!(out, "      {}", shown(&line, 300));
        }
    }
    usual(&mut out, lineage, style);
    for alert in &lineage.alerts {
        put!(out, "alert {alert}");
    }
    out
}

/// What is usual with a credential, and what was not.
fn usual(out: &mut String, lineage: &Lineage, style: Style) {
    if !lineage.baseline.is_empty() {
        put!(out, "\n{}", style.head("Usual"));
    }
    for one in &lineage.baseline {
        let state = if one.warm {
            style.good("warm")
        } else {
            style.faint("learning")
        };
        put!(
            out,
            "  {}  {state}: {} uses over {} h; {} actions, {} regions, {} places of resources; {}% of it new of late",
            shown(&one.agent.to_string(), 200),
            one.learned,
            one.hours,
            one.actions.len(),
            one.regions.len(),
            one.resources.len(),
            one.recent_percent
        );
    }
    if !lineage.deviations.is_empty() {
        put!(out, "\n{}", style.head("Out of the ordinary"));
    }
    for one in &lineage.deviations {
        put!(
            out,
            "  {}  score {}: {}",
            shown(&one.record, 200),
            one.score,
            shown(&one.reasons.join("; "), 400)
        );
    }
    for line in &lineage.posture {
        put!(out, "\n{}  {}", style.head("Posture"), shown(line, 400));
    }
}

pub(super) fn sensors(list: &SensorList, style: Style) -> String {
    let mut out = String::new();
    if list.sensors.is_empty() {
        return "no sensor has spoken yet\n".to_owned();
    }
    for sensor in &list.sensors {
        one_sensor(&mut out, sensor, style);
    }
    out
}

fn one_sensor(out: &mut String, sensor: &SensorView, style: Style) {
    let lag = sensor.watermark_lag_ms.map_or_else(
        || "no watermark yet".to_owned(),
        |ms| format!("{}.{:03} s behind", ms / 1000, (ms % 1000).abs()),
    );
    let judge = if sensor.can_judge {
        style.good("sees what verdicts need")
    } else {
        style.warn("does not see all that verdicts need")
    };
    put!(
        out,
        "{}  last seen {}, {lag}, {} facts, {judge}",
        style.head(shown(&sensor.host.0, 100)),
        time(sensor.last_seen),
        sensor.events
    );
    if let Some(coverage) = &sensor.coverage {
        put!(
            out,
            "  kernel {}, plan {}, agent {}, {}",
            shown(&coverage.kernel, 80),
            shown(&coverage.plan, 20),
            shown(&coverage.agent_version, 40),
            coverage.scope.as_ref().map_or_else(
                || "whole machine".to_owned(),
                |scope| format!("only {}", shown(scope, 200))
            )
        );
        for row in &coverage.rows {
            match &row.state {
                CoverageState::Live { hook } => {
                    put!(
                        out,
                        "    {}  {} ({})",
                        style.good("seen    "),
                        shown(&row.what, 120),
                        shown(hook, 80)
                    );
                }
                CoverageState::Missing { reason, .. } => {
                    put!(
                        out,
                        "    {}  {}: {}",
                        style.warn("NOT SEEN"),
                        shown(&row.what, 120),
                        shown(reason, 200)
                    );
                }
            }
        }
    }
    for gap in &sensor.gaps {
        let count = gap.count.map_or_else(String::new, |n| format!("{n} "));
        put!(
            out,
            "    {}  {count}records of {:?}, {} to {}: {}",
            style.warn("LOST    "),
            gap.what,
            time(gap.from),
            time(gap.to),
            shown(&gap.reason, 200)
        );
    }
}

pub(super) fn status(status: &Status, style: Style) -> String {
    let mut out = String::new();
    put!(
        out,
        "correlator {}, up {} s since {}",
        shown(&status.version, 40),
        status.uptime_seconds,
        time(status.started)
    );
    let counts = |map: &std::collections::BTreeMap<String, u64>| {
        let all: Vec<String> = map.iter().map(|(k, v)| format!("{v} {k}")).collect();
        if all.is_empty() {
            "none".to_owned()
        } else {
            all.join(", ")
        }
    };
    let store = &status.store;
    put!(out, "alerts: {}", counts(&store.alerts));
    put!(out, "uses: {}", counts(&store.uses));
    put!(
        out,
        "store: {} inputs, {} bytes as JSON, {} bytes stored; database {} bytes, write-ahead log {} bytes",
        store.log_inputs,
        store.log_raw_bytes,
        store.log_stored_bytes,
        store.database_bytes,
        store.wal_bytes
    );
    out.push_str(&sources(&status.sources, style));
    out.push_str(&networks::files(&status.networks, style));
    put!(out, "\n{}", style.head("Since start"));
    for counter in status.counters.iter().filter(|c| c.value > 0) {
        put!(
            out,
            "{:>12}  {}: {}",
            counter.value,
            shown(&counter.name, 60),
            style.faint(shown(&counter.meaning, 300))
        );
    }
    out
}

/// Sources, each with what it has brought.
pub(super) fn sources(all: &[SourceStatus], style: Style) -> String {
    let mut out = String::new();
    if all.is_empty() {
        return "no source of cloud-side uses is configured\n".to_owned();
    }
    for source in all {
        let state = if source.watching {
            style.good("watching")
        } else {
            style.alarm("NOT WATCHING")
        };
        put!(
            out,
            "{} ({}, {}) {state} {}",
            style.head(shown(&source.name, 40)),
            shown(&source.source, 64),
            shown(&source.via, 20),
            shown(&source.folder, 300)
        );
        if let Some(problem) = &source.problem {
            put!(out, "  {}", style.warn(shown(problem, 400)));
        }
        let lag = match (source.newest_event, source.lag_seconds) {
            (Some(newest), Some(lag)) => format!("newest of {}, {lag} s behind", time(newest)),
            _ => "nothing yet".to_owned(),
        };
        put!(
            out,
            "  {} records, {} uses, {} seen before; {lag}",
            source.records,
            source.uses,
            source.duplicates
        );
        for (what, reasons) in [("no use", &source.skipped), ("refused", &source.rejected)] {
            for (reason, n) in reasons {
                put!(out, "  {what}: {n} {}", shown(reason, 60));
            }
        }
        for file in &source.unfinished {
            let mark = if file.stuck { "STUCK" } else { "waits" };
            put!(
                out,
                "  {mark} {}: {}",
                shown(&file.path, 300),
                shown(&file.reason, 300)
            );
        }
    }
    out
}
