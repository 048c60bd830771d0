//! TLS of listeners that take records: files in, acceptor out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use super::config::TlsFiles;

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A PEM file.
    #[error("{path}: {detail}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Certificate and key do not go together, or the like.
    #[error("TLS: {0}")]
    Config(String),
}

/// An acceptor with the certificate in `files`; with a client authority, only for its clients.
///
/// # Errors
/// When a file cannot be read, or they do not fit together.
pub fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| TlsError::File {
        path: files.key.clone(),
        detail: format!("no private key in PEM: {e}"),
    })?;
    let config = |e: &dyn std::fmt::Display| TlsError::Config(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| config(&e))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| config(&e))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|e| config(&e))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let server = builder
        .with_single_cert(chain, key)
        .map_err(|e| config(&e))?;
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// Where systems keep the authorities that they trust.
pub(super) const SYSTEM_CA: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// A client's settings that trust the authorities in `ca_file`, or else the system's.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
#[cfg(feature = "kafka")]
pub(super) fn client(ca_file: Option<&Path>) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let found = SYSTEM_CA.iter().map(Path::new).find(|path| path.exists());
    let path = ca_file.or(found).ok_or_else(|| {
        TlsError::Config(
            "no authorities to trust: install ca-certificates, or set `ca_file`".to_owned(),
        )
    })?;
    let mut roots = RootCertStore::empty();
    // A system's file may hold some that rustls does not take; none at all is an error.
    let (added, _) = roots.add_parsable_certificates(certificates(path)?);
    if added == 0 {
        return Err(TlsError::File {
            path: path.to_owned(),
            detail: "holds no certificate of an authority".to_owned(),
        });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Config(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |detail: String| TlsError::File {
        path: path.to_owned(),
        detail,
    };
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| file(format!("no certificates in PEM: {e}")))?;
    if all.is_empty() {
        return Err(file("holds no certificate in PEM".to_owned()));
    }
    Ok(all)
}
