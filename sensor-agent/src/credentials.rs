//! Which credential a file or an environment holds, by identifier only; which files to watch; who
//! is expected to read them.
//!
//! Architecture invariant: nothing here returns, prints or keeps a secret. Buffers with file
//! content are overwritten when dropped, parsers borrow from them, and what comes out is a
//! [`CredentialId`] (an access key id, or the hash that GitHub itself publishes).

pub mod env;
pub mod file;
pub mod formats;
pub mod readers;
pub mod tokens;
pub mod watch;

use keytrail_model::credential::CredentialId;

pub use env::{FoundInEnv, identify_env};
pub use file::{ReadError, WatchedContent, read_watched};
pub use formats::{FileFormat, Found, Identified, identify_file};
pub use readers::{Reader, Readers};
pub use watch::{WatchCatalogue, WatchTarget};

/// Most credentials that one file or environment may yield.
pub const MAX_FOUND: usize = 64;

/// Collects findings without duplicates, up to [`MAX_FOUND`], and counts what it refused.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    found: Vec<Found>,
    bad_checksums: u32,
    dropped: u32,
}

impl Findings {
    pub(crate) fn push(&mut self, credential: CredentialId, entry: Option<&str>) {
        let entry = entry.map(label);
        if self
            .found
            .iter()
            .any(|f| f.credential == credential && f.entry == entry)
        {
            return;
        }
        if self.found.len() >= MAX_FOUND {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.found.push(Found {
            credential,
            entry,
            destinations: Vec::new(),
        });
    }

    /// Adds every token of `text` under `entry`.
    pub(crate) fn scan(&mut self, text: &[u8], entry: Option<&str>) {
        for token in tokens::scan(text) {
            match token {
                tokens::Token::Credential(id) => self.push(id, entry),
                tokens::Token::BadChecksum => {
                    self.bad_checksums = self.bad_checksums.saturating_add(1);
                }
            }
        }
    }

    pub(crate) fn finish(self) -> Identified {
        Identified {
            found: self.found,
            bad_checksums: self.bad_checksums,
            dropped: self.dropped,
        }
    }
}

/// An entry's name for people: one short line, without anything that looks like a secret.
fn label(text: &str) -> String {
    let short: String = text
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(96)
        .collect();
    crate::redact::redact_text(&short)
}
