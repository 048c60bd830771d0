//! Blocks: records framed one after the other, compressed as a whole.

use thiserror::Error;

use crate::{MAX_BLOCK_BYTES, MAX_BLOCK_RECORDS, MAX_RECORD_BYTES, Record};

/// Protobuf tag of field 1, length-delimited.
const TAG: u8 = 0x0a;
/// Level 1: about 400 MB/s on one core, and process data repeats itself.
const LEVEL: i32 = 1;

/// A block could not be made or read.
#[derive(Debug, Error)]
pub enum BlockError {
    /// zstd.
    #[error("zstd: {0}")]
    Zstd(std::io::Error),
    /// A record beyond the limit. The caller is at fault.
    #[error("a record of {0} bytes is larger than {MAX_RECORD_BYTES}")]
    RecordTooLarge(usize),
    /// Not the framing above.
    #[error("the block is not framed as records at byte {0}")]
    Framing(usize),
}

/// A block that is being built or was built.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) count: u32,
    pub(crate) raw_bytes: u32,
    pub(crate) zstd: Vec<u8>,
    pub(crate) min_stamp: i64,
    pub(crate) max_stamp: i64,
}

/// Packs records into as few blocks as the limits allow, in order.
pub(crate) fn build(records: &[Record]) -> Result<Vec<Built>, BlockError> {
    let mut blocks = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        let mut raw = Vec::new();
        let mut taken = 0;
        for record in rest.iter().take(MAX_BLOCK_RECORDS) {
            if record.bytes.len() > MAX_RECORD_BYTES {
                return Err(BlockError::RecordTooLarge(record.bytes.len()));
            }
            if raw.len() >= MAX_BLOCK_BYTES {
                break;
            }
            push(&mut raw, &record.bytes);
            taken += 1;
        }
        let (these, later) = rest.split_at(taken);
        blocks.push(seal(these, &raw)?);
        rest = later;
    }
    Ok(blocks)
}

fn seal(records: &[Record], raw: &[u8]) -> Result<Built, BlockError> {
    let zstd = zstd::bulk::compress(raw, LEVEL).map_err(BlockError::Zstd)?;
    let stamps = || records.iter().map(|record| record.stamp);
    Ok(Built {
        // Both are bounded far below 2^32 by the limits.
        count: u32::try_from(records.len()).unwrap_or(u32::MAX),
        raw_bytes: u32::try_from(raw.len()).unwrap_or(u32::MAX),
        zstd,
        min_stamp: stamps().min().unwrap_or_default(),
        max_stamp: stamps().max().unwrap_or_default(),
    })
}

/// The lowest seven bits.
fn low_bits(length: usize) -> u8 {
    let [low, ..] = length.to_le_bytes();
    low & 0x7f
}

fn push(block: &mut Vec<u8>, record: &[u8]) {
    block.push(TAG);
    let mut length = record.len();
    while length >= 0x80 {
        block.push(low_bits(length) | 0x80);
        length >>= 7;
    }
    block.push(low_bits(length));
    block.extend_from_slice(record);
}

/// Decompresses a block of `raw_bytes` and takes it apart into its records.
///
/// # Errors
/// When the frame is no zstd, longer than it says, or not framed as above.
pub fn records(zstd: &[u8], raw_bytes: u32) -> Result<Vec<Vec<u8>>, BlockError> {
    let capacity = usize::try_from(raw_bytes).unwrap_or(usize::MAX);
    let raw = zstd::bulk::decompress(zstd, capacity).map_err(BlockError::Zstd)?;
    let mut records = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        let (start, length) = header(&raw, at).ok_or(BlockError::Framing(at))?;
        let end = start
            .checked_add(length)
            .filter(|end| *end <= raw.len())
            .ok_or(BlockError::Framing(at))?;
        records.push(raw.get(start..end).ok_or(BlockError::Framing(at))?.to_vec());
        at = end;
    }
    Ok(records)
}

/// Start and length of the record whose header is at `at`.
fn header(raw: &[u8], at: usize) -> Option<(usize, usize)> {
    if *raw.get(at)? != TAG {
        return None;
    }
    let mut length = 0_usize;
    let mut at = at + 1;
    for shift in (0..28).step_by(7) {
        let byte = *raw.get(at)?;
        at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((at, length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_hold_what_was_put_in(sizes in prop::collection::vec(0_usize..300_000, 1..20)) {
            let input: Vec<Record> = sizes
                .iter()
                .enumerate()
                .map(|(index, size)| Record {
                    bytes: vec![u8::try_from(index).unwrap(); *size],
                    stamp: i64::try_from(index).unwrap(),
                })
                .collect();
            let mut output = Vec::new();
            for block in build(&input).unwrap() {
                prop_assert!((block.raw_bytes as usize) < MAX_BLOCK_BYTES + MAX_RECORD_BYTES + 8);
                let records = records(&block.zstd, block.raw_bytes).unwrap();
                prop_assert_eq!(records.len(), block.count as usize);
                output.extend(records);
            }
            let input: Vec<_> = input.into_iter().map(|record| record.bytes).collect();
            prop_assert_eq!(output, input);
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_panic(raw in prop::collection::vec(any::<u8>(), 0..200)) {
            let zstd = zstd::bulk::compress(&raw, 1).unwrap();
            drop(records(&zstd, u32::try_from(raw.len()).unwrap()));
            drop(records(&raw, 1000));
        }
    }
}
