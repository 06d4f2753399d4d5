//! Streams: where one message ends and the next begins (RFC 3261 §18.3), and the pings between (RFC 5626 §4.4.1).
#![forbid(unsafe_code)]

use crate::gate::Reason;
use memchr::{memchr, memmem};

/// How large a message may be, in bytes and header fields.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Start line and header fields with the empty line, bytes.
    pub head: usize,
    /// Head and body, bytes.
    pub message: usize,
    /// Header field lines.
    pub headers: usize,
}

impl Sizes {
    /// For a peer that has not passed the gate: a call's first message fits, and strangers hold no more memory than that.
    pub fn stranger(self) -> Self {
        Self { message: self.message.min(self.head.saturating_mul(2)), ..self }
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self { head: 8 << 10, message: 64 << 10, headers: 128 }
    }
}

/// What stands at the front of a stream's unconsumed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing whole yet: read more, keep what is there.
    More,
    /// This many bytes say nothing: drop them and ask again.
    Skip(usize),
    /// This many bytes complete a keep-alive ping: drop them, answer CRLF if the flow has passed the gate.
    Ping(usize),
    /// This many bytes are one message.
    Message(usize),
}

/// One stream's framer. It holds no bytes, only how far it has looked, so that a slow peer costs linear time.
#[derive(Debug)]
pub struct Framer {
    sizes: Sizes,
    need: Need,
}

/// What the framer is waiting for.
#[derive(Debug)]
enum Need {
    /// Between messages; `half` after one CRLF that may yet become a ping.
    Start { half: bool },
    /// The empty line; the first `searched` bytes do not hold its end, and the first line is good once `line` is set.
    Head { searched: usize, line: bool },
    /// `total` bytes of head and body.
    Rest { total: usize },
}

impl Framer {
    /// A framer at the start of a stream.
    pub const fn new(sizes: Sizes) -> Self {
        Self { sizes, need: Need::Start { half: false } }
    }

    /// From now on messages may be as large as this.
    pub const fn allow(&mut self, sizes: Sizes) {
        self.sizes = sizes;
    }

    /// Looks at the unconsumed bytes of the stream. After anything but [`Step::More`] the caller drops what the step
    /// says and asks again. An error ends the stream: nobody can tell where the next message would begin.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Step, Reason> {
        loop {
            match self.need {
                Need::Start { half } => match bytes {
                    [] | [b'\r'] => return Ok(Step::More),
                    [b'\r', b'\n', ..] => {
                        self.need = Need::Start { half: !half };
                        return Ok(if half { Step::Ping(2) } else { Step::Skip(2) });
                    }
                    [
                        b'A'..=b'Z'
                        | b'a'..=b'z'
                        | b'0'..=b'9'
                        | b'-'
                        | b'.'
                        | b'!'
                        | b'%'
                        | b'*'
                        | b'_'
                        | b'+'
                        | b'`'
                        | b'\''
                        | b'~',
                        ..,
                    ] => {
                        self.need = Need::Head { searched: 0, line: false };
                    }
                    _ => return Err(Reason::NotSip),
                },
                Need::Head { searched, line } => {
                    let line = line || self.first_line(bytes)?;
                    let from = searched.saturating_sub(3);
                    let Some(at) = bytes.get(from..).and_then(|rest| memmem::find(rest, b"\r\n\r\n")) else {
                        if bytes.len() > self.sizes.head {
                            return Err(Reason::TooBig);
                        }
                        self.need = Need::Head { searched: bytes.len(), line };
                        return Ok(Step::More);
                    };
                    let head = from + at + 4;
                    if head > self.sizes.head {
                        return Err(Reason::TooBig);
                    }
                    let body = content_length(bytes.get(..head).unwrap_or_default())?.ok_or(Reason::Framing)?;
                    let total = head.saturating_add(body);
                    if total > self.sizes.message {
                        return Err(Reason::TooBig);
                    }
                    self.need = Need::Rest { total };
                }
                Need::Rest { total } => {
                    if bytes.len() < total {
                        return Ok(Step::More);
                    }
                    self.need = Need::Start { half: false };
                    return Ok(Step::Message(total));
                }
            }
        }
    }

    /// Whether a message has begun and is not whole.
    pub const fn within(&self) -> bool {
        !matches!(self.need, Need::Start { .. })
    }

    /// A first line that is not SIP's ends the stream at once, not when its head is over.
    fn first_line(&self, bytes: &[u8]) -> Result<bool, Reason> {
        match memchr(b'\n', bytes) {
            Some(end) if looks_like_sip(bytes.get(..end).unwrap_or_default()) => Ok(true),
            Some(_) => Err(Reason::NotSip),
            None if bytes.len() > self.sizes.head => Err(Reason::TooBig),
            None => Ok(false),
        }
    }
}

/// Whether a line (with or without its CR) is a request line or a status line, as far as one glance tells.
pub fn looks_like_sip(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    let version = |b: &[u8]| b.eq_ignore_ascii_case(b"SIP/2.0");
    line.get(..7).is_some_and(version) || line.len().checked_sub(7).and_then(|at| line.get(at..)).is_some_and(version)
}

/// The one Content-Length of a head; `None` when there is none. More than one, a sign, or no number is an error,
/// since two readers would take different ends (RFC 3261 §20.14).
pub fn content_length(head: &[u8]) -> Result<Option<usize>, Reason> {
    let mut found = None;
    let mut rest = head;
    while let Some(end) = memchr(b'\n', rest) {
        let (line, after) = rest.split_at_checked(end + 1).unwrap_or((rest, &[]));
        rest = after;
        let Some(value) = length_value(line) else { continue };
        if found.is_some() {
            return Err(Reason::Framing);
        }
        // The value may be folded onto the next lines (§7.3.1).
        let folds = continuation(after);
        let folded = after.get(..folds).unwrap_or_default();
        let ((digits, []) | ([], digits)) = (value.trim_ascii(), folded.trim_ascii()) else {
            return Err(Reason::Framing);
        };
        found = Some(length(digits)?);
    }
    Ok(found)
}

/// The number in a Content-Length: digits and nothing else.
pub fn length(digits: &[u8]) -> Result<usize, Reason> {
    if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Reason::Framing);
    }
    let number = digits.iter().fold(0u64, |n, d| n.wrapping_mul(10).wrapping_add(u64::from(d - b'0')));
    usize::try_from(number).map_err(|_| Reason::Framing)
}

/// What stands behind the colon if this line is a Content-Length, long or short.
fn length_value(line: &[u8]) -> Option<&[u8]> {
    if !matches!(line.first(), Some(b'C' | b'c' | b'L' | b'l')) {
        return None;
    }
    let colon = memchr(b':', line)?;
    let name = line.get(..colon)?.trim_ascii_end();
    let ours = name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"l");
    ours.then(|| line.get(colon + 1..)).flatten()
}

/// How many bytes at the front are continuation lines.
fn continuation(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(b' ' | b'\t') = bytes.get(at) {
        match bytes.get(at..).and_then(|rest| memchr(b'\n', rest)) {
            Some(end) => at += end + 1,
            None => break,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], cuts: &[usize]) -> Result<Vec<(Vec<u8>, bool)>, Reason> {
        let mut framer = Framer::new(Sizes::default());
        let (mut buffer, mut out) = (Vec::new(), Vec::new());
        let mut from = 0;
        for &to in cuts.iter().chain([&input.len()]) {
            buffer.extend_from_slice(&input[from..to]);
            from = to;
            loop {
                match framer.next(&buffer)? {
                    Step::More => break,
                    Step::Skip(n) => drop(buffer.drain(..n)),
                    Step::Ping(n) => out.push((buffer.drain(..n).collect(), true)),
                    Step::Message(n) => out.push((buffer.drain(..n).collect(), false)),
                }
            }
        }
        Ok(out)
    }

    const TWO: &[u8] = b"\r\n\r\nOPTIONS sip:a@b SIP/2.0\r\nl: 3\r\n\r\nabc\r\nBYE sip:a@b SIP/2.0\r\nContent-Length :\r\n 0\r\n\r\n\r\n\r\n";

    #[test]
    fn every_cut_gives_the_same_frames() {
        let whole = all(TWO, &[]).unwrap();
        assert_eq!(whole.iter().map(|f| f.1).collect::<Vec<_>>(), [true, false, false, true]);
        for a in 0..TWO.len() {
            for b in a..TWO.len() {
                assert_eq!(all(TWO, &[a, b]).unwrap(), whole, "cut at {a} and {b}");
            }
        }
    }

    #[test]
    fn lengths_that_two_readers_could_take_differently_end_the_stream() {
        for lengths in [
            "",
            "l: 1\r\nl: 1\r\n",
            "l: 1\r\nContent-Length: 2\r\n",
            "l: +1\r\n",
            "l: -1\r\n",
            "l: 1 1\r\n",
            "l:\r\n",
            "l: 0x1\r\n",
        ] {
            let bytes = format!("OPTIONS sip:a@b SIP/2.0\r\n{lengths}\r\nx");
            assert_eq!(all(bytes.as_bytes(), &[]), Err(Reason::Framing), "{lengths:?}");
        }
    }

    #[test]
    fn what_is_not_sip_ends_the_stream_at_its_first_line() {
        for line in ["GET / HTTP/1.1\r\n", "\x16\x03\x01", "\n", " OPTIONS sip:a SIP/2.0\r\n", "SSH-2.0-x\r\n"] {
            assert_eq!(all(line.as_bytes(), &[]), Err(Reason::NotSip), "{line:?}");
        }
    }

    #[test]
    fn sizes_are_limits() {
        let long = format!("OPTIONS sip:a@b SIP/2.0\r\nX: {}", "a".repeat(9000));
        assert_eq!(all(long.as_bytes(), &[]), Err(Reason::TooBig));
        assert_eq!(all(b"OPTIONS sip:a@b SIP/2.0\r\nl: 70000\r\n\r\n", &[]), Err(Reason::TooBig));
    }
}
