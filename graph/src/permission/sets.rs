//! Sets of patterns, and what they have in common.

use super::Patterns;
use super::pattern::{covers, matches, overlap};

/// True when the set has this very resource.
pub(super) fn has_resource(patterns: &Patterns, resource: &str) -> bool {
    patterns.list.iter().any(|p| matches(p, resource)) != patterns.negated
}

/// True when every resource of the pattern is surely in the set.
pub(super) fn resource_covered(set: &Patterns, resource: &str) -> bool {
    if set.negated {
        return !set.list.iter().any(|p| overlap(p, resource));
    }
    set.list.iter().any(|p| covers(p, resource))
}

/// True when some resource of the pattern may be in the set.
pub(super) fn resource_overlaps(set: &Patterns, resource: &str) -> bool {
    if set.negated {
        return !set.list.iter().any(|p| covers(p, resource));
    }
    set.list.iter().any(|p| overlap(p, resource))
}

/// True when every action of `inner` is surely in `outer`.
pub(super) fn patterns_cover(outer: &Patterns, inner: &Patterns) -> bool {
    match (outer.negated, inner.negated) {
        (false, false) => inner
            .list
            .iter()
            .all(|i| outer.list.iter().any(|o| covers(o, i))),
        (true, false) => inner
            .list
            .iter()
            .all(|i| !outer.list.iter().any(|o| overlap(o, i))),
        // Everything but a few: contained when the outer leaves out no more than they do.
        (true, true) => outer
            .list
            .iter()
            .all(|o| inner.list.iter().any(|i| covers(i, o))),
        (false, true) => outer.list.iter().any(|o| o == "*"),
    }
}

/// True when some action may be in both.
pub(super) fn patterns_overlap(a: &Patterns, b: &Patterns) -> bool {
    match (a.negated, b.negated) {
        (false, false) => a.list.iter().any(|x| b.list.iter().any(|y| overlap(x, y))),
        (true, false) => b.list.iter().any(|y| !a.list.iter().any(|x| covers(x, y))),
        (false, true) => a.list.iter().any(|x| !b.list.iter().any(|y| covers(y, x))),
        (true, true) => true,
    }
}
