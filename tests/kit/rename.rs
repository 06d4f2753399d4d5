//! Rewrites the hosts of the Request-URI, From, To and Route of a message, and nothing else: a corpus of foreign
//! messages becomes one addressed to the door. The body is left alone, and so Content-Length stays true.

use std::ops::Range;

/// The message with `name` in the place of the hosts.
pub fn renamed(message: &[u8], name: &str) -> Vec<u8> {
    let head = head_end(message);
    let mut places = Vec::new();
    let mut at = 0;
    while at < head {
        let end = logical_line_end(&message[..head], at);
        if at == 0 {
            places.extend(start_line(&message[..end]));
        } else {
            places.extend(field(message, at..end));
        }
        at = end;
    }
    let mut out = Vec::new();
    let mut from = 0;
    for place in places {
        out.extend_from_slice(&message[from..place.start]);
        out.extend_from_slice(name.as_bytes());
        from = place.end;
    }
    out.extend_from_slice(&message[from..]);
    out
}

fn head_end(message: &[u8]) -> usize {
    message.windows(4).position(|four| four == b"\r\n\r\n").map_or(message.len(), |at| at + 2)
}

/// The end of a line and the lines folded onto it.
fn logical_line_end(head: &[u8], start: usize) -> usize {
    let mut at = start;
    loop {
        at = head[at..].iter().position(|&b| b == b'\n').map_or(head.len(), |len| at + len + 1);
        if !matches!(head.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
}

/// The host of the Request-URI; none in a status line.
fn start_line(line: &[u8]) -> Option<Range<usize>> {
    if line.starts_with(b"SIP/") {
        return None;
    }
    let from = line.iter().position(|&b| b == b' ')? + 1;
    let to = line.windows(5).rposition(|five| five == b" SIP/")?;
    host(line, from..to)
}

fn field(message: &[u8], line: Range<usize>) -> Option<Range<usize>> {
    let colon = message[line.clone()].iter().position(|&b| b == b':')?;
    let name = message[line.start..line.start + colon].trim_ascii().to_ascii_lowercase();
    let route = name == b"route";
    if !matches!(name.as_slice(), b"from" | b"f" | b"to" | b"t") && !route {
        return None;
    }
    let value = line.start + colon + 1..line.end;
    let bracket = unquoted_bracket(&message[value.clone()]).map(|at| value.start + at + 1);
    let place = match bracket {
        Some(start) => {
            let len = message[start..value.end].iter().position(|&b| b == b'>').unwrap_or(value.end - start);
            host(message, start..start + len)
        }
        // Without brackets the URI ends at the first `;`.
        None => {
            let len = message[value.clone()].iter().position(|&b| b == b';').unwrap_or(value.len());
            host(message, value.start..value.start + len)
        }
    }?;
    // A Route's port is the port of somebody else.
    let port = message[place.end..].iter().take_while(|b| route && (**b == b':' || b.is_ascii_digit())).count();
    Some(place.start..place.end + port)
}

/// The first `<` outside a quoted string; of a string that never ends, the first `<` at all.
fn unquoted_bracket(value: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut at = 0;
    while let Some(&b) = value.get(at) {
        match b {
            b'"' => quoted = !quoted,
            b'\\' if quoted => at += 1,
            b'<' if !quoted => return Some(at),
            _ => {}
        }
        at += 1;
    }
    if quoted { value.iter().position(|&b| b == b'<') } else { None }
}

/// The host of a sip or sips URI.
fn host(bytes: &[u8], uri: Range<usize>) -> Option<Range<usize>> {
    let text = &bytes[uri.clone()];
    let lead = text.iter().take_while(|b| b" \t\r\n<".contains(b)).count();
    let colon = lead + text[lead..].iter().position(|&b| b == b':')?;
    if !matches!(text[lead..colon].to_ascii_lowercase().as_slice(), b"sip" | b"sips") {
        return None;
    }
    let start = text.iter().rposition(|&b| b == b'@').unwrap_or(colon) + 1;
    let len = match text.get(start) {
        Some(b'[') => text[start..].iter().position(|&b| b == b']')? + 1,
        _ => text[start..].iter().position(|b| b":;?> \t\r\n,".contains(b)).unwrap_or(text.len() - start),
    };
    Some(uri.start + start..uri.start + start + len)
}
