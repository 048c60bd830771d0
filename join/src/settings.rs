//! The operator's settings: part of the recorded input. The same settings, the same verdicts.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keytrail_model::affinity::under;
use keytrail_model::alert::Verdict;
use keytrail_model::consumption::{Caller, Consumption};
use keytrail_model::credential::CredentialId;
use serde::{Deserialize, Serialize};

use crate::baseline::policy::Policy;
use crate::pattern::fits;

/// What an operator declares about the organisation. Every list may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Egress networks of the organisation (VPN concentrators, proxies, NAT pools): a use from one
    /// of them fits any of its hosts.
    pub declared_egress: Vec<IpNet>,
    /// Forward proxies, by name (a suffix on a label boundary) or address: a connection to one may
    /// have carried a call to any name, if the call then came from a declared egress.
    pub proxies: Vec<String>,
    /// Names of hosts that every agent may talk to without suspicion (model APIs, package
    /// registries, the organisation's own), as suffixes on a label boundary.
    pub expected_destinations: Vec<String>,
    /// Networks that may call the organisation's MCP servers, beside their own host.
    pub server_callers: Vec<IpNet>,
    /// Holders without a sensor that hold a copy on purpose: CI, cloud agents, partners.
    pub external_holders: Vec<ExternalHolder>,
    /// Decoy credentials: nobody has a reason to touch them.
    pub honeytokens: Vec<Honeytoken>,
    /// Known findings that are to be quiet for a time.
    pub suppressions: Vec<Suppression>,
    /// When a baseline may speak.
    pub baseline: BaselineSettings,
    /// What agents are allowed to do, beside what is learned.
    pub policy: Policy,
    /// Whether posture alone (a long-lived key in an agent's hands) makes an alert. It is shown
    /// with the credential in any case.
    pub posture_alerts: bool,
    /// How long facts and uses are kept, in days. One more than the join's window of 45, so that
    /// what is used on its last day still finds its exposure.
    pub retention_days: u32,
    /// After how many hours of indecision a blind spot is reported.
    pub undecided_hours: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            declared_egress: Vec::new(),
            proxies: Vec::new(),
            expected_destinations: Vec::new(),
            server_callers: Vec::new(),
            external_holders: Vec::new(),
            honeytokens: Vec::new(),
            suppressions: Vec::new(),
            baseline: BaselineSettings::default(),
            policy: Policy::default(),
            posture_alerts: false,
            retention_days: 46,
            undecided_hours: 24,
        }
    }
}

impl Settings {
    /// True when `address` is one of the organisation's declared egress addresses.
    pub(crate) fn is_declared(&self, address: IpAddr) -> bool {
        self.declared_egress
            .iter()
            .any(|net| net.contains(&address))
    }

    /// True when a use came out of the organisation's own egress: declared here, or in a pool of
    /// the table of networks when it was taken in.
    pub(crate) fn is_own(&self, usage: &Consumption) -> bool {
        let pooled = usage.network.as_ref().is_some_and(|n| n.pool.is_some());
        let declared = match usage.caller {
            Caller::Address { address } => self.is_declared(address),
            Caller::Service { .. } | Caller::Unknown => false,
        };
        pooled || declared
    }

    /// True when a connection goes to a declared proxy.
    pub(crate) fn is_proxy(&self, name: Option<&str>, remote: IpAddr) -> bool {
        self.proxies.iter().any(|proxy| {
            proxy
                .parse::<IpAddr>()
                .is_ok_and(|address| address == remote)
                || name.is_some_and(|name| under(name, proxy))
        })
    }

    /// The declared external holder that `usage` fits, if any.
    pub(crate) fn external_holder(&self, usage: &Consumption) -> Option<&ExternalHolder> {
        self.external_holders
            .iter()
            .find(|holder| holder.fits(usage))
    }

    /// The decoy that `credential` is, if it is one.
    pub(crate) fn honeytoken(&self, credential: &CredentialId) -> Option<&Honeytoken> {
        self.honeytokens
            .iter()
            .find(|token| token.credential == *credential)
    }
}

/// A holder without a sensor, and the envelope in which it uses its copy. A use that fits is
/// accounted for; an empty list fits anything, but at least networks, systems or countries must be
/// named, or the holder fits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalHolder {
    /// What people call it.
    pub name: String,
    /// Credential ids (`aws-access-key:AKIA...`), `*` allowed.
    pub credentials: Vec<String>,
    /// Principals in the provider's words, `*` allowed: for sessions, whose ids change.
    pub principals: Vec<String>,
    /// From which networks.
    pub networks: Vec<IpNet>,
    /// From which autonomous systems, where a table of networks is loaded.
    pub autonomous_systems: Vec<u32>,
    /// With which clients, `*` allowed.
    pub user_agents: Vec<String>,
    /// In which regions.
    pub regions: Vec<String>,
    /// From this hour (UTC, 0 to 23) until before that one.
    pub hours: Option<(u8, u8)>,
}

impl ExternalHolder {
    fn fits(&self, usage: &Consumption) -> bool {
        let credential = usage.credential.to_string();
        let named = self.credentials.iter().any(|p| fits(p, &credential))
            || usage
                .principal
                .as_ref()
                .is_some_and(|who| self.principals.iter().any(|p| fits(p, who)));
        let Caller::Address { address } = usage.caller else {
            return false;
        };
        let system = usage.network.as_ref().and_then(|network| network.asn);
        let placed = self.networks.iter().any(|net| net.contains(&address))
            || system.is_some_and(|asn| self.autonomous_systems.contains(&asn));
        let client = self.user_agents.is_empty()
            || usage
                .user_agent
                .as_ref()
                .is_some_and(|agent| self.user_agents.iter().any(|p| fits(p, agent)));
        let region = self.regions.is_empty()
            || usage
                .region
                .as_ref()
                .is_some_and(|region| self.regions.contains(region));
        let timely = self.hours.is_none_or(|(from, until)| {
            let hour = hour_of_day(usage.time);
            if from <= until {
                (from..until).contains(&hour)
            } else {
                hour >= from || hour < until
            }
        });
        named && placed && client && region && timely
    }
}

/// Hour of the day, UTC.
pub(crate) fn hour_of_day(time: Timestamp) -> u8 {
    u8::try_from(time.to_zoned(TimeZone::UTC).hour()).unwrap_or(0)
}

/// A decoy credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Honeytoken {
    /// Which.
    pub credential: CredentialId,
    /// Where it was put, in words.
    #[serde(default)]
    pub name: String,
    /// Who may read it (the security team's scanner): file names of executables, `*` allowed.
    #[serde(default)]
    pub readers: Vec<String>,
    /// From where it may be used (a drill).
    #[serde(default)]
    pub networks: Vec<IpNet>,
}

/// A known finding that is to be quiet for a time. Everything named must fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suppression {
    /// Its name.
    pub name: String,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub why: String,
    /// When it ends.
    pub until: Timestamp,
    /// Which credential (`aws-access-key:AKIA...`); no pattern: a suppression is narrow.
    pub credential: CredentialId,
    /// Which verdict; a graver one is never suppressed.
    pub verdict: Verdict,
    /// Only when every reason has one of these codes.
    #[serde(default)]
    pub codes: Vec<String>,
    /// Only when every unexplained or unusual use came from these networks.
    #[serde(default)]
    pub networks: Vec<IpNet>,
    /// Only when the exposure was on one of these hosts.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// When a baseline may speak, and how loud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BaselineSettings {
    /// Hours between the first and the last learned use before a baseline may speak.
    pub warm_hours: u32,
    /// Learned uses before it may speak.
    pub warm_uses: u32,
    /// Score from which a deviation is `same-source-misuse`.
    pub threshold: u32,
    /// So many different secrets read ...
    pub mass_secrets: u32,
    /// ... within so many minutes are a mass enumeration.
    pub mass_minutes: u32,
    /// Behaviour learned within so many days counts as recent (slow drift).
    pub drift_days: u32,
}

impl Default for BaselineSettings {
    fn default() -> Self {
        Self {
            warm_hours: 4,
            warm_uses: 20,
            threshold: 6,
            mass_secrets: 5,
            mass_minutes: 10,
            drift_days: 14,
        }
    }
}
