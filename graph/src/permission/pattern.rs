//! Patterns with `*` (any text) and `?` (any one character).
//!
//! Source: IAM User Guide, "IAM JSON policy elements: Resource" and "Action". Both wildcards cross
//! every separator.

/// True when `text` fits `pattern`.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    run(pattern, text, |wild, c| wild == c || wild == '?')
}

/// True when everything that fits `inner` surely fits `outer`: a wildcard of `inner` is only
/// swallowed by one of `outer`. May say false for a pair written in an unusual way; never true
/// wrongly.
#[must_use]
pub fn covers(outer: &str, inner: &str) -> bool {
    // A `*` of the inner pattern stands for any length, so only a `*` takes it in.
    run(outer, inner, |wild, c| {
        wild == c || (wild == '?' && c != '*')
    })
}

/// Greedy matching with one point to come back to: linear for one `*`, never exponential.
fn run(pattern: &str, text: &str, one: impl Fn(char, char) -> bool) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while let Some(c) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                back = Some((p, t));
                p += 1;
            }
            Some(wild) if one(*wild, *c) => {
                p += 1;
                t += 1;
            }
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    p = star + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|c| *c == '*')
}

/// True when some text fits both patterns.
#[must_use]
pub fn overlap(a: &str, b: &str) -> bool {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    // row[j]: the rest of `a` from the present position and the rest of `b` from j overlap.
    let mut below: Vec<bool> = Vec::new();
    for i in (0..=a.len()).rev() {
        let mut row = vec![false; b.len() + 1];
        for j in (0..=b.len()).rev() {
            let at = |row: &[bool], j: usize| row.get(j).copied().unwrap_or(false);
            let fits = match (a.get(i), b.get(j)) {
                (None, None) => true,
                (Some('*'), _) => at(&below, j) || (j < b.len() && at(&row, j + 1)),
                (_, Some('*')) => at(&row, j + 1) || (i < a.len() && at(&below, j)),
                (Some(x), Some(y)) => (x == y || *x == '?' || *y == '?') && at(&below, j + 1),
                (Some(_), None) | (None, Some(_)) => false,
            };
            if let Some(cell) = row.get_mut(j) {
                *cell = fits;
            }
        }
        below = row;
    }
    below.first().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("s3:*", "s3:GetObject", true),
            ("s3:Get?bject", "s3:GetObject", true),
            ("arn:aws:s3:::customers/*", "arn:aws:s3:::customers", false),
            (
                "arn:aws:s3:::customers*",
                "arn:aws:s3:::customers/a/b",
                true,
            ),
            ("*a*b*", "xxaybz", true),
            ("*ab", "aab", true),
            ("a", "ab", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
        for (outer, inner, is) in [
            ("*", "s3:*", true),
            ("s3:*", "*", false),
            ("s3:Get*", "s3:GetObject*", true),
            ("s3:?et*", "s3:Get?bject", true),
            ("a?", "a*", false),
            ("a*", "a", true),
        ] {
            assert_eq!(covers(outer, inner), is, "{outer} {inner}");
        }
        for (a, b, is) in [
            ("a*", "*b", true),
            ("a*", "b*", false),
            ("a?c", "ab?", true),
            ("a", "a?", false),
            ("*", "", true),
        ] {
            assert_eq!(overlap(a, b), is, "{a} {b}");
        }
    }

    /// The definition, written down: slow and plain.
    fn oracle(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], rest) => rest.is_empty(),
            ([b'*', more @ ..], _) => (0..=text.len()).any(|skip| oracle(more, &text[skip..])),
            ([_, ..], []) => false,
            ([p, more @ ..], [c, rest @ ..]) => (*p == b'?' || p == c) && oracle(more, rest),
        }
    }

    fn every_text(longest: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut last = all.clone();
        for _ in 0..longest {
            last = last
                .iter()
                .flat_map(|t| ['a', 'b', 'c'].map(|c| format!("{t}{c}")))
                .collect();
            all.extend(last.clone());
        }
        all
    }

    proptest! {
        #[test]
        fn matches_as_defined(pattern in "[ab*?]{0,8}", text in "[abc]{0,10}") {
            prop_assert_eq!(matches(&pattern, &text), oracle(pattern.as_bytes(), text.as_bytes()));
        }

        /// Every text of up to six letters is tried: `c` stands for "anything else".
        #[test]
        fn covers_and_overlap_agree_with_every_short_text(
            a in "[ab*?]{0,4}", b in "[ab*?]{0,4}"
        ) {
            let both = every_text(6);
            let fits = |p: &str, t: &str| oracle(p.as_bytes(), t.as_bytes());
            if covers(&a, &b) {
                for text in &both {
                    prop_assert!(!fits(&b, text) || fits(&a, text), "{} {} {}", a, b, text);
                }
            }
            // Two patterns of four signs that overlap do so on a text of at most eight letters;
            // six are enough where stars can be empty.
            let found = both.iter().any(|t| fits(&a, t) && fits(&b, t));
            prop_assert!(!found || overlap(&a, &b), "{} {}", a, b);
            if a.len() + b.len() <= 6 {
                prop_assert_eq!(found, overlap(&a, &b), "{} {}", a, b);
            }
        }
    }
}
