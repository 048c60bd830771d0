//! Filters (RFC 7644 section 3.4.2.2): `userName eq "ana" and emails[type eq "work"]`.

use serde_json::Value;
use thiserror::Error;

/// Deepest nesting of brackets and `not`.
const MAX_DEPTH: usize = 32;
/// Longest filter, bytes.
const MAX_BYTES: usize = 8_192;

/// Why a filter cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("filter: {0}")]
pub(super) struct FilterError(String);

/// A filter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    /// The attribute has a value.
    Present(Vec<String>),
    /// The attribute compares so with the value.
    Compare(Vec<String>, Operator, Value),
    /// One element of the attribute fits the filter.
    Element(Vec<String>, Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Eq,
    Ne,
    Co,
    Sw,
    Ew,
    Gt,
    Ge,
    Lt,
    Le,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Value(Value),
    Sign(char),
}

/// Reads a filter.
pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    if text.len() > MAX_BYTES {
        return Err(FilterError("it is too long".to_owned()));
    }
    let mut reader = Reader {
        tokens: tokens(text)?,
        at: 0,
    };
    let filter = reader.either(MAX_DEPTH)?;
    match reader.peek() {
        None => Ok(filter),
        Some(token) => Err(FilterError(format!("nothing may follow at {token:?}"))),
    }
}

/// The segments of an attribute's path, as they are written. The core schemas' names fall away; an
/// extension's name is one segment.
pub(super) fn path(text: &str) -> Vec<String> {
    let urn = text
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("urn:"));
    let (schema, rest) = match text.rsplit_once(':') {
        Some((schema, rest)) if urn => (Some(schema), rest),
        _ => (None, text),
    };
    let core = "urn:ietf:params:scim:schemas:core:";
    let extension = schema.filter(|schema| !schema.to_lowercase().starts_with(core));
    let mut segments: Vec<String> = extension.map(str::to_owned).into_iter().collect();
    // The dots of a version (`2.0`) belong to the schema's name.
    segments.extend(rest.split('.').map(str::to_owned));
    segments
}

fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut all = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        if "()[]".contains(c) {
            all.push(Token::Sign(c));
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        } else if c == '"' {
            let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            let value = stream
                .next()
                .and_then(Result::ok)
                .ok_or_else(|| FilterError("a text is not closed".to_owned()))?;
            rest = rest.get(stream.byte_offset()..).unwrap_or_default();
            all.push(Token::Value(value));
        } else {
            let end = rest
                .find(|c: char| c.is_whitespace() || "()[]\"".contains(c))
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            // `].value` after an element filter belongs to PATCH paths only.
            all.push(Token::Word(word.to_owned()));
            rest = after;
        }
        rest = rest.trim_start();
    }
    Ok(all)
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn word_is(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word))
    }

    fn either(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let mut left = self.both(depth)?;
        while self.word_is("or") {
            self.at += 1;
            left = Filter::Or(Box::new(left), Box::new(self.both(depth)?));
        }
        Ok(left)
    }

    fn both(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let mut left = self.one(depth)?;
        while self.word_is("and") {
            self.at += 1;
            left = Filter::And(Box::new(left), Box::new(self.one(depth)?));
        }
        Ok(left)
    }

    fn one(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let deeper = depth
            .checked_sub(1)
            .ok_or_else(|| FilterError("nested too deeply".to_owned()))?;
        if self.word_is("not") {
            self.at += 1;
            return Ok(Filter::Not(Box::new(self.one(deeper)?)));
        }
        let attribute = match self.next() {
            Some(Token::Sign('(')) => {
                let inner = self.either(deeper)?;
                self.close(')')?;
                return Ok(inner);
            }
            Some(Token::Word(word)) => path(&word),
            _ => return Err(FilterError("an attribute is expected".to_owned())),
        };
        if self.peek() == Some(&Token::Sign('[')) {
            self.at += 1;
            let inner = self.either(deeper)?;
            self.close(']')?;
            return Ok(Filter::Element(attribute, Box::new(inner)));
        }
        let Some(Token::Word(operator)) = self.next() else {
            return Err(FilterError("an operator is expected".to_owned()));
        };
        let operator = match operator.to_lowercase().as_str() {
            "pr" => return Ok(Filter::Present(attribute)),
            "eq" => Operator::Eq,
            "ne" => Operator::Ne,
            "co" => Operator::Co,
            "sw" => Operator::Sw,
            "ew" => Operator::Ew,
            "gt" => Operator::Gt,
            "ge" => Operator::Ge,
            "lt" => Operator::Lt,
            "le" => Operator::Le,
            _ => {
                return Err(FilterError(
                    "the operator is none of eq ne co sw ew pr gt ge lt le".to_owned(),
                ));
            }
        };
        let value = match self.next() {
            Some(Token::Value(value)) => value,
            Some(Token::Word(word)) => serde_json::from_str(&word.to_lowercase())
                .map_err(|_| FilterError("a text must be quoted".to_owned()))?,
            _ => return Err(FilterError("a value is expected".to_owned())),
        };
        Ok(Filter::Compare(attribute, operator, value))
    }

    fn close(&mut self, sign: char) -> Result<(), FilterError> {
        match self.next() {
            Some(Token::Sign(c)) if c == sign => Ok(()),
            _ => Err(FilterError(format!("{sign} is missing"))),
        }
    }
}

/// A member by its name in any case.
pub(super) fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let members = value.as_object()?;
    members
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// Every value at a path: lists stand for their elements.
fn values<'v>(value: &'v Value, path: &[String], into: &mut Vec<&'v Value>) {
    if let Value::Array(list) = value {
        for one in list {
            values(one, path, into);
        }
        return;
    }
    match path.split_first() {
        None => into.push(value),
        Some((first, rest)) => {
            if let Some(next) = member(value, first) {
                values(next, rest, into);
            }
        }
    }
}

impl Filter {
    /// The name in `userName eq "..."`.
    pub(super) fn user_name(&self) -> Option<&str> {
        match self {
            Self::Compare(path, Operator::Eq, value) => match path.as_slice() {
                [name] if name.eq_ignore_ascii_case("userName") => value.as_str(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a resource fits.
    pub(super) fn holds(&self, resource: &Value) -> bool {
        match self {
            Self::And(a, b) => a.holds(resource) && b.holds(resource),
            Self::Or(a, b) => a.holds(resource) || b.holds(resource),
            Self::Not(inner) => !inner.holds(resource),
            Self::Present(path) => {
                let mut found = Vec::new();
                values(resource, path, &mut found);
                found.iter().any(|value| !is_empty(value))
            }
            Self::Element(path, inner) => {
                let mut found = Vec::new();
                values(resource, path, &mut found);
                found.iter().any(|element| inner.holds(element))
            }
            Self::Compare(path, operator, wanted) => {
                let mut found = Vec::new();
                values(resource, path, &mut found);
                // A list of objects is compared by their `value`.
                let plain = found
                    .into_iter()
                    .map(|value| member(value, "value").unwrap_or(value));
                if *operator == Operator::Ne {
                    return plain
                        .into_iter()
                        .all(|value| !compare(value, Operator::Eq, wanted));
                }
                plain
                    .into_iter()
                    .any(|value| compare(value, *operator, wanted))
            }
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Texts compare without case: the attributes that people filter by are not `caseExact`.
fn compare(value: &Value, operator: Operator, wanted: &Value) -> bool {
    if let (Some(a), Some(b)) = (value.as_str(), wanted.as_str()) {
        let (a, b) = (a.to_lowercase(), b.to_lowercase());
        return match operator {
            Operator::Eq | Operator::Ne => a == b,
            Operator::Co => a.contains(&b),
            Operator::Sw => a.starts_with(&b),
            Operator::Ew => a.ends_with(&b),
            Operator::Gt => a > b,
            Operator::Ge => a >= b,
            Operator::Lt => a < b,
            Operator::Le => a <= b,
        };
    }
    if let (Some(a), Some(b)) = (value.as_f64(), wanted.as_f64()) {
        return match operator {
            Operator::Gt => a > b,
            Operator::Ge => a >= b,
            Operator::Lt => a < b,
            Operator::Le => a <= b,
            Operator::Eq | Operator::Ne | Operator::Co | Operator::Sw | Operator::Ew => {
                value == wanted
            }
        };
    }
    operator == Operator::Eq && value == wanted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn table() {
        let user = json!({
            "userName": "Ana@acme.example", "active": true, "title": "",
            "name": {"familyName": "Ruiz"},
            "emails": [{"type": "work", "value": "ana@acme.example"}, {"type": "home", "value": "a@b"}],
            "meta": {"lastModified": "2026-11-02T00:00:00Z"},
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"department": "Pay"},
        });
        for (filter, holds) in [
            ("userName eq \"ana@ACME.example\"", true),
            ("username Eq \"bo\"", false),
            (
                "urn:ietf:params:scim:schemas:core:2.0:User:userName sw \"ana\"",
                true,
            ),
            ("name.familyName co \"ui\"", true),
            ("name.familyName ew \"iz\" and active eq true", true),
            ("active eq false or active eq true", true),
            ("not (active eq true)", false),
            ("title pr", false),
            ("emails pr and emails.type eq \"home\"", true),
            ("emails co \"@b\"", true),
            ("emails[type eq \"work\" and value sw \"a@b\"]", false),
            ("emails[type eq \"home\" and value sw \"a@b\"]", true),
            ("userName ne \"bo\"", true),
            ("emails.type ne \"home\"", false),
            ("meta.lastModified gt \"2026-11-01T00:00:00Z\"", true),
            ("nothing eq \"x\"", false),
            ("nothing ne \"x\"", true),
            (
                "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department eq \"pay\"",
                true,
            ),
            ("active eq true or active eq false and title pr", true),
        ] {
            assert_eq!(parse(filter).unwrap().holds(&user), holds, "{filter}");
        }
        for bad in [
            "",
            "userName",
            "userName is \"x\"",
            "userName eq",
            "userName eq x",
            "(a pr",
            "a pr)",
            "a[b eq \"c\"",
            "a eq \"x",
            "and",
            "a pr b",
            "not",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"(".repeat(100)).is_err());
        assert!(parse(&"not ".repeat(100)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "[a-z()\\[\\]\" .]{0,60}") {
            if let Ok(filter) = parse(&text) {
                let _ = filter.holds(&json!({"a": [{"b": "c"}]}));
            }
        }
    }
}
