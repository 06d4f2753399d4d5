//! What the door writes into a message to find its flow again: keyed, so that nobody else can write one.
//!
//! Reading is verifying. Nothing in a token is secret (Asterisk copies branches into To tags, phones see Record-Routes);
//! the key keeps others from making one, and a changed byte makes it nobody's.
#![forbid(unsafe_code)]

use crate::bindings::Token;
use crate::flow::{Flow, FlowId, Side, Transport};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use siphasher::sip::{SipHasher13, SipHasher24};
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

/// Begins every branch of ours: the magic cookie of RFC 3261 §8.1.1.7, then our mark.
pub const BRANCH: &[u8] = b"z9hG4bKfd";
/// Begins the user part of every Record-Route URI of ours.
pub const ROUTE_USER: &[u8] = b"fdr-";
/// The parameter of our Via that Asterisk echoes to us alone.
pub const VIA_PARAM: &[u8] = b"fdv";
/// The URI parameter that names a binding in the Contact that Asterisk knows.
pub const CONTACT_PARAM: &[u8] = b"fdt";

const MAC: usize = 8;

/// The key of one door.
#[derive(Clone)]
pub struct Key {
    bytes: [u8; 16],
    /// For the hash that anyone can see the value of: what it gives away is not about the key of the tokens.
    open: [u8; 16],
}

/// Keeps a value made for one place from being good in another.
#[derive(Clone, Copy)]
enum Purpose {
    Contact = 1,
    Transaction,
    Leg,
    Return,
    Sent,
    Source,
    ToTag,
}

/// Where the answers of a request from outside go: in our Via towards Asterisk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return {
    /// The flow that the request came from.
    pub flow: Flow,
    /// When it came: milliseconds since the Unix epoch.
    pub asked: u64,
    /// The Request-URI was sips.
    pub sips: bool,
    /// The phone's binding, if it has one: its flow is the second choice.
    pub binding: Option<Token>,
    /// The contacts of a REGISTER: the token that Asterisk was given and the phone's own URI.
    pub contacts: Vec<(Token, Vec<u8>)>,
}

/// The phone's side of a dialog: in both Record-Route entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Where the phone was when the dialog began.
    pub flow: Flow,
    /// The phone's binding: where it is now.
    pub binding: Option<Token>,
    /// The Request-URI was sips.
    pub sips: bool,
    /// The phone's Contact was sips.
    pub contact_sips: bool,
}

/// A request that was sent to a phone: in our branch towards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The transaction.
    pub transaction: u64,
    /// A keyed digest of the flow it was sent to.
    pub source: u64,
    /// The phone's binding.
    pub binding: Option<Token>,
    /// The stream connection of Asterisk's that the request came from; its UDP address otherwise.
    pub inside: Option<Flow>,
}

impl Key {
    /// A key from its bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        let half =
            |number: u8| hash(SipHasher24::new_with_key(&bytes), Purpose::Transaction, &[&[number]]).to_be_bytes();
        let mut open = [0; 16];
        for (to, from) in open.iter_mut().zip(half(0).into_iter().chain(half(1))) {
            *to = from;
        }
        Self { bytes, open }
    }

    fn mac(&self, purpose: Purpose, parts: &[&[u8]]) -> u64 {
        hash(SipHasher24::new_with_key(&self.bytes), purpose, parts)
    }

    /// The token of a contact, stable over reconnects: of the AoR and what names the phone.
    pub fn contact(&self, aor: &[u8], phone: &[&[u8]]) -> Token {
        let parts: Vec<&[u8]> = [aor].into_iter().chain(phone.iter().copied()).collect();
        hex(self.mac(Purpose::Contact, &parts))
    }

    /// The transaction value of a request: the same for a retransmission, its CANCEL and the ACK to a non-2xx
    /// (RFC 3261 §16.11). It keeps transactions apart and authenticates nothing, so the faster hash does.
    pub fn transaction(&self, parts: &[&[u8]]) -> u64 {
        hash(SipHasher13::new_with_key(&self.open), Purpose::Transaction, parts)
    }

    /// The To tag of our own response (RFC 3261 §8.2.7: the same for a retransmission).
    pub fn to_tag(&self, parts: &[&[u8]]) -> u64 {
        self.mac(Purpose::ToTag, parts)
    }

    /// A digest of a flow, to see later whether bytes came from it.
    pub fn source(&self, flow: &Flow) -> u64 {
        let mut plain = Vec::with_capacity(48);
        put_flow(&mut plain, flow);
        self.mac(Purpose::Source, &[&plain])
    }

    fn seal(&self, purpose: Purpose, mut plain: Vec<u8>, out: &mut Vec<u8>) {
        let mac = self.mac(purpose, &[&plain]);
        plain.extend_from_slice(&mac.to_be_bytes());
        let start = out.len();
        out.resize(start + BASE64URL_NOPAD.encode_len(plain.len()), 0);
        BASE64URL_NOPAD.encode_mut(&plain, out.get_mut(start..).unwrap_or_default());
    }

    fn open(&self, purpose: Purpose, text: &[u8]) -> Option<Vec<u8>> {
        let mut plain = BASE64URL_NOPAD.decode(text).ok()?;
        let at = plain.len().checked_sub(MAC)?;
        let (bytes, mac) = plain.split_at_checked(at)?;
        // The comparison's time says nothing of use: a guess costs a message, and 64 bits do not fall to guesses.
        if self.mac(purpose, &[bytes]).to_be_bytes() != mac {
            return None;
        }
        plain.truncate(at);
        Some(plain)
    }
}

impl Return {
    /// Appends the sealed text.
    pub fn seal(&self, key: &Key, out: &mut Vec<u8>) {
        let mut plain = Vec::with_capacity(64);
        plain.push(u8::from(self.sips) | u8::from(self.binding.is_some()) << 1);
        put_flow(&mut plain, &self.flow);
        plain.extend_from_slice(&self.asked.to_be_bytes());
        put_token(&mut plain, self.binding.as_ref());
        for (token, uri) in &self.contacts {
            put_token(&mut plain, Some(token));
            plain.extend_from_slice(&u16::try_from(uri.len()).unwrap_or(0).to_be_bytes());
            plain.extend_from_slice(uri);
        }
        key.seal(Purpose::Return, plain, out);
    }

    /// Opens a sealed text.
    pub fn open(key: &Key, text: &[u8]) -> Option<Self> {
        let plain = key.open(Purpose::Return, text)?;
        let mut rest = plain.as_slice();
        let flags = byte(&mut rest)?;
        let flow = flow(&mut rest)?;
        let asked = u64::from_be_bytes(*take(&mut rest)?);
        let binding = if flags & 2 == 0 { None } else { Some(token(&mut rest)?) };
        let mut contacts = Vec::new();
        while !rest.is_empty() {
            let token = token(&mut rest)?;
            let len = u16::from_be_bytes(*take::<2>(&mut rest)?);
            let (uri, tail) = rest.split_at_checked(len.into())?;
            contacts.push((token, uri.to_vec()));
            rest = tail;
        }
        Some(Self { flow, asked, sips: flags & 1 != 0, binding, contacts })
    }
}

impl Leg {
    /// Appends the sealed text.
    pub fn seal(&self, key: &Key, out: &mut Vec<u8>) {
        let mut plain = Vec::with_capacity(64);
        let flags = u8::from(self.sips) | u8::from(self.binding.is_some()) << 1 | u8::from(self.contact_sips) << 2;
        plain.push(flags);
        put_flow(&mut plain, &self.flow);
        put_token(&mut plain, self.binding.as_ref());
        key.seal(Purpose::Leg, plain, out);
    }

    /// Opens a sealed text.
    pub fn open(key: &Key, text: &[u8]) -> Option<Self> {
        let plain = key.open(Purpose::Leg, text)?;
        let mut rest = plain.as_slice();
        let flags = byte(&mut rest)?;
        let flow = flow(&mut rest)?;
        let binding = if flags & 2 == 0 { None } else { Some(token(&mut rest)?) };
        rest.is_empty().then_some(Self { flow, binding, sips: flags & 1 != 0, contact_sips: flags & 4 != 0 })
    }
}

impl Sent {
    /// Appends the sealed text.
    pub fn seal(&self, key: &Key, out: &mut Vec<u8>) {
        let mut plain = Vec::with_capacity(64);
        plain.push(u8::from(self.inside.is_some()) | u8::from(self.binding.is_some()) << 1);
        plain.extend_from_slice(&self.transaction.to_be_bytes());
        plain.extend_from_slice(&self.source.to_be_bytes());
        put_token(&mut plain, self.binding.as_ref());
        if let Some(flow) = &self.inside {
            put_flow(&mut plain, flow);
        }
        key.seal(Purpose::Sent, plain, out);
    }

    /// Opens a sealed text.
    pub fn open(key: &Key, text: &[u8]) -> Option<Self> {
        let plain = key.open(Purpose::Sent, text)?;
        let mut rest = plain.as_slice();
        let flags = byte(&mut rest)?;
        let transaction = u64::from_be_bytes(*take(&mut rest)?);
        let source = u64::from_be_bytes(*take(&mut rest)?);
        let binding = if flags & 2 == 0 { None } else { Some(token(&mut rest)?) };
        let inside = if flags & 1 == 0 { None } else { Some(flow(&mut rest)?) };
        rest.is_empty().then_some(Self { transaction, source, binding, inside })
    }
}

/// The hash of some parts, each with its length, so that no byte can move from one to the next.
fn hash(mut hasher: impl Hasher, purpose: Purpose, parts: &[&[u8]]) -> u64 {
    hasher.write_u8(purpose as u8);
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.finish()
}

/// 16 lower-case hex digits.
pub fn hex(value: u64) -> Token {
    let mut text = [0; 16];
    HEXLOWER.encode_mut(&value.to_be_bytes(), &mut text);
    text
}

/// A token as Asterisk wrote it back; it compares URI parameters without case.
pub fn parse_token(text: &[u8]) -> Option<Token> {
    let text: Token = text.try_into().ok()?;
    let lower = text.to_ascii_lowercase();
    lower.iter().all(u8::is_ascii_hexdigit).then(|| lower.try_into().ok()).flatten()
}

fn put_token(out: &mut Vec<u8>, token: Option<&Token>) {
    let mut raw = [0; 8];
    if let Some(token) = token
        && HEXLOWER.decode_mut(token, &mut raw).is_ok()
    {
        out.extend_from_slice(&raw);
    }
}

/// Transport, side, family; local and remote address; the connection of a stream.
fn put_flow(out: &mut Vec<u8>, flow: &Flow) {
    let transport = match flow.transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
        Transport::Tls => 2,
    };
    out.push(transport | u8::from(flow.side == Side::Inside) << 2 | u8::from(flow.remote.is_ipv6()) << 3);
    for address in [flow.local, flow.remote] {
        match address.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
        out.extend_from_slice(&address.port().to_be_bytes());
    }
    if flow.transport.is_stream() {
        out.extend_from_slice(&flow.id.0.to_be_bytes());
    }
}

fn flow(rest: &mut &[u8]) -> Option<Flow> {
    let kind = byte(rest)?;
    let transport = match kind & 3 {
        0 => Transport::Udp,
        1 => Transport::Tcp,
        _ => Transport::Tls,
    };
    let side = if kind & 4 == 0 { Side::Outside } else { Side::Inside };
    let mut address = || {
        let ip = if kind & 8 == 0 { IpAddr::from(*take::<4>(rest)?) } else { IpAddr::from(*take::<16>(rest)?) };
        Some(SocketAddr::new(ip, u16::from_be_bytes(*take(rest)?)))
    };
    let (local, remote) = (address()?, address()?);
    let id = if transport.is_stream() { FlowId(u64::from_be_bytes(*take(rest)?)) } else { FlowId(0) };
    Some(Flow { side, transport, local, remote, id })
}

fn token(rest: &mut &[u8]) -> Option<Token> {
    Some(hex(u64::from_be_bytes(*take(rest)?)))
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    take::<1>(rest).map(|[b]| *b)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows() -> Vec<Flow> {
        let flow = |side, transport, local: &str, remote: &str, id| Flow {
            side,
            transport,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            id: FlowId(id),
        };
        vec![
            flow(Side::Outside, Transport::Udp, "198.51.100.1:5060", "192.0.2.7:1024", 0),
            flow(Side::Outside, Transport::Tls, "[2001:db8::1]:5061", "[2001:db8::2]:40000", u64::MAX),
            flow(Side::Inside, Transport::Tcp, "127.0.0.1:5070", "127.0.0.1:40000", 7),
        ]
    }

    #[test]
    fn what_is_sealed_opens_again_and_only_there() {
        let key = Key::new([7; 16]);
        for flow in flows() {
            for binding in [None, Some(hex(0x0123_4567_89ab_cdef))] {
                let leg = Leg { flow, binding, sips: true, contact_sips: false };
                let back = Return {
                    flow,
                    asked: 7,
                    sips: false,
                    binding,
                    contacts: vec![(hex(1), b"sip:a@b".to_vec()), (hex(2), vec![])],
                };
                let sent = Sent { transaction: 1, source: key.source(&flow), binding, inside: Some(flow) };
                let (mut a, mut b, mut c) = (vec![], vec![], vec![]);
                leg.seal(&key, &mut a);
                back.seal(&key, &mut b);
                sent.seal(&key, &mut c);
                assert_eq!(
                    (Leg::open(&key, &a), Return::open(&key, &b), Sent::open(&key, &c)),
                    (Some(leg), Some(back), Some(sent))
                );
                assert_eq!((Leg::open(&key, &b), Return::open(&key, &a), Sent::open(&key, &a)), (None, None, None));
                assert_eq!(Leg::open(&Key::new([8; 16]), &a), None);
                for at in 0..a.len() {
                    let mut changed = a.clone();
                    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                    assert_eq!(Leg::open(&key, &changed), None, "byte {at}");
                    assert_eq!(Leg::open(&key, &a[..at]), None);
                }
            }
        }
    }

    #[test]
    fn tokens_are_short_lower_case_and_compared_without_case() {
        let token = Key::new([7; 16]).contact(b"a@b", &[b"x"]);
        assert_eq!(parse_token(&token.to_ascii_uppercase()), Some(token));
        assert_eq!(parse_token(b"xyz"), None);
        assert_ne!(token, Key::new([7; 16]).contact(b"a@bx", &[b""]));
    }
}
