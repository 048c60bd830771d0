//! Affinity: which destinations a credential is meant for.

use crate::credential::CredentialKind;

/// Server-name suffixes of each kind's provider, each to be matched on a label boundary.
/// Source: the credential catalogue's affinity section (provider documentation).
fn suffixes(kind: CredentialKind) -> &'static [&'static str] {
    match kind {
        CredentialKind::AwsAccessKey => {
            &["amazonaws.com", "amazonaws.com.cn", "api.aws", "aws.dev"]
        }
        CredentialKind::GithubToken => &[
            "github.com",
            "githubusercontent.com",
            "ghcr.io",
            "githubcopilot.com",
            "ghe.com",
        ],
    }
}

/// True when `name` is a host of the provider that issued this kind of credential.
#[must_use]
pub fn is_affine(kind: CredentialKind, name: &str) -> bool {
    suffixes(kind).iter().any(|suffix| {
        name.strip_suffix(suffix)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// Service and region of an AWS endpoint name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsEndpoint {
    /// `s3`, `sts`, ...: the first label of CloudTrail's `eventSource`.
    pub service: String,
    /// `us-east-1`, or `None` for a global endpoint.
    pub region: Option<String>,
}

/// Takes an AWS endpoint name apart.
///
/// Forms (AWS General Reference, "Service endpoints"): `service.region.amazonaws.com`,
/// `service.amazonaws.com`, `service.region.api.aws`, `bucket.s3.region.amazonaws.com`,
/// `service-fips.region.amazonaws.com`, `service.dualstack.region.amazonaws.com`,
/// `vpce-*.service.region.vpce.amazonaws.com`, and the old `s3-region.amazonaws.com`.
#[must_use]
pub fn aws_endpoint(name: &str) -> Option<AwsEndpoint> {
    let rest = ["amazonaws.com.cn", "amazonaws.com", "api.aws"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))?
        .strip_suffix('.')?;
    let mut labels: Vec<&str> = rest.split('.').collect();
    labels.retain(|label| !matches!(*label, "dualstack" | "vpce"));
    let region_at = labels.iter().rposition(|label| is_region(label));
    let (service, region) = match region_at {
        Some(0) => return None,
        Some(at) => (
            labels.get(at - 1).copied()?,
            labels.get(at).map(|r| (*r).to_owned()),
        ),
        None => (labels.last().copied()?, None),
    };
    let service = service.strip_suffix("-fips").unwrap_or(service);
    if let Some(region) = service
        .strip_prefix("s3-")
        .filter(|region| is_region(region))
    {
        return Some(AwsEndpoint {
            service: "s3".to_owned(),
            region: Some(region.to_owned()),
        });
    }
    Some(AwsEndpoint {
        service: service.to_owned(),
        region,
    })
}

/// `us-east-1`, `us-gov-west-1`, `ap-southeast-2`, `mx-central-1` ...
fn is_region(label: &str) -> bool {
    let parts: Vec<&str> = label.split('-').collect();
    (3..=4).contains(&parts.len())
        && parts
            .first()
            .is_some_and(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_lowercase()))
        && parts
            .last()
            .is_some_and(|p| p.len() == 1 && p.bytes().all(|b| b.is_ascii_digit()))
}

/// True when a connection to the AWS endpoint `name` can have carried a call that CloudTrail
/// records under `event_source` in `region`.
///
/// Global services answer on one endpoint and are recorded in one region, so a name without a
/// region, or a record without one, matches any. Endpoint prefixes that differ from the event
/// source (`email` is recorded as `ses`) are in the table below; an unknown prefix matches by name only.
#[must_use]
pub fn aws_endpoint_serves(name: &str, event_source: &str, region: Option<&str>) -> bool {
    let Some(endpoint) = aws_endpoint(name) else {
        return false;
    };
    let source = event_source
        .strip_suffix(".amazonaws.com")
        .unwrap_or(event_source);
    let same_service =
        endpoint.service == source || aliases(source).contains(&endpoint.service.as_str());
    let same_region = match (&endpoint.region, region) {
        (Some(a), Some(b)) => a == b,
        (None, _) | (_, None) => true,
    };
    same_service && same_region
}

/// Endpoint prefixes under which a CloudTrail event source is also reached.
/// Source: AWS General Reference, "Service endpoints and quotas".
fn aliases(event_source: &str) -> &'static [&'static str] {
    match event_source {
        "monitoring" => &["monitoring", "cloudwatch"],
        "ses" => &["email", "email-smtp"],
        "bedrock" => &[
            "bedrock",
            "bedrock-runtime",
            "bedrock-agent",
            "bedrock-agent-runtime",
        ],
        "ecr" => &["api.ecr", "ecr", "dkr"],
        "signin" => &["signin", "console"],
        "s3" => &["s3", "s3-control", "s3-accesspoint", "s3express-control"],
        "sso" => &["portal", "sso", "oidc"],
        "states" => &["states", "sync-states"],
        "elasticloadbalancing" => &["elasticloadbalancing", "elb"],
        "logs" => &["logs", "streaming-logs"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn affinity_needs_a_label_boundary() {
        use CredentialKind::{AwsAccessKey, GithubToken};
        for (kind, name, expected) in [
            (AwsAccessKey, "s3.us-east-1.amazonaws.com", true),
            (AwsAccessKey, "bucket.s3.amazonaws.com", true),
            (AwsAccessKey, "evilamazonaws.com", false),
            (AwsAccessKey, "amazonaws.com.evil.example", false),
            (GithubToken, "api.github.com", true),
            (GithubToken, "github.com", true),
            (GithubToken, "github.com.evil.example", false),
            (GithubToken, "s3.amazonaws.com", false),
        ] {
            assert_eq!(is_affine(kind, name), expected, "{kind} {name}");
        }
    }

    #[test]
    fn endpoint_names() {
        for (name, expected) in [
            (
                "s3.us-east-1.amazonaws.com",
                Some(("s3", Some("us-east-1"))),
            ),
            (
                "my.bucket.s3.eu-west-3.amazonaws.com",
                Some(("s3", Some("eu-west-3"))),
            ),
            (
                "s3.dualstack.us-west-2.amazonaws.com",
                Some(("s3", Some("us-west-2"))),
            ),
            (
                "s3-us-west-2.amazonaws.com",
                Some(("s3", Some("us-west-2"))),
            ),
            ("sts.amazonaws.com", Some(("sts", None))),
            (
                "kms-fips.us-gov-west-1.amazonaws.com",
                Some(("kms", Some("us-gov-west-1"))),
            ),
            (
                "vpce-0a-x.sts.us-east-1.vpce.amazonaws.com",
                Some(("sts", Some("us-east-1"))),
            ),
            (
                "lambda.us-east-1.api.aws",
                Some(("lambda", Some("us-east-1"))),
            ),
            ("us-east-1.amazonaws.com", None),
            ("example.com", None),
            ("amazonaws.com", None),
        ] {
            let expected = expected.map(|(service, region)| AwsEndpoint {
                service: service.to_owned(),
                region: region.map(str::to_owned),
            });
            assert_eq!(aws_endpoint(name), expected, "{name}");
        }
    }

    #[test]
    fn a_record_belongs_to_an_endpoint() {
        for (name, source, region, expected) in [
            (
                "s3.us-east-1.amazonaws.com",
                "s3.amazonaws.com",
                Some("us-east-1"),
                true,
            ),
            (
                "s3.us-east-1.amazonaws.com",
                "s3.amazonaws.com",
                Some("eu-west-1"),
                false,
            ),
            (
                "sts.amazonaws.com",
                "sts.amazonaws.com",
                Some("us-east-1"),
                true,
            ),
            (
                "s3.us-east-1.amazonaws.com",
                "sts.amazonaws.com",
                Some("us-east-1"),
                false,
            ),
            (
                "email.us-east-1.amazonaws.com",
                "ses.amazonaws.com",
                Some("us-east-1"),
                true,
            ),
        ] {
            assert_eq!(
                aws_endpoint_serves(name, source, region),
                expected,
                "{name} {source}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_name_is_taken_apart_without_panic(name in "[a-z0-9.-]{0,60}(amazonaws.com|api.aws)?") {
            if let Some(endpoint) = aws_endpoint(&name) {
                prop_assert!(name.contains(&endpoint.service));
            }
        }
    }
}
