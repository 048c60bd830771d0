//! Private keys and certificates: the public half identifies them.
//!
//! Formats: OpenSSH's `openssh-key-v1` (PROTOCOL.key in OpenSSH: the public key stands in clear
//! before the encrypted part), PKCS#1 (RFC 8017), SEC 1 (RFC 5915) and PKCS#8 (RFC 5958) in PEM,
//! X.509 certificates. Nothing is decrypted and no signature is made.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use keytrail_model::credential::{CredentialId, CredentialKind};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Findings;
use super::hasher::hex;

/// Most PEM blocks of one file.
const MAX_BLOCKS: usize = 64;

/// How a key is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// By OpenSSH's fingerprint, as sshd and GitHub print it.
    Ssh,
    /// By the SHA-256 of its public key as certificates carry it.
    Spki,
}

/// Every private key and certificate in PEM text.
pub(super) fn pem(bytes: &[u8], naming: Naming, entry: Option<&str>, findings: &mut Findings<'_>) {
    let mut rest = bytes;
    for _ in 0..MAX_BLOCKS {
        let Some((label, body, after)) = next_block(rest) else {
            return;
        };
        rest = after;
        block(label, body, naming, entry, findings);
    }
}

/// The next `-----BEGIN X-----` ... `-----END X-----`: label, what is between, what follows.
fn next_block(text: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let begin = find(text, b"-----BEGIN ")?;
    let after = text.get(begin + 11..)?;
    let close = find(after, b"-----")?;
    let label = std::str::from_utf8(after.get(..close)?).ok()?;
    let body = after.get(close + 5..)?;
    let end = find(body, b"-----END ")?;
    Some((label, body.get(..end)?, body.get(end..)?))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|w| w == what)
}

fn block(
    label: &str,
    body: &[u8],
    naming: Naming,
    entry: Option<&str>,
    findings: &mut Findings<'_>,
) {
    // Headers (`Proc-Type: 4,ENCRYPTED`, RFC 1421) end with an empty line.
    let text = match find(body, b"\n\n").or_else(|| find(body, b"\r\n\r\n")) {
        Some(at) if body.contains(&b':') => body.get(at..).unwrap_or(body),
        _ => body,
    };
    // JSON and YAML write line ends as `\n`.
    let mut plain = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b'\\' {
            bytes.next();
        } else if !byte.is_ascii_whitespace() {
            plain.push(byte);
        }
    }
    let Ok(der) = STANDARD.decode(&*plain).map(Zeroizing::new) else {
        return;
    };
    if matches!(label, "CERTIFICATE" | "TRUSTED CERTIFICATE") {
        let id = CredentialId::new(
            CredentialKind::X509Certificate,
            &hex(&Sha256::digest(&*der)),
        );
        id.into_iter().for_each(|id| findings.push(id, entry));
        return;
    }
    if !label.ends_with("PRIVATE KEY") {
        return;
    }
    let encrypted = find(body, b"ENCRYPTED").is_some() || label.starts_with("ENCRYPTED");
    let public = match label {
        "OPENSSH PRIVATE KEY" => openssh_public(&der).map(<[u8]>::to_vec).map(Public::Blob),
        _ if encrypted => None,
        "RSA PRIVATE KEY" => rsa_public(&der),
        "EC PRIVATE KEY" => ec_public(&der, None),
        _ => pkcs8_public(&der),
    };
    let id = public.and_then(|public| public.identify(naming));
    // The public half of an encrypted or unusual key is out of reach: the block itself names it.
    let id = id.or_else(|| findings.know.hasher.identify("private-key", &der));
    id.into_iter().for_each(|id| findings.push(id, entry));
}

/// A public key.
enum Public {
    /// As SSH writes it.
    Blob(Vec<u8>),
    /// RSA: modulus and exponent, big-endian, without leading zeros.
    Rsa(Vec<u8>, Vec<u8>),
    /// A point on a NIST curve, uncompressed; the curve's SSH name and object identifier.
    Ec(Curve, Vec<u8>),
    /// Ed25519.
    Ed25519(Vec<u8>),
}

#[derive(Clone, Copy)]
struct Curve {
    ssh: &'static str,
    oid: &'static [u8],
    point: usize,
}

const CURVES: [Curve; 3] = [
    Curve {
        ssh: "nistp256",
        oid: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
        point: 65,
    },
    Curve {
        ssh: "nistp384",
        oid: &[0x2b, 0x81, 0x04, 0x00, 0x22],
        point: 97,
    },
    Curve {
        ssh: "nistp521",
        oid: &[0x2b, 0x81, 0x04, 0x00, 0x23],
        point: 133,
    },
];
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];

impl Public {
    fn identify(&self, naming: Naming) -> Option<CredentialId> {
        let ssh = || {
            let digest = STANDARD_NO_PAD.encode(Sha256::digest(self.ssh_blob()));
            CredentialId::new(CredentialKind::SshKey, &format!("SHA256:{digest}")).ok()
        };
        match (naming, self.spki()) {
            (Naming::Spki, Some(spki)) => {
                let digest = hex(&Sha256::digest(spki));
                CredentialId::scoped(CredentialKind::PublicKey, "spki-sha256", &digest).ok()
            }
            (Naming::Ssh | Naming::Spki, _) => ssh(),
        }
    }

    /// RFC 4253, section 6.6; RFC 5656, section 3.1; RFC 8709, section 4.
    fn ssh_blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        let mut field = |bytes: &[u8]| {
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            blob.extend(len.to_be_bytes());
            blob.extend(bytes);
        };
        // An integer whose first bit is set gets a zero in front: it is not negative.
        let positive = |bytes: &[u8]| {
            let sign = bytes.first().is_some_and(|b| b & 0x80 != 0);
            [vec![0; usize::from(sign)], bytes.to_vec()].concat()
        };
        match self {
            Self::Blob(blob) => return blob.clone(),
            Self::Rsa(n, e) => {
                field(b"ssh-rsa");
                field(&positive(e));
                field(&positive(n));
            }
            Self::Ec(curve, point) => {
                field(format!("ecdsa-sha2-{}", curve.ssh).as_bytes());
                field(curve.ssh.as_bytes());
                field(point);
            }
            Self::Ed25519(key) => {
                field(b"ssh-ed25519");
                field(key);
            }
        }
        blob
    }

    /// SubjectPublicKeyInfo (RFC 5280, section 4.1).
    fn spki(&self) -> Option<Vec<u8>> {
        let (algorithm, key) = match self {
            Self::Blob(_) => return None,
            Self::Rsa(n, e) => {
                let key = tlv(0x30, &[integer(n), integer(e)].concat());
                (vec![tlv(6, OID_RSA), tlv(5, &[])], key)
            }
            Self::Ec(curve, point) => (vec![tlv(6, OID_EC), tlv(6, curve.oid)], point.clone()),
            Self::Ed25519(key) => (vec![tlv(6, OID_ED25519)], key.clone()),
        };
        let bits = tlv(3, &[&[0][..], &key].concat());
        Some(tlv(0x30, &[tlv(0x30, &algorithm.concat()), bits].concat()))
    }
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let sign = bytes.first().is_some_and(|b| b & 0x80 != 0);
    tlv(2, &[vec![0; usize::from(sign)], bytes.to_vec()].concat())
}

/// One DER element.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let len = content.len();
    match u8::try_from(len) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes: Vec<u8> = len
                .to_be_bytes()
                .into_iter()
                .skip_while(|b| *b == 0)
                .collect();
            out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(0x7f));
            out.extend(bytes);
        }
    }
    out.extend(content);
    out
}

/// Reads one DER element: tag, content, what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = if first & 0x80 == 0 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 3 {
            return None;
        }
        let len = rest
            .get(..count)?
            .iter()
            .fold(0, |len, b| (len << 8) | usize::from(*b));
        (len, rest.get(count..)?)
    };
    Some((*tag, rest.get(..len)?, rest.get(len..)?))
}

/// The content of the next element, which must have this tag, and what follows.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

fn unsigned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|b| *b == 0).collect()
}

/// `RSAPrivateKey`: version, modulus, public exponent, ...
fn rsa_public(der: &[u8]) -> Option<Public> {
    let (inside, _) = expect(0x30, der)?;
    let (_, rest) = expect(2, inside)?;
    let (n, rest) = expect(2, rest)?;
    let (e, _) = expect(2, rest)?;
    Some(Public::Rsa(unsigned(n), unsigned(e)))
}

/// `ECPrivateKey`: version, private key, [0] curve, [1] public key.
fn ec_public(der: &[u8], curve: Option<Curve>) -> Option<Public> {
    let (inside, _) = expect(0x30, der)?;
    let (_, rest) = expect(2, inside)?;
    let (_, mut rest) = expect(4, rest)?;
    let mut curve = curve;
    let mut point = None;
    while let Some((tag, content, after)) = element(rest) {
        match tag {
            0xa0 => curve = curve.or(curve_of(content)),
            0xa1 => point = expect(3, content).and_then(|(bits, _)| bits.get(1..)),
            _ => {}
        }
        rest = after;
    }
    let (curve, point) = (curve?, point?);
    (point.len() == curve.point).then(|| Public::Ec(curve, point.to_vec()))
}

fn curve_of(oid: &[u8]) -> Option<Curve> {
    let (oid, _) = expect(6, oid)?;
    CURVES.into_iter().find(|curve| curve.oid == oid)
}

/// `PrivateKeyInfo`: version, algorithm, private key, [0] attributes, [1] public key.
fn pkcs8_public(der: &[u8]) -> Option<Public> {
    let (inside, _) = expect(0x30, der)?;
    let (_, rest) = expect(2, inside)?;
    let (algorithm, rest) = expect(0x30, rest)?;
    let (oid, parameters) = expect(6, algorithm)?;
    let (key, _) = expect(4, rest)?;
    match oid {
        OID_RSA => rsa_public(key),
        OID_EC => ec_public(key, curve_of(parameters)),
        OID_ED25519 => {
            use ring::signature::KeyPair as _;
            let (seed, _) = expect(4, key)?;
            let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
            Some(Public::Ed25519(pair.public_key().as_ref().to_vec()))
        }
        _ => None,
    }
}

/// The public key of `openssh-key-v1`: magic, cipher, kdf, kdf options, number of keys, public key.
fn openssh_public(der: &[u8]) -> Option<&[u8]> {
    let mut rest = der.strip_prefix(b"openssh-key-v1\0")?;
    let mut string = || {
        let (len, after) = rest.split_at_checked(4)?;
        let len = usize::try_from(u32::from_be_bytes(len.try_into().ok()?)).ok()?;
        let (content, after) = after.split_at_checked(len)?;
        rest = after;
        Some(content)
    };
    let (_cipher, _kdf, _options) = (string()?, string()?, string()?);
    let (count, after) = rest.split_at_checked(4)?;
    if count != [0, 0, 0, 1] {
        return None;
    }
    let (len, after) = after.split_at_checked(4)?;
    let len = usize::try_from(u32::from_be_bytes(len.try_into().ok()?)).ok()?;
    after.get(..len).filter(|blob| blob.len() > 8)
}

#[cfg(test)]
mod tests;
