//! When to try again. The policy decides, the transport obeys.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// Doubles from 0.2 s to 30 s; each wait is drawn at random between half and all of that, so that
/// many sensors do not come back at the same instant.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after one more failure; `fatal` ones (a certificate that nobody will mend
    /// within seconds) wait long at once.
    pub(super) fn failed(&mut self, fatal: bool) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let doubled = FIRST.saturating_mul(1 << (self.failures - 1).min(10));
        let range = if fatal { LONGEST } else { doubled.min(LONGEST) };
        range / 2 + (range / 2).mul_f64(unit_random())
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// In [0, 1]; spread, not secrecy.
fn unit_random() -> f64 {
    let byte = keytrail_pki::tls::random::<1>().map_or(128, |[byte]| byte);
    f64::from(byte) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        let mut backoff = Backoff::default();
        assert!(backoff.failed(false) <= FIRST);
        for _ in 0..100 {
            let wait = backoff.failed(false);
            assert!(wait >= FIRST / 2 && wait <= LONGEST);
        }
        assert!(backoff.failed(false) >= LONGEST / 2);
        backoff.succeeded();
        assert!(backoff.failed(false) <= FIRST);
    }
}
