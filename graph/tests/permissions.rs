//! Permissions as data: every file of `tests/permissions/` is one case.
//!
//! ```json
//! {
//!   "imports": [{"kind": "aws-iam", "about": null, "file": {...} or "text"}],
//!   "as": "identity's name in a log, or a credential",
//!   "allowed": ["action", "action @ resource pattern"],   must be among the privileges
//!   "not_allowed": ["action"],                             must not
//!   "becomes": ["identity"],                               exactly these, in any order
//!   "notes": ["words"],                                    each in some note
//!   "who": {"resource": ["identity"]},                     exactly these may act on it
//!   "error": "words"                                       the import is refused with these
//! }
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: it fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use keytrail_graph::permission::{Import, ImportKind, Permissions, import};
use keytrail_model::credential::CredentialId;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    imports: Vec<File>,
    r#as: Option<String>,
    #[serde(default)]
    allowed: Vec<String>,
    #[serde(default)]
    not_allowed: Vec<String>,
    becomes: Option<BTreeSet<String>>,
    #[serde(default)]
    notes: Vec<String>,
    #[serde(default)]
    who: BTreeMap<String, BTreeSet<String>>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kind: ImportKind,
    about: Option<String>,
    file: Value,
}

fn read(case: &Case) -> Result<Vec<Import>, String> {
    case.imports
        .iter()
        .map(|one| {
            let bytes = match &one.file {
                Value::String(text) => text.clone().into_bytes(),
                json => serde_json::to_vec(json).unwrap(),
            };
            let taken =
                import(one.kind, one.about.as_deref(), &bytes).map_err(|e| e.to_string())?;
            // What is stored is what is asked.
            let stored = serde_json::to_string(&taken).unwrap();
            assert!(!stored.contains("SECRET-VALUE"), "{stored}");
            let back: Import = serde_json::from_str(&stored).unwrap();
            assert_eq!(back, taken);
            Ok(back)
        })
        .collect()
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
    let all = Permissions::of(imports);
    for (resource, expected) in &case.who {
        let found: BTreeSet<String> = all
            .who_can(resource)
            .into_iter()
            .map(|g| g.identity)
            .collect();
        assert_eq!(&found, expected, "{name}: who can {resource}");
    }
    let Some(subject) = &case.r#as else { return };
    let mut starts = Vec::new();
    if let Ok(credential) = subject.parse::<CredentialId>() {
        starts = all.of_credential(&credential);
    }
    starts.extend(all.named(subject));
    assert!(!starts.is_empty(), "{name}: {subject} is not known");
    let reach = all.reach(&starts);
    let fits = |wanted: &str| {
        let (action, resource) = match wanted.split_once(" @ ") {
            Some((action, resource)) => (action, Some(resource)),
            None => (wanted, None),
        };
        reach.privileges.iter().any(|p| {
            p.action == action && resource.is_none_or(|r| p.resources.iter().any(|x| x == r))
        })
    };
    for wanted in &case.allowed {
        assert!(
            fits(wanted),
            "{name}: {wanted} is missing: {:#?}",
            reach.privileges
        );
    }
    for not in &case.not_allowed {
        assert!(
            !fits(not),
            "{name}: {not} is there: {:#?}",
            reach.privileges
        );
    }
    if let Some(expected) = &case.becomes {
        let found: BTreeSet<String> = reach.becomes.iter().map(|s| s.to.clone()).collect();
        assert_eq!(&found, expected, "{name}: {:#?}", reach.becomes);
    }
    for words in &case.notes {
        let said = reach.notes.iter().any(|note| note.contains(words.as_str()));
        assert!(said, "{name}: {words}: {:#?}", reach.notes);
    }
    for privilege in &reach.privileges {
        assert!(
            !privilege.source.is_empty() && !privilege.resources.is_empty(),
            "{name}"
        );
    }
}

#[test]
fn cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/permissions");
    let mut count = 0;
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let case: Case = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        check(&name, &case);
        count += 1;
    }
    assert!(count >= 15, "only {count} cases");
}

#[test]
fn every_kind_refuses_what_it_is_not() {
    for kind in ImportKind::ALL {
        for file in ["", "{", "\u{0}", "[1]", "{\"a\": 1}", "\"x\"", "[]", "null"] {
            let taken = import(kind, Some("x"), file.as_bytes());
            if let Ok(taken) = taken {
                assert!(taken.identities.is_empty(), "{kind:?} {file}: {taken:?}");
            }
        }
        assert_eq!(ImportKind::named(kind.as_str()), Some(kind));
    }
}
