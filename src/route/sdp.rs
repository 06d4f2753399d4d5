//! The one thing the door changes in a body: Asterisk bound to loopback writes its loopback address into its SDP, whatever
//! is configured, and a phone would send its media nowhere. The address of ours that the phone can reach takes its place;
//! RTP flows directly between the phone and Asterisk.
#![forbid(unsafe_code)]

use super::Hop;
use crate::flow::Flow;
use crate::sip::header::Name;
use std::net::IpAddr;
use std::ops::Range;

/// Replaces loopback addresses in `o=`, `c=`, `a=rtcp:` (RFC 3605) and `a=candidate:` (RFC 8839) lines.
pub(super) fn repair(hop: &mut Hop<'_, '_>, to: &Flow) {
    let sdp = hop.message.all(Name::ContentType).next().is_some_and(|field| {
        let value = hop.message.at(field.value());
        let media = value.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
        media.eq_ignore_ascii_case(b"application/sdp")
    });
    if !sdp {
        return;
    }
    let address = hop.plan.advertised(to);
    let body = hop.message.body();
    let mut at = hop.message.head;
    for line in body.split_inclusive(|&b| b == b'\n') {
        for (word, family) in loopback(line) {
            hop.edits
                .replace(at + word.start..at + word.end, |text| text.extend_from_slice(address.to_string().as_bytes()));
            if let (Some(family), IpAddr::V6(_)) = (family, address) {
                hop.edits.replace(at + family..at + family + 1, |text| text.push(b'6'));
            }
        }
        at += line.len();
    }
}

/// The IPv4 loopback addresses of a line, each with the place of the `4` of its `IP4` if there is one.
fn loopback(line: &[u8]) -> Vec<(Range<usize>, Option<usize>)> {
    let carries = [&b"o="[..], b"c=", b"a=rtcp:", b"a=candidate:"].iter().any(|start| line.starts_with(start));
    if !carries {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut at = 0;
    let mut family = None;
    for word in line.split(|b| matches!(b, b' ' | b'\r' | b'\n')) {
        // A multicast address may carry `/ttl`; a loopback one never does, so a whole word is an address or is none.
        let ip = std::str::from_utf8(word).ok().and_then(|word| word.parse::<IpAddr>().ok());
        if ip.is_some_and(|ip| ip.is_loopback()) {
            found.push((at..at + word.len(), family));
        }
        family = (word == b"IP4").then_some(at + 2);
        at += word.len() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_where_an_address_stands() {
        let at = |line: &'static str| {
            loopback(line.as_bytes())
                .into_iter()
                .map(|(range, family)| (line.get(range).unwrap(), family))
                .collect::<Vec<_>>()
        };
        assert_eq!(at("o=- 1 1 IN IP4 127.0.0.1\r\n"), [("127.0.0.1", Some(13))]);
        assert_eq!(at("c=IN IP4 127.0.0.1\r\n"), [("127.0.0.1", Some(7))]);
        assert_eq!(at("a=rtcp:9 IN IP4 127.0.0.1"), [("127.0.0.1", Some(14))]);
        assert_eq!(at("a=candidate:1 1 UDP 1 127.0.0.1 9 typ srflx raddr 127.0.0.2 rport 1").len(), 2);
        assert_eq!(at("s=127.0.0.1\r\n"), []);
        assert_eq!(at("c=IN IP4 192.0.2.1\r\n"), []);
    }
}
