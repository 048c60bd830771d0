//! The ranges that providers publish as JSON.
//!
//! All of them list CIDR blocks somewhere, beside words that say what the blocks are for. So one
//! walk finds them in every shape, and words are put together from where a block was found:
//!
//! | provider | shape |
//! |---|---|
//! | AWS `ip-ranges.json` | `prefixes[].{ip_prefix, region, service}`, `ipv6_prefixes[].{ipv6_prefix, ...}` |
//! | Google `goog.json`, `cloud.json` | `prefixes[].{ipv4Prefix or ipv6Prefix, service, scope}` |
//! | Azure `ServiceTags_*.json` | `values[].{name, properties.addressPrefixes[]}` |
//! | GitHub `meta` | `{actions: [], hooks: [], ...}` |
//! | Cloudflare `ips` | `result.{ipv4_cidrs: [], ipv6_cidrs: []}` |
//! | Fastly `public-ip-list` | `{addresses: [], ipv6_addresses: []}` |
//! | Oracle `public_ip_ranges.json` | `regions[].{region, cidrs[].{cidr, tags: []}}` |
//! | Atlassian `ip-ranges` | `items[].{cidr, product: [], region: []}` |

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::ReadError;
use crate::database::{Draft, Entry, Role};
use crate::error::Problem;
use crate::span::Span;

/// Members whose text says what a block is for, in the order in which they are told.
const WORDS: [&str; 7] = [
    "service",
    "product",
    "tags",
    "scope",
    "region",
    "systemService",
    "name",
];
/// Names of members that say how a file is built, not what its blocks are for.
const STRUCTURE: [&str; 24] = [
    "addresses",
    "addressprefixes",
    "cidr",
    "cidrs",
    "data",
    "ip_prefix",
    "ip_ranges",
    "ips",
    "ipv4_addresses",
    "ipv4_cidrs",
    "ipv4prefix",
    "ipv6_addresses",
    "ipv6_cidrs",
    "ipv6_prefix",
    "ipv6_prefixes",
    "ipv6prefix",
    "items",
    "prefix",
    "prefixes",
    "properties",
    "ranges",
    "regions",
    "result",
    "values",
];
/// Names that say less than others for the same block.
const GENERIC: [&str; 2] = ["AMAZON", "AzureCloud"];
/// Deepest nesting looked into.
const MAX_DEPTH: usize = 12;

/// Reads a provider's ranges.
pub(super) fn read(
    bytes: &[u8],
    (role, name): (Role, &str),
    draft: &mut Draft,
) -> Result<&'static str, ReadError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| Problem::Json(error.to_string()))?;
    let (provider, format) = match role {
        Role::World => provider(&value).unwrap_or((name, "JSON with CIDR blocks")),
        Role::Pool => (name, "JSON with CIDR blocks"),
    };
    draft.dated = dated(&value);
    let mut walk = Walk {
        draft,
        path: Vec::new(),
        provider,
    };
    walk.value(&value, 0)?;
    Ok(format)
}

/// Whose file it is, by its shape.
fn provider(value: &Value) -> Option<(&'static str, &'static str)> {
    let has = |path: &str| value.pointer(path).is_some();
    if has("/prefixes/0/ip_prefix") || has("/ipv6_prefixes/0/ipv6_prefix") {
        Some(("AWS", "AWS ip-ranges"))
    } else if has("/prefixes/0/ipv4Prefix") || has("/prefixes/0/ipv6Prefix") {
        Some(("Google", "Google's ranges"))
    } else if has("/values/0/properties/addressPrefixes") {
        Some(("Azure", "Azure service tags"))
    } else if has("/hooks") && has("/web") && has("/git") {
        Some(("GitHub", "GitHub meta"))
    } else if has("/result/ipv4_cidrs") {
        Some(("Cloudflare", "Cloudflare's ranges"))
    } else if has("/addresses") && has("/ipv6_addresses") {
        Some(("Fastly", "Fastly's ranges"))
    } else if has("/regions/0/cidrs") {
        Some(("Oracle", "Oracle's ranges"))
    } else if has("/items/0/cidr") && has("/items/0/product") {
        Some(("Atlassian", "Atlassian's ranges"))
    } else {
        None
    }
}

/// The day of the data: AWS writes `2026-06-01-18-23-11`, Google and Oracle ISO 8601.
fn dated(value: &Value) -> Option<Timestamp> {
    let members = ["createDate", "creationTime", "last_updated_timestamp"];
    let text = members.iter().find_map(|name| value.get(name)?.as_str())?;
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let civil = DateTime::strptime("%Y-%m-%d-%H-%M-%S", text).ok();
    let civil = civil.or_else(|| text.parse().ok())?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

struct Walk<'a, 'd> {
    draft: &'d mut Draft,
    /// Words of the objects and members around.
    path: Vec<String>,
    provider: &'a str,
}

impl Walk<'_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Problem> {
        if depth > MAX_DEPTH {
            return Ok(());
        }
        match value {
            Value::String(text) => match block(text) {
                Some(span) => self.add(span),
                None => Ok(()),
            },
            Value::Array(items) => items
                .iter()
                .try_for_each(|item| self.value(item, depth + 1)),
            Value::Object(members) => self.object(members, depth),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    fn object(&mut self, members: &Map<String, Value>, depth: usize) -> Result<(), Problem> {
        let before = self.path.len();
        for word in WORDS {
            self.words(members.get(word));
        }
        for (name, member) in members {
            // What tells of the blocks holds none itself.
            if WORDS.contains(&name.as_str()) && !member.is_object() {
                continue;
            }
            // A member that is one address is a mask or a network's base (Atlassian), no range.
            if member.as_str().is_some_and(|text| !text.contains('/')) {
                continue;
            }
            let inside = self.path.len();
            let structure = STRUCTURE.contains(&name.to_ascii_lowercase().as_str());
            if !structure {
                self.path.push(name.clone());
            }
            self.value(member, depth + 1)?;
            self.path.truncate(inside);
        }
        self.path.truncate(before);
        Ok(())
    }

    /// A text, or the texts of an array.
    fn words(&mut self, value: Option<&Value>) {
        match value {
            Some(Value::String(text)) if !text.is_empty() => self.path.push(text.clone()),
            Some(Value::Array(items)) => {
                self.path
                    .extend(items.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            _ => {}
        }
    }

    /// A block, called by its provider and the words around it, each once.
    fn add(&mut self, span: Span) -> Result<(), Problem> {
        let mut label = self.provider.to_owned();
        let mut told: Vec<&str> = Vec::new();
        for word in &self.path {
            // "Google Cloud" behind "Google" says it again, and "westeurope" behind
            // "Storage.WestEurope".
            let word = match word.strip_prefix(self.provider) {
                Some(rest) if rest.is_empty() || rest.starts_with(' ') => rest.trim_start(),
                _ => word,
            };
            let lower = word.to_ascii_lowercase();
            let again = told
                .iter()
                .any(|told| told.to_ascii_lowercase().contains(&lower));
            if !word.is_empty() && !again {
                told.push(word);
                label.push(' ');
                label.push_str(word);
            }
        }
        let generic = self
            .path
            .iter()
            .any(|word| GENERIC.iter().any(|generic| word == generic));
        let entry = Entry {
            label: Some(&label),
            generic,
            ..Entry::default()
        };
        self.draft.add(span, entry)
    }
}

/// A CIDR block or an address; other text is none.
fn block(text: &str) -> Option<Span> {
    if text.len() > 49 || !text.contains(['.', ':']) {
        return None;
    }
    Span::parse(text).ok()
}
