//! Azure Key Vault: `AuditEvent`.
//!
//! Source: "Azure Key Vault logging". The caller's token is known by its claims; where they hold no
//! `uti`, the account, address and time are all there is. In Log Analytics the same are rows of
//! AZKVAuditLogs (claims as JSON) or of AzureDiagnostics (a column for each claim).

use keytrail_model::consumption::{ActionClass, Outcome as Ended};

use super::{Record, claimed, last_part};
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

pub(super) fn read(record: &Record<'_>, cx: &Context<'_>) -> Outcome {
    let Some(operation) = record.operation() else {
        return Err(Rejection::NoEvent);
    };
    let time = record.time().ok_or(Rejection::BadTime)?;
    let property = |name: &str| record.property(name);
    let status = property("httpStatusCode")
        .int()
        .or_else(|| record.doc.get("httpStatusCode").int());
    // Each client first asks without a token, and is told where to get one.
    if status == Some(401) {
        return Ok(Found::Skip(Skip::NotAuthenticated));
    }
    let claims = record.claims();
    let chain = claimed(Chain::default(), &claims);
    let Some(mut usage) = chain.usage(SourceKind::AzureKeyVault.as_str(), None, time, cx) else {
        return Ok(Found::Skip(Skip::NoCredential));
    };
    let resource = record.doc.first(&["resourceId", "_ResourceId"]);
    let uri = ["requestUri", "id"]
        .iter()
        .find_map(|name| property(name).text());
    let host = uri.and_then(text::host_of).or_else(|| {
        let name = resource.map(last_part)?;
        text::server_name(&format!("{name}.vault.azure.net"))
    });
    let host = host.unwrap_or_else(|| "vault.azure.net".to_owned());
    usage.caller = make::caller(record.address());
    usage.user_agent = make::kept(property("clientInfo").text());
    usage.region = make::kept(record.doc.get("location").text());
    usage.action = text::kept(operation);
    usage.resources = make::resources([property("id").text().or(uri), resource]);
    let code = record.doc.first(&["resultSignature", "resultType"]);
    usage.outcome = match status {
        Some(status) if status >= 400 => Ended::Failure(text::kept(code.unwrap_or("failed"))),
        None if record
            .doc
            .get("resultType")
            .text()
            .is_some_and(|r| r.eq_ignore_ascii_case("failed")) =>
        {
            Ended::Failure(text::kept(code.unwrap_or("failed")))
        }
        _ => Ended::Success,
    };
    usage.principal = make::kept(claims.get("upn").or_else(|| claims.get("appid")));
    usage.account = record.tenant(cx);
    usage.class = class(operation);
    usage.endpoints = make::endpoints(&[&host], cx.options);
    usage.service = host;
    Ok(found(usage, false))
}

fn class(operation: &str) -> ActionClass {
    match operation {
        "SecretGet"
        | "SecretBackup"
        | "KeyBackup"
        | "KeyUnwrap"
        | "KeyDecrypt"
        | "CertificateBackup"
        | "StorageAccountGetSas" => ActionClass::SecretRead,
        "VaultPatch"
        | "VaultPut"
        | "VaultAccessPolicyChangedEventGridNotification"
        | "VaultDelete" => ActionClass::PermissionChange,
        list if list.contains("List") => ActionClass::List,
        _ => ActionClass::Other,
    }
}
