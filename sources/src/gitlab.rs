//! GitLab: audit events (streamed, or in `audit_json.log`) and the request logs.
//!
//! Audit events do not say which token was used. The API's request log does (`token_type`,
//! `token_id`), and so does a refused request (`meta.auth_fail_token_id`).
//!
//! Source: "Audit event streaming", "Log system".

use keytrail_model::consumption::{ActionClass, Outcome as Ended};
use keytrail_model::credential::CredentialKind;

use crate::doc::Doc;
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

pub(crate) fn read(doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
    let details = doc
        .path("details")
        .or_else(|| doc.path("detail"))
        .unwrap_or(&Doc::Null);
    let embedded = details.embedded();
    let details = embedded.as_ref().unwrap_or(details);
    let request = doc.get("method").text().zip(doc.first(&["path", "route"]));
    let event = doc
        .first(&["event_type", "event_name"])
        .or_else(|| details.first(&["event_name", "custom_message"]));
    let changed = doc.first(&["change", "add", "remove"]);
    let entity = doc.first(&["entity_type", "entity_path"]);
    if request.is_none() && event.is_none() && changed.is_none() && entity.is_none() {
        return Err(Rejection::NoEvent);
    }
    let time =
        make::time_of(doc, &["created_at", "time", "p_event_time"]).ok_or(Rejection::BadTime)?;
    let failed_token = doc.path("meta.auth_fail_token_id").and_then(Doc::text);
    let refusal = doc.path("meta.auth_fail_reason").and_then(Doc::text);
    let status = doc.get("status").int();
    if status == Some(401) && failed_token.is_none() {
        return Ok(Found::Skip(Skip::NotAuthenticated));
    }
    let id = event_id(doc, request.is_some());
    let Some(mut usage) = chain(doc, details, failed_token).usage(
        SourceKind::GitlabAudit.as_str(),
        id.as_deref(),
        time,
        cx,
    ) else {
        return Ok(Found::Skip(if request.is_some() {
            Skip::Anonymous
        } else {
            Skip::NoCredential
        }));
    };
    let address = doc.get("ip_address").text();
    let address = address.or_else(|| doc.path("meta.remote_ip").and_then(Doc::text));
    let address = address.or_else(|| doc.get("remote_ip").text());
    usage.caller = make::caller(address.or_else(|| details.get("ip_address").text()));
    usage.user_agent = make::kept(doc.first(&["ua", "user_agent"]));
    let host = doc.first(&["host"]).and_then(text::server_name);
    usage.service = host.clone().unwrap_or_else(|| "gitlab.com".to_owned());
    usage.action = match request {
        Some((method, path)) => format!("{} {}", text::kept(method), text::without_query(path)),
        None => text::kept(event.or(changed).or(entity).unwrap_or_default()),
    };
    usage.resources = make::resources([
        doc.get("entity_path").text(),
        details.get("entity_path").text(),
        doc.get("target_details")
            .text()
            .or_else(|| details.get("target_details").text()),
        doc.path("meta.project").and_then(Doc::text),
    ]);
    usage.outcome = match (refusal, status) {
        (Some(why), _) => Ended::Failure(text::kept(why)),
        (None, Some(status)) if status >= 400 => Ended::Failure(status.to_string()),
        _ => Ended::Success,
    };
    usage.principal = make::kept(user(doc, details));
    usage.account = make::kept(cx.options.tenant.as_deref());
    usage.class = request.map_or_else(
        || class(usage.action.as_str()),
        |(method, path)| request_class(method, path),
    );
    let own: Vec<&str> = match host.as_deref() {
        Some(host) => vec![host],
        None if cx.options.endpoints.is_empty() => vec!["gitlab.com"],
        None => Vec::new(),
    };
    usage.endpoints = make::endpoints(&own, cx.options);
    Ok(found(usage, id.is_some()))
}

/// An event's own id; a request's correlation id.
fn event_id(doc: &Doc<'_>, request: bool) -> Option<String> {
    let correlation = || doc.get("correlation_id").text().map(str::to_owned);
    if request {
        return correlation();
    }
    doc.get("id").id().map(|id| id.into_owned())
}

fn user<'d>(doc: &'d Doc<'_>, details: &'d Doc<'_>) -> Option<&'d str> {
    let named = doc
        .path("meta.user")
        .and_then(Doc::text)
        .or_else(|| doc.get("username").text());
    named
        .or_else(|| doc.get("author_name").text())
        .or_else(|| details.get("author_name").text())
}

fn chain(doc: &Doc<'_>, details: &Doc<'_>, failed_token: Option<&str>) -> Chain {
    let number = doc
        .get("token_id")
        .id()
        .or_else(|| doc.path("meta.token_id").and_then(Doc::id));
    let class = doc
        .get("token_type")
        .text()
        .or_else(|| doc.path("meta.token_type").and_then(Doc::text));
    let by_parts = class
        .zip(number)
        .map(|(class, number)| format!("{class}/{number}"));
    let token = failed_token.map(str::to_owned).or(by_parts);
    let token = token.and_then(|id| make::exact(CredentialKind::GitlabToken, &id));
    let account = |name: &str| make::principal("gitlab", name);
    let author = doc
        .get("author_id")
        .id()
        .or_else(|| doc.get("user_id").id());
    // Authors below 1 are not people: the system, an anonymous visitor.
    let author = author.filter(|id| !id.starts_with('-') && id != "0");
    let nobody = author.is_none() && doc.get("author_id").id().is_some();
    let named = user(doc, details).filter(|_| !nobody);
    let by_number = author
        .filter(|id| text::is_number(id))
        .and_then(|id| account(&format!("user-{id}")));
    Chain::default()
        .then(token)
        .then(named.and_then(account))
        .then(by_number)
}

fn class(event: &str) -> ActionClass {
    let event = event.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| event.contains(part));
    if has(&["token", "deploy_key", "ssh_key", "gpg_key", "password"]) {
        if has(&["revoke", "destroy", "delete", "remove", "expired"]) {
            ActionClass::Revoke
        } else if has(&["create", "rotate", "add", "reset"]) {
            ActionClass::Mint
        } else {
            ActionClass::Other
        }
    } else if has(&[
        "access",
        "member",
        "permission",
        "protected",
        "visibility",
        "role",
        "audit",
        "sso",
        "saml",
        "two_factor",
        "2fa",
        "merge_request_approval",
    ]) {
        ActionClass::PermissionChange
    } else {
        ActionClass::Other
    }
}

fn request_class(method: &str, path: &str) -> ActionClass {
    let path = path.split('?').next().unwrap_or(path).trim_end_matches('/');
    let get = method.eq_ignore_ascii_case("GET");
    if get && (path.ends_with("/api/v4/user") || path.ends_with("/personal_access_tokens/self")) {
        ActionClass::IdentityCheck
    } else if get && (path.contains("/variables") || path.ends_with("/secure_files")) {
        ActionClass::SecretRead
    } else if get
        && (path.ends_with("/projects") || path.ends_with("/groups") || path.ends_with("/users"))
    {
        ActionClass::List
    } else if method.eq_ignore_ascii_case("POST")
        && (path.contains("access_tokens")
            || path.ends_with("/keys")
            || path.ends_with("/oauth/token")
            || path.ends_with("/deploy_tokens"))
    {
        ActionClass::Mint
    } else if method.eq_ignore_ascii_case("DELETE") && path.contains("access_tokens") {
        ActionClass::Revoke
    } else if !get && (path.contains("/members") || path.contains("/protected_")) {
        ActionClass::PermissionChange
    } else {
        ActionClass::Other
    }
}
