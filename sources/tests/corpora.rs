//! Recorded logs of others: every record gives a use, or a reason.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "test code: it fails by panicking"
)]

#[path = "support/survey.rs"]
mod survey;

#[test]
fn every_record_is_accounted_for() {
    let Some(folder) = survey::folder() else {
        println!("SKIPPED corpora: {}", survey::ABSENT);
        return;
    };
    let tallies = survey::survey(&folder, |_, _, _| {});
    println!("{}", survey::table(&tallies));
    let mut records = 0;
    for (name, tally) in &tallies {
        assert_eq!(tally.unaccounted(), 0, "{name}");
        records += tally.records;
    }
    assert!(records > 3_500, "{records} records");
    // Real records, unedited: nothing of them may be refused.
    for (name, tally) in tallies.iter().filter(|(name, _)| !name.contains("panther")) {
        assert!(tally.rejected.is_empty(), "{name}: {:?}", tally.rejected);
    }
}
