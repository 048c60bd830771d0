//! Offsets in kernel structs, read from the kernel's BTF.
//!
//! Rust has no CO-RE relocations yet, so the agent reads the offsets here and the loader writes them
//! into the programs' constants. Format: `include/uapi/linux/btf.h`. The reader keeps to what that
//! needs: structs, unions, and the modifiers between a member and its struct.

use std::{collections::HashMap, path::Path};

use keytrail_abi::Offs;

/// Why offsets could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file is missing or unreadable.
    #[error(
        "this kernel offers no BTF at {path} ({source}): it needs CONFIG_DEBUG_INFO_BTF=y, which \
         the stock kernels of Debian 12, Ubuntu 20.10, Fedora 31 and later have"
    )]
    Unreadable {
        /// Where it should be.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not BTF, or is cut short.
    #[error("BTF is malformed: {0}")]
    Malformed(&'static str),
    /// A struct member is not there.
    #[error("this kernel has no `{0}`: it is newer or older than any that this sensor knows")]
    NoMember(String),
}

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// Names longer chains of modifiers or anonymous members than any kernel has.
const MAX_DEPTH: u32 = 32;

/// The kernel's types, indexed.
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Where each type begins; type 0 is `void`.
    types: Vec<usize>,
    /// Structs with a name.
    structs: HashMap<Vec<u8>, u32>,
}

impl Btf {
    /// Reads `path`, usually `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// When the file is unreadable or not BTF.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let data = std::fs::read(path).map_err(|source| BtfError::Unreadable {
            path: path.display().to_string(),
            source,
        })?;
        Self::parse(data)
    }

    /// Indexes BTF.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let short = BtfError::Malformed("it ends in the middle of something");
        let word = |at: usize| word(&data, at);
        if data.get(..2) != Some(&[0x9f, 0xeb]) {
            return Err(BtfError::Malformed(
                "it does not begin with BTF's magic number",
            ));
        }
        let header = |at| word(at).map(|w| w as usize);
        let (Some(head), Some(type_off), Some(type_len), Some(str_off)) =
            (header(4), header(8), header(12), header(16))
        else {
            return Err(short);
        };
        let (mut at, strings) = (head + type_off, head + str_off);
        let end = at + type_len;
        let mut types = vec![0];
        let mut structs = HashMap::new();
        while at < end {
            let (Some(name), Some(info)) = (word(at), word(at + 4)) else {
                return Err(short);
            };
            let (kind, vlen) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            if kind == KIND_STRUCT && name != 0 {
                let id = u32::try_from(types.len()).unwrap_or(u32::MAX);
                structs
                    .entry(string(&data, strings, name).to_vec())
                    .or_insert(id);
            }
            types.push(at);
            at += 12 + tail_len(kind, vlen)?;
        }
        Ok(Self {
            strings,
            types,
            structs,
            data,
        })
    }

    /// Offset in bytes of a member: `struct.member.member`, anonymous structs left out.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn offset(&self, path: &str) -> Result<u32, BtfError> {
        let missing = || BtfError::NoMember(path.to_owned());
        let mut parts = path.split('.');
        let first = parts.next().unwrap_or_default();
        let mut ty = *self.structs.get(first.as_bytes()).ok_or_else(missing)?;
        let mut bits = 0;
        for member in parts {
            let (at, next) = self.member(ty, member.as_bytes(), 0).ok_or_else(missing)?;
            bits += at;
            ty = next;
        }
        Ok(bits / 8)
    }

    /// Bit offset and type of a member of a struct, looked for in anonymous members as well.
    fn member(&self, ty: u32, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        let at = self.strip(ty)?;
        let info = word(&self.data, at + 4)?;
        let kind = (info >> 24) & 0x1f;
        if depth > MAX_DEPTH || (kind != KIND_STRUCT && kind != KIND_UNION) {
            return None;
        }
        for i in 0..(info & 0xffff) as usize {
            let entry = at + 12 + i * 12;
            let (name_off, member_type, offset) = (
                word(&self.data, entry)?,
                word(&self.data, entry + 4)?,
                word(&self.data, entry + 8)?,
            );
            // With kind_flag set the upper byte is the width of a bit field.
            let offset = if info >> 31 == 1 {
                offset & 0x00ff_ffff
            } else {
                offset
            };
            if name_off == 0 {
                if let Some((inner, found)) = self.member(member_type, name, depth + 1) {
                    return Some((offset + inner, found));
                }
            } else if string(&self.data, self.strings, name_off) == name {
                return Some((offset, member_type));
            }
        }
        None
    }

    /// Where a type begins, without typedefs, const, volatile and type tags around it.
    fn strip(&self, mut ty: u32) -> Option<usize> {
        for _ in 0..MAX_DEPTH {
            let at = *self.types.get(ty as usize)?;
            match (word(&self.data, at + 4)? >> 24) & 0x1f {
                8..=11 | 18 => ty = word(&self.data, at + 8)?,
                _ => return Some(at),
            }
        }
        None
    }

    /// All offsets that the programs need.
    ///
    /// # Errors
    /// When a member is missing.
    pub fn offsets(&self) -> Result<Offs, BtfError> {
        let off = |path: &str| self.offset(path);
        let sock = |member: &str| self.offset(&format!("sock.__sk_common.{member}"));
        Ok(Offs {
            task_tgid: off("task_struct.tgid")?,
            task_pid: off("task_struct.pid")?,
            task_group_leader: off("task_struct.group_leader")?,
            task_start_boottime: off("task_struct.start_boottime")?,
            task_real_parent: off("task_struct.real_parent")?,
            task_signal: off("task_struct.signal")?,
            task_exit_code: off("task_struct.exit_code")?,
            task_mm: off("task_struct.mm")?,
            task_files: off("task_struct.files")?,
            signal_live: off("signal_struct.live.counter")?,
            mm_arg_start: off("mm_struct.arg_start")?,
            mm_arg_end: off("mm_struct.arg_end")?,
            mm_env_start: off("mm_struct.env_start")?,
            mm_env_end: off("mm_struct.env_end")?,
            bprm_file: off("linux_binprm.file")?,
            bprm_filename: off("linux_binprm.filename")?,
            file_inode: off("file.f_inode")?,
            file_dentry: off("file.f_path.dentry")?,
            file_mode: off("file.f_mode")?,
            file_private: off("file.private_data")?,
            inode_ino: off("inode.i_ino")?,
            inode_sb: off("inode.i_sb")?,
            inode_alias: off("inode.i_dentry.first")?,
            inode_mode: off("inode.i_mode")?,
            sb_dev: off("super_block.s_dev")?,
            sb_magic: off("super_block.s_magic")?,
            inode_to_pid: off("proc_inode.pid")?.wrapping_sub(off("proc_inode.vfs_inode")?),
            pid_tasks: off("pid.tasks")?,
            task_pid_links: off("task_struct.pid_links")?,
            task_cred: off("task_struct.cred")?,
            cred_uid: off("cred.uid")?,
            task_status: off("task_struct.thread_info.status")?,
            dentry_parent: off("dentry.d_parent")?,
            dentry_inode: off("dentry.d_inode")?,
            dentry_name: off("dentry.d_name.name")?,
            dentry_alias: off("dentry.d_u.d_alias")?,
            mapping_host: off("address_space.host")?,
            files_fdt: off("files_struct.fdt")?,
            fdt_fd: off("fdtable.fd")?,
            fdt_max_fds: off("fdtable.max_fds")?,
            regs_orig_ax: off("pt_regs.orig_ax")?,
            regs_di: off("pt_regs.di")?,
            regs_si: off("pt_regs.si")?,
            regs_dx: off("pt_regs.dx")?,
            socket_sk: off("socket.sk")?,
            unix_peer: off("unix_sock.peer")?,
            unix_addr: off("unix_sock.addr")?,
            unix_address_len: off("unix_address.len")?,
            unix_address_name: off("unix_address.name")?,
            sk_state: sock("skc_state")?,
            sk_cookie: sock("skc_cookie")?,
            sk_net: sock("skc_net.net")?,
            sk_family: sock("skc_family")?,
            sk_num: sock("skc_num")?,
            sk_dport: sock("skc_dport")?,
            sk_daddr: sock("skc_daddr")?,
            sk_rcv_saddr: sock("skc_rcv_saddr")?,
            sk_v6_daddr: sock("skc_v6_daddr")?,
            sk_v6_rcv_saddr: sock("skc_v6_rcv_saddr")?,
            sk_protocol: off("sock.sk_protocol")?,
            tcp_bytes_sent: off("tcp_sock.bytes_sent")?,
            tcp_bytes_received: off("tcp_sock.bytes_received")?,
            tcp_bytes_acked: off("tcp_sock.bytes_acked")?,
            // A kernel without io_uring has no such struct, and no such tracepoint either.
            uring_opcode: off("io_kiocb.opcode").unwrap_or(0),
            uring_file: off("io_kiocb.file").unwrap_or(0),
        })
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at.checked_add(4)?)?
        .try_into()
        .ok()
        .map(u32::from_le_bytes)
}

fn string(data: &[u8], strings: usize, offset: u32) -> &[u8] {
    let rest = data
        .get(strings.saturating_add(offset as usize)..)
        .unwrap_or_default();
    rest.split(|b| *b == 0).next().unwrap_or_default()
}

/// Bytes that follow the 12 of a type itself.
fn tail_len(kind: u32, vlen: usize) -> Result<usize, BtfError> {
    Ok(match kind {
        2 | 7..=12 | 16 | 18 => 0,
        1 | 14 | 17 => 4,
        3 => 12,
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * vlen,
        6 | 13 => 8 * vlen,
        _ => {
            return Err(BtfError::Malformed(
                "it has a kind of type that this reader does not know",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_this_kernels_offsets() {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        if !path.exists() {
            println!("SKIPPED reads_this_kernels_offsets: this kernel has no BTF");
            return;
        }
        let btf = Btf::read(path).unwrap();
        let offs = btf.offsets().unwrap();
        // The order of these is fixed in every kernel; the values are not.
        assert!(offs.task_pid < offs.task_tgid);
        assert_eq!(offs.mm_arg_end, offs.mm_arg_start + 8);
        assert_eq!(offs.sk_rcv_saddr, offs.sk_daddr + 4);
        assert!(matches!(
            btf.offset("task_struct.nonsense"),
            Err(BtfError::NoMember(_))
        ));
    }

    #[test]
    fn says_where_btf_is_missing() {
        let Err(error) = Btf::read(Path::new("/nonexistent/btf")) else {
            panic!("no error")
        };
        assert!(error.to_string().contains("/nonexistent/btf"));
    }

    proptest! {
        #[test]
        fn never_panics(mut data: Vec<u8>, cut in 0usize..64) {
            let _ = Btf::parse(data.clone());
            let mut head = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 64, 0, 0, 0];
            head.truncate(cut);
            head.append(&mut data);
            if let Ok(btf) = Btf::parse(head) {
                let _ = btf.offset("a.b");
            }
        }
    }
}
