//! Counters of what was recorded and what was lost.
//!
//! For every kind, and at any moment when no program runs:
//! `seen = submitted + ring_full + oversized + map_full`.

use crate::abi_struct;

abi_struct! {
    /// One kind's counters on one CPU.
    pub struct LossRow {
        /// Events that had to be recorded.
        pub seen: u64,
        /// Records put into a ring.
        pub submitted: u64,
        /// Lost: the ring had no room.
        pub ring_full: u64,
        /// Lost: larger than a record can be.
        pub oversized: u64,
        /// Lost: a map that the event needs was full.
        pub map_full: u64,
        /// Not events: repeats of an access by the same process within a second, left out on purpose.
        pub suppressed: u64,
    } size 48;
}
