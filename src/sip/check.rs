//! The second reader: `rsip` reads a minimal copy of what the strict reader understood, and must see the same hosts.
//!
//! The copy holds the start line, From and To and nothing else. What rsip 0.4.0 is known to misread in valid messages
//! is written in a form it reads (a `.` in the user part as `%2E`, an IPv6 literal as a placeholder); everything that
//! could make the two disagree about a host stays as received.
#![forbid(unsafe_code)]

use super::message::{Message, Start};
use super::uri::{Scheme, Uri};
use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;
use std::net::Ipv4Addr;

/// rsip cannot read an IPv6 literal, and has no other scheme than sip and sips.
const V6: &[u8] = b"ipv6.invalid";
const OTHER: &[u8] = b"sip:other.invalid";

/// Copies remembered at most, and their length: phones say the same three URIs again and again.
const SLOTS: usize = 512;
const LONGEST: usize = 384;

/// The second reader, with the copies on which it has agreed before.
///
/// The verdict is a function of the copy's bytes alone, so that the same bytes need not be parsed twice. Only agreement is
/// remembered, whole copies are compared, and a new one takes the slot of an old one: at most 200 kB.
#[derive(Debug)]
pub struct Second {
    copy: Vec<u8>,
    agreed: Vec<Vec<u8>>,
}

impl Default for Second {
    fn default() -> Self {
        Self { copy: Vec::new(), agreed: vec![Vec::new(); SLOTS] }
    }
}

impl Second {
    /// Whether rsip sees the hosts that the strict reader saw.
    pub fn agrees(&mut self, message: &Message<'_>) -> bool {
        self.write(message);
        let copy = self.copy.as_slice();
        let slot = self.agreed.get_mut(slot(copy));
        if slot.as_ref().is_some_and(|before| before.as_slice() == copy) {
            return true;
        }
        // rsip has not been seen to panic; should it, the message is refused and the door stays.
        let agrees = std::panic::catch_unwind(|| same(copy, message)).unwrap_or(false);
        if let Some(slot) = slot.filter(|_| agrees && copy.len() <= LONGEST) {
            slot.clear();
            slot.extend_from_slice(copy);
        }
        agrees
    }

    fn write(&mut self, message: &Message<'_>) {
        let copy = &mut self.copy;
        copy.clear();
        match &message.start {
            Start::Request { method, uri, .. } => {
                copy.extend_from_slice(if known(method) { method } else { b"OPTIONS" });
                copy.push(b' ');
                write_uri(copy, uri);
                copy.extend_from_slice(b" SIP/2.0");
            }
            Start::Response { .. } => copy.extend_from_slice(b"SIP/2.0 200 OK"),
        }
        copy.extend_from_slice(b"\r\nFrom: <");
        write_uri(copy, &message.from.uri);
        copy.extend_from_slice(b">\r\nTo: <");
        write_uri(copy, &message.to.uri);
        copy.extend_from_slice(b">\r\n\r\n");
    }
}

fn slot(copy: &[u8]) -> usize {
    let mut hasher = SipHasher13::new();
    hasher.write(copy);
    usize::try_from(hasher.finish() % SLOTS as u64).unwrap_or(0)
}

fn write_uri(copy: &mut Vec<u8>, uri: &Uri<'_>) {
    if uri.scheme == Scheme::Other {
        return copy.extend_from_slice(OTHER);
    }
    let bare = uri.bare();
    let user_end = uri.user.map_or(0, |_| bare.iter().position(|&b| b == b'@').unwrap_or(0));
    for &b in bare.get(..user_end).unwrap_or_default() {
        if b == b'.' { copy.extend_from_slice(b"%2E") } else { copy.push(b) }
    }
    let rest = bare.get(user_end..).unwrap_or_default();
    match rest.iter().position(|&b| b == b'[') {
        Some(open) => {
            copy.extend_from_slice(rest.get(..open).unwrap_or_default());
            copy.extend_from_slice(V6);
            copy.extend_from_slice(rest.get(open + uri.host.len()..).unwrap_or_default());
        }
        None => copy.extend_from_slice(rest),
    }
}

fn same(copy: &[u8], message: &Message<'_>) -> bool {
    let from_to = |headers: &rsip::Headers| {
        let mut headers = headers.iter();
        let (Some(rsip::Header::From(from)), Some(rsip::Header::To(to)), None) =
            (headers.next(), headers.next(), headers.next())
        else {
            return false;
        };
        let (Ok(from), Ok(to)) = (from.uri(), to.uri()) else { return false };
        agree(&from, &message.from.uri) && agree(&to, &message.to.uri)
    };
    match message.uri() {
        Some(uri) => rsip::Request::try_from(copy).is_ok_and(|seen| agree(&seen.uri, uri) && from_to(&seen.headers)),
        None => rsip::Response::try_from(copy).is_ok_and(|seen| from_to(&seen.headers)),
    }
}

fn agree(seen: &rsip::Uri, uri: &Uri<'_>) -> bool {
    let scheme = match uri.scheme {
        Scheme::Sip | Scheme::Other => rsip::Scheme::Sip,
        Scheme::Sips => rsip::Scheme::Sips,
    };
    let expected = match uri.scheme {
        Scheme::Other => b"other.invalid",
        _ if uri.host.first() == Some(&b'[') => V6,
        _ => uri.host,
    };
    let host = match seen.host() {
        rsip::Host::Domain(domain) => domain.to_string().as_bytes().eq_ignore_ascii_case(expected),
        rsip::Host::IpAddr(address) => {
            std::str::from_utf8(expected).ok().and_then(|h| h.parse::<Ipv4Addr>().ok()).is_some_and(|v4| *address == v4)
        }
    };
    seen.scheme.as_ref() == Some(&scheme) && host && seen.port().map(|p| *p.value()) == uri.port
}

/// The methods rsip has; it is asked about hosts, so any other is shown to it as OPTIONS.
fn known(method: &[u8]) -> bool {
    matches!(
        method,
        b"ACK"
            | b"BYE"
            | b"CANCEL"
            | b"INFO"
            | b"INVITE"
            | b"MESSAGE"
            | b"NOTIFY"
            | b"OPTIONS"
            | b"PRACK"
            | b"PUBLISH"
            | b"REFER"
            | b"REGISTER"
            | b"SUBSCRIBE"
            | b"UPDATE"
    )
}

#[cfg(test)]
mod tests {
    use super::super::{frame::Sizes, message::Reader};
    use super::*;

    #[test]
    fn the_readers_agree_on_valid_messages_that_rsip_alone_misreads() {
        for uri in [
            "sip:john.doe@good.example",
            "sip:user;par=u%40x@good.example",
            "SIP:a@good.example:5061",
            "sip:good.example",
            "sips:a.b:p.w@[2001:db8::1]:5060",
            "sip:a@192.0.2.1",
            "tel:+1.201",
            "sip:%00@h",
            "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
            "sip:vivekg@chair-dnrc.example.com;unknownparam",
        ] {
            for start in [format!("OPTIONS {uri} SIP/2.0"), format!("FROB {uri} SIP/2.0"), "SIP/2.0 200 OK".into()] {
                let method = if start.starts_with("FROB") { "FROB" } else { "OPTIONS" };
                let text = format!("{start}\r\nVia: SIP/2.0/UDP h\r\nFrom: \"a.<b>\" <{uri}>;tag=\"x\r\nTo: <{uri}>\r\nCall-ID: x\r\nCSeq: 1 {method}\r\n\r\n").replace(";tag=\"x", ";tag=x");
                let mut reader = Reader::default();
                let message = reader.read(text.as_bytes(), Sizes::default(), false).unwrap();
                assert!(Second::default().agrees(&message), "{text}");
            }
        }
    }
}
