//! Writes the "newc" cpio format that the kernel unpacks as its initramfs.
//!
//! Source of the format: the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`:
//! a magic, 13 fields of 8 hexadecimal digits, the name with a NUL, and the data, each of the last
//! two padded to 4 bytes; `TRAILER!!!` ends the archive.

use std::collections::BTreeSet;
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_600;

/// An archive in the making. All entries belong to root and have time 0, so that equal inputs make
/// equal archives.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Adds a folder and those above it.
    pub(super) fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.directories.contains(path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above);
        }
        self.directories.insert(path.to_owned());
        self.entry(path, DIRECTORY, (0, 0), &[]);
    }

    /// Adds a regular file with these permission bits, and the folders above it.
    pub(super) fn file(&mut self, path: &str, permissions: u32, data: &[u8]) {
        if let Some(above) = Path::new(path).parent() {
            self.directory(&above.to_string_lossy());
        }
        self.entry(
            path.trim_start_matches('/'),
            REGULAR | permissions,
            (0, 0),
            data,
        );
    }

    /// Adds a character device.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) {
        if let Some(above) = Path::new(path).parent() {
            self.directory(&above.to_string_lossy());
        }
        self.entry(path.trim_start_matches('/'), CHARACTER, (major, minor), &[]);
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.inodes += 1;
        // a file of 4 GiB would not fit into the guest's memory either
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let fields = [
            self.inodes,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads names, modes and data back, as the kernel would.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |i: usize| {
                let digits = std::str::from_utf8(&bytes[6 + 8 * i..14 + 8 * i]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&bytes[110..110 + name_size - 1])
                .unwrap()
                .to_owned();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let data = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return found;
            }
            found.push((name, mode, bytes[data..data + size].to_vec()));
            bytes = &bytes[(data + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut archive = Archive::default();
        archive.file("/a/b/c", 0o755, b"hello");
        archive.file("/a/b/d", 0o644, b"");
        archive.device("/dev/console", 5, 1);
        let seen = read(&archive.finish());
        let names: Vec<&str> = seen.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "dev", "dev/console"]);
        assert_eq!(
            (seen[2].1, seen[2].2.as_slice()),
            (0o100_755, b"hello".as_slice())
        );
        assert_eq!(seen[0].1, 0o040_755);
        assert_eq!(seen[5].1, 0o020_600);
    }
}
