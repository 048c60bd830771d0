//! Whether the sensor still sees: a canary now and then, and a look at the pins.
//!
//! A program can be attached and silent (its link was taken off, its map was emptied). The canary is
//! a child that touches a watched file, and a connection to ourselves; whoever is said to be live and
//! does not report it has been tampered with. It costs two short processes each time.

use std::time::{Duration, Instant};

use keytrail_model::fact::{Fact, TamperKind, Tampering};
use tracing::warn;

use crate::clock;
use crate::kernel::{Canary, KernelEvent, Sensor};
use crate::pipeline::Timed;

/// What a canary does must have been reported after this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub struct Vigil {
    every: Duration,
    off: bool,
    next: Instant,
    out: Option<(Instant, Canary)>,
    /// What was told of the pins.
    missing: Vec<String>,
    hindered: bool,
}

impl Vigil {
    /// With the seconds between two canaries; 0: no canary, and no look at the pins.
    #[must_use]
    pub fn new(seconds: u32) -> Self {
        let every = Duration::from_secs(u64::from(seconds));
        Self {
            every,
            off: seconds == 0,
            next: Instant::now() + every,
            out: None,
            missing: Vec::new(),
            hindered: false,
        }
    }

    /// True when the event is the canary's doing.
    pub fn takes(&mut self, event: &KernelEvent) -> bool {
        self.out
            .as_mut()
            .is_some_and(|(_, canary)| canary.take(event))
    }

    /// Lets a canary out when it is time, judges one that is out, and looks at the pins. Returns what
    /// was found, the new coverage included.
    pub fn look(&mut self, sensor: &mut Sensor) -> Vec<Timed> {
        let mut signs = Vec::new();
        if let Some((since, canary)) = self.out.take() {
            if since.elapsed() < PATIENCE.min(self.every) {
                self.out = Some((since, canary));
                return signs;
            }
            let before = sensor.coverage().clone();
            for program in sensor.judge(canary) {
                let detail = format!("{program} is attached and did not report the canary");
                signs.push(sign(TamperKind::ProgramSilent, detail));
            }
            if *sensor.coverage() != before {
                let coverage = Fact::Coverage(sensor.coverage().clone());
                signs.push((clock::now(), coverage));
            }
            let missing = sensor.missing_pins();
            let fresh: Vec<&str> = missing
                .iter()
                .filter(|name| !self.missing.contains(name))
                .map(String::as_str)
                .collect();
            if !fresh.is_empty() {
                let detail = format!(
                    "pins were removed: {}; what happens while no agent runs will not be seen",
                    fresh.join(", ")
                );
                signs.push(sign(TamperKind::PinRemoved, detail));
            }
            self.missing = missing;
        } else if !self.off && Instant::now() >= self.next {
            self.next = Instant::now() + self.every;
            match sensor.pulse() {
                Ok(canary) => {
                    self.out = Some((Instant::now(), canary));
                    self.hindered = false;
                }
                Err(error) if !self.hindered => {
                    self.hindered = true;
                    warn!(%error, "the canary cannot be run: silent programs will not be noticed");
                }
                Err(_) => {}
            }
        }
        signs
    }
}

/// Something that was done to this sensor by nobody it has seen.
pub(crate) fn sign(what: TamperKind, detail: String) -> Timed {
    warn!("{detail}");
    let tampering = Tampering {
        what,
        detail,
        process: None,
        unit: None,
    };
    (clock::now(), Fact::Tampering(tampering))
}
