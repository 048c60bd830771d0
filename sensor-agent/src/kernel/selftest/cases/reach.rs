//! What a process asks of others: sockets in and out, names, memory, the kernel.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{linux::net::SocketAddrExt, unix::net},
    path::Path,
    time::Duration,
};

use super::{
    super::actor::{ANSWERED, QUESTION},
    Case, KernelEvent, Prepared, Seen, net as case,
};
use crate::kernel::event::Via;

/// Hooks that see a unix socket being connected.
const UNIX: &[&str] = &["lsm/unix_stream_connect", "tp_btf/sys_exit"];
/// Hooks that see a file outside the page cache being opened.
const PROC: &[&str] = &["lsm/file_open", "tp_btf/sys_exit"];
/// Hooks that see a process being attached to.
const ATTACH: &[&str] = &["lsm/ptrace_access_check", "tp_btf/sys_exit"];
/// Bytes that a caller sends.
const CALLED: usize = 1_000;

const fn via(case: Case, via: &'static [&'static str]) -> Case {
    Case { via, ..case }
}

/// See the module's documentation.
pub(super) const CASES: &[Case] = &[
    case(
        "a connection taken in",
        "serve",
        |_| call("127.0.0.1", "127.0.0.1"),
        accepted,
    ),
    case(
        "a connection taken in on every address",
        "serve",
        |_| call("[::]", "127.0.0.1"),
        accepted,
    ),
    via(
        case("a unix socket", "unix", unix_listener, unix_seen),
        UNIX,
    ),
    via(
        case(
            "an abstract unix socket",
            "unix-abstract",
            abstract_listener,
            abstract_seen,
        ),
        UNIX,
    ),
    via(
        case("a unix datagram", "unix-datagram", unix_receiver, unix_seen),
        &["lsm/unix_may_send"],
    ),
    via(
        case(
            "a unix socket through io_uring",
            "uring-unix",
            unix_listener,
            unix_seen,
        ),
        &["lsm/unix_stream_connect", "tp_btf/io_uring_complete"],
    ),
    via(
        case(
            "environment of another process through io_uring",
            "uring-environ",
            |_| own_pid(),
            |seen| looked_into(seen, &[Via::Environ], Some(std::process::id())),
        ),
        &["lsm/file_open", "tp_btf/io_uring_complete"],
    ),
    via(
        case(
            "environment of another process",
            "environ",
            |_| own_pid(),
            |seen| looked_into(seen, &[Via::Environ], Some(std::process::id())),
        ),
        PROC,
    ),
    via(
        case(
            "memory of another process through /proc",
            "mem",
            |_| own_pid(),
            |seen| looked_into(seen, &[Via::Mem], Some(std::process::id())),
        ),
        PROC,
    ),
    via(
        case(
            "memory of another process by process_vm_readv",
            "vm-readv",
            |_| own_pid(),
            |seen| looked_into(seen, &[Via::VmReadv, Via::Attach], None),
        ),
        ATTACH,
    ),
    via(
        case(
            "ptrace of another process",
            "ptrace",
            |_| own_pid(),
            |seen| looked_into(seen, &[Via::Ptrace, Via::Attach], None),
        ),
        ATTACH,
    ),
    via(
        case(
            "a bpf program loaded",
            "bpf",
            |_| own_pid(),
            |seen| {
                own(seen, "the load", |e| {
                    matches!(e, KernelEvent::BpfLoad { .. })
                })
            },
        ),
        &["lsm/bpf", "tp_btf/sys_exit"],
    ),
    via(
        case(
            "a packet socket",
            "packet-socket",
            |_| own_pid(),
            |seen| {
                own(seen, "the socket", |e| {
                    matches!(
                        e,
                        KernelEvent::OpaqueSocket {
                            family: 17,
                            kind: 3,
                            ..
                        }
                    )
                })
            },
        ),
        &["lsm/socket_create", "tp_btf/sys_exit"],
    ),
    case(
        "a raw ip packet",
        "raw-ip",
        |_| own_pid(),
        |seen| {
            own(seen, "the packet", |e| {
                matches!(e, KernelEvent::Datagram { raw: true, protocol: 1, remote, .. }
                if remote.ip().is_loopback())
            })
        },
    ),
    case("a name asked over udp", "resolve", |_| resolver(), asked),
    case(
        "a name asked over tcp",
        "resolve-tcp",
        |_| resolver_over_tcp(),
        asked,
    ),
];

fn prepared(arg: String, helper: std::thread::JoinHandle<()>) -> Prepared {
    Prepared {
        arg,
        stdout: None,
        helper: Some(helper),
    }
}

fn own_pid() -> io::Result<Prepared> {
    Ok(Prepared {
        arg: std::process::id().to_string(),
        stdout: None,
        helper: None,
    })
}

/// Calls the actor, once it listens on `bind`, at `at`.
fn call(bind: &str, at: &str) -> io::Result<Prepared> {
    // The port is free now; that somebody takes it until the actor does is unlikely.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let at = format!("{at}:{port}");
    let helper = std::thread::spawn(move || {
        for _ in 0..500 {
            if let Ok(mut stream) = TcpStream::connect(&at) {
                drop(stream.write_all(&[b'x'; CALLED]));
                drop(stream.shutdown(std::net::Shutdown::Write));
                drop(stream.read_to_end(&mut Vec::new()));
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    Ok(prepared(format!("{bind}:{port}"), helper))
}

fn unix_listener(path: &Path) -> io::Result<Prepared> {
    let path = path.with_file_name("s");
    let listener = net::UnixListener::bind(&path)?;
    let helper = std::thread::spawn(move || drop(listener.accept()));
    Ok(prepared(path.display().to_string(), helper))
}

fn abstract_listener(_path: &Path) -> io::Result<Prepared> {
    let name = format!("keytrail-selftest-{}", std::process::id());
    let listener = net::UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(&name)?)?;
    let helper = std::thread::spawn(move || drop(listener.accept()));
    Ok(prepared(name, helper))
}

fn unix_receiver(path: &Path) -> io::Result<Prepared> {
    let path = path.with_file_name("s");
    let socket = net::UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let helper = std::thread::spawn(move || drop(socket.recv(&mut [0])));
    Ok(prepared(path.display().to_string(), helper))
}

/// An address of the loopback net that nobody else uses, at the port of resolvers.
const RESOLVER: &str = "127.42.0.53:53";

/// The question with the bits of an answer, and the address 127.42.0.7 (RFC 1035, 4.1.3).
fn answer() -> Vec<u8> {
    let mut message = QUESTION.to_vec();
    if let Some(counts) = message.get_mut(2..8) {
        counts.copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
    }
    message.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x2a\x00\x07");
    message
}

pub(in crate::kernel::selftest) fn resolver() -> io::Result<Prepared> {
    let socket = UdpSocket::bind(RESOLVER)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let helper = std::thread::spawn(move || {
        if let Ok((_, from)) = socket.recv_from(&mut [0; 512]) {
            drop(socket.send_to(&answer(), from));
        }
    });
    Ok(prepared(RESOLVER.to_owned(), helper))
}

fn resolver_over_tcp() -> io::Result<Prepared> {
    let listener = TcpListener::bind(RESOLVER)?;
    let helper = std::thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            drop(stream.read_exact(&mut [0; 16]));
            let message = answer();
            let mut framed = u16::try_from(message.len())
                .unwrap_or(0)
                .to_be_bytes()
                .to_vec();
            framed.extend_from_slice(&message);
            drop(stream.write_all(&framed));
            drop(stream.read(&mut [0; 64]));
        }
    });
    Ok(prepared(RESOLVER.to_owned(), helper))
}

fn own(seen: &Seen<'_>, what: &str, test: impl Fn(&KernelEvent) -> bool) -> Result<(), String> {
    let hit = |e: &&KernelEvent| e.head().process.tgid == seen.tgid && test(e);
    match seen.events.iter().find(hit) {
        Some(_) => Ok(()),
        None => Err(format!("{what} was not reported")),
    }
}

fn accepted(seen: &Seen<'_>) -> Result<(), String> {
    let listening = seen.events.iter().find_map(|event| match event {
        KernelEvent::Listening { head, local } if head.process.tgid == seen.tgid => Some(*local),
        _ => None,
    });
    let local: SocketAddr = listening.ok_or("the listening socket was not reported")?;
    let conn = seen.events.iter().find_map(|event| match event {
        KernelEvent::Accepted(conn) if conn.head.process.tgid == seen.tgid => Some(*conn),
        _ => None,
    });
    let conn = conn.ok_or("the connection was not reported")?;
    if conn.local.port() != local.port()
        || !conn.remote.ip().is_loopback()
        || conn.remote.port() == 0
    {
        return Err(format!("addresses: {conn:?}"));
    }
    let bytes = seen.events.iter().find_map(|event| match event {
        KernelEvent::ConnClose { conn: c, bytes, .. } if c.cookie == conn.cookie => Some(*bytes),
        _ => None,
    });
    let bytes = bytes.ok_or("the end of the connection was not reported")?;
    // The peer's FIN counts as a byte.
    let called = (CALLED as u64..=CALLED as u64 + 1).contains(&bytes.received);
    if called && bytes.sent == ANSWERED as u64 {
        Ok(())
    } else {
        Err(format!("{bytes:?} instead of {CALLED} and {ANSWERED}"))
    }
}

fn peer<'a>(seen: &Seen<'a>) -> Result<&'a [u8], String> {
    seen.events
        .iter()
        .find_map(|event| match event {
            KernelEvent::UnixPeer { head, path } if head.process.tgid == seen.tgid => {
                Some(path.as_slice())
            }
            _ => None,
        })
        .ok_or_else(|| "the socket was not reported".to_owned())
}

fn unix_seen(seen: &Seen<'_>) -> Result<(), String> {
    let path = peer(seen)?;
    if path.starts_with(b"/") && path.ends_with(b"/s") {
        Ok(())
    } else {
        Err(format!("path {:?}", String::from_utf8_lossy(path)))
    }
}

fn abstract_seen(seen: &Seen<'_>) -> Result<(), String> {
    let path = peer(seen)?;
    if path.strip_prefix(b"\0keytrail-selftest-") == Some(std::process::id().to_string().as_bytes())
    {
        Ok(())
    } else {
        Err(format!("name {path:?}"))
    }
}

/// Another process was looked into: this one, or a child of the actor.
fn looked_into(seen: &Seen<'_>, ways: &[Via], victim: Option<u32>) -> Result<(), String> {
    let access = seen.events.iter().find_map(|event| match event {
        KernelEvent::ProcessAccess(a)
            if a.head.process.tgid == seen.tgid && ways.contains(&a.via) =>
        {
            Some(*a)
        }
        _ => None,
    });
    let access = access.ok_or("the access was not reported")?;
    let child = |event: &KernelEvent| matches!(event, KernelEvent::Fork { child, .. } if *child == access.victim);
    let right = match victim {
        Some(tgid) => access.victim.tgid == tgid && access.victim.start_ns != 0,
        None => seen.events.iter().any(child),
    };
    if right && !access.new_holder {
        Ok(())
    } else {
        Err(format!("reported otherwise: {access:?}"))
    }
}

/// Question and answer were reported, each whole.
fn asked(seen: &Seen<'_>) -> Result<(), String> {
    let answer = answer();
    for (is_answer, want) in [(false, QUESTION), (true, answer.as_slice())] {
        let came = seen.events.iter().any(|event| match event {
            KernelEvent::Dns(dns) => {
                let skip = if dns.tcp { 2 } else { 0 };
                dns.head.process.tgid == seen.tgid
                    && dns.answer == is_answer
                    && dns.data.get(skip..) == Some(want)
            }
            _ => false,
        });
        if !came {
            let what = if is_answer { "answer" } else { "question" };
            return Err(format!("the {what} was not reported whole"));
        }
    }
    Ok(())
}
