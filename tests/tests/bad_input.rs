//! Bad CloudTrail input: each kind is counted, gives a line that names the file, and stops nothing
//! else. Needs neither root nor the lab: a correlator and a folder.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test program fails by panicking, its helpers too"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use keytrail_tests::lab::child::wait_for;
use keytrail_tests::lab::cloudtrail::{file_name, gzip};
use keytrail_tests::probe;
use keytrail_tests::product::Correlator;
use serde_json::{Value, json};

const DEMO: &str = env!("CARGO_BIN_EXE_demo");
const ACCOUNT: &str = "111122223333";

/// A record as CloudTrail writes it, with `id` as its event's id.
fn record(id: u32) -> Value {
    json!({
        "eventVersion": "1.11",
        "userIdentity": {"type": "IAMUser", "accountId": ACCOUNT, "userName": "dana",
            "arn": "arn:aws:iam::111122223333:user/dana", "accessKeyId": "AKIARTX3GSDSTSWWXGKB"},
        "eventTime": "2026-11-23T20:59:22Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "ListBuckets",
        "awsRegion": "us-east-1",
        "sourceIPAddress": "198.51.100.23",
        "userAgent": "[aws-cli/1.46.3]",
        "eventID": format!("00000000-0000-4000-8000-{id:012}"),
        "tlsDetails": {"clientProvidedHostHeader": "s3.us-east-1.amazonaws.com"},
    })
}

/// The record with one field replaced, or removed when the value is null.
fn with(id: u32, path: &str, value: Value) -> Value {
    let mut record = record(id);
    let (parent, key) = path.rsplit_once('/').unwrap();
    let fields = record.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        fields.remove(key);
    } else {
        fields.insert(key.to_owned(), value);
    }
    record
}

fn file_of(records: &[Value]) -> Vec<u8> {
    gzip(json!({"Records": records}).to_string().as_bytes()).unwrap()
}

/// One kind of bad input: what the file holds, which counter must rise by one, how many uses must
/// come of it all the same, and whether the file is worth a line in the log.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    counter: &'static str,
    uses: u64,
    logged: bool,
}

fn cases() -> Vec<Case> {
    let case = |name, bytes, counter, uses, logged| Case {
        name,
        bytes,
        counter,
        uses,
        logged,
    };
    let whole = file_of(&[record(1), record(2)]);
    let beside = |bad: Value, id: u32| file_of(&[bad, record(id)]);
    vec![
        case(
            "truncated gzip",
            whole[..whole.len() / 2].to_vec(),
            "cloudtrail_files_incomplete",
            0,
            true,
        ),
        case(
            "an empty file",
            Vec::new(),
            "cloudtrail_files_incomplete",
            0,
            false,
        ),
        case(
            "no gzip",
            b"this is no gzip file at all".to_vec(),
            "cloudtrail_files_malformed",
            0,
            true,
        ),
        case(
            "no JSON",
            gzip(b"<Records/>").unwrap(),
            "cloudtrail_files_malformed",
            0,
            true,
        ),
        case(
            "no Records",
            gzip(b"{\"x\": 1}").unwrap(),
            "cloudtrail_files_malformed",
            0,
            true,
        ),
        case(
            "a record without a key id, nor any other identity",
            beside(with(10, "/userIdentity", json!({"type": "Unknown"})), 11),
            "cloudtrail_no_credential",
            1,
            false,
        ),
        case(
            "a key id that is none: the account is what is left to join on",
            beside(
                with(12, "/userIdentity/accessKeyId", json!("HIDDEN_DUE_TO_x")),
                13,
            ),
            "cloudtrail_masked_id",
            2,
            false,
        ),
        case(
            "a key id that is none, and no account",
            beside(
                with(
                    20,
                    "/userIdentity",
                    json!({"accessKeyId": "HIDDEN_DUE_TO_x"}),
                ),
                21,
            ),
            "cloudtrail_rejected_bad_key",
            1,
            true,
        ),
        case(
            "an unknown event version",
            file_of(&[with(14, "/eventVersion", json!("9.99"))]),
            "cloudtrail_unknown_version",
            1,
            true,
        ),
        case(
            "a time that is none",
            beside(with(15, "/eventTime", json!("yesterday")), 16),
            "cloudtrail_rejected_bad_time",
            1,
            true,
        ),
        case(
            "a record that is no object",
            beside(json!(7), 17),
            "cloudtrail_rejected_not_object",
            1,
            true,
        ),
        case(
            "no event name",
            beside(with(18, "/eventName", Value::Null), 19),
            "cloudtrail_rejected_no_event",
            1,
            true,
        ),
    ]
}

/// Waits until a counter has reached a value.
fn reaches(correlator: &Correlator, counter: &str, value: u64, what: &str) {
    let seen = wait_for(what, Duration::from_mins(1), || {
        Ok((correlator.counter(counter)? >= value).then_some(()))
    });
    let status = || correlator.get_text("/v1/status").unwrap_or_default();
    assert!(
        seen.is_ok(),
        "{what}: {counter} did not reach {value}\n{}",
        status()
    );
}

fn put(dir: &Path, bytes: &[u8]) -> String {
    let name = file_name(ACCOUNT).unwrap();
    fs::write(dir.join(format!("{name}.part")), bytes).unwrap();
    fs::rename(dir.join(format!("{name}.part")), dir.join(&name)).unwrap();
    name
}

#[test]
fn each_bad_file_is_counted_and_named_and_stops_nothing() {
    let name = "each_bad_file_is_counted_and_named_and_stops_nothing";
    let Some(programs) = probe::programs(name, DEMO) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut correlator = Correlator::start(&programs, dir.path()).unwrap();
    for (nth, case) in cases().into_iter().enumerate() {
        let counted = correlator.counter(case.counter).unwrap();
        let uses = correlator.counter("uses_new").unwrap();
        let file = put(&correlator.cloudtrail, &case.bytes);
        reaches(&correlator, case.counter, counted + 1, case.name);
        reaches(&correlator, "uses_new", uses + case.uses, case.name);
        if case.logged {
            let named = || {
                let logged = correlator.logged();
                logged.lines().filter(|l| l.contains(&file)).count()
            };
            // The line goes through a pipe and comes after the count.
            let line = wait_for("the log line", Duration::from_mins(1), || {
                Ok((named() > 0).then_some(()))
            });
            let lines = line.map_or(0, |()| named());
            assert!(
                (1..=2).contains(&lines),
                "{}: {lines} lines name {file}",
                case.name
            );
        }
        // The next whole file is read as if nothing had happened.
        let good = u32::try_from(nth).unwrap() + 1000;
        let uses = correlator.counter("uses_new").unwrap();
        put(&correlator.cloudtrail, &file_of(&[record(good)]));
        reaches(&correlator, "uses_new", uses + 1, "the file after it");
    }
    assert!(correlator.is_running().unwrap());
    correlator.stop().unwrap();
}

#[test]
fn a_file_still_being_written_is_read_once_it_is_whole() {
    let name = "a_file_still_being_written_is_read_once_it_is_whole";
    let Some(programs) = probe::programs(name, DEMO) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let correlator = Correlator::start(&programs, dir.path()).unwrap();
    let bytes = file_of(&[record(1), record(2), record(3)]);
    let path = correlator.cloudtrail.join(file_name(ACCOUNT).unwrap());
    // A copy that takes its time, without a temporary name.
    for end in [bytes.len() / 3, bytes.len() / 2, bytes.len()] {
        assert_eq!(
            correlator.counter("uses_new").unwrap(),
            0,
            "nothing before the end"
        );
        fs::write(&path, &bytes[..end]).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    reaches(&correlator, "uses_new", 3, "the whole file");
    assert_eq!(correlator.counter("uses_duplicate").unwrap(), 0);
}

#[test]
fn what_is_delivered_twice_counts_once() {
    let name = "what_is_delivered_twice_counts_once";
    let Some(programs) = probe::programs(name, DEMO) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut correlator = Correlator::start(&programs, dir.path()).unwrap();
    let first = file_of(&[record(1), record(2)]);
    put(&correlator.cloudtrail, &first);
    reaches(&correlator, "uses_new", 2, "the first delivery");
    // The same file under another name, then the same records among new ones.
    put(&correlator.cloudtrail, &first);
    reaches(
        &correlator,
        "cloudtrail_files_duplicate",
        1,
        "the second delivery",
    );
    put(&correlator.cloudtrail, &file_of(&[record(2), record(3)]));
    reaches(&correlator, "uses_new", 3, "the new record");
    reaches(&correlator, "uses_duplicate", 1, "the old record");
    // A restart reads nothing twice.
    correlator.crash().unwrap();
    correlator.restart().unwrap();
    put(&correlator.cloudtrail, &file_of(&[record(4)]));
    reaches(&correlator, "uses_new", 1, "after the restart");
    assert_eq!(
        correlator.counter("uses_new").unwrap(),
        1,
        "old files stay read"
    );
}
