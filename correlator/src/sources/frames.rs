//! Cuts a byte stream from a sender into messages, in bounded memory: lines, or syslog's two
//! framings (RFC 6587: octet counting, and line feeds or NULs between messages).

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, BufReader};

/// Largest message taken; a larger one is skipped and counted.
pub(super) const MAX_MESSAGE: usize = keytrail_sources::framing::MAX_RECORD_BYTES;
/// Digits of an octet count.
const MAX_DIGITS: usize = 8;
/// Bytes read from the sender at once.
const BUFFER: usize = 64 << 10;

/// How messages are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// One a line.
    Lines,
    /// As each message says.
    Syslog,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// A message.
    Message(&'a [u8]),
    /// One too large, skipped.
    TooLarge,
    /// The sender closed the stream between two messages.
    End,
    /// The sender closed the stream within a message; what there is of it.
    Torn(&'a [u8]),
}

/// The cutter.
#[derive(Debug)]
pub(super) struct Frames<R> {
    input: BufReader<R>,
    framing: Framing,
    message: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(input: R, framing: Framing) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER, input),
            framing,
            message: Vec::new(),
        }
    }

    /// Whether more has been received already, so that waiting for it takes no time.
    pub(super) fn has_more(&self) -> bool {
        !self.input.buffer().is_empty()
    }

    /// The next message. Not to be dropped half-way: what was read of a message would be lost.
    ///
    /// # Errors
    /// When reading fails.
    pub(super) async fn next(&mut self) -> std::io::Result<Frame<'_>> {
        self.message.clear();
        if self.framing == Framing::Syslog
            && let Some(count) = self.count().await?
        {
            return self.counted(count).await;
        }
        self.line().await
    }

    /// Reads an octet count and its space. What looks like one and is none stays in `message` as
    /// the beginning of a line.
    async fn count(&mut self) -> std::io::Result<Option<usize>> {
        loop {
            let Some(byte) = peek(&mut self.input).await? else {
                return Ok(None);
            };
            let digits = self.message.len();
            let first_is_zero = digits == 0 && byte == b'0';
            if byte.is_ascii_digit() && digits < MAX_DIGITS && !first_is_zero {
                self.message.push(byte);
                self.input.consume(1);
            } else if byte == b' ' && digits > 0 {
                let count = std::str::from_utf8(&self.message)
                    .ok()
                    .and_then(|t| t.parse().ok());
                self.message.push(byte);
                self.input.consume(1);
                // Every syslog message begins with its priority.
                if count.is_some() && peek(&mut self.input).await? == Some(b'<') {
                    self.message.clear();
                    return Ok(count);
                }
                return Ok(None);
            } else {
                return Ok(None);
            }
        }
    }

    async fn counted(&mut self, count: usize) -> std::io::Result<Frame<'_>> {
        let keep = count <= MAX_MESSAGE;
        let mut left = count;
        while left > 0 {
            let bytes = self.input.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(Frame::Torn(&self.message));
            }
            let now = bytes.len().min(left);
            if keep {
                self.message
                    .extend_from_slice(bytes.get(..now).unwrap_or_default());
            }
            self.input.consume(now);
            left -= now;
        }
        Ok(if keep {
            Frame::Message(&self.message)
        } else {
            Frame::TooLarge
        })
    }

    async fn line(&mut self) -> std::io::Result<Frame<'_>> {
        let nul_ends = self.framing == Framing::Syslog;
        let mut too_large = false;
        loop {
            let bytes = self.input.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(if self.message.is_empty() && !too_large {
                    Frame::End
                } else {
                    Frame::Torn(&self.message)
                });
            }
            let end = bytes
                .iter()
                .position(|b| *b == b'\n' || (nul_ends && *b == 0));
            let text = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
            if self.message.len() + text.len() > MAX_MESSAGE {
                too_large = true;
                self.message.clear();
            } else if !too_large {
                self.message.extend_from_slice(text);
            }
            let used = text.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                return Ok(if too_large {
                    Frame::TooLarge
                } else {
                    Frame::Message(&self.message)
                });
            }
        }
    }
}

async fn peek(input: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<u8>> {
    Ok(input.fill_buf().await?.first().copied())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(bytes: &[u8], framing: Framing) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut frames = Frames::new(bytes, framing);
            let mut out = Vec::new();
            loop {
                match frames.next().await.unwrap() {
                    Frame::Message(m) => out.push(String::from_utf8_lossy(m).into_owned()),
                    Frame::TooLarge => out.push("TOO LARGE".to_owned()),
                    Frame::End => return out,
                    Frame::Torn(m) => {
                        out.push(format!("TORN {}", String::from_utf8_lossy(m)));
                        return out;
                    }
                }
            }
        })
    }

    #[test]
    fn every_framing_is_cut() {
        use Framing::{Lines, Syslog};
        for (text, framing, expected) in [
            ("a\nb\n", Lines, vec!["a", "b"]),
            ("a\nb", Lines, vec!["a", "TORN b"]),
            ("12 <a\n", Lines, vec!["12 <a"]),
            ("5 <1>ab6 <1>c\nd", Syslog, vec!["<1>ab", "<1>c\nd"]),
            ("<1>ab\n<1>cd\n", Syslog, vec!["<1>ab", "<1>cd"]),
            ("<1>ab\0<1>cd\0", Syslog, vec!["<1>ab", "<1>cd"]),
            // Both in one stream, as after a relay's change of mind.
            (
                "5 <1>ab<1>cd\n5 <1>ef",
                Syslog,
                vec!["<1>ab", "<1>cd", "<1>ef"],
            ),
            // Digits that are no count.
            ("2026 is a year\n", Syslog, vec!["2026 is a year"]),
            ("2026-11-24 x\n", Syslog, vec!["2026-11-24 x"]),
            ("05 <1>ab\n", Syslog, vec!["05 <1>ab"]),
            ("123456789 <1>\n", Syslog, vec!["123456789 <1>"]),
            ("9 <1>ab", Syslog, vec!["TORN <1>ab"]),
            ("12", Syslog, vec!["TORN 12"]),
            ("", Syslog, vec![]),
        ] {
            assert_eq!(cut(text.as_bytes(), framing), expected, "{text}");
        }
    }

    #[test]
    fn a_huge_message_is_skipped_and_its_neighbours_are_kept() {
        let huge = "x".repeat(MAX_MESSAGE + 1);
        let lines = format!("a\n{huge}\nb\n");
        assert_eq!(
            cut(lines.as_bytes(), Framing::Lines),
            ["a", "TOO LARGE", "b"]
        );
        let counted = format!("4 <1>a{} <1>{huge}4 <1>b", huge.len() + 3);
        assert_eq!(
            cut(counted.as_bytes(), Framing::Syslog),
            ["<1>a", "TOO LARGE", "<1>b"]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            cut(&bytes, Framing::Syslog);
            cut(&bytes, Framing::Lines);
        }

        /// What a conforming sender frames by counts comes out as it went in, whatever is in it.
        #[test]
        fn counted_messages_come_out_whole(
            bodies in proptest::collection::vec("[ -~\n]{0,40}", 0..8),
        ) {
            let messages: Vec<String> = bodies.iter().map(|b| format!("<13>{b}")).collect();
            let stream: String = messages.iter().map(|m| format!("{} {m}", m.len())).collect();
            prop_assert_eq!(cut(stream.as_bytes(), Framing::Syslog), messages);
        }
    }
}
