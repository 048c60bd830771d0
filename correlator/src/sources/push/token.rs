//! The token that a sender shows, wherever its product puts it.

use axum::http::{HeaderMap, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// Headers that hold nothing but the token: Amazon Data Firehose, GitLab's audit event streaming,
/// and one for senders whose headers can be chosen.
const HEADERS: [&str; 3] = [
    "x-amz-firehose-access-key",
    "x-gitlab-event-streaming-token",
    "x-keytrail-token",
];

/// Finds it: `Authorization: Bearer|Splunk TOKEN`, `Authorization: Basic` with the token as
/// password, a header of its own, or `?token=` (for senders that know only a URL).
pub(super) fn shown(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let value = value.to_str().ok()?;
        let (scheme, token) = value.split_once(' ').unwrap_or(("", value));
        let token = token.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            let pair = String::from_utf8(STANDARD.decode(token).ok()?).ok()?;
            return pair
                .split_once(':')
                .map(|(_, password)| password.to_owned());
        }
        return Some(token.to_owned());
    }
    if let Some(value) = HEADERS.iter().find_map(|name| headers.get(*name)) {
        return value.to_str().ok().map(str::to_owned);
    }
    uri.query()?
        .split('&')
        .find_map(|pair| pair.strip_prefix("token="))
        .map(str::to_owned)
}

/// Compares hashes of equal length, every byte looked at.
pub(super) fn matches(shown: &str, hash: &[u8; 32]) -> bool {
    let other: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
    let difference = hash
        .iter()
        .zip(other)
        .fold(0_u8, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_looked_at() {
        for (name, value, query, expected) in [
            ("authorization", "Bearer abc", "", Some("abc")),
            ("authorization", "Splunk abc", "", Some("abc")),
            ("authorization", "splunk  abc ", "", Some("abc")),
            ("authorization", "abc", "", Some("abc")),
            ("authorization", "Basic eDphYmM=", "", Some("abc")),
            ("authorization", "Basic !", "", None),
            ("x-amz-firehose-access-key", "abc", "", Some("abc")),
            ("x-gitlab-event-streaming-token", "abc", "", Some("abc")),
            ("x-other", "abc", "a=b&token=abc", Some("abc")),
            ("x-other", "abc", "", None),
            // A wrong header is not forgiven for the sake of the URL.
            ("authorization", "Bearer abc", "token=other", Some("abc")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                axum::http::HeaderName::from_static(name),
                value.parse().unwrap(),
            );
            let uri: Uri = format!("http://h/p?{query}").parse().unwrap();
            assert_eq!(
                shown(&headers, &uri).as_deref(),
                expected,
                "{name}: {value} {query}"
            );
        }
    }
}
