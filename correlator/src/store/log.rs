//! The log of inputs: blocks of JSON lines, compressed with zstd (with its checksum).

use keytrail_join::Input;
use rusqlite::{Connection, params};

use super::{Store, StoreError, to_i64, to_u64};

/// Inputs a block holds at most: bounds the memory of a replay.
const BLOCK_INPUTS: usize = 4096;
/// zstd's own default: measured good enough, and fast.
const LEVEL: i32 = 3;
/// A block never decompresses to more than this; a larger one is damage.
const MAX_RAW_BYTES: u64 = 1 << 30;

pub(super) fn next_offset(conn: &Connection) -> Result<u64, StoreError> {
    let next: i64 = conn.query_row(
        "SELECT max(
            coalesce((SELECT first + count FROM log ORDER BY first DESC LIMIT 1), 0),
            coalesce((SELECT next_offset FROM snapshot), 0))",
        [],
        |row| row.get(0),
    )?;
    Ok(to_u64(next))
}

/// Writes `inputs` behind the log's end; returns the new end.
pub(super) fn append(
    conn: &Connection,
    first: u64,
    inputs: &[Input],
    written_ms: i64,
) -> Result<u64, StoreError> {
    let mut at = first;
    for chunk in inputs.chunks(BLOCK_INPUTS) {
        let raw = encode(chunk)?;
        let block = compress(&raw)?;
        conn.prepare_cached(
            "INSERT INTO log (first, count, written_ms, raw_bytes, block) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            to_i64(at),
            to_i64(chunk.len() as u64),
            written_ms,
            to_i64(raw.len() as u64),
            block
        ])?;
        at += chunk.len() as u64;
    }
    Ok(at)
}

fn encode(inputs: &[Input]) -> Result<Vec<u8>, StoreError> {
    let mut raw = Vec::with_capacity(inputs.len() * 256);
    for input in inputs {
        serde_json::to_writer(&mut raw, input).map_err(|e| StoreError::Encode {
            what: "an input",
            detail: e.to_string(),
        })?;
        raw.push(b'\n');
    }
    Ok(raw)
}

/// Compresses with a content checksum, so that damage cannot pass for data.
pub(super) fn compress(raw: &[u8]) -> Result<Vec<u8>, StoreError> {
    let encode = |e: std::io::Error| StoreError::Encode {
        what: "a compressed block",
        detail: e.to_string(),
    };
    let mut compressor = zstd::bulk::Compressor::new(LEVEL).map_err(encode)?;
    compressor.include_checksum(true).map_err(encode)?;
    compressor.compress(raw).map_err(encode)
}

/// Reads one block back.
pub(super) fn decode(first: u64, raw_bytes: u64, block: &[u8]) -> Result<Vec<Input>, StoreError> {
    let what = || format!("log block {first}");
    if raw_bytes > MAX_RAW_BYTES {
        return Err(StoreError::value(what(), "its recorded size is absurd"));
    }
    let capacity = usize::try_from(raw_bytes).map_err(|e| StoreError::value(what(), e))?;
    let raw = zstd::bulk::decompress(block, capacity).map_err(|e| StoreError::value(what(), e))?;
    raw.split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(|e| StoreError::value(what(), e)))
        .collect()
}

impl Store {
    /// Reads the inputs from `offset` on, in order, block by block.
    ///
    /// # Errors
    /// When a block is damaged or missing, or `each` fails.
    pub fn replay<E: From<StoreError>>(
        &self,
        offset: u64,
        each: impl FnMut(u64, Input) -> Result<(), E>,
    ) -> Result<(), E> {
        replay(&self.conn, offset, each)
    }

    /// Offset of the oldest input still in the log (after retention), if there is any.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn oldest_offset(&self) -> Result<Option<u64>, StoreError> {
        let first: Option<i64> = self
            .conn
            .query_row("SELECT min(first) FROM log", [], |row| row.get(0))?;
        Ok(first.map(to_u64))
    }
}

/// See [`Store::replay`].
pub(super) fn replay<E: From<StoreError>>(
    conn: &Connection,
    offset: u64,
    mut each: impl FnMut(u64, Input) -> Result<(), E>,
) -> Result<(), E> {
    let mut statement = conn
        .prepare(
            "SELECT first, count, raw_bytes, block FROM log WHERE first + count > ?1 ORDER BY first",
        )
        .map_err(StoreError::from)?;
    let mut rows = statement
        .query([to_i64(offset)])
        .map_err(StoreError::from)?;
    let mut expected: Option<u64> = None;
    while let Some(row) = rows.next().map_err(StoreError::from)? {
        let (first, count, raw_bytes): (i64, i64, i64) = row
            .get(0)
            .and_then(|a| Ok((a, row.get(1)?, row.get(2)?)))
            .map_err(StoreError::from)?;
        let block: Vec<u8> = row.get(3).map_err(StoreError::from)?;
        let first = to_u64(first);
        if expected.is_some_and(|expected| expected != first) {
            return Err(
                StoreError::value("the log", format!("blocks before {first} are missing")).into(),
            );
        }
        let inputs = decode(first, to_u64(raw_bytes), &block)?;
        if inputs.len() as u64 != to_u64(count) {
            return Err(
                StoreError::value(format!("log block {first}"), "wrong number of inputs").into(),
            );
        }
        expected = Some(first + inputs.len() as u64);
        for (at, input) in (first..).zip(inputs) {
            if at >= offset {
                each(at, input)?;
            }
        }
    }
    Ok(())
}
