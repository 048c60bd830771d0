//! The spool against a model of it: any sequence of operations, with reopening in between.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::type_complexity,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "helpers of tests"
)]

use std::collections::{BTreeMap, VecDeque};

use keytrail_spool::{Item, Limits, LossCause, MAX_RECORD_BYTES, Record, Spool, records};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// So many records of that size.
    Append(usize, usize),
    /// Acknowledge this share (of 8) of what is there.
    Ack(u64),
    Reopen,
    /// A new boot.
    NewEpoch,
    /// The far end refuses one record, at this share (of 8).
    Discard(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (1_usize..40, prop_oneof![Just(10_usize), Just(1000), Just(200_000)])
            .prop_map(|(count, size)| Op::Append(count, size)),
        3 => (0_u64..=8).prop_map(Op::Ack),
        1 => Just(Op::Reopen),
        1 => Just(Op::NewEpoch),
        1 => (0_u64..8).prop_map(Op::Discard),
    ]
}

/// What was given and not acknowledged, per epoch: content by number; `None` once refused.
#[derive(Default)]
struct Model {
    epochs: VecDeque<(u8, u64, BTreeMap<u64, Option<Vec<u8>>>)>,
}

/// Incompressible, so that a small spool overflows.
fn content(epoch: u8, seq: u64, size: usize) -> Vec<u8> {
    let mut state = (u64::from(epoch) << 56) ^ seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn run(ops: &[Op]) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let limits = Limits {
        max_bytes: Limits::SMALLEST,
    };
    let mut boot = 1_u8;
    let mut next = 1_u64;
    let mut model = Model::default();
    model.epochs.push_back((boot, 0, BTreeMap::new()));
    let mut spool = Spool::open(&path, [boot; 16], limits).unwrap().0;
    for op in ops {
        match *op {
            Op::Append(count, size) => {
                let records: Vec<Record> = (0..count)
                    .map(|index| Record {
                        bytes: content(boot, next + index as u64, size),
                        stamp: (next + index as u64) as i64,
                    })
                    .collect();
                let range = spool.append(&records, None).unwrap();
                prop_assert_eq!(&range, &(next..next + count as u64), "SP-2");
                let (_, _, entries) = model.epochs.back_mut().unwrap();
                for (seq, record) in range.zip(records) {
                    entries.insert(seq, Some(record.bytes));
                }
                next += count as u64;
            }
            Op::Ack(share) => {
                let epoch = spool.oldest().unwrap();
                let up_to = epoch.acked + (epoch.next_seq - 1 - epoch.acked) * share / 8;
                spool.ack(epoch.no, up_to).unwrap();
                prop_assert!(spool.ack(epoch.no, epoch.next_seq).is_err());
                let of = model.epochs.iter_mut().find(|(id, ..)| *id == epoch.id[0]);
                let (_, acked, entries) = of.unwrap();
                *acked = (*acked).max(up_to);
                entries.retain(|seq, _| *seq > up_to);
                // The order of boots (SP-5): an earlier one is over only when it is empty.
                while model.epochs.len() > 1 && model.epochs[0].2.is_empty() {
                    model.epochs.pop_front();
                }
            }
            Op::Reopen | Op::NewEpoch => {
                if matches!(op, Op::NewEpoch) {
                    boot += 1;
                    next = 1;
                    model.epochs.push_back((boot, 0, BTreeMap::new()));
                    while model.epochs.len() > 1 && model.epochs[0].2.is_empty() {
                        model.epochs.pop_front();
                    }
                }
                drop(spool);
                let (again, opened) = Spool::open(&path, [boot; 16], limits).unwrap();
                prop_assert_eq!(opened, keytrail_spool::Opened::default());
                spool = again;
            }
            Op::Discard(share) => {
                let epoch = spool.oldest().unwrap();
                let seq = epoch.acked + 1 + (epoch.next_seq - 1 - epoch.acked) * share / 8;
                spool.discard(epoch.no, seq).unwrap();
                let of = model.epochs.iter_mut().find(|(id, ..)| *id == epoch.id[0]);
                if let Some(entry) = of.and_then(|(_, _, entries)| entries.get_mut(&seq)) {
                    *entry = None;
                }
            }
        }
        check(&mut spool, &mut model)?;
    }
    Ok(())
}

/// SP-2 to SP-6: what can be read is what the model has, except what overflowed.
fn check(spool: &mut Spool, model: &mut Model) -> Result<(), TestCaseError> {
    prop_assert!(spool.stats().bytes <= Limits::SMALLEST, "SP-3");
    let epoch = spool.oldest().unwrap();
    let of = model.epochs.iter_mut().find(|(id, ..)| *id == epoch.id[0]);
    let (_, acked, entries) = of.unwrap();
    prop_assert_eq!(epoch.acked, *acked);
    let mut at = epoch.acked + 1;
    while let Some(item) = spool.read(epoch.no, at).unwrap() {
        prop_assert!(*item.seqs().start() <= at, "SP-2: a hole before {}", at);
        match &item {
            Item::Block(block) => {
                let read = records(&block.zstd, block.raw_bytes).unwrap();
                for (seq, bytes) in item.seqs().zip(&read) {
                    if seq >= at {
                        prop_assert_eq!(entries.get(&seq), Some(&Some(bytes.clone())), "{}", seq);
                    }
                }
            }
            Item::Lost(lost) => {
                for seq in item.seqs().filter(|seq| *seq >= at) {
                    let entry = entries.get_mut(&seq);
                    prop_assert!(entry.is_some(), "SP-4: {} was never there", seq);
                    let refused = entry.as_deref().is_some_and(Option::is_none);
                    prop_assert_eq!(
                        refused && lost.cause != LossCause::Overflow,
                        lost.cause == LossCause::Refused,
                        "{}",
                        seq
                    );
                }
            }
        }
        at = item.seqs().end() + 1;
    }
    prop_assert_eq!(at, epoch.next_seq, "SP-2: the end is missing");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn spool_is_its_model(ops in prop::collection::vec(op(), 1..25)) {
        run(&ops)?;
    }
}

#[test]
fn overflow_drops_the_oldest_and_says_what() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        max_bytes: Limits::SMALLEST,
    };
    let mut spool = Spool::open(&folder.path().join("s.db"), [1; 16], limits)
        .unwrap()
        .0;
    for block in 0..10_u64 {
        let record = Record {
            bytes: content(1, block, 900_000),
            stamp: 1000 + block as i64,
        };
        spool.append(&[record], None).unwrap();
    }
    let epoch = spool.oldest().unwrap();
    let Some(Item::Lost(lost)) = spool.read(epoch.no, 1).unwrap() else {
        panic!("expected a note of loss");
    };
    // Four records of 0.9 MB fit into 4 MiB.
    assert_eq!((lost.first_seq, lost.count), (1, 6));
    assert_eq!((lost.min_stamp, lost.max_stamp), (1000, 1005));
    assert_eq!(lost.cause, LossCause::Overflow);
    assert_eq!(spool.stats().overflowed, 6);
}

#[test]
fn numbers_move_behind_what_the_far_end_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let open = || Spool::open(&path, [1; 16], Limits::default()).unwrap().0;
    let records: Vec<Record> = (0..3)
        .map(|index| Record {
            bytes: vec![index; 9],
            stamp: 0,
        })
        .collect();
    let mut spool = open();
    let epoch = spool.oldest().unwrap().no;
    spool.append(&records, None).unwrap();
    assert_eq!(spool.anchor(epoch, 0).unwrap(), 0);
    spool.ack(epoch, 3).unwrap();
    // Someone deletes the file; the far end has 3 records of this boot (SP-7).
    drop(spool);
    std::fs::remove_file(&path).unwrap();
    let mut spool = open();
    let epoch = spool.oldest().unwrap().no;
    spool.append(&records, None).unwrap();
    assert_eq!(spool.anchor(epoch, 3).unwrap(), 3);
    let item = spool.read(epoch, 1).unwrap().unwrap();
    assert_eq!(item.seqs(), 4..=6);
    // Once anchored, a durable number within what was given moves nothing.
    assert_eq!(spool.anchor(epoch, 4).unwrap(), 0);
    assert_eq!(spool.append(&records, None).unwrap(), 7..10);
    // Unless the far end has more than was ever given.
    assert_eq!(spool.anchor(epoch, 20).unwrap(), 17);
    assert_eq!(spool.oldest().unwrap().next_seq, 27);
    assert_eq!(spool.read(epoch, 21).unwrap().unwrap().seqs(), 21..=23);
}

#[test]
fn a_damaged_block_is_reported_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let mut spool = Spool::open(&path, [1; 16], Limits::default()).unwrap().0;
    for index in 0..3_u8 {
        let record = Record {
            bytes: vec![index; 100],
            stamp: i64::from(index),
        };
        spool.append(&[record], None).unwrap();
    }
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute(
            "UPDATE block SET zstd = zeroblob(length(zstd)) WHERE first_seq = 2",
            [],
        )
        .unwrap();
    let epoch = spool.oldest().unwrap().no;
    let items = spool.read_some(epoch, 1, usize::MAX, 10).unwrap();
    assert_eq!(items.len(), 3);
    let Item::Lost(lost) = items[1] else {
        panic!("expected a note of loss, got {:?}", items[1]);
    };
    assert_eq!(lost.cause, LossCause::Damaged);
    assert_eq!(spool.stats().damaged, 1);
}

#[test]
fn a_damaged_file_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    std::fs::write(
        &path,
        b"this is no database, and long enough to be looked at: ".repeat(40),
    )
    .unwrap();
    let (mut spool, opened) = Spool::open(&path, [1; 16], Limits::default()).unwrap();
    let aside = opened.quarantined.unwrap();
    assert!(aside.exists());
    assert!(opened.damage.is_some());
    let record = Record {
        bytes: vec![1],
        stamp: 0,
    };
    assert_eq!(spool.append(&[record], None).unwrap(), 1..2);
}

#[test]
fn a_note_is_as_durable_as_what_it_came_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let (boot, other) = ([1; 16], [2; 16]);
    assert_eq!(keytrail_spool::note(&path, boot), None, "no file yet");
    let mut spool = Spool::open(&path, boot, Limits::default()).unwrap().0;
    let record = || Record {
        bytes: vec![7],
        stamp: 0,
    };
    assert_eq!(keytrail_spool::note(&path, boot), None);
    spool
        .append_noting(&[record()], None, Some(b"first"))
        .unwrap();
    spool
        .append_noting(&[record()], None, Some(b"second"))
        .unwrap();
    spool.append(&[record()], None).unwrap();
    assert_eq!(keytrail_spool::note(&path, boot).unwrap(), b"second");
    // What cannot be appended leaves no note either.
    let huge = Record {
        bytes: vec![0; MAX_RECORD_BYTES + 1],
        stamp: 0,
    };
    spool
        .append_noting(&[huge], None, Some(b"third"))
        .unwrap_err();
    drop(spool);
    assert_eq!(keytrail_spool::note(&path, boot).unwrap(), b"second");
    assert_eq!(keytrail_spool::note(&path, other), None, "another boot's");
}
