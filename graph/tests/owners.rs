//! Owners as data: every file of `tests/owners/` is one case.
//!
//! ```json
//! {
//!   "imports": [{"kind": "okta", "about": null, "file": [...] or "text"}],
//!   "hosts": ["laptop-7"], "accounts": [["laptop-7", "ana", 1000, 1000]],
//!   "principals": [], "resources": [], "identities": [{"id": "...", "kind": "user", "tags": {}}],
//!   "endpoint": ["Ana Ruiz | high | method"], "credential": [...],  exactly, in this order; the
//!                                    method needs to begin so
//!   "managers": {"Ana Ruiz": "Bo"}, "differ": true, "summary": "words", "error": "words"
//! }
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: it fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;

use keytrail_graph::people::{
    Candidate, Directory, DirectoryImport, DirectoryKind, Question, import,
};
use keytrail_graph::permission::{Identity, Provider};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Case {
    imports: Vec<File>,
    hosts: Vec<String>,
    accounts: Vec<(String, Option<String>, u32, Option<u32>)>,
    principals: Vec<String>,
    resources: Vec<String>,
    identities: Vec<Tagged>,
    endpoint: Vec<String>,
    credential: Vec<String>,
    managers: BTreeMap<String, String>,
    differ: bool,
    summary: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kind: DirectoryKind,
    about: Option<String>,
    file: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tagged {
    id: String,
    kind: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

fn read(case: &Case) -> Result<Vec<DirectoryImport>, String> {
    case.imports
        .iter()
        .map(|one| {
            let bytes = match &one.file {
                Value::String(text) => text.clone().into_bytes(),
                json => serde_json::to_vec(json).unwrap(),
            };
            let taken =
                import(one.kind, one.about.as_deref(), &bytes).map_err(|e| e.to_string())?;
            let stored = serde_json::to_string(&taken).unwrap();
            assert!(!stored.contains("SECRET-VALUE"), "{stored}");
            assert_eq!(
                serde_json::from_str::<DirectoryImport>(&stored).unwrap(),
                taken
            );
            Ok(taken)
        })
        .collect()
}

fn compare(name: &str, side: &str, found: &[Candidate], expected: &[String]) {
    let confidence = |c: &Candidate| format!("{:?}", c.confidence).to_lowercase();
    let shown: Vec<String> = found
        .iter()
        .map(|c| format!("{} | {} | {}", c.person.name, confidence(c), c.method))
        .collect();
    assert_eq!(found.len(), expected.len(), "{name}: {side}: {shown:#?}");
    for (shown, expected) in shown.iter().zip(expected) {
        assert!(
            shown.starts_with(expected.as_str()),
            "{name}: {side}: {shown} is not {expected}"
        );
    }
}

fn check(name: &str, case: &Case) {
    let imports = match (read(case), &case.error) {
        (Err(error), Some(words)) => {
            assert!(error.contains(words), "{name}: {error}");
            return;
        }
        (Err(error), None) => panic!("{name}: {error}"),
        (Ok(_), Some(words)) => panic!("{name}: taken, although {words}"),
        (Ok(imports), None) => imports,
    };
    let identities: Vec<Identity> = case
        .identities
        .iter()
        .map(|one| {
            let mut identity = Identity::new(Provider::Aws, &one.kind, &one.id);
            identity.owner_tags = one.tags.clone();
            identity
        })
        .collect();
    let ownership = Directory::of(imports).owners(&Question {
        hosts: case.hosts.iter().map(String::as_str).collect(),
        accounts: case
            .accounts
            .iter()
            .map(|(host, account, uid, login)| (host.as_str(), account.as_deref(), *uid, *login))
            .collect(),
        principals: case.principals.iter().map(String::as_str).collect(),
        identities: identities.iter().collect(),
        resources: case.resources.iter().map(String::as_str).collect(),
    });
    compare(name, "endpoint", &ownership.endpoint, &case.endpoint);
    compare(name, "credential", &ownership.credential, &case.credential);
    for (person, manager) in &case.managers {
        let all = ownership.endpoint.iter().chain(&ownership.credential);
        let found = all
            .filter(|c| c.person.name == *person)
            .find_map(|c| c.manager.as_ref());
        assert_eq!(
            found.map(|m| m.name.as_str()),
            Some(manager.as_str()),
            "{name}"
        );
    }
    assert_eq!(
        ownership.differ, case.differ,
        "{name}: {}",
        ownership.summary
    );
    if let Some(words) = &case.summary {
        assert!(
            ownership.summary.contains(words.as_str()),
            "{name}: {}",
            ownership.summary
        );
    }
}

#[test]
fn cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/owners");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    for file in &files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(file).unwrap();
        let case: Case = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        check(&name, &case);
    }
    assert!(files.len() >= 12, "only {} cases", files.len());
}
