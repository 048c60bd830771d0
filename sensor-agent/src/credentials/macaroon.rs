//! Macaroons: bearer tokens whose identifier stands in clear before the signature.
//!
//! Binary format 2 (libmacaroons, `doc/format.txt`): a version byte of 2, then packets of
//! `type (varint), length (varint), data`; type 1 is the location, 2 the identifier, 0 ends a
//! section. PyPI puts its token's UUID into the identifier.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// What a macaroon says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Macaroon {
    /// Whom it is for.
    pub(super) location: Option<String>,
    /// Its identifier, as text.
    pub(super) identifier: String,
}

/// Reads location and identifier; `None` for anything else. `text` is base64 for URLs, as after
/// `pypi-`.
#[must_use]
pub(super) fn read(text: &[u8]) -> Option<Macaroon> {
    let end = text.iter().position(|b| *b == b'=').unwrap_or(text.len());
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.get(..end)?).ok()?);
    let (version, mut rest) = bytes.split_first()?;
    if *version != 2 {
        return None;
    }
    let mut location = None;
    // The first section has at most a location and an identifier.
    for _ in 0..3 {
        let (kind, after) = varint(rest)?;
        if kind == 0 {
            return None;
        }
        let (len, after) = varint(after)?;
        let data = after.get(..len)?;
        rest = after.get(len..)?;
        let text = std::str::from_utf8(data).ok()?;
        match kind {
            1 => location = Some(text.to_owned()),
            2 => {
                return Some(Macaroon {
                    location,
                    identifier: text.to_owned(),
                });
            }
            _ => {}
        }
    }
    None
}

fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_usize;
    for (at, byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A token like PyPI's, made up.
    pub(in crate::credentials) fn pypi(location: &str, uuid: &str) -> String {
        let mut bytes = vec![2, 1, u8::try_from(location.len()).unwrap()];
        bytes.extend(location.as_bytes());
        bytes.extend([2, u8::try_from(uuid.len()).unwrap()]);
        bytes.extend(uuid.as_bytes());
        bytes.extend([0, 2, 3, b'{', b'[', b']', 0, 0, 6, 32]);
        bytes.extend([7; 32]);
        format!("pypi-{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    #[test]
    fn the_identifier_is_read_and_nothing_else() {
        let uuid = "3f2f1a4e-0000-4000-8000-0123456789ab";
        let token = pypi("index.example", uuid);
        let read = read(token.strip_prefix("pypi-").unwrap().as_bytes()).unwrap();
        assert_eq!(read.identifier, uuid);
        assert_eq!(read.location.as_deref(), Some("index.example"));
        for bad in ["", "AgEI", "AAAAAAAAAAAAAAAAAAAA", "!!!!"] {
            assert_eq!(super::read(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&bytes);
            let _ = read(URL_SAFE_NO_PAD.encode([&[2_u8][..], &bytes].concat()).as_bytes());
        }
    }
}
