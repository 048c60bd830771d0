//! Who a process runs for: account names and homes from the user database.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use keytrail_model::process::User;

/// The accounts of `/etc/passwd`. Accounts of a directory service (LDAP, SSSD) are not in it: they
/// are shown by number, and their homes are learned from the `HOME` of tracked processes.
#[derive(Clone, Debug, Default)]
pub struct People {
    accounts: HashMap<u32, Account>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    name: String,
    home: PathBuf,
}

/// Most accounts kept.
const MAX_ACCOUNTS: usize = 65_536;
/// Longest user database read.
const MAX_PASSWD: u64 = 16 << 20;

impl People {
    /// Reads `/etc/passwd`; empty when that is impossible (then users are shown by number).
    #[must_use]
    pub fn read() -> Self {
        let view = crate::files::FsView::host();
        match view.read(Path::new("/etc/passwd"), MAX_PASSWD) {
            Ok(bytes) => Self::parse(&String::from_utf8_lossy(&bytes)),
            Err(error) => {
                tracing::warn!(%error, "cannot read /etc/passwd: users are shown by number");
                Self::default()
            }
        }
    }

    /// Parses `passwd(5)` lines; others are skipped. The first line of a uid names it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut accounts = HashMap::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, _, _, home, _] = fields.as_slice() else {
                continue;
            };
            let Ok(uid) = uid.parse::<u32>() else {
                continue;
            };
            if accounts.len() < MAX_ACCOUNTS {
                accounts.entry(uid).or_insert_with(|| Account {
                    name: (*name).to_owned(),
                    home: PathBuf::from(home),
                });
            }
        }
        Self { accounts }
    }

    /// The account of a uid, with the audit login uid when one is set.
    #[must_use]
    pub fn user(&self, uid: u32, login_uid: Option<u32>) -> User {
        let name = self.accounts.get(&uid).map(|a| a.name.clone());
        User {
            uid,
            name,
            login_uid,
        }
    }

    /// The home of a uid.
    #[must_use]
    pub fn home(&self, uid: u32) -> Option<&Path> {
        self.accounts.get(&uid).map(|a| a.home.as_path())
    }

    /// Homes in which a person's or a service's credentials may lie: root's, those of ordinary
    /// uids (1000 to 65533 and above 65535), and of system accounts below `/home`, `/var/lib`,
    /// `/opt` and `/srv`. Sorted, without duplicates.
    #[must_use]
    pub fn homes(&self) -> Vec<PathBuf> {
        const SERVICE_HOMES: [&str; 4] = ["/home", "/var/lib", "/opt", "/srv"];
        let mut homes: Vec<PathBuf> = self
            .accounts
            .iter()
            .filter(|(uid, account)| {
                let ordinary = **uid == 0 || (**uid >= 1000 && !matches!(**uid, 65_534 | 65_535));
                let service = SERVICE_HOMES
                    .iter()
                    .any(|dir| account.home.starts_with(dir));
                ordinary || service
            })
            .map(|(_, account)| account.home.clone())
            .filter(|home| home.is_absolute() && home != Path::new("/") && home.is_dir())
            .collect();
        homes.sort();
        homes.dedup();
        homes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accounts_are_named_and_homes_are_real() {
        let home = tempfile::tempdir().unwrap();
        let text = format!(
            "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000::{0}:/bin/zsh\n\
             twin:x:1000:1000::/elsewhere:/bin/sh\nbin:x:2:2:bin:/bin:/usr/sbin/nologin\n\
             nobody:x:65534:65534:nobody:/tmp:/usr/sbin/nologin\nbroken:line\n+::::::\n",
            home.path().display()
        );
        let people = People::parse(&text);
        let expected = User {
            uid: 1000,
            name: Some("ada".to_owned()),
            login_uid: Some(4242),
        };
        assert_eq!(people.user(1000, Some(4242)), expected);
        assert_eq!(people.user(7777, None).name, None);
        let homes = people.homes();
        assert!(homes.contains(&home.path().to_owned()));
        assert!(!homes.contains(&PathBuf::from("/bin")) && !homes.contains(&PathBuf::from("/tmp")));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed(text in "([a-z0-9:/]{0,30}\n){0,8}") {
            let _ = People::parse(&text).homes();
        }
    }
}
