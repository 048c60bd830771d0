//! The secret canary: after a run, no file that the system wrote may hold a secret, be it as it is,
//! in base64 (at any of the three alignments) or in hexadecimal.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// One place where a secret was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// The file, or what the text was.
    pub place: String,
    /// The secret's name, never its value.
    pub secret: String,
    /// `as it is`, `base64`, `hex`.
    pub form: &'static str,
}

/// Searches for the secrets of a run.
#[derive(Clone)]
pub struct Canary {
    needles: Vec<(String, &'static str, Vec<u8>)>,
}

impl Canary {
    /// A canary for these secrets (name, value).
    #[must_use]
    pub fn new(secrets: &[(&str, &str)]) -> Self {
        let mut needles = Vec::new();
        for (name, value) in secrets {
            for (form, needle) in forms(value.as_bytes()) {
                needles.push(((*name).to_owned(), form, needle));
            }
        }
        Self { needles }
    }

    /// Searches a text.
    #[must_use]
    pub fn search(&self, place: &str, bytes: &[u8]) -> Vec<Leak> {
        let found = self
            .needles
            .iter()
            .filter(|(_, _, needle)| contains(bytes, needle));
        found
            .map(|(secret, form, _)| Leak {
                place: place.to_owned(),
                secret: secret.clone(),
                form,
            })
            .collect()
    }

    /// Searches every file under `dir`; returns the leaks and how many files were read.
    ///
    /// # Errors
    /// When a file cannot be read: a canary that looks away proves nothing.
    pub fn search_dir(&self, dir: &Path) -> Result<(Vec<Leak>, usize)> {
        let (mut leaks, mut files) = (Vec::new(), 0);
        let mut open: Vec<PathBuf> = vec![dir.to_owned()];
        while let Some(path) = open.pop() {
            let kind = fs::symlink_metadata(&path)
                .with_context(|| format!("the canary cannot look at {}", path.display()))?;
            if kind.is_dir() {
                for entry in fs::read_dir(&path)? {
                    open.push(entry?.path());
                }
            } else if kind.is_file() {
                let bytes = fs::read(&path)
                    .with_context(|| format!("the canary cannot read {}", path.display()))?;
                files += 1;
                leaks.extend(self.search(&path.display().to_string(), &bytes));
            }
        }
        Ok((leaks, files))
    }
}

fn forms(value: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex = hex(value);
    let mut forms = vec![
        ("as it is", value.to_vec()),
        ("hex", hex.to_uppercase().into_bytes()),
        ("hex", hex.into_bytes()),
    ];
    // A secret inside a longer text starts at one of three alignments; the first and last characters
    // depend on its neighbours and are left out.
    for lead in 0..3 {
        let mut padded = vec![0; lead];
        padded.extend_from_slice(value);
        for text in [
            STANDARD_NO_PAD.encode(&padded),
            URL_SAFE_NO_PAD.encode(&padded),
        ] {
            let skip = [0, 2, 3].get(lead).copied().unwrap_or(0);
            let core: Vec<u8> = text.bytes().skip(skip).collect();
            let keep = core.len().saturating_sub(2);
            forms.push(("base64", core.into_iter().take(keep).collect()));
        }
    }
    forms
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes
        .iter()
        .flat_map(|b| [digit(b >> 4), digit(b & 15)])
        .collect()
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else {
        return false;
    };
    hay.iter()
        .enumerate()
        .filter(|(_, b)| *b == first)
        .any(|(at, _)| {
            hay.get(at..at + needle.len())
                .is_some_and(|window| window == needle)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYzzzzzzzzzz";

    #[test]
    fn every_form_is_found_at_every_alignment() {
        let canary = Canary::new(&[("s", SECRET)]);
        for lead in 0..7 {
            let text = format!("{}{SECRET}tail", "x".repeat(lead));
            for (form, bytes) in [
                ("as it is", text.clone()),
                ("base64", STANDARD.encode(&text)),
                ("hex", hex(text.as_bytes())),
            ] {
                let leaks = canary.search("t", bytes.as_bytes());
                assert!(
                    leaks.iter().any(|l| l.form == form),
                    "{form} behind {lead} bytes"
                );
            }
        }
    }

    #[test]
    fn other_text_is_no_leak() {
        let canary = Canary::new(&[("s", SECRET)]);
        assert_eq!(canary.search("t", b"AKIAIOSFODNN7EXAMPLE wJalr"), vec![]);
    }

    #[test]
    fn a_folder_is_searched_to_its_depth() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/log"), format!("key={SECRET}")).unwrap();
        fs::write(dir.path().join("clean"), "nothing").unwrap();
        let (leaks, files) = Canary::new(&[("s", SECRET)])
            .search_dir(dir.path())
            .unwrap();
        assert_eq!((leaks.len(), files), (1, 2));
    }
}
