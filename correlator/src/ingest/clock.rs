//! How far a host's clock is from ours, measured by our clock alone (see `ingest.proto`, Heartbeat).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// Replies that a heartbeat may still refer to.
const REMEMBERED_REPLIES: usize = 8;
/// Measurements among which the best is chosen.
const WINDOW: usize = 8;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockReading {
    /// Host clock minus ours.
    pub(super) offset: SignedDuration,
    /// Half the round trip: the true offset is within this of `offset`.
    pub(super) error: Duration,
}

/// Measures one host's clock over one stream.
#[derive(Debug, Default)]
pub(super) struct ClockGauge {
    replies: VecDeque<(u64, Instant)>,
    next_reply: u64,
    readings: VecDeque<ClockReading>,
}

impl ClockGauge {
    /// The number of a reply that leaves now.
    pub(super) fn reply(&mut self, now: Instant) -> u64 {
        let number = self.next_reply;
        self.next_reply += 1;
        self.replies.push_back((number, now));
        if self.replies.len() > REMEMBERED_REPLIES {
            self.replies.pop_front();
        }
        number
    }

    /// Takes a heartbeat in that arrived at `now` (`wall` by our wall clock).
    pub(super) fn heartbeat(
        &mut self,
        host_time: Timestamp,
        reply_to: u64,
        held: Duration,
        now: Instant,
        wall: Timestamp,
    ) {
        let Some((_, departed)) = self.replies.iter().find(|(number, _)| *number == reply_to)
        else {
            return;
        };
        let round_trip = now.duration_since(*departed).saturating_sub(held);
        let error = round_trip / 2;
        // Read our clock as it was when the host read its own.
        let ours = wall
            .checked_sub(SignedDuration::try_from(error).unwrap_or(SignedDuration::MAX))
            .unwrap_or(Timestamp::MIN);
        let reading = ClockReading {
            offset: host_time.duration_since(ours),
            error,
        };
        // A clock that was set: what was measured before says nothing any more.
        if self.best().is_some_and(|best| !overlap(best, reading)) {
            self.readings.clear();
        }
        self.readings.push_back(reading);
        if self.readings.len() > WINDOW {
            self.readings.pop_front();
        }
    }

    /// The reading with the smallest error, once there is any.
    pub(super) fn best(&self) -> Option<ClockReading> {
        self.readings.iter().min_by_key(|r| r.error).copied()
    }
}

/// Whether both can be true of one clock, with room for drift.
fn overlap(a: ClockReading, b: ClockReading) -> bool {
    const DRIFT: Duration = Duration::from_millis(20);
    let apart = (a.offset - b.offset).unsigned_abs();
    apart <= a.error + b.error + DRIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + ms).unwrap()
    }

    /// One exchange that begins at `sent` ms on our clock, with these delays.
    fn exchange(
        gauge: &mut ClockGauge,
        origin: Instant,
        sent: u32,
        there: u32,
        held: u32,
        back: u32,
        skew: i64,
    ) {
        let number = gauge.reply(origin + MS * sent);
        let read_at = sent + there + held;
        let arrived = read_at + back;
        gauge.heartbeat(
            at(i64::from(read_at) + skew),
            number,
            MS * held,
            origin + MS * arrived,
            at(i64::from(arrived)),
        );
    }

    #[test]
    fn the_true_offset_is_within_the_error() {
        let origin = Instant::now();
        for (there, back) in [(0, 0), (5, 5), (40, 0), (0, 40), (3, 90)] {
            for skew in [-90_000, 0, 1234] {
                let mut gauge = ClockGauge::default();
                exchange(&mut gauge, origin, 10, there, 700, back, skew);
                let best = gauge.best().unwrap();
                let off = (best.offset - SignedDuration::from_millis(skew)).unsigned_abs();
                assert!(off <= best.error, "{there} {back} {skew}: {best:?}");
                assert_eq!(best.error, MS * (there + back) / 2);
            }
        }
    }

    #[test]
    fn the_quickest_exchange_counts_until_the_clock_is_set() {
        let origin = Instant::now();
        let mut gauge = ClockGauge::default();
        exchange(&mut gauge, origin, 0, 50, 10, 2, 100);
        exchange(&mut gauge, origin, 1000, 1, 10, 1, 100);
        exchange(&mut gauge, origin, 2000, 80, 10, 3, 100);
        assert_eq!(gauge.best().unwrap().error, MS);
        assert_eq!(gauge.best().unwrap().offset.as_millis(), 100);
        exchange(&mut gauge, origin, 3000, 4, 10, 4, 5000);
        assert_eq!(gauge.best().unwrap().offset.as_millis(), 5000);
    }

    #[test]
    fn a_reply_that_never_was_measures_nothing() {
        let mut gauge = ClockGauge::default();
        gauge.heartbeat(at(0), 7, MS, Instant::now(), at(0));
        assert_eq!(gauge.best(), None);
    }
}
