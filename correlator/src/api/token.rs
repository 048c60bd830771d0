//! The API's bearer token: made at the first start, kept in a file that only its owner can read.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use thiserror::Error;
use uuid::Uuid;

/// Name of the file inside the data directory.
pub const FILE_NAME: &str = "api-token";
/// Shortest token accepted from a file that someone wrote themselves.
const MIN_CHARS: usize = 32;

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("API token file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds no usable token.
    #[error(
        "API token file {path} holds fewer than 32 characters; remove it and restart for a new one"
    )]
    TooShort {
        /// Which file.
        path: PathBuf,
    },
}

/// The token, as its hash: the token itself is not kept in memory.
#[derive(Clone)]
pub struct ApiToken {
    hash: [u8; 32],
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(hidden)")
    }
}

impl ApiToken {
    /// A token from its text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            hash: Sha256::digest(text.as_bytes()).into(),
        }
    }

    /// Reads the token file of `data_dir`, makes it when absent.
    ///
    /// # Errors
    /// When the file is unusable.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, TokenError> {
        Self::load_or_create_file(&data_dir.join(FILE_NAME))
    }

    /// Reads this token file, makes it when absent.
    ///
    /// # Errors
    /// When the file is unusable.
    pub fn load_or_create_file(path: &Path) -> Result<Self, TokenError> {
        let path = path.to_owned();
        match read(&path) {
            Err(TokenError::File { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                let text = fresh();
                let file = |source| TokenError::File {
                    path: path.clone(),
                    source,
                };
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()))
                    .map_err(file)?;
                Ok(Self::new(&text))
            }
            Err(error) => Err(error),
            Ok(text) => Ok(Self::new(&text)),
        }
    }

    /// Compares without telling by its time where the difference is: hashes of equal length, every
    /// byte looked at.
    #[must_use]
    pub fn matches(&self, candidate: &str) -> bool {
        let other: [u8; 32] = Sha256::digest(candidate.as_bytes()).into();
        let difference = self
            .hash
            .iter()
            .zip(other)
            .fold(0_u8, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

/// Reads a token file, for the API's clients.
///
/// # Errors
/// When the file is unusable.
pub fn read(path: &Path) -> Result<String, TokenError> {
    let text = std::fs::read_to_string(path).map_err(|source| TokenError::File {
        path: path.to_owned(),
        source,
    })?;
    let text = text.trim();
    if text.len() < MIN_CHARS {
        return Err(TokenError::TooShort {
            path: path.to_owned(),
        });
    }
    Ok(text.to_owned())
}

/// 244 random bits from the system's generator, as text.
pub(crate) fn fresh() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}
