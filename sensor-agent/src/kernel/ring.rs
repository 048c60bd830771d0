//! One ring buffer, read in two steps: a record is read first, and its room is given back to the
//! kernel later, once what came of it is durable.
//!
//! Layout and protocol: `kernel/bpf/ringbuf.c`. Positions count bytes since the ring was made and
//! stay in the map, so whoever opens a pinned ring goes on where its predecessor gave room back.
#![expect(
    unsafe_code,
    reason = "the ring is memory shared with the kernel: part of loading"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use aya::maps::MapData;

/// `BPF_RINGBUF_BUSY_BIT`: reserved, not submitted yet.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`.
const DISCARD: u32 = 1 << 30;
/// `BPF_RINGBUF_HDR_SZ`.
const HEADER: usize = 8;

/// Mapped memory, unmapped when dropped.
struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone on the agent's side; what it shares with the
// kernel is only reached through atomics or after an acquiring load.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, len: usize, write: bool, offset: usize) -> io::Result<Self> {
        let prot = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            let (fd, shared) = (fd.as_raw_fd(), libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), len, prot, shared, fd, offset)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at null"))?;
        Ok(Self { at, len })
    }

    /// The position at the start of a metadata page.
    fn position(&self) -> &AtomicU64 {
        // SAFETY: the mapping is at least a page long, page-aligned, and lives as long as `self`.
        unsafe { self.at.cast::<AtomicU64>().as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more; a failure leaves it mapped.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// A ring.
pub(super) struct Ring {
    map: MapData,
    id: u32,
    consumer: Mapping,
    /// A page with the producer's position, then the data twice in a row, so that a record that
    /// wraps around lies in one piece.
    producer: Mapping,
    page: usize,
    size: u64,
    /// Up to where has been read.
    read: u64,
    /// Up to where room was given back.
    released: u64,
}

impl Ring {
    pub(super) fn open(map: MapData) -> io::Result<Self> {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?
            .and_then(|size| usize::try_from(size).ok())
            .ok_or_else(|| io::Error::other("the page size is not known"))?;
        let info = map.info().map_err(io::Error::other)?;
        let (id, size) = (info.id(), info.max_entries());
        let fd = map.fd().as_fd();
        let data = usize::try_from(size).map_err(io::Error::other)?;
        let consumer = Mapping::new(fd, page, true, 0)?;
        let producer = Mapping::new(fd, page + 2 * data, false, page)?;
        let released = consumer.position().load(Ordering::Acquire);
        Ok(Self {
            map,
            id,
            consumer,
            producer,
            page,
            size: u64::from(size),
            read: released,
            released,
        })
    }

    /// The kernel's number of the map: no other map of this boot has it.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Begins at `position` instead, when that lies in what the ring still holds.
    pub(super) fn skip_to(&mut self, position: u64) -> bool {
        let produced = self.producer.position().load(Ordering::Acquire);
        let ahead = position.wrapping_sub(self.released);
        if ahead > produced.wrapping_sub(self.released) {
            return false;
        }
        self.read = position;
        true
    }

    /// The next record, if there is one.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let produced = self.producer.position().load(Ordering::Acquire);
            if self.read == produced {
                return None;
            }
            let offset = usize::try_from(self.read & (self.size - 1)).ok()?;
            let header = self.page + offset;
            // SAFETY: `offset` is below the ring's size and a multiple of 8, as positions are, so
            // the header lies within the mapping and is aligned.
            let head = unsafe {
                let at = self.producer.at.add(header).cast::<AtomicU32>();
                at.as_ref().load(Ordering::Acquire)
            };
            if head & BUSY != 0 {
                return None;
            }
            let len = u64::from(head & !(BUSY | DISCARD));
            let start = header + HEADER;
            let bytes = usize::try_from(len).ok()?;
            // A length that leads out of the mapping would be the kernel's fault: no record then.
            if len > self.size || start + bytes > self.producer.len {
                return None;
            }
            self.read = self
                .read
                .wrapping_add((HEADER as u64 + len).next_multiple_of(8));
            if head & DISCARD == 0 {
                // SAFETY: within the mapping (checked above), submitted, and not written again by
                // the kernel before its room is given back, which needs `&mut self`.
                return Some(unsafe {
                    std::slice::from_raw_parts(self.producer.at.add(start).as_ptr(), bytes)
                });
            }
        }
    }

    /// Up to where has been read.
    pub(super) fn position(&self) -> u64 {
        self.read
    }

    /// Bytes that were read and whose room was not given back.
    pub(super) fn held(&self) -> u64 {
        self.read.wrapping_sub(self.released)
    }

    /// Bytes of the ring.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Gives back the room of what was read up to `position`.
    pub(super) fn release(&mut self, position: u64) {
        // Never back, and never beyond what was read.
        let ahead = position.wrapping_sub(self.released);
        if ahead == 0 || ahead > self.held() {
            return;
        }
        self.released = position;
        self.consumer.position().store(position, Ordering::Release);
        // Before anybody looks again whether there is more: either that look sees a new record, or
        // its producer sees this position and wakes us.
        fence(Ordering::SeqCst);
    }

    /// True when there is a record that was not read.
    pub(super) fn has_more(&self) -> bool {
        self.read != self.producer.position().load(Ordering::Acquire)
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.map.fd().as_fd().as_raw_fd()
    }
}
