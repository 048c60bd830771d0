//! The same acts through io_uring: no system call names the file or the address.
#![expect(
    unsafe_code,
    reason = "the rings are shared with the kernel, which has no safe form"
)]

use std::{
    ffi::CString,
    io,
    net::{SocketAddr, SocketAddrV4},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{CANNOT, Done};

/// Does `act` if it is one of this module's.
pub(super) fn act(act: &str, arg: &str) -> Option<Done> {
    Some(match act {
        "uring" => open_and_read(arg, 0),
        "uring-poll" => open_and_read(arg, SETUP_SQPOLL),
        "uring-connect" => connect(arg),
        "uring-environ" => open(&format!("/proc/{arg}/environ")),
        "uring-unix" => connect_unix(arg),
        _ => return None,
    })
}

// `include/uapi/linux/io_uring.h`.
const SETUP_SQPOLL: u32 = 1 << 1;
const ENTER_GETEVENTS: u32 = 1;
const ENTER_SQ_WAKEUP: u32 = 2;
const OFF_SQ_RING: i64 = 0;
const OFF_CQ_RING: i64 = 0x800_0000;
const OFF_SQES: i64 = 0x1000_0000;
const OP_CONNECT: u8 = 16;
const OP_OPENAT: u8 = 18;
const OP_READ: u8 = 22;

#[repr(C)]
#[derive(Default)]
struct SqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    reserved: u32,
    user_addr: u64,
}

#[repr(C)]
#[derive(Default)]
struct CqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    flags: u32,
    reserved: u32,
    user_addr: u64,
}

#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    sq: SqOffsets,
    cq: CqOffsets,
}

#[repr(C)]
#[derive(Default)]
struct Entry {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    length: u32,
    op_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

/// A ring with room for one request at a time.
struct Uring {
    fd: OwnedFd,
    flags: u32,
    params: Params,
    sq: *mut u8,
    cq: *mut u8,
    entries: *mut Entry,
}

impl Uring {
    fn new(flags: u32) -> io::Result<Self> {
        let mut params = Params {
            flags,
            ..Params::default()
        };
        // SAFETY: `params` is what the call expects and fills; the mappings are of the sizes that
        // the kernel documents for 4 entries, and live until the process ends.
        unsafe {
            let ret = libc::syscall(libc::SYS_io_uring_setup, 4, &raw mut params);
            if ret < 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = OwnedFd::from_raw_fd(i32::try_from(ret).map_err(io::Error::other)?);
            let map = |offset| {
                let prot = libc::PROT_READ | libc::PROT_WRITE;
                let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
                let none = std::ptr::null_mut();
                let at = libc::mmap(none, 4096, prot, flags, fd.as_raw_fd(), offset);
                if at == libc::MAP_FAILED {
                    Err(io::Error::last_os_error())
                } else {
                    Ok(at.cast::<u8>())
                }
            };
            let (sq, cq, entries) = (map(OFF_SQ_RING)?, map(OFF_CQ_RING)?, map(OFF_SQES)?);
            Ok(Self {
                fd,
                flags,
                params,
                sq,
                cq,
                entries: entries.cast(),
            })
        }
    }

    /// A counter in one of the rings.
    ///
    /// # Safety
    /// `at` is an offset that the kernel gave for this ring.
    unsafe fn counter(ring: *mut u8, at: u32) -> &'static AtomicU32 {
        // SAFETY: see above; the kernel aligns its counters.
        unsafe { AtomicU32::from_ptr(ring.add(at as usize).cast()) }
    }

    /// Submits one request and waits for its result.
    fn call(&self, entry: Entry) -> io::Result<i32> {
        // SAFETY: offsets are the kernel's; index and mask keep every access inside the rings, and
        // with one request at a time nobody else writes there.
        unsafe {
            let tail = Self::counter(self.sq, self.params.sq.tail);
            let mask = Self::counter(self.sq, self.params.sq.ring_mask).load(Ordering::Relaxed);
            let index = tail.load(Ordering::Relaxed) & mask;
            self.entries.add(index as usize).write(entry);
            Self::counter(self.sq, self.params.sq.array + 4 * index)
                .store(index, Ordering::Relaxed);
            tail.fetch_add(1, Ordering::Release);
            let head = Self::counter(self.cq, self.params.cq.head);
            let done = Self::counter(self.cq, self.params.cq.tail);
            while done.load(Ordering::Acquire) == head.load(Ordering::Relaxed) {
                let mut flags = ENTER_GETEVENTS;
                if self.flags & SETUP_SQPOLL != 0 {
                    flags |= ENTER_SQ_WAKEUP;
                }
                let nr = libc::SYS_io_uring_enter;
                if libc::syscall(nr, self.fd.as_raw_fd(), 1, 1, flags, 0, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            let mask = Self::counter(self.cq, self.params.cq.ring_mask).load(Ordering::Relaxed);
            let at = head.load(Ordering::Relaxed) & mask;
            // An answer is 16 bytes: the request's own data, then the result.
            let result = Self::counter(self.cq, self.params.cq.cqes + 16 * at + 8);
            let result = result.load(Ordering::Relaxed).cast_signed();
            head.fetch_add(1, Ordering::Release);
            if result < 0 {
                return Err(io::Error::from_raw_os_error(-result));
            }
            Ok(result)
        }
    }
}

fn ring(flags: u32) -> Uring {
    // Switched off by the administrator (`kernel.io_uring_disabled`) or not built in.
    Uring::new(flags).unwrap_or_else(|_| std::process::exit(CANNOT))
}

fn open_and_read(path: &str, flags: u32) -> Done {
    let ring = ring(flags);
    let path = CString::new(path)?;
    let fd = ring.call(Entry {
        opcode: OP_OPENAT,
        fd: libc::AT_FDCWD,
        address: u64::try_from(path.as_ptr().addr())?,
        ..Entry::default()
    })?;
    let mut buffer = [0_u8; 64];
    let got = ring.call(Entry {
        opcode: OP_READ,
        fd,
        address: u64::try_from(buffer.as_mut_ptr().expose_provenance())?,
        length: 64,
        ..Entry::default()
    })?;
    if got > 0 && buffer.first() == Some(&b'[') {
        Ok(())
    } else {
        Err(format!("{got} bytes were read").into())
    }
}

/// Opens a file, and no more than that.
fn open(path: &str) -> Done {
    let path = CString::new(path)?;
    ring(0).call(Entry {
        opcode: OP_OPENAT,
        fd: libc::AT_FDCWD,
        address: u64::try_from(path.as_ptr().addr())?,
        ..Entry::default()
    })?;
    Ok(())
}

fn connect_unix(path: &str) -> Done {
    let ring = ring(0);
    // SAFETY: a new socket, owned from here on.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error().into());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let name = nix::sys::socket::UnixAddr::new(path)?;
    ring.call(Entry {
        opcode: OP_CONNECT,
        fd: socket.as_raw_fd(),
        address: u64::try_from(name.as_ptr().expose_provenance())?,
        offset: u64::from(nix::sys::socket::SockaddrLike::len(&name)),
        ..Entry::default()
    })?;
    Ok(())
}

fn connect(address: &str) -> Done {
    let SocketAddr::V4(to): SocketAddr = address.parse()? else {
        return Err("want an IPv4 address".into());
    };
    let ring = ring(0);
    // SAFETY: a new socket, owned from here on.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error().into());
        }
        std::net::TcpStream::from_raw_fd(fd)
    };
    let name = sockaddr(to);
    ring.call(Entry {
        opcode: OP_CONNECT,
        fd: socket.as_raw_fd(),
        address: u64::try_from((&raw const name).expose_provenance())?,
        offset: u64::try_from(size_of_val(&name))?,
        ..Entry::default()
    })?;
    super::talk(socket)
}

fn sockaddr(to: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: 2,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(to.ip().octets()),
        },
        sin_zero: [0; 8],
    }
}
