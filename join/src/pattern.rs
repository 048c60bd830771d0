//! Patterns in settings: `*` stands for any run of characters, everything else for itself.

/// True when `text` fits `pattern`, whole and in the same case.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let mut last = "";
    for part in parts {
        last = part;
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    // The last part belongs to the end of the text, wherever it was found first.
    rest.is_empty() || last.is_empty() || text.len() >= pattern.len() - 1 && text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*", "", true),
            ("*b", "abab", true),
            ("a*b", "a-b", true),
            ("a*b", "a-b-c", false),
            ("ab*b", "ab", false),
            ("aws-access-key:AKIA*", "aws-access-key:AKIAX", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
