//! Records asked of a provider's REST API.
//!
//! - `profile` says, as data, how each provider's log is asked for: parameters, paging, times;
//! - `client` makes requests and obeys rate limits;
//! - `worker` goes from page to page and keeps the position.

mod client;
mod profile;
mod worker;

use std::path::PathBuf;

use keytrail_sources::SourceKind;
use serde::{Deserialize, Serialize};

#[cfg(feature = "bucket")]
pub(super) use client::small_file;
pub(super) use client::tls;
#[cfg(feature = "kafka")]
pub(super) use client::{RequestError, secret};
#[cfg(feature = "aws")]
pub(super) use profile::escaped;
pub use worker::run;

/// `[source.poll]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PollConfig {
    /// The API's base URL: `https://acme.okta.com`, `https://api.github.com`, ...
    pub url: String,
    /// What to read there, for providers with several logs: `orgs/acme` or `enterprises/acme`
    /// (GitHub), `groups/12` (GitLab; the instance's without), the tenant (Workday), the report
    /// (Graph: `auditLogs/signIns`), the event type (Salesforce: `ApiEvent`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// A file with the API token; read before every request, so that it can be renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// How to get a token by OAuth 2.0, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OauthConfig>,
    /// Seconds between two looks when there is nothing new (default 30, at least 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<u64>,
    /// Seconds that are read again behind the newest event, since providers deliver late (default:
    /// the provider's own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_seconds: Option<u64>,
    /// How far back the first look goes, hours (default 24).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_hours: Option<u64>,
    /// Records a page (default: the provider's largest).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// PEM file with the authorities that sign the provider's certificate (default: the system's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// `[source.poll.oauth]`: the client credentials grant (RFC 6749, 4.4), or a refresh token (6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthConfig {
    /// The token endpoint.
    pub token_url: String,
    /// The client's id.
    pub client_id: String,
    /// A file with its secret.
    pub client_secret_file: PathBuf,
    /// A file with a refresh token, for providers without the client credentials grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_file: Option<PathBuf>,
    /// The scope to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

impl PollConfig {
    /// Checks it for a source of `kind`; gives what is shown as its place.
    ///
    /// # Errors
    /// What is wrong, and how to mend it.
    pub fn check(&self, kind: &str) -> Result<String, String> {
        let profile = SourceKind::named(kind)
            .and_then(|kind| profile::of(kind, self.scope.as_deref()))
            .ok_or_else(|| {
                format!(
                    "{kind} cannot be polled; via = \"poll\" knows {}",
                    profile::known()
                )
            })?;
        let origin = client::origin(&self.url)
            .ok_or_else(|| format!("`poll.url` {:?} is no URL: write `https://...`", self.url))?;
        let plain = [
            Some(&self.url),
            self.oauth.as_ref().map(|oauth| &oauth.token_url),
        ]
        .into_iter()
        .flatten()
        .find(|url| !is_safe(url));
        if let Some(url) = plain {
            return Err(format!(
                "`{url}`: the token would go over the network in the clear; use https"
            ));
        }
        if profile.scope.is_none() && self.scope.is_none() {
            return Err("`poll.scope` must say what to read (`orgs/acme`, a tenant)".to_owned());
        }
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
        if self
            .scope
            .as_deref()
            .is_some_and(|scope| !scope.bytes().all(good))
        {
            return Err("`poll.scope` may hold letters, digits and `-_./` only".to_owned());
        }
        if self.token_file.is_some() == self.oauth.is_some() {
            return Err(
                "give either `poll.token_file` or a table `[source.poll.oauth]`".to_owned(),
            );
        }
        if self.page_size == Some(0) {
            return Err("`poll.page_size` must be at least 1".to_owned());
        }
        Ok(origin)
    }
}

/// TLS, or not over the network.
pub(super) fn is_safe(url: &str) -> bool {
    let host = client::origin(url).unwrap_or_default();
    host.starts_with("https://")
        || ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"]
            .iter()
            .any(|loopback| host.starts_with(loopback))
}
