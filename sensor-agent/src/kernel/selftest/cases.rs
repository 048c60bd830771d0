//! The cases: one entry each.

mod evasions;
pub(super) mod reach;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
};

use super::{
    actor::{ANSWERED, BIG_VARIABLE, SENT, SERVER_NAME},
    stage::{Prepared, Seen},
};
use crate::kernel::event::{FileEvent, KernelEvent};

/// One case.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The actor's act.
    pub(super) act: &'static str,
    /// Whether the actor is tracked before it begins.
    pub(super) tracked: bool,
    /// Whether the file's directory is watched too.
    pub(super) watch_dir: bool,
    /// Hooks of which at least one must be live; none: it must work everywhere.
    pub(super) via: &'static [&'static str],
    pub(super) prepare: fn(&Path) -> std::io::Result<Prepared>,
    pub(super) check: fn(&Seen<'_>) -> Result<(), String>,
}

/// Any hook that sees opens.
const OPENS: &[&str] = &[
    "lsm/file_open",
    "tp_btf/mm_filemap_get_pages",
    "tp_btf/sys_exit",
];
/// Hooks that see reads through a descriptor opened by another.
const READS: &[&str] = &["lsm/file_permission", "tp_btf/mm_filemap_get_pages"];
/// Hooks that see mappings.
const MAPS: &[&str] = &["lsm/mmap_file", "tp_btf/mm_filemap_map_pages"];
/// Hooks that see an open without a read.
const BARE_OPENS: &[&str] = &["lsm/file_open", "tp_btf/sys_exit"];

const fn file(
    name: &'static str,
    act: &'static str,
    via: &'static [&'static str],
    prepare: fn(&Path) -> std::io::Result<Prepared>,
) -> Case {
    Case {
        name,
        act,
        tracked: false,
        watch_dir: false,
        via,
        prepare,
        check: touched,
    }
}

const fn net(
    name: &'static str,
    act: &'static str,
    prepare: fn(&Path) -> std::io::Result<Prepared>,
    check: fn(&Seen<'_>) -> Result<(), String>,
) -> Case {
    Case {
        name,
        act,
        tracked: true,
        watch_dir: false,
        via: &[],
        prepare,
        check,
    }
}

/// All cases.
pub(super) fn all() -> impl Iterator<Item = &'static Case> {
    CASES.iter().chain(evasions::CASES).chain(reach::CASES)
}

/// The plain cases.
const CASES: &[Case] = &[
    file("open and read", "read", OPENS, as_is),
    file("open without reading", "open", BARE_OPENS, as_is),
    file("through a symlink", "read", OPENS, symlink),
    file(
        "through a symlinked directory",
        "read",
        OPENS,
        symlinked_dir,
    ),
    file("through a hard link", "read", OPENS, hardlink),
    file("through a bind mount", "bind", OPENS, as_is),
    file("through /proc/self/root", "read", OPENS, proc_root),
    file("after a rename", "read", OPENS, renamed),
    file("from a thread", "thread", OPENS, as_is),
    file("by sendfile", "sendfile", OPENS, as_is),
    file(
        "through an inherited descriptor",
        "inherited",
        READS,
        inherited,
    ),
    file("mapping an inherited descriptor", "mmap", MAPS, inherited),
    Case {
        check: child_seen,
        ..file("by a child", "child", OPENS, as_is)
    },
    Case {
        tracked: true,
        check: exec_seen,
        ..file("arguments and environment of an exec", "child", &[], as_is)
    },
    Case {
        tracked: true,
        watch_dir: true,
        check: new_file_seen,
        ..file("a new file renamed over the old", "new-file", OPENS, as_is)
    },
    Case {
        check: silent,
        ..file("an unwatched file", "read", &[], other_file)
    },
    net(
        "tcp over ipv4",
        "connect",
        |_| serve("127.0.0.1:0"),
        connection_exact,
    ),
    net(
        "tcp over ipv6",
        "connect",
        |_| serve("[::1]:0"),
        connection_exact,
    ),
    net(
        "a refused connection",
        "refused",
        |_| nobody(),
        connection_failed,
    ),
    net(
        "server name in a split hello",
        "hello",
        |_| serve("127.0.0.1:0"),
        hello_seen,
    ),
    net("udp, unconnected", "udp", |_| datagrams(), datagram_seen),
    net(
        "udp, connected",
        "udp-connected",
        |_| datagrams(),
        datagram_seen,
    ),
    Case {
        tracked: false,
        check: silent,
        ..net(
            "connection of a process that is not tracked",
            "connect",
            |_| serve("127.0.0.1:0"),
            silent,
        )
    },
];

fn as_is(path: &Path) -> std::io::Result<Prepared> {
    Ok(Prepared::path(path))
}

fn symlink(path: &Path) -> std::io::Result<Prepared> {
    let alias = path.with_extension("link");
    std::os::unix::fs::symlink(path, &alias)?;
    Ok(Prepared::path(&alias))
}

fn symlinked_dir(path: &Path) -> std::io::Result<Prepared> {
    let dir = path.parent().unwrap_or(path);
    let alias = dir.join("dirlink");
    std::os::unix::fs::symlink(dir, &alias)?;
    Ok(Prepared::path(
        &alias
            .join("../")
            .join(dir.file_name().unwrap_or_default())
            .join("credentials"),
    ))
}

fn hardlink(path: &Path) -> std::io::Result<Prepared> {
    let alias = path.with_extension("hard");
    fs::hard_link(path, &alias)?;
    Ok(Prepared::path(&alias))
}

fn proc_root(path: &Path) -> std::io::Result<Prepared> {
    let below = path.strip_prefix("/").unwrap_or(path);
    Ok(Prepared::path(&Path::new("/proc/self/root").join(below)))
}

fn renamed(path: &Path) -> std::io::Result<Prepared> {
    let new = path.with_extension("moved");
    fs::rename(path, &new)?;
    Ok(Prepared::path(&new))
}

fn inherited(path: &Path) -> std::io::Result<Prepared> {
    Ok(Prepared {
        stdout: Some(fs::File::open(path)?),
        ..Prepared::path(path)
    })
}

fn other_file(path: &Path) -> std::io::Result<Prepared> {
    let other = path.with_extension("other");
    fs::write(&other, "nothing")?;
    Ok(Prepared::path(&other))
}

/// Takes one connection, reads it to its end and answers.
fn serve(address: &str) -> std::io::Result<Prepared> {
    let listener = TcpListener::bind(address)?;
    let arg = listener.local_addr()?.to_string();
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

fn nobody() -> std::io::Result<Prepared> {
    let arg = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    Ok(Prepared {
        arg,
        stdout: None,
        helper: None,
    })
}

fn datagrams() -> std::io::Result<Prepared> {
    // Bound until the actor has sent, or a connected socket would hear of the closed port.
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let arg = socket.local_addr()?.to_string();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    let helper = std::thread::spawn(move || drop(socket.recv(&mut [0; 8])));
    Ok(Prepared {
        arg,
        stdout: None,
        helper: Some(helper),
    })
}

fn files<'a>(seen: &Seen<'a>) -> impl Iterator<Item = &'a FileEvent> {
    seen.events.iter().filter_map(|event| match event {
        KernelEvent::File(file) => Some(file),
        _ => None,
    })
}

fn touched(seen: &Seen<'_>) -> Result<(), String> {
    let hit = files(seen).any(|f| {
        f.head.process.tgid == seen.tgid && f.file == seen.file && f.inode_watched && !f.write_only
    });
    let named = files(seen)
        .filter(|f| f.head.process.tgid == seen.tgid)
        .all(|f| f.dir.is_some() && !f.name.is_empty());
    match (hit, named) {
        (true, true) => Ok(()),
        (false, _) => Err("the access was not reported".to_owned()),
        (true, false) => Err("the access lacks its directory or name".to_owned()),
    }
}

fn child_seen(seen: &Seen<'_>) -> Result<(), String> {
    if files(seen).any(|f| f.file == seen.file && f.new_holder && f.head.process.tgid != seen.tgid)
    {
        Ok(())
    } else {
        Err("the child's access was not reported".to_owned())
    }
}

fn exec_seen(seen: &Seen<'_>) -> Result<(), String> {
    let child = seen.events.iter().find_map(|event| match event {
        KernelEvent::Fork { head, child, .. } if head.process.tgid == seen.tgid => Some(*child),
        _ => None,
    });
    let child = child.ok_or("the fork was not reported")?;
    let exec = seen.events.iter().find_map(|event| match event {
        KernelEvent::Exec(exec) if exec.head.process == child => Some(exec),
        _ => None,
    });
    let exec = exec.ok_or("the exec was not reported under the child's key")?;
    let args = exec
        .args
        .as_ref()
        .ok_or("the exec came without arguments")?;
    let argv: Vec<&[u8]> = args.argv.strings().collect();
    if args.incomplete || argv.first() != Some(&&b"/bin/cat"[..]) || argv.len() != 3 {
        return Err(format!("argv: {argv:?}, incomplete: {}", args.incomplete));
    }
    let want = format!("{}={}", BIG_VARIABLE.0, "x".repeat(BIG_VARIABLE.1));
    let env: Vec<&[u8]> = args.env.strings().collect();
    if env != [want.as_bytes()] {
        return Err(format!("the environment has {} bytes", args.env.0.len()));
    }
    if exec.filename != b"/bin/cat" || exec.parent.tgid != seen.tgid {
        return Err(format!("file name or parent: {exec:?}"));
    }
    let exit = |event: &KernelEvent| matches!(event, KernelEvent::Exit { head, status: 0 } if head.process == child);
    if seen.events.iter().any(exit) {
        Ok(())
    } else {
        Err("the exit was not reported".to_owned())
    }
}

fn new_file_seen(seen: &Seen<'_>) -> Result<(), String> {
    let fresh =
        files(seen).any(|f| f.dir_watched && f.file != seen.file && f.name == b"credentials");
    if fresh {
        Ok(())
    } else {
        Err("the new file's access was not reported".to_owned())
    }
}

/// Nothing but the exec that every process in scope reports.
fn silent(seen: &Seen<'_>) -> Result<(), String> {
    let loud = seen
        .events
        .iter()
        .find(|event| !matches!(event, KernelEvent::Exec(_)));
    loud.map_or(Ok(()), |event| {
        Err(format!("reported though nothing was watched: {event:?}"))
    })
}

fn connection_exact(seen: &Seen<'_>) -> Result<(), String> {
    let opened = seen.events.iter().find_map(|event| match event {
        KernelEvent::ConnOpen(c) if c.head.process.tgid == seen.tgid => Some(*c),
        _ => None,
    });
    let opened = opened.ok_or("the connection was not reported")?;
    let closed = seen.events.iter().find_map(|event| match event {
        KernelEvent::ConnClose { conn, bytes, .. } if conn.cookie == opened.cookie => {
            Some((*conn, *bytes))
        }
        _ => None,
    });
    let (conn, bytes) = closed.ok_or("the end of the connection was not reported")?;
    let loopback = |a: SocketAddr| a.ip().is_loopback() && a.port() != 0;
    if !loopback(conn.local) || !loopback(conn.remote) || conn.head.process.tgid != seen.tgid {
        return Err(format!("addresses or owner: {conn:?}"));
    }
    // tcp_sock counts the peer's FIN, and on the acknowledged side SYN and FIN, as a byte each.
    let near = |got: u64, want: usize| (want as u64..=want as u64 + 2).contains(&got);
    if bytes.sent == SENT as u64 && near(bytes.received, ANSWERED) && near(bytes.acked, SENT) {
        Ok(())
    } else {
        Err(format!("{bytes:?} instead of {SENT} and {ANSWERED}"))
    }
}

fn connection_failed(seen: &Seen<'_>) -> Result<(), String> {
    let failed = seen.events.iter().any(|event| {
        matches!(event, KernelEvent::ConnFailed(c)
            if c.head.process.tgid == seen.tgid && c.remote.ip().is_loopback())
    });
    if failed {
        Ok(())
    } else {
        Err("the failed attempt was not reported".to_owned())
    }
}

fn hello_seen(seen: &Seen<'_>) -> Result<(), String> {
    let mut pieces: Vec<_> = seen
        .events
        .iter()
        .filter_map(|event| match event {
            KernelEvent::ConnHello(hello) => Some(hello),
            _ => None,
        })
        .collect();
    pieces.sort_by_key(|p| p.offset);
    let total = pieces.first().map_or(0, |p| p.total as usize);
    let bytes: Vec<u8> = pieces.iter().flat_map(|p| p.data.iter().copied()).collect();
    let has = |text: &[u8]| bytes.windows(text.len()).any(|w| w == text);
    if pieces.len() < 2 || bytes.len() != total || !has(SERVER_NAME.as_bytes()) {
        return Err(format!(
            "{} pieces, {} of {total} bytes",
            pieces.len(),
            bytes.len()
        ));
    }
    if has(b"SECRET") {
        return Err("bytes after the hello were recorded".to_owned());
    }
    Ok(())
}

fn datagram_seen(seen: &Seen<'_>) -> Result<(), String> {
    let sent = seen.events.iter().any(|event| {
        matches!(event, KernelEvent::Datagram { head, remote, protocol: 17, .. }
            if head.process.tgid == seen.tgid && remote.ip().is_loopback())
    });
    if sent {
        Ok(())
    } else {
        Err("the datagram was not reported".to_owned())
    }
}
