//! One object: read from where it was left, in constant memory.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use futures::TryStreamExt as _;
use jiff::Timestamp;
use keytrail_model::consumption::Consumption;
use keytrail_sources::Rejection;
use keytrail_sources::framing::{Cut, FramingError};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _};
use serde::de::IgnoredAny;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::window::{self, Form, GIVE_UP, Known, Print};
use crate::runner::RunnerError;
use crate::sources::frames::MAX_MESSAGE;
use crate::sources::input;
use crate::sources::intake::{BATCH, Intake, Origin, Progress, Taken};

/// Bytes at the beginning, and before the position, by which an object is recognised.
const PRINT: usize = 512;
/// Read at once.
const CHUNK: usize = 64 << 10;

/// Why an object was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum ObjectError {
    /// The store does not give it.
    #[error(transparent)]
    Store(#[from] object_store::Error),
    /// Reading broke off.
    #[error("reading broke off: {0}")]
    Read(#[from] std::io::Error),
    /// Its uses were not taken.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// A fault of ours.
    #[error("a fault of the correlator's: {0}")]
    Fault(String),
}

/// An object that is to be read.
pub(super) struct Object {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) intake: Intake,
    pub(super) meta: ObjectMeta,
    /// How it is called for people.
    pub(super) place: String,
    /// What was known of it.
    pub(super) known: Option<Known>,
}

impl Object {
    /// Takes in what is new of it; everything is committed when this returns.
    ///
    /// # Errors
    /// When it cannot be read at the moment. What was committed before is not read again.
    pub(super) async fn take(self, now: Timestamp) -> Result<Known, ObjectError> {
        let old = now.duration_since(window::modified(&self.meta)) > GIVE_UP;
        if self.meta.size == 0 {
            return Ok(Known::nothing(&self.meta));
        }
        if let Some(known) = &self.known
            && known.tag == self.meta.e_tag
            && known.size == self.meta.size
        {
            let (known, reading) = (known.clone(), self.reading(old));
            return blocking(move || reading.give_up(known)).await;
        }
        let known = self.continued().await?;
        let offset = known.as_ref().map_or(0, |known| known.offset);
        if let Some(known) = known.clone().filter(|_| offset >= self.meta.size) {
            // It was read to its end while it grew.
            let reading = self.reading(old);
            return blocking(move || reading.finish(Vec::new(), known, true)).await;
        }
        let options = GetOptions {
            range: (offset > 0).then_some(GetRange::Offset(offset)),
            ..GetOptions::default()
        };
        let result = self.store.get_opts(&self.meta.location, options).await?;
        let mut reading = self.reading(old);
        if result.meta.size != self.meta.size {
            // Changed since it was listed: the next list tells by which tag it is known. The tags
            // of answers are no help, some stores write them otherwise than those of lists.
            reading.meta.e_tag = None;
            reading.meta.size = result.meta.size;
        }
        // Told apart from what decoders say of the content, which is the object's own fault.
        let stream = result
            .into_stream()
            .map_err(|e| std::io::Error::new(ErrorKind::ConnectionAborted, e));
        let bridge = SyncIoBridge::new(StreamReader::new(stream));
        blocking(move || reading.run(known, bridge)).await
    }

    fn reading(&self, old: bool) -> Reading {
        Reading {
            intake: self.intake.clone(),
            meta: self.meta.clone(),
            key: self.meta.location.as_ref().to_owned(),
            place: self.place.clone(),
            old,
        }
    }

    /// What was known, when the object is the same one, only longer.
    async fn continued(&self) -> Result<Option<Known>, ObjectError> {
        let Some(known) = &self.known else {
            return Ok(None);
        };
        let grown = self.meta.size > known.size;
        if grown || (known.tag.is_none() && self.meta.size == known.size) {
            let (head, tail) = (&known.head, &known.tail);
            let before = known.offset.saturating_sub(tail.bytes)..known.offset;
            if self.shows(head, 0..head.bytes).await? && self.shows(tail, before).await? {
                return Ok(Some(known.clone()));
            }
        }
        self.intake.tally().truncations.one();
        Ok(None)
    }

    /// Whether the object has these bytes there.
    async fn shows(&self, print: &Print, at: Range<u64>) -> Result<bool, ObjectError> {
        if at.is_empty() {
            return Ok(true);
        }
        let bytes = self.store.get_range(&self.meta.location, at).await?;
        Ok(Print::of(&bytes) == *print)
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<Known, ObjectError> + Send + 'static,
) -> Result<Known, ObjectError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(known) => known,
        Err(error) => Err(ObjectError::Fault(error.to_string())),
    }
}

/// The part that blocks.
struct Reading {
    intake: Intake,
    meta: ObjectMeta,
    key: String,
    place: String,
    /// It has not changed for so long that it will not be continued.
    old: bool,
}

/// Keeps the first bytes of what is read through it.
struct Heading<R> {
    reader: R,
    head: Rc<RefCell<Vec<u8>>>,
}

impl<R: Read> Read for Heading<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let mut head = self.head.borrow_mut();
        let wanted = PRINT.saturating_sub(head.len()).min(read);
        head.extend_from_slice(buffer.get(..wanted).unwrap_or_default());
        Ok(read)
    }
}

impl Reading {
    fn run(&self, known: Option<Known>, raw: impl Read) -> Result<Known, ObjectError> {
        if let Some(known) = known.as_ref().filter(|known| known.offset > 0) {
            let mut input = BufReader::with_capacity(CHUNK, raw);
            return self.lines(&mut input, Vec::new(), known.clone());
        }
        let head = Rc::new(RefCell::new(Vec::new()));
        let heading = Heading {
            reader: raw,
            head: Rc::clone(&head),
        };
        let mut input = BufReader::with_capacity(CHUNK, heading);
        let mut first = Vec::new();
        if !input::is_compressed(input.fill_buf()?) {
            line(&mut input, &mut first)?;
        }
        let fresh = |form| Known {
            form,
            head: Print::of(&head.borrow()),
            ..Known::nothing(&self.meta)
        };
        if first.ends_with(b"\n") && is_json(&first) {
            let known = fresh(Form::Lines);
            return self.lines(&mut input, first, known);
        }
        // What was taken of it in the same form is not taken again.
        let taken = known.filter(|known| known.form == Form::Whole);
        let records = taken.map_or(0, |known| known.records);
        let known = Known {
            records,
            ..fresh(Form::Whole)
        };
        self.whole(std::io::Cursor::new(first).chain(input), known)
    }

    /// Takes whole lines in, with the position every now and then.
    fn lines(
        &self,
        input: &mut impl BufRead,
        first: Vec<u8>,
        mut known: Known,
    ) -> Result<Known, ObjectError> {
        let (mut uses, mut taken) = (Vec::new(), Taken::default());
        let mut next = first;
        let mut tail = Vec::new();
        let mut torn = false;
        loop {
            if next.is_empty() && line(input, &mut next)? == 0 {
                break;
            }
            let ended = next.ends_with(b"\n");
            let too_large = next.len() > MAX_MESSAGE;
            // A document that is whole will not be continued, whatever follows.
            if !ended && !too_large && !self.old && !is_json(&next) {
                torn = true;
                break;
            }
            let origin = Origin {
                place: &self.place,
                index: known.records,
            };
            known.records += 1;
            known.offset += next.len() as u64;
            if too_large {
                self.intake
                    .take(origin, &Cut::TooLarge, &mut uses, &mut taken);
                known.offset += if ended { 0 } else { skip_line(input)? };
                tail.clear();
                known.tail = Print::default();
            } else {
                self.intake.take_line(origin, &next, &mut uses, &mut taken);
                tail.extend_from_slice(&next);
                tail.drain(..tail.len().saturating_sub(PRINT));
                known.tail = Print::of(&tail);
            }
            next.clear();
            if uses.len() >= BATCH {
                let here = Known {
                    tag: None,
                    size: known.offset,
                    settled: false,
                    ..known.clone()
                };
                self.commit(std::mem::take(&mut uses), &here)?;
            }
        }
        self.finish(uses, known, !torn)
    }

    /// Takes the records in behind those that were taken before.
    fn whole(&self, input: impl BufRead, known: Known) -> Result<Known, ObjectError> {
        let before = known.records;
        let (mut uses, mut taken) = (Vec::new(), Taken::default());
        let mut index = 0;
        let cut = (|| {
            let mut records = self.intake.records(input::plain(input)?);
            while let Some(cut) = records.next_record()? {
                if index >= before {
                    let place = &self.place;
                    self.intake
                        .take(Origin { place, index }, &cut, &mut uses, &mut taken);
                }
                index += 1;
                if uses.len() >= BATCH {
                    let batch = std::mem::take(&mut uses);
                    self.intake.commit_blocking(batch, Progress::default())?;
                }
            }
            Ok::<(), WholeError>(())
        })();
        let (torn, damage) = match cut {
            Ok(()) => (false, None),
            Err(WholeError::Runner(error)) => return Err(error.into()),
            Err(WholeError::Framing(FramingError::Truncated { .. })) => (true, None),
            Err(WholeError::Framing(FramingError::Read(error))) => match error.kind() {
                ErrorKind::UnexpectedEof => (true, None),
                // What the store's connection had to say.
                ErrorKind::ConnectionAborted => return Err(error.into()),
                _ => (false, Some(error.to_string())),
            },
            Err(WholeError::Framing(error @ FramingError::Malformed { .. })) => {
                (false, Some(error.to_string()))
            }
        };
        if let Some(damage) = damage.or_else(|| (torn && self.old).then(|| "ends too early".into()))
        {
            self.refuse(index, &damage);
        }
        let known = Known {
            records: index,
            ..known
        };
        self.finish(uses, known, !torn || self.old)
    }

    /// An object whose end never came.
    fn give_up(&self, known: Known) -> Result<Known, ObjectError> {
        self.refuse(known.records, "ends in the middle of a record");
        let known = Known {
            settled: true,
            ..known
        };
        self.commit(Vec::new(), &known)?;
        Ok(known)
    }

    fn refuse(&self, index: u64, damage: &str) {
        tracing::warn!(
            source = self.intake.name(),
            place = self.place,
            damage,
            "an object is damaged"
        );
        let origin = Origin {
            place: &self.place,
            index,
        };
        self.intake.tally().records.one();
        self.intake
            .refuse(origin, Rejection::BadJson, &[], &mut Taken::default());
    }

    /// The object is read as far as it goes.
    fn finish(
        &self,
        uses: Vec<Consumption>,
        known: Known,
        settled: bool,
    ) -> Result<Known, ObjectError> {
        let known = Known {
            tag: self.meta.e_tag.clone(),
            size: self.meta.size,
            modified: window::modified(&self.meta),
            settled,
            ..known
        };
        self.commit(uses, &known)?;
        let tally = self.intake.tally();
        if known.settled {
            tally.files_done.one();
        } else {
            tally.files_incomplete.one();
        }
        Ok(known)
    }

    fn commit(&self, uses: Vec<Consumption>, known: &Known) -> Result<(), ObjectError> {
        let cursor = window::cursor(self.intake.name(), &self.key, known)
            .map_err(|e| ObjectError::Fault(e.to_string()))?;
        self.intake
            .commit_blocking(uses, Progress::cursor(cursor))?;
        Ok(())
    }
}

/// Why an object is not read to its end.
#[derive(Debug, thiserror::Error)]
enum WholeError {
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error(transparent)]
    Runner(#[from] RunnerError),
}

impl From<std::io::Error> for WholeError {
    fn from(error: std::io::Error) -> Self {
        Self::Framing(FramingError::Read(error))
    }
}

/// Reads a line with its line feed, of a longer one a byte more than the limit; gives its length.
fn line(input: &mut impl BufRead, out: &mut Vec<u8>) -> std::io::Result<usize> {
    input.take(MAX_MESSAGE as u64 + 1).read_until(b'\n', out)
}

/// Leaves out the rest of a line; gives its length.
fn skip_line(input: &mut impl BufRead) -> std::io::Result<u64> {
    let mut skipped = 0;
    loop {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            return Ok(skipped);
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(chunk.len(), |end| end + 1);
        input.consume(length);
        skipped += length as u64;
        if end.is_some() {
            return Ok(skipped);
        }
    }
}

/// Whether a line is one whole JSON document.
fn is_json(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    (line.starts_with(b"{") || line.starts_with(b"["))
        && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}
