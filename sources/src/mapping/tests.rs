//! Mappings, good and bad.

use super::*;
use crate::{Options, Parser, Skip, SourceKind};

const GOOD: &str = r#"
source = "x.audit"
title = "X"
documentation = "made up"
time = ["t"]
action = ["a"]
keep = [{ path = "k", matches = ["yes*"] }]
skip = [{ path = "s", present = true }]
[[credential]]
kind = "principal"
scope = "x"
path = ["who"]
[service]
name = "x"
endpoints = ["x.example"]
"#;

#[test]
fn faults_say_where_and_how() {
    for (from, to, expected) in [
        ("x.audit", "X audit", "source: use lower-case"),
        ("title = \"X\"", "title = \"\"", "title: say"),
        ("time = [\"t\"]", "time = []", "time: name at least one"),
        (
            "time = [\"t\"]",
            "time = [\"a..b\"]",
            "time: `a..b` is no dotted path",
        ),
        (
            "scope = \"x\"",
            "",
            "credential[0].scope: a principal needs one",
        ),
        (
            "kind = \"principal\"",
            "kind = \"entra-token\"",
            "credential[0].scope: a entra-token has none",
        ),
        (
            "kind = \"principal\"",
            "kind = \"nonsense\"",
            "not a mapping",
        ),
        ("present = true", "", "skip[0]: give either"),
        ("[service]", "[service]\nport = 1", "not a mapping"),
        (
            "scope = \"x\"",
            "scope = \"X Y\"",
            "credential[0].scope: use lower-case",
        ),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        let error = Mapping::from_toml(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn conditions_filter() {
    let mapping = Mapping::from_toml(GOOD).unwrap();
    let options = Options {
        mapping: Some(mapping),
        ..Options::default()
    };
    let parser = Parser::new(SourceKind::Mapped, options);
    let record =
        |extra: &str| format!(r#"{{"t":1763928843,"a":"go","who":"Ana@X.example"{extra}}}"#);
    for (extra, expected) in [
        ("", Some(Skip::Filtered)),
        (r#","k":"yes please""#, None),
        (r#","k":["no","YES"]"#, None),
        (r#","k":"yes","s":0"#, Some(Skip::Filtered)),
    ] {
        let mut out = Vec::new();
        let parsed = parser.parse(record(extra).as_bytes(), &mut out).unwrap();
        assert_eq!(parsed.skipped, expected, "{extra}");
        assert_eq!(out.len(), parsed.uses);
        for usage in out {
            assert_eq!(usage.credential.to_string(), "principal:x/ana@x.example");
            assert_eq!(usage.endpoints, ["x.example"]);
        }
    }
    let bare = Parser::new(SourceKind::Mapped, Options::default());
    assert_eq!(
        bare.parse(b"{}", &mut Vec::new()),
        Err(crate::Rejection::NoMapping)
    );
}

#[test]
fn every_shipped_mapping_is_sound() {
    let names: Vec<&str> = Mapping::shipped_names().collect();
    assert!(names.len() >= 10, "{names:?}");
    for (name, text) in shipped::FILES {
        let mapping = Mapping::from_toml(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(mapping.source(), name);
        assert!(!mapping.documentation().is_empty());
        assert_eq!(Mapping::shipped(name), Some(mapping));
    }
}
