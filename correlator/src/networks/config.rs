//! Where files of networks are.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings under `[networks]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworksConfig {
    /// A folder with files; those in its folder `pools` are the organisation's own egress. Without
    /// it: `networks` in the data directory, where there is one.
    pub folder: Option<PathBuf>,
    /// Further files: systems, countries, providers' ranges.
    pub files: Vec<PathBuf>,
    /// Further files with the organisation's own egress pools.
    pub pools: Vec<PathBuf>,
    /// Seconds between looks at the files. A file that changed is read once it has stayed the same
    /// for so long.
    pub refresh_seconds: u64,
}

impl Default for NetworksConfig {
    fn default() -> Self {
        Self {
            folder: None,
            files: Vec::new(),
            pools: Vec::new(),
            refresh_seconds: 30,
        }
    }
}
