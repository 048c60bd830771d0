//! Just enough HTTP/1.1 for the stand-ins: read a request, write a response, keep the connection.
//! Everything has a bound; what breaks one closes its connection and nothing else.

use std::io::{BufRead, Read, Write};

use anyhow::{Context, Result, bail, ensure};

const MAX_HEAD: usize = 64 << 10;
const MAX_BODY: usize = 32 << 20;

/// A request or a response: the first line's parts, headers in order, the whole body.
#[derive(Debug, Default, Clone)]
pub struct Message {
    /// The first line, as it was sent.
    pub start: String,
    /// Names in lower case, values trimmed.
    pub headers: Vec<(String, String)>,
    /// The body, without transfer coding.
    pub body: Vec<u8>,
}

impl Message {
    /// The first value of a header; the name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// Method and target of a request.
    #[must_use]
    pub fn request_line(&self) -> (&str, &str) {
        let mut parts = self.start.split(' ');
        (parts.next().unwrap_or(""), parts.next().unwrap_or("/"))
    }

    /// The status of a response; 0 when the line has none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.start
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or(0)
    }

    /// A response.
    #[must_use]
    pub fn response(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            start: format!("HTTP/1.1 {status} Lab"),
            headers: vec![("content-type".into(), content_type.into())],
            body: body.into(),
        }
    }

    /// Reads one message. `Ok(None)` when the peer closed between messages.
    ///
    /// # Errors
    /// On a malformed or oversized message and on a broken connection.
    pub fn read(from: &mut impl BufRead) -> Result<Option<Self>> {
        let Some(start) = line(from)? else {
            return Ok(None);
        };
        let mut message = Self {
            start,
            ..Self::default()
        };
        let mut size = message.start.len();
        loop {
            let header = line(from)?.context("the head was cut short")?;
            if header.is_empty() {
                break;
            }
            size += header.len();
            ensure!(size < MAX_HEAD, "a head of more than {MAX_HEAD} bytes");
            let (name, value) = header.split_once(':').context("a header without a colon")?;
            message
                .headers
                .push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        message.body = message.read_body(from)?;
        Ok(Some(message))
    }

    fn read_body(&self, from: &mut impl BufRead) -> Result<Vec<u8>> {
        let chunked = self
            .header("transfer-encoding")
            .is_some_and(|v| v.contains("chunked"));
        if chunked {
            return read_chunks(from);
        }
        let is_response = self.start.starts_with("HTTP/");
        let Some(length) = self.header("content-length") else {
            let mut body = Vec::new();
            if is_response && self.status() != 204 && self.status() != 304 {
                from.take(MAX_BODY as u64).read_to_end(&mut body)?;
            }
            return Ok(body);
        };
        let length: usize = length
            .parse()
            .context("a content-length that is no number")?;
        ensure!(
            length <= MAX_BODY,
            "a body of {length} bytes is more than {MAX_BODY}"
        );
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        Ok(body)
    }

    /// Writes the message with a content-length instead of any transfer coding.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn write(&self, to: &mut impl Write, head_only: bool) -> Result<()> {
        use std::fmt::Write as _;
        let mut head = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            if !matches!(name.as_str(), "content-length" | "transfer-encoding") {
                write!(head, "{name}: {value}\r\n")?;
            }
        }
        write!(head, "content-length: {}\r\n\r\n", self.body.len())?;
        to.write_all(head.as_bytes())?;
        if !head_only {
            to.write_all(&self.body)?;
        }
        Ok(to.flush()?)
    }
}

fn line(from: &mut impl BufRead) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_HEAD as u64).read_until(b'\n', &mut bytes)?;
    if read == 0 {
        return Ok(None);
    }
    ensure!(
        bytes.ends_with(b"\n"),
        "a line of more than {MAX_HEAD} bytes or cut short"
    );
    let text = String::from_utf8(bytes).context("a head that is not UTF-8")?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn read_chunks(from: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(from)?.context("a chunk was cut short")?;
        let size = size.split(';').next().unwrap_or("").trim();
        let size = usize::from_str_radix(size, 16).context("a chunk size that is no number")?;
        if body.len().saturating_add(size) > MAX_BODY {
            bail!("a body of more than {MAX_BODY} bytes");
        }
        let at = body.len();
        body.resize(at + size, 0);
        if let Some(chunk) = body.get_mut(at..) {
            from.read_exact(chunk)?;
        }
        line(from)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Message>> {
        Message::read(&mut text.as_bytes())
    }

    #[test]
    fn bodies_by_length_and_by_chunks_read_alike() {
        let plain = read("POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
            .unwrap()
            .unwrap();
        let chunked = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\n";
        let chunked = read(chunked).unwrap().unwrap();
        assert_eq!(plain.body, b"hello");
        assert_eq!(chunked.body, plain.body);
        assert_eq!(plain.request_line(), ("POST", "/a"));
    }

    #[test]
    fn what_is_malformed_is_an_error_and_an_end_is_not() {
        assert!(read("").unwrap().is_none());
        for bad in [
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhel",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "GET / HTTP/1.1\r\nhost: x",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
