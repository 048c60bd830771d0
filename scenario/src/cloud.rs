//! What a line about the cloud says, as the use that a source would make of the record.

use std::net::IpAddr;

use jiff::Timestamp;
use keytrail_model::consumption::{
    ActionClass, Caller, Consumption, JoinStrength, Network, Outcome,
};
use keytrail_model::credential::{CredentialId, CredentialKind};
use keytrail_model::ids::RecordId;

use crate::error::Fault;
use crate::words::{Words, parse};
use crate::world::World;

/// `use ID CREDENTIAL SERVICE:ACTION from=... ...`; `use` has been taken.
pub(crate) fn usage(
    world: &World,
    time: Timestamp,
    words: &mut Words,
) -> Result<Consumption, Fault> {
    let id = words.next("the record's name")?;
    let credential = world.credential(&words.next("the credential's name")?)?;
    let what = words.next("SERVICE:ACTION")?;
    let (service, action) = what.split_once(':').ok_or_else(|| Fault::Form {
        found: what.clone(),
        wanted: "SERVICE:ACTION such as s3:ListBuckets",
    })?;
    let aws = credential.kind() == CredentialKind::AwsAccessKey
        || credential.scope().is_some_and(|scope| scope == "aws");
    let mut usage = Consumption::new(record_id(world, &id), credential.clone(), time);
    usage.service = if aws && !service.contains('.') {
        format!("{service}.amazonaws.com")
    } else {
        service.to_owned()
    };
    action.clone_into(&mut usage.action);
    usage.caller = caller(&words.need("from=")?)?;
    usage.region = words.get("region");
    if aws && usage.region.is_none() {
        usage.region = Some("us-east-1".to_owned());
    }
    usage.server_name = words.get("at");
    usage.endpoints = words.list("endpoints");
    if !aws && usage.endpoints.is_empty() {
        usage.endpoints = endpoints(credential)
            .iter()
            .map(|suffix| (*suffix).to_owned())
            .collect();
        if usage.endpoints.is_empty() && usage.server_name.is_none() {
            return Err(Fault::Endpoints(credential.kind().title().to_owned()));
        }
    }
    details(world, &mut usage, words)?;
    Ok(usage)
}

/// The id of the record that a story calls `name`.
pub(crate) fn record_id(world: &World, name: &str) -> RecordId {
    RecordId(format!("scenario{}:{name}", world.tenant))
}

fn details(world: &World, usage: &mut Consumption, words: &mut Words) -> Result<(), Fault> {
    let named = |name: String| world.credential(&name).cloned();
    usage.user_agent = words.get("client");
    if let Some(code) = words.get("result") {
        usage.outcome = Outcome::Failure(code);
    }
    usage.principal = words.get("principal");
    usage.account = words
        .get("account")
        .or_else(|| usage.credential.aws_account());
    usage.resources = words.list("resource");
    usage.minted = words.get("mints").map(named).transpose()?;
    usage.revoked = words.get("revokes").map(named).transpose()?;
    usage.restored = words.get("restores").map(named).transpose()?;
    usage.descends = words
        .list("descends")
        .into_iter()
        .map(named)
        .collect::<Result<_, _>>()?;
    usage.class = match words.get("class") {
        Some(class) => named_class(&class)?,
        None => class_of(&usage.action),
    };
    if let Some(strength) = words.get("strength") {
        usage.strength = match strength.as_str() {
            "exact" => JoinStrength::ExactId,
            "look-up" => JoinStrength::IdThroughLookup,
            "principal" => JoinStrength::PrincipalAddressTime,
            other => {
                return Err(Fault::Form {
                    found: other.to_owned(),
                    wanted: "join strength (exact, look-up, principal)",
                });
            }
        };
    }
    let network = Network {
        asn: words.parse("asn", "autonomous system number")?,
        organisation: words.get("org"),
        country: words.get("country"),
        provider: words.get("provider"),
        pool: words.get("pool"),
    };
    if !network.is_empty() {
        usage.network = Some(network);
    }
    Ok(())
}

fn caller(text: &str) -> Result<Caller, Fault> {
    Ok(match (text, text.strip_prefix("service:")) {
        (_, Some(service)) => Caller::Service {
            service: service.to_owned(),
        },
        ("unknown", None) => Caller::Unknown,
        (address, None) => Caller::Address {
            address: parse::<IpAddr>(address, "address, `unknown` or service:NAME")?,
        },
    })
}

/// Where the service of a credential's provider is reached, for the kinds with one provider.
fn endpoints(credential: &CredentialId) -> &'static [&'static str] {
    match (credential.kind(), credential.scope()) {
        (CredentialKind::GithubToken, _) | (_, Some("github")) => &["github.com"],
        (CredentialKind::GcpServiceAccountKey, _) | (_, Some("gcp" | "google")) => {
            &["googleapis.com"]
        }
        (
            CredentialKind::EntraToken
            | CredentialKind::EntraSession
            | CredentialKind::EntraClientCredential,
            _,
        )
        | (_, Some("entra" | "azure")) => &[
            "microsoftonline.com",
            "microsoft.com",
            "azure.com",
            "azure.net",
        ],
        (CredentialKind::OktaApiToken, _) | (_, Some("okta")) => &["okta.com"],
        (CredentialKind::GitlabToken, _) => &["gitlab.com"],
        (_, Some("anthropic" | "anthropic-api-key" | "claude-oauth")) => &["anthropic.com"],
        (_, Some("openai" | "openai-api-key")) => &["openai.com"],
        (_, Some("circleci")) => &["circleci.com"],
        _ => &[],
    }
}

/// The class of an AWS action whose name says it; the other sources have their own words.
fn class_of(action: &str) -> ActionClass {
    match action {
        "GetCallerIdentity" | "user.get" => ActionClass::IdentityCheck,
        "GetSecretValue" | "BatchGetSecretValue" | "AccessSecretVersion" | "SecretGet" => {
            ActionClass::SecretRead
        }
        "AssumeRole"
        | "AssumeRoleWithWebIdentity"
        | "GetSessionToken"
        | "GetFederationToken"
        | "CreateAccessKey" => ActionClass::Mint,
        "DeleteAccessKey" | "UpdateAccessKey" => ActionClass::Revoke,
        "InvokeModel" | "Converse" | "InvokeModelWithResponseStream" => ActionClass::ModelCall,
        other if other.starts_with("List") => ActionClass::List,
        _ => ActionClass::Other,
    }
}

fn named_class(name: &str) -> Result<ActionClass, Fault> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).map_err(|_| Fault::Form {
        found: name.to_owned(),
        wanted: "class of action (identity-check, list, secret-read, mint, revoke, \
                 permission-change, model-call, other)",
    })
}
