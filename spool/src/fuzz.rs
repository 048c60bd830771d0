//! The body of the fuzz target `spool_block`, and of the short run in `tests/smoke.rs`.

use crate::{Record, frame};

/// Largest block that the target unpacks, bytes: an input of a few bytes may claim any size.
const MAX_RAW: u32 = 1 << 20;

/// A stored block. The first two bytes are the size it claims, in units of 16 bytes; the rest is
/// taken as the frame itself, and as the content of a frame that is sound.
///
/// # Panics
/// When more comes out than went in, or records do not survive being written again.
pub fn block(data: &[u8]) {
    let [low, high, bytes @ ..] = data else {
        return;
    };
    let claimed = u32::from(u16::from_le_bytes([*low, *high])) * 16;
    if let Ok(records) = frame::records(bytes, claimed) {
        let whole: usize = records.iter().map(Vec::len).sum();
        assert!(
            whole <= usize::try_from(claimed).unwrap_or(usize::MAX),
            "more than the block claims"
        );
        same_again(records);
    }
    let sound = zstd::bulk::compress(bytes, 1).unwrap_or_default();
    let size = u32::try_from(bytes.len()).unwrap_or(MAX_RAW);
    if let Ok(records) = frame::records(&sound, size) {
        same_again(records);
    }
}

/// Records written anew are the same records.
fn same_again(records: Vec<Vec<u8>>) {
    let stamped: Vec<Record> = records
        .iter()
        .map(|bytes| Record {
            bytes: bytes.clone(),
            stamp: 0,
        })
        .collect();
    let mut again = Vec::new();
    for block in frame::build(&stamped).unwrap_or_default() {
        again.extend(frame::records(&block.zstd, block.raw_bytes).unwrap_or_default());
    }
    assert!(again == records, "written anew, they are others");
}
