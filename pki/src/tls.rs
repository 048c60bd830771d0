//! TLS settings: version 1.3, one CA, no session resumption.
//!
//! Resumption is off because a resumed session does not check the client's certificate again: an
//! expired or revoked one would go on working.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;

use crate::ca::Certified;

/// What went wrong while setting TLS up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The operating system gives no randomness.
    #[error("the operating system gives no random numbers")]
    Random,
    /// Not PEM, or not what was expected in it.
    #[error("no usable {what} in PEM form: {why}")]
    Pem {
        /// What was expected.
        what: &'static str,
        /// Why it is not.
        why: String,
    },
    /// rustls does not accept the material.
    #[error("the TLS settings are not usable: {0}")]
    Settings(String),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Random bytes of the operating system.
///
/// # Errors
/// When it gives none.
pub fn random<const N: usize>() -> Result<[u8; N], TlsError> {
    let mut bytes = [0; N];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_no_detail| TlsError::Random)?;
    Ok(bytes)
}

/// The certificates of a PEM text, at least one.
///
/// # Errors
/// When there is none, or one cannot be read.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem {
            what: "certificate",
            why: error.to_string(),
        })?;
    if all.is_empty() {
        return Err(TlsError::Pem {
            what: "certificate",
            why: "there is none".to_owned(),
        });
    }
    Ok(all)
}

/// A certificate chain and its key from PEM texts.
///
/// # Errors
/// When either cannot be read.
pub fn certified(chain_pem: &str, key_pem: &str) -> Result<Certified, TlsError> {
    Ok(Certified {
        chain: certificates(chain_pem)?,
        key: PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| TlsError::Pem {
            what: "private key",
            why: error.to_string(),
        })?,
    })
}

fn roots(ca: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in ca {
        roots
            .add(certificate.clone())
            .map_err(|error| TlsError::Settings(format!("CA certificate: {error}")))?;
    }
    Ok(roots)
}

/// Settings of the correlator's port: a client certificate is checked when there is one; whether one
/// is needed is decided per method.
///
/// # Errors
/// When the material is not usable.
pub fn server_config(
    ca: &CertificateDer<'static>,
    server: Certified,
) -> Result<Arc<ServerConfig>, TlsError> {
    let settings = |error: &dyn std::fmt::Display| TlsError::Settings(error.to_string());
    let clients = WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots(std::slice::from_ref(ca))?),
        provider(),
    )
    .allow_unauthenticated()
    .build()
    .map_err(|error| settings(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| settings(&error))?
        .with_client_cert_verifier(clients)
        .with_single_cert(server.chain, server.key)
        .map_err(|error| settings(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Settings of a sensor: only the pinned CA counts; `host` is absent during enrolment.
///
/// # Errors
/// When the material is not usable.
pub fn client_config(ca_pem: &str, host: Option<Certified>) -> Result<Arc<ClientConfig>, TlsError> {
    let settings = |error: &dyn std::fmt::Display| TlsError::Settings(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| settings(&error))?
        .with_root_certificates(roots(&certificates(ca_pem)?)?);
    let mut config = match host {
        Some(host) => builder
            .with_client_auth_cert(host.chain, host.key)
            .map_err(|error| settings(&error))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Whether the first certificate of a chain names the CA as its issuer. Every CA has a name of its
/// own, so this tells an old CA from the present one; it proves nothing, TLS does that.
///
/// # Errors
/// When either cannot be read.
pub fn is_issued_by(chain_pem: &str, ca_pem: &str) -> Result<bool, TlsError> {
    let unreadable = |error: &dyn std::fmt::Display| TlsError::Pem {
        what: "certificate",
        why: error.to_string(),
    };
    let (chain, ca) = (certificates(chain_pem)?, certificates(ca_pem)?);
    let (Some(first), Some(ca)) = (chain.first(), ca.first()) else {
        return Ok(false);
    };
    let (_, first) = x509_parser::parse_x509_certificate(first).map_err(|e| unreadable(&e))?;
    let (_, ca) = x509_parser::parse_x509_certificate(ca).map_err(|e| unreadable(&e))?;
    Ok(first.issuer() == ca.subject())
}
