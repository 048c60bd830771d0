//! A growing file, its rotations and restarts.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use correlator::sources::config::Via;

use crate::common::Rig;
use crate::{line, source};

async fn start(dir: &Path) -> (Rig, PathBuf) {
    let path = dir.join("audit.log");
    let of = path.clone();
    let rig = Rig::start_with(dir, |config| {
        let mut tail = source("vault", Via::FileTail);
        tail.path = Some(of);
        config.source.push(tail);
    })
    .await;
    (rig, path)
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn lines(from: u32, to: u32) -> String {
    (from..to).map(|n| line(&format!("r-{n:05}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_taken_as_they_are_written_and_a_torn_one_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = start(dir.path()).await;
    // The file comes later.
    append(&path, &lines(0, 3));
    rig.reaches("uses_new", 3).await;
    let next = line("r-late");
    append(&path, &next[..40]);
    append(&path, "");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(rig.counter("vault_records").await, 3);
    append(&path, &next[40..]);
    rig.reaches("uses_new", 4).await;
    append(&path, "no record\n\n");
    append(&path, &format!("{}\n", "x".repeat(3 << 20)));
    append(&path, &lines(10, 12));
    rig.reaches("uses_new", 6).await;
    assert_eq!(rig.counter("vault_rejected_bad_json").await, 1);
    assert_eq!(rig.counter("vault_rejected_too_large").await, 1);
    assert_eq!(rig.counter("uses_duplicate").await, 0);
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rename_and_create_loses_nothing_not_even_a_last_line_without_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = start(dir.path()).await;
    append(&path, &lines(0, 5));
    rig.reaches("uses_new", 5).await;
    for round in 1..4 {
        let from = round * 100;
        // The writer still holds the old file while it is renamed, and goes on for a moment.
        let mut old = OpenOptions::new().append(true).open(&path).unwrap();
        std::fs::rename(&path, dir.path().join(format!("audit.log.{round}"))).unwrap();
        old.write_all(lines(from, from + 5).as_bytes()).unwrap();
        let last = line(&format!("r-last-{round}"));
        old.write_all(last.trim_end().as_bytes()).unwrap();
        drop(old);
        append(&path, &lines(from + 50, from + 55));
        rig.reaches("uses_new", 5 + u64::from(round) * 11).await;
    }
    assert_eq!(rig.counter("uses_duplicate").await, 0);
    assert_eq!(rig.counter("vault_rotations").await, 3);
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_and_truncate_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = start(dir.path()).await;
    append(&path, &lines(0, 5));
    rig.reaches("uses_new", 5).await;
    // Written between our last look and the copy, too.
    append(&path, &lines(5, 7));
    std::fs::copy(&path, dir.path().join("audit.log.1")).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    append(&path, &lines(100, 102));
    rig.reaches("uses_new", 9).await;
    // Cut and written beyond where we were before anyone looks: told by the first bytes.
    let longer = lines(200, 220);
    let mut file = File::options()
        .write(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    file.write_all(longer.as_bytes()).unwrap();
    rig.reaches("uses_new", 29).await;
    assert_eq!(rig.counter("vault_truncations").await, 2);
    // The second left no copy.
    assert_eq!(rig.counter("vault_tail_lost").await, 1);
    assert_eq!(rig.counter("uses_duplicate").await, 0);
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_was_also_over_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = start(dir.path()).await;
    append(&path, &lines(0, 5));
    rig.reaches("uses_new", 5).await;
    rig.server.crash().await;
    append(&path, &lines(5, 8));
    let (rig, _) = start(dir.path()).await;
    rig.reaches("uses_new", 3).await;
    assert_eq!(
        rig.counter("vault_records").await,
        3,
        "nothing is read twice"
    );
    rig.server.stop().await;
    append(&path, &lines(8, 10));
    std::fs::rename(&path, dir.path().join("audit.log.1")).unwrap();
    append(&path, &lines(10, 12));
    // A second rotation unseen: both old files are read, in their order.
    std::fs::rename(&path, dir.path().join("audit.log-20261124")).unwrap();
    append(&path, &lines(12, 14));
    let (rig, _) = start(dir.path()).await;
    rig.reaches("uses_new", 6).await;
    assert_eq!(rig.counter("vault_records").await, 6);
    assert_eq!(rig.counter("vault_tail_lost").await, 0);
    rig.server.stop().await;
    // The old file is gone: said, and the new one is read.
    let new = dir.path().join("new");
    append(&new, &lines(30, 32));
    std::fs::rename(new, &path).unwrap();
    let (rig, _) = start(dir.path()).await;
    rig.reaches("uses_new", 2).await;
    assert_eq!(rig.counter("vault_tail_lost").await, 1);
    rig.server.stop().await;
}
