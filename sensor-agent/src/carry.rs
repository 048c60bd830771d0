//! What one agent leaves to the next one: up to when the host was watched, and, where the programs go
//! on recording meanwhile, what the next one must know to make facts of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use keytrail_model::fact::{Fact, Gap, GapKind};
use keytrail_model::ids::BootId;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::kernel::stats::Loss;
use crate::pipeline::{Memory, Pipeline, Timed};

/// Writing may take this part of the time at most: the pause after it is so many times as long.
const PAUSE_FACTOR: u32 = 20;

/// Remembers on disk up to when this host was watched, so that the time in which no agent ran is
/// told as a gap.
pub struct LastMark(PathBuf);

impl LastMark {
    /// In this folder.
    #[must_use]
    pub fn at(state_dir: &Path) -> Self {
        Self(state_dir.join("watched-until"))
    }

    /// The host was watched up to `mark`.
    pub fn note(&self, mark: Timestamp) {
        // Losing it makes the gap longer, not shorter; no need to sync.
        if let Err(error) = std::fs::write(&self.0, mark.to_string()) {
            warn!(path = %self.0.display(), %error, "cannot remember up to when was watched");
        }
    }

    /// Up to when it was, by the last agent that noted it.
    #[must_use]
    pub fn get(&self) -> Option<Timestamp> {
        std::fs::read_to_string(&self.0).ok()?.trim().parse().ok()
    }

    /// The time since then, as a gap.
    #[must_use]
    pub fn gap(&self, now: Timestamp) -> Option<Timed> {
        let gap = Gap {
            from: self.get()?.min(now),
            to: now,
            what: GapKind::All,
            count: None,
            reason: "no agent was running".to_owned(),
        };
        Some((now, Fact::Gap(gap)))
    }
}

/// See the module's documentation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Carried {
    /// Pids and start times mean something within one boot only.
    boot: BootId,
    /// Records lost, by kind, that had been told as gaps.
    lost: BTreeMap<String, u64>,
    /// What the pipeline knew.
    pub memory: Memory,
    /// The agent ended because it was asked to.
    pub ended_by_itself: bool,
}

impl Carried {
    /// The counters up to which losses have been told.
    #[must_use]
    pub fn told(&self) -> Loss {
        Loss::having_lost(&self.lost)
    }
}

/// Writes it, now and then.
pub struct Carrier {
    path: PathBuf,
    boot: BootId,
    written: Option<u64>,
    /// A text waits until so many facts are durable: what it says was told must have been told.
    ready: Option<u64>,
    not_before: Instant,
}

impl Carrier {
    /// In this folder, for this boot.
    #[must_use]
    pub fn new(state_dir: &Path, boot: BootId) -> Self {
        Self {
            path: state_dir.join("carried.json"),
            boot,
            written: None,
            ready: None,
            not_before: Instant::now(),
        }
    }

    /// What the last agent of this boot left.
    #[must_use]
    pub fn read(&self) -> Option<Carried> {
        let text = std::fs::read(&self.path).ok()?;
        match serde_json::from_slice::<Carried>(&text) {
            Ok(carried) => (carried.boot == self.boot).then_some(carried),
            Err(error) => {
                // Another version's, or cut: running processes are looked at anew.
                warn!(path = %self.path.display(), %error, "what the last agent left is not understood");
                None
            }
        }
    }

    /// Writes when something changed, and not too often. The next agent finds it once `accepted` facts,
    /// those that were told by now, are durable: see [`Carrier::publish`].
    pub fn note(&mut self, pipeline: &Pipeline, loss: &Loss, accepted: u64) {
        let changes = pipeline.changes() + loss.total_lost();
        let waits = self.ready.is_some() || Instant::now() < self.not_before;
        if self.written == Some(changes) || waits {
            return;
        }
        let begin = Instant::now();
        self.told(self.write(pipeline, loss, false));
        self.ready = Some(accepted);
        self.written = Some(changes);
        self.not_before = Instant::now() + begin.elapsed() * PAUSE_FACTOR;
    }

    /// Puts what was written in its place, once so many facts are durable.
    pub fn publish(&mut self, durable: u64) {
        if self.ready.is_some_and(|accepted| accepted <= durable) {
            self.ready = None;
            self.told(self.put());
        }
    }

    /// Writes for the last time.
    pub fn end(&mut self, pipeline: &Pipeline, loss: &Loss) {
        let written = self.write(pipeline, loss, true).and_then(|()| self.put());
        self.told(written);
    }

    /// Removes what was left.
    pub fn forget(&self) {
        drop(std::fs::remove_file(&self.path));
    }

    fn put(&self) -> std::io::Result<()> {
        std::fs::rename(self.fresh(), &self.path)
    }

    fn fresh(&self) -> PathBuf {
        self.path.with_extension("new")
    }

    fn told(&self, done: std::io::Result<()>) {
        if let Err(error) = done {
            warn!(path = %self.path.display(), %error, "the next agent will have to look anew");
        }
    }

    fn write(
        &self,
        pipeline: &Pipeline,
        loss: &Loss,
        ended_by_itself: bool,
    ) -> std::io::Result<()> {
        let carried = Carried {
            boot: self.boot,
            lost: loss.lost(),
            memory: pipeline.memory(),
            ended_by_itself,
        };
        // A reader finds the old text or the new one whole. It need not survive a power loss: what it
        // is for does not either.
        let text = serde_json::to_vec(&carried).map_err(std::io::Error::other)?;
        std::fs::write(self.fresh(), text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[test]
    fn the_time_without_an_agent_is_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let last = LastMark::at(dir.path());
        let now = clock::now();
        assert_eq!(last.gap(now), None);
        let before = now - Duration::from_secs(60);
        last.note(before);
        let Some((_, Fact::Gap(gap))) = last.gap(now) else {
            panic!("no gap")
        };
        assert_eq!((gap.from, gap.to, gap.what), (before, now, GapKind::All));
    }

    #[test]
    fn what_is_left_is_for_the_same_boot_only() {
        let dir = tempfile::tempdir().unwrap();
        let carrier = Carrier::new(dir.path(), BootId(uuid::Uuid::from_u128(1)));
        assert!(carrier.read().is_none());
        let carried = Carried {
            boot: carrier.boot,
            lost: BTreeMap::from([("ConnOpen".to_owned(), 3)]),
            memory: Memory::default(),
            ended_by_itself: false,
        };
        std::fs::write(&carrier.path, serde_json::to_vec(&carried).unwrap()).unwrap();
        let told = carrier.read().unwrap().told();
        assert_eq!(told.total_lost(), 3);
        assert!(
            Carrier::new(dir.path(), BootId(uuid::Uuid::from_u128(2)))
                .read()
                .is_none()
        );
        std::fs::write(&carrier.path, "{\"boot\":").unwrap();
        assert!(carrier.read().is_none());
    }
}
