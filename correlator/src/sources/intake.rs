//! Where every delivery ends: a record becomes uses, is left out or refused, and is counted; uses
//! are committed together with how far their stream is read.
//!
//! Architecture invariant (DL-1): a record that cannot be used never stops its neighbours. It is
//! counted by reason and noted in the source's dead-letter file without its content.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use keytrail_model::consumption::Consumption;
use keytrail_sources::framing::{Cut, FramingError, Records};
use keytrail_sources::{Parsed, Parser, Rejection, SourceKind};

use super::dead_letter::DeadLetters;
use super::input;
use super::status::{SourceStatus, StatusCell};
use super::tally::{Tally, newest_of};
use crate::clock;
use crate::counters::CounterView;
use crate::runner::{Handle, RunnerError, UsesBatch, UsesReply};
use crate::store::{Cursor, FileMark, Reader};

/// Uses committed at once.
pub(super) const BATCH: usize = 2048;

/// Where a record is, for people who look for it.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// A path, a peer's address, a URL.
    pub place: &'a str,
    /// Which record of that place, from 0; of a stream: which since the connection began.
    pub index: u64,
}

/// What became of some records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Records looked at.
    pub records: u64,
    /// Uses found.
    pub uses: u64,
    /// Uses among them that were new.
    pub new: u64,
    /// Uses among them that had been seen.
    pub duplicates: u64,
    /// Records without a use.
    pub skipped: u64,
    /// Records refused.
    pub rejected: u64,
    /// Why the first of them was refused.
    pub first_rejection: Option<Rejection>,
}

impl Taken {
    /// Adds what the runner said.
    pub fn add(&mut self, reply: UsesReply) {
        self.new += reply.new;
        self.duplicates += reply.duplicate;
    }
}

/// What is committed together with uses.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// A file that they complete.
    pub file: Option<FileMark>,
    /// How far their stream is read with them.
    pub cursor: Option<Cursor>,
    /// Streams of the same source whose positions are not needed any more.
    pub forgotten: Vec<String>,
}

impl Progress {
    /// A position.
    #[must_use]
    pub fn cursor(cursor: Cursor) -> Self {
        Self {
            cursor: Some(cursor),
            ..Self::default()
        }
    }
}

/// One source's way in; cheap to clone.
#[derive(Clone, Debug)]
pub struct Intake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    kind: SourceKind,
    via: &'static str,
    parser: Parser,
    handle: Handle,
    dead: DeadLetters,
    tally: Tally,
    status: StatusCell,
}

impl Intake {
    /// The way in for the source `name`, whose records `parser` understands; notes of refused
    /// records go into `dead_letters`. `place` is shown as where its records come from.
    #[must_use]
    pub fn new(
        name: &str,
        via: &'static str,
        place: String,
        parser: (SourceKind, Parser),
        handle: Handle,
        dead_letters: &Path,
    ) -> Self {
        let status = StatusCell::default();
        status.update(|status| {
            status.name = name.to_owned();
            status.source = parser.1.source_name().to_owned();
            status.via = via.to_owned();
            status.folder = place;
        });
        Self(Arc::new(Inner {
            name: name.to_owned(),
            kind: parser.0,
            via,
            parser: parser.1,
            handle,
            dead: DeadLetters::new(dead_letters, name),
            tally: Tally::default(),
            status,
        }))
    }

    /// The source's configured name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What its records are.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        self.0.kind
    }

    /// What it counts.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.0.tally
    }

    /// What deliveries tell of themselves.
    #[must_use]
    pub fn status(&self) -> &StatusCell {
        &self.0.status
    }

    /// Where refused records are noted.
    #[must_use]
    pub fn dead_letters(&self) -> &Path {
        self.0.dead.path()
    }

    pub(super) fn reader(&self) -> &Reader {
        self.0.handle.reader()
    }

    /// Everything about it, for the status page.
    #[must_use]
    pub fn view(&self) -> SourceStatus {
        let (tally, newest) = (&self.0.tally, self.0.tally.newest());
        let lag = newest
            .event
            .map(|event| clock::now().duration_since(event).as_secs());
        SourceStatus {
            records: tally.records.get(),
            uses: tally.uses.get(),
            duplicates: tally.duplicates.get(),
            skipped: tally.skipped_by_reason(),
            rejected: tally.rejected_by_reason(),
            last_delivery: newest.delivered,
            newest_event: newest.event,
            lag_seconds: lag,
            ..self.0.status.get()
        }
    }

    /// Its counts, for the status page.
    #[must_use]
    pub fn counters(&self) -> Vec<CounterView> {
        self.0
            .tally
            .view(&self.0.name, matches!(self.0.via, "folder" | "bucket"))
    }

    /// Cuts what has no envelope of the delivery's any more.
    pub(super) fn records<R: BufRead>(&self, input: R) -> Records<R> {
        Records::framed(input, self.0.parser.framing())
    }

    /// Whether `cut` has the shape of this source's records at all; counts nothing.
    pub(super) fn objection(&self, cut: &Cut<'_>) -> Option<Rejection> {
        match cut {
            Cut::Record(bytes) => self.0.parser.parse(bytes, &mut Vec::new()).err(),
            Cut::NotObject => Some(Rejection::NotObject),
            Cut::TooLarge => None,
        }
    }

    /// Makes uses of one record, or says and counts why not.
    pub fn take(
        &self,
        origin: Origin<'_>,
        cut: &Cut<'_>,
        out: &mut Vec<Consumption>,
        taken: &mut Taken,
    ) {
        let tally = &self.0.tally;
        tally.records.one();
        taken.records += 1;
        let (parsed, bytes) = match cut {
            Cut::Record(bytes) => (self.0.parser.parse(bytes, out), *bytes),
            Cut::NotObject => (Err(Rejection::NotObject), [].as_slice()),
            Cut::TooLarge => (Err(Rejection::TooLarge), [].as_slice()),
        };
        match parsed {
            Ok(parsed) => self.count(&parsed, taken),
            Err(why) => self.refuse(origin, why, bytes, taken),
        }
    }

    fn count(&self, parsed: &Parsed, taken: &mut Taken) {
        let tally = &self.0.tally;
        tally.uses.add(parsed.uses as u64);
        taken.uses += parsed.uses as u64;
        if let Some(why) = parsed.skipped {
            taken.skipped += 1;
            tally.skipped(why);
        }
        tally.refused_inside.add(parsed.refused_inside as u64);
        if parsed.derived_id {
            tally.derived_id.one();
        }
        if parsed.masked_id {
            tally.masked_id.one();
        }
        if parsed.unknown_version {
            tally.unknown_version.one();
        }
    }

    /// Counts and notes a refused record.
    pub(super) fn refuse(
        &self,
        origin: Origin<'_>,
        why: Rejection,
        bytes: &[u8],
        taken: &mut Taken,
    ) {
        let tally = &self.0.tally;
        tally.rejected(why);
        taken.rejected += 1;
        if let Err(error) = self.0.dead.note(origin, why, bytes) {
            tally.dead_letter_failures.one();
            tracing::warn!(%error, "a refused record could not be noted in the dead-letter file");
        }
        taken.first_rejection.get_or_insert(why);
    }

    /// Takes whole records out of a body: any framing, gzip, zstd or plain. What came before a
    /// damage is in `out` all the same.
    ///
    /// # Errors
    /// When the body is damaged or ends early; that is counted and noted as one refused record.
    pub fn take_body(
        &self,
        place: &str,
        body: impl BufRead,
        out: &mut Vec<Consumption>,
        taken: &mut Taken,
    ) -> Result<(), FramingError> {
        let cut = input::plain(body)
            .map_err(FramingError::Read)
            .and_then(|plain| {
                let mut records = self.records(plain);
                while let Some(cut) = records.next_record()? {
                    let index = taken.records;
                    self.take(Origin { place, index }, &cut, out, taken);
                }
                Ok(())
            });
        if cut.is_err() {
            let index = taken.records;
            self.0.tally.records.one();
            taken.records += 1;
            self.refuse(Origin { place, index }, Rejection::BadJson, &[], taken);
        }
        cut
    }

    /// Takes one line of a stream: JSON in any framing, or one record in another format.
    pub fn take_line(
        &self,
        origin: Origin<'_>,
        line: &[u8],
        out: &mut Vec<Consumption>,
        taken: &mut Taken,
    ) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        if !line.starts_with(b"{") && !line.starts_with(b"[") {
            self.take(origin, &Cut::Record(line), out, taken);
            return;
        }
        let mut records = self.records(line);
        loop {
            match records.next_record() {
                Ok(Some(cut)) => self.take(origin, &cut, out, taken),
                Ok(None) => return,
                Err(_) => {
                    self.0.tally.records.one();
                    taken.records += 1;
                    self.refuse(origin, Rejection::BadJson, line, taken);
                    return;
                }
            }
        }
    }

    /// Commits uses, and with the last of them how far their stream is read.
    ///
    /// # Errors
    /// When the store does not take them, or the correlator is stopping. What had been committed
    /// before is recognised by its record ids when it comes again.
    pub async fn commit(
        &self,
        uses: Vec<Consumption>,
        progress: Progress,
    ) -> Result<UsesReply, RunnerError> {
        let mut sum = UsesReply::default();
        for batch in batches(uses, progress) {
            let newest = newest_of(&batch.uses);
            let reply = self.0.handle.uses(batch).await?;
            self.0.tally.committed(reply, clock::now(), newest);
            sum.new += reply.new;
            sum.duplicate += reply.duplicate;
        }
        Ok(sum)
    }

    /// [`Intake::commit`] for a thread that may block.
    ///
    /// # Errors
    /// As there.
    pub fn commit_blocking(
        &self,
        uses: Vec<Consumption>,
        progress: Progress,
    ) -> Result<UsesReply, RunnerError> {
        let mut sum = UsesReply::default();
        for batch in batches(uses, progress) {
            let newest = newest_of(&batch.uses);
            let reply = self.0.handle.uses_blocking(batch)?;
            self.0.tally.committed(reply, clock::now(), newest);
            sum.new += reply.new;
            sum.duplicate += reply.duplicate;
        }
        Ok(sum)
    }
}

/// Cuts uses into batches; the last carries the progress. No uses and no progress: no batch.
fn batches(mut uses: Vec<Consumption>, progress: Progress) -> Vec<UsesBatch> {
    let mut batches = Vec::new();
    while uses.len() > BATCH {
        let rest = uses.split_off(BATCH);
        batches.push(UsesBatch {
            uses: std::mem::replace(&mut uses, rest),
            ..UsesBatch::default()
        });
    }
    if !uses.is_empty() || progress.file.is_some() || progress.cursor.is_some() {
        batches.push(UsesBatch {
            uses,
            file: progress.file,
            cursor: progress.cursor,
            forgotten: progress.forgotten,
        });
    }
    batches
}
