//! One CloudTrail record: a use, nothing to join on, or refused with a reason.
//!
//! Zero knowledge: `requestParameters` and `responseElements` are read for resource names and the
//! id of a minted key, and never kept.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use keytrail_model::consumption::{Caller, Consumption, Outcome};
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::RecordId;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{Parsed, Rejection, Skip};

/// The prefix of record ids.
const SOURCE: &str = "aws.cloudtrail";

/// The major `eventVersion` whose contents are documented.
const KNOWN_MAJOR: u32 = 1;
/// Characters kept of a free text.
const MAX_TEXT: usize = 512;
/// Resources kept of a record.
const MAX_RESOURCES: usize = 16;
/// `requestParameters` members that name a resource; nothing else there is looked at.
const RESOURCE_PARAMETERS: [&str; 12] = [
    "bucketName",
    "secretId",
    "secretIdList",
    "keyId",
    "functionName",
    "roleArn",
    "tableName",
    "instanceId",
    "userName",
    "modelId",
    "queueUrl",
    "topicArn",
];

/// Makes a use of a record's bytes.
///
/// # Errors
/// The reason, when it cannot be one.
pub(crate) fn parse(bytes: &[u8], out: &mut Vec<Consumption>) -> Result<Parsed, Rejection> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| Rejection::BadJson)?;
    if !value.is_object() {
        return Err(Rejection::NotObject);
    }
    let value = unwrap(value)?;
    let (Some(event), Some(service)) = (text(&value, "eventName"), text(&value, "eventSource"))
    else {
        return Err(Rejection::NoEvent);
    };
    let time = text(&value, "eventTime")
        .and_then(parse_time)
        .ok_or(Rejection::BadTime)?;
    let identity = field(&value, "userIdentity").unwrap_or(&Value::Null);
    let Some(key) = text(identity, "accessKeyId").filter(|key| !key.is_empty()) else {
        return Ok(Parsed::skip(Skip::NoCredential));
    };
    let credential = CredentialId::aws_access_key(key).map_err(|_| Rejection::BadKey)?;
    let event_id = text(&value, "eventID").filter(|id| !id.is_empty());
    let usage = Consumption {
        caller: caller(&value, identity),
        user_agent: text(&value, "userAgent").map(capped),
        service: capped(service),
        region: text(&value, "awsRegion").map(capped),
        action: capped(event),
        resources: resources(&value),
        server_name: field(&value, "tlsDetails")
            .and_then(|tls| text(tls, "clientProvidedHostHeader"))
            .and_then(server_name),
        outcome: match text(&value, "errorCode").filter(|code| !code.is_empty()) {
            Some(code) => Outcome::Failure(capped(code)),
            None => Outcome::Success,
        },
        principal: text(identity, "arn").map(capped),
        account: text(&value, "recipientAccountId")
            .or_else(|| text(identity, "accountId"))
            .map(capped),
        minted: minted(&value),
        ..Consumption::new(record_id(event_id, bytes), credential, time)
    };
    out.push(usage);
    Ok(Parsed {
        uses: 1,
        derived_id: event_id.is_none(),
        unknown_version: text(&value, "eventVersion").is_some_and(is_unknown_version),
        ..Parsed::default()
    })
}

/// Takes the record out of EventBridge's envelope or of a LookupEvents item.
fn unwrap(value: Value) -> Result<Value, Rejection> {
    if let Some(inner) = text(&value, "CloudTrailEvent") {
        return serde_json::from_str(inner).map_err(|_| Rejection::BadJson);
    }
    match field(&value, "detail") {
        Some(detail) if detail.is_object() && field(&value, "eventSource").is_none() => {
            Ok(detail.clone())
        }
        _ => Ok(value),
    }
}

/// A member by name; by its name in another case when it is not there (seen in real logs that
/// passed through other tools).
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    object.get(name).or_else(|| {
        object
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    })
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    field(value, name)?.as_str()
}

fn capped(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

fn record_id(event_id: Option<&str>, bytes: &[u8]) -> RecordId {
    RecordId(match event_id {
        Some(id) => format!("{SOURCE}:{}", capped(id)),
        None => format!("{SOURCE}:sha256-{:x}", Sha256::digest(bytes)),
    })
}

/// `2026-11-23T20:14:03Z` as documented; a time without zone is UTC, as CloudTrail's are.
fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().or_else(|| {
        let civil: DateTime = text.parse().ok()?;
        Offset::UTC.to_timestamp(civil).ok()
    })
}

/// Where the call came from.
///
/// Only a name that AWS itself writes counts as a service: anything else that is no address is
/// unknown, so that no odd text can pass for "the provider did it".
fn caller(record: &Value, identity: &Value) -> Caller {
    let service = |name: &str| Caller::Service {
        service: capped(name),
    };
    if let Some(by) = text(identity, "invokedBy").filter(|by| is_aws_service(by)) {
        return service(by);
    }
    let Some(from) = text(record, "sourceIPAddress").map(str::trim) else {
        return Caller::Unknown;
    };
    if let Some(address) = parse_address(from) {
        return Caller::Address { address };
    }
    if is_aws_service(from) {
        return service(from);
    }
    Caller::Unknown
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

/// An address; IPv4 parts may carry leading zeros, which are decimal here (published data sets
/// contain them).
fn parse_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts
        .next()
        .is_none()
        .then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// The host the client asked for: no port, lower case.
fn server_name(header: &str) -> Option<String> {
    let header = header.trim();
    let name = match header.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.contains(':') => {
            name
        }
        _ => header,
    };
    let name = name.trim_end_matches('.');
    (!name.is_empty() && name.len() <= 253).then(|| name.to_ascii_lowercase())
}

/// The id of a key that the call made: `AssumeRole` and its like, `CreateAccessKey`.
fn minted(record: &Value) -> Option<CredentialId> {
    let response = field(record, "responseElements")?;
    ["credentials", "accessKey"]
        .iter()
        .filter_map(|holder| text(field(response, holder)?, "accessKeyId"))
        .find_map(|key| CredentialId::aws_access_key(key).ok())
}

fn resources(record: &Value) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut add = |text: &str| {
        let text = capped(text);
        if !text.is_empty() && found.len() < MAX_RESOURCES && !found.contains(&text) {
            found.push(text);
        }
    };
    let listed = field(record, "resources").and_then(Value::as_array);
    for resource in listed.into_iter().flatten() {
        if let Some(arn) = text(resource, "ARN") {
            add(arn);
        }
    }
    if let Some(parameters) = field(record, "requestParameters") {
        for name in RESOURCE_PARAMETERS {
            match field(parameters, name) {
                Some(Value::String(one)) => add(one),
                Some(Value::Array(many)) => {
                    many.iter().filter_map(Value::as_str).for_each(&mut add);
                }
                _ => {}
            }
        }
    }
    found
}

fn is_unknown_version(version: &str) -> bool {
    let major = version.split('.').next().and_then(|m| m.parse().ok());
    major.is_none_or(|major: u32| major > KNOWN_MAJOR)
}
