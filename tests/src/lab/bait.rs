//! The made-up secrets of one run. They are valid in form only (a sensor must recognise them), they
//! live in memory and in the throwaway home, and they open nothing but the lab's own moto server.

use std::fmt;

use anyhow::{Context, Result};

/// Everything that a thief could take in one run.
#[derive(Clone)]
pub struct Bait {
    /// The AWS access key's id: public, the name by which logs call the key.
    pub key_id: String,
    /// The AWS secret access key.
    pub secret_key: String,
    /// A GitHub personal access token of valid form (prefix, 30 characters, checksum).
    pub github_token: String,
}

impl fmt::Debug for Bait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bait")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl Bait {
    /// Completes a key that the lab's AWS minted with a made-up GitHub token.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn new(key_id: String, secret_key: String) -> Result<Self> {
        Ok(Self {
            key_id,
            secret_key,
            github_token: github_token()?,
        })
    }

    /// The values that must never appear in anything that the system wrote, with a name for each.
    #[must_use]
    pub fn secrets(&self) -> [(&'static str, &str); 2] {
        [
            ("the AWS secret key", &self.secret_key),
            ("the GitHub token", &self.github_token),
        ]
    }
}

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `ghp_`, 30 random characters, and their CRC-32 as six base-62 digits: the form that GitHub
/// published in 2021 and that scanners verify.
///
/// # Errors
/// When the kernel gives no random bytes.
pub(crate) fn github_token() -> Result<String> {
    let body = letters(30)?;
    let sum = checksum(&body);
    Ok(format!("ghp_{body}{sum}"))
}

/// Random digits and letters.
///
/// # Errors
/// When the kernel gives no random bytes.
pub(crate) fn letters(count: usize) -> Result<String> {
    let bytes = random(count)?;
    Ok(bytes.iter().map(|b| digit(usize::from(*b) % 62)).collect())
}

fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = ['0'; 6];
    for place in digits.iter_mut().rev() {
        *place = digit(usize::try_from(rest % 62).unwrap_or(0));
        rest /= 62;
    }
    digits.iter().collect()
}

fn digit(value: usize) -> char {
    BASE62.get(value).map_or('0', |b| char::from(*b))
}

/// Random bytes from the kernel.
///
/// # Errors
/// When `/dev/urandom` cannot be read.
pub fn random(len: usize) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = vec![0; len];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_that_github_published() {
        // github.blog, "Behind GitHub's new authentication token formats": the sample token's body.
        assert_eq!(checksum("zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ"), "0mLq17");
    }

    #[test]
    fn a_token_has_the_published_form_and_is_new_each_time() {
        let (a, b) = (github_token().unwrap(), github_token().unwrap());
        assert_eq!((a.len(), a.starts_with("ghp_")), (40, true));
        assert_ne!(a, b);
        assert_eq!(a[34..], checksum(&a[4..34]));
    }
}
