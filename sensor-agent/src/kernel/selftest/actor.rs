//! What the actors do. Each runs as a process of its own inside the scope.

mod evade;
mod forks;
mod reach;
mod uring;

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use nix::unistd::{ForkResult, Pid};

pub(super) use reach::QUESTION;

/// Exit code of an actor that lacks the rights for its act.
pub(super) const CANNOT: i32 = 77;
/// What the connecting actors send and expect.
pub(super) const SENT: usize = 70_001;
/// What the listener answers.
pub(super) const ANSWERED: usize = 12_345;
/// The server name in the hello.
pub(super) const SERVER_NAME: &str = "s3.eu-central-1.amazonaws.com";
/// An environment variable and its size, to need several pieces.
pub(super) const BIG_VARIABLE: (&str, usize) = ("KEYTRAIL_BIG", 9_000);

type Done = Result<(), Box<dyn std::error::Error>>;

/// Waits for the word, then acts.
pub(super) fn run(args: &[String]) -> Done {
    let [act, arg] = args else {
        return Err("an actor wants an act and an argument".into());
    };
    io::stdin().read_exact(&mut [0])?;
    match act.as_str() {
        "read" => fs::read(arg).map(drop)?,
        "open" => File::open(arg).map(drop)?,
        "create" => File::create(arg).map(drop)?,
        "bind" => return bind_mount(arg),
        "inherited" => {
            let mut file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            file.read_to_end(&mut Vec::new())?;
        }
        "mmap" => return map(arg),
        "sendfile" => {
            let (mut out, _in) = UnixStream::pair()?;
            // The standard library copies from a file to a socket with sendfile.
            io::copy(&mut File::open(arg)?, &mut out)?;
        }
        "child" => {
            let status = Command::new("/bin/cat")
                .args([arg.as_str(), "/dev/null"])
                .env_clear()
                .env(BIG_VARIABLE.0, "x".repeat(BIG_VARIABLE.1))
                .stdout(Stdio::null())
                .status()?;
            if !status.success() {
                return Err("cat failed".into());
            }
        }
        "thread" => {
            let path = arg.clone();
            std::thread::spawn(move || fs::read(path))
                .join()
                .map_err(|_| "panic")??;
        }
        "new-file" => {
            let fresh = format!("{arg}.new");
            fs::write(&fresh, "fresh")?;
            fs::rename(&fresh, arg)?;
            fs::read(arg)?;
        }
        "connect" => return connect(arg),
        "hello" => return hello(arg),
        "udp" => UdpSocket::bind("127.0.0.1:0")?
            .send_to(b"x", arg.as_str())
            .map(drop)?,
        "udp-connected" => {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(arg)?;
            socket.send(b"x")?;
        }
        "connect-read" => {
            let (path, address) = arg.split_once('|').ok_or("want path|address")?;
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(&[b'x'; 1])?;
            fs::read(path)?;
            stream.write_all(&vec![b'x'; SENT - 1])?;
            stream.shutdown(std::net::Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())?;
        }
        "refused" => {
            if TcpStream::connect(arg).is_ok() {
                return Err("somebody listens there".into());
            }
        }
        "spin" => spin(number(arg)?)?,
        "flood" => {
            let (_, path) = arg.split_once('|').ok_or("want number|path")?;
            spin(number(arg)? / 2)?;
            fs::read(path)?;
            spin(number(arg)? / 2)?;
        }
        "fan" => {
            let mut children = Vec::new();
            for _ in 0..number(arg)? {
                let child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn()?;
                children.push(child);
            }
            for mut child in children {
                drop(child.stdin.take());
                child.wait()?;
            }
        }
        "bench-open" => {
            let path = std::env::current_exe()?;
            return bench(arg.parse()?, || File::open(&path).map(drop));
        }
        "bench-getppid" => {
            return bench(arg.parse()?, || {
                nix::unistd::getppid();
                Ok(())
            });
        }
        "bench-connect" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            std::thread::spawn(move || while listener.accept().is_ok() {});
            return bench(arg.parse::<u32>()? / 10, || {
                TcpStream::connect(address).map(drop)
            });
        }
        _ => {
            return evade::act(act, arg)
                .or_else(|| forks::act(act, arg))
                .or_else(|| uring::act(act, arg))
                .or_else(|| reach::act(act, arg))
                .unwrap_or_else(|| Err(format!("no such act: {act}").into()));
        }
    }
    Ok(())
}

/// The number that an argument begins with.
fn number(arg: &str) -> Result<u32, std::num::ParseIntError> {
    arg.split('|').next().unwrap_or_default().parse()
}

/// Runs a program many times.
fn spin(times: u32) -> io::Result<()> {
    for _ in 0..times {
        Command::new("/bin/cat").arg("/dev/null").status()?;
    }
    Ok(())
}

/// `program`, started as this actor was, for another act. It waits for a byte on its input.
fn again(program: &Path, act: &str, arg: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(std::env::args().skip(1).take_while(|a| a != "--actor"))
        .args(["--actor", act, arg])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    command
}

/// Forks; the child does `act` and exits with what it returns.
#[expect(
    unsafe_code,
    reason = "the cases are about fork, which has no safe form"
)]
fn fork(act: impl FnOnce() -> i32) -> Result<Pid, Box<dyn std::error::Error>> {
    // SAFETY: actors fork before they hold a lock that another thread could have taken, and the
    // child leaves without running destructors.
    match unsafe { nix::unistd::fork()? } {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = act();
            // SAFETY: see above.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Repeats an operation and prints this thread's CPU nanoseconds for one.
#[allow(clippy::print_stdout, reason = "the measurement is the output")]
fn bench(n: u32, mut operation: impl FnMut() -> io::Result<()>) -> Done {
    use nix::time::{ClockId, clock_gettime};
    let cpu = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(std::time::Duration::from);
    for _ in 0..n / 10 {
        operation()?;
    }
    let begin = cpu()?;
    for _ in 0..n {
        operation()?;
    }
    let spent = cpu()?.saturating_sub(begin);
    println!("{}", spent.as_nanos() / u128::from(n.max(1)));
    Ok(())
}

/// Reads through a bind mount in a mount namespace of its own.
fn bind_mount(path: &str) -> Done {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        std::process::exit(CANNOT);
    }
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let target = format!("{path}.bound");
    File::create(&target)?;
    mount(Some(path), target.as_str(), none, MsFlags::MS_BIND, none)?;
    fs::read(&target)?;
    Ok(())
}

/// Maps a descriptor that was inherited, and touches the mapping.
fn map(_path: &str) -> Done {
    map_descriptor(io::stdout().as_fd())
}

#[expect(unsafe_code, reason = "the case is about mmap, which has no safe form")]
fn map_descriptor(fd: BorrowedFd<'_>) -> Done {
    // SAFETY: a new private mapping, of which one byte is read while the file is not cut.
    let byte = unsafe {
        let (prot, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
        let at = libc::mmap(std::ptr::null_mut(), 1, prot, flags, fd.as_raw_fd(), 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        at.cast::<u8>().read_volatile()
    };
    if byte == b'[' {
        Ok(())
    } else {
        Err("the mapping holds something else".into())
    }
}

fn connect(address: &str) -> Done {
    talk(TcpStream::connect(address)?)
}

/// Sends what the listener expects and takes its answer.
fn talk(mut stream: TcpStream) -> Done {
    stream.write_all(&vec![b'x'; SENT])?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.len() == ANSWERED {
        Ok(())
    } else {
        Err(format!("{} bytes came", answer.len()).into())
    }
}

/// A ClientHello as a real TLS library makes it.
pub(super) fn client_hello() -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), SERVER_NAME.try_into()?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}

/// Sends a hello in two segments, then something that no one may record.
fn hello(address: &str) -> Done {
    let hello = client_hello()?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (first, second) = hello.split_at(50);
    stream.write_all(first)?;
    std::thread::sleep(std::time::Duration::from_millis(20));
    stream.write_all(second)?;
    stream.write_all(b"SECRET AFTER THE HELLO")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}
