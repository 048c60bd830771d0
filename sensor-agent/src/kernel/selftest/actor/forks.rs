//! Leaving the process tree: daemons, odd clones, ids used again.
#![expect(
    unsafe_code,
    reason = "these cases are about raw clone calls, which have no safe form"
)]

use std::{
    io::Write,
    net::TcpStream,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    process::Command,
};

use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{Pid, setsid},
};

use super::{CANNOT, Done, again, connect, fork};

/// Does `act` if it is one of this module's.
pub(super) fn act(act: &str, arg: &str) -> Option<Done> {
    Some(match act {
        "daemon" => daemon(arg),
        "subreaper" => nix::sys::prctl::set_child_subreaper(true)
            .map_err(Into::into)
            .and_then(|()| daemon(arg)),
        "clone-parent" => clone_parent(arg),
        "thread-fork" => {
            let address = arg.to_owned();
            match std::thread::spawn(move || child_connects(&address).map_err(|e| e.to_string()))
                .join()
            {
                Ok(result) => result.map_err(Into::into),
                Err(_) => Err("the thread panicked".into()),
            }
        }
        "memfd" => memfd(arg),
        "reuse-pid" => reuse_pid(arg),
        _ => return None,
    })
}

fn code(done: Done) -> i32 {
    i32::from(done.is_err())
}

fn well(status: WaitStatus) -> Done {
    match status {
        WaitStatus::Exited(_, 0) => Ok(()),
        other => Err(format!("the child ended with {other:?}").into()),
    }
}

fn child_connects(address: &str) -> Done {
    let child = fork(|| code(connect(address)))?;
    well(waitpid(child, None)?)
}

/// The classic daemon: fork, a session of its own, fork again; the middle one is gone before the
/// last one connects.
fn daemon(address: &str) -> Done {
    let (mut told, mut tell) = std::io::pipe()?;
    let middle = fork(|| {
        code(setsid().map_err(Into::into).and_then(|_| {
            fork(|| {
                // Long enough for the middle one to be reaped.
                std::thread::sleep(std::time::Duration::from_millis(50));
                let result = code(connect(address));
                drop(tell.write_all(&[1]));
                result
            })
            .map(drop)
        }))
    })?;
    drop(tell);
    well(waitpid(middle, None)?)?;
    std::io::Read::read_exact(&mut told, &mut [0])?;
    Ok(())
}

/// A child whose parent is this process's parent.
fn clone_parent(address: &str) -> Done {
    let (mut told, mut tell) = std::io::pipe()?;
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: like fork: no stack, no shared memory; the child only connects and exits.
    let ret = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match ret {
        0 => {
            let result = code(connect(address));
            drop(tell.write_all(&[1]));
            // SAFETY: ends this copy at once, without destructors that are the parent's to run.
            unsafe { libc::_exit(result) }
        }
        1.. => {
            drop(tell);
            std::io::Read::read_exact(&mut told, &mut [0])?;
            Ok(())
        }
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// Reads the file, keeps its content in memory only, and lets a child send it from there. `arg` is
/// `path|address`.
fn memfd(arg: &str) -> Done {
    let (path, address) = arg.split_once('|').ok_or("want path|address")?;
    let content = std::fs::read(path)?;
    // SAFETY: a literal name; the kernel makes a new descriptor.
    let fd = unsafe {
        let fd = libc::memfd_create(c"copy".as_ptr(), 0);
        if fd < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let mut copy = std::fs::File::from(fd);
    copy.write_all(&content)?;
    let own = std::env::current_exe()?;
    let mut sender: Command = again(&own, "connect", address);
    let mut sender = sender.stdout(copy.as_fd().try_clone_to_owned()?).spawn()?;
    if let Some(mut stdin) = sender.stdin.take() {
        stdin.write_all(b"\n")?;
    }
    if sender.wait()?.success() {
        Ok(())
    } else {
        Err("the child failed".into())
    }
}

/// Makes a child under a given process id, which somebody else had before. `arg` is `pid|address`.
fn reuse_pid(arg: &str) -> Done {
    /// `struct clone_args` up to `set_tid_size` (`include/uapi/linux/sched.h`).
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
    }
    let (pid, address) = arg.split_once('|').ok_or("want pid|address")?;
    let wanted: i32 = pid.parse()?;
    let args = CloneArgs {
        exit_signal: u64::try_from(libc::SIGCHLD)?,
        set_tid: u64::try_from((&raw const wanted).addr())?,
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    // SAFETY: like fork; the array of one id outlives the call.
    let ret = unsafe {
        let size = size_of::<CloneArgs>();
        libc::syscall(libc::SYS_clone3, &raw const args, size)
    };
    match ret {
        0 => {
            let result = i32::from(TcpStream::connect(address).is_err());
            // SAFETY: as above.
            unsafe { libc::_exit(result) }
        }
        1.. => well(waitpid(Pid::from_raw(wanted), None)?),
        _ => std::process::exit(CANNOT),
    }
}
