//! What a fuzzer does to syslog: the stream is cut, and each message loses its header.

use futures::FutureExt as _;

use super::frames::{Frame, Frames, Framing, MAX_MESSAGE};
use super::syslog;

/// A stream of a syslog sender, and the same bytes as lines: it is cut to its end, in bounded
/// messages, and a body is a piece of its message.
///
/// # Panics
/// When it is not.
pub fn syslog(data: &[u8]) {
    for framing in [Framing::Syslog, Framing::Lines] {
        let mut frames = Frames::new(data, framing);
        // Bytes in memory are always ready, so that nothing ever waits.
        for _ in 0..=data.len() {
            let frame = frames.next().now_or_never();
            assert!(
                matches!(frame, Some(Ok(_))),
                "bytes in memory had to be waited for"
            );
            match frame.and_then(Result::ok).unwrap_or(Frame::End) {
                Frame::Message(message) => {
                    assert!(message.len() <= MAX_MESSAGE, "a message above the limit");
                    let body = syslog::body(message);
                    assert!(
                        body.len() <= message.len(),
                        "a body larger than its message"
                    );
                }
                Frame::TooLarge => {}
                Frame::End | Frame::Torn(_) => break,
            }
        }
        let last = frames.next().now_or_never();
        assert!(
            matches!(last, Some(Ok(Frame::End))),
            "more messages than bytes"
        );
    }
}
