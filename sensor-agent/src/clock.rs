//! The only place that reads a clock: kernel records carry nanoseconds since boot, facts carry
//! wall time.

use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};

/// Translates the kernel's time (`CLOCK_BOOTTIME`) to wall time.
///
/// The difference is measured anew now and then, because wall time can be set; a record keeps the
/// difference that was true when it was read.
#[derive(Clone, Copy, Debug)]
pub struct BootClock {
    /// Wall time at boot.
    boot: Timestamp,
}

impl BootClock {
    /// Measures the difference between wall time and time since boot.
    ///
    /// # Errors
    /// When the kernel has no such clock (it has since 2.6.39).
    pub fn measure() -> Result<Self, nix::Error> {
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
        let now = Timestamp::now();
        let since_boot = SignedDuration::new(
            since_boot.tv_sec(),
            i32::try_from(since_boot.tv_nsec()).unwrap_or_default(),
        );
        Ok(Self {
            boot: now.checked_sub(since_boot).unwrap_or(now),
        })
    }

    /// Wall time of a kernel time.
    #[must_use]
    pub fn wall(&self, boot_ns: u64) -> Timestamp {
        let since = SignedDuration::from_nanos(i64::try_from(boot_ns).unwrap_or(i64::MAX));
        // Microseconds are what the wire carries.
        let exact = self.boot.checked_add(since).unwrap_or(Timestamp::MAX);
        Timestamp::from_microsecond(exact.as_microsecond()).unwrap_or(exact)
    }

    /// How far another measurement lies from this one: a step of the wall clock.
    #[must_use]
    pub fn step_to(&self, other: &Self) -> SignedDuration {
        other.boot.duration_since(self.boot)
    }
}

/// Wall time now.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_maps_to_the_present() {
        let clock = BootClock::measure().unwrap();
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
        let ns = u64::try_from(boot.tv_sec()).unwrap() * 1_000_000_000
            + u64::try_from(boot.tv_nsec()).unwrap();
        let off = now().duration_since(clock.wall(ns)).abs();
        assert!(off < SignedDuration::from_secs(1), "{off}");
        assert!(clock.step_to(&clock).is_zero());
    }
}
