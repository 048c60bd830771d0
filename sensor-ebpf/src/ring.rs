//! Plan B: what `io_uring` did for a process, seen when it is done. Worker and polling threads belong
//! to the process that made the ring and share its descriptors.

use crate::{
    ctx::{Ptr, offs, read, read_ptr},
    file, unix,
};

/// `enum io_uring_op`, `include/uapi/linux/io_uring.h`.
const OP_CONNECT: u8 = 16;
const OP_OPENAT: u8 = 18;
const OP_OPENAT2: u8 = 28;

/// `io_uring_cqe.res`, after the eight bytes of `user_data`.
const ENTRY_RESULT: usize = 8;

/// A request is done, with the result in this entry of the completion queue.
#[inline(always)]
pub fn on_entry(request: Ptr, entry: Ptr) {
    if let Some(result) = read::<i32>(entry, ENTRY_RESULT) {
        on_complete(request, result);
    }
}

/// A request is done, with this result.
#[inline(always)]
pub fn on_complete(request: Ptr, result: i32) {
    // Completions that belong to no request of their own (overflow, multishot) have none here.
    if request.is_null() || result < 0 {
        return;
    }
    match read::<u8>(request, offs!(uring_opcode)) {
        // Descriptors of the ring's own table have no number in the process's: with those, the
        // result is 0, and the descriptor 0 of a process is hardly ever from an open.
        Some(OP_OPENAT | OP_OPENAT2) if result > 0 => file::on_ring_opened(result as u64),
        Some(OP_CONNECT) => {
            if let Some(file) = read_ptr(request, offs!(uring_file)) {
                unix::on_connected_file(file);
            }
        }
        _ => {}
    }
}
