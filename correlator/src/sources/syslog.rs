//! Syslog over TCP (RFC 6587) and TLS (RFC 5425), with the headers of UDP's messages, too: the record is what is left of a message without
//! its header.
//!
//! Headers: RFC 5424; RFC 3164 as daemons write it; and what devices send that keep to neither
//! (CyberArk's `<5>1 2026-11-24T10:00:00Z VAULT CEF:0|...` lacks three of RFC 5424's fields).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::frames::Framing;
use super::intake::Intake;
use super::socket::{Senders, refused};

/// A TLS handshake takes at most so long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How payloads begin whose place does not depend on a header.
const PAYLOADS: [&[u8]; 4] = [b"CEF:", b"LEEF:", b"{", b"[{"];
/// Bytes of a message in which such a beginning is looked for.
const HEADER: usize = 512;

/// Listens on `address` and takes messages in until `stop`.
///
/// # Errors
/// When it cannot listen there.
pub async fn listen(
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    intake: Intake,
    stop: CancellationToken,
) -> std::io::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let scheme = if tls.is_some() { "tls" } else { "tcp" };
    intake
        .status()
        .update(|s| s.folder = format!("{scheme}:{bound}"));
    intake.status().works();
    Ok(tokio::spawn(async move {
        let senders = Senders::new(&intake, Framing::Syslog, &stop);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return senders.drained().await,
            };
            match (accepted, &tls) {
                (Ok((stream, peer)), None) => senders.serve(stream, peer.to_string()),
                (Ok((stream, peer)), Some(tls)) => {
                    let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(stream));
                    let ready = async move { handshake.await.map_err(std::io::Error::from)? };
                    senders.serve_after(ready, peer.to_string());
                }
                (Err(error), _) => refused(&intake, &error).await,
            }
        }
    }))
}

/// The record inside a message: what follows its header.
pub(super) fn body(message: &[u8]) -> &[u8] {
    let rest = without_priority(message);
    let body = rfc5424(rest).or_else(|| rfc3164(rest)).unwrap_or(rest);
    // A byte-order mark marks UTF-8 (RFC 5424, 6.4).
    let body = body
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(body)
        .trim_ascii();
    if PAYLOADS.iter().any(|start| body.starts_with(start)) {
        return body;
    }
    // Neither header fits: the payload begins where it looks like one.
    let looked = message.get(..message.len().min(HEADER)).unwrap_or(message);
    PAYLOADS
        .iter()
        .filter_map(|start| looked.windows(start.len()).position(|at| at == *start))
        .min()
        .and_then(|at| message.get(at..))
        .unwrap_or(body)
        .trim_ascii()
}

fn without_priority(message: &[u8]) -> &[u8] {
    let Some(rest) = message.strip_prefix(b"<") else {
        return message;
    };
    let digits = rest
        .iter()
        .take(4)
        .take_while(|b| b.is_ascii_digit())
        .count();
    match rest.get(digits..).and_then(|rest| rest.strip_prefix(b">")) {
        Some(rest) if (1..=3).contains(&digits) => rest,
        _ => message,
    }
}

/// `1 TIME HOST APP PROCID MSGID SD [MSG]`, the priority taken off.
fn rfc5424(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"1 ")?;
    for field in 0..5 {
        let end = rest.iter().position(|b| *b == b' ')?;
        let word = rest.get(..end)?;
        let time = word == b"-" || word.first().is_some_and(u8::is_ascii_digit);
        if word.is_empty() || (field == 0 && !time) {
            return None;
        }
        rest = rest.get(end + 1..)?;
    }
    let rest = match rest.first()? {
        b'-' => rest.get(1..)?,
        b'[' => rest.get(structured_data(rest)?..)?,
        _ => return None,
    };
    match rest.first() {
        None => Some(rest),
        Some(b' ') => rest.get(1..),
        Some(_) => None,
    }
}

/// Length of `[id name="value" ...][...]`; values escape `"`, `\` and `]`.
fn structured_data(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while text.get(at) == Some(&b'[') {
        let (mut quoted, mut escaped) = (false, false);
        loop {
            at += 1;
            match *text.get(at)? {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b']' if !quoted => break,
                _ => {}
            }
        }
        at += 1;
    }
    Some(at)
}

/// `Nov 24 10:00:00 HOST TAG[pid]: MSG`, the priority taken off; the year-less time may also be an
/// RFC 3339 one, as newer daemons write, and host or tag may lack.
fn rfc3164(text: &[u8]) -> Option<&[u8]> {
    let head = text.get(..text.len().min(HEADER))?;
    let rest = match head {
        [
            m,
            _,
            _,
            b' ',
            _,
            _,
            b' ',
            _,
            _,
            b':',
            _,
            _,
            b':',
            _,
            _,
            b' ',
            ..,
        ] if m.is_ascii_uppercase() => text.get(16..)?,
        [d, ..] if d.is_ascii_digit() => {
            let end = head.iter().position(|b| *b == b' ')?;
            let time = std::str::from_utf8(head.get(..end)?).ok()?;
            time.parse::<jiff::Timestamp>().ok()?;
            text.get(end + 1..)?
        }
        _ => return None,
    };
    // The tag's end; the words before it are host and tag.
    let head = rest.get(..rest.len().min(HEADER))?;
    let end = head.windows(2).position(|pair| pair == b": ")?;
    let words = head.get(..end)?;
    let plain = |b: &u8| b.is_ascii_graphic() && !b"{}\"|".contains(b) || *b == b' ';
    let few = words.iter().filter(|b| **b == b' ').count() <= 1;
    (few && words.iter().all(plain)).then(|| rest.get(end + 2..))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_header_is_taken_off() {
        let record = r#"{"type":"response","time":"t: x"}"#;
        for (header, name) in [
            (
                "<13>1 2026-11-24T10:00:00.123456+01:00 host app 42 - - ",
                "RFC 5424",
            ),
            ("<13>1 - - - - - - ", "RFC 5424, all nil"),
            ("<13>1 - - - - - - \u{feff}", "RFC 5424, byte-order mark"),
            (
                r#"<13>1 2026-11-24T10:00:00Z host app - ID47 [a@1 b="c\"]d" e="f"][g h="i"] "#,
                "structured data",
            ),
            (
                r#"<134>1 2026-11-24T10:00:00Z h a 1 - [timeQuality tzKnown="1" isSynced="1"] "#,
                "logger --rfc5424",
            ),
            ("<13>Nov 24 10:00:00 host vault[812]: ", "RFC 3164"),
            (
                "<13>Nov  4 10:00:00 host vault: ",
                "RFC 3164, one-digit day",
            ),
            ("<13>Nov 24 10:00:00 vault[812]: ", "no host"),
            (
                "<13>2026-11-24T10:00:00+01:00 host vault[812]: ",
                "RFC 3164 with a newer time",
            ),
            ("Nov 24 10:00:00 host vault: ", "no priority"),
            ("<13>vault[812]: ", "only a tag"),
            ("<13>", "only a priority"),
            ("", "nothing"),
        ] {
            let message = format!("{header}{record}");
            assert_eq!(
                String::from_utf8_lossy(body(message.as_bytes())),
                record,
                "{name}: {header}"
            );
        }
    }

    #[test]
    fn devices_that_keep_to_no_rfc_are_understood() {
        let cef = "CEF:0|Cyber-Ark|Vault|12.6|295|Retrieve password|5|act=x suser=PVWA";
        for header in [
            "<5>1 2026-11-24T10:00:00Z VAULT ",
            "<5>Nov 24 10:00:00 VAULT ",
            "<5>Nov 24 10:00:00 10.0.0.1 ",
            "<5>",
            "",
        ] {
            let message = format!("{header}{cef}");
            assert_eq!(
                String::from_utf8_lossy(body(message.as_bytes())),
                cef,
                "{header}"
            );
        }
    }

    #[test]
    fn an_empty_message_and_other_text_stay_what_they_are() {
        for (message, expected) in [
            ("<13>1 - - - - - -", ""),
            ("<13>1 - - - - - - hello", "hello"),
            ("<13>Nov 24 10:00:00 host app: hello: world", "hello: world"),
            ("<99999>x", "<99999>x"),
        ] {
            assert_eq!(String::from_utf8_lossy(body(message.as_bytes())), expected);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            body(&bytes);
        }

        #[test]
        fn any_header_soup_ends_without_panic(text in "(<1>)?1 [-a \\[\\]\"\\\\=:0-9{]{0,80}") {
            body(text.as_bytes());
        }
    }
}
