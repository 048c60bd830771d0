//! Has anything changed since the last look?
//!
//! The catalogues name thousands of paths, most of which do not exist. Looking at each of them every
//! few seconds is what an idle sensor would spend its time on. A pass over them through a traced
//! [`FsView`] leaves behind what its answers rested on: the stamp of every file and directory that is
//! there, and for a path that is not, the stamp of the nearest directory above, whose modification
//! time changes when the path appears. The next pass is needed only when one of the stamps differs.
//!
//! Content is not looked at: whoever reads files keeps stamps of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::FsView;
use crate::clock;

/// Most places remembered; with more, every look is a full one.
const MAX_PLACES: usize = 16_384;
/// A full look at least this often: a link into a directory that nobody traced can be changed
/// without any stamp telling.
const FULL: Duration = Duration::from_secs(300);
/// Time stamps of files advance in ticks of the kernel's timer, and some file systems keep only
/// whole seconds. What was changed so shortly before it was looked at may change again unnoticed.
const YOUNG_S: i64 = 3;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    dev: u64,
    ino: u64,
    len: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            len: meta.len(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// A path in one of the views.
type Place = (usize, PathBuf);

#[derive(Debug, Default)]
struct Notes {
    there: BTreeMap<Place, (FsView, Stamp)>,
    /// Directories that are not there: what lies below need not be asked for.
    absent: BTreeSet<Place>,
    full_since: Option<Instant>,
    began_s: i64,
    overflowed: bool,
}

/// What the answers of the last pass rested on. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Notes>>);

impl Trace {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Notes are replaced as a whole by the next pass; half a change costs a look too many.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the last pass; the next one begins.
    pub fn begin(&self) {
        *self.notes() = Notes {
            full_since: Some(Instant::now()),
            began_s: clock::now().as_second(),
            ..Notes::default()
        };
    }

    /// The pass is over: from now on only its stamps matter.
    pub fn end(&self) {
        self.notes().absent = BTreeSet::new();
    }

    /// Whether another pass could find something that the last one did not.
    #[must_use]
    pub fn changed(&self) -> bool {
        let notes = self.notes();
        if notes.overflowed || notes.full_since.is_none_or(|since| since.elapsed() >= FULL) {
            return true;
        }
        notes.there.iter().any(|((_, path), (view, stamp))| {
            stamp.changed.0 + YOUNG_S > notes.began_s
                || view
                    .look(path)
                    .map_or(true, |now| Stamp::of(&now) != *stamp)
        })
    }

    /// Whether this pass has found a directory above to be missing.
    pub(super) fn knows_absent(&self, view: usize, path: &Path) -> bool {
        let notes = self.notes();
        let mut above = path.ancestors().skip(1);
        above.any(|dir| notes.absent.contains(&(view, dir.to_owned())))
    }

    /// `path` is there.
    pub(super) fn found(&self, id: usize, view: &FsView, path: &Path, meta: &Metadata) {
        let mut notes = self.notes();
        if notes.there.len() >= MAX_PLACES {
            notes.overflowed = true;
            return;
        }
        notes
            .there
            .entry((id, path.to_owned()))
            .or_insert_with(|| (view.clone(), Stamp::of(meta)));
    }

    /// `path` is not there: the nearest directory above that is, tells when that changes. `view` is
    /// not traced.
    pub(super) fn missed(&self, id: usize, view: &FsView, path: &Path) {
        for dir in path.ancestors().skip(1) {
            let place = (id, dir.to_owned());
            if self.notes().there.contains_key(&place) {
                return;
            }
            if let Ok(meta) = view.metadata(dir) {
                self.found(id, view, dir, &meta);
                return;
            }
            let mut notes = self.notes();
            if notes.absent.len() < MAX_PLACES {
                notes.absent.insert(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes files old enough to be trusted.
    fn age(trace: &Trace) {
        trace.notes().began_s += YOUNG_S + 60;
    }

    type Change = fn(&Path);

    #[test]
    fn a_look_is_due_when_its_answers_could_differ() {
        let cases: &[(&str, Change, bool)] = &[
            ("nothing", |_| {}, false),
            (
                "a file that was missing appears",
                |d| std::fs::write(d.join("there/absent"), "").unwrap(),
                true,
            ),
            (
                "a directory above a missing one appears",
                |d| std::fs::create_dir(d.join("none")).unwrap(),
                true,
            ),
            (
                "a file is written",
                |d| std::fs::write(d.join("there/file"), "longer").unwrap(),
                true,
            ),
            (
                "a file is replaced",
                |d| {
                    std::fs::write(d.join("fresh"), "text").unwrap();
                    std::fs::rename(d.join("fresh"), d.join("there/file")).unwrap();
                },
                true,
            ),
            (
                "a file goes away",
                |d| std::fs::remove_file(d.join("there/file")).unwrap(),
                true,
            ),
            (
                "a link leads elsewhere",
                |d| {
                    std::fs::remove_file(d.join("link")).unwrap();
                    std::os::unix::fs::symlink(d.join("there"), d.join("link")).unwrap();
                },
                true,
            ),
            (
                "a listed directory gets an entry",
                |d| std::fs::write(d.join("listed/new"), "").unwrap(),
                true,
            ),
            (
                "something that nobody asked for",
                |d| std::fs::write(d.join("other/new"), "").unwrap(),
                false,
            ),
        ];
        for (name, change, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let at = dir.path();
            for name in ["there", "listed", "linked", "other"] {
                std::fs::create_dir(at.join(name)).unwrap();
            }
            std::fs::write(at.join("there/file"), "text").unwrap();
            std::os::unix::fs::symlink(at.join("linked"), at.join("link")).unwrap();
            let trace = Trace::default();
            assert!(trace.changed(), "{name}: there was no pass yet");
            trace.begin();
            let view = FsView::host().traced(&trace);
            assert!(view.metadata(&at.join("there/file")).is_ok());
            assert!(view.metadata(&at.join("there/absent")).is_err());
            assert!(view.metadata(&at.join("none/of/these")).is_err());
            assert!(view.realpath(&at.join("link")).is_ok());
            assert_eq!(view.list(&at.join("listed"), 9).len(), 0);
            trace.end();
            assert!(trace.changed(), "{name}: the files are young");
            age(&trace);
            // Longer than a tick of the kernel's timer: kernels before 6.13 stamp by it.
            std::thread::sleep(Duration::from_millis(20));
            change(at);
            assert_eq!(trace.changed(), *expected, "{name}");
        }
    }

    #[test]
    fn a_full_look_comes_now_and_then() {
        let trace = Trace::default();
        trace.begin();
        age(&trace);
        assert!(!trace.changed());
        trace.notes().full_since = Instant::now().checked_sub(FULL);
        assert!(trace.changed());
    }

    #[test]
    fn what_lies_below_a_missing_directory_is_known_to_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let trace = Trace::default();
        trace.begin();
        let view = FsView::host().traced(&trace);
        assert!(view.metadata(&dir.path().join("a/b/c")).is_err());
        assert!(trace.knows_absent(0, &dir.path().join("a/x")));
        assert!(!trace.knows_absent(0, &dir.path().join("x")));
        let missing = view.metadata(&dir.path().join("a/b/d")).unwrap_err();
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    }
}
