//! Reaching other processes: their memory, their sockets, the kernel itself.
#![expect(
    unsafe_code,
    reason = "these cases are about raw system calls, which have no safe form"
)]

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixStream},
    },
    time::Duration,
};

use nix::{
    sys::{signal::Signal, wait::waitpid},
    unistd::Pid,
};

use super::{ANSWERED, CANNOT, Done, fork};

/// Does `act` if it is one of this module's.
pub(super) fn act(act: &str, arg: &str) -> Option<Done> {
    Some(match act {
        "serve" => serve(arg),
        "unix" => UnixStream::connect(arg).map(drop).map_err(Into::into),
        "unix-abstract" => SocketAddr::from_abstract_name(arg)
            .and_then(|address| UnixStream::connect_addr(&address))
            .map(drop)
            .map_err(Into::into),
        "unix-datagram" => UnixDatagram::unbound()
            .and_then(|socket| socket.send_to(b"x", arg))
            .map(drop)
            .map_err(Into::into),
        "environ" => first_byte(&format!("/proc/{arg}/environ")),
        "mem" => open_memory(arg),
        "vm-readv" => with_child(read_memory),
        "ptrace" => with_child(|child| call(libc::PTRACE_SEIZE, child)),
        "bpf" => load_program(),
        "packet-socket" => packet_socket(),
        "raw-ip" => raw_ip(),
        "resolve" => resolve(arg),
        "resolve-tcp" => resolve_over_tcp(arg),
        "tour" => tour(arg),
        _ => return None,
    })
}

/// A question for the A record of `keytrail.example` (RFC 1035, 4.1).
pub(in crate::kernel::selftest) const QUESTION: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08keytrail\x07example\x00\x00\x01\x00\x01";

/// Takes one connection, reads it to its end and answers.
fn serve(address: &str) -> Done {
    let (mut stream, _) = TcpListener::bind(address)?.accept()?;
    stream.read_to_end(&mut Vec::new())?;
    stream.write_all(&vec![b'y'; ANSWERED])?;
    Ok(())
}

fn first_byte(path: &str) -> Done {
    File::open(path)?.read_exact(&mut [0])?;
    Ok(())
}

fn open_memory(pid: &str) -> Done {
    match File::open(format!("/proc/{pid}/mem")) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => std::process::exit(CANNOT),
        Err(error) => Err(error.into()),
    }
}

/// Runs `act` on a child that waits meanwhile.
fn with_child(act: impl FnOnce(Pid) -> io::Result<()>) -> Done {
    let child = fork(|| {
        std::thread::sleep(Duration::from_secs(20));
        0
    })?;
    let result = act(child);
    nix::sys::signal::kill(child, Signal::SIGKILL)?;
    waitpid(child, None)?;
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => std::process::exit(CANNOT),
        result => result.map_err(Into::into),
    }
}

/// Reads from the child what lies at the same address there as here.
fn read_memory(child: Pid) -> io::Result<()> {
    static THERE: [u8; 16] = *b"what a child has";
    let mut here = [0_u8; 16];
    let local = libc::iovec {
        iov_base: here.as_mut_ptr().cast(),
        iov_len: here.len(),
    };
    let remote = libc::iovec {
        iov_base: THERE.as_ptr().cast_mut().cast(),
        iov_len: THERE.len(),
    };
    // SAFETY: one local buffer of the given length, which outlives the call.
    let got = unsafe {
        libc::process_vm_readv(child.as_raw(), &raw const local, 1, &raw const remote, 1, 0)
    };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    if here == THERE {
        Ok(())
    } else {
        Err(io::Error::other("something else was read"))
    }
}

fn call(request: libc::c_uint, child: Pid) -> io::Result<()> {
    // SAFETY: attaches to our own child; no memory is passed.
    let ret = unsafe { libc::ptrace(request, child.as_raw(), 0, 0) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Attr {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    rest: [u64; 5],
}

/// Loads `r0 = 0; exit` as a socket filter.
fn load_program() -> Done {
    let instructions: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
    let attr = Attr {
        prog_type: 1,
        instruction_count: 2,
        instructions: u64::try_from(instructions.as_ptr().expose_provenance())?,
        license: u64::try_from(c"GPL".as_ptr().expose_provenance())?,
        rest: [0; 5],
    };
    // SAFETY: the kernel reads `attr` and what it points to, all of which outlive the call.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, 5, &raw const attr, size_of::<Attr>()) };
    owned(ret).map(drop)
}

fn owned(ret: i64) -> Result<OwnedFd, Box<dyn std::error::Error>> {
    if ret < 0 {
        let error = io::Error::last_os_error();
        if matches!(
            error.raw_os_error(),
            Some(libc::EPERM | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
        ) {
            std::process::exit(CANNOT);
        }
        return Err(error.into());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(ret)?) })
}

fn packet_socket() -> Done {
    // SAFETY: numbers only. Protocol 0: it receives nothing.
    owned(i64::from(unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)
    }))
    .map(drop)
}

/// An echo request to this machine itself.
fn raw_ip() -> Done {
    // SAFETY: numbers only.
    let socket = owned(i64::from(unsafe {
        libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)
    }))?;
    let packet = [8_u8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    let to = libc::sockaddr_in {
        sin_family: 2,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
        },
        sin_zero: [0; 8],
    };
    let length = u32::try_from(size_of_val(&to))?;
    // SAFETY: buffer and address outlive the call and have the given lengths.
    let sent = unsafe {
        let address = (&raw const to).cast();
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            8,
            0,
            address,
            length,
        )
    };
    if sent == 8 {
        Ok(())
    } else {
        Err(io::Error::last_os_error().into())
    }
}

fn resolve(server: &str) -> Done {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(QUESTION, server)?;
    socket.recv(&mut [0; 512])?;
    Ok(())
}

fn resolve_over_tcp(server: &str) -> Done {
    let mut stream = TcpStream::connect(server)?;
    let mut message = u16::try_from(QUESTION.len())?.to_be_bytes().to_vec();
    message.extend_from_slice(QUESTION);
    stream.write_all(&message)?;
    stream.read_exact(&mut [0; 16])?;
    Ok(())
}

/// One after the other what makes each kind of fact. `arg` is `home|resolver|address|pid`.
fn tour(arg: &str) -> Done {
    let [home, resolver, address, pid] = arg.split('|').collect::<Vec<_>>()[..] else {
        return Err("want home|resolver|address|pid".into());
    };
    std::fs::read(format!("{home}/.aws/credentials"))?;
    UnixStream::connect(format!("{home}/.docker/run/docker.sock"))?;
    UnixStream::connect(format!("{home}/.ssh/agent/s"))?;
    resolve(resolver)?;
    TcpStream::connect(address)?;
    first_byte(&format!("/proc/{pid}/environ"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let caller = TcpStream::connect(listener.local_addr()?)?;
    listener.accept()?;
    drop(caller);
    std::fs::write(
        format!("{home}/.config/autostart/x.desktop"),
        "[Desktop Entry]\n",
    )?;
    std::fs::write(format!("{home}/.bashrc"), "# nothing\n")?;
    Ok(())
}
