//! How far out of the ordinary a use is, and in what.

use jiff::{SignedDuration, Timestamp};
use keytrail_model::consumption::ActionClass;
use keytrail_model::credential::CredentialId;
use keytrail_model::text::shown;
use serde::{Deserialize, Serialize};

use super::behaviour::{Behaviour, Observation, Profile, class_name, parent};
use super::profile::AgentKey;
use crate::settings::{BaselineSettings, hour_of_day};

/// A rate is unusual when an hour like it comes about once in a million by the average.
const RARE: f64 = 1e-6;
/// Fewer uses in an hour are never an unusual rate.
const RATE_FLOOR: u64 = 20;
/// Hours of activity before a rate, and uses before an hour of the day, can be unusual.
const RATE_HOURS: u64 = 8;
const HOURS_USES: u64 = 100;
/// An agent reads a narrow set of secrets when it read few different ones often.
const NARROW_SECRETS: usize = 10;

/// A use that is out of the ordinary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deviation {
    pub(crate) credential: CredentialId,
    pub(crate) who: AgentKey,
    /// The name of what weighs most.
    pub(crate) code: String,
    pub(crate) score: u32,
    pub(crate) reasons: Vec<String>,
}

/// Adds up reasons.
struct Tally<'a> {
    settings: &'a BaselineSettings,
    code: &'static str,
    score: u32,
    reasons: Vec<String>,
}

impl Tally<'_> {
    fn add(&mut self, score: u32, reason: impl Into<String>) {
        self.score += score;
        self.reasons.push(reason.into());
    }

    /// A reason that is enough by itself.
    fn decide(&mut self, code: &'static str, reason: impl Into<String>) {
        self.code = code;
        self.score += self.settings.threshold;
        self.reasons.insert(0, reason.into());
    }
}

/// Scores one use by what was learned before it. `reads`: how many different secrets its agent read
/// within the time for a mass enumeration, this use included.
pub(crate) fn score(
    profile: &Profile,
    settings: &BaselineSettings,
    time: Timestamp,
    seen: &Observation,
    reads: u32,
) -> Option<Deviation> {
    if seen.allowed {
        return None;
    }
    let mut tally = Tally {
        settings,
        code: "outside-baseline",
        score: 0,
        reasons: Vec::new(),
    };
    let own = profile.agent(&seen.who);
    install_script(&mut tally, seen);
    mass_reads(&mut tally, own, seen, reads);
    compare(&mut tally, profile, time, seen);
    (tally.score > 0).then(|| Deviation {
        credential: seen.credential.clone(),
        who: seen.who.clone(),
        code: tally.code.to_owned(),
        score: tally.score,
        reasons: tally.reasons,
    })
}

/// Many different secrets in a short time, by somebody who never did.
fn mass_reads(tally: &mut Tally<'_>, own: Option<&Behaviour>, seen: &Observation, reads: u32) {
    let many = tally.settings.mass_secrets;
    if seen.class != ActionClass::SecretRead || reads < many {
        return;
    }
    let minutes = tally.settings.mass_minutes;
    let text = format!("read {reads} different secrets within {minutes} minutes");
    let known = own.map_or(0, |own| own.secrets.len());
    // Nobody expected this reader to have the credential at all: no warm-up is needed.
    if seen.unexpected || seen.install.is_some() {
        if known < many as usize {
            tally.decide("mass-secret-read", text);
        }
        return;
    }
    let warm = own.is_some_and(|own| is_warm(tally.settings, own));
    if warm && reads >= many.saturating_mul(2) && known.saturating_mul(4) < reads as usize {
        tally.decide("mass-secret-read", text);
    } else if known < many as usize {
        tally.add(1, text);
    }
}

/// A package's install script has no business changing anything with somebody's credential.
fn install_script(tally: &mut Tally<'_>, seen: &Observation) {
    let Some(command) = &seen.install else { return };
    let grave = matches!(
        seen.class,
        ActionClass::SecretRead
            | ActionClass::Mint
            | ActionClass::Revoke
            | ActionClass::PermissionChange
    );
    if seen.unexpected && (grave || writes(&seen.action)) {
        let action = shown(&seen.action, 80);
        let command = shown(command, 80);
        tally.decide(
            "install-script-use",
            format!("{action} by a script that runs because of `{command}`"),
        );
    }
}

/// True when the words of an action say that it changes something.
fn writes(action: &str) -> bool {
    let action = action.to_ascii_lowercase();
    [
        "create", "add", "publish", "push", "post", "put", "update", "write", "delete", "fork",
    ]
    .iter()
    .any(|word| {
        action
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|part| part.starts_with(word))
    })
}

/// True when a baseline has seen enough to speak.
pub(crate) fn is_warm(settings: &BaselineSettings, behaviour: &Behaviour) -> bool {
    behaviour.learned >= u64::from(settings.warm_uses)
        && behaviour.span_hours() >= i64::from(settings.warm_hours)
}

/// Compares with the agent's own baseline, or with what anybody does with the credential.
fn compare(tally: &mut Tally<'_>, profile: &Profile, time: Timestamp, seen: &Observation) {
    let settings = tally.settings;
    let own = profile.agent(&seen.who);
    let warm: Vec<&Behaviour> = match own {
        Some(own) if is_warm(settings, own) => vec![own],
        // Still in its own warm-up, or never seen: what others do is all there is to compare with.
        _ => profile
            .agents()
            .map(|(_, behaviour)| behaviour)
            .filter(|behaviour| is_warm(settings, behaviour))
            .collect(),
    };
    if warm.is_empty() {
        return;
    }
    let foreign = !own.is_some_and(|own| is_warm(settings, own));
    if foreign {
        tally.add(2, "an agent that this credential's baseline does not know");
        if seen.unexpected {
            tally.add(2, "not one of the credential's expected readers");
        }
    }
    let nobody = |has: &dyn Fn(&Behaviour) -> bool| !warm.iter().any(|b| has(b));
    if nobody(&|b| b.services.has(&seen.service)) {
        tally.add(1, format!("service {} is new", shown(&seen.service, 80)));
    }
    let class = class_name(seen.class);
    if nobody(&|b| b.classes.has(class)) {
        let weight = match seen.class {
            ActionClass::SecretRead | ActionClass::Mint | ActionClass::PermissionChange => 3,
            ActionClass::Revoke => 2,
            ActionClass::IdentityCheck | ActionClass::List | ActionClass::ModelCall => 1,
            ActionClass::Other => 0,
        };
        if weight > 0 {
            tally.add(weight, format!("the first {class}"));
        }
    }
    if let Some(region) = &seen.region
        && nobody(&|b| b.regions.has(region))
        && nobody(&|b| b.regions.len() == 0)
    {
        tally.add(1, format!("region {} is new", shown(region, 40)));
    }
    if seen.failed && nobody(&|b| b.calls.has(&seen.call())) {
        tally.add(1, "refused, and never tried before");
    }
    secrets(tally, &warm, seen);
    if let Some(own) = own.filter(|_| !foreign) {
        timing(tally, own, time);
    }
}

/// A secret that the agent never touched, where it is known for touching few.
fn secrets(tally: &mut Tally<'_>, warm: &[&Behaviour], seen: &Observation) {
    if seen.class != ActionClass::SecretRead {
        return;
    }
    for resource in &seen.resources {
        let known = warm.iter().any(|b| b.secrets.has(resource));
        let narrow = warm
            .iter()
            .all(|b| (1..=NARROW_SECRETS).contains(&b.secrets.len()));
        if known || !narrow {
            continue;
        }
        let name = shown(resource, 120);
        let folder = parent(resource);
        let near = warm
            .iter()
            .any(|b| b.secrets.names().any(|known| parent(known) == folder));
        if near {
            tally.add(
                1,
                format!("secret {name} was never read, others beside it were"),
            );
        } else {
            tally.decide(
                "new-secret",
                format!("secret {name} was never read, nor anything beside it"),
            );
        }
        return;
    }
}

/// Unusual hours and rates.
fn timing(tally: &mut Tally<'_>, own: &Behaviour, time: Timestamp) {
    let hour = hour_of_day(time);
    let near = [(hour + 23) % 24, hour, (hour + 1) % 24];
    let active = near.iter().any(|hour| own.by_hour.contains_key(hour));
    if own.learned >= HOURS_USES && !active {
        tally.add(1, format!("never active around {hour}:00 UTC"));
    }
    let count = own.in_hour_of(time) + 1;
    if own.hours >= RATE_HOURS && count >= RATE_FLOOR {
        let average = to_f64(own.rate_milli()) / 1_000.0;
        if poisson_tail(average, count) < RARE {
            tally.add(
                2,
                format!("{count} uses in an hour, {average:.1} are usual"),
            );
        }
    }
}

fn to_f64(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

/// P(X >= k) for a Poisson variable with this mean: one minus the sum of e^-m m^i / i! below k.
/// Summed from k upwards, so that tiny tails keep their digits.
fn poisson_tail(mean: f64, k: u64) -> f64 {
    if k == 0 {
        return 1.0;
    }
    if mean <= 0.0 {
        return 0.0;
    }
    let mut log_term = -mean;
    for i in 1..=k {
        log_term += (mean / to_f64(i)).ln();
    }
    let mut term = log_term.exp();
    let mut sum = 0.0;
    let mut i = k;
    // Terms fall once i is above the mean; below it the tail is large anyway.
    while i < k + 10_000 && (term > sum * 1e-12 || to_f64(i) < mean) {
        sum += term;
        i += 1;
        term *= mean / to_f64(i);
    }
    sum.min(1.0)
}

/// Since when reads count for a mass enumeration that ends at `time`.
pub(crate) fn mass_since(settings: &BaselineSettings, time: Timestamp) -> Timestamp {
    let minutes = SignedDuration::from_mins(i64::from(settings.mass_minutes));
    time.checked_sub(minutes).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_tails() {
        // Reference values: scipy.stats.poisson.sf(k - 1, mean).
        for (mean, k, expected) in [
            (1.0, 1, 0.632_120_558_8),
            (4.0, 10, 0.008_132_242_8),
            (10.0, 30, 2.506_6e-7),
            (2.0, 0, 1.0),
            (0.0, 5, 0.0),
        ] {
            let found = poisson_tail(mean, k);
            let close = (found - expected).abs() <= expected * 0.01;
            assert!(close, "{mean} {k}: {found} instead of {expected}");
        }
    }

    #[test]
    fn words_that_change_something() {
        for (action, expected) in [
            ("repo.create", true),
            ("POST /user/repos", true),
            ("git.push", true),
            ("git.clone", false),
            ("GET /user", false),
            ("ListBuckets", false),
            ("CreateAccessKey", true),
        ] {
            assert_eq!(writes(action), expected, "{action}");
        }
    }
}
