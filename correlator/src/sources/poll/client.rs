//! One request: the token, the rate limit, the answer.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use thiserror::Error;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::profile::{Auth, Profile};
use super::{OauthConfig, PollConfig};
use crate::clock;
use crate::sources::tls::SYSTEM_CA;

/// Largest page or file read.
const MAX_BODY: u64 = 256 << 20;
/// Largest file with a token or authorities.
const MAX_FILE: u64 = 4 << 20;
/// A request takes at most so long.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Waited when a provider says "slow down" and not for how long.
const SLOW_DOWN: Duration = Duration::from_secs(60);
/// Waited at most at a provider's word.
const MAX_WAIT: Duration = Duration::from_secs(3600);
/// A token is renewed so long before it ends.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// Why a request brought nothing.
#[derive(Debug, Error)]
pub(in crate::sources) enum RequestError {
    /// Too many requests: not before this much time has passed.
    #[error("the provider limits the rate: it answers again in {} s", .0.as_secs())]
    Limited(Duration),
    /// The position is not known any more, or never was.
    #[error("the provider refused the request with {0}")]
    Refused(StatusCode),
    /// The token is not good.
    #[error("the provider refused the token ({0}): renew it, and check what it may read")]
    Token(StatusCode),
    /// It may work the next time.
    #[error("{0}")]
    Failed(String),
}

/// A page or a file.
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    /// `Link: rel="next"`.
    pub(super) next: Option<String>,
    /// Nothing more may be asked before this much time has passed.
    pub(super) wait: Option<Duration>,
}

/// Asks one provider.
pub(super) struct Client {
    agent: ureq::Agent,
    config: PollConfig,
    profile: &'static Profile,
    /// An OAuth token and its end.
    token: Option<(String, Timestamp)>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.config.url)
    }
}

impl Client {
    pub(super) fn new(config: PollConfig, profile: &'static Profile) -> Result<Self, RequestError> {
        let tls = tls(config.ca_file.as_deref(), &config.url)?;
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(3)
            .user_agent(concat!("keytrail/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self {
            agent,
            config,
            profile,
            token: None,
        })
    }

    /// Gets a URL of the provider's; of any other host it is refused, since the token would go there.
    pub(super) fn get(&mut self, url: &str) -> Result<Answer, RequestError> {
        if origin(url) != origin(&self.config.url) {
            return Err(RequestError::Failed(
                "the provider's answer names a page on another host; it is not followed, since \
                 the token would be sent there"
                    .to_owned(),
            ));
        }
        let (name, value) = self.authorization()?;
        let mut request = self.agent.get(url).header(name, value);
        for (name, value) in self.profile.headers {
            request = request.header(*name, *value);
        }
        let mut response = request.call().map_err(|e| failed(&e))?;
        self.judge(&response)?;
        let next = link_next(response.headers());
        let wait = exhausted(response.headers());
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_BODY)
            .read_to_vec()
            .map_err(|e| failed(&e))?;
        Ok(Answer { body, next, wait })
    }

    fn judge<B>(&mut self, response: &Response<B>) -> Result<(), RequestError> {
        let (status, headers) = (response.status(), response.headers());
        if status.is_success() {
            return Ok(());
        }
        let limited = status == StatusCode::TOO_MANY_REQUESTS
            || (status == StatusCode::FORBIDDEN
                && (headers.contains_key("retry-after") || exhausted(headers).is_some()));
        if limited {
            let wait = retry_after(headers).or_else(|| exhausted(headers));
            return Err(RequestError::Limited(wait.unwrap_or(SLOW_DOWN)));
        }
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            self.token = None;
            return Err(RequestError::Token(status));
        }
        if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT {
            return Err(RequestError::Refused(status));
        }
        // 503 may say when.
        if let Some(wait) = retry_after(headers) {
            return Err(RequestError::Limited(wait));
        }
        Err(RequestError::Failed(format!(
            "the provider answered {status}"
        )))
    }

    fn authorization(&mut self) -> Result<(&'static str, String), RequestError> {
        let token = match (&self.config.token_file, &self.config.oauth) {
            (Some(path), _) => secret(path)?,
            (None, Some(oauth)) => {
                let oauth = oauth.clone();
                self.oauth_token(&oauth)?
            }
            // Refused by `PollConfig::check`.
            (None, None) => String::new(),
        };
        Ok(match self.profile.auth {
            // A token that OAuth gave is a bearer token, whatever the provider's own are.
            Auth::Scheme(_) | Auth::Header(_) if self.config.oauth.is_some() => {
                ("authorization", format!("Bearer {token}"))
            }
            Auth::Scheme(scheme) => ("authorization", format!("{scheme} {token}")),
            Auth::Header(name) => (name, token),
        })
    }

    fn oauth_token(&mut self, oauth: &OauthConfig) -> Result<String, RequestError> {
        let now = clock::now();
        if let Some((token, ends)) = &self.token
            && now < *ends
        {
            return Ok(token.clone());
        }
        let secret_text = secret(&oauth.client_secret_file)?;
        let refresh = oauth
            .refresh_token_file
            .as_deref()
            .map(secret)
            .transpose()?;
        let grant = if refresh.is_some() {
            "refresh_token"
        } else {
            "client_credentials"
        };
        let mut form = vec![
            ("grant_type", grant),
            ("client_id", oauth.client_id.as_str()),
            ("client_secret", secret_text.as_str()),
        ];
        form.extend(refresh.as_deref().map(|token| ("refresh_token", token)));
        form.extend(oauth.scope.as_deref().map(|scope| ("scope", scope)));
        let mut response = self
            .agent
            .post(&oauth.token_url)
            .send_form(form)
            .map_err(|e| failed(&e))?;
        let status = response.status();
        if status.is_client_error() {
            return Err(RequestError::Token(status));
        }
        let given: TokenAnswer = response
            .body_mut()
            .with_config()
            .limit(MAX_FILE)
            .read_json()
            .map_err(|_| {
                RequestError::Failed(format!("{}: no token in its answer", oauth.token_url))
            })?;
        let lasts = SignedDuration::from_secs(given.expires_in.unwrap_or(300).clamp(0, 86_400));
        let ends = now.checked_add(lasts - MARGIN).unwrap_or(now);
        self.token = Some((given.access_token.clone(), ends));
        Ok(given.access_token)
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: Option<i64>,
}

/// The error without the URL's parameters or anything of the token.
fn failed(error: &ureq::Error) -> RequestError {
    RequestError::Failed(format!("no answer from the provider: {error}"))
}

/// A secret that stands alone in a file.
pub(in crate::sources) fn secret(path: &Path) -> Result<String, RequestError> {
    let wrong = |why: String| RequestError::Failed(format!("{}: {why}", path.display()));
    let text = small_file(path).map_err(|e| wrong(e.to_string()))?;
    let text = String::from_utf8(text).map_err(|_| wrong("not text".to_owned()))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(wrong("empty; it must hold the secret".to_owned()));
    }
    Ok(text.to_owned())
}

/// A file of the settings', up to a bound.
pub(in crate::sources) fn small_file(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_FILE)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// How to speak TLS to `url`.
pub(in crate::sources) fn tls(
    ca_file: Option<&Path>,
    url: &str,
) -> Result<TlsConfig, RequestError> {
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(authorities(ca_file, url)?)
        .build())
}

/// The authorities to trust; none are needed for plain HTTP to loopback.
fn authorities(file: Option<&Path>, url: &str) -> Result<RootCerts, RequestError> {
    if !url.starts_with("https:") {
        return Ok(RootCerts::new_with_certs(&[]));
    }
    let found = SYSTEM_CA
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    let path = file.map(Path::to_owned).or(found).ok_or_else(|| {
        RequestError::Failed(
            "no authorities to trust: install ca-certificates, or set `ca_file`".to_owned(),
        )
    })?;
    let pem =
        small_file(&path).map_err(|e| RequestError::Failed(format!("{}: {e}", path.display())))?;
    let trusted: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if trusted.is_empty() {
        return Err(RequestError::Failed(format!(
            "{}: no certificate in PEM",
            path.display()
        )));
    }
    Ok(RootCerts::new_with_certs(&trusted))
}

/// Scheme, host and port of a URL, lower case.
pub(super) fn origin(url: &str) -> Option<String> {
    let uri: ureq::http::Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri
        .port_u16()
        .unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some(format!(
        "{scheme}://{}:{port}",
        uri.host()?.to_ascii_lowercase()
    ))
}

/// The target of `rel="next"` among the `Link` headers (RFC 8288).
fn link_next(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all("link")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(next_of)
}

/// The same in one header. A target may hold commas.
fn next_of(value: &str) -> Option<String> {
    let mut rest = value;
    while let Some((_, link)) = rest.split_once('<') {
        let (target, tail) = link.split_once('>')?;
        let (parameters, others) = tail.split_once(',').unwrap_or((tail, ""));
        let is_next = |parameter: &str| {
            let rel = parameter.trim().strip_prefix("rel=");
            rel.is_some_and(|rel| rel.trim_matches('"').eq_ignore_ascii_case("next"))
        };
        if parameters.split(';').any(is_next) {
            return Some(target.to_owned());
        }
        rest = others;
    }
    None
}

/// `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(MAX_WAIT));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(until(date.timestamp()))
}

/// Nothing is left of the rate: the time until it resets (Okta `X-Rate-Limit-*`, GitHub
/// `X-RateLimit-*`, GitLab `RateLimit-*`; epoch seconds).
fn exhausted(headers: &HeaderMap) -> Option<Duration> {
    ["x-rate-limit", "x-ratelimit", "ratelimit"]
        .iter()
        .find_map(|prefix| {
            let number = |name: &str| {
                let value = headers.get(format!("{prefix}-{name}"))?;
                value.to_str().ok()?.trim().parse::<i64>().ok()
            };
            let reset = Timestamp::from_second(number("reset")?).ok()?;
            (number("remaining")? <= 0).then(|| until(reset))
        })
}

fn until(time: Timestamp) -> Duration {
    let left = time.duration_since(clock::now());
    Duration::try_from(left)
        .unwrap_or(Duration::ZERO)
        .clamp(Duration::from_secs(1), MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn the_next_page_is_found_among_links() {
        for (links, expected) in [
            (
                vec![r#"<https://x/a?b=1>; rel="next""#],
                Some("https://x/a?b=1"),
            ),
            (
                vec![r#"<https://x/self>; rel="self", <https://x/n>; rel="next""#],
                Some("https://x/n"),
            ),
            (
                vec![r#"<https://x/self>; rel="self""#, "<https://x/n>; rel=next"],
                Some("https://x/n"),
            ),
            (
                vec![r#"<https://x/a?b=1,2>; rel="next""#],
                Some("https://x/a?b=1,2"),
            ),
            (vec![r#"<https://x/p>; rel="prev""#], None),
            (vec!["nonsense"], None),
            (vec![], None),
        ] {
            let all: Vec<_> = links.iter().map(|l| ("link", *l)).collect();
            assert_eq!(link_next(&headers(&all)).as_deref(), expected, "{links:?}");
        }
    }

    #[test]
    fn origins_tell_hosts_apart() {
        for (a, b, same) in [
            ("https://x/a", "https://X:443/b?c", true),
            ("https://x/a", "http://x/a", false),
            ("https://x/a", "https://x.evil/a", false),
            ("https://x/a", "https://x:8443/a", false),
            ("http://127.0.0.1:80/a", "http://127.0.0.1/", true),
        ] {
            assert_eq!(origin(a) == origin(b), same, "{a} {b}");
        }
    }

    #[test]
    fn rate_limits_are_read() {
        let soon = (Timestamp::now().as_second() + 30).to_string();
        let wait = exhausted(&headers(&[
            ("x-rate-limit-remaining", "0"),
            ("x-rate-limit-reset", &soon),
        ]));
        assert!(
            wait.is_some_and(|w| (25..=30).contains(&w.as_secs())),
            "{wait:?}"
        );
        let left = [
            ("x-ratelimit-remaining", "7"),
            ("x-ratelimit-reset", soon.as_str()),
        ];
        assert_eq!(exhausted(&headers(&left)), None);
        let wait = retry_after(&headers(&[("retry-after", "7")]));
        assert_eq!(wait, Some(Duration::from_secs(7)));
        let past = retry_after(&headers(&[(
            "retry-after",
            "Tue, 24 Nov 2020 10:00:00 GMT",
        )]));
        assert_eq!(past, Some(Duration::from_secs(1)));
        assert_eq!(
            retry_after(&headers(&[("retry-after", "9999999")])),
            Some(MAX_WAIT)
        );
    }
}
