//! Which objects were read, and how far: those that changed lately one by one, everything older by
//! a mark.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use object_store::ObjectMeta;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock;
use crate::sources::intake::Intake;
use crate::store::{Cursor, StoreError};

/// Objects remembered at most; of more the oldest are forgotten, read again while they are in the
/// window, and recognised by their records' ids.
const MAX_OBJECTS: usize = 200_000;
/// An object that has not changed for so long will not be continued.
pub(super) const GIVE_UP: SignedDuration = SignedDuration::from_hours(1);
/// What the streams of objects begin with; the mark's stream is the empty one.
const OBJECT: &str = "object:";

/// How an object is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Form {
    /// One JSON document a line: read on from a byte.
    Lines,
    /// Anything else (wrapped, compressed, other text): read again, the records before left out.
    Whole,
}

/// Some bytes, by their hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Print {
    pub(super) bytes: u64,
    pub(super) hash: String,
}

impl Print {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let hash = Sha256::digest(bytes);
        Self {
            bytes: bytes.len() as u64,
            hash: crate::hex::encode(hash.get(..16).unwrap_or_default()),
        }
    }
}

/// What is known of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Its entity tag in the list when it was read to its end; none in the middle of it.
    pub(super) tag: Option<String>,
    /// Bytes read of it.
    pub(super) size: u64,
    pub(super) modified: Timestamp,
    pub(super) form: Form,
    /// Bytes whose lines are taken in; 0 with [`Form::Whole`].
    pub(super) offset: u64,
    /// Records taken in; lines with [`Form::Lines`].
    pub(super) records: u64,
    /// Its first bytes, and those before `offset`: they tell whether it was continued or replaced.
    pub(super) head: Print,
    pub(super) tail: Print,
    /// False while its end is missing.
    pub(super) settled: bool,
}

impl Known {
    /// An object that holds no records.
    pub(super) fn nothing(meta: &ObjectMeta) -> Self {
        Self {
            tag: meta.e_tag.clone(),
            size: meta.size,
            modified: modified(meta),
            form: Form::Whole,
            offset: 0,
            records: 0,
            head: Print::default(),
            tail: Print::default(),
            settled: true,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    source: String,
    mark: Timestamp,
    overlap: SignedDuration,
    objects: BTreeMap<String, Known>,
}

impl Window {
    /// As it was committed; at the first start the mark lies `start` back.
    pub(super) fn restore(
        intake: &Intake,
        start: SignedDuration,
        overlap: SignedDuration,
    ) -> Result<Self, StoreError> {
        let now = clock::now();
        // The overlap comes off again below.
        let back = now.checked_sub(start).unwrap_or(now);
        let mut window = Self {
            source: intake.name().to_owned(),
            mark: back.checked_add(overlap).map_or(now, |mark| mark.min(now)),
            overlap,
            objects: BTreeMap::new(),
        };
        for (stream, position) in intake.reader().cursors(intake.name())? {
            if stream.is_empty() {
                if let Ok(mark) = position.parse() {
                    window.mark = mark;
                }
            } else if let Some(key) = stream.strip_prefix(OBJECT)
                && let Ok(known) = serde_json::from_str(&position)
            {
                window.objects.insert(key.to_owned(), known);
            }
        }
        Ok(window)
    }

    /// Since when changed objects are looked at.
    pub(super) fn from(&self) -> Timestamp {
        self.mark.checked_sub(self.overlap).unwrap_or(self.mark)
    }

    /// What is known of an object.
    pub(super) fn known(&self, key: &str) -> Option<&Known> {
        self.objects.get(key)
    }

    /// Whether there is something to do about an object.
    pub(super) fn wants(&self, meta: &ObjectMeta, now: Timestamp) -> bool {
        if modified(meta) < self.from() {
            return false;
        }
        match self.objects.get(meta.location.as_ref()) {
            None => true,
            Some(known) if known.tag != meta.e_tag || known.size != meta.size => true,
            Some(known) => !known.settled && now.duration_since(known.modified) > GIVE_UP,
        }
    }

    /// Remembers an object.
    pub(super) fn put(&mut self, key: String, known: Known) {
        self.objects.insert(key, known);
    }

    /// Objects whose end is missing.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = (&String, &Known)> {
        self.objects.iter().filter(|(_, known)| !known.settled)
    }

    /// Moves the mark up to `newest`; gives what is to be committed, and forgets what lies behind.
    pub(super) fn advance(&mut self, newest: Timestamp) -> Option<(Cursor, Vec<String>)> {
        // A store whose clock is ahead must not make us skip what comes until then.
        let mark = newest.min(clock::now()).max(self.mark);
        let moved = mark != self.mark;
        self.mark = mark;
        let from = self.from();
        let mut gone: Vec<String> = self
            .objects
            .iter()
            .filter(|(_, known)| known.modified < from)
            .map(|(key, _)| key.clone())
            .collect();
        let left = self.objects.len() - gone.len();
        if left > MAX_OBJECTS {
            let mut by_age: Vec<(Timestamp, &String)> = self
                .objects
                .iter()
                .filter(|(_, known)| known.modified >= from)
                .map(|(key, known)| (known.modified, key))
                .collect();
            by_age.sort();
            let most = by_age.into_iter().take(left - MAX_OBJECTS);
            gone.extend(most.map(|(_, key)| key.clone()));
        }
        for key in &gone {
            self.objects.remove(key);
        }
        if !moved && gone.is_empty() {
            return None;
        }
        let cursor = Cursor {
            source: self.source.clone(),
            stream: String::new(),
            position: self.mark.to_string(),
        };
        let gone = gone.into_iter().map(|key| format!("{OBJECT}{key}"));
        Some((cursor, gone.collect()))
    }
}

/// When an object was last changed, as its store says.
pub(super) fn modified(meta: &ObjectMeta) -> Timestamp {
    Timestamp::from_millisecond(meta.last_modified.timestamp_millis()).unwrap_or(Timestamp::MIN)
}

/// An object's position, to be committed with the uses before it.
pub(super) fn cursor(source: &str, key: &str, known: &Known) -> Result<Cursor, serde_json::Error> {
    Ok(Cursor {
        source: source.to_owned(),
        stream: format!("{OBJECT}{key}"),
        position: serde_json::to_string(known)?,
    })
}
