//! Pauses after failures.

use std::time::Duration;

use uuid::Uuid;

/// The first; it doubles with each failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LAST: Duration = Duration::from_secs(300);

/// How long to wait after so many failures in a row: doubling, with jitter so that many sources of
/// one provider do not ask in step.
pub(super) fn after(failures: u32) -> Duration {
    let doubled = FIRST
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)))
        .min(LAST);
    doubled / 2 + jitter(doubled / 2)
}

/// Any time up to `most`.
pub(super) fn jitter(most: Duration) -> Duration {
    let share = u32::try_from(Uuid::new_v4().as_u128() % 1000).unwrap_or(0);
    most.saturating_mul(share) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        for (failures, least, most) in [
            (1, 0.5, 1.0),
            (2, 1.0, 2.0),
            (5, 8.0, 16.0),
            (9, 128.0, 256.0),
            (10, 150.0, 300.0),
            (u32::MAX, 150.0, 300.0),
        ] {
            let pause = after(failures).as_secs_f64();
            assert!(
                (least..=most).contains(&pause),
                "{failures} failures: {pause} s"
            );
        }
    }
}
