//! What was run of a target so far.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Kept as JSON beside the corpus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// Inputs executed, all runs together.
    pub(super) executions: u64,
    /// Time that they took.
    pub(super) seconds: f64,
    /// Inputs kept, because each reaches something that the others do not.
    pub(super) corpus: usize,
    /// How often a run ended with a crash.
    pub(super) crashes: u64,
    /// The builds that were run, first and last.
    pub(super) builds: Vec<String>,
}

impl State {
    /// What the file says; `None` when there is none or it is no state.
    pub(super) fn read(file: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    /// Writes it beside its place and moves it there, so that a kill leaves the old or the new one.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let beside = file.with_extension("new");
        fs::write(&beside, serde_json::to_vec(self)?)
            .and_then(|()| fs::rename(&beside, file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Notes that this build was run.
    pub(super) fn built(&mut self, commit: &str) {
        if self.builds.last().is_none_or(|last| last != commit) {
            self.builds.truncate(1);
            self.builds.push(commit.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_build_are_kept() {
        let mut state = State::default();
        for commit in ["a", "a", "b", "c"] {
            state.built(commit);
        }
        assert_eq!(state.builds, ["a", "c"]);
    }
}
