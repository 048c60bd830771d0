//! The endpoint's half of enrolment: a key that never leaves, and a request to certify it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use thiserror::Error;

/// The key or the request could not be made.
#[derive(Debug, Error)]
#[error("cannot make a key and a certificate request: {0}")]
pub struct RequestError(#[from] rcgen::Error);

/// A fresh key (ECDSA P-256) and the request that goes with it.
pub struct KeyRequest {
    key_pem: String,
    csr_pem: String,
}

impl std::fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRequest").finish_non_exhaustive()
    }
}

impl KeyRequest {
    /// Makes a key and a request without any name: names are the server's to give.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate() -> Result<Self, RequestError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr_pem = params.serialize_request(&key)?.pem()?;
        Ok(Self {
            key_pem: key.serialize_pem(),
            csr_pem,
        })
    }

    /// What goes to the correlator.
    #[must_use]
    pub fn csr_pem(&self) -> &str {
        &self.csr_pem
    }

    /// The private key, PKCS #8 PEM: for a 0600 file, nothing else.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}
