//! SIP and SIPS URIs (RFC 3261 §19.1), read strictly: what two parsers could read differently is an error.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Why a URI, or what holds it, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Not as the grammar has it.
    Malformed,
    /// Readable in two ways.
    Ambiguous,
}

/// The scheme, as far as the door cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// Any other (`tel:`, `urn:`): no host to look at.
    Other,
}

/// A URI as a view of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// The whole URI.
    pub text: &'a [u8],
    /// Its scheme.
    pub scheme: Scheme,
    /// User and password, what stands before `@`.
    pub user: Option<&'a [u8]>,
    /// The host as written; an IPv6 literal keeps its brackets. Empty for [`Scheme::Other`].
    pub host: &'a [u8],
    /// The port, if written.
    pub port: Option<u16>,
    /// From the first `;` behind the host up to `?`, or empty.
    pub params: &'a [u8],
    /// From `?` on, or empty.
    pub headers: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Reads a whole URI.
    pub fn parse(text: &'a [u8]) -> Result<Self, Defect> {
        let colon = text.iter().position(|&b| b == b':').ok_or(Defect::Malformed)?;
        let (scheme, rest) = text.split_at_checked(colon).ok_or(Defect::Malformed)?;
        let rest = rest.get(1..).unwrap_or_default();
        let scheme = if scheme.eq_ignore_ascii_case(b"sip") {
            Scheme::Sip
        } else if scheme.eq_ignore_ascii_case(b"sips") {
            Scheme::Sips
        } else {
            return other(text, scheme);
        };
        // A raw `@` stands at most once in a SIP URI: neither parameters nor headers may hold one (§25.1).
        let (user, rest) = match rest.iter().position(|&b| b == b'@') {
            Some(at) => {
                let (user, host) = rest.split_at_checked(at).ok_or(Defect::Malformed)?;
                (Some(user), host.get(1..).unwrap_or_default())
            }
            None => (None, rest),
        };
        if rest.contains(&b'@') {
            return Err(Defect::Ambiguous);
        }
        if let Some(user) = user {
            userinfo(user)?;
        }
        let end = host_end(rest)?;
        let (hostport, tail) = rest.split_at_checked(end).ok_or(Defect::Malformed)?;
        let (host, port) = split_port(hostport)?;
        check_host(host)?;
        let (params, headers) =
            tail.split_at_checked(tail.iter().position(|&b| b == b'?').unwrap_or(tail.len())).unwrap_or((tail, &[]));
        check_params(params)?;
        check_headers(headers)?;
        Ok(Self { text, scheme, user, host, port, params, headers })
    }

    /// Whether the scheme is sip or sips.
    pub fn is_sip(&self) -> bool {
        self.scheme != Scheme::Other
    }

    /// The value of a URI parameter, names compared without case and escapes (§19.1.4); `Some("")` for one without a
    /// value.
    pub fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        let (_, found) = self.find_params(name).next()?;
        Some(found.iter().position(|&b| b == b'=').and_then(|eq| found.get(eq + 1..)).unwrap_or_default())
    }

    /// Where a parameter stands in [`Self::text`], its `;` included: every time, though it may stand once only.
    pub fn param_spans(&self, name: &[u8]) -> impl Iterator<Item = Range<usize>> {
        let params = self.text.len() - self.headers.len() - self.params.len();
        self.find_params(name).map(move |(at, found)| params + at..params + at + 1 + found.len())
    }

    /// `scheme:user@host:port`, the part before parameters and headers.
    pub fn bare(&self) -> &'a [u8] {
        self.text.get(..self.text.len() - self.params.len() - self.headers.len()).unwrap_or(self.text)
    }

    fn find_params(&self, name: &[u8]) -> impl Iterator<Item = (usize, &'a [u8])> {
        let mut next = 0;
        let list = self.params.get(1..).map(|list| list.split(|&b| b == b';')).into_iter().flatten();
        let placed = list.map(move |param| {
            let at = next;
            next += param.len() + 1;
            (at, param)
        });
        placed.filter(move |(_, param)| is_named(param.split(|&b| b == b'=').next().unwrap_or_default(), name))
    }
}

/// Whether a parameter's name, whose escapes readers undo, is `name`.
pub fn is_named(key: &[u8], name: &[u8]) -> bool {
    if !key.contains(&b'%') {
        return key.eq_ignore_ascii_case(name);
    }
    let mut rest = key;
    let plain = std::iter::from_fn(|| {
        let (b, tail) = match rest {
            [b'%', a, b, tail @ ..] => (hex(*a)? << 4 | hex(*b)?, tail),
            [b, tail @ ..] => (*b, tail),
            [] => return None,
        };
        rest = tail;
        Some(b.to_ascii_lowercase())
    });
    plain.eq(name.iter().map(u8::to_ascii_lowercase))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// A URI of another scheme: visible characters that cannot end what holds it.
fn other<'a>(text: &'a [u8], scheme: &[u8]) -> Result<Uri<'a>, Defect> {
    let named = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let plain = text.iter().all(|&b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"'));
    if !named || !plain || text.len() == scheme.len() + 1 {
        return Err(Defect::Malformed);
    }
    Ok(Uri { text, scheme: Scheme::Other, user: None, host: &[], port: None, params: &[], headers: &[] })
}

/// Where host and port end: at `;`, `?` or the end; brackets hold colons.
fn host_end(rest: &[u8]) -> Result<usize, Defect> {
    let from =
        if rest.first() == Some(&b'[') { rest.iter().position(|&b| b == b']').ok_or(Defect::Malformed)? } else { 0 };
    let tail = rest.get(from..).unwrap_or_default();
    Ok(tail.iter().position(|&b| matches!(b, b';' | b'?')).map_or(rest.len(), |at| from + at))
}

/// Splits `host[:port]`; an empty, signed or too large port is an error.
pub fn split_port(hostport: &[u8]) -> Result<(&[u8], Option<u16>), Defect> {
    let host_len = match hostport.first() {
        Some(b'[') => hostport.iter().position(|&b| b == b']').ok_or(Defect::Malformed)? + 1,
        _ => hostport.iter().position(|&b| b == b':').unwrap_or(hostport.len()),
    };
    let (host, tail) = hostport.split_at_checked(host_len).ok_or(Defect::Malformed)?;
    match tail {
        [] => Ok((host, None)),
        [b':', digits @ ..] => Ok((host, Some(port(digits)?))),
        _ => Err(Defect::Malformed),
    }
}

fn port(digits: &[u8]) -> Result<u16, Defect> {
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Defect::Malformed);
    }
    let number = digits.iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
    u16::try_from(number).ok().filter(|&p| p > 0).ok_or(Defect::Malformed)
}

/// A host name, an IPv4 address, or an IPv6 literal in brackets. `_` is no host name character (RFC 1123 §2.1) but
/// stands in the names of private networks.
pub fn check_host(host: &[u8]) -> Result<(), Defect> {
    if let [b'[', inner @ .., b']'] = host {
        let text = std::str::from_utf8(inner).map_err(|_| Defect::Malformed)?;
        return text.parse::<Ipv6Addr>().map(drop).map_err(|_| Defect::Malformed);
    }
    let good = !host.is_empty() && host.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if good { Ok(()) } else { Err(Defect::Malformed) }
}

/// Whether a checked host is an address rather than a name.
pub fn is_address(host: &[u8]) -> bool {
    host.first() == Some(&b'[') || std::str::from_utf8(host).is_ok_and(|h| h.parse::<Ipv4Addr>().is_ok())
}

/// unreserved of §25.1.
const fn unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
}

/// Every byte is allowed by `plain` or is part of a `%HEX HEX` escape.
fn escaped(bytes: &[u8], plain: impl Fn(u8) -> bool) -> bool {
    let mut rest = bytes;
    loop {
        rest = match rest {
            [] => return true,
            [b'%', a, b, tail @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => tail,
            [b, tail @ ..] if plain(*b) => tail,
            _ => return false,
        }
    }
}

fn userinfo(user: &[u8]) -> Result<(), Defect> {
    let good = !user.is_empty()
        && user.first() != Some(&b':')
        && escaped(user, |b| {
            unreserved(b) || matches!(b, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/' | b':')
        });
    if good { Ok(()) } else { Err(Defect::Malformed) }
}

fn check_params(params: &[u8]) -> Result<(), Defect> {
    let Some(list) = params.get(1..) else { return Ok(()) };
    let good = |param: &[u8]| {
        let mut parts = param.splitn(2, |&b| b == b'=');
        let plain = |part: &[u8]| {
            !part.is_empty()
                && escaped(part, |b| unreserved(b) || matches!(b, b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$'))
        };
        parts.next().is_some_and(plain) && parts.next().is_none_or(plain)
    };
    if list.split(|&b| b == b';').all(good) { Ok(()) } else { Err(Defect::Malformed) }
}

fn check_headers(headers: &[u8]) -> Result<(), Defect> {
    let Some(list) = headers.get(1..) else { return Ok(()) };
    let allowed = |b| unreserved(b) || matches!(b, b'[' | b']' | b'/' | b'?' | b':' | b'+' | b'$' | b'=' | b'&');
    if !list.is_empty() && escaped(list, allowed) { Ok(()) } else { Err(Defect::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_where_the_grammar_has_them() {
        let uri = Uri::parse(b"sip:user;par=u%40x@good.example:5061;transport=tls;LR?Subject=x").unwrap();
        assert_eq!((uri.user, uri.host, uri.port), (Some(&b"user;par=u%40x"[..]), &b"good.example"[..], Some(5061)));
        assert_eq!(
            (uri.param(b"lr"), uri.param(b"transport"), uri.param(b"x")),
            (Some(&b""[..]), Some(&b"tls"[..]), None)
        );
        assert_eq!(&uri.text[uri.param_spans(b"transport").next().unwrap()], b";transport=tls");
        assert_eq!(uri.bare(), b"sip:user;par=u%40x@good.example:5061");
        let v6 = Uri::parse(b"SIPS:[2001:db8::9:1]:5070;x").unwrap();
        assert_eq!((v6.scheme, v6.host, v6.port, v6.user), (Scheme::Sips, &b"[2001:db8::9:1]"[..], Some(5070), None));
        assert_eq!(Uri::parse(b"sip:good.example;x@evil.example").unwrap().host, b"evil.example");
        assert_eq!(Uri::parse(b"tel:+1-201-555-0123").unwrap().scheme, Scheme::Other);
    }

    #[test]
    fn what_the_grammar_does_not_have_is_refused() {
        let bad = "sip: sip:@h sip:a@ sip:a@b@c sip:a@h: sip:a@h:0 sip:a@h:65536 sip:a@h:+5 sip:a@h/x sip:a@h,b sip:a@[h] \
                   sip:a@[::1 sip:a@::1 sip:a@h; sip:a@h;;b sip:a@h;b= sip:a@h? sip:a@h#f sip:a%4@h sip:a%zz@h sip:a\"b@h sip::p@h <sip:a@h> h";
        for text in bad.split(' ') {
            assert!(Uri::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Uri::parse(b"sip:a@h b").is_err() && Uri::parse("sip:a@\u{445}".as_bytes()).is_err());
    }
}
