//! Records handed in once, outside any configured source: the `import` command and the API behind it.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use keytrail_sources::framing::FramingError;
use keytrail_sources::{Parser, SourceKind};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::config::{SourceConfig, SourceError, Via};
use super::input;
use super::intake::{BATCH, Intake, Origin, Progress, Taken};
use crate::runner::{Handle, RunnerError};

/// The name under which imports are noted in dead-letter files.
pub const NAME: &str = "import";

/// Why an import ended early. What came before is taken in; importing again changes nothing of it.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The input.
    #[error("{0}; what came before is taken in")]
    Input(#[from] FramingError),
    /// The store.
    #[error("{0}; import the rest again, what was taken in is recognised")]
    Runner(#[from] RunnerError),
}

/// What became of imported records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImportReport {
    /// Records read.
    pub records: u64,
    /// Uses found in them.
    pub uses: u64,
    /// Uses that were new.
    pub new: u64,
    /// Uses that had been taken in before.
    pub duplicates: u64,
    /// Records that are no use of a credential, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Records refused, by reason.
    pub rejected: BTreeMap<String, u64>,
}

impl ImportReport {
    /// Adds another part's report.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.uses += other.uses;
        self.new += other.new;
        self.duplicates += other.duplicates;
        for (mine, theirs) in [
            (&mut self.skipped, &other.skipped),
            (&mut self.rejected, &other.rejected),
        ] {
            for (reason, n) in theirs {
                *mine.entry(reason.clone()).or_insert(0) += n;
            }
        }
    }
}

/// A parser for `kind`; `mapping` is a file, or the name of a mapping that comes with Keytrail.
///
/// # Errors
/// When there is no such kind or mapping.
pub fn parser(kind: &str, mapping: Option<PathBuf>) -> Result<(SourceKind, Parser), SourceError> {
    let source = SourceConfig {
        mapping,
        ..SourceConfig::of(NAME, kind, Via::Stdin)
    }
    .prepare()?;
    Ok((source.kind, source.parser))
}

/// Takes every record of `raw` (gzip, zstd or plain, any framing) in. Blocks.
///
/// # Errors
/// When the input is damaged or the store does not take it; the report is of what came before.
pub fn import(
    handle: &Handle,
    parser: (SourceKind, Parser),
    dead_letters: &Path,
    (place, first): (&str, u64),
    raw: impl BufRead,
) -> (ImportReport, Result<(), ImportError>) {
    let intake = Intake::new(
        NAME,
        NAME,
        place.to_owned(),
        parser,
        handle.clone(),
        dead_letters,
    );
    let (mut taken, mut uses) = (Taken::default(), Vec::new());
    let ended = (|| {
        let plain = input::plain(raw).map_err(FramingError::Read)?;
        let mut records = intake.records(plain);
        while let Some(cut) = records.next_record()? {
            let index = first + taken.records;
            intake.take(Origin { place, index }, &cut, &mut uses, &mut taken);
            if uses.len() >= BATCH {
                let batch = std::mem::take(&mut uses);
                taken.add(intake.commit_blocking(batch, Progress::default())?);
            }
        }
        Ok(())
    })();
    // What came before a damage is taken in all the same.
    let last = intake.commit_blocking(uses, Progress::default());
    let ended = match (ended, last) {
        (ended, Ok(reply)) => {
            taken.add(reply);
            ended
        }
        (Ok(()), Err(error)) => Err(error.into()),
        (Err(error), Err(_)) => Err(error),
    };
    let report = ImportReport {
        records: taken.records,
        uses: taken.uses,
        new: taken.new,
        duplicates: taken.duplicates,
        skipped: intake.tally().skipped_by_reason(),
        rejected: intake.tally().rejected_by_reason(),
    };
    (report, ended)
}
