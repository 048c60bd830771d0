//! What all programs share: constants, reading kernel memory, headers, counting, scope.

use core::{
    ffi::c_void,
    ptr::{addr_of_mut, with_exposed_provenance},
};

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_probe_read_kernel,
        generated::{
            bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_task,
            bpf_get_current_task_btf, bpf_get_smp_processor_id, bpf_ktime_get_boot_ns,
        },
    },
    maps::{RingBuf, ring_buf::RingBufEntry},
};
use keytrail_abi::{Config, Header, Offs, RecordKind, loss::LossRow, maps::TICK_NS};

use crate::maps::{LOSS, SELF};

/// Set by the loader before the object is loaded, frozen afterwards: constants to the verifier.
#[unsafe(no_mangle)]
pub static OFFS: Offs = unsafe { core::mem::zeroed() };

/// Set by the loader likewise.
#[unsafe(no_mangle)]
pub static CONFIG: Config = unsafe { core::mem::zeroed() };

/// Reads a constant that the loader has set. Volatile, because to the compiler it is 0.
#[inline(always)]
pub fn constant<T: Copy>(place: *const T) -> T {
    // SAFETY: only the macros below call this, with a field of a static.
    unsafe { core::ptr::read_volatile(place) }
}

/// A field of [`OFFS`].
macro_rules! offs {
    ($field:ident) => {
        $crate::ctx::constant(&raw const $crate::ctx::OFFS.$field) as usize
    };
}
pub(crate) use offs;

/// A field of [`CONFIG`].
macro_rules! config {
    ($field:ident) => {
        $crate::ctx::constant(&raw const $crate::ctx::CONFIG.$field)
    };
}
pub(crate) use config;

/// An address in the kernel.
pub type Ptr = *const u8;

/// Reads a `T` at `base + offset` in kernel memory; `None` when that is not readable.
#[inline(always)]
pub fn read<T>(base: Ptr, offset: usize) -> Option<T> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset).cast::<T>()) }.ok()
}

/// Reads through a pointer that the verifier knows the type of (a tracepoint's own argument): a plain
/// load instead of a call.
#[inline(always)]
pub fn load<T: Copy>(base: Ptr, offset: usize) -> T {
    // SAFETY: the verifier checks type and offset; a fault reads as 0.
    unsafe { core::ptr::read_volatile(base.wrapping_add(offset).cast::<T>()) }
}

/// [`load`] of a pointer; `None` when it is null, which some verifiers want to see asked.
#[inline(always)]
pub fn load_ptr(base: Ptr, offset: usize) -> Option<Ptr> {
    let pointer: Ptr = load(base, offset);
    if pointer.is_null() {
        None
    } else {
        Some(pointer)
    }
}

/// Reads a pointer; `None` also when it is null.
#[inline(always)]
pub fn read_ptr(base: Ptr, offset: usize) -> Option<Ptr> {
    let address: u64 = read(base, offset)?;
    if address == 0 {
        None
    } else {
        Some(with_exposed_provenance(address as usize))
    }
}

/// The current task.
#[inline(always)]
pub fn current_task() -> Ptr {
    with_exposed_provenance(unsafe { bpf_get_current_task() } as usize)
}

/// The current task, of a type that the verifier knows: its fields can be loaded ([`load`]).
#[inline(always)]
pub fn typed_task() -> Ptr {
    // SAFETY: the helper takes nothing and never fails.
    unsafe { bpf_get_current_task_btf() }.cast_const().cast()
}

/// Start of the process that `task` belongs to, nanoseconds since boot; 0 when not readable.
#[inline(always)]
pub fn start_of(task: Ptr) -> u64 {
    read_ptr(task, offs!(task_group_leader))
        .and_then(|leader| read(leader, offs!(task_start_boottime)))
        .unwrap_or(0)
}

/// Nanoseconds since boot, time asleep included.
#[inline(always)]
pub fn now() -> u64 {
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The current process id.
#[inline(always)]
pub fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Whether the current task, of process `tgid`, is the agent. Its number alone may be another's by
/// now: the programs can outlive it.
#[inline(always)]
pub fn is_agent(tgid: u32) -> bool {
    SELF.get(0).is_some_and(|agent| {
        agent.tgid == tgid && agent.start_tick == start_of(current_task()) / TICK_NS
    })
}

/// Whether the current task belongs to the part of the machine that the sensor is limited to.
#[inline(always)]
pub fn in_scope() -> bool {
    let scope = config!(scope_cgroup_id);
    scope == 0
        || unsafe { bpf_get_current_ancestor_cgroup_id(config!(scope_level) as i32) } == scope
}

/// Who a record is about.
#[derive(Clone, Copy)]
pub struct Who {
    pub tgid: u32,
    pub tid: u32,
    pub start_ns: u64,
    pub uid: u32,
    pub cgroup_id: u64,
}

impl Who {
    /// The current task, whose process started at `start_ns`.
    #[inline(always)]
    pub fn current(start_ns: u64) -> Self {
        let pid_tgid = bpf_get_current_pid_tgid();
        Self {
            tgid: (pid_tgid >> 32) as u32,
            tid: pid_tgid as u32,
            start_ns,
            uid: bpf_get_current_uid_gid() as u32,
            cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        }
    }
}

impl Who {
    /// The same from the task itself, for programs on packets: on 6.1 these may not ask for the
    /// current process. The cgroup stays unknown.
    #[inline(always)]
    pub fn of_task(task: Ptr, tgid: u32, start_ns: u64) -> Self {
        Self {
            tgid,
            tid: read(task, offs!(task_pid)).unwrap_or(0),
            start_ns,
            uid: read_ptr(task, offs!(task_cred))
                .and_then(|cred| read(cred, offs!(cred_uid)))
                .unwrap_or(0),
            cgroup_id: 0,
        }
    }
}

/// Writes the header of a record.
#[inline(always)]
pub fn fill_header(head: *mut Header, kind: RecordKind, who: &Who, ts_boot_ns: u64) {
    // SAFETY: callers pass the start of a reserved record.
    unsafe {
        head.write(Header {
            kind: kind as u16,
            len: kind.size() as u16,
            cpu: bpf_get_smp_processor_id(),
            ts_boot_ns,
            tgid: who.tgid,
            tid: who.tid,
            start_boottime_ns: who.start_ns,
            uid: who.uid,
            generation: config!(generation),
            cgroup_id: who.cgroup_id,
        });
    }
}

/// What became of an event.
#[derive(Clone, Copy)]
pub enum Outcome {
    Submitted,
    RingFull,
    MapFull,
}

#[inline(always)]
fn row(kind: RecordKind) -> Option<*mut LossRow> {
    LOSS.get_ptr_mut(kind as u32)
}

#[inline(always)]
fn bump(counter: *mut u64) {
    // Atomic although per CPU: an LSM program may be preempted by another on the same CPU. In
    // assembly, because `core` offers no `fetch_add` on this target.
    // SAFETY: `counter` points into a map value, which is aligned and lives as long as the map.
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1u64);
    }
}

/// Counts an event and how it ended. Called once for every event that has to be recorded.
#[inline(always)]
pub fn count(kind: RecordKind, outcome: Outcome) {
    let Some(row) = row(kind) else { return };
    // SAFETY: `row` is a map value.
    unsafe {
        bump(addr_of_mut!((*row).seen));
        bump(match outcome {
            Outcome::Submitted => addr_of_mut!((*row).submitted),
            Outcome::RingFull => addr_of_mut!((*row).ring_full),
            Outcome::MapFull => addr_of_mut!((*row).map_full),
        });
    }
}

/// Counts a repeat that was left out.
#[inline(always)]
pub fn count_suppressed(kind: RecordKind) {
    if let Some(row) = row(kind) {
        // SAFETY: `row` is a map value.
        unsafe { bump(addr_of_mut!((*row).suppressed)) };
    }
}

/// Reserves a record, lets `fill` write all of it, submits it and counts it.
///
/// # Safety
/// `fill` must initialise every byte of the record except the tail of a data array, whose used
/// length it sets.
#[inline(always)]
pub unsafe fn emit<T: 'static>(ring: &RingBuf, kind: RecordKind, fill: impl FnOnce(*mut T)) {
    let entry: Option<RingBufEntry<T>> = ring.reserve::<T>(0);
    let Some(mut entry) = entry else {
        count(kind, Outcome::RingFull);
        return;
    };
    fill(entry.as_mut_ptr());
    entry.submit(0);
    count(kind, Outcome::Submitted);
}

/// `n` limited to 1..=`MASK + 1`, in a way that the verifier can follow: the compiler must not
/// reason the bound away, so it is applied in assembly.
#[inline(always)]
pub fn bounded<const MASK: u32>(n: u32) -> u32 {
    let mut less_one = u64::from(n.wrapping_sub(1));
    // SAFETY: arithmetic on a register.
    unsafe {
        core::arch::asm!("{0} &= {1}", inout(reg) less_one, const MASK, options(pure, nomem));
    }
    less_one as u32 + 1
}

/// A pointer to pass to a helper of `aya`.
#[inline(always)]
pub fn as_void(ptr: Ptr) -> *mut c_void {
    ptr.cast_mut().cast()
}
