//! Arguments and environment of an exec, which the kernel hands over in chunks.

use std::collections::{HashMap, VecDeque};

use keytrail_model::ids::ProcessKey;
use zeroize::Zeroizing;

/// Most execs under way at once.
const MAX_PENDING: usize = 512;
/// Longest stream kept: what the kernel side carries of an environment, with room.
const MAX_STREAM: usize = 128 * 1024;

/// Which exec of which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecKey {
    /// The process.
    pub process: ProcessKey,
    /// The exec record's time, nanoseconds since boot.
    pub exec_ns: u64,
}

/// One chunk's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Arguments.
    Argv,
    /// Environment.
    Env,
}

/// What was collected of one exec.
#[derive(Default)]
pub struct Texts {
    /// Arguments, NUL-separated.
    pub argv: Zeroizing<Vec<u8>>,
    /// Environment, NUL-separated.
    pub env: Zeroizing<Vec<u8>>,
    /// True when a chunk is missing or the kernel cut the stream: `/proc` may still have it.
    pub incomplete: bool,
}

impl std::fmt::Debug for Texts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (argv, env) = (self.argv.len(), self.env.len());
        write!(
            f,
            "Texts({argv} + {env} bytes, incomplete: {})",
            self.incomplete
        )
    }
}

struct Pending<E> {
    exec: E,
    texts: Texts,
    argv_done: bool,
    env_done: bool,
}

/// Execs whose chunks have not all arrived. `E` is the exec record that waits for them.
pub struct Execs<E> {
    pending: HashMap<ExecKey, Pending<E>>,
    order: VecDeque<ExecKey>,
    orphans: u64,
}

impl<E> Default for Execs<E> {
    fn default() -> Self {
        Self {
            pending: HashMap::new(),
            order: VecDeque::new(),
            orphans: 0,
        }
    }
}

impl<E> Execs<E> {
    /// An exec whose chunks are to come. Returns the oldest one if there is no more room for it.
    pub fn begin(&mut self, key: ExecKey, exec: E, cut: bool) -> Option<(E, Texts)> {
        let pushed_out = if self.pending.len() >= MAX_PENDING {
            self.take_oldest()
        } else {
            None
        };
        let texts = Texts {
            incomplete: cut,
            ..Texts::default()
        };
        let pending = Pending {
            exec,
            texts,
            argv_done: false,
            env_done: false,
        };
        self.pending.insert(key, pending);
        self.order.push_back(key);
        pushed_out
    }

    /// A chunk. Returns the exec once both streams are complete.
    pub fn chunk(
        &mut self,
        key: ExecKey,
        stream: Stream,
        offset: u32,
        data: &[u8],
        last: bool,
    ) -> Option<(E, Texts)> {
        let Some(pending) = self.pending.get_mut(&key) else {
            self.orphans += 1;
            return None;
        };
        let (text, done) = match stream {
            Stream::Argv => (&mut pending.texts.argv, &mut pending.argv_done),
            Stream::Env => (&mut pending.texts.env, &mut pending.env_done),
        };
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        if at == text.len() && at.saturating_add(data.len()) <= MAX_STREAM {
            append(text, data);
        } else {
            pending.texts.incomplete = true;
        }
        *done |= last;
        if pending.argv_done && pending.env_done {
            return self.take(key);
        }
        None
    }

    /// Execs that have waited since before `exec_ns`: their chunks were lost.
    pub fn overdue(&mut self, exec_ns: u64) -> Vec<(E, Texts)> {
        let mut all = Vec::new();
        while let Some(oldest) = self.order.front().copied() {
            if self.pending.contains_key(&oldest) && oldest.exec_ns >= exec_ns {
                break;
            }
            all.extend(self.take_oldest());
        }
        all
    }

    /// The exec of this process that is still waiting: a later event of the process came first.
    pub fn flush(&mut self, process: ProcessKey) -> Vec<(E, Texts)> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        let keys: Vec<ExecKey> = self
            .order
            .iter()
            .filter(|key| key.process == process)
            .copied()
            .collect();
        keys.into_iter()
            .filter_map(|key| {
                self.take(key).map(|(exec, mut texts)| {
                    texts.incomplete = true;
                    (exec, texts)
                })
            })
            .collect()
    }

    /// Chunks whose exec record was not seen.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.orphans
    }

    fn take(&mut self, key: ExecKey) -> Option<(E, Texts)> {
        self.order.retain(|known| *known != key);
        self.pending
            .remove(&key)
            .map(|pending| (pending.exec, pending.texts))
    }

    fn take_oldest(&mut self) -> Option<(E, Texts)> {
        let key = self.order.pop_front()?;
        let mut pending = self.pending.remove(&key)?;
        pending.texts.incomplete = true;
        Some((pending.exec, pending.texts))
    }
}

/// Appends without leaving copies of the old buffer behind when it grows.
fn append(text: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    if text.capacity() - text.len() < data.len() {
        let mut grown = Zeroizing::new(Vec::with_capacity((text.len() + data.len()) * 2));
        grown.extend_from_slice(text);
        *text = grown;
    }
    text.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pid: u32, exec_ns: u64) -> ExecKey {
        ExecKey {
            process: ProcessKey { pid, start_ns: 1 },
            exec_ns,
        }
    }

    #[test]
    fn chunks_are_put_together() {
        let mut execs = Execs::default();
        assert!(execs.begin(key(1, 10), "one", false).is_none());
        assert!(execs.begin(key(2, 11), "two", false).is_none());
        assert!(
            execs
                .chunk(key(1, 10), Stream::Argv, 0, b"a\0", false)
                .is_none()
        );
        assert!(
            execs
                .chunk(key(2, 11), Stream::Argv, 0, b"z\0", true)
                .is_none()
        );
        assert!(
            execs
                .chunk(key(1, 10), Stream::Argv, 2, b"b\0", true)
                .is_none()
        );
        let (exec, texts) = execs
            .chunk(key(1, 10), Stream::Env, 0, b"K=v\0", true)
            .unwrap();
        assert_eq!(
            (exec, texts.argv.as_slice(), texts.env.as_slice()),
            ("one", &b"a\0b\0"[..], &b"K=v\0"[..])
        );
        assert!(!texts.incomplete);
        assert_eq!(execs.order.len(), 1);
    }

    #[test]
    fn what_was_lost_is_marked() {
        let mut execs = Execs::default();
        execs.begin(key(1, 10), (), false);
        execs.chunk(key(1, 10), Stream::Argv, 4_096, b"late", true);
        let (_, texts) = execs.chunk(key(1, 10), Stream::Env, 0, b"", true).unwrap();
        assert!(texts.incomplete);
        execs.begin(key(3, 30), (), false);
        assert!(execs.overdue(30).is_empty());
        assert!(execs.overdue(31).pop().unwrap().1.incomplete);
        execs.chunk(key(9, 9), Stream::Env, 0, b"x", true);
        assert_eq!(execs.orphans(), 1);
    }

    #[test]
    fn the_number_under_way_is_bounded() {
        let mut execs = Execs::default();
        let pushed: usize = (0..2_000)
            .map(|n| usize::from(execs.begin(key(n, 1), n, false).is_some()))
            .sum();
        assert_eq!(pushed, 2_000 - MAX_PENDING);
        assert_eq!(execs.pending.len(), MAX_PENDING);
    }

    #[test]
    fn a_later_event_flushes() {
        let mut execs = Execs::default();
        execs.begin(key(1, 10), (), false);
        let flushed = execs.flush(ProcessKey {
            pid: 1,
            start_ns: 1,
        });
        assert!(flushed.len() == 1 && flushed[0].1.incomplete);
        assert!(execs.pending.is_empty() && execs.order.is_empty());
    }
}
