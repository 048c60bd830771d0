//! The certificate authority.

use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use crate::files::{self, FileError};
use crate::identity::{HostIdentity, hex};
use crate::tls::{self, TlsError};

/// Certificate file in the PKI folder.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// Key file in the PKI folder.
pub const CA_KEY: &str = "ca.key";

/// A CA lives ten years.
const CA_DAYS: i64 = 3650;
/// Certificates begin a little earlier, for clocks that are behind.
const BACKDATE: Duration = Duration::minutes(10);

/// What went wrong with the CA.
#[derive(Debug, Error)]
pub enum CaError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Certificate without key, or the other way round.
    #[error(
        "{present} is there but {absent} is not: restore it, or remove both to make a new CA \
         (every sensor must then enrol again)"
    )]
    Half {
        /// The file that exists.
        present: String,
        /// The file that does not.
        absent: String,
    },
    /// The files' content.
    #[error("the CA in {folder} cannot be used: {source}")]
    Content {
        /// PKI folder.
        folder: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A name for the server certificate.
    #[error("`{name}` cannot stand in a certificate: use a DNS name or an IP address")]
    Name {
        /// The name.
        name: String,
    },
    /// Signing.
    #[error("cannot make a certificate: {0}")]
    Sign(rcgen::Error),
    /// The request of an endpoint. The endpoint is at fault.
    #[error("csr_pem: {0}")]
    Request(String),
    /// Randomness or PEM.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Start.
    pub not_before: OffsetDateTime,
    /// End.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// Valid from (a little before) `now_unix` (seconds since the Unix epoch) for so many days.
    #[must_use]
    pub fn days(now_unix: i64, days: i64) -> Self {
        let now =
            OffsetDateTime::from_unix_timestamp(now_unix).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Self {
            not_before: now - BACKDATE,
            not_after: now + Duration::days(days),
        }
    }

    /// End, seconds since the Unix epoch.
    #[must_use]
    pub fn ends_unix(&self) -> i64 {
        self.not_after.unix_timestamp()
    }
}

/// A certificate authority with its key.
pub struct Ca {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

/// A certificate with the key that belongs to it, for a TLS configuration.
pub struct Certified {
    /// End-entity certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for Certified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certified").finish_non_exhaustive()
    }
}

impl Ca {
    /// Loads the CA of a PKI folder, or makes one there.
    ///
    /// # Errors
    /// When the files cannot be used; nothing is overwritten.
    pub fn load_or_create(folder: &Path, now_unix: i64) -> Result<Self, CaError> {
        let certificate_path = folder.join(CA_CERTIFICATE);
        let key_path = folder.join(CA_KEY);
        let half = |present: &Path, absent: &Path| CaError::Half {
            present: present.display().to_string(),
            absent: absent.display().to_string(),
        };
        match (
            files::read_if_there(&certificate_path)?,
            files::read_if_there(&key_path)?,
        ) {
            (Some(certificate), Some(key)) => {
                Self::from_pem(certificate, &key).map_err(|source| CaError::Content {
                    folder: folder.display().to_string(),
                    source,
                })
            }
            (None, None) => {
                files::private_folder(folder)?;
                let (certificate, key) = make_ca(now_unix)?;
                files::write(&key_path, key.as_bytes(), 0o600)?;
                files::write(&certificate_path, certificate.as_bytes(), 0o644)?;
                Self::from_pem(certificate, &key).map_err(CaError::Sign)
            }
            (Some(_), None) => Err(half(&certificate_path, &key_path)),
            (None, Some(_)) => Err(half(&key_path, &certificate_path)),
        }
    }

    fn from_pem(certificate_pem: String, key_pem: &str) -> Result<Self, rcgen::Error> {
        use rustls::pki_types::pem::PemObject as _;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_not_pem| rcgen::Error::CouldNotParseCertificate)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, KeyPair::from_pem(key_pem)?)?;
        Ok(Self {
            certificate,
            certificate_pem,
            issuer,
        })
    }

    /// The CA certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA certificate in PEM: what sensors pin.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Certifies a fresh key for the correlator under `names` (DNS names or IP addresses) and the
    /// loopback names.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn certify_server(
        &self,
        names: &[String],
        validity: Validity,
    ) -> Result<Certified, CaError> {
        let mut params = end_entity("Keytrail correlator", validity)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let loopback = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        for name in loopback.iter().chain(names) {
            let san = match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_not_an_address) => SanType::DnsName(
                    name.clone()
                        .try_into()
                        .map_err(|_error: rcgen::Error| CaError::Name { name: name.clone() })?,
                ),
            };
            if !params.subject_alt_names.contains(&san) {
                params.subject_alt_names.push(san);
            }
        }
        let key = KeyPair::generate().map_err(CaError::Sign)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(CaError::Sign)?;
        Ok(Certified {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        })
    }

    /// Certifies the key of an endpoint's request under `identity`; everything else that the request
    /// asks for is ignored (PK-1). Returns the certificate in PEM.
    ///
    /// # Errors
    /// [`CaError::Request`] when the request cannot be read, its signature is wrong or its key is of
    /// a kind that is not accepted (ECDSA P-256, P-384 and Ed25519 are).
    pub fn certify_host(
        &self,
        csr_pem: &str,
        identity: &HostIdentity,
        validity: Validity,
    ) -> Result<String, CaError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|error| CaError::Request(error.to_string()))?;
        let accepted = [
            &PKCS_ECDSA_P256_SHA256,
            &PKCS_ECDSA_P384_SHA384,
            &PKCS_ED25519,
        ];
        if !accepted.contains(&request.public_key.algorithm()) {
            return Err(CaError::Request(
                "the key must be ECDSA P-256, P-384 or Ed25519".to_owned(),
            ));
        }
        let mut params = end_entity(&identity.host, validity)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = identity.uri().try_into().map_err(CaError::Sign)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let certificate = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(CaError::Sign)?;
        Ok(certificate.pem())
    }
}

fn make_ca(now_unix: i64) -> Result<(String, String), CaError> {
    let mut params = CertificateParams::default();
    let validity = Validity::days(now_unix, CA_DAYS);
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    // A name of its own: two CAs must never be taken for one another.
    let name = format!("Keytrail CA {}", hex(&tls::random::<4>()?));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Sign)?;
    let certificate = params.self_signed(&key).map_err(CaError::Sign)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn end_entity(common_name: &str, validity: Validity) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    // 128 random bits; the first byte is kept positive and not zero (RFC 5280, 4.1.2.2).
    let mut serial = tls::random::<16>()?;
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::identity::PeerIdentity;
    use crate::request::KeyRequest;

    fn identity() -> HostIdentity {
        HostIdentity {
            tenant: "default".to_owned(),
            host: "web-00c0ffee".to_owned(),
        }
    }

    #[test]
    fn a_request_gets_the_servers_name_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let ca = Ca::load_or_create(folder.path(), now).unwrap();
        // A request that asks for another host's identity.
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(
            "spiffe://keytrail/tenant/default/host/victim"
                .try_into()
                .unwrap(),
        ));
        let key = KeyPair::generate().unwrap();
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        let pem = ca
            .certify_host(&csr, &identity(), Validity::days(now, 30))
            .unwrap();
        let chain = tls::certificates(&pem).unwrap();
        let peer = PeerIdentity::of(&chain[0]).unwrap();
        assert_eq!(peer.host, identity());
        let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);
        assert!(!parsed.is_ca());
        assert_eq!(peer.serial.0.len(), 32);
        assert!(!peer.should_renew(now));
        assert!(peer.should_renew(now + 21 * 86400));
    }

    #[test]
    fn a_broken_request_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let ca = Ca::load_or_create(folder.path(), now).unwrap();
        let good = KeyRequest::generate().unwrap();
        let swapped = {
            let mut csr = good.csr_pem().to_owned();
            let at = csr.len() / 2;
            let other = if &csr[at..=at] == "A" { "B" } else { "A" };
            csr.replace_range(at..=at, other);
            csr
        };
        for bad in ["", "junk", swapped.as_str(), ca.certificate_pem()] {
            let error = ca
                .certify_host(bad, &identity(), Validity::days(now, 1))
                .unwrap_err();
            assert!(matches!(error, CaError::Request(_)), "{error}");
        }
    }

    #[test]
    fn keys_are_private_and_a_ca_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let first = Ca::load_or_create(folder.path(), now).unwrap();
        let again = Ca::load_or_create(folder.path(), now).unwrap();
        assert_eq!(first.certificate_pem(), again.certificate_pem());
        let mode = std::fs::metadata(folder.path().join(CA_KEY))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::remove_file(folder.path().join(CA_KEY)).unwrap();
        let error = Ca::load_or_create(folder.path(), now).unwrap_err();
        assert!(matches!(error, CaError::Half { .. }), "{error}");
    }
}
