//! Rules that keep a known finding quiet: narrow, for a time, owned, and shown in the alert.

use jiff::Timestamp;
use keytrail_model::alert::{Alert, Suppressed, Verdict};
use keytrail_model::consumption::{Caller, Consumption};

use crate::settings::{Settings, Suppression};

/// Marks `alert` as suppressed if a rule says so at `now` (the latest tick, or the alert's own
/// latest evidence before any).
pub(crate) fn apply(settings: &Settings, now: Option<Timestamp>, alert: &mut Alert) {
    let now = now.unwrap_or(alert.last_seen);
    let rule = settings
        .suppressions
        .iter()
        .find(|rule| rule.until > now && rule.fits(alert));
    if let Some(rule) = rule {
        alert.severity = Verdict::Closed.severity().to_owned();
        alert.suppressed = Some(Suppressed {
            rule: rule.name.clone(),
            owner: rule.owner.clone(),
            why: rule.why.clone(),
            until: rule.until,
        });
    }
}

impl Suppression {
    fn fits(&self, alert: &Alert) -> bool {
        let from_there = |usage: &Consumption| match usage.caller {
            Caller::Address { address } => self.networks.iter().any(|net| net.contains(&address)),
            Caller::Service { .. } | Caller::Unknown => false,
        };
        let uses_fit = self.networks.is_empty()
            || (alert.unexplained_total <= alert.unexplained.len() as u64
                && alert.unexplained.iter().all(|u| from_there(&u.usage))
                && alert.misuse.iter().all(|u| from_there(&u.usage)));
        let host_fits = self.hosts.is_empty()
            || alert
                .exposure
                .as_ref()
                .is_some_and(|exposure| self.hosts.contains(&exposure.event.host.0));
        let codes_fit =
            self.codes.is_empty() || alert.reasons.iter().all(|r| self.codes.contains(&r.code));
        alert.credential == self.credential
            && alert.verdict == self.verdict
            && alert.verdict != Verdict::Closed
            && uses_fit
            && host_fits
            && codes_fit
    }
}
