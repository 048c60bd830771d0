//! One record by a mapping.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use keytrail_model::consumption::{ActionClass, Consumption, Outcome as Ended};
use keytrail_model::credential::{CredentialId, CredentialKind};

use super::{Condition, Event, Mapping};
use crate::doc::Doc;
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, text};

impl Mapping {
    /// Reads a record.
    pub(crate) fn read(&self, doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
        let kept = self.keep.is_empty() || self.keep.iter().any(|condition| condition.holds(doc));
        if !kept || self.skip.iter().any(|condition| condition.holds(doc)) {
            return Ok(Found::Skip(Skip::Filtered));
        }
        let Some(action) = first(doc, &self.action) else {
            return Err(Rejection::NoEvent);
        };
        let time = self.time_of(doc).ok_or(Rejection::BadTime)?;
        if self
            .unauthenticated
            .iter()
            .any(|condition| condition.holds(doc))
        {
            return Ok(Found::Skip(Skip::NotAuthenticated));
        }
        let id = first(doc, &self.id);
        let chain = self
            .credential
            .iter()
            .fold(Chain::default(), |chain, credential| {
                let value = first(doc, &credential.path);
                let value = value
                    .as_deref()
                    .map(|v| v.strip_prefix(&credential.strip).unwrap_or(v));
                chain.then(
                    value.and_then(|v| identify(credential.kind, credential.scope.as_deref(), v)),
                )
            });
        let Some(mut usage) = chain.usage(&self.source, id.as_deref(), time, cx) else {
            return Ok(Found::Skip(Skip::NoCredential));
        };
        self.fill(&mut usage, doc, cx);
        usage.class = self.class_of(&action);
        let event = |event: &Option<Event>| {
            event
                .as_ref()
                .and_then(|event| event.credential(doc, &action))
        };
        usage.minted = event(&self.minted);
        usage.revoked = event(&self.revoked);
        usage.action = text::without_query(&action);
        Ok(found(usage, id.is_some()))
    }

    fn time_of(&self, doc: &Doc<'_>) -> Option<Timestamp> {
        self.time.iter().find_map(|path| {
            let value = doc.path(path)?;
            match &self.time_format {
                None => make::time(value),
                Some(format) => formatted(format, value.text()?).or_else(|| make::time(value)),
            }
        })
    }

    fn fill(&self, usage: &mut Consumption, doc: &Doc<'_>, cx: &Context<'_>) {
        let kept = |paths: &[String]| make::kept(first(doc, paths).as_deref());
        usage.caller = make::caller(first(doc, &self.address).as_deref());
        usage.user_agent = kept(&self.user_agent);
        usage.service.clone_from(&self.service.name);
        usage.region = kept(&self.region);
        usage.principal = kept(&self.principal);
        let account = first(doc, &self.account);
        usage.account = make::kept(account.as_deref().or(cx.options.tenant.as_deref()));
        let resources: Vec<Cow<'_, str>> = self
            .resources
            .iter()
            .filter_map(|path| doc.path(path))
            .flat_map(|value| value.items())
            .filter_map(Doc::id)
            .collect();
        usage.resources = make::resources(resources.iter().map(|name| Some(name.as_ref())));
        let host = first(doc, &self.service.host);
        let host = host.and_then(|host| text::host_of(&host).or_else(|| text::server_name(&host)));
        let own: Vec<&str> = host
            .as_deref()
            .into_iter()
            .chain(self.service.endpoints.iter().map(String::as_str))
            .collect();
        usage.endpoints = make::endpoints(&own, cx.options);
        let status = first(doc, &self.outcome.status).and_then(|s| s.parse::<u16>().ok());
        let said = first(doc, &self.outcome.path);
        usage.outcome = match (said, status) {
            (Some(said), _) if fits_any(&self.outcome.failure, &said) => {
                Ended::Failure(text::kept(&said))
            }
            (_, Some(status)) if status >= 400 => Ended::Failure(status.to_string()),
            _ => Ended::Success,
        };
    }

    fn class_of(&self, action: &str) -> ActionClass {
        let class = self
            .class
            .iter()
            .find(|class| fits_any(&class.action, action));
        class.map_or(ActionClass::Other, |class| class.class)
    }
}

impl Condition {
    fn holds(&self, doc: &Doc<'_>) -> bool {
        let value = doc.path(&self.path);
        match self.present {
            Some(present) => value.is_some() == present,
            None => value.is_some_and(|value| {
                let values = value.items();
                values
                    .iter()
                    .filter_map(word)
                    .any(|word| fits_any(&self.matches, &word))
            }),
        }
    }
}

impl Event {
    fn credential(&self, doc: &Doc<'_>, action: &str) -> Option<CredentialId> {
        if !fits_any(&self.action, action) {
            return None;
        }
        identify(self.kind, self.scope.as_deref(), &first(doc, &self.path)?)
    }
}

fn identify(kind: CredentialKind, scope: Option<&str>, value: &str) -> Option<CredentialId> {
    match scope {
        Some(scope) => make::scoped(kind, scope, value),
        None => make::exact(kind, value.trim()),
    }
}

/// The first of these paths that holds something.
fn first<'d>(doc: &'d Doc<'_>, paths: &[String]) -> Option<Cow<'d, str>> {
    paths.iter().find_map(|path| doc.path(path).and_then(word))
}

/// A text, number or truth as text.
fn word<'d>(value: &'d Doc<'_>) -> Option<Cow<'d, str>> {
    match value {
        Doc::Bool(true) => Some(Cow::Borrowed("true")),
        Doc::Bool(false) => Some(Cow::Borrowed("false")),
        other => other.id(),
    }
}

fn formatted(format: &str, text: &str) -> Option<Timestamp> {
    Timestamp::strptime(format, text).ok().or_else(|| {
        let civil = DateTime::strptime(format, text).ok()?;
        Offset::UTC.to_timestamp(civil).ok()
    })
}

/// Whether a pattern fits: a whole text in any case, `*` at either end for anything.
fn fits_any(patterns: &[String], text: &str) -> bool {
    let text = text.to_lowercase();
    patterns.iter().any(|pattern| {
        let pattern = pattern.to_lowercase();
        match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(_), Some(_)) => text.contains(pattern.trim_matches('*')),
            (Some(end), None) => text.ends_with(end),
            (None, Some(start)) => text.starts_with(start),
            (None, None) => text == pattern,
        }
    })
}
