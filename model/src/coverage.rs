//! What a sensor can and cannot see on its kernel: verdicts use it, users read it.

use serde::{Deserialize, Serialize};

/// What one host's sensor sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Coverage {
    /// `uname -r`.
    pub kernel: String,
    /// `A` (LSM hooks) or `B` (tracepoints).
    pub plan: String,
    /// The cgroup that the sensor is limited to; `None` for the whole machine.
    pub scope: Option<String>,
    /// Version of the agent.
    pub agent_version: String,
    /// Row by row.
    pub rows: Vec<CoverageRow>,
}

/// One kind of access, connection or process event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CoverageRow {
    /// Which part of the endpoint it belongs to.
    pub area: CoverageArea,
    /// What can be seen or missed, in words (`open and read by any path`).
    pub what: String,
    /// How.
    pub state: CoverageState,
}

/// Part of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CoverageArea {
    /// Process tree.
    Process,
    /// Reads of credentials.
    Access,
    /// Connections, names, bytes.
    Network,
}

/// Whether it is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum CoverageState {
    /// Seen, proven by a canary at start-up.
    Live {
        /// Which hook.
        hook: String,
    },
    /// Not seen.
    Missing {
        /// Why, and what would help.
        reason: String,
        /// True when explained use cannot be judged without it (connections).
        blinds_verdicts: bool,
    },
}

impl Coverage {
    /// True when nothing that the explained-use join depends on is missing.
    #[must_use]
    pub fn can_judge(&self) -> bool {
        self.rows.iter().all(|row| match &row.state {
            CoverageState::Live { .. } => true,
            CoverageState::Missing {
                blinds_verdicts, ..
            } => !blinds_verdicts,
        })
    }
}
