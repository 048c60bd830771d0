//! Bodies of the fuzz targets (`fuzz/fuzz_targets/graph_*.rs`), and of the short run in
//! `tests/smoke.rs`.
//!
//! Each panics when an invariant does not hold, and only then. The first byte of the data chooses
//! the kind of file.

use crate::people::{self, Directory, DirectoryImport, DirectoryKind, Question};
use crate::permission::{self, Identity, Import, ImportKind, Permissions, pattern};

/// Identities whose reach is asked for.
const ASKED: usize = 4;

/// An export of permissions (IAM, GitHub, Google Cloud, Kubernetes, Vault's HCL and JSON): taken
/// apart or refused, twice the same, and what is stored is what was read. Then it is asked.
///
/// # Panics
/// When it is not.
pub fn permissions(data: &[u8]) {
    let Some((kind, file)) = chosen(&ImportKind::ALL, data) else {
        return;
    };
    let read = permission::import(kind, Some("fuzz"), file);
    assert!(
        read == permission::import(kind, Some("fuzz"), file),
        "read otherwise the second time"
    );
    let Ok(read) = read else { return };
    let stored = serde_json::to_vec(&read).unwrap_or_default();
    let back: Option<Import> = serde_json::from_slice(&stored).ok();
    assert!(back.as_ref() == Some(&read), "cannot be read back");
    let all = Permissions::of([read.clone(), read.clone()]);
    assert!(
        all.len() <= read.identities.len(),
        "identities from nowhere"
    );
    for identity in read.identities.iter().take(ASKED) {
        let known: Vec<&Identity> = all.named(&identity.id).into_iter().collect();
        let _reach = all.reach(&known);
    }
    let _who = all.who_can("arn:aws:s3:::bucket/key");
}

/// A directory's export (SCIM, Okta, Entra, Google, tables, CODEOWNERS): as [`permissions`].
///
/// # Panics
/// When it is not read twice the same, or not stored as it was read.
pub fn people(data: &[u8]) {
    let Some((kind, file)) = chosen(&DirectoryKind::ALL, data) else {
        return;
    };
    let read = people::import(kind, Some("acme/app"), file);
    assert!(
        read == people::import(kind, Some("acme/app"), file),
        "read otherwise the second time"
    );
    let Ok(read) = read else { return };
    let stored = serde_json::to_vec(&read).unwrap_or_default();
    let back: Option<DirectoryImport> = serde_json::from_slice(&stored).ok();
    assert!(back.as_ref() == Some(&read), "cannot be read back");
    let all = Directory::of([read]);
    let _owners = all.owners(&Question {
        hosts: vec!["laptop"],
        accounts: vec![("laptop", Some("ada"), 1000, Some(1000))],
        principals: vec!["ada@example.com"],
        identities: Vec::new(),
        resources: vec!["acme/app/src/main.rs"],
    });
}

/// Two wildcard patterns and a text, with line feeds between: what covers also overlaps, and what
/// fits the inner fits the outer.
///
/// # Panics
/// When it does not.
pub fn patterns(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut parts = text.splitn(3, '\n');
    let mut next = || parts.next().unwrap_or_default();
    let (outer, inner, text) = (next(), next(), next());
    let fits = pattern::matches(inner, text);
    if pattern::covers(outer, inner) && fits {
        assert!(
            pattern::matches(outer, text),
            "the outer covers the inner, but not its text"
        );
    }
    let overlap = pattern::overlap(outer, inner);
    assert!(
        overlap == pattern::overlap(inner, outer),
        "overlap has a direction"
    );
    if fits && pattern::matches(outer, text) {
        assert!(overlap, "a text fits both, and they do not overlap");
    }
}

/// The kind that the first byte chooses, and the rest.
fn chosen<'a, K: Copy>(kinds: &[K], data: &'a [u8]) -> Option<(K, &'a [u8])> {
    let (choice, file) = data.split_first()?;
    let kind = kinds.get(usize::from(*choice) % kinds.len().max(1))?;
    Some((*kind, file))
}
