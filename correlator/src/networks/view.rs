//! The table of networks, as people see it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Data older than this is worth a warning.
pub(super) const OLD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The files that networks are looked up in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NetworksView {
    /// In ascending precedence; of several ranges around an address the smallest counts first.
    pub files: Vec<NetworkFile>,
    /// Memory that the table takes, bytes.
    pub bytes: u64,
    /// What is wrong beside the files themselves (a folder that cannot be listed).
    pub problem: Option<String>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NetworkFile {
    /// Where it is.
    pub path: String,
    /// Whether it holds the organisation's own egress pools.
    pub pools: bool,
    /// Its format, once it was read.
    pub format: Option<String>,
    /// Ranges in it.
    pub ranges: u64,
    /// When it was read.
    pub read: Option<Timestamp>,
    /// When its data was made: by the file itself, by `sources.toml` beside it, or else when the
    /// file was last written.
    pub dated: Option<Timestamp>,
    /// How old the data is, days.
    pub age_days: Option<i64>,
    /// Whether that is more than 30 days. Pools do not age.
    pub old: bool,
    /// Under which licence `sources.toml` says it is.
    pub licence: Option<String>,
    /// Who must be named where its data is shown.
    pub attribution: Option<String>,
    /// Why its present content is not in use; what was read before is.
    pub problem: Option<String>,
}

impl NetworksView {
    pub(super) fn aged(mut self, now: Timestamp) -> Self {
        for file in &mut self.files {
            let age = file.dated.map(|dated| now.duration_since(dated));
            file.age_days = age.map(|age| age.as_hours() / 24);
            file.old = !file.pools && age.is_some_and(|age| age > OLD);
        }
        self
    }

    /// Who must be named where the data is shown, each once.
    #[must_use]
    pub fn attributions(&self) -> Vec<String> {
        let all = self
            .files
            .iter()
            .filter_map(|file| file.attribution.clone());
        let all: std::collections::BTreeSet<String> = all.collect();
        all.into_iter().collect()
    }
}
