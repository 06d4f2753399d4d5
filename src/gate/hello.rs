//! The ClientHello, read by the core before any configuration is chosen.
//!
//! [`Reader`] takes the bytes of a connection in whatever pieces they come, records within records; [`Reader::hello`]
//! says what the whole ClientHello wants. Nothing here is answered, and nothing is kept past 64 KiB.
#![forbid(unsafe_code)]

use crate::gate::Reason;
use std::net::IpAddr;

/// What a ClientHello says of the server's name (RFC 6066 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello<'a> {
    /// No server_name extension, or one without a host_name.
    Absent,
    /// An IPv4 or IPv6 literal.
    Address(&'a [u8]),
    /// A host name, as sent.
    Name(&'a [u8]),
}

/// Collects the ClientHello out of the records that carry it (RFC 8446 §5.1). Each byte is looked at once, so a peer
/// that sends one byte a segment costs linear time.
#[derive(Debug, Default)]
pub struct Reader {
    /// The header of the record at hand, as far as it has come.
    header: [u8; 5],
    have: usize,
    /// What the record at hand still lacks.
    left: usize,
    /// The handshake message, as far as it has come.
    body: Vec<u8>,
}

impl Reader {
    /// Takes the next bytes of the connection; true when the ClientHello is whole. What stands behind it is not read.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<bool, Reason> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.left == 0 {
                self.begin(byte)?;
                bytes = rest;
                continue;
            }
            let (part, rest) = bytes.split_at_checked(self.left).unwrap_or((bytes, &[]));
            self.left -= part.len();
            self.body.extend_from_slice(part);
            bytes = rest;
            if self.whole()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the whole ClientHello says; an error if it is not written as RFC 8446 §4.1.2 has it.
    pub fn hello(&self) -> Result<Hello<'_>, Reason> {
        let length = self.length().ok_or(Reason::NotTls)?;
        let body = self.body.get(HANDSHAKE_HEADER..HANDSHAKE_HEADER + length).ok_or(Reason::NotTls)?;
        server_name(body).ok_or(Reason::NotTls)
    }

    /// One byte of a record's header; a byte that cannot stand there ends it at once.
    fn begin(&mut self, byte: u8) -> Result<(), Reason> {
        let good = match self.have {
            0 => byte == HANDSHAKE,
            1 => byte == 3,
            _ => true,
        };
        let place = self.header.get_mut(self.have).filter(|_| good).ok_or(Reason::NotTls)?;
        *place = byte;
        self.have += 1;
        if let (5, [_, _, _, high, low]) = (self.have, self.header) {
            self.have = 0;
            self.left = usize::from(u16::from_be_bytes([high, low]));
            // An empty record of a handshake is not allowed, and 2^14 is the most of a plain one.
            if self.left == 0 || self.left > 1 << 14 {
                return Err(Reason::NotTls);
            }
        }
        Ok(())
    }

    fn whole(&self) -> Result<bool, Reason> {
        if self.body.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(Reason::NotTls);
        }
        match self.length() {
            Some(length) if length > MOST => Err(Reason::NotTls),
            Some(length) => Ok(self.body.len() >= HANDSHAKE_HEADER + length),
            None => Ok(false),
        }
    }

    /// The length of the handshake message, once its header is there.
    fn length(&self) -> Option<usize> {
        let [_, a, b, c] = self.body.first_chunk()?;
        usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).ok()
    }
}

/// The name in the body of a ClientHello; `None` when it is malformed.
fn server_name(body: &[u8]) -> Option<Hello<'_>> {
    let mut at = Bytes(body);
    at.take(2 + 32)?; // legacy_version, random
    at.vector8().filter(|id| id.len() <= 32)?;
    at.vector16().filter(|suites| !suites.is_empty() && suites.len() % 2 == 0)?;
    at.vector8().filter(|compressions| !compressions.is_empty())?;
    if at.0.is_empty() {
        return Some(Hello::Absent); // before TLS 1.2 extensions could be left out altogether
    }
    let mut extensions = Bytes(at.vector16()?);
    if !at.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let data = extensions.vector16()?;
        if kind == SERVER_NAME && found.replace(host_name(data)?).is_some() {
            return None; // there must not be two of one type (RFC 8446 §4.2)
        }
    }
    Some(found.unwrap_or(Hello::Absent))
}

/// The one host_name of a server_name extension.
fn host_name(data: &[u8]) -> Option<Hello<'_>> {
    if data.is_empty() {
        return Some(Hello::Absent);
    }
    let mut at = Bytes(data);
    let mut list = Bytes(at.vector16()?);
    if !at.0.is_empty() {
        return None;
    }
    let mut found = None;
    while let Some(kind) = list.take(1) {
        let name = list.vector16()?;
        if kind == [HOST_NAME] && found.replace(name).is_some() {
            return None;
        }
    }
    Some(match found {
        None | Some([]) => Hello::Absent,
        Some(name) if is_address(name) => Hello::Address(name),
        Some(name) => Hello::Name(name),
    })
}

fn is_address(name: &[u8]) -> bool {
    let bare = name.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap_or(name);
    std::str::from_utf8(bare).is_ok_and(|text| text.parse::<IpAddr>().is_ok())
}

/// Bytes not yet read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(part)
    }

    fn number16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.first_chunk()?))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let [length] = *self.take(1)?.first_chunk()?;
        self.take(length.into())
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number16()?;
        self.take(length.into())
    }
}

/// Content type (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
/// Handshake type (§4).
const CLIENT_HELLO: u8 = 1;
const HANDSHAKE_HEADER: usize = 4;
/// The most that is kept of a ClientHello; post-quantum ones have 2 kB.
const MOST: usize = 64 << 10;
/// Extension type and name type (RFC 6066 §3).
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use std::sync::Arc;

    /// What a rustls client really sends.
    fn real(name: &'static str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8], piece: usize) -> Result<Option<String>, Reason> {
        let mut reader = Reader::default();
        for part in bytes.chunks(piece) {
            if reader.push(part)? {
                return Ok(Some(format!("{:?}", reader.hello()?)));
            }
        }
        Ok(None)
    }

    /// A ClientHello around these extensions.
    fn made(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        let mut message = vec![1, 0];
        message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        message.extend(body);
        records(&message, 1 << 14)
    }

    fn records(message: &[u8], most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for part in message.chunks(most) {
            out.extend([22, 3, 1]);
            out.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            out.extend(part);
        }
        out
    }

    fn sni(names: &[(u8, &[u8])]) -> Vec<u8> {
        let mut list = Vec::new();
        for (kind, name) in names {
            list.push(*kind);
            list.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
            list.extend(*name);
        }
        let mut out = vec![0, 0];
        out.extend(u16::try_from(list.len() + 2).unwrap().to_be_bytes());
        out.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
        out.extend(list);
        out
    }

    fn name_of(bytes: &[u8]) -> String {
        read(bytes, bytes.len()).unwrap().unwrap()
    }

    #[test]
    fn a_real_hello_says_its_name_however_it_is_cut() {
        let bytes = real("secret.example");
        let whole = read(&bytes, bytes.len());
        assert_eq!(whole, Ok(Some(format!("{:?}", Hello::Name(b"secret.example")))));
        for piece in 1..bytes.len() {
            assert_eq!(read(&bytes, piece), whole, "pieces of {piece}");
        }
        for size in [1, 2, 3, 5, 64, 255] {
            let cut = records(&bytes[5..], size);
            assert_eq!(read(&cut, 7), whole, "records of {size}");
        }
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end], 100), Ok(None), "cut at {end}");
        }
    }

    #[test]
    fn a_hello_without_a_name_or_with_an_address_says_so() {
        assert_eq!(name_of(&real("192.0.2.1")), format!("{:?}", Hello::Absent));
        assert_eq!(name_of(&made(b"")), format!("{:?}", Hello::Absent));
        assert_eq!(name_of(&made(&[0, 0, 0, 0])), format!("{:?}", Hello::Absent));
        assert_eq!(name_of(&made(&sni(&[]))), format!("{:?}", Hello::Absent));
        assert_eq!(name_of(&made(&sni(&[(0, b"")]))), format!("{:?}", Hello::Absent));
        for literal in [&b"192.0.2.1"[..], b"2001:db8::1", b"[2001:db8::1]"] {
            assert_eq!(name_of(&made(&sni(&[(0, literal)]))), format!("{:?}", Hello::Address(literal)));
        }
        assert_eq!(name_of(&made(&sni(&[(0, b"a.b.")]))), format!("{:?}", Hello::Name(b"a.b.")));
        assert_eq!(name_of(&made(&sni(&[(9, b"x"), (0, b"a.b")]))), format!("{:?}", Hello::Name(b"a.b")));
    }

    #[test]
    fn what_is_no_hello_is_refused_at_its_first_bytes() {
        let mut empty_record = real("a.b");
        empty_record.splice(0..0, [22, 3, 1, 0, 0]);
        for bytes in [
            &b"G"[..],
            b"\x80",
            b"\x15\x03",
            b"\x16\x02",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x01\x00\x01\x02",
            &empty_record,
        ] {
            assert_eq!(read(bytes, 1), Err(Reason::NotTls), "{bytes:?}");
        }
        // A length over 64 KiB is refused before the bytes come.
        assert_eq!(read(&records(&[1, 1, 0, 1, 0], 99), 1), Err(Reason::NotTls));
    }

    #[test]
    fn a_malformed_hello_is_refused() {
        let two_names = made(&sni(&[(0, b"a.b"), (0, b"c.d")]));
        let mut twice = sni(&[(0, b"a.b")]);
        twice.extend(sni(&[(0, b"a.b")]));
        let mut behind = sni(&[(0, b"a.b")]);
        behind.push(0);
        for bytes in [two_names, made(&twice), made(&behind), made(&[0, 0, 0, 3, 0, 9, 0])] {
            assert_eq!(read(&bytes, 9), Err(Reason::NotTls), "{bytes:?}");
        }
    }

    #[test]
    fn no_change_of_one_byte_panics() {
        let bytes = real("secret.example");
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff, bytes[at].wrapping_add(1)] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = read(&changed, 11);
            }
        }
    }
}
