//! SIP messages as the demo's peers read and write them: small, lenient, and nothing of the door's own reader, so that
//! what the door sends is seen by somebody else's eyes.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// One request or response.
#[derive(Clone, Debug)]
pub struct Message {
    /// The first line.
    pub start: Start,
    /// Header fields in order, names in their long form.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The bytes as received; empty for a message that was built here.
    pub raw: Vec<u8>,
}

/// The first line of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// `METHOD uri SIP/2.0`
    Request {
        /// The method, as written.
        method: String,
        /// The Request-URI.
        uri: String,
    },
    /// `SIP/2.0 status reason`
    Response {
        /// The three digits.
        status: u16,
        /// The rest of the line.
        reason: String,
    },
}

impl Message {
    /// A request with no header fields yet.
    pub fn request(method: &str, uri: &str) -> Self {
        let start = Start::Request { method: method.to_owned(), uri: uri.to_owned() };
        Self { start, headers: Vec::new(), body: Vec::new(), raw: Vec::new() }
    }

    /// A response to `request` with the fields that RFC 3261 §8.2.6.2 copies, and Record-Route where a dialog
    /// begins (§12.1.1).
    pub fn response(request: &Self, status: u16, reason: &str) -> Self {
        let start = Start::Response { status, reason: reason.to_owned() };
        let mut response = Self { start, headers: Vec::new(), body: Vec::new(), raw: Vec::new() };
        let dialog = (101..300).contains(&status) && matches!(request.method(), "INVITE" | "SUBSCRIBE");
        let routes = if dialog { "Record-Route" } else { "" };
        for name in ["Via", routes, "From", "To", "Call-ID", "CSeq"] {
            for value in request.fields(name) {
                response.add(name, value);
            }
        }
        response
    }

    /// Reads one whole message: a datagram, or what a stream's framing cut out.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = find(bytes, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
        let mut lines = head.split("\r\n");
        let start = parse_start(lines.next()?)?;
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if line.starts_with([' ', '\t']) {
                let last = headers.last_mut()?;
                let _ = write!(last.1, " {}", line.trim());
            } else {
                let (name, value) = line.split_once(':')?;
                headers.push((long_name(name.trim()).to_owned(), value.trim().to_owned()));
            }
        }
        let rest = bytes.get(end + 4..).unwrap_or_default();
        let mut message = Self { start, headers, body: Vec::new(), raw: bytes.to_vec() };
        let length = message.get("Content-Length").and_then(|v| v.parse().ok()).unwrap_or(rest.len());
        message.body = rest.get(..length).unwrap_or(rest).to_vec();
        Some(message)
    }

    /// The bytes to send; Content-Length is written here.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = match &self.start {
            Start::Request { method, uri } => format!("{method} {uri} SIP/2.0\r\n"),
            Start::Response { status, reason } => format!("SIP/2.0 {status} {reason}\r\n"),
        };
        for (name, value) in &self.headers {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        let _ = write!(out, "Content-Length: {}\r\n\r\n", self.body.len());
        let mut out = out.into_bytes();
        out.extend_from_slice(&self.body);
        out
    }

    /// The method of a request, or of the request that a response answers (CSeq).
    pub fn method(&self) -> &str {
        match &self.start {
            Start::Request { method, .. } => method,
            Start::Response { .. } => self.get("CSeq").and_then(|v| v.split_whitespace().nth(1)).unwrap_or_default(),
        }
    }

    /// The status of a response, 0 for a request.
    pub const fn status(&self) -> u16 {
        match self.start {
            Start::Request { .. } => 0,
            Start::Response { status, .. } => status,
        }
    }

    /// The Request-URI, empty for a response.
    pub fn uri(&self) -> &str {
        match &self.start {
            Start::Request { uri, .. } => uri,
            Start::Response { .. } => "",
        }
    }

    /// The CSeq number.
    pub fn cseq(&self) -> u32 {
        self.get("CSeq").and_then(|v| v.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// The first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields(name).next()
    }

    /// All fields of this name, one per line of the head.
    pub fn fields<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// All values of this name, comma lists taken apart (Via, Route, Record-Route, Contact).
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.fields(name).flat_map(|field| split(field, ',')).collect()
    }

    /// Adds a field at the end.
    pub fn add(&mut self, name: &str, value: &str) -> &mut Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a field at the front.
    pub fn prepend(&mut self, name: &str, value: &str) -> &mut Self {
        self.headers.insert(0, (name.to_owned(), value.to_owned()));
        self
    }

    /// Puts one field in place of all of this name.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.remove(name);
        self.add(name, value)
    }

    /// Takes all fields of this name out.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    /// Gives the message a body of this type.
    pub fn set_body(&mut self, kind: &str, body: impl Into<Vec<u8>>) -> &mut Self {
        self.body = body.into();
        self.set("Content-Type", kind)
    }

    /// The topmost Via's branch.
    pub fn branch(&self) -> Option<&str> {
        param(self.values("Via").first()?, "branch")
    }

    /// The tag of From or To.
    pub fn tag(&self, name: &str) -> Option<&str> {
        param(self.get(name)?, "tag")
    }
}

/// The URI of a name-addr or addr-spec (RFC 3261 §20.10: without brackets, parameters belong to the header).
pub fn uri_of(value: &str) -> &str {
    match unquoted(value, '<').and_then(|(_, rest)| rest.split_once('>')) {
        Some((uri, _)) => uri,
        None => value.split(';').next().unwrap_or_default().trim(),
    }
}

/// A header parameter's value (`""` when it has none).
pub fn param<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let tail = match unquoted(value, '<').and_then(|(_, rest)| rest.split_once('>')) {
        Some((_, tail)) => tail,
        None => value.split_once(';').map_or("", |(_, tail)| tail),
    };
    find_param(tail, name)
}

/// A URI parameter's value (`""` when it has none).
pub fn uri_param<'a>(uri: &'a str, name: &str) -> Option<&'a str> {
    let tail = uri.split_once(';')?.1;
    find_param(tail.split('?').next().unwrap_or_default(), name)
}

/// The user part of a URI.
pub fn user_of(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    rest.split_once('@').map_or("", |(user, _)| user)
}

/// The address in a URI whose host is an IP literal, port 5060 if it has none.
pub fn address_of(uri: &str) -> Option<SocketAddr> {
    let rest = uri.split_once(':')?.1;
    let rest = rest.split_once('@').map_or(rest, |(_, host)| host);
    let host = rest.split([';', '?']).next()?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.parse().ok().or_else(|| Some(SocketAddr::new(bare.parse::<IpAddr>().ok()?, 5060)))
}

/// The pieces between separators that stand outside quotes and angle brackets.
pub fn split(value: &str, separator: char) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = value;
    while let Some((piece, after)) = unquoted(rest, separator) {
        pieces.push(piece.trim());
        rest = after;
    }
    pieces.push(rest.trim());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Where a sequence of bytes begins.
pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A random token of 16 hexadecimal digits.
pub fn token() -> String {
    let mut bytes = [0u8; 8];
    // A failing generator would only make the demo's tags alike.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn find_param<'a>(tail: &'a str, name: &str) -> Option<&'a str> {
    split(tail, ';').into_iter().find_map(|piece| {
        let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// Splits at the first `what` outside quotes and angle brackets.
fn unquoted(value: &str, what: char) -> Option<(&str, &str)> {
    let (mut quoted, mut bracket, mut escaped) = (false, false, false);
    for (at, c) in value.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            c if c == what && !bracket => {
                return Some((value.get(..at)?, value.get(at + c.len_utf8()..)?));
            }
            '<' => bracket = true,
            '>' => bracket = false,
            _ => {}
        }
    }
    None
}

fn parse_start(line: &str) -> Option<Start> {
    if let Some(rest) = line.strip_prefix("SIP/2.0 ") {
        let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        return Some(Start::Response { status: status.parse().ok()?, reason: reason.to_owned() });
    }
    let mut words = line.split(' ');
    let (method, uri, version) = (words.next()?, words.next()?, words.next()?);
    (version == "SIP/2.0").then(|| Start::Request { method: method.to_owned(), uri: uri.to_owned() })
}

/// The long form of a compact header name (RFC 3261 §7.3.3, RFC 6665, RFC 3515).
fn long_name(name: &str) -> &str {
    match name {
        "v" | "V" => "Via",
        "f" | "F" => "From",
        "t" | "T" => "To",
        "i" | "I" => "Call-ID",
        "m" | "M" => "Contact",
        "l" | "L" => "Content-Length",
        "c" | "C" => "Content-Type",
        "k" | "K" => "Supported",
        "o" | "O" => "Event",
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_and_written() {
        let bytes = b"INVITE sip:600@k.test SIP/2.0\r\nv: SIP/2.0/UDP 1.2.3.4;branch=z9hG4bKa, SIP/2.0/TCP b;branch=z9hG4bKb\r\n\
            f: \"A, <b>\" <sip:a@k.test;x=y>;tag=1\r\nTo: <sip:600@k.test>\r\nSubject: one\r\n two\r\nCSeq: 7 INVITE\r\nl: 2\r\n\r\nhi";
        let message = Message::parse(bytes).unwrap();
        assert_eq!((message.method(), message.uri(), message.cseq()), ("INVITE", "sip:600@k.test", 7));
        assert_eq!(message.values("Via").len(), 2);
        assert_eq!(message.branch(), Some("z9hG4bKa"));
        assert_eq!((message.tag("From"), message.tag("To")), (Some("1"), None));
        assert_eq!(uri_of(message.get("From").unwrap()), "sip:a@k.test;x=y");
        assert_eq!(message.get("Subject"), Some("one two"));
        assert_eq!(message.body, b"hi");
        let again = Message::parse(&message.to_bytes()).unwrap();
        assert_eq!(again.start, message.start);
        assert_eq!(again.body, b"hi");
    }

    #[test]
    fn uris_are_taken_apart() {
        assert_eq!(user_of("sip:a@1.2.3.4:5"), "a");
        assert_eq!(address_of("sip:a@1.2.3.4:5;fdt=x"), Some("1.2.3.4:5".parse().unwrap()));
        assert_eq!(address_of("sip:1.2.3.4;lr"), Some("1.2.3.4:5060".parse().unwrap()));
        assert_eq!(address_of("sip:a@[::1]:7;lr"), Some("[::1]:7".parse().unwrap()));
        assert_eq!(address_of("sip:a@k.test"), None);
        assert_eq!(uri_param("sip:1.2.3.4;lr;r2=on", "lr"), Some(""));
        assert_eq!(param("<sip:a;tag=no>;tag=yes", "tag"), Some("yes"));
    }
}
