//! HashiCorp Vault and OpenBao: audit devices.
//!
//! Each request is written twice under one id, before and after; the second tells more (the token
//! that was made, the error), and is the use. A token is known by its accessor, plain or hashed with
//! the device's salt, as the device is set up; where there is no accessor, by the token's own hash.
//! A device with `log_raw` writes tokens in clear: those are never taken up.
//!
//! Source: "Audit devices", `audit/format.go`'s entry fields.

use keytrail_model::consumption::{ActionClass, Consumption, Outcome as Ended};
use keytrail_model::credential::{CredentialId, CredentialKind};

use crate::doc::Doc;
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

pub(crate) fn read(doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
    let request = doc.get("request");
    let Some(kind) = doc.get("type").text().filter(|_| request.is_object()) else {
        return Err(Rejection::NoEvent);
    };
    let time = make::time_of(doc, &["time", "@timestamp"]).ok_or(Rejection::BadTime)?;
    if !kind.eq_ignore_ascii_case("response") {
        let half = kind.eq_ignore_ascii_case("request");
        return Ok(Found::Skip(if half {
            Skip::HalfOfPair
        } else {
            Skip::NotAUse
        }));
    }
    let path = request.get("path").text().unwrap_or_default();
    let made = made(doc, path);
    let login = is_login(path);
    // A login's response carries the new token as its own `auth`: it was not what was presented.
    let chain = if login {
        login_chain(doc, path)
    } else {
        token_chain(doc.get("auth"), request)
    };
    let id = request.get("id").text();
    let Some(mut usage) = chain.usage(SourceKind::VaultAudit.as_str(), id, time, cx) else {
        let refused = doc.get("error").text().is_some();
        return Ok(Found::Skip(if refused {
            Skip::NotAuthenticated
        } else {
            Skip::Anonymous
        }));
    };
    let error = doc.get("error").text();
    if login && error.is_some() {
        return Ok(Found::Skip(Skip::NotAuthenticated));
    }
    fill(&mut usage, doc, request, path, cx);
    usage.outcome = error.map_or(Ended::Success, |error| Ended::Failure(first_line(error)));
    usage.class = if login {
        ActionClass::Mint
    } else {
        class(request, path)
    };
    usage.minted = made.filter(|made| *made != usage.credential);
    usage.revoked = revoked(request, path, &usage.credential);
    Ok(found(usage, id.is_some()))
}

/// Vault's errors are lists over several lines.
fn first_line(error: &str) -> String {
    let lines = error
        .lines()
        .map(|line| line.trim_start_matches(['*', ' ', '\t']).trim());
    let mut told = lines.filter(|line| !line.is_empty() && !line.ends_with("occurred:"));
    text::kept(told.next().unwrap_or("failed"))
}

/// `auth/<mount>/login`, `auth/<mount>/login/<user>`, the callbacks of OIDC.
fn is_login(path: &str) -> bool {
    path.starts_with("auth/")
        && path
            .split('/')
            .skip(2)
            .any(|part| matches!(part, "login" | "oidc" | "callback"))
}

fn token(accessor: Option<&str>, hash: Option<&str>) -> Option<CredentialId> {
    let exact = |id: &str| make::exact(CredentialKind::VaultToken, id);
    accessor.and_then(exact).or_else(|| {
        // Only a hash: in clear it would be the secret itself.
        hash.filter(|hash| hash.starts_with("hmac-"))
            .and_then(exact)
    })
}

fn token_chain(auth: &Doc<'_>, request: &Doc<'_>) -> Chain {
    let accessor = auth
        .get("accessor")
        .text()
        .or_else(|| request.get("client_token_accessor").text());
    let hash = auth
        .get("client_token")
        .text()
        .or_else(|| request.get("client_token").text());
    holders(Chain::default().then(token(accessor, hash)), auth)
}

fn holders(chain: Chain, auth: &Doc<'_>) -> Chain {
    let account = |name: &str| {
        auth.get(name)
            .text()
            .and_then(|id| make::principal("vault", id))
    };
    chain
        .then(account("entity_id"))
        .then(account("display_name"))
}

/// Who logs in: the account, or where nothing names it, the way in.
fn login_chain(doc: &Doc<'_>, path: &str) -> Chain {
    let chain = holders(Chain::default(), doc.get("auth"));
    let chain = holders(chain, doc.at(&["response", "auth"]));
    if chain.is_empty() {
        return chain.then(make::principal("vault", path));
    }
    chain
}

/// The token that a request made, by the accessor in its response.
fn made(doc: &Doc<'_>, path: &str) -> Option<CredentialId> {
    let response = doc.get("response");
    let auth = response.get("auth");
    let wrapped = response.get("wrap_info");
    let accessor = auth
        .get("accessor")
        .text()
        .or_else(|| wrapped.get("wrapped_accessor").text());
    let accessor = accessor.or_else(|| {
        doc.at(&["auth", "accessor"])
            .text()
            .filter(|_| is_login(path))
    });
    token(accessor, auth.get("client_token").text())
}

fn fill(usage: &mut Consumption, doc: &Doc<'_>, request: &Doc<'_>, path: &str, cx: &Context<'_>) {
    let namespace = request
        .at(&["namespace", "path"])
        .text()
        .unwrap_or_default();
    usage.caller = make::caller(request.get("remote_address").text());
    let agent = request.at(&["headers", "user-agent"]).items();
    usage.user_agent = make::kept(agent.first().and_then(Doc::text));
    usage.service = "vault".to_owned();
    let operation = request.get("operation").text().unwrap_or("request");
    usage.action = text::kept(operation);
    usage.resources = make::resources([Some(format!("{namespace}{path}").as_str())]);
    usage.principal = make::kept(doc.get("auth").first(&["display_name", "entity_id"]));
    let id = request.at(&["namespace", "id"]).text();
    usage.account = make::kept(cx.options.tenant.as_deref().or(id));
    usage.endpoints = make::endpoints(&[], cx.options);
}

fn class(request: &Doc<'_>, path: &str) -> ActionClass {
    let operation = request.get("operation").text().unwrap_or_default();
    let mount = request.get("mount_type").text().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    let reads = operation == "read";
    let begins = |parts: &[&str]| parts.iter().any(|part| path.starts_with(part));
    if begins(&[
        "auth/token/create",
        "auth/token/renew",
        "sys/wrapping/unwrap",
    ]) {
        ActionClass::Mint
    } else if begins(&["auth/token/revoke", "sys/leases/revoke", "sys/revoke"]) {
        ActionClass::Revoke
    } else if begins(&["auth/token/lookup", "sys/internal/ui", "sys/capabilities"]) {
        ActionClass::IdentityCheck
    } else if operation == "list" {
        ActionClass::List
    } else if (begins(&[
        "sys/policy",
        "sys/policies",
        "sys/auth",
        "sys/audit",
        "identity/",
    ]) || path.ends_with("/config")
        || begins(&["auth/"]) && parts.contains(&"role"))
        && operation != "read"
    {
        ActionClass::PermissionChange
    } else if parts
        .iter()
        .any(|part| matches!(*part, "creds" | "issue" | "sign" | "static-creds" | "sts"))
    {
        ActionClass::Mint
    } else if reads
        && (matches!(mount, "kv" | "generic" | "cubbyhole")
            || mount.is_empty() && !begins(&["sys/", "auth/"]))
    {
        ActionClass::SecretRead
    } else {
        ActionClass::Other
    }
}

/// The token that a request ended.
fn revoked(request: &Doc<'_>, path: &str, own: &CredentialId) -> Option<CredentialId> {
    let data = request.get("data");
    match path.trim_end_matches('/') {
        "auth/token/revoke-self" => Some(own.clone()),
        "auth/token/revoke-accessor" => token(data.get("accessor").text(), None),
        "auth/token/revoke" | "auth/token/revoke-orphan" => token(None, data.get("token").text()),
        _ => None,
    }
}
