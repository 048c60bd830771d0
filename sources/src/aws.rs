//! AWS CloudTrail, whatever service recorded.
//!
//! Zero knowledge: `requestParameters` and `responseElements` are read for resource names and the
//! ids of keys, and never kept.

mod action;
mod parameters;
mod record;

use keytrail_model::consumption::{ActionClass, Caller, Consumption, Outcome};
use keytrail_model::credential::{CredentialId, CredentialKind};

use self::parameters::Request;
use self::record::{Identity, Record};
use crate::make::{self, Chain, Context};
use crate::{Options, Parsed, Rejection, Skip, SourceKind, text};

/// The major `eventVersion` whose contents are documented.
const KNOWN_MAJOR: u32 = 1;
/// The console's own names: it calls the services for a browser that is connected to these.
const CONSOLE: [&str; 2] = ["console.aws.amazon.com", "signin.aws.amazon.com"];

/// Makes a use of a record's bytes.
///
/// # Errors
/// The reason, when it cannot be one.
pub(crate) fn parse(
    bytes: &[u8],
    options: &Options,
    out: &mut Vec<Consumption>,
) -> Result<Parsed, Rejection> {
    let cx = Context { bytes, options };
    Record::with(bytes, |record| read(record, &cx, out))?
}

fn read(
    record: &Record<'_>,
    cx: &Context<'_>,
    out: &mut Vec<Consumption>,
) -> Result<Parsed, Rejection> {
    let is_type = |name| record.event_type.get() == Some(name);
    if is_type("AwsCloudTrailInsight") || record.event_category.get() == Some("Insight") {
        return Ok(Parsed::skip(Skip::Insight));
    }
    let (Some(event), Some(service)) = (record.event_name.get(), record.event_source.get()) else {
        return Err(Rejection::NoEvent);
    };
    let time = record.event_time.get().or(record.normalised_time.get());
    let time = time.and_then(text::time).ok_or(Rejection::BadTime)?;
    let failed_sign_in = || {
        record.error_message.get().is_some() || parameters::sign_in_failed(record.response_elements)
    };
    if event == "ConsoleLogin" && failed_sign_in() {
        return Ok(Parsed::skip(Skip::NotAuthenticated));
    }
    let identity = &*record.user_identity;
    let request = Request::read(record.request_parameters);
    let minted = parameters::minted(record.response_elements);
    let caller = caller(record, identity);
    let (key, masked_id) = match identity
        .access_key_id
        .get()
        .map(CredentialId::aws_access_key)
    {
        Some(Ok(key)) => (Some(key), false),
        Some(Err(_)) => (None, true),
        None => (None, false),
    };
    let chain = chain(key, record, identity, &request, minted.as_ref());
    if masked_id && chain.is_empty() {
        return Err(Rejection::BadKey);
    }
    let event_id = record.event_id.get();
    let Some(mut usage) = chain.usage(SourceKind::AwsCloudTrail.as_str(), event_id, time, cx)
    else {
        if identity.account_id.get() == Some("ANONYMOUS_PRINCIPAL") {
            return Ok(Parsed::skip(Skip::Anonymous));
        }
        let by_service = is_type("AwsServiceEvent") || matches!(caller, Caller::Service { .. });
        return Ok(Parsed::skip(if by_service {
            Skip::ServiceEvent
        } else {
            Skip::NoCredential
        }));
    };
    usage.class = action::class(service, event);
    usage.revoked = revoked(event, &request);
    usage.restored = restored(event, &request);
    if usage.revoked.is_some() {
        usage.class = ActionClass::Revoke;
    }
    usage.endpoints = endpoints(record, service);
    usage.caller = caller;
    usage.user_agent = make::kept(record.user_agent.get());
    usage.service = text::kept(service);
    usage.region = make::kept(record.aws_region.get());
    usage.action = text::kept(event);
    usage.resources = resources(record, &request);
    let header = record.tls_details.client_provided_host_header.get();
    usage.server_name = header.and_then(text::server_name);
    usage.outcome = match record.error_code.get() {
        Some(code) => Outcome::Failure(text::kept(code)),
        None => Outcome::Success,
    };
    usage.principal = make::kept(identity.arn.get());
    let account = record.recipient_account_id.get();
    usage.account = make::kept(account.or(identity.account_id.get()));
    usage.minted = minted;
    out.push(usage);
    Ok(Parsed {
        uses: 1,
        derived_id: event_id.is_none(),
        masked_id,
        unknown_version: record.event_version.get().is_some_and(is_unknown_version),
        ..Parsed::default()
    })
}

/// The credential that was presented, and what it descends from.
fn chain(
    key: Option<CredentialId>,
    record: &Record<'_>,
    identity: &Identity<'_>,
    request: &Request<'_>,
    minted: Option<&CredentialId>,
) -> Chain {
    // A Bedrock API key is not logged; what is, is the user that it belongs to.
    let bearer = key.is_none() && parameters::is_bearer_call(record.additional_event_data);
    let center = identity.credential_id.get();
    let person = identity.on_behalf_of.user_id.get();
    let workload = identity.in_scope_of.credentials_issued_to.get();
    let chain = Chain::default()
        .then(key)
        .then(center.and_then(|id| make::session("aws-identity-center", id)));
    let chain = ancestry(chain, record, identity)
        .then(person.and_then(|id| make::principal("aws-identity-center", id)));
    if chain.is_empty() && !bearer {
        // A service that takes up a role: nobody's call, but the key that it makes is the role's.
        let role = request.role.as_deref().filter(|_| minted.is_some());
        return chain.then(role.and_then(|arn| make::principal("aws", arn)));
    }
    let store = |arn| make::scoped(CredentialKind::CredentialStore, "aws-workload", arn);
    chain.then(workload.and_then(store))
}

/// Session and account of the caller.
fn ancestry(chain: Chain, record: &Record<'_>, identity: &Identity<'_>) -> Chain {
    let kind = identity.kind.get().unwrap_or_default();
    if matches!(kind, "AWSService" | "AWSInternal") {
        return chain;
    }
    let issuer = identity.session_context.session_issuer.arn.get();
    let arn = identity.arn.get();
    match (kind, arn) {
        (_, Some(arn)) if arn.contains(":assumed-role/") => chain
            .then(make::session("aws", arn))
            .then(role_of(arn, issuer).and_then(|role| make::principal("aws", &role))),
        (_, Some(arn)) if arn.contains(":federated-user/") => chain
            .then(make::session("aws", arn))
            .then(issuer.and_then(|user| make::principal("aws", user))),
        ("WebIdentityUser" | "SAMLUser", _) => {
            let by_parts = || {
                let user = identity.user_name.get()?;
                Some(match identity.identity_provider.get() {
                    Some(provider) => format!("{provider}:{user}"),
                    None => user.to_owned(),
                })
            };
            let name = identity
                .principal_id
                .get()
                .map(str::to_owned)
                .or_else(by_parts);
            chain.then(name.and_then(|name| make::principal("aws", &name)))
        }
        (_, Some(arn)) => chain.then(make::principal("aws", arn)),
        // IAM Identity Center before it had a type of its own.
        ("Unknown" | "IdentityCenterUser", None) => {
            let id = identity.principal_id.get().or(identity.user_name.get());
            chain.then(id.and_then(|id| make::principal("aws-identity-center", id)))
        }
        (_, None) => {
            // Seen from another account, a caller is known by its unique id only.
            let id = identity.principal_id.get().or(issuer);
            let by_name = || {
                let account = identity
                    .account_id
                    .get()
                    .or(record.recipient_account_id.get())?;
                let user = identity.user_name.get().filter(|_| kind == "IAMUser")?;
                make::principal("aws", &format!("arn:aws:iam::{account}:user/{user}"))
            };
            chain.then(
                id.and_then(|id| make::principal("aws", id))
                    .or_else(by_name),
            )
        }
    }
}

/// Session and account of an ARN alone.
pub(crate) fn arn_chain(arn: &str) -> Chain {
    if arn.contains(":assumed-role/") {
        let role = role_of(arn, None);
        return Chain::default()
            .then(make::session("aws", arn))
            .then(role.and_then(|role| make::principal("aws", &role)));
    }
    Chain::default().then(make::principal("aws", arn))
}

/// The role of a session: as its issuer, or out of the session's own name
/// (`arn:aws:sts::1:assumed-role/ROLE/SESSION`), where the role's path is lost.
fn role_of(session: &str, issuer: Option<&str>) -> Option<String> {
    if let Some(issuer) = issuer {
        return Some(issuer.to_owned());
    }
    let (front, rest) = session.split_once(":assumed-role/")?;
    let role = rest.split('/').next()?;
    Some(format!(
        "{}:role/{role}",
        front.replacen(":sts:", ":iam:", 1)
    ))
}

/// A key that the call deleted or switched off.
fn revoked(event: &str, request: &Request<'_>) -> Option<CredentialId> {
    let ends = event == "DeleteAccessKey" || (event == "UpdateAccessKey" && request.inactive);
    let key = request.access_key.as_deref().filter(|_| ends)?;
    CredentialId::aws_access_key(key).ok()
}

/// A key that the call switched on again.
fn restored(event: &str, request: &Request<'_>) -> Option<CredentialId> {
    let on = event == "UpdateAccessKey" && request.active;
    let key = request.access_key.as_deref().filter(|_| on)?;
    CredentialId::aws_access_key(key).ok()
}

/// Where the call came from.
///
/// Only a name that AWS itself writes counts as a service: anything else that is no address is
/// unknown, so that no odd text can pass for "the provider did it". A call that a service makes with
/// the caller's rights (a forward access session) names the service in `invokedBy` or its resource
/// in `inScopeOf.sourceArn`. `inScopeOf.credentialsIssuedTo` says whose key it is, not who calls:
/// a key stolen from a function carries it too.
fn caller(record: &Record<'_>, identity: &Identity<'_>) -> Caller {
    if let Some(by) = identity.invoked_by.get().filter(|by| is_aws_service(by)) {
        return make::service_caller(by);
    }
    let from = record.source_ip_address.get().unwrap_or_default();
    if let Some(address) = text::address(from) {
        return match identity.in_scope_of.source_arn.get().and_then(service_of) {
            Some(service) => make::service_caller(&service),
            None => Caller::Address { address },
        };
    }
    if is_aws_service(from) {
        return make::service_caller(from);
    }
    Caller::Unknown
}

/// `arn:aws:lambda:...` is of `lambda.amazonaws.com`.
fn service_of(arn: &str) -> Option<String> {
    let service = arn.strip_prefix("arn:")?.split(':').nth(1)?;
    (!service.is_empty()).then(|| format!("{service}.amazonaws.com"))
}

/// `cloudformation.amazonaws.com`, `AWS Internal` (User Guide, `sourceIPAddress`).
fn is_aws_service(name: &str) -> bool {
    name.eq_ignore_ascii_case("AWS Internal")
        || [".amazonaws.com", ".amazonaws.com.cn", ".aws.internal"]
            .iter()
            .any(|suffix| {
                name.strip_suffix(suffix).is_some_and(|label| {
                    !label.is_empty()
                        && label
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
                })
            })
}

/// Server names beside those that service and region say: a call that the console makes for its
/// user comes from a browser that is connected to the console.
fn endpoints(record: &Record<'_>, service: &str) -> Vec<String> {
    let from_console = record.session_credential_from_console.get() == Some("true");
    let sign_in = matches!(
        record.event_type.get(),
        Some("AwsConsoleSignIn" | "AwsConsoleAction")
    );
    if !from_console && !sign_in {
        return Vec::new();
    }
    let mut names: Vec<String> = CONSOLE.iter().map(|name| (*name).to_owned()).collect();
    let label = service.strip_suffix(".amazonaws.com");
    match (label, record.aws_region.get()) {
        (Some(label), Some(region)) if from_console && text::is_label(region) => {
            names.push(format!("{label}.{region}.amazonaws.com"));
            names.push(service.to_ascii_lowercase());
        }
        _ => {}
    }
    names
}

fn resources(record: &Record<'_>, request: &Request<'_>) -> Vec<String> {
    let listed = parameters::listed(record.resources);
    let named = request.resources.iter().map(|(_, name)| name.as_ref());
    make::resources(listed.iter().map(String::as_str).chain(named).map(Some))
}

fn is_unknown_version(version: &str) -> bool {
    let major = version.split('.').next().and_then(|m| m.parse().ok());
    major.is_none_or(|major: u32| major > KNOWN_MAJOR)
}
