//! Puts the pieces of an exec together.
//!
//! The kernel announces an exec in one ring and sends argv and environment in pieces through
//! another, so that a flood of large pieces cannot push an announcement out. Here they wait for each
//! other; what is not complete when the watermark passes goes out marked as incomplete.

use std::collections::BTreeMap;

use super::{
    decode::Chunk,
    event::{ExecArgs, ExecEvent, ProcKey},
};

/// At most this many execs wait for pieces; beyond it the oldest go out incomplete.
const MAX_PENDING: usize = 4096;

/// An exec by time first, so that the oldest come first.
type Key = (u64, ProcKey);

#[derive(Default)]
struct Pending {
    event: Option<Box<ExecEvent>>,
    /// argv, environment.
    streams: [Stream; 2],
}

#[derive(Default)]
struct Stream {
    pieces: Vec<Chunk>,
    bytes: usize,
}

/// Execs whose argv or environment is still under way.
#[derive(Default)]
pub struct Execs {
    pending: BTreeMap<Key, Pending>,
    /// Pieces whose announcement never came.
    orphans: u64,
}

impl Execs {
    /// Takes an announcement; gives it back as soon as it is complete.
    pub fn announce(&mut self, event: Box<ExecEvent>) -> Option<Box<ExecEvent>> {
        if event.args.is_none() {
            return Some(event);
        }
        let key = (event.head.ts_boot_ns, event.head.process);
        self.pending.entry(key).or_default().event = Some(event);
        self.take_if_complete(key)
    }

    /// Takes a piece; gives the exec back when this completes it.
    pub fn piece(&mut self, chunk: Chunk) -> Option<Box<ExecEvent>> {
        let key = (chunk.exec_ts_ns, chunk.process);
        let [argv, env] = &mut self.pending.entry(key).or_default().streams;
        let stream = if chunk.env { env } else { argv };
        stream.bytes += chunk.data.0.len();
        stream.pieces.push(chunk);
        self.take_if_complete(key)
    }

    /// Gives back everything that happened up to `watermark`, complete or not, and what is over the
    /// bound.
    pub fn flush(&mut self, watermark: u64) -> Vec<Box<ExecEvent>> {
        let mut out = Vec::new();
        while let Some(entry) = self.pending.first_entry() {
            if entry.key().0 > watermark && self.pending.len() <= MAX_PENDING {
                break;
            }
            let Some((_, pending)) = self.pending.pop_first() else {
                break;
            };
            match pending.event {
                Some(event) => out.push(finish(event, pending.streams)),
                None => self.orphans += 1,
            }
        }
        out
    }

    /// Execs of which only pieces came; their announcement is in the loss counters.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.orphans
    }

    fn take_if_complete(&mut self, key: Key) -> Option<Box<ExecEvent>> {
        let pending = self.pending.get(&key)?;
        let args = pending.event.as_ref()?.args.as_ref()?;
        let [argv, env] = &pending.streams;
        if argv.bytes < args.argv.0.len() || env.bytes < args.env.0.len() {
            return None;
        }
        let pending = self.pending.remove(&key)?;
        Some(finish(pending.event?, pending.streams))
    }
}

/// Replaces the announced lengths by the bytes. A gap ends a stream: what lies behind it could be
/// the end of one variable glued to the start of another.
fn finish(mut event: Box<ExecEvent>, streams: [Stream; 2]) -> Box<ExecEvent> {
    if let Some(args) = &mut event.args {
        let ExecArgs {
            argv,
            env,
            incomplete,
            ..
        } = args;
        let [argv_pieces, env_pieces] = streams;
        let whole = join(&mut argv.0, argv_pieces) & join(&mut env.0, env_pieces);
        *incomplete = !whole;
    }
    event
}

fn join(target: &mut Vec<u8>, mut stream: Stream) -> bool {
    let want = target.len();
    target.clear();
    stream.pieces.sort_by_key(|p| p.offset);
    for piece in &stream.pieces {
        if piece.offset != target.len() {
            break;
        }
        target.extend_from_slice(&piece.data.0);
    }
    target.len() == want
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::kernel::event::{FileId, Head, Sensitive};

    const PROCESS: ProcKey = ProcKey {
        tgid: 1,
        start_ns: 2,
    };

    fn announced(argv: usize, env: usize) -> Box<ExecEvent> {
        let sized = |n| Sensitive(Zeroizing::new(vec![0; n]));
        Box::new(ExecEvent {
            head: Head {
                ts_boot_ns: 10,
                process: PROCESS,
                tid: 1,
                uid: 0,
                cgroup_id: 0,
            },
            exe: FileId { dev: 0, ino: 0 },
            filename: Vec::new(),
            parent: PROCESS,
            track_flags: 1,
            matched: false,
            args: Some(ExecArgs {
                argv: sized(argv),
                env: sized(env),
                incomplete: true,
                ..ExecArgs::default()
            }),
        })
    }

    fn piece(env: bool, offset: usize, data: &[u8]) -> Chunk {
        Chunk {
            process: PROCESS,
            exec_ts_ns: 10,
            env,
            offset,
            last: false,
            data: Sensitive(Zeroizing::new(data.to_vec())),
        }
    }

    #[test]
    fn completes_in_any_order() {
        let mut execs = Execs::default();
        assert!(execs.piece(piece(true, 2, b"d\0")).is_none());
        assert!(execs.announce(announced(2, 4)).is_none());
        assert!(execs.piece(piece(false, 0, b"a\0")).is_none());
        let event = execs.piece(piece(true, 0, b"c=")).unwrap();
        let args = event.args.unwrap();
        assert!(!args.incomplete);
        assert_eq!(args.env.strings().collect::<Vec<_>>(), [b"c=d"]);
        assert_eq!(args.argv.strings().collect::<Vec<_>>(), [b"a"]);
        assert!(execs.flush(u64::MAX).is_empty());
    }

    #[test]
    fn goes_out_incomplete_when_a_piece_is_lost() {
        let mut execs = Execs::default();
        execs.announce(announced(2, 8));
        execs.piece(piece(true, 0, b"abcd"));
        assert!(execs.flush(9).is_empty());
        let args = execs.flush(10).remove(0).args.unwrap();
        assert!(args.incomplete);
        assert_eq!(
            (args.argv.0.len(), args.env.0.as_slice()),
            (0, &b"abcd"[..])
        );
    }

    #[test]
    fn counts_pieces_without_an_exec() {
        let mut execs = Execs::default();
        execs.piece(piece(true, 0, b"abcd"));
        assert!(execs.flush(100).is_empty());
        assert_eq!(execs.orphans(), 1);
    }

    #[test]
    fn never_shows_an_environment() {
        let text = format!("{:?}", piece(true, 0, b"AWS_SECRET_ACCESS_KEY=x"));
        assert!(!text.contains("AWS") && text.contains("<23 bytes>"));
    }
}
