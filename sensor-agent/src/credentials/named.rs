//! Files that are known by their name, or by a public part that stands beside the secret.

use std::path::Path;

use keytrail_model::credential::{CredentialId, CredentialKind};

use super::Findings;
use super::structured::Field;

/// A store that is not looked into. Its path is part of its name: every account has its own.
pub(super) fn store(store: Option<&str>, path: &Path, findings: &mut Findings<'_>) {
    let name: String = path
        .to_string_lossy()
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    let name = crate::redact::redact_text(name.trim_start_matches('/'));
    let scope = store.unwrap_or("file");
    let id = CredentialId::scoped(CredentialKind::CredentialStore, scope, &name);
    id.into_iter().for_each(|id| findings.push(id, None));
}

/// `<keygrip>.key` in `private-keys-v1.d` (GnuPG, agent protocol: 40 hex digits).
pub(super) fn gpg(path: &Path, findings: &mut Findings<'_>) {
    let stem = path
        .file_stem()
        .map(|s| s.to_string_lossy().to_ascii_lowercase());
    let grip = stem.filter(|s| s.len() == 40 && s.bytes().all(|b| b.is_ascii_hexdigit()));
    if let Some(grip) = grip {
        public("gpg-keygrip", &grip, findings);
    }
}

/// `UTC--<time>--<address>` (go-ethereum, key store).
pub(super) fn ethereum(path: &Path, findings: &mut Findings<'_>) {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().to_ascii_lowercase());
    let address = name.as_deref().and_then(|n| n.rsplit("--").next());
    let address = address.map(|a| a.trim_start_matches("0x").trim_end_matches(".json"));
    if let Some(address) =
        address.filter(|a| a.len() == 40 && a.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        public("ethereum", &format!("0x{address}"), findings);
    }
}

/// `# public key: age1...`, as `age-keygen` writes it; without the comment, the key's keyed hash.
pub(super) fn age(bytes: &[u8], findings: &mut Findings<'_>) {
    let mut recipient: Option<String> = None;
    for line in bytes.split(|b| *b == b'\n').map(<[u8]>::trim_ascii) {
        let text = std::str::from_utf8(line).unwrap_or_default();
        if let Some((_, key)) = text
            .split_once("public key:")
            .filter(|_| text.starts_with('#'))
        {
            recipient = Some(key.trim().to_owned());
        } else if text.starts_with("AGE-SECRET-KEY-") {
            match recipient
                .take()
                .filter(|r| r.starts_with("age1") && r.len() < 128)
            {
                Some(recipient) => public("age", &recipient, findings),
                None => findings.secret("age-key", line, None, &[]),
            }
        }
    }
}

/// `[n, n, ...]`: 32 bytes of seed and 32 of public key, which in base 58 is the address.
pub(super) fn solana(bytes: &[u8], findings: &mut Findings<'_>) {
    let Ok(numbers) = serde_json::from_slice::<Vec<u8>>(bytes).map(zeroize::Zeroizing::new) else {
        findings.scan(bytes, None);
        return;
    };
    if let Some(address) = numbers.get(32..64).filter(|_| numbers.len() == 64) {
        public("solana", &base58(address), findings);
    }
}

fn public(scope: &str, id: &str, findings: &mut Findings<'_>) {
    let id = CredentialId::scoped(CredentialKind::PublicKey, scope, id);
    id.into_iter().for_each(|id| findings.push(id, None));
}

/// Base 58 as Bitcoin writes it.
fn base58(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut digits: Vec<u8> = Vec::new();
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = u8::try_from(carry % 58).unwrap_or(0);
            carry /= 58;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 58).unwrap_or(0));
            carry /= 58;
        }
    }
    let zeros = bytes.iter().take_while(|b| **b == 0).map(|_| 0);
    zeros
        .chain(digits.into_iter().rev())
        .filter_map(|digit| DIGITS.get(usize::from(digit)).copied().map(char::from))
        .collect()
}

/// Elements by name: `<password>...</password>`. The nearest `host` element before one says which
/// server it is for.
pub(super) fn xml(bytes: &[u8], fields: &[Field], findings: &mut Findings<'_>) {
    let text = String::from_utf8_lossy(bytes);
    for field in fields {
        let (open, close) = (format!("<{}", field.at), format!("</{}>", field.at));
        let mut from = 0;
        while let Some(at) = text.get(from..).and_then(|rest| rest.find(&open)) {
            let start = from + at;
            from = start + open.len();
            let Some(rest) = text.get(from..) else { break };
            // `<pass` must not find `<passive>`.
            if !rest.starts_with(|c: char| c == '>' || c.is_whitespace()) {
                continue;
            }
            let Some(value) = rest.find('>').and_then(|gt| {
                let inside = rest.get(gt + 1..)?;
                inside.get(..inside.find(&close)?)
            }) else {
                continue;
            };
            let host = field.host.as_ref().and_then(|host| {
                let before = text.get(..start)?;
                let at = before.rfind(&format!("<{host}>"))? + host.len() + 2;
                before.get(at..)?.split('<').next()
            });
            let hosts: Vec<&str> = field.hosts.iter().map(String::as_str).chain(host).collect();
            let kind = field.kind.as_deref().unwrap_or("secret");
            findings.secret(kind, value.as_bytes(), host.or(Some(&field.at)), &hosts);
        }
    }
    findings.scan(bytes, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_in_base_58() {
        // The system program's address is 32 ones; the rest from the base-58 draft's test vectors.
        assert_eq!(base58(&[0; 32]), "1".repeat(32));
        assert_eq!(base58(b"Hello World!"), "2NEpo7TZRRrLZSi2U");
    }
}
