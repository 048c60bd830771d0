//! The only place that reads the system clock. Everything below it takes time as an argument, so
//! that it can be replayed.

use jiff::Timestamp;

/// Now, by the machine's clock.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}
