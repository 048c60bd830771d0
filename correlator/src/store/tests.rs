//! The store against a model, and against damage.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use keytrail_join::Input;
use keytrail_model::ids::{BootId, HostId, RecordId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_800_000_000 + seconds)
}

fn tick(seconds: i64) -> Input {
    Input::Tick { time: at(seconds) }
}

fn inputs(store: &Store, from: u64) -> Vec<Input> {
    let mut all = Vec::new();
    store
        .replay(from, |_, input| {
            all.push(input);
            Ok::<(), StoreError>(())
        })
        .unwrap();
    all
}

/// What a test does to the store.
#[derive(Clone, Debug)]
enum Step {
    Append(u8, bool),
    Position(u8, u8, bool),
    Record(u8, bool),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..20_u8, any::<bool>()).prop_map(|(n, c)| Step::Append(n, c)),
        3 => (0..3_u8, any::<u8>(), any::<bool>()).prop_map(|(h, n, c)| Step::Position(h, n, c)),
        3 => (0..9_u8, any::<bool>()).prop_map(|(r, c)| Step::Record(r, c)),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Only what was committed is there, all of it, in order, also after reopening.
    #[test]
    fn behaves_as_its_model(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let mut log: Vec<Input> = Vec::new();
        let mut positions: BTreeMap<u8, u64> = BTreeMap::new();
        let mut records: BTreeSet<u8> = BTreeSet::new();
        let boot = BootId(Uuid::from_u128(1));
        for (nth, step) in steps.into_iter().enumerate() {
            let nth = i64::try_from(nth).unwrap();
            if matches!(step, Step::Reopen) {
                drop(store);
                store = Store::open(dir.path()).unwrap();
            } else {
                let mut batch = store.begin(at(nth)).unwrap();
                let commit = match step {
                    Step::Append(count, commit) => {
                        let new: Vec<Input> = (0..i64::from(count)).map(|i| tick(nth * 100 + i)).collect();
                        batch.append(&new).unwrap();
                        if commit { log.extend(new); }
                        commit
                    }
                    Step::Position(host, seq, commit) => {
                        let id = HostId(format!("h{host}"));
                        let before = positions.get(&host).copied().unwrap_or(0);
                        prop_assert_eq!(batch.position(&id, boot).unwrap(), before);
                        batch.set_position(&id, boot, u64::from(seq)).unwrap();
                        if commit { positions.insert(host, before.max(u64::from(seq))); }
                        commit
                    }
                    Step::Record(record, commit) => {
                        let id = RecordId(format!("r{record}"));
                        prop_assert_eq!(batch.remember_record(&id).unwrap(), !records.contains(&record));
                        if commit { records.insert(record); }
                        commit
                    }
                    Step::Reopen => unreachable!("handled above"),
                };
                if commit { batch.commit().unwrap(); }
            }
            prop_assert_eq!(store.next_offset(), log.len() as u64);
            prop_assert_eq!(inputs(&store, 0), log.clone());
            let half = log.len() / 2;
            prop_assert_eq!(inputs(&store, half as u64), log[half..].to_vec());
        }
    }
}

#[test]
fn a_second_correlator_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
}

#[test]
fn a_newer_schema_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let conn = Connection::open(dir.path().join(FILE_NAME)).unwrap();
    conn.execute("UPDATE meta SET value = 99", []).unwrap();
    drop(conn);
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("schema version 99") && error.contains("newer"),
        "{error}"
    );
}

#[test]
fn damage_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE_NAME), vec![7_u8; 8192]).unwrap();
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("damaged") && error.contains("move it away"),
        "{error}"
    );
}

#[test]
fn a_damaged_block_is_never_read_as_data() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let mut batch = store.begin(at(0)).unwrap();
    batch
        .append(&(0..50).map(tick).collect::<Vec<_>>())
        .unwrap();
    batch.commit().unwrap();
    let block: Vec<u8> = store
        .conn
        .query_row("SELECT block FROM log", [], |r| r.get(0))
        .unwrap();
    for at in 0..block.len() {
        let mut damaged = block.clone();
        damaged[at] ^= 0x40;
        store
            .conn
            .execute("UPDATE log SET block = ?1", [damaged])
            .unwrap();
        let read = store.replay(0, |_, _| Ok::<(), StoreError>(()));
        // A bit of the frame header may be without meaning; what is read is then the same.
        if read.is_ok() {
            assert_eq!(inputs(&store, 0).len(), 50, "byte {at}");
        }
    }
}

#[test]
fn retention_keeps_what_a_restart_needs() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    for n in 0..3 {
        let mut batch = store.begin(at(n)).unwrap();
        batch.append(&[tick(n)]).unwrap();
        if n == 1 {
            batch
                .put_snapshot(&keytrail_join::Settings::default(), b"{}")
                .unwrap();
        }
        batch.commit().unwrap();
    }
    // Everything is old, but the last block is not in the snapshot.
    store.age_everything(1_000_000_000).unwrap();
    let pruned = store.prune(at(0), |_| true).unwrap();
    assert_eq!(pruned.blocks, 2);
    assert_eq!(inputs(&store, 2), vec![tick(2)]);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.next_offset(), 3);
}
