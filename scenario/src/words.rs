//! One line of a story, cut into words: plain ones in order, and `key=value` ones by key.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;

use crate::error::Fault;

/// The words of one line that have not been taken yet.
#[derive(Debug, Default)]
pub(crate) struct Words {
    plain: VecDeque<String>,
    named: BTreeMap<String, String>,
}

impl Words {
    /// Cuts a line at white space. `"` and `'` keep white space together and are dropped.
    pub(crate) fn cut(line: &str) -> Result<Self, Fault> {
        let mut words = Self::default();
        let mut word = String::new();
        let mut key: Option<String> = None;
        let mut begun = false;
        let mut quote: Option<char> = None;
        for c in line.chars().chain([' ']) {
            match quote {
                Some(open) if c == open => quote = None,
                Some(_) => word.push(c),
                None if c == '"' || c == '\'' => (quote, begun) = (Some(c), true),
                None if c.is_whitespace() => {
                    if begun {
                        words.push(key.take(), std::mem::take(&mut word))?;
                        begun = false;
                    }
                }
                None if c == '=' && key.is_none() && is_key(&word) => {
                    key = Some(std::mem::take(&mut word));
                }
                None => {
                    word.push(c);
                    begun = true;
                }
            }
        }
        if quote.is_some() {
            return Err(Fault::Quote);
        }
        Ok(words)
    }

    fn push(&mut self, key: Option<String>, word: String) -> Result<(), Fault> {
        match key {
            None => self.plain.push_back(word),
            Some(key) => {
                if self.named.insert(key.clone(), word).is_some() {
                    return Err(Fault::Taken {
                        kind: "word",
                        name: format!("{key}="),
                    });
                }
            }
        }
        Ok(())
    }

    /// The next plain word.
    pub(crate) fn next(&mut self, what: &'static str) -> Result<String, Fault> {
        self.plain.pop_front().ok_or(Fault::Missing(what))
    }

    /// True when the plain word `flag` is there.
    pub(crate) fn flag(&mut self, flag: &str) -> bool {
        let at = self.plain.iter().position(|word| word == flag);
        at.is_some_and(|at| self.plain.remove(at).is_some())
    }

    /// One of two plain words: true for the first.
    pub(crate) fn either(&mut self, yes: &'static str, no: &'static str) -> Result<bool, Fault> {
        match (self.flag(yes), self.flag(no)) {
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            _ => Err(Fault::Either(yes, no)),
        }
    }

    /// The value of `key=`.
    pub(crate) fn get(&mut self, key: &str) -> Option<String> {
        self.named.remove(key)
    }

    /// The value of `key=`, which must be there.
    pub(crate) fn need(&mut self, key: &'static str) -> Result<String, Fault> {
        self.get(key.trim_end_matches('='))
            .ok_or(Fault::Missing(key))
    }

    /// The value of `key=` as a `T`.
    pub(crate) fn parse<T: FromStr>(
        &mut self,
        key: &str,
        wanted: &'static str,
    ) -> Result<Option<T>, Fault> {
        self.get(key).map(|text| parse(&text, wanted)).transpose()
    }

    /// The comma-separated values of `key=`.
    pub(crate) fn list(&mut self, key: &str) -> Vec<String> {
        self.get(key)
            .map(|text| text.split(',').map(str::to_owned).collect())
            .unwrap_or_default()
    }

    /// Refuses what nobody took.
    pub(crate) fn end(self) -> Result<(), Fault> {
        let named = self
            .named
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"));
        let left: Vec<String> = self.plain.into_iter().chain(named).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(Fault::Leftover(left.join(" ")))
        }
    }
}

/// `text` as a `T`.
pub(crate) fn parse<T: FromStr>(text: &str, wanted: &'static str) -> Result<T, Fault> {
    text.parse().map_err(|_| Fault::Form {
        found: text.to_owned(),
        wanted,
    })
}

fn is_key(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_keys_and_leftovers() {
        let mut words =
            Words::cut(r#"start sh argv="/bin/sh -c 'a=b'" tool parent=claude"#).unwrap();
        assert_eq!(words.next("verb").unwrap(), "start");
        assert_eq!(words.next("name").unwrap(), "sh");
        assert_eq!(words.get("argv").as_deref(), Some("/bin/sh -c 'a=b'"));
        assert!(words.flag("tool"));
        assert!(
            words
                .end()
                .unwrap_err()
                .to_string()
                .contains("parent=claude")
        );
        assert!(Words::cut("a 'b").is_err());
        assert!(Words::cut("a=1 a=2").is_err());
        assert!(Words::cut("x both").unwrap().either("yes", "no").is_err());
    }

    proptest! {
        #[test]
        fn any_line_is_cut_or_refused(line in ".{0,200}") {
            if let Ok(words) = Words::cut(&line) {
                prop_assert!(words.plain.len() + words.named.len() <= line.len());
            }
        }
    }
}
