//! The queue's operations. Each is one transaction.

use std::ops::Range;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use crate::rows::{
    Failure, HEAD, Head, crc, epoch_row, insert_lost, insert_part, make_room, read_item, signed,
    unsigned,
};
use crate::{
    Epoch, EpochId, Item, Limits, LossCause, Opened, Record, SpoolError, Stats, db, frame,
};

/// The queue. One owner: wrap it in a thread of its own when several parts need it.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    connection: Connection,
    limits: Limits,
    epoch_id: EpochId,
    epoch: i64,
    stats: Stats,
}

impl Spool {
    /// Opens the spool, or begins one, to append to the epoch `epoch_id`.
    ///
    /// # Errors
    /// When the file can neither be used nor put aside, or the limits are too small.
    pub fn open(
        path: &Path,
        epoch_id: EpochId,
        limits: Limits,
    ) -> Result<(Self, Opened), SpoolError> {
        if limits.max_bytes < Limits::SMALLEST {
            return Err(SpoolError::Limits {
                given: limits.max_bytes,
            });
        }
        let (connection, opened) = db::open(path)?;
        let mut spool = Self {
            path: path.to_owned(),
            connection,
            limits,
            epoch_id,
            epoch: 0,
            stats: Stats::default(),
        };
        spool.begin_epoch()?;
        Ok((spool, opened))
    }

    /// Puts a damaged file aside and begins a new one, after an error with
    /// [`SpoolError::is_damage`].
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn recover(self) -> Result<(Self, Opened), SpoolError> {
        let Self {
            path,
            connection,
            limits,
            epoch_id,
            stats,
            ..
        } = self;
        drop(connection);
        let aside = db::put_aside(&path)?;
        let (mut spool, mut opened) = Self::open(&path, epoch_id, limits)?;
        spool.stats = Stats {
            bytes: spool.stats.bytes,
            ..stats
        };
        opened.quarantined.get_or_insert(aside);
        Ok((spool, opened))
    }

    fn begin_epoch(&mut self) -> Result<(), SpoolError> {
        let id = self.epoch_id;
        let (epoch, bytes) = self.transaction(|t| {
            t.execute(
                "INSERT OR IGNORE INTO epoch (id, next_seq, acked, anchored) VALUES (?1, 1, 0, 0)",
                [id.as_slice()],
            )?;
            let epoch = t.query_row(
                "SELECT no FROM epoch WHERE id = ?1",
                [id.as_slice()],
                |row| row.get(0),
            )?;
            let bytes: i64 = t.query_row(
                "SELECT ifnull(sum(length(zstd)), 0) FROM block",
                [],
                |row| row.get(0),
            )?;
            Ok((epoch, unsigned(bytes, "size")?))
        })?;
        self.epoch = epoch;
        self.stats.bytes = bytes;
        Ok(())
    }

    /// Counts since opening, and the size now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Appends records in order and gives them numbers in the current epoch. `mark` is stored with
    /// the first block: it must hold once everything before it has been read.
    ///
    /// Durable on return (SP-1). Old blocks make room when needed (SP-3, SP-4).
    ///
    /// # Errors
    /// When nothing was appended.
    pub fn append(
        &mut self,
        records: &[Record],
        mark: Option<i64>,
    ) -> Result<Range<u64>, SpoolError> {
        self.append_noting(records, mark, None)
    }

    /// The same, and stores the producer's own note with them (SP-1 holds for both or neither): up to
    /// where it had read what the records were made of. Only the latest note is kept.
    ///
    /// # Errors
    /// When nothing was appended.
    pub fn append_noting(
        &mut self,
        records: &[Record],
        mark: Option<i64>,
        note: Option<&[u8]>,
    ) -> Result<Range<u64>, SpoolError> {
        let blocks = frame::build(records)?;
        let (epoch, limit, mut stats) = (self.epoch, self.limits.max_bytes, self.stats);
        let range = self.transaction(|t| {
            let first: i64 = t
                .prepare_cached("SELECT next_seq FROM epoch WHERE no = ?1")?
                .query_row([epoch], |row| row.get(0))?;
            let mut next = first;
            for (index, block) in blocks.iter().enumerate() {
                let size = block.zstd.len() as u64;
                make_room(t, limit.saturating_sub(size), &mut stats)?;
                t.prepare_cached(
                    "INSERT INTO block (epoch, first_seq, count, raw_bytes, min_stamp, max_stamp, \
                     mark, cause, crc, zstd) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?8, ?9)",
                )?
                .execute(params![
                    epoch,
                    next,
                    block.count,
                    block.raw_bytes,
                    block.min_stamp,
                    block.max_stamp,
                    mark.filter(|_| index == 0),
                    crc(block.count, block.raw_bytes, &block.zstd),
                    block.zstd,
                ])?;
                stats.bytes += size;
                next += i64::from(block.count);
            }
            t.prepare_cached("UPDATE epoch SET next_seq = ?2 WHERE no = ?1")?
                .execute([epoch, next])?;
            if let Some(note) = note {
                t.prepare_cached("REPLACE INTO note (one, epoch, text) VALUES (1, ?1, ?2)")?
                    .execute(params![epoch, note])?;
            }
            Ok(unsigned(first, "number")?..unsigned(next, "number")?)
        })?;
        stats.appended += records.len() as u64;
        self.stats = stats;
        debug_assert!(
            self.stats.bytes <= self.limits.max_bytes,
            "SP-3: {} bytes stored, {} allowed",
            self.stats.bytes,
            self.limits.max_bytes
        );
        Ok(range)
    }

    /// The epoch to send from: the oldest that has unacknowledged records, else the current one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn oldest(&mut self) -> Result<Epoch, SpoolError> {
        let current = self.epoch;
        self.transaction(|t| {
            let no: Option<i64> = t
                .prepare_cached("SELECT min(epoch) FROM block")?
                .query_row([], |row| row.get(0))?;
            epoch_row(t, no.unwrap_or(current), current)
        })
    }

    /// The epoch that is appended to.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn current(&mut self) -> Result<Epoch, SpoolError> {
        let current = self.epoch;
        self.transaction(|t| epoch_row(t, current, current))
    }

    /// The item that holds `seq` in an epoch, or the next one there; `None` when there is nothing
    /// at or after it. A damaged block comes back as lost (SP-6).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self, epoch: i64, seq: u64) -> Result<Option<Item>, SpoolError> {
        let seq = signed(seq)?;
        let mut stats = self.stats;
        let item = self.transaction(|t| {
            let at_or_before: Option<Head> = t
                .prepare_cached(&format!(
                    "SELECT {HEAD} FROM block WHERE epoch = ?1 AND first_seq <= ?2 \
                     ORDER BY first_seq DESC LIMIT 1"
                ))?
                .query_row([epoch, seq], Head::read)
                .optional()?;
            let head = match at_or_before {
                Some(head) if head.first_seq + head.count > seq => Some(head),
                Some(_) | None => t
                    .prepare_cached(&format!(
                        "SELECT {HEAD} FROM block WHERE epoch = ?1 AND first_seq > ?2 \
                         ORDER BY first_seq LIMIT 1"
                    ))?
                    .query_row([epoch, seq], Head::read)
                    .optional()?,
            };
            head.map(|head| read_item(t, &head, &mut stats)).transpose()
        })?;
        self.stats = stats;
        Ok(item)
    }

    /// Items from `seq` on, in order, until `max_bytes` of frames are reached (one more may fit) or
    /// `max_items`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_some(
        &mut self,
        epoch: i64,
        seq: u64,
        max_bytes: usize,
        max_items: usize,
    ) -> Result<Vec<Item>, SpoolError> {
        let mut items = Vec::new();
        let mut next = seq;
        let mut bytes = 0;
        while items.len() < max_items && bytes < max_bytes {
            let Some(item) = self.read(epoch, next)? else {
                break;
            };
            next = item.seqs().end().saturating_add(1);
            if let Item::Block(block) = &item {
                bytes += block.zstd.len();
            }
            items.push(item);
        }
        Ok(items)
    }

    /// Frees everything of an epoch up to and including `up_to`.
    ///
    /// # Errors
    /// [`SpoolError::Beyond`] when that number was never given; nothing is freed then.
    pub fn ack(&mut self, epoch: i64, up_to: u64) -> Result<(), SpoolError> {
        let current = self.epoch;
        let freed = self.transaction(|t| {
            let row = epoch_row(t, epoch, current)?;
            if up_to >= row.next_seq {
                return Err(Failure::Other(SpoolError::Beyond {
                    seq: up_to,
                    next_seq: row.next_seq,
                }));
            }
            if up_to <= row.acked {
                return Ok(0);
            }
            let up_to = signed(up_to)?;
            let freed: i64 = t
                .prepare_cached(
                    "SELECT ifnull(sum(length(zstd)), 0) FROM block \
                     WHERE epoch = ?1 AND first_seq + count - 1 <= ?2",
                )?
                .query_row([epoch, up_to], |row| row.get(0))?;
            t.prepare_cached("DELETE FROM block WHERE epoch = ?1 AND first_seq + count - 1 <= ?2")?
                .execute([epoch, up_to])?;
            t.prepare_cached("UPDATE epoch SET acked = ?2 WHERE no = ?1")?
                .execute([epoch, up_to])?;
            // Earlier boots are over once all of theirs is acknowledged.
            t.prepare_cached(
                "DELETE FROM epoch WHERE no <> ?1 AND acked = next_seq - 1 \
                 AND NOT EXISTS (SELECT 1 FROM block WHERE block.epoch = epoch.no)",
            )?
            .execute([current])?;
            Ok(unsigned(freed, "size")?)
        })?;
        self.stats.bytes = self.stats.bytes.saturating_sub(freed);
        if freed > 0 && self.stats.bytes == 0 {
            self.give_space_back()?;
        }
        Ok(())
    }

    /// Says what the far end has of an epoch: moves numbers that it would take for others (SP-7).
    /// Returns by how much. To be called before anything of the epoch is sent on a connection.
    ///
    /// Numbers are moved when the file is newer than the epoch (it was lost or damaged), or when the
    /// far end has numbers that this file never gave (it was set back to an earlier state).
    ///
    /// # Errors
    /// When the file cannot be changed.
    pub fn anchor(&mut self, epoch: i64, durable: u64) -> Result<u64, SpoolError> {
        let current = self.epoch;
        self.transaction(|t| {
            let row = epoch_row(t, epoch, current)?;
            let anchored: bool =
                t.query_row("SELECT anchored FROM epoch WHERE no = ?1", [epoch], |row| {
                    row.get(0)
                })?;
            let first: Option<i64> = t.query_row(
                "SELECT min(first_seq) FROM block WHERE epoch = ?1",
                [epoch],
                |row| row.get(0),
            )?;
            let first = first.map_or(Ok(row.next_seq), |first| unsigned(first, "number"))?;
            let shift = if anchored && durable < row.next_seq {
                0
            } else {
                (durable + 1).saturating_sub(first)
            };
            let by = signed(shift)?;
            // Away from every number in use first: the primary key must hold row by row.
            t.execute(
                "UPDATE block SET first_seq = -first_seq WHERE epoch = ?1 AND ?2 > 0",
                [epoch, by],
            )?;
            t.execute(
                "UPDATE block SET first_seq = -first_seq + ?2 WHERE epoch = ?1 AND first_seq < 0",
                [epoch, by],
            )?;
            t.execute(
                "UPDATE epoch SET next_seq = next_seq + ?2, \
                 acked = CASE WHEN ?2 > 0 THEN ?3 ELSE acked END, anchored = 1 WHERE no = ?1",
                [epoch, by, signed(durable)?],
            )?;
            Ok(shift)
        })
    }

    /// Gives one record up that the far end refuses for ever; its number counts as lost.
    ///
    /// # Errors
    /// [`SpoolError::Beyond`] when there is no such number.
    pub fn discard(&mut self, epoch: i64, seq: u64) -> Result<(), SpoolError> {
        let Some(Item::Block(block)) = self.read(epoch, seq)? else {
            return Ok(());
        };
        if block.first_seq > seq {
            return Ok(());
        }
        let records = frame::records(&block.zstd, block.raw_bytes)?;
        let mut stats = self.stats;
        self.transaction(|t| {
            let first = signed(block.first_seq)?;
            let head = t.query_row(
                &format!("SELECT {HEAD} FROM block WHERE epoch = ?1 AND first_seq = ?2"),
                [epoch, first],
                Head::read,
            )?;
            t.execute(
                "DELETE FROM block WHERE epoch = ?1 AND first_seq = ?2",
                [epoch, first],
            )?;
            let at = usize::try_from(seq - block.first_seq)
                .map_err(|_too_large| SpoolError::Impossible("number"))?;
            let (before, rest) = records.split_at(at);
            let after = rest.get(1..).unwrap_or_default();
            let refused = signed(seq)?;
            let before = insert_part(t, &head, before, first, block.mark)?;
            insert_lost(t, &head, refused, 1, LossCause::Refused)?;
            let after = insert_part(t, &head, after, refused + 1, None)?;
            stats.bytes =
                stats.bytes.saturating_sub(unsigned(head.bytes, "size")?) + before + after;
            // Two frames can be larger than one.
            make_room(t, self.limits.max_bytes, &mut stats)
        })?;
        stats.refused += 1;
        self.stats = stats;
        Ok(())
    }

    fn give_space_back(&self) -> Result<(), SpoolError> {
        self.connection
            .execute_batch("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")
            .map_err(|source| self.sqlite(source))
    }

    fn sqlite(&self, source: rusqlite::Error) -> SpoolError {
        SpoolError::Sqlite {
            path: self.path.clone(),
            source,
        }
    }

    /// Runs `work` in one transaction; any error undoes all of it.
    fn transaction<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, SpoolError> {
        let run = || {
            let t = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
            let value = work(&t)?;
            t.commit()?;
            Ok(value)
        };
        run().map_err(|failure| match failure {
            Failure::Sqlite(source) => self.sqlite(source),
            Failure::Other(error) => error,
        })
    }
}
