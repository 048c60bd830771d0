//! Join tokens: what lets a new endpoint in, once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

use crate::files::{self, FileError};
use crate::identity::hex;
use crate::tls::{self, TlsError};

/// File in the PKI folder.
pub const TOKENS: &str = "join-tokens";
/// So that secret scanners and people recognise one.
const PREFIX: &str = "ktjoin_";
/// How many tokens may be open at once.
const MAX_TOKENS: usize = 1024;

/// A join token in clear. Shown to a person once, never stored by the correlator.
#[derive(Clone)]
pub struct JoinToken(String);

impl JoinToken {
    /// Takes a token that someone was given.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The secret itself: for the person, or for the one request that uses it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

/// What went wrong with the store of tokens.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its content.
    #[error("{path}, line {line}: expected `<sha256> <end, Unix seconds> <uses left or ->`")]
    Content {
        /// Which file.
        path: String,
        /// Which line, from 1.
        line: usize,
    },
    /// Too many open tokens.
    #[error("there are {MAX_TOKENS} open join tokens: wait until some have ended")]
    Full,
    /// Randomness.
    #[error(transparent)]
    Random(#[from] TlsError),
    /// Unknown, ended or used up: deliberately one answer.
    #[error("the join token is unknown, has ended or is used up: ask for a new one")]
    Refused,
}

#[derive(Clone)]
struct Entry {
    hash: [u8; 32],
    ends_unix: i64,
    uses_left: Option<u32>,
}

/// The tokens that count, as hashes, kept in a file.
pub struct TokenStore {
    path: PathBuf,
    entries: Mutex<Vec<Entry>>,
}

impl fmt::Debug for TokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl TokenStore {
    /// Loads the tokens of a PKI folder; an absent file is an empty store.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn load(folder: &Path) -> Result<Self, TokenError> {
        let path = folder.join(TOKENS);
        let text = files::read_if_there(&path)?.unwrap_or_default();
        let mut entries = Vec::new();
        for (index, line) in text.lines().enumerate() {
            entries.push(parse(line).ok_or_else(|| TokenError::Content {
                path: path.display().to_string(),
                line: index + 1,
            })?);
        }
        Ok(Self {
            path,
            entries: Mutex::new(entries),
        })
    }

    /// Makes a token that ends at `ends_unix`, for so many uses (`None`: any number).
    ///
    /// # Errors
    /// When it cannot be stored; no token then counts that did not before.
    pub fn issue(
        &self,
        now_unix: i64,
        ends_unix: i64,
        uses: Option<u32>,
    ) -> Result<JoinToken, TokenError> {
        let token = JoinToken(format!("{PREFIX}{}", hex(&tls::random::<32>()?)));
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next: Vec<Entry> = open(&entries, now_unix);
        if next.len() >= MAX_TOKENS {
            return Err(TokenError::Full);
        }
        next.push(Entry {
            hash: Sha256::digest(token.reveal()).into(),
            ends_unix,
            uses_left: uses,
        });
        self.save(&next)?;
        *entries = next;
        Ok(token)
    }

    /// Uses a token up by one.
    ///
    /// # Errors
    /// [`TokenError::Refused`] when it does not count.
    pub fn redeem(&self, token: &JoinToken, now_unix: i64) -> Result<(), TokenError> {
        let hash: [u8; 32] = Sha256::digest(token.reveal()).into();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = open(&entries, now_unix);
        // Every entry is compared, whichever matches: the time says nothing about which.
        let mut found = None;
        for (index, entry) in next.iter().enumerate() {
            if bool::from(entry.hash.ct_eq(&hash)) {
                found = Some(index);
            }
        }
        let entry = found
            .and_then(|index| next.get_mut(index))
            .ok_or(TokenError::Refused)?;
        if let Some(uses) = &mut entry.uses_left {
            *uses = uses.saturating_sub(1);
            self.save(&next)?;
            *entries = next;
        }
        Ok(())
    }

    fn save(&self, entries: &[Entry]) -> Result<(), FileError> {
        let lines = entries.iter().map(|entry| {
            let uses = entry
                .uses_left
                .map_or_else(|| "-".to_owned(), |uses| uses.to_string());
            format!("{} {} {uses}", hex(&entry.hash), entry.ends_unix)
        });
        let mut text = lines.collect::<Vec<_>>().join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        files::write(&self.path, text.as_bytes(), 0o600)
    }
}

/// The entries that still count.
fn open(entries: &[Entry], now_unix: i64) -> Vec<Entry> {
    entries
        .iter()
        .filter(|entry| entry.ends_unix > now_unix && entry.uses_left != Some(0))
        .cloned()
        .collect()
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let (hash, ends, uses) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || hash.len() != 64 {
        return None;
    }
    let mut bytes = [0_u8; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hash.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(Entry {
        hash: bytes,
        ends_unix: ends.parse().ok()?,
        uses_left: match uses {
            "-" => None,
            number => Some(number.parse().ok()?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_counts_until_its_end_and_for_its_uses() {
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::load(folder.path()).unwrap();
        let once = store.issue(0, 100, Some(1)).unwrap();
        let many = store.issue(0, 100, None).unwrap();
        store.redeem(&many, 1).unwrap();
        store.redeem(&once, 1).unwrap();
        // The count survives a restart.
        let store = TokenStore::load(folder.path()).unwrap();
        assert!(matches!(store.redeem(&once, 1), Err(TokenError::Refused)));
        store.redeem(&many, 99).unwrap();
        assert!(matches!(store.redeem(&many, 100), Err(TokenError::Refused)));
        assert!(matches!(
            store.redeem(&JoinToken::new("guess"), 1),
            Err(TokenError::Refused)
        ));
    }

    #[test]
    fn the_secret_is_neither_stored_nor_shown() {
        let folder = tempfile::tempdir().unwrap();
        let store = TokenStore::load(folder.path()).unwrap();
        let token = store.issue(0, 100, None).unwrap();
        let secret = token.reveal().strip_prefix(PREFIX).unwrap().to_owned();
        let stored = std::fs::read_to_string(folder.path().join(TOKENS)).unwrap();
        assert!(!stored.contains(&secret));
        assert!(!format!("{token:?} {store:?}").contains(&secret));
    }
}
