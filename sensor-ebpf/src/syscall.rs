//! Plan B: what a system call did, seen on its return.
//!
//! Every system call on the machine comes through here, so the number is looked at first and nothing
//! else for nearly all of them.

use keytrail_abi::process::{VIA_PTRACE, VIA_VM_READV};

use crate::{
    ctx::{Ptr, load, offs, typed_task},
    file, odd, unix, victim,
};

/// Set in the number of a call of the x32 kind.
const X32: u64 = 0x4000_0000;
/// `thread_info.status`: this is a 32-bit call, with numbers of its own.
const TS_COMPAT: u32 = 0x2;

const PTRACE_ATTACH: u64 = 16;
const PTRACE_SEIZE: u64 = 0x4206;
const BPF_PROG_LOAD: u64 = 5;

/// x86-64: open, creat, openat, open_by_handle_at, openat2.
#[inline(always)]
fn opens(nr: u64) -> bool {
    nr == 257 || nr == 2 || nr == 437 || nr == 85 || nr == 304
}

/// The same by 32-bit numbers.
#[inline(always)]
fn opens_32(nr: u64) -> bool {
    nr == 295 || nr == 5 || nr == 437 || nr == 8 || nr == 342
}

/// socket, connect, ptrace, process_vm_readv, bpf.
#[inline(always)]
fn others(nr: u64) -> bool {
    nr == 41 || nr == 42 || nr == 101 || nr == 310 || nr == 321
}

/// A system call returns.
#[inline(always)]
pub fn on_exit(regs: Ptr, ret: i64) {
    if ret < 0 {
        return;
    }
    let nr = load::<u64>(regs, offs!(regs_orig_ax)) & !X32;
    if !opens(nr) && !opens_32(nr) && !others(nr) {
        return;
    }
    let compat = load::<u32>(typed_task(), offs!(task_status)) & TS_COMPAT != 0;
    if if compat { opens_32(nr) } else { opens(nr) } {
        file::on_opened(ret as u64);
    } else if !compat && others(nr) {
        on_other(nr, regs);
    }
}

#[inline(always)]
fn on_other(nr: u64, regs: Ptr) {
    let first = load::<u64>(regs, offs!(regs_di));
    let second = load::<u64>(regs, offs!(regs_si));
    match nr {
        41 => odd::on_socket(first as u32, second as u32),
        42 => unix::on_connected(first),
        101 if first == PTRACE_ATTACH || first == PTRACE_SEIZE => {
            victim::on_call(second as u32, VIA_PTRACE);
        }
        310 => victim::on_call(first as u32, VIA_VM_READV),
        321 if first == BPF_PROG_LOAD => odd::on_bpf_load(),
        _ => {}
    }
}
