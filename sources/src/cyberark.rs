//! CyberArk: the Vault's syslog in JSON, CEF and LEEF, and Privilege Cloud's audit.
//!
//! The records name the safe and the object, never the secret.
//!
//! Source: "Integrate with SIEM applications" (audit record fields, `MessageID`s); ArcSight's
//! "Common Event Format" guide; IBM's LEEF guide; Privilege Cloud "Audit" API.

use std::borrow::Cow;

use keytrail_model::consumption::{ActionClass, Outcome as Ended};

use crate::doc::Doc;
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

/// What all the forms say, under one set of names.
#[derive(Default)]
struct Entry<'a> {
    time: Option<jiff::Timestamp>,
    id: Option<Cow<'a, str>>,
    code: Option<Cow<'a, str>>,
    action: Option<Cow<'a, str>>,
    user: Option<Cow<'a, str>>,
    address: Option<Cow<'a, str>>,
    gateway: Option<Cow<'a, str>>,
    agent: Option<Cow<'a, str>>,
    safe: Option<Cow<'a, str>>,
    object: Option<Cow<'a, str>>,
    account: Option<Cow<'a, str>>,
    session: Option<Cow<'a, str>>,
    tenant: Option<Cow<'a, str>>,
    failed: bool,
}

/// A JSON record.
pub(crate) fn read(doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
    let record = match doc.at(&["syslog", "audit_record"]) {
        Doc::Null => doc.get("audit_record"),
        record => record,
    };
    let entry = if record.is_object() {
        pas(record)
    } else if doc.get("auditCode").text().is_some() || doc.get("applicationCode").text().is_some() {
        cloud(doc)
    } else if doc.get("MessageID").id().is_some() && doc.get("Issuer").text().is_some() {
        pas(doc)
    } else {
        return Err(Rejection::NoEvent);
    };
    usage(entry, cx)
}

/// `syslog.audit_record` of the Vault.
fn pas<'a>(record: &'a Doc<'_>) -> Entry<'a> {
    let text = |name: &str| record.get(name).id();
    let severity = record.get("Severity").text().unwrap_or_default();
    Entry {
        time: make::time_of(record, &["IsoTimestamp", "Timestamp", "Rfc5424Timestamp"]),
        id: None,
        code: text("MessageID"),
        action: text("Desc")
            .or_else(|| text("Action"))
            .or_else(|| text("Message")),
        user: text("Issuer").or_else(|| text("SourceUser")),
        address: text("Station"),
        gateway: text("GatewayStation"),
        agent: text("Product"),
        safe: text("Safe"),
        object: text("File"),
        account: text("RequestId"),
        session: None,
        tenant: text("Hostname"),
        failed: severity.eq_ignore_ascii_case("Error"),
    }
}

/// Privilege Cloud.
fn cloud<'a>(doc: &'a Doc<'_>) -> Entry<'a> {
    let text = |name: &str| doc.get(name).id();
    let kind = doc.get("auditType").text().unwrap_or_default();
    Entry {
        time: make::time_of(doc, &["timestamp", "arrivalTimestamp"]),
        id: text("uuid"),
        code: text("auditCode"),
        action: text("action").or_else(|| text("message")),
        user: text("username").or_else(|| text("userId")),
        address: text("source").or_else(|| text("ipAddress")),
        gateway: None,
        agent: text("accessMethod").or_else(|| text("component")),
        safe: text("safe"),
        object: text("accountName").or_else(|| text("targetAccount")),
        account: text("accountId"),
        session: text("sessionId"),
        tenant: text("tenantId").or_else(|| text("identityTenantId")),
        failed: kind.eq_ignore_ascii_case("Error") || kind.eq_ignore_ascii_case("Failure"),
    }
}

/// A line of text: CEF or LEEF, perhaps with a syslog header; or JSON after one.
pub(crate) fn line(record: &[u8], cx: &Context<'_>) -> Outcome {
    let line = String::from_utf8_lossy(record);
    if let Some(at) = line.find("CEF:") {
        let (header, body) = line.split_at(at);
        return usage(cef(header, body).ok_or(Rejection::NoEvent)?, cx);
    }
    if let Some(at) = line.find("LEEF:") {
        let (header, body) = line.split_at(at);
        return usage(leef(header, body).ok_or(Rejection::NoEvent)?, cx);
    }
    match line.find('{').and_then(|at| line.get(at..)) {
        Some(json) => read(&Doc::read(json.as_bytes())?, cx),
        None => Err(Rejection::NoEvent),
    }
}

/// `CEF:0|vendor|product|version|code|name|severity|key=value key=value`.
fn cef<'a>(header: &'a str, body: &'a str) -> Option<Entry<'a>> {
    let mut parts = bars(body);
    let (_, vendor) = (parts.next()?, parts.next()?);
    if !vendor
        .to_ascii_lowercase()
        .replace('-', "")
        .contains("cyberark")
    {
        return None;
    }
    let (_, _, code, name, severity) = (
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
    );
    let pairs = pairs(parts.next().unwrap_or_default());
    let get = |key: &str| {
        let found = pairs.iter().find(|(k, _)| k.eq_ignore_ascii_case(key));
        found
            .map(|(_, value)| value.clone())
            .filter(|value| !value.trim().is_empty())
    };
    // `cs2=Finance cs2Label=Safe Name`: a custom field's meaning is its label.
    let labelled = |label: &str| {
        let found = pairs
            .iter()
            .find(|(k, v)| k.ends_with("Label") && v.eq_ignore_ascii_case(label));
        found.and_then(|(key, _)| get(key.strip_suffix("Label")?))
    };
    Some(Entry {
        time: get("rt")
            .or_else(|| get("end"))
            .and_then(|t| text::time(&t))
            .or_else(|| header_time(header)),
        id: get("externalId"),
        code: Some(Cow::Borrowed(code)),
        action: get("act").or(Some(Cow::Borrowed(name))),
        user: get("suser").or_else(|| get("sourceUserName")),
        address: get("src").or_else(|| get("shost")),
        gateway: get("dvchost").or_else(|| labelled("Gateway Station")),
        agent: get("app"),
        safe: labelled("Safe Name").or_else(|| labelled("Location")),
        object: get("fname"),
        account: None,
        session: None,
        tenant: None,
        failed: severity.parse::<u8>().is_ok_and(|s| s >= 7)
            && name.to_ascii_lowercase().contains("fail"),
    })
}

/// `LEEF:1.0|vendor|product|version|code|` and pairs between tabs.
fn leef<'a>(header: &'a str, body: &'a str) -> Option<Entry<'a>> {
    let mut parts = bars(body);
    let (version, vendor) = (parts.next()?, parts.next()?);
    if !vendor
        .to_ascii_lowercase()
        .replace('-', "")
        .contains("cyberark")
    {
        return None;
    }
    let (_, _, code) = (parts.next()?, parts.next()?, parts.next()?);
    let mut rest = parts.next().unwrap_or_default();
    let mut between = '\t';
    if version.ends_with("2.0") {
        let (mark, after) = rest.split_once('|').unwrap_or(("", rest));
        between = mark.chars().next().unwrap_or('\t');
        rest = after;
    }
    let get = |key: &str| {
        let mut pairs = rest.split(between).filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(k, _)| k.trim().eq_ignore_ascii_case(key));
        found
            .map(|(_, value)| Cow::Borrowed(value.trim()))
            .filter(|value| !value.is_empty())
    };
    Some(Entry {
        time: get("devTime")
            .and_then(|t| text::time(&t))
            .or_else(|| header_time(header)),
        code: Some(Cow::Borrowed(code)),
        action: get("Action")
            .or_else(|| get("cat"))
            .or_else(|| get("Message")),
        user: get("usrName").or_else(|| get("SourceUser")),
        address: get("src"),
        gateway: get("Gateway"),
        safe: get("Safe"),
        object: get("File"),
        failed: get("sev").is_some_and(|s| s.parse::<u8>().is_ok_and(|s| s >= 7)),
        ..Entry::default()
    })
}

/// Splits at bars that no backslash precedes, at most seven times.
fn bars(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    let mut cut = 0;
    std::iter::from_fn(move || {
        let text = rest?;
        let bar = (cut < 7).then(|| {
            let bars = text.match_indices('|').map(|(at, _)| at);
            bars.into_iter()
                .find(|at| !text.get(..*at).unwrap_or_default().ends_with('\\'))
        });
        cut += 1;
        match bar.flatten() {
            Some(at) => {
                rest = text.get(at + 1..);
                text.get(..at)
            }
            None => rest.take(),
        }
    })
}

/// CEF's extension: a value runs up to the next ` key=`.
fn pairs(text: &str) -> Vec<(&str, Cow<'_, str>)> {
    let mut starts: Vec<(usize, usize)> = Vec::new();
    for (equals, _) in text.match_indices('=') {
        let before = text.get(..equals).unwrap_or_default();
        if before.ends_with('\\') || starts.len() >= 128 {
            continue;
        }
        let key = before
            .rfind(char::is_whitespace)
            .map_or(0, |space| space + 1);
        let is_key = key < equals
            && before
                .get(key..)
                .unwrap_or_default()
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        if is_key {
            starts.push((key, equals));
        }
    }
    let ends = starts
        .iter()
        .skip(1)
        .map(|(key, _)| *key)
        .chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .filter_map(|((key, equals), end)| {
            let value = text.get(equals + 1..end)?.trim();
            let value = if value.contains('\\') {
                Cow::Owned(
                    value
                        .replace("\\=", "=")
                        .replace("\\|", "|")
                        .replace("\\\\", "\\"),
                )
            } else {
                Cow::Borrowed(value)
            };
            Some((text.get(*key..*equals)?, value))
        })
        .collect()
}

/// The time in a syslog header (RFC 5424).
fn header_time(header: &str) -> Option<jiff::Timestamp> {
    header.split_whitespace().find_map(|word| {
        let dated = word.contains('T') && word.contains('-') && word.contains(':');
        if dated { text::time(word) } else { None }
    })
}

fn usage(entry: Entry<'_>, cx: &Context<'_>) -> Outcome {
    let time = entry.time.ok_or(Rejection::BadTime)?;
    let Some(action) = entry.action.as_deref().or(entry.code.as_deref()) else {
        return Err(Rejection::NoEvent);
    };
    let lower = action.to_ascii_lowercase();
    let sign_in =
        lower.contains("logon") || lower.contains("login") || lower.contains("authentication");
    if sign_in && (entry.failed || lower.contains("fail")) {
        return Ok(Found::Skip(Skip::NotAuthenticated));
    }
    let chain = Chain::default()
        .then(
            entry
                .session
                .as_deref()
                .and_then(|id| make::session("cyberark", id)),
        )
        .then(
            entry
                .user
                .as_deref()
                .and_then(|who| make::principal("cyberark", who)),
        );
    let id = entry.id.as_deref();
    let Some(mut usage) = chain.usage(SourceKind::CyberArk.as_str(), id, time, cx) else {
        return Ok(Found::Skip(Skip::NoCredential));
    };
    // Behind a gateway the station is the person's, as the gateway tells it.
    usage.caller = make::caller(entry.address.as_deref().or(entry.gateway.as_deref()));
    usage.user_agent = make::kept(entry.agent.as_deref());
    usage.service = "cyberark".to_owned();
    usage.action = text::kept(action);
    let object = match (entry.safe.as_deref(), entry.object.as_deref()) {
        (Some(safe), Some(object)) => Some(format!("{safe}/{object}")),
        (one, other) => one.or(other).map(str::to_owned),
    };
    usage.resources = make::resources([object.as_deref(), entry.account.as_deref()]);
    usage.outcome = if entry.failed || lower.contains("fail") {
        Ended::Failure(text::kept(entry.code.as_deref().unwrap_or("failed")))
    } else {
        Ended::Success
    };
    usage.principal = make::kept(entry.user.as_deref());
    usage.account = make::kept(entry.tenant.as_deref().or(cx.options.tenant.as_deref()));
    usage.class = class(entry.code.as_deref().unwrap_or_default(), &lower);
    usage.endpoints = make::endpoints(
        &[
            "cyberark.cloud",
            "privilegecloud.cyberark.com",
            "cyberark.com",
        ],
        cx.options,
    );
    Ok(found(usage, id.is_some()))
}

fn class(code: &str, action: &str) -> ActionClass {
    let has = |parts: &[&str]| parts.iter().any(|part| action.contains(part));
    if matches!(code, "295" | "308")
        || has(&[
            "retrieve password",
            "retrieve file",
            "use password",
            "copy password",
            "show password",
            "retrieve secret",
            "get password",
        ])
    {
        ActionClass::SecretRead
    } else if has(&[
        "add owner",
        "add safe member",
        "update owner",
        "delete owner",
        "add user",
        "update safe",
        "add group",
        "policy",
    ]) {
        ActionClass::PermissionChange
    } else if has(&["logon", "login"]) {
        ActionClass::Mint
    } else if has(&["logoff", "logout"]) {
        ActionClass::Revoke
    } else if has(&["list"]) {
        ActionClass::List
    } else {
        ActionClass::Other
    }
}
