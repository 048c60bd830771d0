//! One case for each known way around a sensor that reads names or system calls; `docs/evasions.toml`
//! names them.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpListener,
    os::{
        fd::{AsRawFd, IntoRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use super::{
    ANSWERED, Case, KernelEvent, MAPS, OPENS, Prepared, READS, SENT, Seen, as_is, child_seen, file,
    files, net, serve, touched,
};

/// Hooks that see an open for writing.
const WRITES: &[&str] = &["lsm/file_open", "tp_btf/sys_exit"];

/// See the module's documentation.
pub(super) const CASES: &[Case] = &[
    file("through a deep path", "deep", OPENS, as_is),
    file("while the name is swapped", "swap-name", OPENS, as_is),
    file("through io_uring", "uring", OPENS, as_is),
    file(
        "through io_uring with a polling thread",
        "uring-poll",
        OPENS,
        as_is,
    ),
    file("by open", "old-open", OPENS, as_is),
    file("by openat2", "openat2", OPENS, as_is),
    Case {
        check: written_only,
        ..file("by creat, not read", "create", WRITES, as_is)
    },
    file("by a 32-bit call", "compat-open", OPENS, as_is),
    file("by open_by_handle_at", "handle", OPENS, as_is),
    file("opened and mapped, not read", "open-map", OPENS, as_is),
    file("by splice", "splice", OPENS, as_is),
    file("by copy_file_range", "copy-range", OPENS, as_is),
    file(
        "through a descriptor received over a socket",
        "received",
        READS,
        passed,
    ),
    file(
        "mapping a descriptor received over a socket",
        "received-map",
        MAPS,
        passed,
    ),
    file("through a stolen descriptor", "steal-fd", READS, held),
    file("through O_PATH and /proc/self/fd", "o-path", OPENS, as_is),
    file("by executing it", "exec-file", OPENS, as_is),
    file("through an overlay", "overlay", OPENS, as_is),
    file(
        "through an overlay after copy-up",
        "overlay-copy-up",
        OPENS,
        as_is,
    ),
    file("from another root", "chroot", OPENS, as_is),
    file("from a user namespace", "userns", OPENS, as_is),
    Case {
        check: child_seen,
        ..file("by a renamed copy of a program", "copied-exe", OPENS, as_is)
    },
    Case {
        check: child_seen,
        ..file("by a program under the loader", "loader", OPENS, as_is)
    },
    Case {
        check: read_then_sent_by_child,
        ..file(
            "copied into memory and sent by a child",
            "memfd",
            OPENS,
            file_and_listener,
        )
    },
    net(
        "connection of a daemon that left its session",
        "daemon",
        |_| serve("127.0.0.1:0"),
        another_connected,
    ),
    net(
        "connection of a daemon under a subreaper",
        "subreaper",
        |_| serve("127.0.0.1:0"),
        another_connected,
    ),
    net(
        "connection of a child with another parent",
        "clone-parent",
        |_| serve("127.0.0.1:0"),
        another_connected,
    ),
    net(
        "connection of a child forked by a thread",
        "thread-fork",
        |_| serve("127.0.0.1:0"),
        another_connected,
    ),
    Case {
        tracked: false,
        check: found_open,
        ..net(
            "a connection open before the access",
            "connect-read",
            file_and_listener,
            found_open,
        )
    },
    net(
        "tcp connected through io_uring",
        "uring-connect",
        |_| serve("127.0.0.1:0"),
        super::connection_exact,
    ),
];

/// Sends the open file over a socket, as its standard output, to the actor.
fn passed(path: &Path) -> io::Result<Prepared> {
    let file = fs::File::open(path)?;
    let (near, far) = UnixStream::pair()?;
    let helper = std::thread::spawn(move || {
        drop(send_descriptor(&near, &file));
        // Open until the actor has ended, so that the message is not lost with the socket.
        drop((&near).read(&mut [0]));
    });
    Ok(Prepared {
        stdout: Some(fs::File::from(OwnedFd::from(far))),
        helper: Some(helper),
        ..Prepared::path(path)
    })
}

#[expect(unsafe_code, reason = "passing a descriptor has no safe form in std")]
fn send_descriptor(socket: &UnixStream, file: &fs::File) -> io::Result<()> {
    let (mut byte, mut control) = ([1_u8; 1], [0_u64; 4]);
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let size = u32::try_from(size_of::<i32>()).map_err(io::Error::other)?;
    // SAFETY: a zeroed header is a valid one; its pointers lead to buffers of the given lengths
    // that outlive the call, and one descriptor fits into 32 bytes of control data.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size) as usize;
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(size) as usize;
        let fd = file.as_raw_fd().to_ne_bytes();
        std::ptr::copy_nonoverlapping(fd.as_ptr(), libc::CMSG_DATA(first), fd.len());
        libc::sendmsg(socket.as_raw_fd(), &raw const message, 0)
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has the file open in this process, for the actor to take.
fn held(path: &Path) -> io::Result<Prepared> {
    // Left open on purpose: this process ends soon.
    let fd = fs::File::open(path)?.into_raw_fd();
    Ok(Prepared {
        arg: format!("{}|{fd}", std::process::id()),
        ..Prepared::path(path)
    })
}

fn file_and_listener(path: &Path) -> io::Result<Prepared> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let arg = format!("{}|{}", path.display(), listener.local_addr()?);
    let helper = std::thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            drop(stream.read_to_end(&mut Vec::new()));
            drop(stream.write_all(&vec![b'y'; ANSWERED]));
        }
    });
    Ok(Prepared {
        arg,
        stdout: None,
        helper: Some(helper),
    })
}

/// A process that descends from the actor connected, and the chain of forks leads to it.
fn another_connected(seen: &Seen<'_>) -> Result<(), String> {
    let owner = seen.events.iter().find_map(|event| match event {
        KernelEvent::ConnOpen(c) if c.head.process.tgid != seen.tgid => Some(c.head.process),
        _ => None,
    });
    let mut at = owner.ok_or("the connection was not reported")?;
    for _ in 0..4 {
        let parent = seen.events.iter().find_map(|event| match event {
            KernelEvent::Fork { head, child, .. } if *child == at => Some(head.process),
            _ => None,
        });
        at = parent.ok_or_else(|| format!("the fork of {at:?} was not reported"))?;
        if at.tgid == seen.tgid {
            return Ok(());
        }
    }
    Err("the chain of forks does not lead to the actor".to_owned())
}

fn read_then_sent_by_child(seen: &Seen<'_>) -> Result<(), String> {
    touched(seen)?;
    another_connected(seen)
}

/// The connection is told when its process becomes a holder, and its end with exact bytes.
fn found_open(seen: &Seen<'_>) -> Result<(), String> {
    touched(seen)?;
    let found = seen.events.iter().find_map(|event| match event {
        KernelEvent::ConnFound(c) if c.head.process.tgid == seen.tgid => Some(*c),
        _ => None,
    });
    let found = found.ok_or("the open connection was not found")?;
    if !found.remote.ip().is_loopback() || found.remote.port() == 0 {
        return Err(format!("addresses: {found:?}"));
    }
    let sent = seen.events.iter().find_map(|event| match event {
        KernelEvent::ConnClose { conn, bytes, .. } if conn.cookie == found.cookie => {
            Some(bytes.sent)
        }
        _ => None,
    });
    if sent == Some(SENT as u64) {
        Ok(())
    } else {
        Err(format!("{sent:?} bytes instead of {SENT}"))
    }
}

fn written_only(seen: &Seen<'_>) -> Result<(), String> {
    let own: Vec<_> = files(seen)
        .filter(|f| f.head.process.tgid == seen.tgid)
        .collect();
    match own.as_slice() {
        [] => Err("the open was not reported".to_owned()),
        some if some.iter().all(|f| f.write_only) => Ok(()),
        _ => Err("reported as read".to_owned()),
    }
}
