//! The evaluation against its definition, over every action and resource of a small world.

use proptest::prelude::*;

use super::*;

const ACTIONS: [&str; 3] = ["s3:get", "s3:put", "iam:get"];
const RESOURCES: [&str; 4] = ["a", "ab", "b", "ba"];

/// The definition: what a wildcard is, then the order of allow, deny and boundary.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], rest) => rest.is_empty(),
        ([b'*', more @ ..], _) => (0..=text.len()).any(|skip| fits(more, &text[skip..])),
        ([_, ..], []) => false,
        ([p, more @ ..], [c, rest @ ..]) => (*p == b'?' || p == c) && fits(more, rest),
    }
}

fn says(statement: &Statement, action: &str, resource: &str) -> bool {
    let holds = |patterns: &Patterns, text: &str| {
        let any = patterns
            .list
            .iter()
            .any(|p| fits(p.as_bytes(), text.as_bytes()));
        any != patterns.negated
    };
    holds(&statement.actions, action) && holds(&statement.resources, resource)
}

fn decided(all: &[Statement], action: &str, resource: &str) -> bool {
    let with = |effect| {
        all.iter()
            .any(|s| s.effect == effect && says(s, action, resource))
    };
    with(Effect::Allow) && !with(Effect::Deny)
}

fn patterns(list: &'static str, negated: bool) -> impl Strategy<Value = Patterns> {
    (
        proptest::collection::vec(list, 1..3),
        if negated {
            any::<bool>().boxed()
        } else {
            Just(false).boxed()
        },
    )
        .prop_map(|(list, negated)| Patterns { list, negated })
}

fn statement() -> impl Strategy<Value = Statement> {
    (
        prop_oneof![3 => Just(Effect::Allow), 1 => Just(Effect::Deny)],
        patterns("(s3:get|s3:put|iam:get|s3:\\*|\\*|iam:\\*|\\*:get)", true),
        patterns("(a|b|ab|a\\*|\\*b|b\\?|\\*|\\?)", true),
    )
        .prop_map(|(effect, actions, resources)| Statement {
            effect,
            actions,
            resources,
            conditions: Vec::new(),
            source: String::new(),
        })
}

proptest! {
    #[test]
    fn never_too_narrow_and_exact_where_asked_exactly(
        statements in proptest::collection::vec(statement(), 1..5),
        boundary in proptest::option::of(proptest::collection::vec(statement(), 1..3)),
    ) {
        let mut identity = Identity::new(Provider::Aws, "role", "arn:aws:iam::1:role/r");
        identity.statements = statements.clone();
        identity.boundary = boundary.clone();
        let all = Permissions::default();
        let own = all.statements(&identity);
        let mut reach = Reach::default();
        all.granted(&identity, &[], &mut reach);
        for action in ACTIONS {
            let allowed = all.allowed(&identity, &own, action);
            for resource in RESOURCES {
                let expected = decided(&statements, action, resource)
                    && boundary.as_ref().is_none_or(|b| decided(b, action, resource));
                prop_assert_eq!(all.may(&identity, action, resource), expected);
                if expected {
                    prop_assert!(
                        allowed.iter().any(|a| a.resources.iter().any(|r| matches(r, resource))),
                        "{} {}: not among the allowed", action, resource
                    );
                    prop_assert!(
                        reach.granted.iter().any(|g| g.resources.iter().any(|r| {
                            r.strip_prefix('!').map_or_else(|| matches(r, resource), |_| true)
                        })),
                        "{} {}: not among the granted", action, resource
                    );
                }
            }
        }
    }
}
