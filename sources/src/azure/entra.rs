//! Entra: the four sign-in categories, and the directory's own audit.
//!
//! A sign-in issues the token that `uniqueTokenIdentifier` names; it belongs to the session
//! (`sessionId`), was had with a client credential (`servicePrincipalCredentialKeyId`) or by a
//! person, and this is its descent.
//!
//! Source: Microsoft Graph `signIn` and `directoryAudit` resource types; "Microsoft Entra
//! authentication and authorization error codes".

use keytrail_model::consumption::{ActionClass, Network, Outcome as Ended};
use keytrail_model::credential::CredentialKind;

use super::{LOGIN, Record, account};
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

/// Errors of sign-ins whose credential was accepted, or is a session that was once: more is asked
/// (a second factor, consent, a compliant device), or it has ended. Every other error means that
/// the password or secret was wrong.
const AFTER_THE_CREDENTIAL: [i64; 27] = [
    16_000, 50_055, 50_072, 50_074, 50_076, 50_079, 50_097, 50_125, 50_127, 50_129, 50_131, 50_133,
    50_140, 50_144, 50_158, 50_173, 50_203, 53_000, 53_001, 53_002, 53_003, 53_004, 65_001, 65_004,
    70_008, 70_043, 700_082,
];

pub(super) fn sign_in(record: &Record<'_>, category: &str, cx: &Context<'_>) -> Outcome {
    let property = |name: &str| record.property(name);
    let time = make::time(property("createdDateTime")).or_else(|| record.time());
    let time = time.ok_or(Rejection::BadTime)?;
    let Some(outcome) = ended(record) else {
        return Ok(Found::Skip(Skip::NotAuthenticated));
    };
    let exact = |kind, name: &str| property(name).text().and_then(|id| make::exact(kind, id));
    let key = [
        "servicePrincipalCredentialKeyId",
        "servicePrincipalCredentialThumbprint",
    ];
    let key = key
        .iter()
        .find_map(|name| exact(CredentialKind::EntraClientCredential, name));
    let application = category.to_ascii_lowercase();
    let for_itself = application.contains("serviceprincipal")
        || application.contains("managedidentity")
        || property("userId").text().is_none();
    let chain = Chain::default()
        .then(exact(CredentialKind::EntraToken, "uniqueTokenIdentifier"))
        .then(exact(CredentialKind::EntraSession, "sessionId"))
        .then(key)
        .then(account(property("userId").text()))
        .then(account(property("userPrincipalName").text()))
        .then(account(property("servicePrincipalId").text()))
        .then(account(property("appId").text().filter(|_| for_itself)));
    let id = property("id")
        .text()
        .or_else(|| property("requestId").text());
    let Some(mut usage) = chain.usage(SourceKind::EntraSignIn.as_str(), id, time, cx) else {
        return Ok(Found::Skip(Skip::NoCredential));
    };
    usage.caller = make::caller(record.address());
    usage.user_agent = make::kept(property("userAgent").text());
    usage.service = "login.microsoftonline.com".to_owned();
    usage.region = make::kept(record.doc.get("location").text());
    usage.action = text::kept(record.operation().unwrap_or("Sign-in activity"));
    usage.resources = make::resources([
        property("resourceDisplayName").text(),
        property("resourceId").text(),
        property("appDisplayName").text(),
    ]);
    usage.outcome = outcome;
    let name = [
        "userPrincipalName",
        "servicePrincipalName",
        "userDisplayName",
    ];
    usage.principal = make::kept(name.iter().find_map(|name| property(name).text()));
    usage.account = record.tenant(cx);
    usage.class = ActionClass::Mint;
    usage.endpoints = make::endpoints(&LOGIN, cx.options);
    usage.network = network(record);
    Ok(found(usage, id.is_some()))
}

/// How a sign-in ended; `None` when its credential was not accepted.
fn ended(record: &Record<'_>) -> Option<Ended> {
    let status = record.property("status");
    let code = status.get("errorCode").int();
    let result = record.doc.get("resultType");
    let code = code
        .or_else(|| record.property("errorCode").int())
        .or_else(|| result.int());
    match code {
        Some(0) => Some(Ended::Success),
        Some(code) if AFTER_THE_CREDENTIAL.contains(&code) => {
            Some(Ended::Failure(code.to_string()))
        }
        Some(_) => None,
        None if result
            .text()
            .is_some_and(|r| r.to_ascii_lowercase().starts_with("fail")) =>
        {
            None
        }
        None => Some(Ended::Success),
    }
}

fn network(record: &Record<'_>) -> Option<Network> {
    let asn = record.property("autonomousSystemNumber").int();
    let asn = asn
        .and_then(|asn| u32::try_from(asn).ok())
        .filter(|asn| *asn > 0);
    let country = record.property("location").get("countryOrRegion").text();
    let country = country
        .filter(|country| country.len() == 2)
        .map(str::to_owned);
    (asn.is_some() || country.is_some()).then_some(Network {
        asn,
        country,
        ..Network::default()
    })
}

/// Changes in the directory.
pub(super) fn directory(record: &Record<'_>, cx: &Context<'_>) -> Outcome {
    let property = |name: &str| record.property(name);
    let activity = property("activityDisplayName")
        .text()
        .or_else(|| record.operation());
    let Some(activity) = activity else {
        return Err(Rejection::NoEvent);
    };
    let time = make::time(property("activityDateTime")).or_else(|| record.time());
    let time = time.ok_or(Rejection::BadTime)?;
    let by = property("initiatedBy");
    let (user, app) = (by.get("user"), by.get("app"));
    let chain = Chain::default()
        .then(account(user.get("id").text()))
        .then(account(user.get("userPrincipalName").text()))
        .then(account(app.get("servicePrincipalId").text()))
        .then(account(app.get("appId").text()));
    let id = property("id").text();
    let Some(mut usage) = chain.usage(SourceKind::EntraSignIn.as_str(), id, time, cx) else {
        return Ok(Found::Skip(Skip::ServiceEvent));
    };
    usage.caller = make::caller(user.get("ipAddress").text().or_else(|| record.address()));
    let details = property("additionalDetails").items();
    let agent = details
        .iter()
        .find(|d| d.get("key").text() == Some("User-Agent"));
    usage.user_agent = make::kept(agent.and_then(|d| d.get("value").text()));
    usage.service = "graph.microsoft.com".to_owned();
    usage.action = text::kept(activity);
    let targets = property("targetResources").items();
    usage.resources = make::resources(
        targets
            .iter()
            .map(|t| t.first(&["displayName", "userPrincipalName", "id"])),
    );
    let failed = property("result")
        .text()
        .is_some_and(|r| !r.eq_ignore_ascii_case("success"));
    usage.outcome = if failed {
        let why = property("resultReason").text().unwrap_or("failure");
        Ended::Failure(text::kept(why))
    } else {
        Ended::Success
    };
    usage.principal = make::kept(
        user.get("userPrincipalName")
            .text()
            .or(app.get("displayName").text()),
    );
    usage.account = record.tenant(cx);
    usage.class = class(activity);
    let names = [
        "graph.microsoft.com",
        "graph.windows.net",
        "provisioningapi.microsoftonline.com",
        // the portals call for a browser
        "portal.azure.com",
        "entra.microsoft.com",
        "iam.ad.ext.azure.com",
        "admin.microsoft.com",
        "mysignins.microsoft.com",
    ];
    usage.endpoints = make::endpoints(&names, cx.options);
    Ok(found(usage, id.is_some()))
}

fn class(activity: &str) -> ActionClass {
    let activity = activity.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| activity.contains(part));
    if has(&[
        "remove service principal credentials",
        "revoke",
        "invalidate all refresh tokens",
        "disable strong auth",
    ]) {
        ActionClass::Revoke
    } else if has(&[
        "credentials",
        "certificates and secrets",
        "reset password",
        "reset user password",
        "temporary access pass",
        "registered security info",
    ]) {
        ActionClass::Mint
    } else if has(&[
        "role",
        "policy",
        "policies",
        "consent",
        "permission",
        "owner",
        "add member",
        "domain",
        "federation",
        "app role",
        "delegated",
    ]) {
        ActionClass::PermissionChange
    } else {
        ActionClass::Other
    }
}
