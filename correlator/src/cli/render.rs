//! An alert as a person on call reads it: what, who, when, why, what cannot be seen, what to do.
//!
//! Everything that came from an endpoint or a log goes through [`shown`]: a package may be named
//! like a terminal command.

use std::fmt::Write as _;

use jiff::Timestamp;
use keytrail_model::alert::{Alert, EgressEvidence, ExposureEvidence, UnexplainedUse, Verdict};
use keytrail_model::consumption::{Caller, Consumption, JoinStrength, Outcome};
use keytrail_model::fact::{ExposureSource, NameSource};
use keytrail_model::process::{Actor, Confidence};
use keytrail_model::text::shown;

use super::Style;

mod why;

/// Characters shown of a foreign text.
const TEXT: usize = 200;
/// Width of the labels at the left.
const LABEL: usize = 12;

/// A line of the timeline, before it is put in order.
struct Moment {
    time: Timestamp,
    what: &'static str,
    lines: Vec<String>,
    loud: bool,
}

/// Renders one alert.
#[must_use]
pub fn render_alert(alert: &Alert, style: Style) -> String {
    let mut out = String::new();
    headline(&mut out, alert, style);
    why::suppressed(&mut out, alert, style);
    who(&mut out, alert);
    timeline(&mut out, alert, style);
    why::reasons(&mut out, alert, style);
    tree(&mut out, alert, style);
    list(&mut out, style, "Not seen", &alert.blind_spots);
    actions(&mut out, alert, style);
    history(&mut out, alert, style);
    records(&mut out, alert, style);
    out
}

/// Writing to a String cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}

/// Writes one finished line.
fn put_line(out: &mut String, line: &str) {
    put!(out, "{line}");
}

fn text(text: &str) -> String {
    shown(text, TEXT).to_string()
}

pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

pub(super) fn verdict(verdict: Verdict, style: Style) -> String {
    let name = verdict.as_str().to_uppercase();
    match verdict {
        Verdict::Confirmed | Verdict::UnexplainedUse | Verdict::SameSourceMisuse => {
            style.alarm(name)
        }
        Verdict::Suspected | Verdict::OutsideEnvelope | Verdict::ExposedServer => style.warn(name),
        Verdict::BlindSpot | Verdict::Posture | Verdict::Closed => style.head(name),
    }
}

fn headline(out: &mut String, alert: &Alert, style: Style) {
    put!(
        out,
        "{}  {}  {}",
        verdict(alert.verdict, style),
        text(&alert.severity),
        style.faint(alert.id)
    );
    put!(out, "{}\n", style.head(shown(&alert.title, 500)));
}

fn row(out: &mut String, label: &str, value: impl std::fmt::Display) {
    put!(out, "{label:<LABEL$}{value}");
}

fn who(out: &mut String, alert: &Alert) {
    let mut credential = alert.credential.to_string();
    if let Some(account) = &alert.account {
        let _ = write!(credential, " of account {}", text(account));
    }
    if let Some(strength) = alert.strength {
        credential.push_str(match strength {
            JoinStrength::ExactId => ", joined by its exact id",
            JoinStrength::IdThroughLookup => ", joined by its id through a look-up",
            JoinStrength::PrincipalAddressTime => ", joined by principal, address and time only",
        });
    }
    row(out, "Credential", credential);
    for ancestor in &alert.ancestors {
        row(out, "Descends", ancestor);
    }
    if let Some(exposure) = &alert.exposure {
        actor(out, &exposure.actor);
        row(out, "Host", text(&exposure.event.host.0));
    }
    for holder in &alert.holders {
        let egress: Vec<String> = holder.egress.iter().map(ToString::to_string).collect();
        let mut line = format!("{} since {}", text(&holder.host.0), time(holder.first));
        if !egress.is_empty() {
            let _ = write!(line, ", goes out as {}", egress.join(", "));
        }
        row(out, "Holder", line);
    }
    for owner in &alert.owners {
        let (name, method) = (text(&owner.name), text(&owner.method));
        row(
            out,
            "Owner",
            format!("{name} ({method}, {})", confidence(owner.confidence)),
        );
    }
    for other in &alert.also_exposed {
        row(out, "Also exposed", format!(" {other}"));
    }
}

fn actor(out: &mut String, actor: &Actor) {
    if let Some(agent) = &actor.agent {
        let version = agent
            .version
            .as_ref()
            .map_or_else(String::new, |v| format!(" {}", text(v)));
        row(
            out,
            "Agent",
            format!(
                "{}{version} ({}; {})",
                text(&agent.name),
                text(&agent.method),
                confidence(agent.confidence)
            ),
        );
    }
    if let Some(server) = &actor.mcp_server {
        let name = server.name.as_ref().map_or_else(
            || "in no configuration".to_owned(),
            |name| format!("\"{}\"", text(name)),
        );
        let config = server.config.as_ref().map_or_else(String::new, |path| {
            format!(", configured in {}", text(path))
        });
        row(out, "MCP server", format!("{name}{config}"));
        if let Some(package) = &server.package {
            let line = format!(
                "{} ({})",
                text(&package.to_string()),
                text(&package.ecosystem)
            );
            row(out, "Package", line);
        }
    }
    if let Some(user) = &actor.user {
        let name = user
            .name
            .as_ref()
            .map_or_else(|| "?".to_owned(), |n| text(n));
        let login = match user.login_uid {
            Some(login) if login != user.uid => format!(", logged in as uid {login}"),
            _ => String::new(),
        };
        row(out, "User", format!("{name} (uid {}{login})", user.uid));
    }
}

pub(super) fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Low => "low confidence",
        Confidence::Medium => "medium confidence",
        Confidence::High => "high confidence",
    }
}

fn timeline(out: &mut String, alert: &Alert, style: Style) {
    let mut moments: Vec<Moment> = Vec::new();
    moments.extend(alert.exposure.as_ref().map(exposure));
    moments.extend(alert.egress.iter().map(egress));
    moments.extend(explained(alert));
    moments.extend(alert.misuse.iter().map(why::misuse));
    moments.extend(alert.unexplained.iter().map(unexplained));
    moments.sort_by_key(|moment| moment.time);
    if moments.is_empty() {
        return;
    }
    put!(out, "\n{}", style.head("What happened (UTC)"));
    for moment in moments {
        let label = format!("{:<12}", moment.what);
        let label = if moment.loud {
            style.alarm(label)
        } else {
            style.head(label)
        };
        let mut lines = moment.lines.iter();
        let first = lines.next().map_or("", String::as_str);
        put!(out, "  {}  {label} {first}", time(moment.time));
        for line in lines {
            put!(out, "  {:23}  {:12} {line}", "", "");
        }
    }
    let more = alert
        .unexplained_total
        .saturating_sub(alert.unexplained.len() as u64);
    if more > 0 {
        put!(out, "  and {more} more unexplained uses");
    }
    if alert.undecided_total > 0 {
        let n = alert.undecided_total;
        put!(out, "  {n} use(s) wait for a sensor and are not judged yet");
    }
}

fn exposure(exposure: &ExposureEvidence) -> Moment {
    let by = exposure.actor.lineage.first().map_or_else(
        || format!("process {}", exposure.actor.unit.pid),
        |process| format!("{} (pid {})", text(&process.exe), process.key.pid),
    );
    let first = match &exposure.source {
        ExposureSource::File {
            path,
            entry,
            version_known,
            ..
        } => {
            let entry = entry
                .as_ref()
                .map_or_else(String::new, |e| format!(" {}", text(e)));
            let doubt = if *version_known {
                ""
            } else {
                " (the file changed meanwhile)"
            };
            format!("{by} read {}{entry}{doubt}", text(path))
        }
        ExposureSource::Environment { variable } => {
            format!("{by} started with it in ${}", text(variable))
        }
        ExposureSource::Socket { path } => format!("{by} asked for it at {}", text(path)),
        ExposureSource::Metadata { address } => {
            format!("{by} asked the metadata service at {address} for it")
        }
        ExposureSource::Process { victim, exe, via } => format!(
            "{by} took it from {} (pid {}) by {}",
            text(exe),
            victim.pid,
            text(via)
        ),
    };
    let mut lines = vec![first];
    if exposure.unexpected_reader {
        lines.push("not a reader that this kind of credential expects".to_owned());
    }
    Moment {
        time: exposure.time,
        what: "exposed",
        lines,
        loud: exposure.unexpected_reader,
    }
}

fn egress(egress: &EgressEvidence) -> Moment {
    let to = match (&egress.name, egress.name_source) {
        (Some(name), Some(NameSource::TlsServerName)) => {
            format!("{} (TLS server name) at {}", text(name), egress.remote)
        }
        (Some(name), Some(NameSource::Dns)) => {
            format!("{} (DNS) at {}", text(name), egress.remote)
        }
        (Some(name), None) => format!("{} at {}", text(name), egress.remote),
        (None, _) => format!("{} (no name seen)", egress.remote),
    };
    let bytes = match (egress.bytes_sent, egress.bytes_received) {
        (Some(sent), Some(received)) => {
            format!("{} sent, {} received", bytes(sent), bytes(received))
        }
        (Some(sent), None) => format!("{} sent", bytes(sent)),
        (None, _) => "still open, bytes not known yet".to_owned(),
    };
    Moment {
        time: egress.time,
        what: "went out",
        lines: vec![format!("{} connected to {to}", text(&egress.exe)), bytes],
        loud: true,
    }
}

/// Explained uses, collapsed: one moment for each host and caller, at the time of its first.
fn explained(alert: &Alert) -> Vec<Moment> {
    let mut groups: Vec<(String, Vec<&keytrail_model::alert::ExplainedUse>)> = Vec::new();
    for one in &alert.explained {
        let key = format!("{} on {}", text(&one.by), text(&one.host.0));
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, uses)) => uses.push(one),
            None => groups.push((key, vec![one])),
        }
    }
    let older = alert
        .explained_total
        .saturating_sub(alert.explained.len() as u64);
    let mut moments = Vec::new();
    for (by, uses) in groups {
        let Some(first) = uses.iter().map(|one| one.usage.time).min() else {
            continue;
        };
        let mut calls: Vec<String> = Vec::new();
        for one in &uses {
            let call = call(&one.usage);
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
        let mut lines = vec![format!(
            "{} use(s) by {by}: its connections account for them",
            uses.len()
        )];
        lines.push(calls.join(", "));
        if moments.is_empty() && older > 0 {
            lines.push(format!("and {older} earlier ones"));
        }
        moments.push(Moment {
            time: first,
            what: "explained",
            lines,
            loud: false,
        });
    }
    moments
}

fn unexplained(one: &UnexplainedUse) -> Moment {
    let usage = &one.usage;
    let mut lines = vec![format!(
        "{}{} from {}",
        call(usage),
        outcome(&usage.outcome),
        caller(usage)
    )];
    let mut detail = Vec::new();
    if let Some(region) = &usage.region {
        detail.push(format!("region {}", text(region)));
    }
    if let Some(agent) = &usage.user_agent {
        detail.push(format!("client \"{}\"", text(agent)));
    }
    if let Some(principal) = &usage.principal {
        detail.push(format!("as {}", text(principal)));
    }
    if !detail.is_empty() {
        lines.push(detail.join(", "));
    }
    if !usage.resources.is_empty() {
        let all: Vec<String> = usage.resources.iter().map(|r| text(r)).collect();
        lines.push(format!("on {}", all.join(", ")));
    }
    if let Some(minted) = &usage.minted {
        lines.push(format!("made a new credential: {minted}"));
    }
    if !one.via.is_empty() {
        let way: Vec<String> = one.via.iter().map(ToString::to_string).collect();
        lines.push(format!("by way of {}", way.join(" -> ")));
    }
    for why in &one.because {
        lines.push(format!("why unexplained: {}", shown(why, 400)));
    }
    Moment {
        time: usage.time,
        what: "UNEXPLAINED",
        lines,
        loud: true,
    }
}

pub(super) fn call(usage: &Consumption) -> String {
    let service = usage
        .service
        .strip_suffix(".amazonaws.com")
        .unwrap_or(&usage.service);
    format!("{}:{}", text(service), text(&usage.action))
}

/// Where a use came from: `192.0.2.66, AS64500 Example Hosting, NL`.
pub(super) fn caller(usage: &Consumption) -> String {
    match &usage.caller {
        Caller::Address { address } => match usage.network.as_ref().filter(|n| !n.is_empty()) {
            Some(network) => format!("{address}, {network}"),
            None => address.to_string(),
        },
        Caller::Service { service } => format!("the service {}", text(service)),
        Caller::Unknown => "an address that the record does not name".to_owned(),
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Success => String::new(),
        Outcome::Failure(code) => format!(" (refused: {})", text(code)),
    }
}

fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut rest = count;
    let mut before = 0;
    let mut unit = None;
    for name in units {
        if rest < 1024 {
            break;
        }
        before = rest % 1024;
        rest /= 1024;
        unit = Some(name);
    }
    match unit {
        None => format!("{count} bytes"),
        Some(unit) => format!("{rest}.{} {unit} ({count} bytes)", before * 10 / 1024),
    }
}

fn tree(out: &mut String, alert: &Alert, style: Style) {
    let Some(exposure) = &alert.exposure else {
        return;
    };
    if exposure.actor.lineage.is_empty() {
        return;
    }
    put!(out, "\n{}", style.head("Process tree"));
    for (depth, process) in exposure.actor.lineage.iter().rev().enumerate() {
        let argv: Vec<String> = process
            .argv
            .iter()
            .map(|a| shown(a, 80).to_string())
            .collect();
        let line = if argv.is_empty() {
            text(&process.exe)
        } else {
            shown(&argv.join(" "), TEXT).to_string()
        };
        let mark = if process.key == exposure.actor.unit {
            "  <- held responsible"
        } else {
            ""
        };
        let indent = "   ".repeat(depth);
        let branch = if depth == 0 { "" } else { "└─ " };
        put!(
            out,
            "  {indent}{branch}{line}  {}{mark}",
            style.faint(format!("pid {}", process.key.pid))
        );
    }
}

fn list(out: &mut String, style: Style, head: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    put!(out, "\n{}", style.head(head));
    for item in items {
        put!(out, "  - {}", shown(item, 400));
    }
}

fn actions(out: &mut String, alert: &Alert, style: Style) {
    if alert.actions.is_empty() {
        return;
    }
    put!(out, "\n{}", style.head("What to do, in this order"));
    for (number, action) in (1..).zip(&alert.actions) {
        put!(out, "  {number}. {}", shown(&action.what, 400));
        if let Some(how) = &action.how {
            put!(out, "     {}", shown(how, 400));
        }
        if let Some(risk) = &action.risk {
            put!(
                out,
                "     {}",
                style.faint(format!("may break: {}", shown(risk, 400)))
            );
        }
    }
}

fn history(out: &mut String, alert: &Alert, style: Style) {
    if alert.history.len() < 2 {
        return;
    }
    put!(out, "\n{}", style.head("How the verdict came about"));
    for change in &alert.history {
        put!(
            out,
            "  {}  {}: {}",
            time(change.time),
            change.to,
            shown(&change.reason, 400)
        );
    }
}

fn records(out: &mut String, alert: &Alert, style: Style) {
    let mut ids: Vec<String> = Vec::new();
    ids.extend(alert.exposure.iter().map(|e| e.event.to_string()));
    ids.extend(alert.egress.iter().map(|e| e.event.to_string()));
    for one in &alert.explained {
        ids.push(format!("{} <- {}", one.usage.id, one.connection));
    }
    ids.extend(alert.unexplained.iter().map(|one| one.usage.id.to_string()));
    for one in &alert.misuse {
        ids.push(format!("{} <- {}", one.usage.id, one.connection));
    }
    for record in alert.reasons.iter().flat_map(|reason| &reason.records) {
        if !ids.iter().any(|id| id.split(' ').next() == Some(record)) {
            ids.push(record.clone());
        }
    }
    put!(out, "\n{}", style.head("Records"));
    for id in ids {
        put!(out, "  {}", style.faint(text(&id)));
    }
    if !alert.techniques.is_empty() {
        let all: Vec<String> = alert.techniques.iter().map(|t| text(t)).collect();
        put!(
            out,
            "  {}",
            style.faint(format!("MITRE ATT&CK and ATLAS {}", all.join(", ")))
        );
    }
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
