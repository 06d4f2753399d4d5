//! SIP as a phone sees it: a reader and writer of the tests' own, which shares nothing with the door's.

use md5::{Digest, Md5};

/// One message.
#[derive(Clone, Debug, Default)]
pub struct Sip {
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Sip {
    pub fn parse(bytes: &[u8]) -> Self {
        let end = find(bytes, b"\r\n\r\n").expect("a message has a head");
        let head = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Self { start, headers, body: bytes[end + 4..].to_vec() }
    }

    pub fn is_request(&self) -> bool {
        !self.start.starts_with("SIP/2.0 ")
    }

    /// The status code, 0 for a request.
    pub fn code(&self) -> u16 {
        if self.is_request() { 0 } else { self.start.split(' ').nth(1).unwrap().parse().unwrap() }
    }

    /// The method, also of a response.
    pub fn method(&self) -> &str {
        if self.is_request() { self.start.split(' ').next().unwrap() } else { self.cseq().1 }
    }

    /// The Request-URI.
    pub fn uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap()
    }

    pub fn cseq(&self) -> (u32, &str) {
        let (number, method) = self.get("CSeq").split_once(' ').expect("CSeq");
        (number.parse().unwrap(), method.trim())
    }

    /// The first value of a header field, empty when there is none.
    pub fn get(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// All values of a header field that holds addresses, also those joined by commas.
    pub fn all(&self, name: &str) -> Vec<String> {
        let values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        values.flat_map(|(_, value)| split_addresses(value)).collect()
    }

    pub fn body(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of the first SDP line of this type.
    pub fn sdp(&self, kind: &str) -> String {
        let body = self.body();
        let line = body.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {kind}= in {self}")).to_owned()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("Content-Length: {}\r\n\r\n", self.body.len());
        [text.as_bytes(), &self.body].concat()
    }
}

impl std::fmt::Display for Sip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.bytes()))
    }
}

/// The URI between the angle brackets, or the bare one.
pub fn uri_of(value: &str) -> &str {
    match (value.find('<'), value.find('>')) {
        (Some(start), Some(end)) => &value[start + 1..end],
        _ => value.split(';').next().unwrap_or(value),
    }
}

/// Takes the first whole message off a stream's bytes; keep-alives before it are dropped.
pub fn take_frame(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let blank = buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    buffer.drain(..blank);
    let head = find(buffer, b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&buffer[..head]);
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("Content-Length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let end = head + 4 + length.expect("every message in a stream has a Content-Length");
    (buffer.len() >= end).then(|| buffer.drain(..end).collect())
}

/// The answer to a digest challenge (RFC 7616 §3.4, MD5, with and without qop).
pub fn authorize(challenge: &str, number: &str, password: &str, method: &str, uri: &str) -> String {
    let value = |name: &str| {
        let list = challenge.strip_prefix("Digest").expect("a digest challenge");
        let mut pairs = list.split(',').filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim_matches('"').to_owned())
    };
    let md5 = |text: String| Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (realm, nonce) = (value("realm").unwrap(), value("nonce").unwrap());
    let (a1, a2) = (md5(format!("{number}:{realm}:{password}")), md5(format!("{method}:{uri}")));
    let mut out = format!("Digest username=\"{number}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\"");
    if value("qop").is_some() {
        let cnonce = super::random(8);
        let response = md5(format!("{a1}:{nonce}:00000001:{cnonce}:auth:{a2}"));
        out += &format!(", algorithm=MD5, qop=auth, nc=00000001, cnonce=\"{cnonce}\", response=\"{response}\"");
    } else {
        out += &format!(", response=\"{}\"", md5(format!("{a1}:{nonce}:{a2}")));
    }
    if let Some(opaque) = value("opaque") {
        out += &format!(", opaque=\"{opaque}\"");
    }
    out
}

fn split_addresses(value: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let (mut angle, mut quote) = (false, false);
    for c in value.chars() {
        match c {
            '"' => quote = !quote,
            '<' if !quote => angle = true,
            '>' if !quote => angle = false,
            ',' if !quote && !angle => {
                out.push(String::new());
                continue;
            }
            _ => {}
        }
        out.last_mut().unwrap().push(c);
    }
    out.iter().map(|part| part.trim().to_owned()).collect()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
