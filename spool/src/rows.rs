//! Rows: what the operations of the queue are made of.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use crate::{Block, Epoch, Item, LossCause, Lost, Record, SpoolError, Stats, frame};

/// A row of `block` without its frame.
pub(crate) struct Head {
    pub(crate) epoch: i64,
    pub(crate) first_seq: i64,
    pub(crate) count: i64,
    pub(crate) min_stamp: i64,
    pub(crate) max_stamp: i64,
    pub(crate) bytes: i64,
    pub(crate) cause: Option<i64>,
}

pub(crate) const HEAD: &str =
    "epoch, first_seq, count, min_stamp, max_stamp, ifnull(length(zstd), 0), cause";

impl Head {
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            epoch: row.get(0)?,
            first_seq: row.get(1)?,
            count: row.get(2)?,
            min_stamp: row.get(3)?,
            max_stamp: row.get(4)?,
            bytes: row.get(5)?,
            cause: row.get(6)?,
        })
    }
}

/// What stops a transaction: SQLite's errors get the file's name at the edge.
pub(crate) enum Failure {
    Sqlite(rusqlite::Error),
    Other(SpoolError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<SpoolError> for Failure {
    fn from(error: SpoolError) -> Self {
        Self::Other(error)
    }
}

pub(crate) fn signed(value: u64) -> Result<i64, SpoolError> {
    i64::try_from(value).map_err(|_too_large| SpoolError::Impossible("number"))
}

pub(crate) fn unsigned(value: i64, what: &'static str) -> Result<u64, SpoolError> {
    u64::try_from(value).map_err(|_negative| SpoolError::Impossible(what))
}

pub(crate) fn crc(count: u32, raw_bytes: u32, zstd: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&count.to_le_bytes());
    hasher.update(&raw_bytes.to_le_bytes());
    hasher.update(zstd);
    i64::from(hasher.finalize())
}

pub(crate) fn epoch_row(t: &Transaction<'_>, no: i64, current: i64) -> Result<Epoch, Failure> {
    let row: Option<(Vec<u8>, i64, i64)> = t
        .prepare_cached("SELECT id, acked, next_seq FROM epoch WHERE no = ?1")?
        .query_row([no], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let (id, acked, next_seq) = row.ok_or(SpoolError::NoEpoch(no))?;
    Ok(Epoch {
        no,
        id: id
            .try_into()
            .map_err(|_length| SpoolError::Impossible("epoch id"))?,
        acked: unsigned(acked, "number")?,
        next_seq: unsigned(next_seq, "number")?,
        current: no == current,
    })
}

/// Turns the oldest blocks into notes of loss until at most `limit` bytes are stored.
pub(crate) fn make_room(t: &Transaction<'_>, limit: u64, stats: &mut Stats) -> Result<(), Failure> {
    while stats.bytes > limit {
        let head: Option<Head> = t
            .prepare_cached(&format!(
                "SELECT {HEAD} FROM block WHERE zstd IS NOT NULL ORDER BY epoch, first_seq LIMIT 1"
            ))?
            .query_row([], Head::read)
            .optional()?;
        let Some(head) = head else {
            return Err(SpoolError::Impossible("size").into());
        };
        lose(t, &head, LossCause::Overflow)?;
        stats.bytes = stats.bytes.saturating_sub(unsigned(head.bytes, "size")?);
        stats.overflowed += unsigned(head.count, "count")?;
    }
    Ok(())
}

/// Replaces a block by a note of its loss, joined with a note of the same cause right before it so
/// that notes do not pile up.
fn lose(t: &Transaction<'_>, head: &Head, cause: LossCause) -> Result<(), Failure> {
    t.prepare_cached("DELETE FROM block WHERE epoch = ?1 AND first_seq = ?2")?
        .execute([head.epoch, head.first_seq])?;
    insert_lost(t, head, head.first_seq, head.count, cause)
}

pub(crate) fn insert_lost(
    t: &Transaction<'_>,
    head: &Head,
    first_seq: i64,
    count: i64,
    cause: LossCause,
) -> Result<(), Failure> {
    let joined = t
        .prepare_cached(
            "UPDATE block SET count = count + ?3, min_stamp = min(min_stamp, ?4), \
             max_stamp = max(max_stamp, ?5) \
             WHERE epoch = ?1 AND first_seq + count = ?2 AND cause = ?6",
        )?
        .execute(params![
            head.epoch,
            first_seq,
            count,
            head.min_stamp,
            head.max_stamp,
            cause_code(cause)
        ])?;
    if joined == 0 {
        t.prepare_cached(
            "INSERT INTO block (epoch, first_seq, count, raw_bytes, min_stamp, max_stamp, mark, \
             cause, crc, zstd) VALUES (?1, ?2, ?3, 0, ?4, ?5, NULL, ?6, 0, NULL)",
        )?
        .execute(params![
            head.epoch,
            first_seq,
            count,
            head.min_stamp,
            head.max_stamp,
            cause_code(cause)
        ])?;
    }
    Ok(())
}

/// Stores a part of a block that was taken apart; returns its size.
pub(crate) fn insert_part(
    t: &Transaction<'_>,
    whole: &Head,
    records: &[Vec<u8>],
    first_seq: i64,
    mark: Option<i64>,
) -> Result<u64, Failure> {
    let records: Vec<Record> = records
        .iter()
        .map(|bytes| Record {
            bytes: bytes.clone(),
            stamp: whole.min_stamp,
        })
        .collect();
    let mut next = first_seq;
    let mut size = 0;
    for block in frame::build(&records).map_err(SpoolError::Block)? {
        t.execute(
            "INSERT INTO block (epoch, first_seq, count, raw_bytes, min_stamp, max_stamp, mark, \
             cause, crc, zstd) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?8, ?9)",
            params![
                whole.epoch,
                next,
                block.count,
                block.raw_bytes,
                whole.min_stamp,
                whole.max_stamp,
                mark,
                crc(block.count, block.raw_bytes, &block.zstd),
                block.zstd,
            ],
        )?;
        size += block.zstd.len() as u64;
        next += i64::from(block.count);
    }
    Ok(size)
}

pub(crate) fn read_item(
    t: &Transaction<'_>,
    head: &Head,
    stats: &mut Stats,
) -> Result<Item, Failure> {
    if let Some(code) = head.cause {
        return Ok(Item::Lost(lost(head, cause_of(code)?)?));
    }
    let (zstd, stored_crc, raw_bytes, mark): (Option<Vec<u8>>, i64, i64, Option<i64>) = t
        .prepare_cached(
            "SELECT zstd, crc, raw_bytes, mark FROM block WHERE epoch = ?1 AND first_seq = ?2",
        )?
        .query_row([head.epoch, head.first_seq], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
    let count = u32::try_from(head.count).ok();
    let raw_bytes = u32::try_from(raw_bytes).ok();
    if let (Some(zstd), Some(count), Some(raw_bytes)) = (zstd, count, raw_bytes)
        && crc(count, raw_bytes, &zstd) == stored_crc
    {
        return Ok(Item::Block(Block {
            first_seq: unsigned(head.first_seq, "number")?,
            count,
            raw_bytes,
            zstd,
            mark,
        }));
    }
    lose(t, head, LossCause::Damaged)?;
    stats.bytes = stats.bytes.saturating_sub(unsigned(head.bytes, "size")?);
    stats.damaged += unsigned(head.count, "count")?;
    Ok(Item::Lost(lost(head, LossCause::Damaged)?))
}

fn lost(head: &Head, cause: LossCause) -> Result<Lost, SpoolError> {
    Ok(Lost {
        first_seq: unsigned(head.first_seq, "number")?,
        count: unsigned(head.count, "count")?,
        min_stamp: head.min_stamp,
        max_stamp: head.max_stamp,
        cause,
    })
}

fn cause_code(cause: LossCause) -> i64 {
    match cause {
        LossCause::Overflow => 1,
        LossCause::Damaged => 2,
        LossCause::Refused => 3,
    }
}

fn cause_of(code: i64) -> Result<LossCause, SpoolError> {
    match code {
        1 => Ok(LossCause::Overflow),
        2 => Ok(LossCause::Damaged),
        3 => Ok(LossCause::Refused),
        _ => Err(SpoolError::Impossible("cause")),
    }
}
