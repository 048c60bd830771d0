//! CloudTrail's delivery: turns what the edge saw into records and writes them as AWS delivers them,
//! a gzip file of `{"Records":[...]}` whose name tells account, region and minute.
//!
//! The fields are those of CloudTrail's record contents, version 1.11. Event times have whole seconds, as
//! AWS writes them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::bait::random;
use super::stand_in::edge::Entry;

/// The IAM user whose key the lab uses.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Twelve digits.
    pub account: String,
    /// `AIDA...`.
    pub principal_id: String,
    /// The user's name.
    pub user: String,
}

/// The records for these requests, in their order. Requests without a key or of an unknown kind (a
/// browser at the door) leave none, as with AWS.
#[must_use]
pub fn records(entries: &[Entry], principal: &Principal) -> Vec<Value> {
    entries
        .iter()
        .filter_map(|entry| record(entry, principal))
        .collect()
}

fn record(entry: &Entry, principal: &Principal) -> Option<Value> {
    let key = entry.access_key_id.as_deref()?;
    let name = event_name(entry)?;
    let is_s3 = entry.service == "s3";
    let agent = if is_s3 {
        format!("[{}]", entry.user_agent)
    } else {
        entry.user_agent.clone()
    };
    let mut record = json!({
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "IAMUser",
            "principalId": principal.principal_id,
            "arn": format!("arn:aws:iam::{}:user/{}", principal.account, principal.user),
            "accountId": principal.account,
            "accessKeyId": key,
            "userName": principal.user,
        },
        "eventTime": entry.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "eventSource": format!("{}.amazonaws.com", entry.service),
        "eventName": name,
        "awsRegion": entry.region,
        "sourceIPAddress": entry.peer.address.to_string(),
        "userAgent": agent,
        "requestParameters": if is_s3 { json!({"Host": entry.host}) } else { Value::Null },
        "responseElements": Value::Null,
        "requestID": entry.request_id,
        "eventID": Uuid::new_v4().to_string(),
        "readOnly": true,
        "eventType": "AwsApiCall",
        "managementEvent": true,
        "recipientAccountId": principal.account,
        "eventCategory": "Management",
        "tlsDetails": {
            "tlsVersion": entry.peer.tls_version,
            "cipherSuite": entry.peer.cipher_suite,
            "clientProvidedHostHeader": entry.host,
        },
    });
    if let (true, Some(fields)) = (is_s3, record.as_object_mut()) {
        fields.insert(
            "additionalEventData".into(),
            json!({"SignatureVersion": "SigV4", "CipherSuite": entry.peer.cipher_suite,
                "AuthenticationMethod": "AuthHeader"}),
        );
    }
    if let (400.., Some(fields)) = (entry.status, record.as_object_mut()) {
        fields.insert("errorCode".into(), "AccessDenied".into());
    }
    Some(record)
}

fn event_name(entry: &Entry) -> Option<String> {
    if let Some(action) = &entry.action {
        return Some(action.clone());
    }
    let path = entry.target.split('?').next().unwrap_or_default();
    match (entry.service.as_str(), entry.method.as_str(), path) {
        ("s3", "GET", "/") => Some("ListBuckets".to_owned()),
        ("s3", "GET", _) => Some("ListObjects".to_owned()),
        _ => None,
    }
}

/// Delivers records into a watched folder: written under a temporary name, then renamed, so that the
/// file appears whole. Returns its path and the moment it appeared.
///
/// # Errors
/// When the folder cannot be written.
pub fn deliver(dir: &Path, account: &str, records: &[Value]) -> Result<(PathBuf, Timestamp)> {
    let bytes = gzip(&serde_json::to_vec(&json!({"Records": records}))?)?;
    let path = dir.join(file_name(account)?);
    let temporary = path.with_extension("gz.part");
    let mut file = File::create(&temporary)
        .with_context(|| format!("delivering to {}", temporary.display()))?;
    file.write_all(&bytes)?;
    drop(file);
    let at = Timestamp::now();
    fs::rename(&temporary, &path)?;
    Ok((path, at))
}

/// A file name as CloudTrail makes it:
/// `<account>_CloudTrail_<region>_<YYYYMMDDTHHmmZ>_<16 characters>.json.gz`.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn file_name(account: &str) -> Result<String> {
    let alphabet: Vec<char> = ('0'..='9').chain('A'..='Z').chain('a'..='z').collect();
    let tail: String = random(16)?
        .iter()
        .filter_map(|b| alphabet.get(usize::from(*b) % alphabet.len()))
        .collect();
    let minute = Timestamp::now().strftime("%Y%m%dT%H%MZ");
    Ok(format!(
        "{account}_CloudTrail_us-east-1_{minute}_{tail}.json.gz"
    ))
}

/// Compresses as gzip.
///
/// # Errors
/// Never in practice: the target is memory.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::Peer;
    use super::*;

    fn entry(service: &str, method: &str, target: &str, action: Option<&str>) -> Entry {
        Entry {
            at: "2026-11-23T20:40:07.891Z".parse().unwrap(),
            peer: Peer {
                address: [198, 51, 100, 23].into(),
                port: 40000,
                server_name: Some("s3.us-east-1.amazonaws.com".into()),
                tls_version: "TLSv1.3".into(),
                cipher_suite: "TLS_AES_256_GCM_SHA384".into(),
            },
            host: "s3.us-east-1.amazonaws.com".into(),
            method: method.into(),
            target: target.into(),
            user_agent: "aws-cli/1.46.3".into(),
            access_key_id: Some("AKIA0000000000000000".into()),
            region: "us-east-1".into(),
            service: service.into(),
            action: action.map(str::to_owned),
            status: 200,
            request_id: "r".into(),
            caller_arn: None,
        }
    }

    fn principal() -> Principal {
        Principal {
            account: "111122223333".into(),
            principal_id: "AIDAX".into(),
            user: "dana".into(),
        }
    }

    #[test]
    fn a_record_says_what_the_edge_saw() {
        let made = records(
            &[entry("s3", "GET", "/?x-id=ListBuckets", None)],
            &principal(),
        );
        assert_eq!(made[0]["eventName"], "ListBuckets");
        assert_eq!(made[0]["eventTime"], "2026-11-23T20:40:07Z");
        assert_eq!(made[0]["sourceIPAddress"], "198.51.100.23");
        assert_eq!(
            made[0]["tlsDetails"]["clientProvidedHostHeader"],
            "s3.us-east-1.amazonaws.com"
        );
    }

    #[test]
    fn each_kind_of_request_gets_its_event_name() {
        for (service, method, target, action, name) in [
            (
                "sts",
                "POST",
                "/",
                Some("GetCallerIdentity"),
                Some("GetCallerIdentity"),
            ),
            ("s3", "GET", "/", None, Some("ListBuckets")),
            (
                "s3",
                "GET",
                "/artifacts?list-type=2",
                None,
                Some("ListObjects"),
            ),
            ("s3", "PUT", "/artifacts", None, None),
        ] {
            let made = event_name(&entry(service, method, target, action));
            assert_eq!(made.as_deref(), name, "{service} {method} {target}");
        }
    }
}
