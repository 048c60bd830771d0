//! GitHub audit log: what people and programs did, API requests, git events.
//!
//! Source: "Audit log events for your organization/enterprise"; "Identifying audit log events
//! performed by an access token" (`hashed_token` is the base64 of the token's SHA-256).

use keytrail_model::consumption::{ActionClass, Outcome as Ended};
use keytrail_model::credential::{CredentialId, CredentialKind};

use crate::doc::Doc;
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

pub(crate) fn read(doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
    let Some(action) = doc.get("action").text() else {
        return Err(Rejection::NoEvent);
    };
    let time = make::time_of(
        doc,
        &[
            "@timestamp",
            "at_sign_timestamp",
            "timestamp",
            "created_at",
            "p_event_time",
        ],
    )
    .ok_or(Rejection::BadTime)?;
    let id = doc.get("_document_id").text();
    let Some(mut usage) = chain(doc).usage(SourceKind::GithubAudit.as_str(), id, time, cx) else {
        return Ok(Found::Skip(Skip::NoCredential));
    };
    let status = doc.get("status_code").int();
    if status == Some(401) {
        return Ok(Found::Skip(Skip::NotAuthenticated));
    }
    let request = (
        doc.first(&["request_method"]),
        doc.first(&["route", "url_path"]),
    );
    usage.caller = make::caller(doc.get("actor_ip").text());
    usage.user_agent = make::kept(doc.get("user_agent").text());
    usage.action = match request {
        (Some(method), Some(route)) => {
            format!("{} {}", text::kept(method), text::without_query(route))
        }
        _ => text::kept(action),
    };
    usage.resources = make::resources([
        doc.first(&["repo", "repository"]),
        doc.get("org").text(),
        doc.get("url_path").text(),
        doc.get("team").text(),
        doc.get("name")
            .text()
            .filter(|_| doc.get("repo").text().is_none()),
    ]);
    usage.outcome = match status {
        Some(status) if status >= 400 => Ended::Failure(status.to_string()),
        _ => Ended::Success,
    };
    usage.principal = make::kept(doc.get("actor").text());
    usage.account = make::kept(
        doc.first(&["business", "enterprise", "org"])
            .or(cx.options.tenant.as_deref()),
    );
    let (service, names) = service(action, request.1.is_some());
    service.clone_into(&mut usage.service);
    usage.endpoints = make::endpoints(names, cx.options);
    usage.class = class(action, request);
    usage.revoked = revoked(doc, action, &usage.credential);
    Ok(found(usage, id.is_some()))
}

/// The token; else the key or the account.
fn chain(doc: &Doc<'_>) -> Chain {
    let token = doc.get("hashed_token").text();
    let token = token.and_then(|hash| CredentialId::github_hashed_token(hash).ok());
    let fingerprint = doc.first(&[
        "fingerprint",
        "public_key_fingerprint",
        "deploy_key_fingerprint",
    ]);
    let git = doc
        .get("action")
        .text()
        .is_some_and(|action| action.starts_with("git."));
    // Elsewhere a fingerprint is of a key that the event is about.
    let ssh_key = fingerprint.filter(|_| git).and_then(|print| {
        let print = if print.starts_with("SHA256:") {
            print.to_owned()
        } else {
            format!("SHA256:{print}")
        };
        make::exact(CredentialKind::SshKey, &print)
    });
    // The app asks for an installation's token with a key of its own.
    let installation = doc
        .get("installation_id")
        .id()
        .filter(|id| token.is_some() && text::is_number(id));
    let account = |name: &str| {
        doc.get(name)
            .text()
            .and_then(|who| make::principal("github", who))
    };
    let chain = Chain::default()
        .then(token)
        .then(ssh_key)
        .then(installation.and_then(|id| make::session("github", &format!("installation-{id}"))))
        .then(account("actor"));
    if chain.is_empty() {
        return chain.then(account("user"));
    }
    chain
}

fn service(action: &str, api: bool) -> (&'static str, &'static [&'static str]) {
    if action.starts_with("git.") {
        ("github.com", &["github.com"])
    } else if api || action.starts_with("api.") {
        (
            "api.github.com",
            &[
                "api.github.com",
                "uploads.github.com",
                "api.githubcopilot.com",
            ],
        )
    } else {
        ("github.com", &["github.com"])
    }
}

/// A token that the event ended: its own, as `oauth_access.destroy` names it.
fn revoked(doc: &Doc<'_>, action: &str, credential: &CredentialId) -> Option<CredentialId> {
    let ends = matches!(
        action,
        "oauth_access.destroy"
            | "oauth_access.revoke"
            | "personal_access_token.access_revoked"
            | "personal_access_token.destroy"
    );
    let named = doc.get("hashed_token").text().is_some();
    (ends && named && credential.kind() == CredentialKind::GithubToken).then(|| credential.clone())
}

fn class(action: &str, request: (Option<&str>, Option<&str>)) -> ActionClass {
    if let (Some(method), Some(route)) = request {
        return api_class(method, route);
    }
    let (thing, deed) = action.split_once('.').unwrap_or((action, ""));
    let makes = [
        "create",
        "add",
        "request_created",
        "access_granted",
        "generate",
        "regenerate",
    ];
    match thing {
        "personal_access_token"
        | "oauth_access"
        | "oauth_authorization"
        | "public_key"
        | "deploy_key"
        | "integration_installation_token"
        | "integration_secret"
        | "oauth_application_secret"
        | "ssh_certificate_authority" => {
            if ["destroy", "delete", "revoke", "remove"]
                .iter()
                .any(|d| deed.contains(d))
            {
                ActionClass::Revoke
            } else if makes.iter().any(|d| deed.contains(d)) {
                ActionClass::Mint
            } else {
                ActionClass::Other
            }
        }
        "protected_branch"
        | "repository_ruleset"
        | "repository_branch_protection_evaluation"
        | "team"
        | "role"
        | "business"
        | "ip_allow_list"
        | "ip_allow_list_entry"
        | "hook"
        | "integration_installation"
        | "org_credential_authorization"
        | "secret_scanning"
        | "secret_scanning_new_repos"
        | "repository_secret_scanning"
        | "repository_secret_scanning_push_protection"
        | "dependabot_alerts"
        | "dependabot_alerts_new_repos"
        | "dependabot_security_updates"
        | "dependabot_security_updates_new_repos"
        | "business_advanced_security"
        | "audit_log_streaming"
        | "enterprise"
        | "environment"
        | "actions" => ActionClass::PermissionChange,
        "repo" | "org"
            if [
                "access",
                "add_member",
                "remove_member",
                "update_member",
                "invite_member",
                "transfer",
                "disable",
                "update_default",
                "oauth_app",
                "two_factor",
                "visibility",
            ]
            .iter()
            .any(|d| deed.contains(d)) =>
        {
            ActionClass::PermissionChange
        }
        _ => ActionClass::Other,
    }
}

fn api_class(method: &str, route: &str) -> ActionClass {
    let route = route
        .split(['?', '#'])
        .next()
        .unwrap_or(route)
        .trim_end_matches('/');
    let ends = |ends: &[&str]| ends.iter().any(|end| route.ends_with(end));
    match method.to_ascii_uppercase().as_str() {
        "GET"
            if matches!(
                route,
                "/user" | "/user/emails" | "/rate_limit" | "/installation" | "/app"
            ) =>
        {
            ActionClass::IdentityCheck
        }
        "GET"
            if ends(&[
                "/repos",
                "/secrets",
                "/orgs",
                "/members",
                "/repositories",
                "/teams",
                "/variables",
                "/gists",
            ]) =>
        {
            ActionClass::List
        }
        "POST"
            if ends(&[
                "/access_tokens",
                "/registration-token",
                "/remove-token",
                "/keys",
                "/jitconfig",
            ]) =>
        {
            ActionClass::Mint
        }
        "DELETE" if ends(&["/token", "/grant"]) => ActionClass::Revoke,
        "PUT" | "POST" | "PATCH" | "DELETE"
            if [
                "/collaborators",
                "/memberships",
                "/protection",
                "/rulesets",
                "/hooks",
                "/permissions",
            ]
            .iter()
            .any(|part| route.contains(part)) =>
        {
            ActionClass::PermissionChange
        }
        _ => ActionClass::Other,
    }
}
