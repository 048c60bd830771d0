//! Forgetting what is older than the retention time.

use jiff::Timestamp;

use super::{Store, StoreError};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blocks of the log.
    pub blocks: usize,
    /// Remembered record ids.
    pub records: usize,
    /// Use decisions.
    pub uses: usize,
    /// Remembered files.
    pub files: usize,
}

impl Store {
    /// Removes what was written before `before`: log blocks (only those that the snapshot covers,
    /// so that a restart never lacks a part), record ids, use decisions. Remembered files go when
    /// `file_gone` says that the file is no longer there. Alerts stay.
    ///
    /// # Errors
    /// When SQLite fails: then nothing was removed.
    pub fn prune(
        &mut self,
        before: Timestamp,
        file_gone: impl Fn(&str) -> bool,
    ) -> Result<Pruned, StoreError> {
        let before = before.as_millisecond();
        let tx = self.conn.transaction()?;
        let mut pruned = Pruned {
            blocks: tx.execute(
                "DELETE FROM log WHERE written_ms < ?1 AND first + count <=
                    coalesce((SELECT next_offset FROM snapshot), 0)",
                [before],
            )?,
            records: tx.execute("DELETE FROM records WHERE seen_ms < ?1", [before])?,
            uses: tx.execute("DELETE FROM uses WHERE decided_ms < ?1", [before])?,
            files: 0,
        };
        let old: Vec<(String, String)> = tx
            .prepare("SELECT source, path FROM files WHERE done_ms < ?1")?
            .query_map([before], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (source, path) in old.iter().filter(|(_, path)| file_gone(path)) {
            pruned.files += tx.execute(
                "DELETE FROM files WHERE source = ?1 AND path = ?2",
                [source, path],
            )?;
        }
        tx.commit()?;
        Ok(pruned)
    }

    /// For tests: the age of everything written so far, moved into the past.
    #[cfg(test)]
    pub(crate) fn age_everything(&self, ms: u64) -> Result<(), StoreError> {
        for (table, column) in [
            ("log", "written_ms"),
            ("records", "seen_ms"),
            ("uses", "decided_ms"),
            ("files", "done_ms"),
        ] {
            self.conn.execute(
                &format!("UPDATE {table} SET {column} = {column} - ?1"),
                [super::to_i64(ms)],
            )?;
        }
        Ok(())
    }
}
