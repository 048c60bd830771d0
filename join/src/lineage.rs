//! Credential -> holders -> uses, for people and the API.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use keytrail_model::alert::Holder;
use keytrail_model::consumption::Consumption;
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::{AlertId, HostId};
use keytrail_model::process::Actor;
use serde::{Deserialize, Serialize};

use crate::baseline::behaviour::{Behaviour, List};
use crate::baseline::profile::AgentKey;
use crate::baseline::{BaselineView, DeviationView, score};
use crate::credential::Credential;
use crate::findings;
use crate::host::Host;
use crate::input::UseState;
use crate::settings::Settings;
use crate::verdict;

/// Everything known about one credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lineage {
    /// Which credential.
    pub credential: CredentialId,
    /// Account it belongs to, where its id says so.
    pub account: Option<String>,
    /// The credential it was minted from.
    pub parent: Option<CredentialId>,
    /// Every credential that it directly descends from.
    #[serde(default)]
    pub parents: Vec<CredentialId>,
    /// Credentials minted from it.
    pub children: Vec<CredentialId>,
    /// Who holds it.
    pub holders: Vec<HolderView>,
    /// Uses, latest first; at most 256.
    pub uses: Vec<UseView>,
    /// Counts per state over all uses.
    pub totals: Totals,
    /// Alerts about it.
    pub alerts: Vec<AlertId>,
    /// What is usual for each agent that uses it.
    #[serde(default)]
    pub baseline: Vec<BaselineView>,
    /// Uses out of the ordinary, latest first; at most 64.
    #[serde(default)]
    pub deviations: Vec<DeviationView>,
    /// What could be better about it, in words.
    #[serde(default)]
    pub posture: Vec<String>,
}

/// Uses by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Totals {
    /// Accounted for.
    pub explained: u64,
    /// Accounted for by nothing.
    pub unexplained: u64,
    /// Waiting.
    pub undecided: u64,
    /// Before any sensor saw the credential.
    pub unwatched: u64,
    /// By the provider itself.
    pub service_side: u64,
    /// Accounted for by a declared holder without a sensor.
    #[serde(default)]
    pub declared: u64,
}

/// A host that holds the credential, and who held it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HolderView {
    /// The host.
    pub holder: Holder,
    /// The latest exposures there; at most 16.
    pub actors: Vec<Actor>,
    /// How far this host's facts reach.
    pub watermark: Option<Timestamp>,
}

/// A use and what is thought of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UseView {
    /// The cloud record.
    pub usage: Consumption,
    /// What is thought of it.
    pub state: UseState,
}

/// Most uses shown.
const MAX_SHOWN: usize = 256;
/// Most actors shown per host.
const MAX_ACTORS: usize = 16;

/// Most deviations shown.
const MAX_DEVIATIONS: usize = 64;

pub(crate) fn baseline(settings: &Settings, state: &Credential) -> Vec<BaselineView> {
    let names = |list: &List| list.names().take(MAX_SHOWN).cloned().collect();
    let drift = SignedDuration::from_hours(24 * i64::from(settings.baseline.drift_days));
    let view = |(who, b): (&AgentKey, &Behaviour)| {
        let since = b.last.and_then(|last| last.checked_sub(drift).ok());
        BaselineView {
            agent: who.clone(),
            warm: score::is_warm(&settings.baseline, b),
            hours: b.span_hours(),
            learned: b.learned,
            first: b.first,
            last: b.last,
            actions: names(&b.calls),
            regions: names(&b.regions),
            resources: names(&b.resources),
            networks: names(&b.networks),
            recent_percent: since.map_or(0, |since| b.recent_percent(since)),
        }
    };
    let learner = state.learner.iter();
    let agents = learner.flat_map(|learner| learner.profile().agents());
    agents.map(view).collect()
}

fn deviations(state: &Credential) -> Vec<DeviationView> {
    let mut all: Vec<DeviationView> = state
        .deviations()
        .map(|(key, deviation)| DeviationView {
            record: key.1.to_string(),
            agent: deviation.who.clone(),
            score: deviation.score,
            reasons: deviation.reasons.clone(),
        })
        .collect();
    all.reverse();
    all.truncate(MAX_DEVIATIONS);
    all
}

pub(crate) fn of(
    settings: &Settings,
    id: &CredentialId,
    state: &Credential,
    hosts: &BTreeMap<HostId, Host>,
) -> Lineage {
    let holders = verdict::holders(hosts, state)
        .into_iter()
        .map(|holder| {
            let mut actors: Vec<(Timestamp, Actor)> = state
                .holders
                .get(&holder.host)
                .into_iter()
                .flatten()
                .map(|(_, h)| (h.span.last, h.exposure.actor.clone()))
                .collect();
            actors.sort_by_key(|(last, _)| std::cmp::Reverse(*last));
            actors.truncate(MAX_ACTORS);
            let watermark = hosts.get(&holder.host).and_then(|host| host.watermark);
            HolderView {
                holder,
                actors: actors.into_iter().map(|(_, actor)| actor).collect(),
                watermark,
            }
        })
        .collect();
    Lineage {
        credential: id.clone(),
        account: id.aws_account(),
        parent: state.parents.keys().next().cloned(),
        parents: state.parents.keys().cloned().collect(),
        children: state.children.iter().cloned().collect(),
        holders,
        uses: state
            .uses
            .values()
            .rev()
            .take(MAX_SHOWN)
            .map(|u| UseView {
                usage: u.usage.clone(),
                state: u.state.clone(),
            })
            .collect(),
        totals: state.totals(),
        alerts: state.alert.iter().map(|alert| alert.id).collect(),
        baseline: baseline(settings, state),
        deviations: deviations(state),
        posture: findings::posture(id, state)
            .map(|finding| finding.reason.text)
            .into_iter()
            .collect(),
    }
}
