//! Kubernetes audit, and what EKS, AKS and GKE make of it.
//!
//! `authentication.kubernetes.io/credential-id` names the service account token (`JTI=`) or the
//! client certificate (`X509SHA256=`) exactly; EKS names the AWS key behind its tokens.
//!
//! Source: `audit.k8s.io/v1` types; KEP-4193 (credential ids); the EKS authenticator's extras.

use keytrail_model::consumption::{ActionClass, Consumption, Outcome as Ended};
use keytrail_model::credential::{CredentialId, CredentialKind};

use crate::doc::Doc;
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, gcp, text};

const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";
const ISSUED: &str = "authentication.kubernetes.io/issued-credential-id";

pub(crate) fn read(doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
    if doc.at(&["protoPayload", "serviceName"]).text() == Some("k8s.io") {
        return gcp::read(doc, cx);
    }
    let user = doc.get("user");
    let audit = doc
        .get("apiVersion")
        .text()
        .is_some_and(|v| v.starts_with("audit.k8s.io"))
        || user.is_object()
        || doc.get("objectRef").is_object();
    let event = doc
        .get("verb")
        .text()
        .or_else(|| doc.get("requestURI").text());
    let Some(verb) = event.filter(|_| audit) else {
        return Err(Rejection::NoEvent);
    };
    let time = make::time_of(
        doc,
        &[
            "requestReceivedTimestamp",
            "stageTimestamp",
            "timestamp",
            "p_event_time",
        ],
    )
    .ok_or(Rejection::BadTime)?;
    if doc.get("stage").text() == Some("RequestReceived") {
        return Ok(Found::Skip(Skip::HalfOfPair));
    }
    let name = user.get("username").text().unwrap_or_default();
    let code = doc.at(&["responseStatus", "code"]).int();
    if code == Some(401) {
        return Ok(Found::Skip(Skip::NotAuthenticated));
    }
    if name == "system:anonymous" {
        return Ok(Found::Skip(Skip::Anonymous));
    }
    let id = doc.get("auditID").text();
    let Some(mut usage) =
        chain(user, name).usage(SourceKind::KubernetesAudit.as_str(), id, time, cx)
    else {
        return Ok(Found::Skip(Skip::NoCredential));
    };
    fill(&mut usage, doc, verb, cx);
    usage.principal = make::kept(Some(name));
    usage.outcome = match code {
        Some(code) if code >= 400 => Ended::Failure(code.to_string()),
        _ => Ended::Success,
    };
    let issued = doc.get("annotations").get(ISSUED).text();
    usage.minted = issued.and_then(named_credential);
    Ok(found(usage, id.is_some()))
}

/// `JTI=<jti>`, `X509SHA256=<hex>`.
fn named_credential(text: &str) -> Option<CredentialId> {
    let (form, id) = text.split_once('=')?;
    match form {
        "JTI" => make::exact(CredentialKind::KubernetesToken, id),
        "X509SHA256" => make::exact(CredentialKind::X509Certificate, &id.to_ascii_lowercase()),
        _ => None,
    }
}

fn chain(user: &Doc<'_>, name: &str) -> Chain {
    let extra = |key: &str| {
        let values = user.get("extra").get(key).items();
        values.first().and_then(Doc::text)
    };
    let aws_key = extra("accessKeyId").and_then(|key| CredentialId::aws_access_key(key).ok());
    let arn = extra("arn").or_else(|| extra("canonicalArn"));
    Chain::default()
        .then(extra(CREDENTIAL).and_then(named_credential))
        .then(aws_key)
        .then(make::principal("kubernetes", name))
        .then(arn.and_then(|arn| {
            let kind = if arn.contains(":assumed-role/") {
                CredentialKind::Session
            } else {
                CredentialKind::Principal
            };
            make::scoped(kind, "aws", arn)
        }))
}

fn fill(usage: &mut Consumption, doc: &Doc<'_>, verb: &str, cx: &Context<'_>) {
    // "All but the last address can be set by the client" (audit types): a thief could claim his
    // victim's, so the last is taken.
    let addresses = doc.get("sourceIPs").items();
    usage.caller = make::caller(addresses.last().and_then(Doc::text));
    usage.user_agent = make::kept(doc.get("userAgent").text());
    usage.service = "kubernetes".to_owned();
    let object = doc.get("objectRef");
    let resource = object.get("resource").text().unwrap_or_default();
    let below = object.get("subresource").text();
    usage.action = text::kept(&match (resource, below) {
        ("", _) => verb.to_owned(),
        (resource, Some(below)) => format!("{verb} {resource}/{below}"),
        (resource, None) => format!("{verb} {resource}"),
    });
    let full = match (object.get("namespace").text(), object.get("name").text()) {
        (Some(space), Some(name)) => Some(format!("{space}/{resource}/{name}")),
        (Some(space), None) => Some(format!("{space}/{resource}")),
        (None, Some(name)) => Some(format!("{resource}/{name}")),
        (None, None) => None,
    };
    usage.resources = make::resources([full.as_deref().or_else(|| doc.get("requestURI").text())]);
    usage.account = make::kept(cx.options.tenant.as_deref());
    usage.class = class(verb, resource, below, object);
    // Elsewhere the cluster's name is in the kubeconfig only.
    let managed = ["eks.amazonaws.com", "azmk8s.io", "gke.goog"];
    usage.endpoints = if cx.options.endpoints.is_empty() {
        make::endpoints(&managed, cx.options)
    } else {
        make::endpoints(&[], cx.options)
    };
}

fn class(verb: &str, resource: &str, below: Option<&str>, object: &Doc<'_>) -> ActionClass {
    let reads = matches!(verb, "get" | "list" | "watch");
    let group = object.get("apiGroup").text().unwrap_or_default();
    match (resource, below) {
        ("serviceaccounts", Some("token")) | ("certificatesigningrequests", _) if !reads => {
            ActionClass::Mint
        }
        ("secrets", _) if reads => ActionClass::SecretRead,
        (r, _) if r.starts_with("selfsubject") || r == "tokenreviews" => ActionClass::IdentityCheck,
        (r, _)
            if !reads
                && (group == "rbac.authorization.k8s.io"
                    || r.ends_with("roles")
                    || r.ends_with("rolebindings")
                    || r.ends_with("webhookconfigurations")) =>
        {
            ActionClass::PermissionChange
        }
        _ if verb == "list" => ActionClass::List,
        _ => ActionClass::Other,
    }
}
