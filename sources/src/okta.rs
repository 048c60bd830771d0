//! Okta System Log.
//!
//! An API token is named by its id; everything else by its session, or by the account alone. The
//! network of the address is Okta's own finding.
//!
//! Source: "System Log API", "Event types".

use keytrail_model::consumption::{ActionClass, Caller, Consumption, Network, Outcome as Ended};
use keytrail_model::credential::{CredentialId, CredentialKind};

use crate::doc::Doc;
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

/// Okta's own domains; an organisation's custom domain is in the source's settings.
const HOSTS: [&str; 4] = [
    "okta.com",
    "oktapreview.com",
    "okta-emea.com",
    "okta-gov.com",
];

pub(crate) fn read(doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
    let (Some(event), actor) = (doc.get("eventType").text(), doc.get("actor")) else {
        return Err(Rejection::NoEvent);
    };
    if !actor.is_object() {
        return Err(Rejection::NoEvent);
    }
    let time = make::time_of(doc, &["published", "p_event_time"]).ok_or(Rejection::BadTime)?;
    let result = doc.at(&["outcome", "result"]).text().unwrap_or("SUCCESS");
    let refused = matches!(result.to_ascii_uppercase().as_str(), "FAILURE" | "DENY");
    let token = doc
        .at(&["transaction", "detail", "requestApiTokenId"])
        .text();
    if refused && token.is_none() && is_sign_in(event) {
        return Ok(Found::Skip(Skip::NotAuthenticated));
    }
    let kind = actor.get("type").text().unwrap_or_default();
    let system = kind == "SystemPrincipal" || actor.get("id").text() == Some("unknown");
    let id = doc.get("uuid").text();
    let Some(mut usage) =
        chain(doc, actor, token, system).usage(SourceKind::Okta.as_str(), id, time, cx)
    else {
        let why = if kind == "SystemPrincipal" {
            Skip::ServiceEvent
        } else {
            Skip::NoCredential
        };
        return Ok(Found::Skip(why));
    };
    fill(&mut usage, doc, cx);
    usage.action = text::kept(event);
    usage.outcome = if refused {
        let why = doc.at(&["outcome", "reason"]).text().unwrap_or(result);
        Ended::Failure(text::kept(why))
    } else {
        Ended::Success
    };
    usage.principal = make::kept(actor.first(&["alternateId", "displayName", "id"]));
    usage.class = class(event);
    token_events(&mut usage, doc, event);
    Ok(found(usage, id.is_some()))
}

/// Sign-ins and the checks of factors: refused, they show a wrong credential.
fn is_sign_in(event: &str) -> bool {
    event == "user.session.start"
        || event.starts_with("user.authentication.")
        || event.starts_with("user.mfa.")
        || event == "core.user_auth.login_failed"
}

fn chain(doc: &Doc<'_>, actor: &Doc<'_>, token: Option<&str>, system: bool) -> Chain {
    let context = doc.get("authenticationContext");
    let session = |name: &str| {
        let id = context.get(name).text().filter(|id| *id != "unknown")?;
        make::session("okta", id)
    };
    let chain =
        Chain::default().then(token.and_then(|id| make::exact(CredentialKind::OktaApiToken, id)));
    // A request with a token has a session of its own, which no host ever holds.
    let chain = if chain.is_empty() {
        chain
            .then(session("externalSessionId"))
            .then(session("rootSessionId"))
    } else {
        chain
    };
    if system {
        return chain;
    }
    chain
        .then(
            actor
                .get("id")
                .text()
                .and_then(|id| make::principal("okta", id)),
        )
        .then(
            actor
                .get("alternateId")
                .text()
                .and_then(|id| make::principal("okta", id)),
        )
}

fn fill(usage: &mut Consumption, doc: &Doc<'_>, cx: &Context<'_>) {
    let client = doc.get("client");
    let chain = doc.at(&["request", "ipChain"]).items();
    let address = client.get("ipAddress").text();
    let address = address.or_else(|| chain.first().and_then(|hop| hop.get("ip").text()));
    usage.caller = make::caller(address);
    usage.user_agent = make::kept(client.at(&["userAgent", "rawUserAgent"]).text());
    usage.service = "okta.com".to_owned();
    let targets = doc.get("target").items();
    let uri = doc.at(&["debugContext", "debugData", "requestUri"]).text();
    let names = targets
        .iter()
        .map(|t| t.first(&["alternateId", "displayName", "id"]));
    usage.resources = make::resources(names.chain([uri]));
    usage.account = make::kept(cx.options.tenant.as_deref());
    let host = cx
        .options
        .tenant
        .as_deref()
        .filter(|tenant| tenant.contains('.'));
    let names: Vec<&str> = host.into_iter().chain(HOSTS).collect();
    usage.endpoints = make::endpoints(&names, cx.options);
    let security = doc.get("securityContext");
    let asn = security
        .get("asNumber")
        .int()
        .and_then(|asn| u32::try_from(asn).ok());
    let asn = asn.filter(|asn| *asn > 0);
    let organisation = make::kept(security.get("asOrg").text());
    if matches!(usage.caller, Caller::Address { .. }) && (asn.is_some() || organisation.is_some()) {
        usage.network = Some(Network {
            asn,
            organisation,
            ..Network::default()
        });
    }
}

/// Tokens and sessions that the event made or ended.
fn token_events(usage: &mut Consumption, doc: &Doc<'_>, event: &str) {
    let target = || {
        let targets = doc.get("target").items();
        let token = targets.iter().find(|t| {
            t.get("type")
                .text()
                .is_some_and(|k| k.eq_ignore_ascii_case("token"))
        })?;
        make::exact(CredentialKind::OktaApiToken, token.get("id").text()?)
    };
    match event {
        "system.api_token.create" => usage.minted = target(),
        "system.api_token.revoke" => usage.revoked = target(),
        "user.session.end" => {
            let own: Option<CredentialId> = Some(usage.credential.clone());
            usage.revoked = own.filter(|id| id.kind() == CredentialKind::Session);
        }
        _ => {}
    }
}

fn class(event: &str) -> ActionClass {
    let begins = |parts: &[&str]| parts.iter().any(|part| event.starts_with(part));
    if begins(&[
        "system.api_token.create",
        "app.oauth2.token.grant",
        "app.oauth2.as.token.grant",
        "user.session.start",
        "user.session.access_admin_app",
        "app.oauth2.credentials.lifecycle.create",
        "app.oauth2.client.lifecycle.create",
    ]) {
        ActionClass::Mint
    } else if begins(&[
        "system.api_token.revoke",
        "user.session.end",
        "user.session.clear",
        "app.oauth2.token.revoke",
        "app.oauth2.as.token.revoke",
        "app.oauth2.credentials.lifecycle.delete",
    ]) {
        ActionClass::Revoke
    } else if begins(&[
        "group.privilege",
        "user.account.privilege",
        "policy.",
        "zone.",
        "system.idp.lifecycle",
        "user.mfa.factor",
        "user.lifecycle.create",
        "group.user_membership.add",
        "application.user_membership.add",
        "iam.",
        "system.log_stream",
        "application.policy",
        "application.lifecycle",
    ]) {
        ActionClass::PermissionChange
    } else {
        ActionClass::Other
    }
}
