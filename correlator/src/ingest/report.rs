//! One clear line a failure, and no flood: a peer that fails in the same way again and again is
//! reported once a minute with a count.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

const QUIET: Duration = Duration::from_mins(1);
/// How many (peer, kind) pairs are remembered; beyond that the oldest are forgotten.
const MAX_REMEMBERED: usize = 1024;

/// Reports refusals.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    seen: Mutex<HashMap<(IpAddr, &'static str), Seen>>,
}

#[derive(Debug)]
struct Seen {
    last: Instant,
    held_back: u64,
}

impl Reporter {
    /// Logs a refusal of `peer`, unless the same kind was logged for it within the last minute.
    pub(super) fn refused(&self, peer: IpAddr, kind: &'static str, what: &str) {
        if let Some(held_back) = self.due(peer, kind, Instant::now()) {
            warn!(%peer, kind, held_back, "sensor refused: {what}");
        }
    }

    /// How many were held back since the last line, or `None` when this one is held back too.
    fn due(&self, peer: IpAddr, kind: &'static str, now: Instant) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = seen.get_mut(&(peer, kind)) {
            if now.duration_since(entry.last) < QUIET {
                entry.held_back += 1;
                return None;
            }
            entry.last = now;
            return Some(std::mem::take(&mut entry.held_back));
        }
        if seen.len() >= MAX_REMEMBERED {
            seen.retain(|_, entry| now.duration_since(entry.last) < QUIET);
            if seen.len() >= MAX_REMEMBERED {
                seen.clear();
            }
        }
        seen.insert(
            (peer, kind),
            Seen {
                last: now,
                held_back: 0,
            },
        );
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_failure_is_one_line_a_minute() {
        let reporter = Reporter::default();
        let peer = IpAddr::from([127, 0, 0, 1]);
        let start = Instant::now();
        assert_eq!(reporter.due(peer, "expired", start), Some(0));
        assert_eq!(reporter.due(peer, "expired", start), None);
        assert_eq!(reporter.due(peer, "expired", start), None);
        assert_eq!(reporter.due(peer, "other", start), Some(0));
        let later = start + QUIET;
        assert_eq!(reporter.due(peer, "expired", later), Some(2));
    }
}
