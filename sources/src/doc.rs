//! A JSON value that borrows from the record.
//!
//! Members are found by name, and by name in another case when that name is not there: field names
//! lose their case in many a pipeline (`callerIp`, `callerIP`, `calleripaddress`).

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Rejection;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Doc<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Doc<'a>>),
    Object(Vec<(Cow<'a, str>, Doc<'a>)>),
}

/// What is not there.
static NULL: Doc<'static> = Doc::Null;

impl<'a> Doc<'a> {
    /// Reads one record.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Rejection> {
        match serde_json::from_slice(bytes).map_err(|_| Rejection::BadJson)? {
            doc @ Doc::Object(_) => Ok(doc),
            _ => Err(Rejection::NotObject),
        }
    }

    /// A member; null when there is none.
    pub(crate) fn get(&self, name: &str) -> &Doc<'a> {
        self.member(name).unwrap_or(&NULL)
    }

    fn member(&self, name: &str) -> Option<&Doc<'a>> {
        let Doc::Object(members) = self else {
            return None;
        };
        // One pass, and most names differ in length already: most look-ups find nothing.
        let mut other_case = None;
        for (key, value) in members {
            if key.len() != name.len() {
                continue;
            }
            if key == name {
                return Some(value);
            }
            if other_case.is_none() && key.eq_ignore_ascii_case(name) {
                other_case = Some(value);
            }
        }
        other_case
    }

    /// The first member called `name` between any of these prefixes and any of these ends, in any
    /// case, that is not null.
    pub(crate) fn between(&self, prefixes: &[&str], name: &str, ends: &[&str]) -> &Doc<'a> {
        let Doc::Object(members) = self else {
            return &NULL;
        };
        let fits = |key: &str, prefix: &str, end: &str| {
            key.len() == prefix.len() + name.len() + end.len()
                && key
                    .split_at_checked(prefix.len())
                    .is_some_and(|(front, rest)| {
                        let parts = rest.split_at_checked(name.len());
                        front.eq_ignore_ascii_case(prefix)
                            && parts.is_some_and(|(middle, back)| {
                                middle.eq_ignore_ascii_case(name) && back.eq_ignore_ascii_case(end)
                            })
                    })
        };
        let any = |key: &str| {
            let ended = |prefix: &&str| ends.iter().any(|end| fits(key, prefix, end));
            prefixes.iter().any(ended)
        };
        let found = members
            .iter()
            .find(|(key, value)| *value != Doc::Null && any(key));
        found.map_or(&NULL, |(_, value)| value)
    }

    /// A member's member, and so on.
    pub(crate) fn at(&self, path: &[&str]) -> &Doc<'a> {
        path.iter().fold(self, |doc, name| doc.get(name))
    }

    /// A value by a dotted path: names, numbers for places in a list, `*` for the first member of a
    /// list that has the rest. A name may hold dots itself (`meta.user`).
    pub(crate) fn path(&self, path: &str) -> Option<&Doc<'a>> {
        if let Doc::List(items) = self {
            let (place, rest) = path.split_once('.').unwrap_or((path, ""));
            let below =
                |item: &'_ Doc<'a>| -> bool { rest.is_empty() || item.path(rest).is_some() };
            let item = match place {
                "*" => items.iter().find(|item| below(item))?,
                place => items.get(place.parse::<usize>().ok()?)?,
            };
            return if rest.is_empty() {
                Some(item)
            } else {
                item.path(rest)
            };
        }
        if let Some(found) = self.member(path) {
            return Some(found).filter(|doc| **doc != Doc::Null);
        }
        path.match_indices('.').find_map(|(dot, _)| {
            let (name, rest) = (path.get(..dot)?, path.get(dot + 1..)?);
            self.member(name)?.path(rest)
        })
    }

    /// The text, unless it is empty or a word for nothing.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Doc::Text(text) => {
                let text = text.trim();
                let nothing = text.is_empty()
                    || text == "-"
                    || text.eq_ignore_ascii_case("null")
                    || text.eq_ignore_ascii_case("<null>");
                (!nothing).then_some(text)
            }
            _ => None,
        }
    }

    /// A text, or a number as text: ids come as either.
    pub(crate) fn id(&self) -> Option<Cow<'_, str>> {
        match self {
            Doc::Int(number) => Some(Cow::Owned(number.to_string())),
            Doc::Float(number) => Some(Cow::Owned(number.to_string())),
            other => other.text().map(Cow::Borrowed),
        }
    }

    /// A whole number, also as text.
    pub(crate) fn int(&self) -> Option<i64> {
        match self {
            Doc::Int(number) => Some(*number),
            #[expect(clippy::cast_possible_truncation, reason = "bounded by the guard")]
            Doc::Float(number) if number.abs() < 1e15 => Some(*number as i64),
            other => other.text()?.parse().ok(),
        }
    }

    /// A truth, also as text.
    pub(crate) fn truth(&self) -> Option<bool> {
        match self {
            Doc::Bool(truth) => Some(*truth),
            other => match other.text()? {
                text if text.eq_ignore_ascii_case("true") => Some(true),
                text if text.eq_ignore_ascii_case("false") => Some(false),
                _ => None,
            },
        }
    }

    /// The members of a list; a lone value is a list of one, null an empty one.
    pub(crate) fn items(&self) -> &[Doc<'a>] {
        match self {
            Doc::List(items) => items,
            Doc::Null => &[],
            other => std::slice::from_ref(other),
        }
    }

    /// True for an object.
    pub(crate) fn is_object(&self) -> bool {
        matches!(self, Doc::Object(_))
    }

    /// JSON inside a text, as some systems nest it.
    pub(crate) fn embedded(&self) -> Option<Doc<'_>> {
        let text = self.text().filter(|text| text.starts_with(['{', '[']))?;
        serde_json::from_str(text).ok()
    }

    /// The first of these members that has text.
    pub(crate) fn first<'s>(&'s self, names: &[&str]) -> Option<&'s str> {
        names.iter().find_map(|name| self.get(name).text())
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Doc<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Doc<'de>, E> {
        Ok(Doc::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Doc<'de>, E> {
        Ok(Doc::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Doc<'de>, E> {
        Ok(Doc::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Doc<'de>, E> {
        #[expect(clippy::cast_precision_loss, reason = "beyond i64 no id is a number")]
        Ok(i64::try_from(number).map_or(Doc::Float(number as f64), Doc::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Doc<'de>, E> {
        Ok(Doc::Float(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Doc<'de>, E> {
        Ok(Doc::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Doc<'de>, E> {
        Ok(Doc::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Doc<'de>, E> {
        Ok(Doc::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Doc<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Doc::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Doc<'de>, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some(key) = map.next_key::<Key<'de>>()? {
            members.push((key.0, map.next_value()?));
        }
        Ok(Doc::Object(members))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Doc<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// A member's name, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Names)
    }
}

impl Serialize for Doc<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Doc::Null => serializer.serialize_unit(),
            Doc::Bool(truth) => serializer.serialize_bool(*truth),
            Doc::Int(number) => serializer.serialize_i64(*number),
            Doc::Float(number) => serializer.serialize_f64(*number),
            Doc::Text(text) => serializer.serialize_str(text),
            Doc::List(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Doc::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_in_any_case_and_by_path() {
        let text = r#"{"callerIP":"x","a":{"B":[{"c":null},{"c":7}]},"meta.user":"ana","n":-1.5,"t":"TRUE","e":"{\"k\":1}"}"#;
        let doc = Doc::read(text.as_bytes()).unwrap();
        assert_eq!(doc.get("callerIp").text(), Some("x"));
        for (path, expected) in [
            ("a.b.1.c", Some("7")),
            ("a.b.*.c", Some("7")),
            ("a.b.0.c", None),
            ("meta.user", Some("ana")),
            ("a.x", None),
            ("a.b.9", None),
            ("", None),
            ("..", None),
        ] {
            let found = doc.path(path).and_then(Doc::id);
            assert_eq!(found.as_deref(), expected, "{path}");
        }
        assert_eq!(doc.get("t").truth(), Some(true));
        assert_eq!(doc.get("e").embedded().unwrap().get("k").int(), Some(1));
        assert_eq!(doc.get("a").get("b").items().len(), 2);
        let again = serde_json::to_vec(&doc).unwrap();
        assert_eq!(Doc::read(&again).unwrap(), doc);
        assert_eq!(Doc::read(b"[1]"), Err(Rejection::NotObject));
        assert_eq!(Doc::read(b"{"), Err(Rejection::BadJson));
    }
}
