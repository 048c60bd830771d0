//! The reasons for a verdict, and the explained uses that are out of the ordinary.

use keytrail_model::alert::{Alert, ExplainedUse};

use super::{Moment, Style, call, caller, shown, text, time};

/// What an alert is kept quiet by, above everything else.
pub(super) fn suppressed(out: &mut String, alert: &Alert, style: Style) {
    let Some(rule) = &alert.suppressed else {
        return;
    };
    let line = format!(
        "Suppressed until {} by rule \"{}\" of {}: {}",
        time(rule.until),
        text(&rule.rule),
        text(&rule.owner),
        text(&rule.why)
    );
    super::put_line(out, &style.warn(line));
}

/// Every reason, the gravest first.
pub(super) fn reasons(out: &mut String, alert: &Alert, style: Style) {
    if alert.reasons.is_empty() {
        return;
    }
    super::put_line(out, &format!("\n{}", style.head("Why")));
    for reason in &alert.reasons {
        let line = format!(
            "  - {} ({}): {}",
            reason.verdict,
            text(&reason.code),
            shown(&reason.text, 600)
        );
        super::put_line(out, &line);
    }
}

/// Explained uses out of the ordinary, on the timeline.
pub(super) fn misuse(one: &ExplainedUse) -> Moment {
    let usage = &one.usage;
    let mut lines = vec![format!(
        "{} by {} on {}, from {}",
        call(usage),
        text(&one.by),
        text(&one.host.0),
        caller(usage)
    )];
    if !usage.resources.is_empty() {
        let all: Vec<String> = usage.resources.iter().map(|r| text(r)).collect();
        lines.push(format!("on {}", all.join(", ")));
    }
    Moment {
        time: usage.time,
        what: "misused",
        lines,
        loud: true,
    }
}
