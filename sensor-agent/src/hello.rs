//! The name a connection asks for: reassembles a TLS ClientHello and reads server name and ALPN.
//!
//! A hello may come in several segments, and in several TLS records. Formats: RFC 8446 section 4
//! and 5.1, RFC 6066 section 3 (server_name), RFC 7301 (ALPN).

use std::collections::{HashMap, VecDeque};

use keytrail_model::ids::ConnectionId;
use tls_parser::{
    SNIType, TlsExtension, TlsMessage, TlsMessageHandshake, parse_tls_extensions,
    parse_tls_message_handshake,
};

/// A hello longer than this is given up: as much as the kernel side carries.
const MAX_HELLO: usize = 16 * 1024;
/// Most hellos under way at once; the oldest is given up for a newer one.
const MAX_PENDING: usize = 1_024;
/// Most application protocols kept.
const MAX_ALPN: usize = 8;
/// Longest name that DNS allows, in text form.
const MAX_NAME: usize = 253;

/// What a ClientHello says about the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name, lower case, without a final dot.
    pub server_name: Option<String>,
    /// Application protocols offered.
    pub alpn: Vec<String>,
    /// True when the name is encrypted (the ECH extension is present): what is read is the outer
    /// name, that of the provider in front.
    pub encrypted: bool,
}

/// Hellos that are not complete yet.
#[derive(Debug, Default)]
pub struct Hellos {
    pending: HashMap<ConnectionId, Vec<u8>>,
    order: VecDeque<ConnectionId>,
    given_up: u64,
}

impl Hellos {
    /// Takes the bytes at `offset` of a connection's stream. `Some` once the hello is complete.
    pub fn push(&mut self, id: ConnectionId, offset: u32, data: &[u8]) -> Option<ClientHello> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let known = self.pending.get(&id).map_or(0, Vec::len);
        // A hole (a lost record) or an overlong hello cannot be mended: give it up.
        if offset > known || offset.saturating_add(data.len()) > MAX_HELLO {
            self.forget(id);
            self.given_up += 1;
            return None;
        }
        if known == 0 && !self.pending.contains_key(&id) {
            self.make_room();
            self.order.push_back(id);
        }
        let stream = self.pending.entry(id).or_default();
        // Retransmitted bytes are the same bytes.
        stream.extend_from_slice(data.get(known - offset..).unwrap_or_default());
        match parse(stream) {
            Parsed::Incomplete => None,
            Parsed::Complete(hello) => {
                self.forget(id);
                Some(hello)
            }
            Parsed::NotHello => {
                self.forget(id);
                self.given_up += 1;
                None
            }
        }
    }

    /// A connection ended: its hello will not be completed.
    pub fn forget(&mut self, id: ConnectionId) {
        if self.pending.remove(&id).is_some() {
            self.order.retain(|known| *known != id);
        }
    }

    /// Hellos that could not be read: cut, overlong, or not TLS after all.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    fn make_room(&mut self) {
        while self.pending.len() >= MAX_PENDING {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if self.pending.remove(&oldest).is_some() {
                self.given_up += 1;
            }
        }
    }
}

enum Parsed {
    Incomplete,
    Complete(ClientHello),
    NotHello,
}

/// Reads the handshake message out of its records, then the message.
fn parse(stream: &[u8]) -> Parsed {
    let mut message = Vec::new();
    let mut rest = stream;
    while let Some((header, body)) = rest.split_at_checked(5) {
        let &[kind, major, _, high, low] = header else {
            break;
        };
        if kind != 0x16 || major != 3 {
            return Parsed::NotHello;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let taken = body.get(..length).unwrap_or(body);
        message.extend_from_slice(taken);
        match body.get(length..) {
            Some(next) if length > 0 => rest = next,
            _ => break,
        }
    }
    let Some(&[kind, a, b, c]) = message.get(..4) else {
        return Parsed::Incomplete;
    };
    if kind != 1 {
        return Parsed::NotHello;
    }
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
    let Some(whole) = message.get(..length.saturating_add(4)) else {
        return if length > MAX_HELLO {
            Parsed::NotHello
        } else {
            Parsed::Incomplete
        };
    };
    match parse_tls_message_handshake(whole) {
        Ok((_, TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)))) => {
            Parsed::Complete(read_extensions(hello.ext.unwrap_or_default()))
        }
        Ok(_) | Err(_) => Parsed::NotHello,
    }
}

fn read_extensions(bytes: &[u8]) -> ClientHello {
    let mut hello = ClientHello::default();
    let Ok((_, extensions)) = parse_tls_extensions(bytes) else {
        return hello;
    };
    for extension in extensions {
        match extension {
            TlsExtension::SNI(names) => {
                hello.server_name = names
                    .into_iter()
                    .find(|(kind, _)| *kind == SNIType::HostName)
                    .and_then(|(_, name)| host_name(name));
            }
            TlsExtension::ALPN(protocols) => {
                let shown = protocols.into_iter().take(MAX_ALPN);
                hello.alpn = shown
                    .map(|p| String::from_utf8_lossy(p).into_owned())
                    .collect();
            }
            TlsExtension::Unknown(kind, _) if kind.0 == 0xfe0d => hello.encrypted = true,
            _ => {}
        }
    }
    hello
}

/// A name as it is compared: lower case, no final dot; `None` for what is no host name.
pub(crate) fn host_name(bytes: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(bytes)
        .ok()?
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let fits = !name.is_empty()
        && name.len() <= MAX_NAME
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    fits.then_some(name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// A real hello, from a real TLS library.
    fn real_hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same hello, cut into TLS records of at most `size` bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for chunk in hello[5..].chunks(size) {
            out.extend_from_slice(&hello[..3]);
            out.extend_from_slice(&u16::try_from(chunk.len()).unwrap().to_be_bytes());
            out.extend_from_slice(chunk);
        }
        out
    }

    const ID: ConnectionId = ConnectionId(1);

    #[test]
    fn reads_name_and_protocols() {
        let bytes = real_hello("S3.us-east-1.amazonaws.com", &["h2", "http/1.1"]);
        let hello = Hellos::default().push(ID, 0, &bytes).unwrap();
        assert_eq!(
            hello.server_name.as_deref(),
            Some("s3.us-east-1.amazonaws.com")
        );
        assert_eq!(hello.alpn, ["h2", "http/1.1"]);
        assert!(!hello.encrypted);
    }

    #[test]
    fn a_hole_is_given_up_and_counted() {
        let bytes = real_hello("example.com", &[]);
        let mut hellos = Hellos::default();
        assert_eq!(hellos.push(ID, 0, &bytes[..20]), None);
        assert_eq!(hellos.push(ID, 40, &bytes[40..]), None);
        assert_eq!(hellos.given_up(), 1);
        assert!(hellos.pending.is_empty() && hellos.order.is_empty());
    }

    #[test]
    fn the_number_under_way_is_bounded() {
        let mut hellos = Hellos::default();
        for id in 0..5_000 {
            hellos.push(ConnectionId(id), 0, &[0x16, 3, 1]);
        }
        assert_eq!(hellos.pending.len(), MAX_PENDING);
        assert_eq!(hellos.given_up(), 5_000 - MAX_PENDING as u64);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_name(
            records in 1_usize..600,
            mut cuts in proptest::collection::vec(0_usize..2_000, 0..6),
            overlap in 0_usize..20,
        ) {
            let bytes = in_records(&real_hello("api.github.com", &["h2"]), records);
            cuts.retain(|cut| *cut < bytes.len());
            cuts.sort_unstable();
            let mut hellos = Hellos::default();
            let mut from = 0;
            let mut found = None;
            for to in cuts.into_iter().chain([bytes.len()]) {
                let start = from - overlap.min(from);
                found = found.or(hellos.push(ID, u32::try_from(start).unwrap(), &bytes[start..to]));
                from = to;
            }
            let name = found.unwrap().server_name;
            prop_assert_eq!(name.as_deref(), Some("api.github.com"));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600), tls in any::<bool>()) {
            let mut bytes = bytes;
            if tls && bytes.len() > 5 {
                bytes[0] = 0x16;
                bytes[1] = 3;
            }
            Hellos::default().push(ID, 0, &bytes);
        }
    }
}
