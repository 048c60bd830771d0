//! Azure Activity, and the resource logs of storage.
//!
//! Source: "Azure Activity Log event schema", "Azure Storage resource logs schema".

use keytrail_model::consumption::{ActionClass, Outcome as Ended};
use keytrail_model::credential::CredentialId;

use super::{Record, account, claimed};
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

/// Categories of the Activity log that report a state: nobody called.
const STATES: [&str; 6] = [
    "ServiceHealth",
    "ResourceHealth",
    "Alert",
    "Autoscale",
    "Recommendation",
    "Security",
];

pub(super) fn read(record: &Record<'_>, category: &str, cx: &Context<'_>) -> Outcome {
    let Some(operation) = record.operation() else {
        return Err(Rejection::NoEvent);
    };
    let time = record.time().ok_or(Rejection::BadTime)?;
    let claims = record.claims();
    let identity = record.identity();
    let requester = identity.get("requester");
    let chain = claimed(Chain::default(), &claims)
        .then(account(requester.first(&["objectId", "upn", "appId"])))
        .then(account(
            identity
                .at(&["authorization", "evidence", "principalId"])
                .text(),
        ))
        .then(account(
            record.doc.get("caller").text().filter(|c| !c.contains(' ')),
        ));
    let chain = if chain.is_empty() {
        chain.then(storage_key(record, category))
    } else {
        chain
    };
    let event_id = record.doc.get("eventDataId").text();
    let event_id = event_id
        .or_else(|| record.property("eventDataId").text())
        .or_else(|| record.grid?.get("id").text());
    let Some(mut usage) = chain.usage(SourceKind::AzureActivity.as_str(), event_id, time, cx)
    else {
        let state = STATES
            .iter()
            .any(|name| name.eq_ignore_ascii_case(category));
        return Ok(Found::Skip(if state {
            Skip::NotAUse
        } else {
            Skip::NoCredential
        }));
    };
    usage.caller = make::caller(record.address().or_else(|| claims.get("ipaddr")));
    usage.user_agent = make::kept(record.property("userAgentHeader").text());
    usage.region = make::kept(record.doc.first(&["location", "resourceLocation"]));
    usage.action = text::kept(operation);
    usage.resources = make::resources([
        record
            .doc
            .first(&["resourceId", "_ResourceId", "resourceUri"]),
        record.property("objectKey").text(),
    ]);
    usage.outcome = ended(record);
    usage.principal = make::kept(claims.get("name").or(record.doc.get("caller").text()));
    usage.account = record.tenant(cx);
    usage.class = class(operation);
    let (service, endpoints) = service(record, category);
    usage.endpoints = make::endpoints(
        &endpoints.iter().map(String::as_str).collect::<Vec<_>>(),
        cx.options,
    );
    usage.service = service;
    Ok(found(usage, event_id.is_some()))
}

/// Which of a storage account's two keys was used, itself or to sign: `key1(hash)`,
/// `key2(hash),SasSignature(hash)`. The hash is of the key, and no identifier.
fn storage_key(record: &Record<'_>, category: &str) -> Option<CredentialId> {
    if !category.to_ascii_lowercase().starts_with("storage") {
        return None;
    }
    let identity = record.identity();
    let kind = identity.get("type").text()?;
    if !kind.eq_ignore_ascii_case("AccountKey") && !kind.to_ascii_lowercase().starts_with("sas") {
        return None;
    }
    let (key, _) = identity.get("tokenHash").text()?.split_once('(')?;
    let account = record.property("accountName").text()?.to_ascii_lowercase();
    if !matches!(key, "key1" | "key2") {
        return None;
    }
    make::principal("azure", &format!("storage-account/{account}/{key}"))
}

/// The service's server name, and all its names.
fn service(record: &Record<'_>, category: &str) -> (String, Vec<String>) {
    if category.to_ascii_lowercase().starts_with("storage") {
        let by_uri = record.doc.get("uri").text().and_then(text::host_of);
        let by_name = || {
            let account = record.property("accountName").text()?;
            let service = record.property("serviceType").text().unwrap_or("blob");
            text::server_name(&format!("{account}.{service}.core.windows.net"))
        };
        let host = by_uri.or_else(by_name);
        let host = host.unwrap_or_else(|| "core.windows.net".to_owned());
        return (host.clone(), vec![host]);
    }
    let names = [
        "management.azure.com",
        // the portal calls for a browser
        "portal.azure.com",
        "management.core.windows.net",
        "management.usgovcloudapi.net",
        "management.chinacloudapi.cn",
    ];
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    ("management.azure.com".to_owned(), names)
}

fn ended(record: &Record<'_>) -> Ended {
    let status = record.doc.get("status");
    let result = record
        .doc
        .first(&["resultType", "statusText", "ActivityStatusValue"]);
    let result = result.or_else(|| status.get("value").text());
    let failed = result.is_some_and(|r| {
        ["fail", "error", "unauthorized", "denied"]
            .iter()
            .any(|word| r.to_ascii_lowercase().contains(word))
    });
    let signature = record.doc.first(&["resultSignature", "statusCode"]);
    let code = signature.or(result).unwrap_or("failed");
    // `Failed.Forbidden`, `403`: the part that says why.
    if failed
        || signature
            .and_then(|s| s.parse::<u16>().ok())
            .is_some_and(|s| s >= 400)
    {
        Ended::Failure(text::kept(code.rsplit('.').next().unwrap_or(code)))
    } else {
        Ended::Success
    }
}

fn class(operation: &str) -> ActionClass {
    let operation = operation.to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| operation.ends_with(end));
    let has = |parts: &[&str]| parts.iter().any(|part| operation.contains(part));
    if ends(&[
        "/listkeys/action",
        "/listsecrets/action",
        "/listconnectionstrings/action",
        "/listcredentials/action",
    ]) || has(&[
        "/listclusteradmincredential",
        "/listclusterusercredential",
        "/listaccountsas",
        "/listservicesas",
        "/publishxml/action",
        "/getuserdelegationkey",
    ]) {
        ActionClass::SecretRead
    } else if has(&["/regeneratekey", "/regeneratekeys"])
        || ends(&[
            "/generateuserdelegationkey/action",
            "/federatedidentitycredentials/write",
        ])
    {
        ActionClass::Mint
    } else if has(&[
        "microsoft.authorization/",
        "/elevateaccess",
        "/diagnosticsettings/",
        "/accesspolicies/",
        "/locks/",
        "/actiongroups/",
        "/networksecuritygroups/",
        "/firewallrules/",
        "microsoft.insights/",
        "microsoft.security/",
    ]) && ends(&["/write", "/delete", "/action"])
    {
        ActionClass::PermissionChange
    } else if ends(&["/list/action"]) || has(&["listblobs", "listcontainers"]) {
        ActionClass::List
    } else {
        ActionClass::Other
    }
}
