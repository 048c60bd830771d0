//! What holds of every source's records, whatever they are.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: it fails by panicking"
)]

use std::fs;
use std::path::Path;

use keytrail_model::consumption::Consumption;
use keytrail_sources::framing::{Cut, Records};
use keytrail_sources::{Mapping, Options, Parsed, Parser, Rejection, SourceKind};
use proptest::prelude::*;
use serde_json::Value;

const CANARY: &str = "CANARY";

fn parser(kind: SourceKind) -> Parser {
    let mapping = (kind == SourceKind::Mapped).then(|| Mapping::shipped("slack.audit").unwrap());
    Parser::new(
        kind,
        Options {
            mapping,
            ..Options::default()
        },
    )
}

/// Every JSON record of a source's cases.
fn records(kind: SourceKind) -> Vec<Value> {
    let folder = match kind {
        SourceKind::Mapped => "mapped/slack",
        _ => kind.as_str(),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join(folder);
    let mut found = Vec::new();
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    for file in files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "json"))
    {
        let bytes = fs::read(file).unwrap();
        let mut cutter = Records::framed(bytes.as_slice(), parser(kind).framing());
        while let Ok(Some(Cut::Record(record))) = cutter.next_record() {
            found.extend(serde_json::from_slice::<Value>(record));
        }
    }
    found
}

/// The outcome and the uses; ids that are hashes of the record are left out.
fn read(kind: SourceKind, text: &str) -> (Result<Parsed, Rejection>, Vec<Consumption>) {
    let mut uses = Vec::new();
    let parsed = parser(kind).parse(text.as_bytes(), &mut uses);
    for usage in &mut uses {
        if usage.id.0.contains(":sha256-") {
            usage.id.0.clear();
        }
    }
    (parsed, uses)
}

/// The value as text, members last to first.
fn backwards(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members = members.iter().rev();
            let each = members
                .map(|(key, value)| format!("{}:{}", Value::String(key.clone()), backwards(value)));
            format!("{{{}}}", each.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            let each: Vec<String> = items.iter().map(backwards).collect();
            format!("[{}]", each.join(","))
        }
        other => other.to_string(),
    }
}

#[test]
fn the_order_of_members_changes_nothing() {
    for kind in SourceKind::ALL {
        for record in records(kind) {
            let forwards = read(kind, &record.to_string());
            assert_eq!(
                forwards,
                read(kind, &backwards(&record)),
                "{kind}: {record}"
            );
        }
    }
}

#[test]
fn spaces_and_line_ends_change_nothing() {
    for kind in SourceKind::ALL {
        for record in records(kind) {
            let pretty = format!("\n {}\r\n", serde_json::to_string_pretty(&record).unwrap());
            assert_eq!(
                read(kind, &record.to_string()),
                read(kind, &pretty),
                "{kind}: {record}"
            );
        }
    }
}

/// Sets the member that `path` leads to (modulo what is there) to `value`.
fn replace(target: &mut Value, path: &[usize], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *target = value;
        return;
    };
    match target {
        Value::Object(members) if !members.is_empty() => {
            let key = members.keys().nth(first % members.len()).unwrap().clone();
            replace(&mut members[&key], rest, value);
        }
        Value::Array(items) if !items.is_empty() => {
            let at = first % items.len();
            replace(&mut items[at], rest, value);
        }
        _ => *target = value,
    }
}

fn kind() -> impl Strategy<Value = SourceKind> {
    proptest::sample::select(SourceKind::ALL.to_vec())
}

proptest! {
    /// Unknown members are no error, change nothing, and are not kept.
    #[test]
    fn unknown_members_change_nothing(kind in kind(), at in any::<proptest::sample::Index>(), name in "zz_[a-z]{1,8}", deep in any::<bool>()) {
        let records = records(kind);
        let record = &records[at.index(records.len())];
        let before = read(kind, &record.to_string());
        let mut more = record.clone();
        let secret = serde_json::json!({"password": CANARY, "list": [CANARY, 1, null]});
        let member = if deep { secret } else { Value::String(CANARY.to_owned()) };
        more.as_object_mut().unwrap().insert(name, member);
        let after = read(kind, &more.to_string());
        prop_assert!(!serde_json::to_string(&after.1).unwrap().contains(CANARY));
        prop_assert_eq!(before, after);
    }

    /// Whatever stands in a member, reading ends, and a token there is not kept.
    #[test]
    fn a_token_in_any_member_is_struck_out(kind in kind(), at in any::<proptest::sample::Index>(), path in proptest::collection::vec(any::<usize>(), 1..5)) {
        let records = records(kind);
        let mut record = records[at.index(records.len())].clone();
        let token = "ghp_CANARY0123456789abcdefABCDEF01234567";
        replace(&mut record, &path, Value::String(token.to_owned()));
        let (_, uses) = read(kind, &record.to_string());
        let kept = serde_json::to_string(&uses).unwrap();
        // An event's id and a server's name are identifiers whatever they hold.
        let named = uses.iter().any(|u| u.id.0.contains(CANARY));
        prop_assert!(named || !kept.contains(CANARY), "{}", kept);
    }

    /// Whatever stands in a member, of any type, reading ends.
    #[test]
    fn any_value_in_any_member(kind in kind(), at in any::<proptest::sample::Index>(), path in proptest::collection::vec(any::<usize>(), 1..5), value in "null|true|-7|1e400|\"\"|\"x y\"|\\[\\]|\\{\\}|\\[\\[1\\]\\]|99999999999999999999") {
        let records = records(kind);
        let mut record = records[at.index(records.len())].clone();
        if let Ok(value) = serde_json::from_str(&value) {
            replace(&mut record, &path, value);
        }
        let (parsed, uses) = read(kind, &record.to_string());
        prop_assert_eq!(parsed.map_or(0, |p| p.uses), uses.len());
    }
}
