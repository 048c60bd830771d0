//! Google Cloud Audit Logs: every service, Secret Manager, Vertex AI and GKE among them.
//!
//! Source: "AuditLog" (`google.cloud.audit`) and "LogEntry" references.

use keytrail_model::consumption::{ActionClass, Caller, Consumption, Outcome as Ended};
use keytrail_model::credential::{CredentialId, CredentialKind};

use crate::doc::Doc;
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

pub(crate) fn read(doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
    // Cloud Logging's own name, and that of its tables in BigQuery.
    let payload = ["protoPayload", "protopayload_auditlog"];
    let payload = payload.iter().map(|name| doc.get(name));
    let payload = payload.into_iter().find(|payload| payload.is_object());
    let payload = payload.unwrap_or(doc);
    let who = payload.get("authenticationInfo");
    let named = payload.get("serviceName").text();
    let method = payload.get("methodName").text().or_else(|| {
        payload
            .path("authorizationInfo.*.permission")
            .and_then(Doc::text)
    });
    let Some(method) = method.filter(|_| named.is_some() || who.is_object()) else {
        return Err(Rejection::NoEvent);
    };
    let producer = doc.at(&["operation", "producer"]).text();
    let producer = producer.filter(|producer| producer.ends_with(".googleapis.com"));
    let service = named.or(producer).unwrap_or("googleapis.com");
    let time = make::time_of(doc, &["timestamp"])
        .or_else(|| make::time(payload.at(&["requestMetadata", "requestAttributes", "time"])))
        .or_else(|| make::time_of(doc, &["receiveTimestamp", "p_event_time"]))
        .ok_or(Rejection::BadTime)?;
    let log = doc.get("logName").text().unwrap_or_default();
    if log.ends_with("system_event") {
        return Ok(Found::Skip(Skip::ServiceEvent));
    }
    // A long operation is told of twice; the end of it is no call.
    let operation = doc.get("operation");
    if operation.get("last").truth() == Some(true) && operation.get("first").truth() != Some(true) {
        return Ok(Found::Skip(Skip::HalfOfPair));
    }
    let id = doc.get("insertId").text();
    let Some(mut usage) = chain(who).usage(SourceKind::GcpAudit.as_str(), id, time, cx) else {
        let somebody = who.first(&["principalEmail", "principalSubject", "authoritySelector"]);
        let why = if somebody.is_some() {
            Skip::Anonymous
        } else {
            Skip::NoCredential
        };
        return Ok(Found::Skip(why));
    };
    fill(&mut usage, doc, payload, cx);
    usage.class = class(service, method);
    key_events(&mut usage, payload, method);
    usage.service = text::kept(service);
    usage.action = text::kept(method);
    usage.endpoints = endpoints(&usage, service, cx);
    Ok(found(usage, id.is_some()))
}

/// The key, the account that it speaks for, and those that it was lent by, nearest first.
fn chain(who: &Doc<'_>) -> Chain {
    let key = who.get("serviceAccountKeyName").text().and_then(key_of);
    let email = who.get("principalEmail").text().map(bare);
    let subject = who
        .first(&["principalSubject", "authoritySelector"])
        .map(bare);
    let nobody = |name: &&str| !matches!(*name, "allUsers" | "system:anonymous" | "anonymous");
    let mut chain = Chain::default()
        .then(key)
        .then(email.filter(nobody).and_then(account))
        .then(subject.filter(nobody).and_then(account));
    // "sorted based on the original ordering of the identity delegation events": the first lender
    // comes first, so the nearest is the last.
    let lenders = who.get("serviceAccountDelegationInfo").items();
    for lender in lenders.iter().rev() {
        let name = lender
            .at(&["firstPartyPrincipal", "principalEmail"])
            .text()
            .or_else(|| lender.first(&["principalEmail", "principalSubject"]))
            .map(bare);
        chain = chain.then(name.and_then(account));
    }
    chain
}

/// `serviceAccount:ci@p.iam.gserviceaccount.com` without its type.
fn bare(name: &str) -> &str {
    ["serviceAccount:", "user:", "group:"]
        .iter()
        .find_map(|kind| name.strip_prefix(kind))
        .unwrap_or(name)
}

fn account(name: &str) -> Option<CredentialId> {
    // GKE puts the cluster's own accounts here.
    let scope = if name.starts_with("system:") {
        "kubernetes"
    } else {
        "gcp"
    };
    make::principal(scope, name)
}

/// `//iam.googleapis.com/projects/P/serviceAccounts/E/keys/KEY`.
fn key_of(name: &str) -> Option<CredentialId> {
    let (_, key) = name.split_once("/keys/")?;
    make::exact(
        CredentialKind::GcpServiceAccountKey,
        &key.to_ascii_lowercase(),
    )
}

fn fill(usage: &mut Consumption, doc: &Doc<'_>, payload: &Doc<'_>, cx: &Context<'_>) {
    let metadata = payload.get("requestMetadata");
    let labels = doc.at(&["resource", "labels"]);
    let who = payload.get("authenticationInfo");
    usage.caller = caller(
        metadata.get("callerIp").text(),
        who.get("principalEmail").text(),
    );
    usage.user_agent = make::kept(metadata.get("callerSuppliedUserAgent").text());
    let name = payload.get("resourceName").text();
    usage.region = region(payload, labels, name);
    usage.resources = make::resources([name]);
    let status = payload.get("status");
    usage.outcome = match (status.get("code").int(), status.get("message").text()) {
        (None | Some(0), None) => Ended::Success,
        (None | Some(0), Some(_)) if status.get("code") == &Doc::Int(0) => Ended::Success,
        (code, _) => Ended::Failure(code.map_or("failed".to_owned(), |code| code.to_string())),
    };
    usage.principal = make::kept(who.first(&["principalEmail", "principalSubject"]));
    let project = labels.get("project_id").text();
    usage.account = make::kept(project.or(cx.options.tenant.as_deref()));
}

/// Inside Google's network the address is withheld (`gce-internal-ip`, `private`): that is a
/// machine of somebody's, not Google. Google's own agents are Google.
fn caller(address: Option<&str>, email: Option<&str>) -> Caller {
    let agent = email.filter(|email| {
        *email == "system@google.com"
            || email.ends_with("@cloudservices.gserviceaccount.com")
            || (email.starts_with("service-") && email.contains("@gcp-sa-"))
            || email.ends_with("@prod.google.com")
    });
    match (make::caller(address), agent) {
        (Caller::Unknown, Some(agent)) => make::service_caller(agent),
        (caller, _) => caller,
    }
}

fn region(payload: &Doc<'_>, labels: &Doc<'_>, name: Option<&str>) -> Option<String> {
    let current = payload
        .at(&["resourceLocation", "currentLocations"])
        .items();
    let stated = current
        .first()
        .and_then(Doc::text)
        .or_else(|| labels.first(&["location", "region", "zone"]));
    let in_name = || {
        let mut parts = name?.split('/');
        parts.find(|part| matches!(*part, "locations" | "regions" | "zones"))?;
        parts.next()
    };
    make::kept(stated.or_else(in_name))
}

/// Failures and successes of keys: what a call made or ended.
///
/// `GenerateAccessToken` and its like name none that they made: their tokens have no identifier in
/// any record. What is done with one names the account that it speaks for, and who asked for it in
/// `serviceAccountDelegationInfo`: that is where the descent is read ([`chain`]). To call the account
/// minted would make every other use of it the caller's.
fn key_events(usage: &mut Consumption, payload: &Doc<'_>, method: &str) {
    let named = || {
        let request = payload.at(&["request", "name"]).text();
        request
            .or_else(|| payload.get("resourceName").text())
            .and_then(key_of)
    };
    if method.ends_with("CreateServiceAccountKey") {
        usage.minted = payload.at(&["response", "name"]).text().and_then(key_of);
    } else if method.ends_with("DeleteServiceAccountKey")
        || method.ends_with("DisableServiceAccountKey")
    {
        usage.revoked = named();
    } else if method.ends_with("EnableServiceAccountKey") {
        usage.restored = named();
    }
}

/// The service's names: its own, its regional and locational forms, and what the console goes
/// through.
fn endpoints(usage: &Consumption, service: &str, cx: &Context<'_>) -> Vec<String> {
    let mut names = vec![service.to_ascii_lowercase()];
    if let Some(label) = service.strip_suffix(".googleapis.com") {
        names.push(format!("{label}.mtls.googleapis.com"));
        // The older JSON APIs, and batch requests, are served under one name.
        names.push("www.googleapis.com".to_owned());
        if let Some(region) = usage.region.as_deref().filter(|r| text::is_label(r)) {
            let region = of_zone(region);
            names.push(format!("{region}-{label}.googleapis.com"));
            names.push(format!("{label}.{region}.rep.googleapis.com"));
        }
        match label {
            "storage" => names.push("storage.cloud.google.com".to_owned()),
            "iam" | "iamcredentials" => names.push("iamcredentials.googleapis.com".to_owned()),
            "cloudresourcemanager" => names.push("cloudresourcemanager.googleapis.com".to_owned()),
            _ => {}
        }
    }
    if service == "k8s.io" {
        // A cluster's own name, or its address, is in the kubeconfig only.
        names = vec!["gke.goog".to_owned()];
    }
    let in_browser = |agent: &String| agent.starts_with("Mozilla/");
    if usage.user_agent.as_ref().is_some_and(in_browser) {
        names.push("clients6.google.com".to_owned());
        names.push("console.cloud.google.com".to_owned());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    make::endpoints(&names, cx.options)
}

/// `us-central1` of the zone `us-central1-a`.
fn of_zone(place: &str) -> &str {
    match place.rsplit_once('-') {
        Some((region, zone)) if zone.len() == 1 => region,
        _ => place,
    }
}

fn class(service: &str, method: &str) -> ActionClass {
    let name = method.rsplit('.').next().unwrap_or(method);
    let lower = name.to_ascii_lowercase();
    match (service, name) {
        ("secretmanager.googleapis.com", "AccessSecretVersion") => return ActionClass::SecretRead,
        (
            "iamcredentials.googleapis.com" | "sts.googleapis.com",
            "GenerateAccessToken" | "GenerateIdToken" | "SignJwt" | "SignBlob" | "ExchangeToken",
        )
        | ("iam.googleapis.com", "CreateServiceAccountKey" | "UploadServiceAccountKey")
        | ("apikeys.googleapis.com", "CreateKey") => return ActionClass::Mint,
        (
            "iam.googleapis.com",
            "DeleteServiceAccountKey"
            | "DisableServiceAccountKey"
            | "DisableServiceAccount"
            | "DeleteServiceAccount",
        )
        | ("apikeys.googleapis.com", "DeleteKey") => return ActionClass::Revoke,
        ("apikeys.googleapis.com", "GetKeyString") => return ActionClass::SecretRead,
        _ => {}
    }
    if service == "k8s.io" {
        return kubernetes(method, &lower);
    }
    if service == "aiplatform.googleapis.com"
        && [
            "predict",
            "generatecontent",
            "streamgeneratecontent",
            "rawpredict",
            "streamrawpredict",
            "serverstreamingpredict",
            "embedcontent",
        ]
        .contains(&lower.as_str())
    {
        return ActionClass::ModelCall;
    }
    if lower.contains("setiampolicy")
        || lower.contains("setiampermissions")
        || lower.contains("setorgpolicy")
        || (service == "iam.googleapis.com"
            && ["Create", "Update", "Delete", "Set"]
                .iter()
                .any(|verb| name.starts_with(verb)))
        || (service == "logging.googleapis.com"
            && ["Delete", "Update", "Create"]
                .iter()
                .any(|verb| name.starts_with(verb)))
        || method.contains(".firewalls.")
    {
        return ActionClass::PermissionChange;
    }
    if name == "testIamPermissions" || name == "TestIamPermissions" {
        return ActionClass::IdentityCheck;
    }
    if lower.starts_with("list") || lower == "aggregatedlist" || lower.starts_with("search") {
        return ActionClass::List;
    }
    ActionClass::Other
}

/// `io.k8s.core.v1.secrets.get`.
fn kubernetes(method: &str, verb: &str) -> ActionClass {
    if method.contains(".secrets.") && matches!(verb, "get" | "list" | "watch") {
        ActionClass::SecretRead
    } else if method.contains(".rbac.") && verb != "get" && verb != "list" {
        ActionClass::PermissionChange
    } else if method.contains("serviceaccounts.token.")
        || method.contains("certificatesigningrequests.create")
    {
        ActionClass::Mint
    } else if method.contains("selfsubject") {
        ActionClass::IdentityCheck
    } else if verb == "list" {
        ActionClass::List
    } else {
        ActionClass::Other
    }
}
