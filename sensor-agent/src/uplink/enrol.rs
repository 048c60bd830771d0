//! The sensor's identity: made once with a join token, kept in one 0600 file, renewed over mTLS.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use keytrail_pki::ca::Certified;
use keytrail_pki::files::{self, FileError};
use keytrail_pki::identity::{IdentityError, PeerIdentity};
use keytrail_pki::request::{KeyRequest, RequestError};
use keytrail_pki::tls::{self, TlsError};
use keytrail_pki::token::JoinToken;
use keytrail_proto::wire;
use keytrail_proto::wire::enrolment_client::EnrolmentClient;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tracing::{info, warn};

use super::connect::{self, ConnectError, Connection};

/// Key and certificate chain, PEM, in the state folder. One file, so that they always belong
/// together.
const FILE: &str = "identity.pem";

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its content.
    #[error("{} cannot be used ({why}): remove it and enrol again", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Not enrolled, and no token to do it with.
    #[error("this sensor is not enrolled ({0}) and has no join token: ask the correlator for one")]
    NoToken(String),
    /// Key or request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The connection.
    #[error("cannot enrol: {0}")]
    Connect(#[from] ConnectError),
    /// The correlator's answer.
    #[error("the correlator does not enrol this sensor: {0}")]
    Refused(String),
    /// What it answered.
    #[error("the correlator's answer cannot be used: {0}")]
    Answer(String),
}

/// A usable identity.
pub struct Identity {
    chain_pem: String,
    key_pem: String,
    peer: PeerIdentity,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The host id that the correlator gave.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.peer.host.host
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.peer.host.tenant
    }

    /// Serial number of the certificate, as revocations name it.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.peer.serial.0
    }

    pub(super) fn should_renew(&self, now_unix: i64) -> bool {
        self.peer.should_renew(now_unix)
    }

    pub(super) fn certified(&self) -> Result<Certified, TlsError> {
        tls::certified(&self.chain_pem, &self.key_pem)
    }

    /// Reads the identity of a state folder.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn load(state_dir: &Path) -> Result<Self, EnrolError> {
        let path = state_dir.join(FILE);
        let text = files::read_if_there(&path)?
            .ok_or_else(|| EnrolError::NoToken("no identity.pem".to_owned()))?;
        Self::parse(&text, &text).map_err(|why| EnrolError::Content { path, why })
    }

    fn parse(chain_pem: &str, key_pem: &str) -> Result<Self, String> {
        let certified =
            tls::certified(chain_pem, key_pem).map_err(|error: TlsError| error.to_string())?;
        let first = certified.chain.first().ok_or("no certificate")?;
        let peer = PeerIdentity::of(first).map_err(|error: IdentityError| error.to_string())?;
        Ok(Self {
            chain_pem: chain_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            peer,
        })
    }

    fn store(
        state_dir: &Path,
        request: &KeyRequest,
        response: wire::EnrolResponse,
    ) -> Result<Self, EnrolError> {
        let wire::EnrolResponse {
            certificate_chain_pem,
            host_id,
            tenant,
            not_after_unix: _,
        } = response;
        let identity =
            Self::parse(&certificate_chain_pem, request.key_pem()).map_err(EnrolError::Answer)?;
        if identity.host() != host_id || identity.tenant() != tenant {
            return Err(EnrolError::Answer(
                "certificate and answer name different hosts".to_owned(),
            ));
        }
        let text = format!("{}{certificate_chain_pem}", request.key_pem());
        files::write(&state_dir.join(FILE), text.as_bytes(), 0o600)?;
        Ok(identity)
    }
}

/// What enrolment needs.
#[derive(Debug)]
pub struct Enrolment<'a> {
    /// Folder of the identity; made when it is not there.
    pub state_dir: &'a Path,
    /// The correlator, `host:port`.
    pub address: &'a str,
    /// The pinned CA, PEM.
    pub ca_pem: &'a str,
    /// The join token; not needed once enrolled.
    pub token: Option<&'a JoinToken>,
    /// This machine's own name for itself.
    pub hostname: &'a str,
}

/// The identity of the state folder, or a new one when there is none, it has expired or it is of
/// another CA.
///
/// # Errors
/// When it must enrol and cannot.
pub async fn ensure(enrolment: &Enrolment<'_>) -> Result<Identity, EnrolError> {
    files::private_folder(enrolment.state_dir)?;
    let why = match Identity::load(enrolment.state_dir) {
        Ok(identity) => match unusable(&identity, enrolment.ca_pem) {
            None => return Ok(identity),
            Some(why) => why,
        },
        Err(EnrolError::NoToken(why) | EnrolError::Content { why, .. }) => why,
        Err(error) => return Err(error),
    };
    let Some(token) = enrolment.token else {
        return Err(EnrolError::NoToken(why));
    };
    let identity = enrol(enrolment, token).await?;
    info!(host = identity.host(), "enrolled");
    Ok(identity)
}

fn unusable(identity: &Identity, ca_pem: &str) -> Option<String> {
    if identity.peer.not_after_unix <= Timestamp::now().as_second() {
        return Some("its certificate has expired".to_owned());
    }
    match tls::is_issued_by(&identity.chain_pem, ca_pem) {
        Ok(true) => None,
        Ok(false) => Some("its certificate is of another CA".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

async fn enrol(enrolment: &Enrolment<'_>, token: &JoinToken) -> Result<Identity, EnrolError> {
    let request = KeyRequest::generate()?;
    let connection = connect::connect(enrolment.address, enrolment.ca_pem, None).await?;
    let response = EnrolmentClient::new(connection.channel.clone())
        .enrol(wire::EnrolRequest {
            join_token: token.reveal().to_owned(),
            csr_pem: request.csr_pem().to_owned(),
            hostname: enrolment.hostname.to_owned(),
            machine_digest: machine_digest(),
        })
        .await
        .map_err(|status| EnrolError::Refused(status.message().to_owned()))?;
    Identity::store(enrolment.state_dir, &request, response.into_inner())
}

/// Renews over a connection that was made with `identity`.
pub(super) async fn renew(
    state_dir: &Path,
    connection: &Connection,
    identity: &Identity,
) -> Result<Identity, EnrolError> {
    let request = KeyRequest::generate()?;
    let response = EnrolmentClient::new(connection.channel.clone())
        .renew(wire::RenewRequest {
            csr_pem: request.csr_pem().to_owned(),
        })
        .await
        .map_err(|status| EnrolError::Refused(status.message().to_owned()))?;
    let renewed = Identity::store(state_dir, &request, response.into_inner())?;
    if renewed.host() != identity.host() {
        warn!(
            was = identity.host(),
            is = renewed.host(),
            "the correlator changed this host's id"
        );
    }
    Ok(renewed)
}

/// SHA-256 of the machine id under a prefix of ours: machine-id(5) asks not to reveal the id itself.
fn machine_digest() -> Vec<u8> {
    match std::fs::read_to_string("/etc/machine-id") {
        Ok(id) if !id.trim().is_empty() => {
            let mut hasher = Sha256::new();
            hasher.update(b"keytrail machine\0");
            hasher.update(id.trim());
            hasher.finalize().to_vec()
        }
        Ok(_) | Err(_) => Vec::new(),
    }
}
