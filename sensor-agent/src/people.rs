//! Who a process runs for: account names and homes from the user database.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use keytrail_model::process::{Confidence, Container, Person, User};

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

/// The first uid of a person's account (`login.defs`, `UID_MIN`), and the overflow uid.
const FIRST_PERSON: u32 = 1_000;
const NOBODY: u32 = 65_534;

/// What a control group's path says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    slice_uid: Option<u32>,
    session: Option<String>,
    container: Option<Container>,
}

impl Group {
    /// Systemd: `/user.slice/user-UID.slice/session-ID.scope`, `.../user@UID.service/...`
    /// (systemd.slice(5), pam_systemd(8)). Runtimes: a component that ends in 64 hex digits, with
    /// the runtime's name in front (`docker-`, `libpod-`, `crio-`, `cri-containerd-`) or above
    /// (`/docker/`); Kubernetes: `kubepods-*-podUID.slice` with underscores, or `podUID`.
    fn parse(path: &str) -> Self {
        let mut group = Self::default();
        let mut above = "";
        let mut pod = None;
        for part in path.split('/').take(64) {
            let between = |start: &str, end: &str| part.strip_prefix(start)?.strip_suffix(end);
            if let Some(uid) = between("user-", ".slice").and_then(|uid| uid.parse().ok()) {
                group.slice_uid = Some(uid);
            }
            let session = between("session-", ".scope").filter(|id| id.len() <= 32);
            group.session = session.map(str::to_owned).or(group.session);
            pod = pod_uid(part).or(pod);
            let plain = part.strip_suffix(".scope").unwrap_or(part);
            let at = plain.len().saturating_sub(64);
            if let Some((before, id)) = plain.split_at_checked(at)
                && id.len() == 64
                && id
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            {
                let runtime = match before.trim_end_matches(['-', ':']) {
                    "" => above,
                    "cri-containerd" => "containerd",
                    "libpod" | "libpod-payload" => "podman",
                    named => named.rsplit(':').next().unwrap_or(named),
                };
                let known = [
                    "docker",
                    "containerd",
                    "crio",
                    "podman",
                    "lxc",
                    "buildkit",
                    "nerdctl",
                ];
                group.container = Some(Container {
                    id: id.to_owned(),
                    runtime: known.contains(&runtime).then(|| runtime.to_owned()),
                    pod: pod.clone(),
                });
            }
            above = part;
        }
        group
    }
}

/// The pod's uid in one component of a path.
fn pod_uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let (_, uid) = part.rsplit_once("pod")?;
    let uid = uid.replace('_', "-");
    let shaped = uid.len() == 36
        && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
        && uid.matches('-').count() == 4;
    shaped.then_some(uid)
}

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

    /// The account of a uid, with the person and the container behind it. `login_uid`: the audit
    /// login uid, when one is set; `cgroup`: the process's path in the unified hierarchy.
    #[must_use]
    pub fn user(&self, uid: u32, login_uid: Option<u32>, cgroup: Option<&str>) -> User {
        let group = cgroup.map(Group::parse).unwrap_or_default();
        User {
            uid,
            name: self.name(uid),
            login_uid,
            person: self.person(uid, login_uid, &group),
            container: group.container,
        }
    }

    fn name(&self, uid: u32) -> Option<String> {
        self.accounts.get(&uid).map(|a| a.name.clone())
    }

    /// Who is behind an account. The audit login uid is set once, at log-in, and kept through
    /// `sudo`; systemd's user slice outlives terminals but not a change of slice; the uid itself
    /// says little, and nothing when it is a service's.
    fn person(&self, uid: u32, login_uid: Option<u32>, group: &Group) -> Option<Person> {
        let (uid, method, confidence) = match (login_uid, group.slice_uid) {
            (Some(login), Some(slice)) if login == slice => {
                (login, "audit login uid and user slice", Confidence::High)
            }
            (Some(login), None) => (login, "audit login uid", Confidence::High),
            // They disagree: somebody's service was started for another.
            (Some(login), Some(_)) => (login, "audit login uid", Confidence::Medium),
            (None, Some(slice)) => (slice, "user slice", Confidence::Medium),
            (None, None) if (FIRST_PERSON..NOBODY).contains(&uid) => (uid, "uid", Confidence::Low),
            (None, None) => return None,
        };
        Some(Person {
            uid,
            name: self.name(uid),
            session: group.session.clone(),
            method: method.to_owned(),
            confidence,
        })
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
        let user = people.user(1000, Some(4242), None);
        assert_eq!(
            (user.name.as_deref(), user.login_uid),
            (Some("ada"), Some(4242))
        );
        assert_eq!(people.user(7777, None, None).name, None);
        let homes = people.homes();
        assert!(homes.contains(&home.path().to_owned()));
        assert!(!homes.contains(&PathBuf::from("/bin")) && !homes.contains(&PathBuf::from("/tmp")));
    }

    #[test]
    fn the_person_is_told_from_what_the_kernel_keeps() {
        let people = People::parse(
            "ada:x:1000:1000::/home/ada:/bin/sh\neve:x:1001:1001::/home/eve:/bin/sh\n",
        );
        let ada = "/user.slice/user-1000.slice/session-3.scope";
        let service = "/user.slice/user-1000.slice/user@1000.service/app.slice/openclaw.service";
        for (uid, login, cgroup, expected) in [
            (
                1000,
                Some(1000),
                Some(ada),
                "ada 3 audit login uid and user slice High",
            ),
            (
                0,
                Some(1000),
                Some(ada),
                "ada 3 audit login uid and user slice High",
            ),
            (0, Some(1000), None, "ada - audit login uid High"),
            (0, Some(1001), Some(ada), "eve 3 audit login uid Medium"),
            (1000, None, Some(service), "ada - user slice Medium"),
            (1001, None, Some("/system.slice/x.service"), "eve - uid Low"),
            (33, None, Some("/system.slice/apache2.service"), "nobody"),
            (65_534, None, None, "nobody"),
        ] {
            let person = people.user(uid, login, cgroup).person;
            let shown = person.map_or("nobody".to_owned(), |p| {
                let session = p.session.unwrap_or("-".to_owned());
                format!(
                    "{} {session} {} {:?}",
                    p.name.unwrap(),
                    p.method,
                    p.confidence
                )
            });
            assert_eq!(shown, expected, "{uid} {login:?} {cgroup:?}");
        }
    }

    #[test]
    fn containers_are_told_from_the_path() {
        let id = "0123456789abcdef".repeat(4);
        let pod = "0b1c2d3e-0000-4000-8000-0123456789ab";
        let low = pod.replace('-', "_");
        for (path, expected) in [
            (format!("/docker/{id}"), Some(("docker", None))),
            (
                format!("/system.slice/docker-{id}.scope"),
                Some(("docker", None)),
            ),
            (
                format!("/machine.slice/libpod-{id}.scope/container"),
                Some(("podman", None)),
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{low}.slice/cri-containerd-{id}.scope"
                ),
                Some(("containerd", Some(pod))),
            ),
            (
                format!("/kubepods/besteffort/pod{pod}/{id}"),
                Some(("-", Some(pod))),
            ),
            (
                format!("/kubepods.slice/kubepods-pod{low}.slice/crio-{id}.scope"),
                Some(("crio", Some(pod))),
            ),
            ("/system.slice/ssh.service".to_owned(), None),
            (format!("/docker/{}", id.replace('0', "z")), None),
        ] {
            let container = People::default().user(0, None, Some(&path)).container;
            let shown = container.as_ref().map(|c| {
                assert_eq!(c.id, id);
                (c.runtime.as_deref().unwrap_or("-"), c.pod.as_deref())
            });
            assert_eq!(shown, expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_parsed(path in "(/[a-z0-9@._-]{0,90}){0,5}") {
            let _ = People::default().user(0, None, Some(&path));
        }

        #[test]
        fn any_text_is_parsed(text in "([a-z0-9:/]{0,30}\n){0,8}") {
            let _ = People::parse(&text).homes();
        }
    }
}
