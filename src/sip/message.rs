//! The strict reader: one whole message as a view of its bytes, or the reason why two readers might not agree on it.
//!
//! "Full recognition before processing": nothing is decided on a message that is not understood from its first byte
//! to its last (RFC 3261 §7, §25.1; what the RFC allows in two ways and real parsers read in two ways is refused).
#![forbid(unsafe_code)]

use super::frame::{Sizes, looks_like_sip};
use super::head::{Field, Lines, body_length};
use super::header::{Address, Name, Via, is_token, list};
use super::uri::{Defect, Uri};
use crate::gate::Reason;
use memchr::{memchr, memmem};
use std::ops::Range;

/// The reader's memory, reused from message to message.
#[derive(Debug, Default)]
pub struct Reader {
    lines: Lines,
}

/// The first line.
#[derive(Clone, Debug)]
pub enum Start<'a> {
    /// A request line (§7.1).
    Request {
        /// The method, a token; methods are compared with case.
        method: &'a [u8],
        /// The Request-URI.
        uri: Uri<'a>,
        /// Where the Request-URI stands.
        uri_at: Range<usize>,
    },
    /// A status line (§7.2).
    Response {
        /// 100 to 699.
        code: u16,
    },
}

/// One whole message.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// Head and body: the bytes that were checked, and so the bytes to forward.
    pub bytes: &'a [u8],
    /// The first line.
    pub start: Start<'a>,
    /// The end of the first line, behind its CRLF.
    pub first_field: usize,
    /// The header fields in order.
    pub fields: &'a [Field],
    /// The length of the head, its empty line included.
    pub head: usize,
    /// From.
    pub from: Address<'a>,
    /// To.
    pub to: Address<'a>,
    /// Call-ID.
    pub call_id: &'a [u8],
    /// The number of CSeq, as written.
    pub cseq: &'a [u8],
    /// The method of CSeq.
    pub cseq_method: &'a [u8],
    /// The topmost Via.
    pub via: Via<'a>,
    /// Where the topmost Via value stands.
    pub via_at: Range<usize>,
    /// Max-Forwards, and where its digits stand.
    pub max_forwards: Option<(u8, Range<usize>)>,
}

impl<'a> Message<'a> {
    /// The method of a request.
    pub fn method(&self) -> Option<&'a [u8]> {
        match self.start {
            Start::Request { method, .. } => Some(method),
            Start::Response { .. } => None,
        }
    }

    /// The Request-URI.
    pub fn uri(&self) -> Option<&Uri<'a>> {
        match &self.start {
            Start::Request { uri, .. } => Some(uri),
            Start::Response { .. } => None,
        }
    }

    /// A slice of the message.
    pub fn at(&self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// The fields of one name.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &'a Field> + use<'a> {
        self.fields.iter().filter(move |field| field.name == name)
    }

    /// Every value of a comma-list header field, with where it stands.
    pub fn values(&self, name: Name) -> impl Iterator<Item = Result<Range<usize>, Defect>> + use<'a> {
        let bytes = self.bytes;
        self.all(name).flat_map(move |field| {
            let value = field.value();
            let at = value.start;
            list(bytes.get(value).unwrap_or_default()).map(move |range| range.map(|r| at + r.start..at + r.end))
        })
    }

    /// The body.
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }

    /// Whether To carries a tag: inside a dialog (§12.2).
    pub fn in_dialog(&self) -> bool {
        matches!(self.to.tag(), Ok(Some(_)))
    }
}

impl Reader {
    /// Reads one message. `whole` says that the framing already gave the exact bytes (a stream); a datagram may hold
    /// more than its Content-Length, which is discarded, but not less (§18.3).
    pub fn read<'r>(&'r mut self, bytes: &'r [u8], sizes: Sizes, whole: bool) -> Result<Message<'r>, Reason> {
        let first = memchr(b'\n', bytes).and_then(|end| bytes.get(..end)).ok_or(Reason::NotSip)?;
        if !looks_like_sip(first) {
            return Err(Reason::NotSip);
        }
        let head = memmem::find(bytes, b"\r\n\r\n").ok_or(Reason::Malformed)? + 4;
        if head > sizes.head {
            return Err(Reason::TooBig);
        }
        let (bytes, fields) = self.lines.split(bytes, head, sizes.headers)?;
        let bytes = match body_length(bytes, fields)? {
            Some(body) => bytes.get(..head.saturating_add(body)).ok_or(Reason::Framing)?,
            None if whole => return Err(Reason::Framing),
            None => bytes,
        };
        if bytes.len() > sizes.message {
            return Err(Reason::TooBig);
        }
        understand(bytes, head, fields)
    }
}

impl From<Defect> for Reason {
    fn from(defect: Defect) -> Self {
        match defect {
            Defect::Malformed => Self::Malformed,
            Defect::Ambiguous => Self::Ambiguous,
        }
    }
}

/// The header fields that may stand only once, found.
#[derive(Default)]
struct Singles<'a> {
    from: Option<&'a Field>,
    to: Option<&'a Field>,
    call_id: Option<&'a Field>,
    cseq: Option<&'a Field>,
    max_forwards: Option<&'a Field>,
    expires: Option<&'a Field>,
    content_type: Option<&'a Field>,
}

impl<'a> Singles<'a> {
    fn of(fields: &'a [Field]) -> Result<Self, Reason> {
        let mut found = Self::default();
        for field in fields {
            let slot = match field.name {
                Name::From => &mut found.from,
                Name::To => &mut found.to,
                Name::CallId => &mut found.call_id,
                Name::CSeq => &mut found.cseq,
                Name::MaxForwards => &mut found.max_forwards,
                Name::Expires => &mut found.expires,
                Name::ContentType => &mut found.content_type,
                _ => continue,
            };
            // Some readers take the first, some the last (§7.3.1: only lists may be repeated).
            if slot.replace(field).is_some() {
                return Err(Reason::Ambiguous);
            }
        }
        Ok(found)
    }
}

fn understand<'r>(bytes: &'r [u8], head: usize, fields: &'r [Field]) -> Result<Message<'r>, Reason> {
    let first_field = fields.first().map_or(head, |field| field.line().start);
    let start = start_line(bytes.get(..first_field - 2).unwrap_or_default())?;
    let one = Singles::of(fields)?;
    let value =
        |field: Option<&Field>| field.map(|f| bytes.get(f.value()).unwrap_or_default()).ok_or(Reason::Malformed);
    let (from, to) = (Address::parse(value(one.from)?)?, Address::parse(value(one.to)?)?);
    from.tag()?;
    to.tag()?;
    let call_id = value(one.call_id)?;
    if !is_call_id(call_id) {
        return Err(Reason::Malformed);
    }
    let (cseq, cseq_method) = cseq(value(one.cseq)?)?;
    if let Start::Request { method, .. } = start
        && method != cseq_method
    {
        return Err(Reason::Malformed);
    }
    if let Some(expires) = one.expires {
        number(value(Some(expires))?, 10).ok_or(Reason::Malformed)?;
    }
    let max_forwards = match one.max_forwards {
        None => None,
        Some(field) => {
            let hops = number(value(Some(field))?, 10).and_then(|n| u8::try_from(n).ok());
            Some((hops.ok_or(Reason::Malformed)?, field.value()))
        }
    };
    let top = fields.iter().find(|f| f.name == Name::Via).ok_or(Reason::Malformed)?.value();
    let via_at = list(bytes.get(top.clone()).unwrap_or_default()).next().ok_or(Reason::Malformed)??;
    let via_at = top.start + via_at.start..top.start + via_at.end;
    let via = Via::parse(bytes.get(via_at.clone()).unwrap_or_default())?;
    Ok(Message {
        bytes,
        start,
        first_field,
        fields,
        head,
        from,
        to,
        call_id,
        cseq,
        cseq_method,
        via,
        via_at,
        max_forwards,
    })
}

/// Exactly `METHOD SP URI SP SIP/2.0` or `SIP/2.0 SP CODE SP REASON` (§7.1, §7.2); the version's case does not matter.
pub(crate) fn start_line(line: &[u8]) -> Result<Start<'_>, Reason> {
    if line.contains(&b'\t') {
        return Err(Reason::Malformed);
    }
    let (first, rest) = split(line).ok_or(Reason::Malformed)?;
    if first.eq_ignore_ascii_case(b"SIP/2.0") {
        let (code, _) = split(rest).unwrap_or((rest, &[]));
        let code = number(code, 3).filter(|_| code.len() == 3).and_then(|n| u16::try_from(n).ok());
        return Ok(Start::Response { code: code.filter(|n| (100..700).contains(n)).ok_or(Reason::Malformed)? });
    }
    let (uri, version) = split(rest).ok_or(Reason::Malformed)?;
    let token = !first.is_empty() && first.len() <= 64 && first.iter().all(|&b| is_token(b));
    if !token || !version.eq_ignore_ascii_case(b"SIP/2.0") {
        return Err(Reason::Malformed);
    }
    let at = first.len() + 1;
    let uri_at = at..at + uri.len();
    let uri = Uri::parse(uri)?;
    // A Request-URI carries no headers (§19.1.1).
    if !uri.headers.is_empty() {
        return Err(Reason::Malformed);
    }
    Ok(Start::Request { method: first, uri, uri_at })
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr(b' ', line)?;
    Some((line.get(..at)?, line.get(at + 1..)?))
}

/// `word ["@" word]` (§25.1).
pub(crate) fn is_call_id(text: &[u8]) -> bool {
    let word = |b: u8| {
        is_token(b)
            || matches!(b, b'(' | b')' | b'<' | b'>' | b':' | b'\\' | b'"' | b'/' | b'[' | b']' | b'?' | b'{' | b'}')
    };
    let mut words = text.splitn(2, |&b| b == b'@');
    words.all(|part| !part.is_empty() && part.iter().all(|&b| word(b)))
}

/// A number below 2**31 and a method (§20.16).
pub(crate) fn cseq(value: &[u8]) -> Result<(&[u8], &[u8]), Reason> {
    let digits = value.iter().position(|b| !b.is_ascii_digit()).ok_or(Reason::Malformed)?;
    let (count, method) = value.split_at_checked(digits).ok_or(Reason::Malformed)?;
    let blank = matches!(method.first(), Some(b' ' | b'\t'));
    let method = method.trim_ascii();
    let good = number(count, 20).is_some_and(|n| n < 1 << 31)
        && blank
        && !method.is_empty()
        && method.iter().all(|&b| is_token(b));
    if good { Ok((count, method)) } else { Err(Reason::Malformed) }
}

/// Digits and nothing else; leading zeros are fine, more than `most` digits are not.
pub(crate) fn number(text: &[u8], most: usize) -> Option<u64> {
    if text.is_empty() || text.len() > most || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    text.iter().try_fold(0u64, |n, d| n.checked_mul(10)?.checked_add(u64::from(d - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, String), Reason> {
        let mut reader = Reader::default();
        let m = reader.read(text.as_bytes(), Sizes::default(), false)?;
        Ok((String::from_utf8_lossy(m.from.uri.host).into(), String::from_utf8_lossy(m.body()).into()))
    }

    fn with(extra: &str) -> String {
        format!(
            "OPTIONS sip:100@good SIP/2.0\r\nv: SIP/2.0/UDP h;branch=z9hG4bKx, SIP/2.0/UDP i\r\nf: <sip:a@good>;tag=f\r\nTo: <sip:b@good>\r\ni: x@y\r\nCSeq: 1 OPTIONS\r\n{extra}\r\nbody"
        )
    }

    #[test]
    fn a_plain_message_is_read() {
        assert_eq!(read(&with("")), Ok(("good".into(), "body".into())));
        assert_eq!(read(&with("l: 3\r\n")), Ok(("good".into(), "bod".into())));
        assert_eq!(read(&with("Subject: a\r\n b\r\n\tc\r\n")), Ok(("good".into(), "body".into())));
    }

    #[test]
    fn what_two_readers_read_differently_is_refused() {
        for (extra, reason) in [
            ("From: <sip:a@evil>\r\n", Reason::Ambiguous),
            ("t: <sip:b@good>\r\n", Reason::Ambiguous),
            ("X: a\nFrom: <sip:a@evil>\r\n", Reason::Ambiguous),
            ("X: a\rFrom: <sip:a@evil>\r\n", Reason::Ambiguous),
            ("X: a\0\r\n", Reason::Ambiguous),
            ("X: a\r\n \r\nFrom: <sip:a@evil>\r\n", Reason::Ambiguous),
            ("l: 3\r\nl: 4\r\n", Reason::Framing),
            ("l: 5\r\n", Reason::Framing),
            (": x\r\n", Reason::Malformed),
            ("a b: x\r\n", Reason::Malformed),
            ("no colon\r\n", Reason::Malformed),
            ("Max-Forwards: 256\r\n", Reason::Malformed),
            ("Expires: -1\r\n", Reason::Malformed),
        ] {
            assert_eq!(read(&with(extra)), Err(reason), "{extra:?}");
        }
    }

    #[test]
    fn start_lines_are_exact() {
        for line in [
            "OPTIONS  sip:a@b SIP/2.0",
            "OPTIONS sip:a@b  SIP/2.0",
            "OPTIONS sip:a@b SIP/2.0 ",
            "OPTIONS\tsip:a@b SIP/2.0",
            "OPTIONS <sip:a@b> SIP/2.0",
            "OPTIONS sip:a@b?x=y SIP/2.0",
            "SIP/2.0 99 x",
            "SIP/2.0 2000 x",
            "OPT(IONS sip:a@b SIP/2.0",
            "OPTIONS sip:a@b x SIP/2.0",
        ] {
            assert!(start_line(line.as_bytes()).is_err(), "{line}");
        }
        assert!(matches!(start_line(b"SIP/2.0 100 "), Ok(Start::Response { code: 100 })));
        assert!(start_line(b"OPTIONS sip:a@b sip/2.0").is_ok());
    }
}
