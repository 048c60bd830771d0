//! Decompression, by the first bytes and not by the name: gzip (of several members), zstd (of
//! several frames), or plain.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};

/// Decompressed bytes read of one file or body at most: a bomb ends here.
pub(super) const MAX_BYTES: u64 = 8 << 30;
/// First bytes of a gzip file (RFC 1952).
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];
/// First bytes of a zstd frame (RFC 8878).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What is decompressed at once.
const CHUNK: usize = 64 << 10;

/// Whether what begins so is compressed.
#[cfg(feature = "bucket")]
pub(super) fn is_compressed(start: &[u8]) -> bool {
    start.starts_with(&GZIP) || start.starts_with(&ZSTD)
}

/// The plain bytes of `raw`.
///
/// # Errors
/// When its beginning cannot be read.
pub fn plain<'a>(raw: impl BufRead + 'a) -> Result<Box<dyn BufRead + 'a>> {
    plain_up_to(raw, MAX_BYTES)
}

/// The plain bytes of `raw`; reading fails behind `limit` of them.
///
/// # Errors
/// When its beginning cannot be read.
pub(super) fn plain_up_to<'a>(
    mut raw: impl BufRead + 'a,
    limit: u64,
) -> Result<Box<dyn BufRead + 'a>> {
    let start = raw.fill_buf()?;
    let reader: Box<dyn Read + 'a> = if start.starts_with(&GZIP) {
        Box::new(flate2::bufread::MultiGzDecoder::new(raw))
    } else if start.starts_with(&ZSTD) {
        Box::new(zstd::stream::read::Decoder::with_buffer(raw)?)
    } else {
        Box::new(raw)
    };
    let left = limit;
    Ok(Box::new(BufReader::with_capacity(
        CHUNK,
        Limited { reader, left },
    )))
}

/// Fails behind a limit, rather than to end there as if that were all.
struct Limited<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidData,
                "larger, decompressed, than what is read of it",
            )
        })?;
        Ok(read)
    }
}

/// Counts what is read through it.
pub(super) struct Counting<'a> {
    reader: Box<dyn BufRead + 'a>,
    read: u64,
}

impl<'a> Counting<'a> {
    pub(super) fn new(reader: Box<dyn BufRead + 'a>) -> Self {
        Self { reader, read: 0 }
    }

    /// Bytes read so far.
    pub(super) fn read(&self) -> u64 {
        self.read
    }
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.reader.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

impl BufRead for Counting<'_> {
    fn fill_buf(&mut self) -> Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.read += amount as u64;
        self.reader.consume(amount);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    #[test]
    fn every_compression_gives_the_plain_bytes() {
        for (name, bytes) in [
            ("plain", b"one two".to_vec()),
            ("gzip", gzip(b"one two")),
            (
                "gzip of two members",
                [gzip(b"one "), gzip(b"two")].concat(),
            ),
            ("zstd", zstd(b"one two")),
            ("zstd of two frames", [zstd(b"one "), zstd(b"two")].concat()),
        ] {
            let mut read = String::new();
            plain(bytes.as_slice())
                .unwrap()
                .read_to_string(&mut read)
                .unwrap();
            assert_eq!(read, "one two", "{name}");
        }
    }

    #[test]
    fn a_bomb_fails_at_the_limit_and_a_torn_file_says_so() {
        let bomb = gzip(&vec![0; 1 << 20]);
        let mut plain_bomb = plain_up_to(bomb.as_slice(), 1000).unwrap();
        let error = plain_bomb.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        for bytes in [gzip(b"one two"), zstd(&[7; 5000])] {
            let torn = &bytes[..bytes.len() - 5];
            let error = plain(torn)
                .unwrap()
                .read_to_end(&mut Vec::new())
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        }
    }
}
