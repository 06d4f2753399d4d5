//! A reader with the habits of software that stands behind the door: it takes what it can get. What such a reader sees
//! in a message that was let through must be what the gate saw.

/// In what lenient readers differ from each other.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Of a header field that stands twice the last counts, not the first; of a list of addresses likewise.
    pub last: bool,
    /// A bare CR or LF ends a line.
    pub bare: bool,
    /// The last `@` of a URI ends its user part, not the first.
    pub last_at: bool,
}

impl Habits {
    /// The habits of pjsip's parser, then the other combinations.
    pub const ALL: [Self; 5] = [
        Self { last: true, bare: true, last_at: false },
        Self { last: true, bare: true, last_at: true },
        Self { last: false, bare: true, last_at: false },
        Self { last: false, bare: false, last_at: true },
        Self { last: true, bare: false, last_at: false },
    ];
}

/// What a lenient reader sees.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// The host of the Request-URI; `None` in a response.
    pub uri: Option<Vec<u8>>,
    /// The host of From.
    pub from: Option<Vec<u8>>,
    /// The host of To.
    pub to: Option<Vec<u8>>,
    /// Where the body begins.
    pub head: usize,
    /// Content-Length, as far as it is a number.
    pub length: Option<usize>,
}

/// Reads a message with these habits.
pub fn read(message: &[u8], habits: Habits) -> Seen {
    let (lines, head) = lines(message, habits.bare);
    let mut seen = Seen { uri: None, from: None, to: None, head, length: None };
    let start = lines.first().map(Vec::as_slice).unwrap_or_default();
    if !start.get(..4).is_some_and(|four| four.eq_ignore_ascii_case(b"SIP/")) {
        let uri = start.split(|b| b" \t".contains(b)).filter(|word| !word.is_empty()).nth(1).unwrap_or_default();
        seen.uri = Some(host(uri.strip_prefix(b"<").unwrap_or(uri), habits));
    }
    for line in lines.iter().skip(1) {
        let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
        let name: Vec<u8> = line[..colon].iter().filter(|b| b.is_ascii_graphic()).map(u8::to_ascii_lowercase).collect();
        let value = &line[colon + 1..];
        match name.as_slice() {
            b"from" | b"f" if habits.last || seen.from.is_none() => seen.from = Some(address(value, habits)),
            b"to" | b"t" if habits.last || seen.to.is_none() => seen.to = Some(address(value, habits)),
            b"content-length" | b"l" if habits.last || seen.length.is_none() => seen.length = number(value),
            _ => {}
        }
    }
    seen
}

/// The names of the header fields, lower case, as the most lenient reader of all sees them.
pub fn names(message: &[u8]) -> Vec<Vec<u8>> {
    let (lines, _) = lines(message, true);
    let name = |line: &Vec<u8>| line.split(|&b| b == b':').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    lines.iter().skip(1).map(name).collect()
}

/// Whether a URI's parameters hold one of this name, escapes undone.
pub fn has_param(params: &[u8], name: &str) -> bool {
    let mut plain = Vec::new();
    let mut rest = params;
    while let Some((&b, tail)) = rest.split_first() {
        let code = rest.get(1..3).filter(|_| b == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        plain.push(code.unwrap_or(b).to_ascii_lowercase());
        rest = if code.is_some() { &rest[3..] } else { tail };
    }
    plain.split(|&b| b == b';').any(|param| param.split(|&b| b == b'=').next() == Some(name.as_bytes()))
}

/// The lines of the head, folded ones joined, and where the body begins.
fn lines(message: &[u8], bare: bool) -> (Vec<Vec<u8>>, usize) {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut at = 0;
    while at < message.len() {
        let rest = &message[at..];
        let len = if bare {
            rest.iter().position(|b| b"\r\n".contains(b))
        } else {
            rest.windows(2).position(|two| two == b"\r\n")
        };
        let len = len.unwrap_or(rest.len());
        let end = if rest[len..].starts_with(b"\r\n") { 2 } else { usize::from(len < rest.len()) };
        at += len + end;
        match (rest[..len].first(), lines.last_mut()) {
            (None, None) => {}
            (None, Some(_)) => return (lines, at),
            (Some(b' ' | b'\t'), Some(last)) => last.extend_from_slice(&rest[..len]),
            _ => lines.push(rest[..len].to_vec()),
        }
    }
    (lines, at)
}

/// The host in a name-addr or addr-spec: quoted display names are skipped, what stands in `<…>` is the URI.
fn address(value: &[u8], habits: Habits) -> Vec<u8> {
    let mut quoted = false;
    let mut bracket = None;
    let mut at = 0;
    while let Some(&b) = value.get(at) {
        match b {
            b'"' => quoted = !quoted,
            b'\\' if quoted => at += 1,
            b'<' if !quoted && (habits.last || bracket.is_none()) => bracket = Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    match bracket {
        Some(start) => host(&value[start..], habits),
        None => host(value, habits),
    }
}

/// The host of what begins with a URI.
fn host(text: &[u8], habits: Habits) -> Vec<u8> {
    let text = text.trim_ascii_start();
    let colon = text.iter().position(|&b| b == b':').map_or(0, |at| at + 1);
    let rest = &text[colon..];
    let reach = rest.iter().position(|b| b" \r\n>\"".contains(b)).unwrap_or(rest.len());
    let user = if habits.last_at {
        rest[..reach].iter().rposition(|&b| b == b'@')
    } else {
        rest[..reach].iter().position(|&b| b == b'@')
    };
    let rest = &rest[user.map_or(0, |at| at + 1)..];
    let len = match rest.first() {
        Some(b'[') => rest.iter().position(|&b| b == b']').map_or(rest.len(), |at| at + 1),
        _ => rest.iter().position(|b| b":;?> \t\r\n,@\"".contains(b)).unwrap_or(rest.len()),
    };
    rest[..len].to_ascii_lowercase()
}

/// Digits with whatever behind them, as `atoi` reads.
fn number(value: &[u8]) -> Option<usize> {
    let value = value.trim_ascii();
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&value[..digits]).unwrap().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PJSIP: Habits = Habits::ALL[0];

    fn from_of(lines: &str) -> String {
        let message = format!("OPTIONS sip:x@good SIP/2.0\r\n{lines}\r\n\r\n");
        String::from_utf8(read(message.as_bytes(), PJSIP).from.unwrap()).unwrap()
    }

    #[test]
    fn it_falls_for_every_trick() {
        for lines in [
            "From: <sip:a@good>\r\nFrom: <sip:a@evil>",
            "From: <sip:a@good>\r\nf: <sip:a@evil>",
            "From: <sip:good;x@evil>",
            "From: sip:good;x=y@evil",
            "From: <sip:a@good>\r\nX: y\nFrom: <sip:a@evil>",
            "From: <sip:a@good>\r\nX: y\rFrom: <sip:a@evil>",
            "From: <sip:a@good>\r\nFrom\0: <sip:a@evil>",
            "From: \"a <sip:a@good>\" <sip:a@EVIL>",
            "From: \"a\\\" <sip:a@good>\"\r\n <sip:a@evil>",
        ] {
            assert_eq!(from_of(lines), "evil", "{lines:?}");
        }
        let two = b"INVITE  <sip:a@evil>  SIP/2.0\n\r\nFrom: <sip:a@good>\r\n\r\n";
        let seen = read(two, PJSIP);
        assert_eq!((seen.uri.as_deref(), seen.from, seen.head), (Some(&b"evil"[..]), None, 32));
    }
}
