//! What a sensor can see.

use keytrail_model::coverage::{Coverage, CoverageArea, CoverageRow, CoverageState};

use super::{MAX_LIST, WireError, choice, list, optional_text, text};
use crate::wire;
use crate::wire::coverage_row::State;

impl From<Coverage> for wire::Coverage {
    fn from(model: Coverage) -> Self {
        let Coverage {
            kernel,
            plan,
            scope,
            agent_version,
            rows,
        } = model;
        Self {
            kernel,
            plan,
            scope,
            agent_version,
            rows: rows.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Coverage> for Coverage {
    type Error = WireError;

    fn try_from(wire: wire::Coverage) -> Result<Self, WireError> {
        let wire::Coverage {
            kernel,
            plan,
            scope,
            agent_version,
            rows,
        } = wire;
        Ok(Self {
            kernel: text(kernel, "kernel")?,
            plan: text(plan, "plan")?,
            scope: optional_text(scope, "scope")?,
            agent_version: text(agent_version, "agent_version")?,
            rows: list(rows, MAX_LIST, "rows")?,
        })
    }
}

impl From<CoverageRow> for wire::CoverageRow {
    fn from(model: CoverageRow) -> Self {
        let CoverageRow { area, what, state } = model;
        let area = match area {
            CoverageArea::Process => wire::CoverageArea::Process,
            CoverageArea::Access => wire::CoverageArea::Access,
            CoverageArea::Network => wire::CoverageArea::Network,
        };
        let state = match state {
            CoverageState::Live { hook } => State::Live(wire::LiveState { hook }),
            CoverageState::Missing {
                reason,
                blinds_verdicts,
            } => State::Missing(wire::MissingState {
                reason,
                blinds_verdicts,
            }),
        };
        Self {
            area: area.into(),
            what,
            state: Some(state),
        }
    }
}

impl TryFrom<wire::CoverageRow> for CoverageRow {
    type Error = WireError;

    fn try_from(wire: wire::CoverageRow) -> Result<Self, WireError> {
        let wire::CoverageRow { area, what, state } = wire;
        let state = match state.ok_or_else(|| WireError::missing("state"))? {
            State::Live(wire::LiveState { hook }) => CoverageState::Live {
                hook: text(hook, "live.hook")?,
            },
            State::Missing(wire::MissingState {
                reason,
                blinds_verdicts,
            }) => CoverageState::Missing {
                reason: text(reason, "missing.reason")?,
                blinds_verdicts,
            },
        };
        Ok(Self {
            area: choice(area, "area", |area| match area {
                wire::CoverageArea::Unspecified => None,
                wire::CoverageArea::Process => Some(CoverageArea::Process),
                wire::CoverageArea::Access => Some(CoverageArea::Access),
                wire::CoverageArea::Network => Some(CoverageArea::Network),
            })?,
            what: text(what, "what")?,
            state,
        })
    }
}
