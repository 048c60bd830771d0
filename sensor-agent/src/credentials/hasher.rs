//! Identifiers of secrets whose provider prints none: HMAC-SHA256 with a key of the tenant's.
//!
//! A plain hash of a password or a short token can be guessed from outside; a keyed one cannot,
//! and the key never leaves the endpoint. Every host of a tenant that is given the same key
//! (`tenant_key_file` of the settings) gives the same identifier to the same secret. A host that
//! is given none makes a key of its own: its identifiers still tell the same secret in two places
//! of that host, and mean nothing elsewhere.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac as _};
use keytrail_model::credential::{CredentialId, CredentialKind};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::files::FsView;

/// Fewest bytes of a key: what `openssl rand -hex 32` gives is twice as many.
pub const MIN_KEY: usize = 32;
/// Longest key file read.
const MAX_KEY_FILE: u64 = 4096;
/// The host's own key in the state folder.
const OWN_KEY: &str = "secret-hash-key";

/// Why there is no usable key.
#[derive(Debug, Error)]
pub enum HasherError {
    /// The file cannot be read or made.
    #[error("the key for hashing secrets, {path}: {source}; see `tenant_key_file` of the settings")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Too short to withstand guessing.
    #[error(
        "the key for hashing secrets, {path}: {len} bytes, at least {MIN_KEY} are needed; make one with `openssl rand -hex 32`"
    )]
    Short {
        /// Which file.
        path: PathBuf,
        /// How long it is.
        len: usize,
    },
}

/// Hashes secrets with one key. Printed without it; the key is overwritten when dropped.
#[derive(Clone)]
pub struct Hasher {
    key: Zeroizing<Vec<u8>>,
    shared: bool,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.describe())
    }
}

impl Hasher {
    /// With this key; `shared`: every host of the tenant has it.
    #[must_use]
    pub fn new(key: &[u8], shared: bool) -> Self {
        Self {
            key: Zeroizing::new(key.to_vec()),
            shared,
        }
    }

    /// With a key that nobody else has and that is gone with this process. For tests and for
    /// commands that keep no state.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self::new(&random_key(), false)
    }

    /// The key of `file`, or the host's own in `state_dir`, made at first use (mode 0600).
    ///
    /// White space around the key is no part of it.
    ///
    /// # Errors
    /// [`HasherError`], naming the file.
    pub fn load(file: Option<&Path>, state_dir: &Path) -> Result<Self, HasherError> {
        if let Some(path) = file {
            return Ok(Self::new(&read_key(path)?, true));
        }
        let path = state_dir.join(OWN_KEY);
        let fail = |source| HasherError::Io {
            path: path.clone(),
            source,
        };
        if !path.try_exists().map_err(fail)? {
            // Whole or not at all: a key cut by a crash would change every identifier later.
            let fresh = path.with_extension("new");
            let mut options = std::fs::OpenOptions::new();
            let mut made = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)
                .map_err(fail)?;
            made.write_all(&random_key()).map_err(fail)?;
            made.sync_all().map_err(fail)?;
            std::fs::rename(&fresh, &path).map_err(fail)?;
        }
        Ok(Self::new(&read_key(&path)?, false))
    }

    /// The key, for the process that parses on behalf of this one.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// True when other hosts of the tenant give the same identifiers.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Whose key it is, for people.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        if self.shared {
            "the tenant's key"
        } else {
            "a key of this host only"
        }
    }

    /// `keyed-hash:<kind>/<HMAC-SHA256(key, secret), lower-case hex>`. `None` when `kind` is no
    /// type of secret (lower-case letters, digits, `-`, `.`, `_`).
    #[must_use]
    pub fn identify(&self, kind: &str, secret: &[u8]) -> Option<CredentialId> {
        // HMAC takes keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(secret);
        let hex = hex(&mac.finalize().into_bytes());
        CredentialId::scoped(CredentialKind::KeyedHash, kind, &hex).ok()
    }
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random_key() -> Zeroizing<Vec<u8>> {
    // Two random UUIDs carry 244 bits from the system's generator.
    let mut text = Zeroizing::new(Vec::with_capacity(64));
    for _ in 0..2 {
        text.extend_from_slice(uuid::Uuid::new_v4().simple().to_string().as_bytes());
    }
    text
}

fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, HasherError> {
    let bytes = FsView::host()
        .read(path, MAX_KEY_FILE)
        .map(Zeroizing::new)
        .map_err(|source| HasherError::Io {
            path: path.to_owned(),
            source,
        })?;
    let key = Zeroizing::new(bytes.trim_ascii().to_vec());
    if key.len() < MIN_KEY {
        return Err(HasherError::Short {
            path: path.to_owned(),
            len: key.len(),
        });
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_hash_is_the_documented_construction() {
        // `printf 'what do ya want for nothing?' | openssl dgst -sha256 -hmac Jefe` (RFC 4231, case 2)
        let id = Hasher::new(b"Jefe", true)
            .identify("npm-token", b"what do ya want for nothing?")
            .unwrap();
        assert_eq!(
            id.to_string(),
            "keyed-hash:npm-token/5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(Hasher::new(b"Jefe", true).identify("No Type", b"x"), None);
    }

    #[test]
    fn a_host_without_the_tenants_key_makes_its_own_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let of = |hasher: &Hasher| hasher.identify("x", b"secret").unwrap();
        let first = Hasher::load(None, dir.path()).unwrap();
        assert_eq!(of(&first), of(&Hasher::load(None, dir.path()).unwrap()));
        assert_ne!(of(&first), of(&Hasher::ephemeral()));
        let mode = std::fs::metadata(dir.path().join(OWN_KEY))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!first.is_shared());
        assert_eq!(format!("{first:?}"), "Hasher(a key of this host only)");

        let file = dir.path().join("tenant");
        std::fs::write(&file, format!("{}\n", "k".repeat(64))).unwrap();
        let shared = Hasher::load(Some(&file), dir.path()).unwrap();
        assert_eq!(
            of(&shared),
            of(&Hasher::new("k".repeat(64).as_bytes(), true))
        );
        std::fs::write(&file, "short\n").unwrap();
        let error = Hasher::load(Some(&file), dir.path())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("5 bytes") && error.contains("openssl rand"),
            "{error}"
        );
    }
}
