//! The only place that interprets kernel bytes.
//!
//! A record is accepted only when its kind is known, its length is exactly that of the kind, and
//! every field with a closed set of values holds one of them. Anything else is an error that the
//! caller counts; nothing here can panic or trust a length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use keytrail_abi::{
    Header, RecordKind, file, net,
    process::{self, ChunkHead},
};
use zerocopy::FromBytes;
use zeroize::Zeroizing;

use super::event::{
    Access, ConnBytes, ConnEvent, DnsEvent, ExecArgs, ExecEvent, FileEvent, FileId, Head,
    HelloEvent, KernelEvent, ProcKey, ProcessAccessEvent, Sensitive, Via,
};

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than a header, or not as long as its kind.
    #[error("a record of {got} bytes, where its kind has {want}")]
    Length {
        /// Bytes that came.
        got: usize,
        /// Bytes that its kind has.
        want: usize,
    },
    /// A kind that this agent does not know.
    #[error("a record of unknown kind {0}")]
    UnknownKind(u16),
    /// A field holds a value outside its set.
    #[error("a record with an impossible {0}")]
    Field(&'static str),
}

/// A piece of argv or environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The process.
    pub process: ProcKey,
    /// Time of the exec that it belongs to.
    pub exec_ts_ns: u64,
    /// The environment; else argv.
    pub env: bool,
    /// Position in the stream, bytes.
    pub offset: usize,
    /// Nothing follows it.
    pub last: bool,
    /// The bytes.
    pub data: Sensitive,
}

/// A record, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole event; for an exec of a tracked process, still without argv and environment.
    Event(KernelEvent),
    /// A piece of an exec.
    Chunk(Chunk),
}

/// Decodes one record.
///
/// # Errors
/// When it is not exactly what a known kind looks like.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let Ok((head, _)) = Header::read_from_prefix(bytes) else {
        return Err(DecodeError::Length {
            got: bytes.len(),
            want: size_of::<Header>(),
        });
    };
    let kind = RecordKind::from_raw(head.kind).ok_or(DecodeError::UnknownKind(head.kind))?;
    if bytes.len() != kind.size() || usize::from(head.len) != kind.size() {
        return Err(DecodeError::Length {
            got: bytes.len(),
            want: kind.size(),
        });
    }
    let event = match kind {
        RecordKind::Fork => fork(&read(bytes)?),
        RecordKind::Exec => exec(&read(bytes)?)?,
        RecordKind::Exit => exit(&read(bytes)?),
        RecordKind::FileAccess => file_access(&read(bytes)?)?,
        RecordKind::ConnOpen => conn_open(&read(bytes)?)?,
        RecordKind::ConnHello => conn_hello(&read(bytes)?)?,
        RecordKind::ConnClose => conn_close(&read(bytes)?)?,
        RecordKind::Datagram => datagram(&read(bytes)?)?,
        RecordKind::Listen => listen(&read(bytes)?)?,
        RecordKind::UnixPeer => unix_peer(&read(bytes)?)?,
        RecordKind::ProcessAccess => process_access(&read(bytes)?)?,
        RecordKind::BpfLoad => bpf_load(&read(bytes)?),
        RecordKind::Dns => dns(&read(bytes)?)?,
        RecordKind::OpaqueSocket => opaque_socket(&read(bytes)?),
        RecordKind::ExecChunkSmall => {
            let r: process::ExecChunkSmall = read(bytes)?;
            return chunk(&r.chunk, &r.data).map(Decoded::Chunk);
        }
        RecordKind::ExecChunkLarge => {
            let r: process::ExecChunkLarge = read(bytes)?;
            return chunk(&r.chunk, &r.data).map(Decoded::Chunk);
        }
    };
    Ok(Decoded::Event(event))
}

fn read<T: FromBytes>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::read_from_bytes(bytes).map_err(|_| DecodeError::Length {
        got: bytes.len(),
        want: size_of::<T>(),
    })
}

fn head(h: &Header) -> Head {
    Head {
        ts_boot_ns: h.ts_boot_ns,
        process: ProcKey {
            tgid: h.tgid,
            start_ns: h.start_boottime_ns,
        },
        tid: h.tid,
        uid: h.uid,
        cgroup_id: h.cgroup_id,
    }
}

fn used<'a>(data: &'a [u8], len: u32, what: &'static str) -> Result<&'a [u8], DecodeError> {
    data.get(..len as usize).ok_or(DecodeError::Field(what))
}

fn fork(r: &process::Fork) -> KernelEvent {
    KernelEvent::Fork {
        head: head(&r.head),
        child: ProcKey {
            tgid: r.child_tgid,
            start_ns: r.child_start_ns,
        },
        track_flags: r.track_flags,
    }
}

fn exec(r: &process::Exec) -> Result<KernelEvent, DecodeError> {
    let tracked = r.flags & process::EXEC_TRACKED != 0;
    Ok(KernelEvent::Exec(Box::new(ExecEvent {
        head: head(&r.head),
        exe: FileId {
            dev: r.exe_dev,
            ino: r.exe_ino,
        },
        filename: used(&r.filename, r.filename_len, "filename_len")?.to_vec(),
        parent: ProcKey {
            tgid: r.ppid,
            start_ns: r.parent_start_ns,
        },
        track_flags: r.track_flags,
        matched: r.flags & process::EXEC_MATCHED != 0,
        args: tracked.then(|| ExecArgs {
            // How much is to come; the assembler replaces it by the bytes.
            argv: Sensitive(Zeroizing::new(vec![
                0;
                r.argv_len.min(process::ARGV_MAX)
                    as usize
            ])),
            env: Sensitive(Zeroizing::new(vec![
                0;
                r.env_len.min(process::ENV_MAX) as usize
            ])),
            argv_truncated: r.flags & process::EXEC_ARGV_TRUNCATED != 0,
            env_truncated: r.flags & process::EXEC_ENV_TRUNCATED != 0,
            incomplete: true,
        }),
    })))
}

fn exit(r: &process::Exit) -> KernelEvent {
    KernelEvent::Exit {
        head: head(&r.head),
        status: r.exit_code,
    }
}

fn chunk(c: &ChunkHead, data: &[u8]) -> Result<Chunk, DecodeError> {
    let env = match c.stream {
        process::STREAM_ARGV => false,
        process::STREAM_ENV => true,
        _ => return Err(DecodeError::Field("stream")),
    };
    let data = used(data, c.data_len, "data_len")?;
    Ok(Chunk {
        process: head(&c.head).process,
        exec_ts_ns: c.exec_ts_ns,
        env,
        offset: c.offset as usize,
        last: c.last != 0,
        data: Sensitive(Zeroizing::new(data.to_vec())),
    })
}

fn file_access(r: &file::FileAccess) -> Result<KernelEvent, DecodeError> {
    let access = match r.access {
        file::ACCESS_OPEN => Access::Open,
        file::ACCESS_READ => Access::Read,
        file::ACCESS_MAP => Access::Map,
        file::ACCESS_EXEC => Access::Exec,
        file::ACCESS_RECEIVE => Access::Receive,
        file::ACCESS_NAME => Access::Name,
        _ => return Err(DecodeError::Field("access")),
    };
    let hook = match r.hook {
        file::HOOK_LSM_FILE_OPEN => "lsm/file_open",
        file::HOOK_LSM_FILE_PERMISSION => "lsm/file_permission",
        file::HOOK_LSM_MMAP_FILE => "lsm/mmap_file",
        file::HOOK_LSM_FILE_RECEIVE => "lsm/file_receive",
        file::HOOK_FILEMAP_GET_PAGES => "tp_btf/mm_filemap_get_pages",
        file::HOOK_FILEMAP_MAP_PAGES => "tp_btf/mm_filemap_map_pages",
        file::HOOK_FILEMAP_FAULT => "tp_btf/mm_filemap_fault",
        file::HOOK_SYS_EXIT => "tp_btf/sys_exit",
        file::HOOK_LSM_RENAME => "lsm/inode_rename",
        file::HOOK_LSM_LINK => "lsm/inode_link",
        file::HOOK_IO_URING => "tp_btf/io_uring_complete",
        _ => return Err(DecodeError::Field("hook")),
    };
    Ok(KernelEvent::File(FileEvent {
        head: head(&r.head),
        file: FileId {
            dev: r.dev,
            ino: r.ino,
        },
        dir: (r.dir_ino != 0).then_some(FileId {
            dev: r.dir_dev,
            ino: r.dir_ino,
        }),
        access,
        hook,
        inode_watched: r.flags & file::FILE_INODE_WATCHED != 0,
        dir_watched: r.flags & file::FILE_DIR_WATCHED != 0,
        new_holder: r.flags & file::FILE_HOLDER_NEW != 0,
        write_only: r.flags & file::FILE_WRITE_ONLY != 0,
        writes: r.flags & file::FILE_WRITES != 0,
        track_flags: r.track_flags,
        name: used(&r.name, r.name_len, "name_len")?.to_vec(),
    }))
}

pub(super) fn address(a: &net::Addr) -> Result<SocketAddr, DecodeError> {
    let ip = match a.family {
        net::AF_INET => {
            let [w, x, y, z, ..] = a.addr;
            IpAddr::V4(Ipv4Addr::new(w, x, y, z))
        }
        net::AF_INET6 => {
            let v6 = Ipv6Addr::from(a.addr);
            // An IPv6 socket that talks IPv4 is an IPv4 connection to everything above.
            v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
        }
        _ => return Err(DecodeError::Field("family")),
    };
    Ok(SocketAddr::new(ip, a.port))
}

fn conn_open(r: &net::ConnOpen) -> Result<KernelEvent, DecodeError> {
    let conn = ConnEvent {
        head: head(&r.head),
        cookie: r.cookie,
        local: address(&r.local)?,
        remote: address(&r.remote)?,
    };
    match r.state {
        net::CONN_ESTABLISHED => Ok(KernelEvent::ConnOpen(conn)),
        net::CONN_FAILED => Ok(KernelEvent::ConnFailed(conn)),
        net::CONN_FOUND => Ok(KernelEvent::ConnFound(conn)),
        net::CONN_ACCEPTED => Ok(KernelEvent::Accepted(conn)),
        _ => Err(DecodeError::Field("state")),
    }
}

fn conn_hello(r: &net::ConnHello) -> Result<KernelEvent, DecodeError> {
    Ok(KernelEvent::ConnHello(HelloEvent {
        head: head(&r.head),
        cookie: r.cookie,
        offset: r.offset,
        total: r.total,
        data: used(&r.data, r.data_len, "data_len")?.to_vec(),
    }))
}

fn conn_close(r: &net::ConnClose) -> Result<KernelEvent, DecodeError> {
    Ok(KernelEvent::ConnClose {
        conn: ConnEvent {
            head: head(&r.head),
            cookie: r.cookie,
            local: address(&r.local)?,
            remote: address(&r.remote)?,
        },
        bytes: ConnBytes {
            sent: r.bytes_sent,
            received: r.bytes_received,
            acked: r.bytes_acked,
        },
        opened_ns: r.opened_ns,
    })
}

fn datagram(r: &net::Datagram) -> Result<KernelEvent, DecodeError> {
    Ok(KernelEvent::Datagram {
        head: head(&r.head),
        cookie: r.cookie,
        remote: address(&r.remote)?,
        protocol: r.protocol,
        raw: match r.sent {
            0 | 1 => false,
            2 => true,
            _ => return Err(DecodeError::Field("sent")),
        },
    })
}

fn listen(r: &net::Listen) -> Result<KernelEvent, DecodeError> {
    Ok(KernelEvent::Listening {
        head: head(&r.head),
        local: address(&r.local)?,
    })
}

fn unix_peer(r: &net::UnixPeer) -> Result<KernelEvent, DecodeError> {
    let path = used(&r.path, r.path_len, "path_len")?;
    // A path ends with its NUL, or with the length; an abstract name begins with one.
    let end = path.iter().skip(1).position(|b| *b == 0);
    let path = match (path.first(), end) {
        (Some(0), _) | (_, None) => path,
        (_, Some(at)) => path.get(..=at).unwrap_or(path),
    };
    Ok(KernelEvent::UnixPeer {
        head: head(&r.head),
        path: path.to_vec(),
    })
}

fn process_access(r: &process::ProcessAccess) -> Result<KernelEvent, DecodeError> {
    let via = match r.via {
        process::VIA_ENVIRON => Via::Environ,
        process::VIA_MEM => Via::Mem,
        process::VIA_PTRACE => Via::Ptrace,
        process::VIA_VM_READV => Via::VmReadv,
        process::VIA_ATTACH => Via::Attach,
        _ => return Err(DecodeError::Field("via")),
    };
    Ok(KernelEvent::ProcessAccess(ProcessAccessEvent {
        head: head(&r.head),
        victim: ProcKey {
            tgid: r.victim,
            start_ns: r.victim_start_ns,
        },
        via,
        new_holder: r.new_holder != 0,
    }))
}

fn bpf_load(r: &process::BpfLoad) -> KernelEvent {
    KernelEvent::BpfLoad {
        head: head(&r.head),
    }
}

fn dns(r: &net::Dns) -> Result<KernelEvent, DecodeError> {
    Ok(KernelEvent::Dns(DnsEvent {
        head: head(&r.head),
        cookie: r.cookie,
        answer: r.flags & net::DNS_ANSWER != 0,
        tcp: r.flags & net::DNS_TCP != 0,
        data: used(&r.data, r.data_len, "data_len")?.to_vec(),
    }))
}

fn opaque_socket(r: &net::OpaqueSocket) -> KernelEvent {
    KernelEvent::OpaqueSocket {
        head: head(&r.head),
        family: r.family,
        kind: r.kind,
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
