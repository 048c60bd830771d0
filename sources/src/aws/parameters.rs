//! Requests and responses: names of resources and ids of keys, and nothing else.

use std::borrow::Cow;
use std::fmt;

use keytrail_model::credential::CredentialId;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::record::{Maybe, Text};
use crate::doc::Doc;

/// Members of a request that name a resource; nothing else there is kept.
const RESOURCES: [&str; 40] = [
    "bucketName",
    "key",
    "secretId",
    "secretIdList",
    "keyId",
    "functionName",
    "roleArn",
    "roleName",
    "tableName",
    "instanceId",
    "userName",
    "groupName",
    "policyArn",
    "modelId",
    "agentId",
    "queueUrl",
    "topicArn",
    "clusterName",
    "clusterArn",
    "cluster",
    "dBInstanceIdentifier",
    "dBClusterIdentifier",
    "stackName",
    "trailName",
    "logGroupName",
    "snapshotId",
    "volumeId",
    "imageId",
    "keyName",
    "repositoryName",
    "endpointName",
    "stateMachineArn",
    "instanceProfileName",
    "serialNumber",
    "detectorId",
    "groupId",
    "name",
    "names",
    "resourceArn",
    "resourceId",
];
/// EC2's way of listing: `instancesSet.items[].instanceId`.
const SETS: [&str; 3] = ["instancesSet", "imagesSet", "snapshotSet"];

/// What is taken from a request.
#[derive(Debug, Default)]
pub(super) struct Request<'a> {
    /// By the order of the table above, not of the request.
    pub(super) resources: Vec<(usize, Cow<'a, str>)>,
    /// The key that the request is about.
    pub(super) access_key: Option<Cow<'a, str>>,
    /// `UpdateAccessKey` and its like: the new state.
    pub(super) inactive: bool,
    /// The same: it is in use (again).
    pub(super) active: bool,
    /// The role to be assumed.
    pub(super) role: Option<Cow<'a, str>>,
}

impl<'a> Request<'a> {
    pub(super) fn read(raw: Option<&'a RawValue>) -> Self {
        raw.filter(|raw| raw.get().starts_with('{'))
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Request<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RequestVisitor)
    }
}

struct RequestVisitor;

impl<'de> Visitor<'de> for RequestVisitor {
    type Value = Request<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("requestParameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Request<'de>, A::Error> {
        let mut request = Request::default();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if SETS.contains(&name.as_ref()) {
                let set: Doc<'de> = map.next_value()?;
                for item in set.get("items").items() {
                    for id in ["instanceId", "imageId", "snapshotId"] {
                        if let Some(id) = item.get(id).text() {
                            request
                                .resources
                                .push((RESOURCES.len(), Cow::Owned(id.to_owned())));
                        }
                    }
                }
            } else if let Some(rank) = RESOURCES.iter().position(|known| *known == name) {
                request.add(rank, &name, map.next_value()?);
            } else if name == "accessKeyId" {
                request.access_key = text(map.next_value()?);
            } else if name == "status" {
                let status = text(map.next_value()?);
                let is = |word: &str| {
                    status
                        .as_ref()
                        .is_some_and(|s| s.eq_ignore_ascii_case(word))
                };
                (request.inactive, request.active) = (is("inactive"), is("active"));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        request.resources.sort_by_key(|(rank, _)| *rank);
        Ok(request)
    }
}

impl<'a> Request<'a> {
    fn add(&mut self, rank: usize, name: &str, value: Doc<'a>) {
        match value {
            Doc::Text(one) => {
                if name == "roleArn" {
                    self.role = Some(one.clone());
                }
                self.resources.push((rank, one));
            }
            Doc::List(many) => {
                let names = many.into_iter().filter_map(text);
                self.resources.extend(names.map(|name| (rank, name)));
            }
            _ => {}
        }
    }
}

fn text(value: Doc<'_>) -> Option<Cow<'_, str>> {
    match value {
        Doc::Text(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// What is taken from a response.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Response<'a> {
    #[serde(borrow)]
    credentials: Maybe<Key<'a>>,
    #[serde(borrow)]
    access_key: Maybe<Key<'a>>,
    #[serde(borrow)]
    role_credentials: Maybe<Key<'a>>,
    #[serde(borrow, rename = "ConsoleLogin")]
    console_login: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Key<'a> {
    #[serde(borrow, alias = "AccessKeyId")]
    access_key_id: Text<'a>,
}

/// The id of a key that the call made: `AssumeRole` and its like, `CreateAccessKey`,
/// `GetRoleCredentials`.
pub(super) fn minted(response: Option<&RawValue>) -> Option<CredentialId> {
    // Most responses hold no key, and some are long: look before reading.
    let may_hold =
        |raw: &&RawValue| memchr::memmem::find(raw.get().as_bytes(), b"cessKey").is_some();
    let raw = response.filter(may_hold)?;
    let response: Response<'_> = serde_json::from_str(raw.get()).ok()?;
    [
        &response.credentials.access_key_id,
        &response.access_key.access_key_id,
        &response.role_credentials.access_key_id,
    ]
    .into_iter()
    .filter_map(Text::get)
    .find_map(|key| CredentialId::aws_access_key(key).ok())
}

/// True when a console sign-in did not succeed.
pub(super) fn sign_in_failed(response: Option<&RawValue>) -> bool {
    let read = response.and_then(|raw| serde_json::from_str::<Response<'_>>(raw.get()).ok());
    read.is_some_and(|response| response.console_login.get() == Some("Failure"))
}

/// True when a Bedrock API key was presented, whose id is not logged.
pub(super) fn is_bearer_call(additional: Option<&RawValue>) -> bool {
    additional.is_some_and(|raw| {
        raw.get().contains("callWithBearerToken")
            && serde_json::from_str::<Doc<'_>>(raw.get())
                .is_ok_and(|doc| doc.get("callWithBearerToken").truth() == Some(true))
    })
}

/// `resources[].ARN`.
pub(super) fn listed(resources: Option<&RawValue>) -> Vec<String> {
    let Some(raw) = resources.filter(|raw| raw.get().starts_with('[')) else {
        return Vec::new();
    };
    let Ok(doc) = serde_json::from_str::<Doc<'_>>(raw.get()) else {
        return Vec::new();
    };
    let arns = doc.items().iter().take(crate::make::MAX_RESOURCES);
    arns.filter_map(|item| Some(item.get("ARN").text()?.to_owned()))
        .collect()
}
