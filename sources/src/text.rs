//! Text of records: cleaned, capped, and read as times, addresses and names.
//!
//! Everything here is untrusted text from a log. What looks like a secret is struck out before it
//! can reach a use, wherever it stands.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::secret;

/// Characters kept of a free text.
pub const MAX_TEXT: usize = 512;

/// True for decimal digits only: what is put behind a prefix must not bring a secret with it.
pub(crate) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// True for a label of a server name in lower case, such as a region: what becomes part of a longer
/// name must not bring a secret with it.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A text as it may be kept: at most [`MAX_TEXT`] characters, secrets struck out.
#[must_use]
pub fn kept(text: &str) -> String {
    let end = if text.len() > MAX_TEXT {
        text.char_indices().nth(MAX_TEXT).map(|(end, _)| end)
    } else {
        None
    };
    let capped = end.and_then(|end| text.get(..end)).unwrap_or(text);
    secret::struck_out(capped).unwrap_or_else(|| capped.to_owned())
}

/// A path or address without its query and fragment, which can carry tokens; kept as [`kept`].
#[must_use]
pub fn without_query(uri: &str) -> String {
    let end = uri.find(['?', '#']).unwrap_or(uri.len());
    kept(uri.get(..end).unwrap_or_default())
}

/// The host of an absolute address, as [`server_name`] gives it.
#[must_use]
pub fn host_of(uri: &str) -> Option<String> {
    let rest = uri.split_once("://").map(|(_, rest)| rest)?;
    let authority = rest.split(['/', '?', '#']).next()?;
    server_name(authority.rsplit('@').next()?)
}

/// A host as a client asks for it: no port, no last dot, lower case.
#[must_use]
pub fn server_name(header: &str) -> Option<String> {
    let header = header.trim();
    let name = match header.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.contains(':') => {
            name
        }
        _ => header,
    };
    let name = name.trim_end_matches('.');
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    (!name.is_empty() && name.len() <= 253 && name.bytes().all(fits))
        .then(|| name.to_ascii_lowercase())
}

/// Reads a time, in every form that providers and the tools behind them write: RFC 3339; the same
/// with a space, or without a zone (then UTC, as all these logs are); digits alone as seconds,
/// milliseconds, microseconds or nanoseconds since 1970 by their size; Salesforce's
/// `20230504213647.569`; syslog's `Mar 08 2021 18:24:44`.
#[must_use]
pub fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Some((date, rest)) = text.split_once('.').or(Some((text, "")))
        && date.len() == 14
        && rest.len() <= 9
        && date.bytes().chain(rest.bytes()).all(|b| b.is_ascii_digit())
    {
        return compact_time(date, rest);
    }
    if let Ok(number) = text.parse::<f64>() {
        return epoch(number);
    }
    let zoneless = text
        .trim_end_matches(" UTC")
        .trim_end_matches(" GMT")
        .trim_end_matches(" +0000")
        .trim_end_matches('Z');
    let civil = zoneless
        .parse::<DateTime>()
        .or_else(|_| DateTime::strptime("%b %d %Y %H:%M:%S", zoneless))
        .or_else(|_| DateTime::strptime("%d/%b/%Y:%H:%M:%S", zoneless))
        .ok()?;
    Offset::UTC.to_timestamp(civil).ok()
}

/// `20230504213647` and a fraction of a second.
fn compact_time(date: &str, fraction: &str) -> Option<Timestamp> {
    let part = |from: usize, to: usize| date.get(from..to);
    let text = format!(
        "{}-{}-{}T{}:{}:{}.{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?,
        if fraction.is_empty() { "0" } else { fraction }
    );
    text.parse().ok()
}

/// A number since 1970, its unit told by its size. Nothing before 2001 or after 2128 passes.
#[must_use]
pub fn epoch(number: f64) -> Option<Timestamp> {
    const SECONDS: std::ops::Range<f64> = 1e9..5e9;
    let seconds = [1.0, 1e3, 1e6, 1e9]
        .into_iter()
        .map(|unit| number / unit)
        .find(|seconds| SECONDS.contains(seconds))?;
    // Milliseconds are what a 64-bit float keeps of a nanosecond count, with room.
    #[expect(clippy::cast_possible_truncation, reason = "below 5e12")]
    let millis = (seconds * 1e3).round() as i64;
    Timestamp::from_millisecond(millis).ok()
}

/// Reads an address: plain, with a port (`203.0.113.9:443`, `[2001:db8::1]:443`), or IPv4 with
/// leading zeros, which are decimal here (published data sets contain them).
#[must_use]
pub fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, _) = rest.split_once(']')?;
        return inside.parse::<IpAddr>().ok().map(|a| a.to_canonical());
    }
    let text = match text.split_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => text,
    };
    padded_v4(text)
}

fn padded_v4(text: &str) -> Option<IpAddr> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [
            ("2026-11-23T20:14:03Z", Some("2026-11-23T20:14:03Z")),
            (
                "2025-01-21 17:49:47.000000000",
                Some("2025-01-21T17:49:47Z"),
            ),
            ("2025-01-21 17:49:47 UTC", Some("2025-01-21T17:49:47Z")),
            ("2025-01-21T18:49:47+01:00", Some("2025-01-21T17:49:47Z")),
            (
                "2024-11-27T03:31:26.7088498+00:00",
                Some("2024-11-27T03:31:26.7088498Z"),
            ),
            (
                "2025-12-22T08:46:29.678707300Z",
                Some("2025-12-22T08:46:29.6787073Z"),
            ),
            ("1621305118553", Some("2021-05-18T02:31:58.553Z")),
            ("1621305118", Some("2021-05-18T02:31:58Z")),
            ("1621305118.25", Some("2021-05-18T02:31:58.25Z")),
            ("1621305118553000", Some("2021-05-18T02:31:58.553Z")),
            ("20230504213647.569", Some("2023-05-04T21:36:47.569Z")),
            ("20230504213647", Some("2023-05-04T21:36:47Z")),
            ("Mar 08 2021 18:24:44", Some("2021-03-08T18:24:44Z")),
            ("20231504213647.569", None),
            ("12345", None),
            ("yesterday", None),
            ("", None),
            ("NaN", None),
            ("inf", None),
        ] {
            assert_eq!(
                time(text).map(|t| t.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("203.0.113.9", Some("203.0.113.9")),
            (" 203.0.113.9 ", Some("203.0.113.9")),
            ("203.0.113.9:40022", Some("203.0.113.9")),
            ("075.050.255.67", Some("75.50.255.67")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("::ffff:203.0.113.9", Some("203.0.113.9")),
            ("203.0.113.***", None),
            ("999.1.1.1", None),
            ("gce-internal-ip", None),
            ("1.2.3.4.5", None),
            ("", None),
        ] {
            assert_eq!(
                address(text).map(|a| a.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn names() {
        for (text, expected) in [
            ("STS.amazonaws.com:443", Some("sts.amazonaws.com")),
            ("sts.amazonaws.com.", Some("sts.amazonaws.com")),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(server_name(text).as_deref(), expected, "{text}");
        }
        for (text, expected) in [
            (
                "https://u:p@V.vault.azure.net:443/secrets/x?a=b",
                Some("v.vault.azure.net"),
            ),
            ("/secrets/x", None),
        ] {
            assert_eq!(host_of(text).as_deref(), expected, "{text}");
        }
        assert_eq!(without_query("/a/b?token=x#y"), "/a/b");
        assert_eq!(kept(&"ä".repeat(600)).chars().count(), MAX_TEXT);
    }

    proptest! {
        #[test]
        fn any_text_ends_without_panic(text in "\\PC{0,80}") {
            drop((kept(&text), time(&text), address(&text), server_name(&text), host_of(&text)));
        }

        #[test]
        fn every_millisecond_is_read_back(millis in 1_000_000_000_000_i64..4_999_999_999_999) {
            let read = time(&millis.to_string()).unwrap();
            prop_assert_eq!(read.as_millisecond(), millis);
            prop_assert_eq!(time(&read.to_string()), Some(read));
        }
    }
}
