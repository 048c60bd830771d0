//! Certificates that no longer count, by serial number.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::files::{self, FileError};
use crate::identity::Serial;

/// File in the PKI folder.
pub const REVOKED: &str = "revoked";

/// The set of revoked serial numbers, kept in a file.
///
/// Invariant: a number that was added stays. The file is written before the set in memory changes,
/// so that what was answered "revoked" once is revoked after a restart too.
#[derive(Debug)]
pub struct RevocationList {
    path: PathBuf,
    serials: Mutex<BTreeSet<Serial>>,
}

impl RevocationList {
    /// Loads the list of a PKI folder; an absent file is an empty list.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn load(folder: &Path) -> Result<Self, FileError> {
        let path = folder.join(REVOKED);
        let serials = files::read_if_there(&path)?
            .unwrap_or_default()
            .lines()
            .map(|line| Serial(line.trim().to_ascii_lowercase()))
            .filter(|serial| !serial.0.is_empty())
            .collect();
        Ok(Self {
            path,
            serials: Mutex::new(serials),
        })
    }

    /// Whether this certificate is revoked.
    #[must_use]
    pub fn contains(&self, serial: &Serial) -> bool {
        self.serials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(serial)
    }

    /// Adds a serial number; true when it is new.
    ///
    /// # Errors
    /// When the file cannot be written; the certificate then still counts.
    pub fn add(&self, serial: Serial) -> Result<bool, FileError> {
        let mut serials = self.serials.lock().unwrap_or_else(PoisonError::into_inner);
        if serials.contains(&serial) {
            return Ok(false);
        }
        let lines = serials.iter().chain([&serial]).map(Serial::to_string);
        let text = lines.collect::<Vec<_>>().join("\n") + "\n";
        files::write(&self.path, text.as_bytes(), 0o600)?;
        serials.insert(serial);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_revoked_stays_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let list = RevocationList::load(folder.path()).unwrap();
        let serial = Serial("40aa".to_owned());
        assert!(!list.contains(&serial));
        assert!(list.add(serial.clone()).unwrap());
        assert!(!list.add(serial.clone()).unwrap());
        assert!(
            RevocationList::load(folder.path())
                .unwrap()
                .contains(&serial)
        );
    }
}
