//! Microsoft Graph activity: every request to the Graph, with the token that it carried.
//!
//! Source: "MicrosoftGraphActivityLogs" reference. `signInActivityId` is the token's `uti`; the
//! session's column is spelt `C_Sid`, `c_sid` or `c_Sid`.

use keytrail_model::consumption::{ActionClass, Outcome as Ended};
use keytrail_model::credential::CredentialKind;

use super::{Record, account};
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

pub(super) fn read(record: &Record<'_>, cx: &Context<'_>) -> Outcome {
    let property = |name: &str| record.property(name);
    let Some(uri) = property("requestUri").text() else {
        return Err(Rejection::NoEvent);
    };
    let time = make::time(property("timeGenerated")).or_else(|| record.time());
    let time = time.ok_or(Rejection::BadTime)?;
    let status = property("responseStatusCode")
        .int()
        .or_else(|| record.doc.get("resultSignature").int());
    let status = status.unwrap_or(200);
    let exact = |kind, names: &[&str]| {
        let id = names.iter().find_map(|name| property(name).text())?;
        make::exact(kind, id)
    };
    let person = account(property("userId").text());
    let for_itself = person.is_none();
    let chain = Chain::default()
        .then(exact(
            CredentialKind::EntraToken,
            &["signInActivityId", "uniqueTokenIdentifier"],
        ))
        .then(exact(CredentialKind::EntraSession, &["c_sid", "sessionId"]))
        .then(person)
        .then(account(
            property("servicePrincipalId").text().filter(|_| for_itself),
        ))
        .then(account(property("appId").text().filter(|_| for_itself)));
    let id = property("requestId").text();
    let Some(mut usage) = chain.usage(SourceKind::GraphActivity.as_str(), id, time, cx) else {
        // A request whose token was refused names nobody.
        return Ok(Found::Skip(if status == 401 {
            Skip::NotAuthenticated
        } else {
            Skip::NoCredential
        }));
    };
    let method = property("requestMethod").text().unwrap_or("GET");
    let path = text::without_query(uri);
    let path = path
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('/'))
        .map_or(path.as_str(), |(_, path)| path);
    usage.caller = make::caller(property("ipAddress").text().or_else(|| record.address()));
    usage.user_agent = make::kept(property("userAgent").text());
    usage.service = "graph.microsoft.com".to_owned();
    usage.region = make::kept(property("location").text());
    usage.action = text::kept(&format!("{method} /{}", path.trim_start_matches('/')));
    usage.resources = make::resources([Some(uri)]);
    usage.outcome = if status >= 400 {
        Ended::Failure(status.to_string())
    } else {
        Ended::Success
    };
    usage.principal = make::kept(
        ["userId", "servicePrincipalId", "appId"]
            .iter()
            .find_map(|n| property(n).text()),
    );
    usage.account = record.tenant(cx);
    usage.class = class(method, path);
    let host = text::host_of(uri);
    let names = [
        host.as_deref().unwrap_or("graph.microsoft.com"),
        "graph.microsoft.com",
    ];
    usage.endpoints = make::endpoints(&names, cx.options);
    Ok(found(usage, id.is_some()))
}

fn class(method: &str, path: &str) -> ActionClass {
    let lower = path.trim_end_matches('/').to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| lower.ends_with(end));
    let reads = method.eq_ignore_ascii_case("GET");
    if reads {
        return if ends(&[
            "v1.0/me",
            "beta/me",
            "/organization",
            "/memberof",
            "/getmembergroups",
        ]) {
            ActionClass::IdentityCheck
        } else if ends(&[
            "/users",
            "/groups",
            "/applications",
            "/serviceprincipals",
            "/devices",
            "/messages",
            "/children",
            "/sites",
            "/directoryroles",
        ]) {
            ActionClass::List
        } else {
            ActionClass::Other
        };
    }
    if ends(&[
        "/addpassword",
        "/addkey",
        "/temporaryaccesspassmethods",
        "/federatedidentitycredentials",
        "/resetpassword",
    ]) {
        ActionClass::Mint
    } else if ends(&[
        "/removepassword",
        "/removekey",
        "/revokesigninsessions",
        "/invalidateallrefreshtokens",
    ]) {
        ActionClass::Revoke
    } else if [
        "rolemanagement",
        "approleassign",
        "oauth2permissiongrants",
        "policies/",
        "/owners/",
        "/members/",
        "directoryroles/",
    ]
    .iter()
    .any(|part| lower.contains(part))
    {
        ActionClass::PermissionChange
    } else {
        ActionClass::Other
    }
}
