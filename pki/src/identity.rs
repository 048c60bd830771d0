//! Who a certificate speaks for.

use std::fmt;

use rustls::pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::extensions::GeneralName;

/// Start of every identity URI.
const PREFIX: &str = "spiffe://keytrail/tenant/";
/// Longest tenant name or host id.
const MAX_NAME: usize = 63;

/// A tenant name or host id: 1 to 63 lower-case letters, digits, `-`, starting and ending with a
/// letter or digit, so that it needs no escaping anywhere.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// An endpoint, as its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostIdentity {
    /// Which tenant it belongs to.
    pub tenant: String,
    /// Which host it is.
    pub host: String,
}

impl HostIdentity {
    /// The URI that stands in the certificate.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{PREFIX}{}/host/{}", self.tenant, self.host)
    }

    /// Reads such a URI, strictly.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        let (tenant, host) = uri.strip_prefix(PREFIX)?.split_once("/host/")?;
        (is_name(tenant) && is_name(host)).then(|| Self {
            tenant: tenant.to_owned(),
            host: host.to_owned(),
        })
    }
}

/// A certificate's serial number, lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(pub String);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the peer's certificate says. The chain was checked by TLS before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Who it is.
    pub host: HostIdentity,
    /// Which certificate.
    pub serial: Serial,
    /// End of its validity, seconds since the Unix epoch.
    pub not_after_unix: i64,
    /// Start of its validity, seconds since the Unix epoch.
    pub not_before_unix: i64,
}

/// Why a certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Not X.509.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// No URI name, or several.
    #[error("the certificate has {0} URI names, expected one")]
    Names(usize),
    /// A URI of another form.
    #[error("the certificate's URI is no spiffe://keytrail/tenant/<tenant>/host/<host-id>")]
    Form,
}

impl PeerIdentity {
    /// Reads the identity of an end-entity certificate.
    ///
    /// # Errors
    /// When it is not of the one form that the CA gives to hosts.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_rest, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|error| IdentityError::Unreadable(error.to_string()))?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| IdentityError::Unreadable(error.to_string()))?;
        let uris: Vec<&str> = names
            .map(|extension| {
                extension
                    .value
                    .general_names
                    .iter()
                    .filter_map(|name| match name {
                        GeneralName::URI(uri) => Some(*uri),
                        _ => None,
                    })
                    .collect()
            })
            .unwrap_or_default();
        let [uri] = uris.as_slice() else {
            return Err(IdentityError::Names(uris.len()));
        };
        Ok(Self {
            host: HostIdentity::from_uri(uri).ok_or(IdentityError::Form)?,
            serial: Serial(hex(parsed.raw_serial())),
            not_after_unix: parsed.validity().not_after.timestamp(),
            not_before_unix: parsed.validity().not_before.timestamp(),
        })
    }

    /// True once less than a third of the validity is left at `now_unix`.
    #[must_use]
    pub fn should_renew(&self, now_unix: i64) -> bool {
        let whole = self.not_after_unix.saturating_sub(self.not_before_unix);
        self.not_after_unix.saturating_sub(now_unix) < whole / 3
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or(());
        text
    })
}

/// The host id for a new enrolment: the endpoint's name for itself, made harmless, then 32 random
/// bits, so that two machines of one name are two hosts.
#[must_use]
pub fn new_host_id(hostname: &str, random: [u8; 4]) -> String {
    let mut name: String = hostname
        .chars()
        .take(MAX_NAME)
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    // 9 bytes are for `-` and the random part.
    name.truncate(MAX_NAME - 9);
    let name = name.trim_matches('-');
    let name = if name.is_empty() { "host" } else { name };
    format!("{name}-{}", hex(&random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read_strictly() {
        for (uri, expected) in [
            (
                "spiffe://keytrail/tenant/default/host/web-1-00c0ffee",
                Some(("default", "web-1-00c0ffee")),
            ),
            ("spiffe://keytrail/tenant/default/host/", None),
            ("spiffe://keytrail/tenant//host/a", None),
            ("spiffe://keytrail/tenant/a/host/b/host/c", None),
            ("spiffe://keytrail/tenant/A/host/b", None),
            ("spiffe://evil/tenant/a/host/b", None),
            ("spiffe://keytrail/tenant/a/host/b?x", None),
            ("https://keytrail/tenant/a/host/b", None),
        ] {
            let found = HostIdentity::from_uri(uri);
            let expected = expected.map(|(tenant, host)| HostIdentity {
                tenant: tenant.to_owned(),
                host: host.to_owned(),
            });
            assert_eq!(found, expected, "{uri}");
            if let Some(found) = found {
                assert_eq!(found.uri(), uri);
            }
        }
    }

    #[test]
    fn any_hostname_gives_a_valid_id() {
        for (hostname, expected) in [
            ("Web-1.Example.COM", "web-1-example-com-00c0ffee"),
            ("", "host-00c0ffee"),
            ("../../etc", "etc-00c0ffee"),
            ("ünï\u{202e}", "n-00c0ffee"),
        ] {
            let id = new_host_id(hostname, [0, 0xc0, 0xff, 0xee]);
            assert_eq!(id, expected);
            assert!(is_name(&id));
        }
        assert!(is_name(&new_host_id(&"x".repeat(500), [1; 4])));
    }
}
