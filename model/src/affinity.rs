//! Affinity: which destinations a credential is meant for.

use crate::consumption::Consumption;
use crate::credential::{CredentialId, CredentialKind};

/// Server-name suffixes of each kind's provider, each to be matched on a label boundary.
/// Source: the credential catalogue's affinity section (provider documentation).
fn suffixes(kind: CredentialKind) -> &'static [&'static str] {
    match kind {
        CredentialKind::AwsAccessKey => AWS,
        CredentialKind::GithubToken => GITHUB,
        CredentialKind::GcpServiceAccountKey => GOOGLE,
        CredentialKind::EntraToken
        | CredentialKind::EntraSession
        | CredentialKind::EntraClientCredential => MICROSOFT,
        CredentialKind::OktaApiToken => OKTA,
        CredentialKind::GitlabToken => &["gitlab.com"],
        // Where it is found says what it is for (`Exposure::destinations`).
        CredentialKind::PypiToken
        | CredentialKind::KubernetesToken
        | CredentialKind::X509Certificate
        | CredentialKind::SshKey
        | CredentialKind::VaultToken
        | CredentialKind::Jwt
        | CredentialKind::Session
        | CredentialKind::Principal
        | CredentialKind::PublicKey
        | CredentialKind::CredentialStore
        | CredentialKind::KeyedHash => &[],
    }
}

const AWS: &[&str] = &["amazonaws.com", "amazonaws.com.cn", "api.aws", "aws.dev"];
const GITHUB: &[&str] = &[
    "github.com",
    "githubusercontent.com",
    "ghcr.io",
    "githubcopilot.com",
    "ghe.com",
];
const GOOGLE: &[&str] = &["googleapis.com", "gcr.io", "pkg.dev", "google.com"];
const MICROSOFT: &[&str] = &[
    "microsoftonline.com",
    "microsoft.com",
    "azure.com",
    "azure.net",
    "windows.net",
    "azurecr.io",
    "microsoftonline.us",
    "azure.us",
    "azure.cn",
];
const OKTA: &[&str] = &["okta.com", "oktapreview.com", "okta-emea.com"];

/// Suffixes for a scope: the provider of a session or principal, the type of a keyed hash.
/// Source: each vendor's API reference (base address).
fn scope_suffixes(scope: &str) -> &'static [&'static str] {
    match scope {
        "aws" | "aws-identity-center" | "aws-imds" | "bedrock-api-key" => AWS,
        "github" => GITHUB,
        "gcp" | "google" | "google-api-key" | "google-oauth" | "google-workspace"
        | "gemini-api-key" => GOOGLE,
        "azure" | "entra" | "azure-storage-key" | "azure-client-secret" => MICROSOFT,
        "okta" => OKTA,
        "gitlab" | "gitlab-token" => &["gitlab.com"],
        "anthropic" | "anthropic-api-key" | "claude-oauth" => {
            &["anthropic.com", "claude.ai", "claude.com"]
        }
        "openai" | "openai-api-key" | "codex-oauth" => &["openai.com", "chatgpt.com"],
        "salesforce" => &["salesforce.com", "force.com"],
        "workday" => &["workday.com", "myworkday.com"],
        "slack" | "slack-token" => &["slack.com"],
        "atlassian" | "atlassian-token" => &["atlassian.com", "atlassian.net"],
        "cloudflare" | "cloudflare-token" => &["cloudflare.com"],
        "snowflake" => &["snowflakecomputing.com", "snowflake.com"],
        "databricks" | "databricks-token" => &["databricks.com", "azuredatabricks.net"],
        "huggingface-token" => &["huggingface.co", "hf.co"],
        "stripe-key" => &["stripe.com"],
        "sendgrid-key" => &["sendgrid.com"],
        "twilio-key" => &["twilio.com"],
        "datadog-key" => &["datadoghq.com", "datadoghq.eu"],
        "digitalocean-token" => &["digitalocean.com"],
        "groq-api-key" => &["groq.com"],
        "openrouter-api-key" => &["openrouter.ai"],
        "terraform-token" => &["terraform.io"],
        "vercel-token" => &["vercel.com"],
        _ => &[],
    }
}

/// True when `name` is `suffix` or lies under it.
#[must_use]
pub fn under(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// True when `name` is a host of the provider that issued this credential.
#[must_use]
pub fn is_affine(credential: &CredentialId, name: &str) -> bool {
    let of_scope = credential.scope().map_or(&[] as &[_], scope_suffixes);
    suffixes(credential.kind())
        .iter()
        .chain(of_scope)
        .any(|suffix| under(name, suffix))
}

/// True when a connection to `name` can have carried `usage`, as far as names go.
#[must_use]
pub fn serves(name: &str, usage: &Consumption) -> bool {
    if let Some(asked) = &usage.server_name {
        // The provider repeats the name that the client asked for: only that one fits.
        return asked == name;
    }
    if usage.endpoints.is_empty() && is_of_aws(usage) {
        return aws_endpoint_serves(name, &usage.service, usage.region.as_deref());
    }
    if !names_tell(usage) {
        return true;
    }
    usage.endpoints.iter().any(|suffix| under(name, suffix))
}

/// False for a self-hosted service whose name nobody told: names then prove nothing, for or against.
#[must_use]
pub fn names_tell(usage: &Consumption) -> bool {
    usage.server_name.is_some() || !usage.endpoints.is_empty() || is_of_aws(usage)
}

fn is_of_aws(usage: &Consumption) -> bool {
    usage.service.ends_with(".amazonaws.com")
        || usage.credential.kind() == CredentialKind::AwsAccessKey
        || usage
            .credential
            .scope()
            .is_some_and(|scope| scope.starts_with("aws"))
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
        let aws = CredentialId::aws_access_key("AKIAIOSFODNN7EXAMPLE").unwrap();
        let github = CredentialId::github_token(b"ghp_test");
        let slack: CredentialId = "keyed-hash:slack-token/00ff".parse().unwrap();
        for (id, name, expected) in [
            (&aws, "s3.us-east-1.amazonaws.com", true),
            (&aws, "bucket.s3.amazonaws.com", true),
            (&aws, "evilamazonaws.com", false),
            (&aws, "amazonaws.com.evil.example", false),
            (&github, "api.github.com", true),
            (&github, "github.com", true),
            (&github, "github.com.evil.example", false),
            (&github, "s3.amazonaws.com", false),
            (&slack, "files.slack.com", true),
            (&slack, "slack.com.evil.example", false),
        ] {
            assert_eq!(is_affine(id, name), expected, "{id} {name}");
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

    #[test]
    fn a_use_is_served_by_its_names() {
        let aws = "aws-access-key:AKIAIOSFODNN7EXAMPLE";
        let vault = "vault-token:hmac-sha256:00ff";
        for (credential, service, endpoints, name, expected) in [
            (aws, "sts.amazonaws.com", &[][..], "sts.amazonaws.com", true),
            (aws, "sts", &[], "s3.amazonaws.com", false),
            (
                vault,
                "vault",
                &["vault.corp.example"],
                "vault.corp.example",
                true,
            ),
            (
                vault,
                "vault",
                &["vault.corp.example"],
                "evil.example",
                false,
            ),
            // Nobody told where this Vault is.
            (vault, "vault", &[], "vault.corp.example", true),
            (
                "principal:aws/x",
                "bedrock.amazonaws.com",
                &[],
                "evil.example",
                false,
            ),
        ] {
            let id = crate::ids::RecordId("x:1".to_owned());
            let mut usage =
                Consumption::new(id, credential.parse().unwrap(), jiff::Timestamp::UNIX_EPOCH);
            usage.service = service.to_owned();
            usage.endpoints = endpoints.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(
                serves(name, &usage),
                expected,
                "{credential} {service} {name}"
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
