//! The maps. Sizes are defaults; the loader may set others.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use keytrail_abi::{
    header::KIND_SLOTS,
    loss::LossRow,
    maps::{Agent, Conn, FILTER_WORDS, FileKey, ListenKey, Owner, PeerKey, SeenKey, Tracked},
};

/// File accesses and nothing else, so that no flood of other events can push one out.
#[map]
pub static RING_ACCESS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Connections.
#[map]
pub static RING_NET: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Fork, exec, exit.
#[map]
pub static RING_PROC: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// DNS messages: whoever asks for very many names loses messages, and nothing else.
#[map]
pub static RING_DNS: RingBuf = RingBuf::with_byte_size(1 << 19, 0);
/// Chunks of argv and environment: large, and the least harm when lost.
#[map]
pub static RING_BULK: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// The tracked processes, by tgid.
#[map]
pub static TRACKED: HashMap<u32, Tracked> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
/// Programs whose execution starts tracking: `TRACK_*` flags.
#[map]
pub static EXE_WATCH: HashMap<FileKey, u32> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
/// Watched files: a tag of userspace's own.
#[map]
pub static WATCHED_INODES: HashMap<FileKey, u32> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
/// Watched directories.
#[map]
pub static WATCHED_DIRS: HashMap<FileKey, u32> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
/// One bit for every watched file and directory (see `filter_bit`). Look-ups in an array are
/// compiled inline, so a miss costs no call; a bit set without need costs only the look-up in the
/// map behind it.
#[map]
pub static WATCH_FILTER: Array<u64> = Array::with_max_entries(FILTER_WORDS, 0);
/// When an access was last recorded.
#[map]
pub static SEEN: LruHashMap<SeenKey, u64> = LruHashMap::with_max_entries(8_192, 0);
/// When a datagram destination was last recorded.
#[map]
pub static PEERS: LruHashMap<PeerKey, u64> = LruHashMap::with_max_entries(8_192, 0);
/// Open TCP connections of tracked processes, by socket cookie: at close the current task is often
/// not the owner.
#[map]
pub static CONN: HashMap<u64, Conn> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
/// Listening sockets of tracked processes: a connection that comes in is established outside of any
/// process of theirs.
#[map]
pub static LISTENERS: HashMap<ListenKey, Owner> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
/// Sockets of tracked processes that sent to a resolver, by cookie: the answer arrives outside of
/// any process.
#[map]
pub static RESOLVING: LruHashMap<u64, Owner> = LruHashMap::with_max_entries(8_192, 0);
/// Loss counters, by record kind.
#[map]
pub static LOSS: PerCpuArray<LossRow> = PerCpuArray::with_max_entries(KIND_SLOTS, 0);
/// The agent that reads the rings.
#[map]
pub static SELF: Array<Agent> = Array::with_max_entries(1, 0);
