//! The coverage table for people.

use std::fmt::Write as _;

use keytrail_model::coverage::{Coverage, CoverageArea, CoverageState};

/// Longest reason shown; a verifier's log belongs in the debug log.
const MAX_REASON: usize = 160;

/// What this kernel lets the sensor see, as a table.
#[must_use]
pub fn table(coverage: &Coverage) -> String {
    let mut out = String::new();
    let scope = coverage.scope.as_deref().unwrap_or("the whole machine");
    let plan = match coverage.plan.as_str() {
        "A" => "A (LSM hooks)",
        "B" => "B (tracepoints)",
        other => other,
    };
    let mut line = |text: String| {
        // Writing to a String cannot fail.
        let _infallible = writeln!(out, "{text}");
    };
    line(format!(
        "kernel {}, plan {plan}, scope: {scope}",
        coverage.kernel
    ));
    for (area, title) in [
        (CoverageArea::Process, "processes"),
        (CoverageArea::Access, "credential access"),
        (CoverageArea::Network, "connections"),
    ] {
        line(format!("\n{title}"));
        for row in coverage.rows.iter().filter(|row| row.area == area) {
            match &row.state {
                CoverageState::Live { hook } => line(format!("  seen    {:<52} {hook}", row.what)),
                CoverageState::Missing {
                    reason,
                    blinds_verdicts,
                } => {
                    let short: String = reason.chars().take(MAX_REASON).collect();
                    let mark = if *blinds_verdicts {
                        "BLIND  "
                    } else {
                        "missing"
                    };
                    line(format!("  {mark} {:<52} {short}", row.what));
                }
            }
        }
    }
    if !coverage.can_judge() {
        line(
            "\nBLIND rows: cloud-side uses cannot be judged by this host and stay undecided"
                .to_owned(),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use keytrail_model::coverage::CoverageRow;

    use super::*;

    #[test]
    fn what_a_person_reads() {
        let row = |area, what: &str, state| CoverageRow {
            area,
            what: what.to_owned(),
            state,
        };
        let coverage = Coverage {
            kernel: "6.18".to_owned(),
            plan: "B".to_owned(),
            scope: None,
            agent_version: "0.1.0".to_owned(),
            rows: vec![
                row(
                    CoverageArea::Access,
                    "reads of watched files",
                    CoverageState::Live {
                        hook: "tp_btf/mm_filemap_get_pages".to_owned(),
                    },
                ),
                row(
                    CoverageArea::Network,
                    "TCP connections",
                    CoverageState::Missing {
                        reason: "refused".to_owned(),
                        blinds_verdicts: true,
                    },
                ),
            ],
        };
        expect![[r"
            kernel 6.18, plan B (tracepoints), scope: the whole machine

            processes

            credential access
              seen    reads of watched files                               tp_btf/mm_filemap_get_pages

            connections
              BLIND   TCP connections                                      refused

            BLIND rows: cloud-side uses cannot be judged by this host and stay undecided
        "]]
        .assert_eq(&table(&coverage));
    }
}
