//! Reading a file by every way around the usual one: other calls, other names, other views, other
//! people's descriptors.
#![expect(
    unsafe_code,
    reason = "these cases are about raw system calls, which have no safe form"
)]

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
        },
    },
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::sched::{CloneFlags, unshare};

use super::{CANNOT, Done, again, fork, map_descriptor};

/// Does `act` if it is one of this module's.
pub(super) fn act(act: &str, arg: &str) -> Option<Done> {
    Some(match act {
        "old-open" => raw_open(arg, |path| {
            // SAFETY: `path` is a NUL-terminated string that outlives the call.
            unsafe { libc::syscall(libc::SYS_open, path.as_ptr(), libc::O_RDONLY) }
        }),
        "openat2" => raw_open(arg, |path| {
            let how = [0_u64; 3];
            // SAFETY: as above; `how` is a zeroed `struct open_how`: read-only, nothing resolved
            // differently.
            unsafe {
                libc::syscall(
                    libc::SYS_openat2,
                    libc::AT_FDCWD,
                    path.as_ptr(),
                    how.as_ptr(),
                    size_of_val(&how),
                )
            }
        }),
        "compat-open" => compat_open(arg),
        "handle" => by_handle(arg),
        "open-map" => File::open(arg)
            .map_err(Into::into)
            .and_then(|file| map_descriptor(file.as_fd())),
        "splice" => splice(arg),
        "copy-range" => copy_range(arg),
        "received" => received().and_then(|fd| read_all(&mut File::from(fd))),
        "received-map" => received().and_then(|fd| map_descriptor(fd.as_fd())),
        "steal-fd" => steal_descriptor(arg),
        "overlay" => overlay(arg, false),
        "overlay-copy-up" => overlay(arg, true),
        "chroot" => change_root(arg),
        "userns" => user_namespace(arg),
        "o-path" => path_only(arg),
        "exec-file" => execute(arg),
        "swap-name" => swap_name(arg),
        "copied-exe" => copied(arg),
        "loader" => through_loader(arg),
        "deep" => deep(arg),
        _ => return None,
    })
}

fn read_all(file: &mut File) -> Done {
    file.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Ends the actor: its rights or its kernel do not allow the act.
fn cannot() -> ! {
    std::process::exit(CANNOT)
}

/// Errors that mean "not here" rather than "broken".
fn unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV | libc::EXDEV)
    )
}

/// The result of a raw call as a descriptor.
fn descriptor(ret: i64) -> io::Result<OwnedFd> {
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(ret).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_path(path: &str) -> io::Result<CString> {
    CString::new(path).map_err(io::Error::other)
}

fn raw_open(path: &str, open: impl FnOnce(&CString) -> i64) -> Done {
    match descriptor(open(&c_path(path)?)) {
        Ok(fd) => read_all(&mut File::from(fd)),
        Err(error) if unsupported(&error) => cannot(),
        Err(error) => Err(error.into()),
    }
}

/// One 32-bit system call with a pointer below 4 GiB.
///
/// # Safety
/// As for the call itself.
unsafe fn compat_call(nr: u32, a: u32, b: u32, c: u32) -> i32 {
    let mut ret = nr;
    // SAFETY: rbx is the compiler's own and is restored; the kernel keeps the rest but r8 to r11.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {a}",
            "int 0x80",
            "xchg rbx, {a}",
            a = inout(reg) u64::from(a) => _,
            inout("eax") ret,
            in("ecx") b,
            in("edx") c,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    ret.cast_signed()
}

/// Opens by the 32-bit call table (`open` is 5, `read` 3, `getpid` 20 there).
fn compat_open(path: &str) -> Done {
    let probe = fork(|| {
        // SAFETY: `getpid` takes nothing.
        let pid = unsafe { compat_call(20, 0, 0, 0) };
        i32::from(pid <= 0)
    })?;
    if nix::sys::wait::waitpid(probe, None)? != nix::sys::wait::WaitStatus::Exited(probe, 0) {
        cannot();
    }
    let bytes = c_path(path)?;
    let text = bytes.as_bytes_with_nul();
    // SAFETY: a fresh private mapping below 4 GiB, written within its size; `open` reads the path
    // from it and `read` writes at most 64 bytes into it.
    let got = unsafe {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_32BIT);
        let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let at = libc::mmap(std::ptr::null_mut(), 8192, prot, flags, -1, 0);
        if at == libc::MAP_FAILED || text.len() > 4096 {
            return Err(io::Error::last_os_error().into());
        }
        std::ptr::copy_nonoverlapping(text.as_ptr(), at.cast::<u8>(), text.len());
        let low = u32::try_from(at.addr())?;
        let fd = compat_call(5, low, 0, 0);
        if fd < 0 {
            return Err(format!("open gave {fd}").into());
        }
        compat_call(3, fd.cast_unsigned(), low + 4096, 64)
    };
    if got > 0 {
        Ok(())
    } else {
        Err(format!("read gave {got}").into())
    }
}

/// `open_by_handle_at`: no name at all.
fn by_handle(path: &str) -> Done {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        data: [u8; 128],
    }
    let mut handle = Handle {
        bytes: 128,
        kind: 0,
        data: [0; 128],
    };
    let dir = File::open(Path::new(path).parent().unwrap_or(Path::new("/")))?;
    let name = c_path(path)?;
    let mut mount = 0_i32;
    // SAFETY: `handle` says how much room it has; all pointers outlive the calls.
    let opened = unsafe {
        let ret = libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            name.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            0,
        );
        if ret < 0 {
            Err(io::Error::last_os_error())
        } else {
            descriptor(libc::syscall(
                libc::SYS_open_by_handle_at,
                dir.as_raw_fd(),
                &raw const handle,
                libc::O_RDONLY,
            ))
        }
    };
    match opened {
        Ok(fd) => read_all(&mut File::from(fd)),
        Err(error) if unsupported(&error) => cannot(),
        Err(error) => Err(error.into()),
    }
}

fn splice(path: &str) -> Done {
    let file = File::open(path)?;
    let (reader, writer) = io::pipe()?;
    // SAFETY: descriptors that this function owns; no offsets are passed.
    let moved = unsafe {
        let null = std::ptr::null_mut();
        libc::splice(file.as_raw_fd(), null, writer.as_raw_fd(), null, 64, 0)
    };
    drop(reader);
    positive(moved)
}

fn copy_range(path: &str) -> Done {
    let file = File::open(path)?;
    let copy = File::create(format!("{path}.copy"))?;
    // SAFETY: as above.
    let moved = unsafe {
        let null = std::ptr::null_mut();
        libc::copy_file_range(file.as_raw_fd(), null, copy.as_raw_fd(), null, 64, 0)
    };
    positive(moved)
}

fn positive(moved: isize) -> Done {
    if moved > 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if unsupported(&error) {
        cannot();
    }
    Err(error.into())
}

/// Receives a descriptor over the socket that is the standard output.
fn received() -> Result<OwnedFd, Box<dyn std::error::Error>> {
    let socket = io::stdout().as_fd().try_clone_to_owned()?;
    let (mut byte, mut control) = ([0_u8; 1], [0_u64; 8]);
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: a zeroed header is a valid one; its pointers lead to buffers of the given lengths
    // that outlive the call, and the control message is read only where the kernel put one.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        if libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) < 1 {
            return Err(io::Error::last_os_error().into());
        }
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        if first.is_null() || (*first).cmsg_type != libc::SCM_RIGHTS {
            return Err("no descriptor came".into());
        }
        let mut fd = [0; 4];
        std::ptr::copy_nonoverlapping(libc::CMSG_DATA(first), fd.as_mut_ptr(), fd.len());
        Ok(OwnedFd::from_raw_fd(i32::from_ne_bytes(fd)))
    }
}

/// `pidfd_getfd`: `arg` is `pid|fd` of a process that has the file open.
fn steal_descriptor(arg: &str) -> Done {
    let (pid, fd) = arg.split_once('|').ok_or("want pid|fd")?;
    let (pid, fd): (i32, i32) = (pid.parse()?, fd.parse()?);
    // SAFETY: numbers only.
    let stolen = unsafe {
        descriptor(libc::syscall(libc::SYS_pidfd_open, pid, 0)).and_then(|process| {
            let nr = libc::SYS_pidfd_getfd;
            descriptor(libc::syscall(nr, process.as_raw_fd(), fd, 0))
        })
    };
    match stolen {
        Ok(fd) => read_all(&mut File::from(fd)),
        Err(error) if unsupported(&error) => cannot(),
        Err(error) => Err(error.into()),
    }
}

/// A mount namespace of its own, from which nothing leads back.
fn own_mounts() -> Done {
    use nix::mount::{MsFlags, mount};
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        cannot();
    }
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    Ok(())
}

/// Reads through an overlay whose lower layer is the file's folder; after a copy-up if so wished.
fn overlay(path: &str, copy_up: bool) -> Done {
    use nix::mount::{MsFlags, mount};
    own_mounts()?;
    let lower = Path::new(path).parent().unwrap_or(Path::new("/"));
    let base = lower.with_extension("overlay");
    for dir in ["upper", "work", "merged"] {
        fs::create_dir_all(base.join(dir))?;
    }
    let (base, lower) = (base.display(), lower.display());
    let options = format!("lowerdir={lower},upperdir={base}/upper,workdir={base}/work");
    let merged = format!("{base}/merged");
    let mounted = mount(
        Some("overlay"),
        merged.as_str(),
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    );
    if mounted.is_err() {
        cannot();
    }
    let name = Path::new(path).file_name().unwrap_or_default();
    let seen = Path::new(&merged).join(name);
    if copy_up {
        OpenOptions::new()
            .append(true)
            .open(&seen)?
            .write_all(b"#\n")?;
    }
    fs::read(&seen)?;
    nix::mount::umount(merged.as_str())?;
    fs::remove_dir_all(base.to_string())?;
    Ok(())
}

fn change_root(path: &str) -> Done {
    let path = Path::new(path);
    let dir = path.parent().unwrap_or(Path::new("/"));
    if nix::unistd::chroot(dir).is_err() {
        cannot();
    }
    std::env::set_current_dir("/")?;
    fs::read(Path::new("/").join(path.file_name().unwrap_or_default()))?;
    Ok(())
}

fn user_namespace(path: &str) -> Done {
    if unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).is_err() {
        cannot();
    }
    fs::read(path)?;
    Ok(())
}

/// `O_PATH`, then the descriptor opened again through `/proc`.
fn path_only(path: &str) -> Done {
    let place = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)?;
    fs::read(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    Ok(())
}

/// Executes the file itself: the kernel reads its beginning, and finds no program.
fn execute(path: &str) -> Done {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    let (path, none) = (c_path(path)?, &[] as &[CString]);
    // Not by `Command`, which lets a shell try what is no program.
    match nix::unistd::execve(&path, &[&path], none) {
        Err(nix::Error::ENOEXEC) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(never) => match never {},
    }
}

/// Another thread swaps the name in memory all the time, until an open gets the watched file by a
/// call that may have begun with the other name. `arg` is the watched file; a sibling of a name as
/// long lies beside it.
fn swap_name(path: &str) -> Done {
    let real = fs::metadata(path)?.ino();
    let mut names = [path.as_bytes().to_vec(), path.as_bytes().to_vec()];
    if let Some(last) = names[1].last_mut() {
        *last = b'X';
    }
    fs::write(Path::new(std::ffi::OsStr::from_bytes(&names[1])), "decoy")?;
    names.iter_mut().for_each(|name| name.push(0));
    // Two names that differ in their last letter only: swapping is one store of one byte.
    let shared: Vec<std::sync::atomic::AtomicU8> = names[1]
        .iter()
        .map(|b| std::sync::atomic::AtomicU8::new(*b))
        .collect();
    let letter = shared.get(names[0].len() - 2).ok_or("no name")?;
    let (good, stop) = (
        *path.as_bytes().last().ok_or("no name")?,
        AtomicBool::new(false),
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                letter.store(good, Ordering::Relaxed);
                letter.store(b'X', Ordering::Relaxed);
            }
        });
        let result = (|| {
            for _ in 0..200_000 {
                // SAFETY: the bytes end with NUL whatever the letter before it is.
                let fd = descriptor(unsafe {
                    let name = shared.as_ptr().cast::<libc::c_char>();
                    libc::syscall(libc::SYS_openat, libc::AT_FDCWD, name, libc::O_RDONLY)
                })?;
                let mut file = File::from(fd);
                if file.metadata()?.ino() == real {
                    return read_all(&mut file);
                }
            }
            Err("the swap never hit".into())
        })();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// A copy of this program under an innocent name reads.
fn copied(path: &str) -> Done {
    let place = Path::new(path).with_extension("sshd");
    fs::copy(std::env::current_exe()?, &place)?;
    let mut child = again(&place, "read", path).spawn()?;
    release(&mut child)
}

/// The dynamic loader runs this program: the executable is the loader.
fn through_loader(path: &str) -> Done {
    let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
    if !loader.exists() {
        cannot();
    }
    let own = std::env::current_exe()?;
    let inner = again(&own, "read", path);
    let mut child = Command::new(loader)
        .arg(&own)
        .args(inner.get_args())
        .stdin(Stdio::piped())
        .spawn()?;
    release(&mut child)
}

fn release(child: &mut std::process::Child) -> Done {
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(b"\n")?;
    }
    if child.wait()?.success() {
        Ok(())
    } else {
        Err("the other program failed".into())
    }
}

/// Links the file at the end of a path longer than any path may be, and opens it from there.
fn deep(path: &str) -> Done {
    use nix::{
        fcntl::{AtFlags, OFlag, openat},
        sys::stat::{Mode, mkdirat},
        unistd::linkat,
    };
    let base = File::open(Path::new(path).parent().unwrap_or(Path::new("/")))?;
    let name = Path::new(path).file_name().unwrap_or_default();
    let part = "d".repeat(200);
    let mut dir = OwnedFd::from(base.try_clone()?);
    for _ in 0..25 {
        mkdirat(&dir, part.as_str(), Mode::S_IRWXU)?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
        dir = openat(&dir, part.as_str(), flags, Mode::empty())?;
    }
    linkat(&base, name, &dir, name, AtFlags::empty())?;
    let fd = openat(&dir, name, OFlag::O_RDONLY, Mode::empty())?;
    read_all(&mut File::from(fd))
}
