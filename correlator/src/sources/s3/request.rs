//! Signed requests to S3 and SQS.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::announced::Object;
use crate::clock;
use crate::sources::bucket::{AwsKeys, KeysError};
use crate::sources::config::S3Config;
use crate::sources::poll::tls;

/// Largest object read.
const MAX_OBJECT: u64 = 256 << 20;
/// A request takes at most so long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request failed.
#[derive(Debug, Error)]
pub(super) enum AwsError {
    /// No keys.
    #[error(transparent)]
    NoKeys(#[from] KeysError),
    /// It could not be signed.
    #[error("a request to {0} cannot be signed: {1}")]
    Signing(&'static str, String),
    /// No answer.
    #[error("{0}: {1}")]
    Failed(&'static str, String),
}

/// Asks AWS, or what stands in for it.
pub(super) struct Aws<'a> {
    config: &'a S3Config,
    credentials: Credentials,
    agent: ureq::Agent,
}

impl fmt::Debug for Aws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aws({})", self.config.queue_url)
    }
}

impl<'a> Aws<'a> {
    pub(super) fn new(config: &'a S3Config) -> Result<Self, AwsError> {
        let keys = AwsKeys::find(&config.region)?;
        let tls =
            tls(None, &config.queue_url).map_err(|e| AwsError::Failed("TLS", e.to_string()))?;
        Ok(Self {
            config,
            credentials: Credentials::new(keys.id, keys.secret, keys.token, None, "keytrail"),
            agent: ureq::Agent::config_builder()
                .tls_config(tls)
                .http_status_as_error(false)
                .timeout_global(Some(TIMEOUT))
                .max_redirects(0)
                .build()
                .into(),
        })
    }

    /// One call of SQS's JSON protocol.
    pub(super) fn queue<T: DeserializeOwned>(
        &self,
        action: &str,
        body: &serde_json::Value,
    ) -> Result<T, AwsError> {
        let failed = |e: String| AwsError::Failed("SQS", e);
        let body = body.to_string();
        let target = format!("AmazonSQS.{action}");
        let fixed = [
            ("content-type", "application/x-amz-json-1.0"),
            ("x-amz-target", target.as_str()),
        ];
        let url = &self.config.queue_url;
        let signed = self.signed("sqs", "POST", url, &fixed, body.as_bytes())?;
        let mut request = self.agent.post(url);
        for (name, value) in fixed {
            request = request.header(name, value);
        }
        for (name, value) in &signed {
            request = request.header(name, value);
        }
        let mut response = request
            .send(body.as_bytes())
            .map_err(|e| failed(e.to_string()))?;
        let status = response.status();
        let text = response
            .body_mut()
            .read_to_string()
            .map_err(|e| failed(e.to_string()))?;
        if !status.is_success() {
            let told: String = text.chars().take(300).collect();
            return Err(failed(format!("{action} was answered {status}: {told}")));
        }
        // `DeleteMessage` has no answer.
        let text = if text.trim().is_empty() { "{}" } else { &text };
        serde_json::from_str(text).map_err(|e| failed(format!("{action}: {e}")))
    }

    /// An object's bytes; none when there is no such object.
    pub(super) fn object(&self, object: &Object) -> Result<Option<Vec<u8>>, AwsError> {
        let failed = |e: String| AwsError::Failed("S3", e);
        let key: Vec<String> = object
            .key
            .split('/')
            .map(super::super::poll::escaped)
            .collect();
        let key = key.join("/");
        let url = match &self.config.endpoint {
            Some(endpoint) => {
                format!("{}/{}/{key}", endpoint.trim_end_matches('/'), object.bucket)
            }
            None => format!(
                "https://{}.s3.{}.amazonaws.com/{key}",
                object.bucket, self.config.region
            ),
        };
        let signed = self.signed("s3", "GET", &url, &[], b"")?;
        let mut request = self.agent.get(&url);
        for (name, value) in &signed {
            request = request.header(name, value);
        }
        let mut response = request.call().map_err(|e| failed(e.to_string()))?;
        let status = response.status();
        if status == ureq::http::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(failed(format!("an object was answered {status}")));
        }
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_OBJECT)
            .read_to_vec();
        body.map(Some).map_err(|e| failed(e.to_string()))
    }

    fn signed(
        &self,
        service: &'static str,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Vec<(String, String)>, AwsError> {
        let wrong = |e: &dyn fmt::Display| AwsError::Signing(service, e.to_string());
        let mut settings = SigningSettings::default();
        if service == "s3" {
            // S3 signs the path as it is sent, and wants the body's hash in a header.
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let identity = self.credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.config.region)
            .name(service)
            .time(SystemTime::from(clock::now()))
            .settings(settings)
            .build()
            .map_err(|e| wrong(&e))?
            .into();
        let request = SignableRequest::new(
            method,
            url,
            headers.iter().copied(),
            SignableBody::Bytes(body),
        )
        .map_err(|e| wrong(&e))?;
        let (instructions, _) = sign(request, &parameters)
            .map_err(|e| wrong(&e))?
            .into_parts();
        Ok(instructions
            .headers()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }
}
