//! From what is known about a credential to what is said about it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use keytrail_model::alert::{
    Alert, Change, ExplainedUse, ExposureEvidence, Holder, Owner, Reason, UnexplainedUse, Verdict,
};
use keytrail_model::consumption::{Caller, Consumption, JoinStrength};
use keytrail_model::credential::{CredentialId, CredentialKind};
use keytrail_model::ids::{AlertId, HostId, RecordId};
use keytrail_model::process::Actor;
use keytrail_model::text::shown;

use crate::credential::{Credential, Use};
use crate::findings::{self, Finding};
use crate::host::Host;
use crate::input::UseState;
use crate::settings::Settings;
use crate::weigh::{Suspect, suspects};
use crate::{advice, descent, suppress};

mod parts;

pub(crate) use parts::{blank, owners_of};

/// A theft may be used this much before its egress: residual clock skew (design, "Time").
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// How much evidence an alert carries.
const MAX_EXPLAINED: usize = 8;
const MAX_UNEXPLAINED: usize = 16;
pub(crate) const MAX_REASONS: usize = 16;
const MAX_MISUSE: usize = 16;
const MAX_ACTORS: usize = 16;

/// Everything that a look at one credential may need.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) hosts: &'a BTreeMap<HostId, Host>,
    pub(crate) credentials: &'a BTreeMap<CredentialId, Credential>,
    /// The latest tick.
    pub(crate) now: Option<Timestamp>,
}

/// An open use that an alert answers for: its own, or a descendant's.
#[derive(Clone)]
pub(crate) struct OpenUse<'a> {
    pub(crate) of: &'a Use,
    /// The way down from the alert's credential, which is the first of it; empty for its own.
    pub(crate) via: Vec<CredentialId>,
}

impl OpenUse<'_> {
    fn unexplained(&self) -> Option<&Vec<String>> {
        match &self.of.state {
            UseState::Unexplained { because } => Some(because),
            _ => None,
        }
    }

    /// True when the record names the credential itself.
    fn exact(&self) -> bool {
        let usage = &self.of.usage;
        usage.strength > JoinStrength::PrincipalAddressTime && usage.credential.kind().is_exact()
    }
}

/// What the evidence about one credential amounts to.
pub(crate) struct Weighed<'a> {
    view: View<'a>,
    id: &'a CredentialId,
    state: &'a Credential,
    verdict: Verdict,
    suspect: Option<Suspect<'a>>,
    open: Vec<OpenUse<'a>>,
    findings: Vec<Finding>,
}

/// What caused a fresh look, for the alert's history.
pub(crate) struct Cause {
    pub(crate) time: Timestamp,
    pub(crate) record: Option<RecordId>,
}

/// Weighs everything known about `id`. `None`: nothing to say and nothing was said before.
pub(crate) fn weigh<'a>(
    view: View<'a>,
    id: &'a CredentialId,
    state: &'a Credential,
) -> Option<Weighed<'a>> {
    let open = open_uses(view, id, state);
    let suspects = all_suspects(view, id, state, &open);
    let (core, suspect) = core(view, &open, suspects);
    let mut findings = findings::of(view, id, state, suspect.as_ref());
    findings.extend(core);
    findings.sort_by(|a, b| {
        b.reason
            .verdict
            .cmp(&a.reason.verdict)
            .then(a.reason.cmp(&b.reason))
    });
    let verdict = findings
        .first()
        .map_or(Verdict::Closed, |first| first.reason.verdict);
    if verdict == Verdict::Closed && state.alert.is_none() {
        return None;
    }
    Some(Weighed {
        view,
        id,
        state,
        verdict,
        suspect,
        open,
        findings,
    })
}

/// What the join itself says: nothing, or one finding, and who is held responsible.
fn core<'a>(
    view: View<'a>,
    open: &[OpenUse<'a>],
    suspects: Vec<Suspect<'a>>,
) -> (Option<Finding>, Option<Suspect<'a>>) {
    let unexplained: Vec<&OpenUse<'_>> =
        open.iter().filter(|u| u.unexplained().is_some()).collect();
    let last = |exact: bool| {
        let fitting = unexplained.iter().filter(|u| !exact || u.exact());
        fitting.map(|u| u.of.usage.time).max()
    };
    let first = |exact: bool| {
        let fitting = unexplained.iter().filter(|u| !exact || u.exact());
        fitting.map(|u| u.of.usage.time).min()
    };
    // `confirmed` needs the egress before the use, skew allowed.
    let before = |used: Timestamp| {
        move |suspect: &Suspect<'_>| {
            let left = suspect.egress.first().map(|e| e.time);
            left.is_some_and(|left| left <= used.checked_add(SKEW).unwrap_or(used))
        }
    };
    let records = |exact: bool| -> Vec<String> {
        let fitting = unexplained.iter().filter(|u| !exact || u.exact());
        fitting.map(|u| u.of.usage.id.to_string()).collect()
    };
    if let (Some(used), Some(first)) = (last(true), first(true)) {
        return match suspects.into_iter().find(before(used)) {
            Some(suspect) => {
                let text = "a use that nothing accounts for, after a suspicious exposure";
                let finding = Finding::new(Verdict::Confirmed, "unexplained-after-exposure", text)
                    .at(first, records(true));
                (Some(finding), Some(suspect))
            }
            None => {
                let text = "a use that nothing accounts for";
                let finding = Finding::new(Verdict::UnexplainedUse, "unexplained", text)
                    .at(first, records(true));
                (Some(finding), None)
            }
        };
    }
    // A record that names only an account may tell of a person elsewhere: it counts beside a
    // suspicious exposure, and is never `confirmed`.
    if let (Some(used), Some(first)) = (last(false), first(false))
        && let Some(at) = suspects.iter().position(before(used))
    {
        let text = "a use under the same account that nothing accounts for, after a suspicious \
                    exposure; the record does not name the credential itself";
        let finding = Finding::new(Verdict::UnexplainedUse, "unexplained-account", text)
            .at(first, records(false));
        return (Some(finding), suspects.into_iter().nth(at));
    }
    if let Some(suspect) = suspects.into_iter().find(Suspect::took) {
        let text = "read by an unexpected reader, then egress outside the affinity set";
        let record = suspect.holding.exposure.event.to_string();
        let finding = Finding::new(Verdict::Suspected, "exposed-then-left", text)
            .at(suspect.holding.exposure.time, vec![record]);
        return (Some(finding), Some(suspect));
    }
    (findings::long_undecided(view, open), None)
}

/// Open uses that the alert of `id` answers for: its own, and those of descendants that no sensor
/// saw.
fn open_uses<'a>(view: View<'a>, id: &CredentialId, state: &'a Credential) -> Vec<OpenUse<'a>> {
    let mut open: Vec<OpenUse<'a>> = Vec::new();
    if state.answers_to.is_none() {
        let own = state.open_uses();
        open.extend(own.map(|of| OpenUse {
            of,
            via: Vec::new(),
        }));
    }
    for child in &state.troubled {
        let Some(lower) = view.credentials.get(child) else {
            continue;
        };
        let way = descent::answerable(view.credentials, child);
        let Some((_, via)) = way.filter(|(owner, _)| owner == id) else {
            continue;
        };
        open.extend(lower.open_uses().map(|of| OpenUse {
            of,
            via: via.clone(),
        }));
    }
    open.sort_by_key(|u| (u.of.usage.time, u.of.usage.id.clone()));
    open
}

/// Suspicious exposures of the credential itself and, where there are uses to answer for, of what
/// it descends from: whoever has the key can make the session.
fn all_suspects<'a>(
    view: View<'a>,
    id: &'a CredentialId,
    state: &'a Credential,
    open: &[OpenUse<'a>],
) -> Vec<Suspect<'a>> {
    let mut all = suspects(view, id, state);
    if open.is_empty() || state.parents.is_empty() {
        return all;
    }
    for ancestor in descent::ancestors(view.credentials, id) {
        if let Some(state) = view.credentials.get(ancestor)
            && ancestor.kind().is_exact()
        {
            all.extend(suspects(view, ancestor, state));
        }
    }
    all
}

impl Weighed<'_> {
    /// Writes the alert, continuing the history of `before`.
    pub(crate) fn alert(self, cause: &Cause) -> Alert {
        let exposure = self.exposure();
        let unexplained = self.unexplained();
        let explained = self.explained();
        let totals = self.state.totals();
        let egress = self
            .suspect
            .as_ref()
            .map(|s| s.egress.clone())
            .unwrap_or_default();
        let title = self.title(exposure.as_ref(), &unexplained);
        let (first_seen, last_seen) = self
            .span(exposure.as_ref())
            .unwrap_or((cause.time, cause.time));
        let also_exposed = self.also_exposed();
        let count = |wanted: bool| {
            let fitting = self
                .open
                .iter()
                .filter(|u| u.unexplained().is_some() == wanted);
            u64::try_from(fitting.count()).unwrap_or(u64::MAX)
        };
        let mut alert = Alert {
            strength: self.strength(),
            first_seen,
            last_seen,
            exposure,
            egress,
            also_exposed,
            explained,
            explained_total: totals.explained,
            unexplained,
            unexplained_total: count(true),
            undecided_total: count(false),
            holders: holders(self.view.hosts, self.state),
            owners: self.owners(),
            blind_spots: self.blind_spots(),
            reasons: self.reasons(),
            misuse: self.misuse(),
            ancestors: descent::ancestors(self.view.credentials, self.id)
                .into_iter()
                .cloned()
                .collect(),
            ..blank(
                AlertId::derive(&self.id.to_string()),
                self.verdict,
                self.id,
                title,
            )
        };
        alert.actions = advice::actions(&alert, &self.state.children, &self.edges());
        alert.techniques = advice::techniques(&alert);
        alert.history = history(self.state.alert.as_deref(), &alert, cause);
        suppress::apply(self.view.settings, self.view.now, &mut alert);
        alert
    }

    fn title(&self, exposure: Option<&ExposureEvidence>, unexplained: &[UnexplainedUse]) -> String {
        let credential = format!("{} {}", self.id.kind().title(), shown(self.id.value(), 200));
        let who = exposure.map_or_else(
            || "an unknown party".to_owned(),
            |exposure| shown(&exposure.actor.label(), 160).to_string(),
        );
        let from = unexplained
            .first()
            .map_or_else(String::new, |u| from_where(&u.usage));
        let reason = self.findings.first().map(|f| &f.reason);
        match (self.verdict, reason.map(|r| (r.code.as_str(), &r.text))) {
            (Verdict::Closed, _) | (_, None) => {
                format!("Every use of {credential} is accounted for by now")
            }
            (Verdict::Confirmed, _) => format!("{credential} was taken by {who} and used{from}"),
            (Verdict::UnexplainedUse, Some(("unexplained", _))) => {
                format!("{credential} was used{from}, which no holder's connection accounts for")
            }
            (Verdict::Suspected, Some(("exposed-then-left", _))) => {
                format!("{credential} was read by {who}, which then connected elsewhere")
            }
            (Verdict::BlindSpot, Some(("undecided-too-long", _))) => {
                format!("Uses of {credential} cannot be judged")
            }
            (_, Some((_, text))) => format!("{credential}: {text}"),
        }
    }

    fn reasons(&self) -> Vec<Reason> {
        let reasons = self.findings.iter().map(|finding| finding.reason.clone());
        reasons.take(MAX_REASONS).collect()
    }

    /// How the uses that the alert rests on are tied to the credential.
    fn strength(&self) -> Option<JoinStrength> {
        let open = self.open.iter().map(|u| u.of.usage.strength).max();
        open.or_else(|| self.state.uses.values().map(|u| u.usage.strength).max())
    }

    /// The exposure held responsible.
    fn exposure(&self) -> Option<ExposureEvidence> {
        let suspected = self.suspect.as_ref().map(|s| &s.holding.exposure);
        let found = self.findings.iter().find_map(|f| f.exposure.as_ref());
        suspected.or(found).cloned()
    }

    /// Explained uses that a finding rests on.
    fn misuse(&self) -> Vec<ExplainedUse> {
        let keys: std::collections::BTreeSet<_> =
            self.findings.iter().flat_map(|f| &f.uses).collect();
        let uses = keys.into_iter().filter_map(|(credential, key)| {
            let state = self.view.credentials.get(credential)?;
            explained_use(state.uses.get(key)?)
        });
        uses.take(MAX_MISUSE).collect()
    }

    fn explained(&self) -> Vec<ExplainedUse> {
        let all = self.state.uses.values().rev();
        let all = all.filter_map(|u| explained_use(u));
        let mut latest: Vec<ExplainedUse> = all.take(MAX_EXPLAINED).collect();
        latest.reverse();
        latest
    }

    fn unexplained(&self) -> Vec<UnexplainedUse> {
        let all = self.open.iter().filter_map(|u| {
            Some(UnexplainedUse {
                usage: u.of.usage.clone(),
                because: u.unexplained()?.clone(),
                via: u.via.clone(),
            })
        });
        all.take(MAX_UNEXPLAINED).collect()
    }

    /// Event times of the first and the latest evidence. Only the evidence itself counts, not what
    /// made us look (JN-2).
    fn span(&self, exposure: Option<&ExposureEvidence>) -> Option<(Timestamp, Timestamp)> {
        let uses = self.open.iter().map(|u| u.of.usage.time);
        let found = self
            .findings
            .iter()
            .flat_map(|f| [f.reason.first, f.last.unwrap_or(f.reason.first)]);
        let egress = self
            .suspect
            .iter()
            .flat_map(|s| s.egress.iter().map(|e| e.time));
        let mut times: Vec<Timestamp> = exposure
            .map(|e| e.time)
            .into_iter()
            .chain(uses)
            .chain(egress)
            .chain(found)
            .collect();
        if times.is_empty() {
            times.extend(self.state.uses.keys().map(|(time, _)| *time));
            times.extend(self.state.first_exposure());
        }
        Some((times.iter().min().copied()?, times.iter().max().copied()?))
    }

    fn also_exposed(&self) -> Vec<CredentialId> {
        let Some(suspect) = &self.suspect else {
            return Vec::new();
        };
        let Some(host) = self.view.hosts.get(suspect.host) else {
            return Vec::new();
        };
        host.held_by(suspect.unit)
            .filter(|other| *other != self.id)
            .cloned()
            .collect()
    }

    /// The account on the endpoint. (People directories come with the owners part.)
    fn owners(&self) -> Vec<Owner> {
        let actors: Vec<&Actor> = match &self.suspect {
            Some(suspect) => vec![&suspect.holding.exposure.actor],
            None if self.findings.iter().any(|f| f.exposure.is_some()) => {
                let exposures = self.findings.iter().filter_map(|f| f.exposure.as_ref());
                exposures.map(|exposure| &exposure.actor).collect()
            }
            None => self
                .state
                .holders
                .values()
                .flatten()
                .map(|(_, h)| &h.exposure.actor)
                .collect(),
        };
        owners_of(actors.into_iter())
    }

    /// Daemons that the suspect asked to act for it, and through what.
    fn edges(&self) -> Vec<(String, String)> {
        let unit = self.suspect.as_ref().and_then(|suspect| {
            let host = self.view.hosts.get(suspect.host)?;
            host.units.get(suspect.unit)
        });
        unit.map(|unit| unit.edges.keys().cloned().collect())
            .unwrap_or_default()
    }

    fn blind_spots(&self) -> Vec<String> {
        let mut spots = Vec::new();
        if self.id.kind() == CredentialKind::GithubToken && self.state.uses.is_empty() {
            spots.push(
                "no record of a use of this GitHub token has come in; if no audit log of GitHub is \
                 connected, its uses are not seen"
                    .to_owned(),
            );
        }
        for id in self.state.holders.keys() {
            let Some(host) = self.view.hosts.get(id) else {
                continue;
            };
            if let Some((_, coverage)) = &host.coverage
                && !coverage.can_judge()
            {
                spots.push(format!("{id}: its kernel does not show every connection"));
            }
            if host.made_opaque_socket() {
                spots.push(format!(
                    "{id}: a watched tree made a socket over which nothing can be seen"
                ));
            }
            if !host.gaps.is_empty() {
                spots.push(format!(
                    "{id}: {} stretches of time were not seen",
                    host.gaps.len()
                ));
            }
        }
        if let Some(suspect) = &self.suspect {
            for (daemon, through) in self.edges() {
                spots.push(format!(
                    "{}: asked {} through {} to act for it; what that did is not seen as its own",
                    suspect.host,
                    shown(&daemon, 40),
                    shown(&through, 200)
                ));
            }
        }
        let undecided = self
            .open
            .iter()
            .filter(|u| u.unexplained().is_none())
            .count();
        if undecided > 0 {
            spots.push(format!("{undecided} uses cannot be judged yet"));
        }
        spots
    }
}

/// Everyone who holds the credential, for people.
pub(crate) fn holders(hosts: &BTreeMap<HostId, Host>, state: &Credential) -> Vec<Holder> {
    state
        .holders
        .iter()
        .filter_map(|(id, holdings)| {
            let first = holdings.iter().map(|(_, h)| h.span.first).min()?;
            let last = holdings.iter().map(|(_, h)| h.span.last).max()?;
            let mut actors: Vec<String> = holdings
                .iter()
                .map(|(_, h)| h.exposure.actor.label())
                .collect();
            actors.sort_unstable();
            actors.dedup();
            actors.truncate(MAX_ACTORS);
            let egress = hosts.get(id).map(Host::known_egress).unwrap_or_default();
            Some(Holder {
                host: id.clone(),
                first,
                last,
                actors,
                egress,
            })
        })
        .collect()
}

/// An explained use, as evidence.
fn explained_use(u: &Use) -> Option<ExplainedUse> {
    match (&u.state, &u.via) {
        (
            UseState::Explained {
                connection,
                address,
                by,
            },
            Some(via),
        ) => Some(ExplainedUse {
            usage: u.usage.clone(),
            host: via.host.clone(),
            connection: connection.clone(),
            name: via.name.clone(),
            by: by.clone(),
            address_match: *address,
        }),
        _ => None,
    }
}

/// ` from 198.51.100.66, AS64500 Example Hosting, NL`, or nothing where the record does not say.
pub(crate) fn from_where(usage: &Consumption) -> String {
    match &usage.caller {
        Caller::Address { address } => match usage.network.as_ref().filter(|n| !n.is_empty()) {
            Some(network) => format!(" from {address}, {network}"),
            None => format!(" from {address}"),
        },
        Caller::Service { .. } | Caller::Unknown => String::new(),
    }
}

pub(crate) fn history(before: Option<&Alert>, alert: &Alert, cause: &Cause) -> Vec<Change> {
    let mut history = before
        .map(|before| before.history.clone())
        .unwrap_or_default();
    let from = before.map(|before| before.verdict);
    if from != Some(alert.verdict) {
        let reason = alert.reasons.first().map_or_else(
            || "later evidence accounts for every use".to_owned(),
            |reason| reason.text.clone(),
        );
        history.push(Change {
            time: cause.time,
            from,
            to: alert.verdict,
            reason,
            record: cause.record.clone(),
        });
    }
    history
}
