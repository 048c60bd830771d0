//! The process tree.

use core::{ffi::c_void, ptr::addr_of_mut};

use aya_ebpf::helpers::{
    bpf_probe_read_kernel_str_bytes,
    generated::{bpf_loop, bpf_probe_read_user},
};
use keytrail_abi::{
    RecordKind,
    maps::{FileKey, Tracked},
    process::{
        ARGV_MAX, CHUNK_LARGE, CHUNK_SMALL, ChunkHead, ENV_MAX, EXEC_ARGV_TRUNCATED,
        EXEC_ENV_TRUNCATED, EXEC_MATCHED, EXEC_TRACKED, Exec, ExecChunkLarge, ExecChunkSmall, Exit,
        Fork, STREAM_ARGV, STREAM_ENV,
    },
};

use crate::{
    ctx::{
        Outcome, Ptr, Who, as_void, bounded, count, current_tgid, emit, fill_header, in_scope, now,
        offs, read, read_ptr, start_of,
    },
    file::key_of_inode,
    maps::{EXE_WATCH, RING_BULK, RING_PROC, TRACKED},
};

/// A process or thread was made: the child of a tracked process is tracked before it runs.
#[inline(always)]
pub fn on_fork(child: Ptr) {
    // SAFETY: map values stay readable in a BPF program.
    let Some(parent) = (unsafe { TRACKED.get(current_tgid()) }) else {
        return;
    };
    let (Some(pid), Some(tgid)) = (
        read::<u32>(child, offs!(task_pid)),
        read::<u32>(child, offs!(task_tgid)),
    ) else {
        return;
    };
    if pid != tgid {
        return;
    }
    let child_start_ns = read(child, offs!(task_start_boottime)).unwrap_or(0);
    let value = Tracked {
        start_ns: child_start_ns,
        ..*parent
    };
    if TRACKED.insert(tgid, value, 0).is_err() {
        count(RecordKind::Fork, Outcome::MapFull);
        return;
    }
    let who = Who::current(parent.start_ns);
    let flags = parent.flags;
    // SAFETY: all fields are written.
    unsafe {
        emit::<Fork>(&RING_PROC, RecordKind::Fork, |r| {
            fill_header(addr_of_mut!((*r).head), RecordKind::Fork, &who, now());
            addr_of_mut!((*r).child_start_ns).write(child_start_ns);
            addr_of_mut!((*r).child_tgid).write(tgid);
            addr_of_mut!((*r).track_flags).write(flags);
        });
    }
}

/// A program was executed: the moment at which argv and environment lie in the new memory.
#[inline(always)]
pub fn on_exec(task: Ptr, bprm: Ptr) {
    let tgid = current_tgid();
    // SAFETY: map values stay readable in a BPF program.
    let before = unsafe { TRACKED.get(tgid) };
    if before.is_none() && !in_scope() {
        return;
    }
    let exe = read_ptr(bprm, offs!(bprm_file))
        .and_then(|file| read_ptr(file, offs!(file_inode)))
        .and_then(key_of_inode)
        .unwrap_or(FileKey {
            ino: 0,
            dev: 0,
            pad: 0,
        });
    let start_ns = start_of(task);
    // SAFETY: as above.
    let class = unsafe { EXE_WATCH.get(exe) }.copied().unwrap_or(0);
    let mut track_flags = before.map_or(0, |t| t.flags);
    if class & !track_flags != 0 {
        track_flags |= class;
        let value = match before {
            Some(t) => Tracked {
                flags: track_flags,
                ..*t
            },
            None => Tracked {
                start_ns,
                root_start_ns: start_ns,
                root_tgid: tgid,
                flags: class,
            },
        };
        if TRACKED.insert(tgid, value, 0).is_err() {
            count(RecordKind::Exec, Outcome::MapFull);
            return;
        }
    }
    emit_exec(task, bprm, exe, start_ns, track_flags, class);
}

#[inline(always)]
fn emit_exec(task: Ptr, bprm: Ptr, exe: FileKey, start_ns: u64, track_flags: u32, class: u32) {
    let mm = read_ptr(task, offs!(task_mm));
    let (mut argv, mut env) = ((0, 0), (0, 0));
    if let Some(mm) = mm {
        argv = range(mm, offs!(mm_arg_start), offs!(mm_arg_end));
        env = range(mm, offs!(mm_env_start), offs!(mm_env_end));
    }
    let mut flags = 0;
    if track_flags != 0 {
        flags |= EXEC_TRACKED;
    }
    if class != 0 {
        flags |= EXEC_MATCHED;
    }
    if argv.1 > ARGV_MAX {
        flags |= EXEC_ARGV_TRUNCATED;
    }
    if env.1 > ENV_MAX {
        flags |= EXEC_ENV_TRUNCATED;
    }
    let (mut ppid, mut parent_start_ns) = (0, 0);
    if let Some(parent) = read_ptr(task, offs!(task_real_parent)) {
        ppid = read(parent, offs!(task_tgid)).unwrap_or(0);
        parent_start_ns = start_of(parent);
    }
    let who = Who::current(start_ns);
    let ts = now();
    // SAFETY: all fields are written; the tail of `filename` is zeroed.
    unsafe {
        emit::<Exec>(&RING_PROC, RecordKind::Exec, |r| {
            fill_header(addr_of_mut!((*r).head), RecordKind::Exec, &who, ts);
            addr_of_mut!((*r).exe_ino).write(exe.ino);
            addr_of_mut!((*r).exe_dev).write(exe.dev);
            addr_of_mut!((*r).flags).write(flags);
            addr_of_mut!((*r).argv_len).write(argv.1);
            addr_of_mut!((*r).env_len).write(env.1);
            addr_of_mut!((*r).track_flags).write(track_flags);
            addr_of_mut!((*r).ppid).write(ppid);
            addr_of_mut!((*r).parent_start_ns).write(parent_start_ns);
            addr_of_mut!((*r).pad).write(0);
            let name = addr_of_mut!((*r).filename);
            name.write_bytes(0, 1);
            let len = read_ptr(bprm, offs!(bprm_filename))
                .and_then(|p| bpf_probe_read_kernel_str_bytes(p, &mut *name).ok())
                .map_or(0, <[u8]>::len);
            addr_of_mut!((*r).filename_len).write(len as u32);
        });
    }
    if track_flags != 0 {
        emit_stream(&who, ts, argv, ARGV_MAX, STREAM_ARGV);
        emit_stream(&who, ts, env, ENV_MAX, STREAM_ENV);
    }
}

/// Start and length of a range of user memory that `mm` names.
#[inline(always)]
fn range(mm: Ptr, start: usize, end: usize) -> (u64, u32) {
    let start: u64 = read(mm, start).unwrap_or(0);
    let end: u64 = read(mm, end).unwrap_or(0);
    let len = end.saturating_sub(start);
    (
        start,
        if len > u64::from(u32::MAX) {
            u32::MAX
        } else {
            len as u32
        },
    )
}

/// What a walk over a range of user memory carries from piece to piece.
struct Walk {
    who: Who,
    exec_ts: u64,
    address: u64,
    len: u32,
    stream: u16,
}

/// Copies a range of user memory into chunks. With `bpf_loop`, because the verifier of 6.1 walks
/// every turn of an ordinary loop and gives up.
#[inline(always)]
fn emit_stream(who: &Who, exec_ts: u64, range: (u64, u32), max: u32, stream: u16) {
    let len = if range.1 > max { max } else { range.1 };
    let mut walk = Walk {
        who: *who,
        exec_ts,
        address: range.0,
        len,
        stream,
    };
    let turns = len.div_ceil(CHUNK_LARGE as u32);
    let callback: extern "C" fn(u64, *mut Walk) -> i64 = emit_piece;
    // SAFETY: the callback outlives the call, and `walk` is on this program's stack.
    unsafe {
        bpf_loop(turns, callback as *mut c_void, (&raw mut walk).cast(), 0);
    }
}

/// Copies piece `i` of a walk.
extern "C" fn emit_piece(i: u64, walk: *mut Walk) -> i64 {
    // SAFETY: `emit_stream` passes its own.
    let walk = unsafe { &*walk };
    let who = &walk.who;
    let offset = (i as u32).wrapping_mul(CHUNK_LARGE as u32);
    if offset >= walk.len {
        return 1;
    }
    let left = walk.len - offset;
    let last = left <= CHUNK_LARGE as u32;
    let place = Place {
        exec_ts: walk.exec_ts,
        offset,
        stream: walk.stream,
        last,
        address: walk.address.wrapping_add(u64::from(offset)),
    };
    if left <= CHUNK_SMALL as u32 {
        // SAFETY: `fill_chunk` writes all fields.
        unsafe {
            emit::<ExecChunkSmall>(&RING_BULK, RecordKind::ExecChunkSmall, |r| {
                let n = bounded::<{ CHUNK_SMALL as u32 - 1 }>(left);
                let (head, data) = (addr_of_mut!((*r).chunk), addr_of_mut!((*r).data));
                fill_chunk(
                    head,
                    RecordKind::ExecChunkSmall,
                    who,
                    &place,
                    n,
                    data.cast(),
                );
            });
        }
    } else {
        let n = if last { left } else { CHUNK_LARGE as u32 };
        // SAFETY: as above.
        unsafe {
            emit::<ExecChunkLarge>(&RING_BULK, RecordKind::ExecChunkLarge, |r| {
                let n = bounded::<{ CHUNK_LARGE as u32 - 1 }>(n);
                let (head, data) = (addr_of_mut!((*r).chunk), addr_of_mut!((*r).data));
                fill_chunk(
                    head,
                    RecordKind::ExecChunkLarge,
                    who,
                    &place,
                    n,
                    data.cast(),
                );
            });
        }
    }
    0
}

/// Where a chunk lies.
struct Place {
    exec_ts: u64,
    offset: u32,
    stream: u16,
    last: bool,
    address: u64,
}

/// Writes a chunk's head and copies its `n` bytes.
///
/// # Safety
/// `head` and `data` lie in a reserved record; `data` has room for `n` bytes.
#[inline(always)]
unsafe fn fill_chunk(
    head: *mut ChunkHead,
    kind: RecordKind,
    who: &Who,
    place: &Place,
    n: u32,
    data: *mut u8,
) {
    // SAFETY: see above; the helper copes with any user address.
    unsafe {
        fill_header(addr_of_mut!((*head).head), kind, who, now());
        addr_of_mut!((*head).exec_ts_ns).write(place.exec_ts);
        addr_of_mut!((*head).offset).write(place.offset);
        addr_of_mut!((*head).stream).write(place.stream);
        addr_of_mut!((*head).last).write(u16::from(place.last));
        addr_of_mut!((*head).pad).write(0);
        let source = core::ptr::with_exposed_provenance::<u8>(place.address as usize);
        let ret = bpf_probe_read_user(data.cast(), n, as_void(source));
        addr_of_mut!((*head).data_len).write(if ret == 0 { n } else { 0 });
    }
}

/// A thread ended; with the last one, the process.
#[inline(always)]
pub fn on_exit(task: Ptr) {
    let tgid = current_tgid();
    // SAFETY: map values stay readable in a BPF program.
    let Some(tracked) = (unsafe { TRACKED.get(tgid) }) else {
        return;
    };
    let live = read_ptr(task, offs!(task_signal)).and_then(|s| read::<i32>(s, offs!(signal_live)));
    if live != Some(0) {
        return;
    }
    let who = Who::current(tracked.start_ns);
    // Two threads that end at once both see 0; only one of them removes the entry.
    if TRACKED.remove(tgid).is_err() {
        return;
    }
    let exit_code = read(task, offs!(task_exit_code)).unwrap_or(0);
    // SAFETY: all fields are written.
    unsafe {
        emit::<Exit>(&RING_PROC, RecordKind::Exit, |r| {
            fill_header(addr_of_mut!((*r).head), RecordKind::Exit, &who, now());
            addr_of_mut!((*r).exit_code).write(exit_code);
            addr_of_mut!((*r).pad).write(0);
        });
    }
}
