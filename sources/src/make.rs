//! What every source needs to make a use.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use keytrail_model::consumption::{Caller, Consumption};
use keytrail_model::credential::{CredentialId, CredentialKind};
use keytrail_model::ids::RecordId;
use sha2::{Digest as _, Sha256};

use crate::doc::Doc;
use crate::{Options, Parsed, Rejection, Skip, secret, text};

/// Resources kept of a record.
pub(crate) const MAX_RESOURCES: usize = 16;
/// Ancestors kept of a credential.
const MAX_ANCESTORS: usize = 8;
/// Characters of a record's own id that are kept.
const MAX_ID: usize = 256;

/// A record and what its source's settings say.
pub(crate) struct Context<'a> {
    /// The record's bytes, for an id where it has none of its own.
    pub(crate) bytes: &'a [u8],
    pub(crate) options: &'a Options,
}

/// What a record is.
pub(crate) enum Found {
    /// A use.
    Use(Box<Consumption>),
    /// A use, known by its content's hash.
    Derived(Box<Consumption>),
    /// Sound, but no use.
    Skip(Skip),
}

impl Found {
    /// Counts it, and puts the use into `out`.
    pub(crate) fn take(self, out: &mut Vec<Consumption>) -> Parsed {
        let (usage, derived_id) = match self {
            Self::Use(usage) => (usage, false),
            Self::Derived(usage) => (usage, true),
            Self::Skip(why) => return Parsed::skip(why),
        };
        out.push(*usage);
        Parsed {
            uses: 1,
            derived_id,
            ..Parsed::default()
        }
    }
}

/// What a source's parser gives.
pub(crate) type Outcome = Result<Found, Rejection>;

/// The credential and what it descends from, nearest first.
#[derive(Default)]
pub(crate) struct Chain(Vec<CredentialId>);

impl Chain {
    /// Adds the next one up, if the record names it.
    pub(crate) fn then(mut self, next: Option<CredentialId>) -> Self {
        if let Some(next) = next
            && self.0.len() <= MAX_ANCESTORS
            && !self.0.contains(&next)
        {
            self.0.push(next);
        }
        self
    }

    /// True when the record names none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A use of the first, which descends from the rest.
    ///
    /// `id` is the provider's own id of the event; without one it is the hash of the record.
    pub(crate) fn usage(
        self,
        source: &str,
        id: Option<&str>,
        time: Timestamp,
        cx: &Context<'_>,
    ) -> Option<Consumption> {
        let mut chain = self.0.into_iter();
        let credential = chain.next()?;
        let mut usage = Consumption::new(record_id(source, id, cx.bytes), credential, time);
        usage.descends = chain.collect();
        Some(usage)
    }
}

/// `<source>:<id>`, or `<source>:sha256-<hash of the record>`.
pub(crate) fn record_id(source: &str, id: Option<&str>, bytes: &[u8]) -> RecordId {
    RecordId(match id {
        Some(id) => {
            let end = if id.len() > MAX_ID {
                id.char_indices()
                    .nth(MAX_ID)
                    .map_or(id.len(), |(end, _)| end)
            } else {
                id.len()
            };
            let mut text = String::with_capacity(source.len() + 1 + end);
            text.push_str(source);
            text.push(':');
            text.push_str(id.get(..end).unwrap_or_default());
            text
        }
        None => format!("{source}:sha256-{:x}", Sha256::digest(bytes)),
    })
}

/// Wraps a use that has an id of its own, or has none.
pub(crate) fn found(usage: Consumption, has_id: bool) -> Found {
    let usage = Box::new(usage);
    if has_id {
        Found::Use(usage)
    } else {
        Found::Derived(usage)
    }
}

/// An identifier of `kind`; `None` when it has not that kind's form, or looks like the secret
/// itself (a log that was told to write secrets in clear).
pub(crate) fn exact(kind: CredentialKind, value: &str) -> Option<CredentialId> {
    if secret::struck_out(value).is_some() {
        return None;
    }
    CredentialId::new(kind, value).ok()
}

/// An account at a provider; mail addresses in lower case, since their case carries no meaning.
pub(crate) fn principal(scope: &str, name: &str) -> Option<CredentialId> {
    scoped(CredentialKind::Principal, scope, name)
}

/// A session at a provider.
pub(crate) fn session(scope: &str, id: &str) -> Option<CredentialId> {
    scoped(CredentialKind::Session, scope, id)
}

/// An identifier within a scope.
pub(crate) fn scoped(kind: CredentialKind, scope: &str, id: &str) -> Option<CredentialId> {
    let id = id.trim();
    if id.is_empty() || secret::struck_out(id).is_some() {
        return None;
    }
    let id = if id.contains('@') && kind == CredentialKind::Principal {
        Cow::Owned(id.to_lowercase())
    } else {
        Cow::Borrowed(id)
    };
    CredentialId::scoped(kind, scope, &id).ok()
}

/// The time in the first of these members that has one.
pub(crate) fn time_of(doc: &Doc<'_>, names: &[&str]) -> Option<Timestamp> {
    names.iter().find_map(|name| time(doc.get(name)))
}

/// A value as a time: text in any of the usual forms, or a number since 1970.
pub(crate) fn time(value: &Doc<'_>) -> Option<Timestamp> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds are kept")]
        Doc::Int(number) => text::epoch(*number as f64),
        Doc::Float(number) => text::epoch(*number),
        other => text::time(other.text()?),
    }
}

/// A caller by address; unknown when there is none that can be read.
///
/// Of several hops (`X-Forwarded-For`) it is the last that is out in the world: the first can be
/// set by the client at will, and the last ones are the operator's own.
pub(crate) fn caller(address: Option<&str>) -> Caller {
    let hops = address.into_iter().flat_map(|text| text.split(','));
    let hops: Vec<IpAddr> = hops.filter_map(text::address).collect();
    let public = hops.iter().rev().find(|hop| !is_internal(**hop));
    match public.or(hops.last()).copied() {
        Some(address) => Caller::Address { address },
        None => Caller::Unknown,
    }
}

/// An address that is nobody's in the world (RFC 1918, RFC 4193, RFC 6598, loopback, link-local).
fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// The provider itself.
pub(crate) fn service_caller(service: &str) -> Caller {
    Caller::Service {
        service: text::kept(service),
    }
}

/// Names of resources: no query strings, no secrets, no repetition, at most [`MAX_RESOURCES`].
pub(crate) fn resources<'a>(names: impl IntoIterator<Item = Option<&'a str>>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for name in names.into_iter().flatten() {
        if kept.len() >= MAX_RESOURCES {
            break;
        }
        let name = text::without_query(name.trim());
        if !name.is_empty() && !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

/// Server names: the provider's own, then what the settings add.
pub(crate) fn endpoints(own: &[&str], options: &Options) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let added = options.endpoints.iter().map(String::as_str);
    for name in own.iter().copied().chain(added) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Text for a field, cleaned.
pub(crate) fn kept(text: Option<&str>) -> Option<String> {
    text.map(text::kept)
}
