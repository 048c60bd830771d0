//! The lab's certificate authority. It is trusted only by processes that are told to trust it (their
//! environment names its file), so the certificates for the provider's names are worth nothing
//! outside the lab.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// A certificate and its key, both PEM. Handed to a stand-in over its standard input.
#[derive(Serialize, Deserialize, Clone)]
pub struct Identity {
    /// The certificate.
    pub cert: String,
    /// The private key.
    pub key: String,
}

/// The authority of one run.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// A fresh authority, valid for a day.
    ///
    /// # Errors
    /// When the key or the certificate cannot be made.
    pub fn new() -> Result<Self> {
        let mut params = base_params("Keytrail lab CA (made for one run)")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("making the lab CA's key")?;
        let pem = params
            .self_signed(&key)
            .context("signing the lab CA")?
            .pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// Signs a certificate for these names and addresses.
    ///
    /// # Errors
    /// When a name is not a valid DNS name.
    pub fn identity(&self, names: &[&str], addresses: &[IpAddr]) -> Result<Identity> {
        let mut params = base_params(names.first().copied().unwrap_or("lab"))?;
        for name in names {
            params
                .subject_alt_names
                .push(SanType::DnsName((*name).try_into()?));
        }
        params
            .subject_alt_names
            .extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Writes `ca.pem` (the authority alone) and `bundle.pem` (the machine's roots and the
    /// authority) and returns their paths.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(PathBuf, PathBuf)> {
        let (ca, bundle) = (dir.join("ca.pem"), dir.join("bundle.pem"));
        std::fs::write(&ca, &self.pem)?;
        let roots =
            std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
        std::fs::write(&bundle, format!("{roots}\n{}", self.pem))?;
        Ok((ca, bundle))
    }
}

fn base_params(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(1);
    Ok(params)
}

impl Identity {
    /// A TLS server's configuration: TLS 1.2 and 1.3, no client certificate.
    ///
    /// # Errors
    /// When the PEM texts do not hold a certificate and its key.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>> {
        let cert = CertificateDer::from_pem_slice(self.cert.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)?;
        Ok(Arc::new(config))
    }
}
