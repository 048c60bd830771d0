//! Memory that loading needs and running does not.
//!
//! Parsing the kernel's types takes some dozen megabytes in hundreds of thousands of pieces, once. The
//! C library keeps what is freed for the program's next need, which never comes: the agent would stay
//! as large as it was at its start.

/// Blocks from this size on are mapped of their own, and go back when they are freed. Set, because
/// the C library raises its own limit with the size of what is freed, up to 32 MiB.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: libc::c_int = 256 << 10;

/// Arenas: a thread of its own for the stream does not need one of its own.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 1;

/// Settles how the C library asks for memory. To be called before other threads start.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the allocator's settings have no safe form")]
    // SAFETY: both are numbers within the bounds that mallopt(3) names.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Gives free memory back to the system.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the allocator's house-keeping has no safe form")]
    // SAFETY: malloc_trim(3) may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
