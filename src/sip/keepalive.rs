//! Datagrams that only keep a NAT binding open: they never reach the gate.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// What a datagram is, if it is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive<'a> {
    /// Nothing, CRLFs, or NULs (some phones).
    Empty,
    /// A STUN binding request (RFC 5389 §6, RFC 5626 §8): the 12 bytes of its transaction.
    Stun(&'a [u8; 12]),
}

/// Reads a datagram as a keep-alive.
pub fn read(bytes: &[u8]) -> Option<KeepAlive<'_>> {
    match bytes {
        [0, 1, _, len, rest @ ..] if usize::from(*len) + 16 == rest.len() => {
            let id = rest.strip_prefix(&COOKIE)?.first_chunk::<12>()?;
            Some(KeepAlive::Stun(id))
        }
        // Longer than any keep-alive: not worth a look at every byte.
        bytes if bytes.len() <= 64 && bytes.iter().all(|b| matches!(b, b'\r' | b'\n' | 0)) => Some(KeepAlive::Empty),
        _ => None,
    }
}

/// Appends the binding response with XOR-MAPPED-ADDRESS (RFC 5389 §15.2).
pub fn answer(id: &[u8; 12], remote: SocketAddr, out: &mut Vec<u8>) {
    let mut mask = Vec::with_capacity(16);
    mask.extend_from_slice(&COOKIE);
    mask.extend_from_slice(id);
    let (family, octets) = match remote.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let value = u8::try_from(octets.len() + 4).unwrap_or(0);
    out.extend_from_slice(&[1, 1, 0, value + 4]);
    out.extend_from_slice(&mask);
    out.extend_from_slice(&[0, 0x20, 0, value, 0, family]);
    let port = remote.port().to_be_bytes();
    out.extend(port.iter().chain(&octets).zip(mask.iter().take(2).chain(&mask)).map(|(a, b)| a ^ b));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alives_are_known() {
        for bytes in [&b""[..], b"\r\n", b"\r\n\r\n", b"\0\0\0\0"] {
            assert_eq!(read(bytes), Some(KeepAlive::Empty));
        }
        assert_eq!(read(b"OPTIONS"), None);
        let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        request.extend_from_slice(b"abcdefghijkl");
        assert_eq!(read(&request), Some(KeepAlive::Stun(b"abcdefghijkl")));
        request[4] = 0;
        assert_eq!(read(&request), None);
    }

    /// The IPv4 sample of RFC 5769 §2.2: 192.0.2.1:32853.
    #[test]
    fn the_answer_carries_the_mapped_address() {
        let id = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];
        let mut out = Vec::new();
        answer(&id, "192.0.2.1:32853".parse().unwrap(), &mut out);
        assert_eq!(out[20..], [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        assert_eq!(out[..4], [1, 1, 0, 12]);
    }
}
