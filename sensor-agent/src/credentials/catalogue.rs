//! The catalogue of token forms: `catalogue/tokens.toml`, and the user's own rows and patterns.

use std::collections::BTreeMap;

use keytrail_model::credential::{CredentialId, CredentialKind};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use thiserror::Error;

use super::hasher::Hasher;

/// Longest token, prefix included.
const MAX_TOKEN: usize = 2048;
/// Most findings of one pattern in one text.
const MAX_PER_PATTERN: usize = 64;
/// Memory that one pattern may compile to.
const MAX_PATTERN: usize = 1 << 20;

/// A catalogue that cannot be used.
#[derive(Debug, Error)]
pub enum TokensError {
    /// Not the expected form.
    #[error("token forms {origin}: {source}; see catalogue/tokens.toml for the form")]
    Form {
        /// File name or `(built in)`.
        origin: String,
        /// What and where.
        source: Box<toml::de::Error>,
    },
    /// A row that cannot work.
    #[error("token forms {origin}: `{name}` {problem}")]
    Row {
        /// File name or `(built in)`.
        origin: String,
        /// Type and prefix of the row, or the name of the pattern.
        name: String,
        /// What is wrong and how to mend it.
        problem: String,
    },
}

/// Which characters a token consists of after its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Body {
    /// Letters and digits.
    Alnum,
    /// Lower-case hex digits.
    Hex,
    /// Letters, digits, `_`.
    Word,
    /// Letters, digits, `_`, `-` (base64 for URLs).
    Url,
    /// Letters, digits, `_`, `-`, `.`.
    Dotted,
    /// Letters, digits, `+`, `/`, `=` (base64).
    Base64,
}

impl Body {
    fn has(self, byte: u8) -> bool {
        let alnum = byte.is_ascii_alphanumeric();
        match self {
            Self::Alnum => alnum,
            Self::Hex => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            Self::Word => alnum || byte == b'_',
            Self::Url => alnum || matches!(byte, b'_' | b'-'),
            Self::Dotted => alnum || matches!(byte, b'_' | b'-' | b'.'),
            Self::Base64 => alnum || matches!(byte, b'+' | b'/' | b'='),
        }
    }
}

/// One form of token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRow {
    #[serde(rename = "type")]
    kind: String,
    prefix: String,
    body: Body,
    /// Fewest and most characters after the prefix.
    length: (usize, usize),
    /// A text that stands inside every such token.
    #[serde(default)]
    contains: Option<String>,
    /// The last six characters are a CRC-32 of those before, in base 62.
    #[serde(default)]
    checksum: bool,
    /// The token is an account's or key's public name, not a secret: it is the identifier, as
    /// `principal:<type>/<token>`.
    #[serde(default)]
    public: bool,
    /// Server names that it is for.
    #[serde(default)]
    pub(super) hosts: Vec<String>,
    #[serde(rename = "source")]
    _source: String,
}

impl TokenRow {
    /// What every such token begins with.
    #[must_use]
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    #[must_use]
    pub(super) fn has_checksum(&self) -> bool {
        self.checksum
    }

    /// Length of the token at the start of `rest`, if one is there.
    pub(super) fn length(&self, rest: &[u8]) -> Option<usize> {
        let body = rest.strip_prefix(self.prefix.as_bytes())?;
        let (least, most) = self.length;
        let mut len = body
            .iter()
            .take(MAX_TOKEN)
            .take_while(|b| self.body.has(**b))
            .count();
        // A full stop or dash after the token belongs to the sentence around it.
        while len > least && body.get(len - 1).is_some_and(|b| matches!(b, b'.' | b'-')) {
            len -= 1;
        }
        let text = body.get(..len)?;
        let inside = self.contains.as_ref().is_none_or(|part| {
            text.windows(part.len().max(1))
                .any(|w| w == part.as_bytes())
        });
        let next = body.get(len).copied();
        let ends = !next.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        ((least..=most).contains(&len) && inside && ends).then_some(self.prefix.len() + len)
    }

    /// The identifier of such a token.
    pub(super) fn identify(&self, token: &[u8], hasher: &Hasher) -> Option<CredentialId> {
        if !self.public {
            return hasher.identify(&self.kind, token);
        }
        let text = std::str::from_utf8(token).ok()?;
        CredentialId::scoped(CredentialKind::Principal, &self.kind, text).ok()
    }
}

/// A variable that holds a secret whatever its form.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VariableRow {
    #[serde(rename = "type")]
    kind: String,
    names: Vec<String>,
    /// Another variable whose value names the server.
    #[serde(default)]
    host_from: Option<String>,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(rename = "source")]
    _source: String,
}

/// What a variable's name says.
#[derive(Clone, Debug)]
pub struct Variable {
    /// The type of secret.
    pub kind: String,
    /// Another variable whose value names the server.
    pub host_from: Option<String>,
    /// Server names that it is for.
    pub hosts: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PatternRow {
    #[serde(rename = "type")]
    kind: String,
    regex: String,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(rename = "source")]
    _source: String,
}

/// A pattern of the user's own.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The type of secret it finds.
    pub name: String,
    /// Server names that such a secret is for.
    pub hosts: Vec<String>,
    regex: Regex,
}

impl Pattern {
    /// The secrets in `text`: the pattern's first group, or all that it matches.
    pub(super) fn find<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        self.regex
            .captures_iter(text)
            .take(MAX_PER_PATTERN)
            .filter_map(|found| found.get(1).or_else(|| found.get(0)))
            .map(|found| found.as_bytes())
            .collect::<Vec<_>>()
            .into_iter()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    #[serde(default)]
    token: Vec<TokenRow>,
    #[serde(default)]
    variable: Vec<VariableRow>,
    #[serde(default)]
    pattern: Vec<PatternRow>,
}

/// All forms.
#[derive(Clone, Debug, Default)]
pub struct TokenCatalogue {
    /// By first byte, the longest prefix first.
    tokens: BTreeMap<u8, Vec<TokenRow>>,
    variables: BTreeMap<String, Variable>,
    patterns: Vec<Pattern>,
}

impl TokenCatalogue {
    /// The forms that come with the sensor.
    ///
    /// # Errors
    /// Never in a released build (a test reads the same text).
    pub fn builtin() -> Result<Self, TokensError> {
        let mut catalogue = Self::default();
        catalogue.add("(built in)", include_str!("../../catalogue/tokens.toml"))?;
        Ok(catalogue)
    }

    /// Adds rows from text (a user's own file); `origin` names it in errors.
    ///
    /// # Errors
    /// [`TokensError`] with the line or row at fault; nothing is added then.
    pub fn add(&mut self, origin: &str, text: &str) -> Result<(), TokensError> {
        let rows: Rows = toml::from_str(text).map_err(|source| TokensError::Form {
            origin: origin.to_owned(),
            source: Box::new(source),
        })?;
        let patterns = rows
            .pattern
            .into_iter()
            .map(|row| compile(origin, row))
            .collect::<Result<Vec<_>, _>>()?;
        for row in &rows.token {
            check(origin, row)?;
        }
        for row in &rows.variable {
            check_kind(origin, &row.kind)?;
        }
        for row in rows.token {
            let Some(first) = row.prefix.bytes().next() else {
                continue;
            };
            let list = self.tokens.entry(first).or_default();
            list.push(row);
            list.sort_by_key(|row| std::cmp::Reverse(row.prefix.len()));
        }
        for row in rows.variable {
            for name in row.names {
                let variable = Variable {
                    kind: row.kind.clone(),
                    host_from: row.host_from.clone(),
                    hosts: row.hosts.clone(),
                };
                self.variables.insert(name, variable);
            }
        }
        self.patterns.extend(patterns);
        Ok(())
    }

    /// Forms whose tokens begin with this byte, the longest prefix first.
    pub(super) fn starting_with(&self, first: u8) -> std::slice::Iter<'_, TokenRow> {
        self.tokens
            .get(&first)
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
    }

    /// What the name of a variable says about its value. `*` ends a name in the catalogue.
    #[must_use]
    pub(super) fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.get(name).or_else(|| {
            let starts = self
                .variables
                .iter()
                .filter(|(known, _)| known.ends_with('*'));
            starts
                .filter(|(known, _)| name.starts_with(known.trim_end_matches('*')))
                .map(|(_, variable)| variable)
                .next()
        })
    }

    pub(super) fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.iter()
    }
}

fn compile(origin: &str, row: PatternRow) -> Result<Pattern, TokensError> {
    check_kind(origin, &row.kind)?;
    let fail = |problem: String| TokensError::Row {
        origin: origin.to_owned(),
        name: row.kind.clone(),
        problem,
    };
    // `regex` runs in time linear in the text; the limit bounds what a pattern takes in memory.
    let regex = RegexBuilder::new(&row.regex)
        .size_limit(MAX_PATTERN)
        .build()
        .map_err(|error| fail(format!("has a pattern that does not compile: {error}")))?;
    if regex.is_match(b"") {
        return Err(fail(
            "matches the empty text: say what must be there".to_owned(),
        ));
    }
    Ok(Pattern {
        name: row.kind,
        hosts: row.hosts,
        regex,
    })
}

fn check_kind(origin: &str, kind: &str) -> Result<(), TokensError> {
    if CredentialId::scoped(CredentialKind::KeyedHash, kind, "00").is_ok() {
        return Ok(());
    }
    Err(TokensError::Row {
        origin: origin.to_owned(),
        name: kind.to_owned(),
        problem: "is no type: use lower-case letters, digits and dashes".to_owned(),
    })
}

fn check(origin: &str, row: &TokenRow) -> Result<(), TokensError> {
    check_kind(origin, &row.kind)?;
    let (least, most) = row.length;
    let problem = if row.prefix.len() < 2 {
        "needs a prefix of two characters or more; use a [[pattern]] for other forms"
    } else if least < 6 || least > most || most > MAX_TOKEN {
        "needs a length of [fewest, most] characters after the prefix, six or more"
    } else if row.checksum && least < 12 {
        "is too short for a checksum"
    } else {
        return Ok(());
    };
    Err(TokensError::Row {
        origin: origin.to_owned(),
        name: format!("{} {}", row.kind, row.prefix),
        problem: problem.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_rows_are_named() {
        for (text, says) in [
            (
                "[[token]]\ntype='X'\nprefix='ab'\nbody='hex'\nlength=[8,8]\nsource=''",
                "`X` is no type",
            ),
            (
                "[[token]]\ntype='x'\nprefix='a'\nbody='hex'\nlength=[8,8]\nsource=''",
                "`x a` needs a prefix",
            ),
            (
                "[[token]]\ntype='x'\nprefix='ab'\nbody='hex'\nlength=[9,8]\nsource=''",
                "needs a length",
            ),
            (
                "[[pattern]]\ntype='x'\nregex='('\nsource=''",
                "does not compile",
            ),
            (
                "[[pattern]]\ntype='x'\nregex='a*'\nsource=''",
                "matches the empty text",
            ),
            ("[[token]]\ntpye='x'", "own.toml"),
        ] {
            let error = TokenCatalogue::default()
                .add("own.toml", text)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(says) && error.contains("own.toml"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_built_in_rows_are_sound_and_names_may_end_in_a_star() {
        let catalogue = TokenCatalogue::builtin().unwrap();
        assert!(catalogue.tokens.values().map(Vec::len).sum::<usize>() > 60);
        assert_eq!(
            catalogue.variable("OPENAI_API_KEY").unwrap().kind,
            "openai-api-key"
        );
        assert_eq!(
            catalogue
                .variable("TF_TOKEN_app_terraform_io")
                .unwrap()
                .kind,
            "terraform-token"
        );
        assert!(catalogue.variable("PATH").is_none());
    }
}
