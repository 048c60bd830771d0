//! kill -9 while appending: what was returned as durable is there afterwards (SP-1).

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

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use keytrail_spool::{Item, Limits, Record, Spool, records};

const FOLDER: &str = "KEYTRAIL_SPOOL_CRASH_FOLDER";

fn open(folder: &Path) -> Spool {
    let (spool, opened) =
        Spool::open(&folder.join("spool.db"), [7; 16], Limits::default()).unwrap();
    assert_eq!(opened.quarantined, None, "{:?}", opened.damage);
    spool
}

fn content(seq: u64) -> Vec<u8> {
    seq.to_le_bytes().repeat(1 + (seq % 50) as usize)
}

/// Not a test of its own: the process that is killed. Appends until then and says what is durable.
#[test]
fn appending_child() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let mut spool = open(Path::new(&folder));
    let mut out = std::io::stdout();
    loop {
        let next = spool.oldest().unwrap().next_seq;
        let records: Vec<Record> = (next..next + 1 + next % 97)
            .map(|seq| Record {
                bytes: content(seq),
                stamp: 0,
            })
            .collect();
        let range = spool.append(&records, None).unwrap();
        writeln!(out, "durable {}", range.end - 1).unwrap();
        out.flush().unwrap();
        if range.end.is_multiple_of(5) {
            let epoch = spool.oldest().unwrap();
            spool.ack(epoch.no, epoch.next_seq / 2).unwrap();
        }
    }
}

#[test]
fn what_was_durable_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut durable = 0_u64;
    for round in 0..8_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "appending_child", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(120 + 37 * round));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        for line in out.lines() {
            if let Some(number) = line.unwrap().strip_prefix("durable ") {
                durable = number.parse().unwrap();
            }
        }
        killer.join().unwrap();

        let mut spool = open(folder.path());
        let epoch = spool.oldest().unwrap();
        assert!(
            epoch.next_seq > durable,
            "{durable} was durable, next is {}",
            epoch.next_seq
        );
        let mut at = epoch.acked + 1;
        while at < epoch.next_seq {
            let item = spool.read(epoch.no, at).unwrap().expect("no hole (SP-2)");
            let Item::Block(block) = &item else {
                panic!("lost: {item:?}");
            };
            let read = records(&block.zstd, block.raw_bytes).unwrap();
            for (seq, bytes) in item.seqs().zip(read) {
                assert_eq!(bytes, content(seq), "record {seq}");
            }
            at = item.seqs().end() + 1;
        }
    }
    assert!(durable > 0, "the child never appended");
}
