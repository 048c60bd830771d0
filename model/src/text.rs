//! Text that came from outside: argv, package names, user agents, file paths.
//!
//! Invariant 9: it is untrusted wherever it is shown. Terminals obey control characters, and
//! right-to-left marks let one text pass for another.

use std::fmt;

/// Shows untrusted text on one line: control and bidirectional-formatting characters are escaped,
/// the length is capped.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    text: &'a str,
    max_chars: usize,
}

/// Wraps `text` for display, at most `max_chars` characters of it.
#[must_use]
pub fn shown(text: &str, max_chars: usize) -> Shown<'_> {
    Shown { text, max_chars }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for (count, c) in self.text.chars().enumerate() {
            if count == self.max_chars {
                return f.write_char('…');
            }
            if c.is_control() || is_formatting(c) {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Characters that change how their neighbours are shown (Unicode bidi controls, zero-width, BOM,
/// line and paragraph separators, tags).
fn is_formatting(c: char) -> bool {
    matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_on_its_line() {
        for (text, max, expected) in [
            ("plain", 10, "plain"),
            ("a\nb", 10, "a\\u{a}b"),
            ("\x1b[2Jgone", 20, "\\u{1b}[2Jgone"),
            ("safe\u{202e}txt.exe", 20, "safe\\u{202e}txt.exe"),
            ("0123456789", 8, "01234567…"),
        ] {
            assert_eq!(shown(text, max).to_string(), expected);
        }
    }
}
