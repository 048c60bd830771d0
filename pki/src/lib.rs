//! Identities: the CA, what it certifies, who may ask for it, and the TLS settings that follow.
//!
//! | file (in the PKI folder) | what | mode |
//! |---|---|---|
//! | `ca.crt` | CA certificate: what sensors pin | 0644 |
//! | `ca.key` | CA key, PKCS #8 PEM | 0600 |
//! | `join-tokens` | SHA-256 of each join token, its end, its uses left | 0600 |
//! | `revoked` | serial numbers of revoked certificates, one a line | 0600 |
//!
//! The correlator's own certificate is made anew at each start and kept in memory.
//!
//! Architecture invariant (PK-1): a host's name is the server's to give. Nothing that a certificate
//! signing request asks for ends up in a certificate, except the public key.
//!
//! Architecture invariant (PK-2): private keys and join tokens never appear in `Debug` output or an
//! error text, and are on disk only as 0600 files (tokens only as hashes).

pub mod ca;
pub mod fault;
pub mod files;
pub mod identity;
pub mod request;
pub mod revocation;
pub mod tls;
pub mod token;
