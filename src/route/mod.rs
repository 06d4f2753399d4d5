//! Routing: a permit and a message become bytes for the next hop (RFC 3261 §16, stateless but for the bindings).
//!
//! `inward` goes to Asterisk, `outward` comes from it. Neither has an opinion: what may pass was decided by the gate,
//! and both take its [`Permit`](crate::gate::Permit).
#![forbid(unsafe_code)]

mod inward;
mod outward;
mod register;
mod sdp;
mod strip;

use crate::bindings::Bindings;
use crate::config::{Config, Listener};
use crate::flow::{Flow, FlowId, Now, Outbox, Send, Side, Transport};
use crate::gate::Reason;
use crate::sip::edit::Edits;
use crate::sip::head::Field;
use crate::sip::header::{Address, Name, holds, list};
use crate::sip::message::Message;
use crate::sip::uri::{Scheme, Uri};
use crate::token::{BRANCH, Key};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use strip::Strip;

/// What routing has to know of the door.
pub struct Plan {
    /// The key of the tokens.
    pub key: Key,
    /// Who is registered where.
    pub bindings: Bindings,
    /// Asterisk.
    backend: SocketAddr,
    /// The door's loopback address that Asterisk answers to.
    inside: SocketAddr,
    listeners: Vec<Listener>,
    strip: Strip,
    name: String,
    /// Our Via towards Asterisk, up to what differs from request to request.
    via: Vec<u8>,
}

impl Plan {
    /// The plan of these settings.
    pub fn new(config: &Config, key: Key, bindings: Bindings) -> Self {
        Self {
            key,
            bindings,
            backend: config.backend,
            inside: config.inside,
            listeners: config.listeners.clone(),
            strip: Strip::new(&config.gate.strip),
            name: config.names.first().cloned().unwrap_or_default(),
            via: [format!("Via: SIP/2.0/UDP {};rport;branch=", config.inside).as_bytes(), BRANCH].concat(),
        }
    }

    /// The way to Asterisk.
    pub fn asterisk(&self) -> Flow {
        Flow { side: Side::Inside, transport: Transport::Udp, local: self.inside, remote: self.backend, id: FlowId(0) }
    }

    /// Whether a host is the address at which this flow reached us: what a phone writes into its Route when an address is
    /// set as its outbound proxy.
    pub fn is_here(&self, flow: &Flow, host: &[u8]) -> bool {
        address(host).is_some_and(|ip| ip == flow.local.ip() || ip == self.advertised(flow))
    }

    /// The address of ours that the peer of a flow can send media to.
    fn advertised(&self, flow: &Flow) -> IpAddr {
        let serves = |l: &&Listener| {
            l.transport == flow.transport
                && l.address.port() == flow.local.port()
                && (l.address.ip() == flow.local.ip()
                    || l.address.ip().is_unspecified() && l.address.is_ipv4() == flow.local.is_ipv4())
        };
        self.listeners.iter().find(serves).and_then(|l| l.advertise).unwrap_or(flow.local.ip())
    }
}

/// One message on its way through the door.
pub struct Hop<'h, 'm> {
    /// The door.
    pub plan: &'h Plan,
    /// The time.
    pub now: Now,
    /// Where the message came from.
    pub from: &'h Flow,
    /// The message.
    pub message: &'h Message<'m>,
    /// What changes in it.
    pub edits: &'h mut Edits,
}

impl Hop<'_, '_> {
    /// Makes the edits and puts the result into the outbox.
    fn send(self, to: Flow, out: &mut Outbox) {
        let start = out.bytes.len();
        self.edits.apply(self.message.bytes, &mut out.bytes);
        out.sends.push(Send { to, range: start..out.bytes.len() });
    }

    /// RFC 3261 §16.6 step 3.
    fn max_forwards(&mut self) {
        match &self.message.max_forwards {
            Some((hops, at)) => {
                self.edits.replace(at.clone(), |text| number(text, usize::from(hops.saturating_sub(1))))
            }
            None => self.edits.insert(self.message.first_field, |text| text.extend_from_slice(b"Max-Forwards: 70\r\n")),
        }
    }

    /// Takes out the topmost Via value, which is ours.
    fn pop_via(&mut self) {
        let at = self.message.via_at.clone();
        let Some(field) = self.message.all(Name::Via).next() else { return };
        let rest = at.end..field.value().end;
        if rest.is_empty() {
            self.edits.delete(field.line());
        } else {
            // A list: the comma goes too.
            let comma = self.message.at(rest).iter().position(|&b| b == b',').map_or(0, |len| len + 1);
            self.edits.delete(at.start..at.end + comma);
        }
    }

    /// Content-Length says how long the body has become; a message on a stream needs one (§18.3).
    fn content_length(&mut self) {
        let body = self.message.body().len().saturating_add_signed(self.edits.growth_from(self.message.head));
        match self.message.all(Name::ContentLength).next() {
            Some(field) if body != self.message.body().len() => {
                self.edits.replace(field.value(), |text| number(text, body))
            }
            Some(_) => {}
            None => self.edits.insert(self.message.head - 2, |text| {
                text.extend_from_slice(b"Content-Length: ");
                number(text, body);
                text.extend_from_slice(b"\r\n");
            }),
        }
    }

    /// Changes the scheme of every Contact URI that has the scheme `from`.
    fn contact_scheme(&mut self, from: Scheme) {
        // Hardly any message has one of the two; most need no second look.
        let word: &[u8] = if from == Scheme::Sips { b"sips:" } else { b"sip:" };
        if !self.message.all(Name::Contact).any(|field| holds(self.message.at(field.value()), word)) {
            return;
        }
        for value in self.message.values(Name::Contact).flatten() {
            if let Ok(contact) = Address::parse(self.message.at(value.clone())) {
                self.scheme(&contact.uri, value.start + contact.uri_at.start, from);
            }
        }
    }

    /// Writes the other of sip and sips over a URI's scheme if it is `from`.
    fn scheme(&mut self, uri: &Uri<'_>, at: usize, from: Scheme) {
        if uri.scheme == from {
            match from {
                Scheme::Sips => self.edits.delete(at + 3..at + 4),
                Scheme::Sip => self.edits.insert(at + 3, |text| text.push(b's')),
                Scheme::Other => {}
            }
        }
    }

    /// Takes URI parameters out of a URI that stands at `at`.
    fn drop_params(&mut self, uri: &Uri<'_>, at: usize, names: &[&[u8]]) {
        for span in names.iter().flat_map(|name| uri.param_spans(name)) {
            self.edits.delete(at + span.start..at + span.end);
        }
    }

    /// Where the URI of To stands in the message.
    fn to_uri_at(&self) -> usize {
        self.field(Name::To).map_or(0, |field| field.value().start) + self.message.to.uri_at.start
    }

    fn field(&self, name: Name) -> Option<&'_ Field> {
        self.message.all(name).next()
    }

    /// Whether this request begins a dialog whose later requests must come through the door (§16.6 step 4).
    fn begins_dialog(&self) -> bool {
        let begins = matches!(self.message.method(), Some(b"INVITE" | b"SUBSCRIBE" | b"REFER" | b"NOTIFY"));
        begins && !self.message.in_dialog()
    }

    /// What makes this transaction's branch (§16.11): the sender's branch where it is unique by RFC 3261, else what
    /// RFC 2543 tells transactions apart by. CANCEL and the ACK to a non-2xx give the same value as their INVITE.
    fn transaction(&self) -> u64 {
        let via = &self.message.via;
        let ip = match self.from.remote.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let branch = via.param(b"branch").filter(|branch| branch.len() > 7 && branch.starts_with(b"z9hG4bK"));
        let tag = self.message.from.param(b"tag").unwrap_or_default();
        let (first, second) = match branch {
            Some(branch) => (branch, via.sent_by),
            None => (via.text, self.message.uri().map_or(&[][..], |uri| uri.text)),
        };
        self.plan.key.transaction(&[first, second, &ip, self.message.call_id, self.message.cseq, tag])
    }
}

/// The address-of-record of a To or From URI: `user@host`, the host in lower case.
fn aor(uri: &Uri<'_>) -> String {
    let mut text = String::from_utf8_lossy(uri.user.unwrap_or_default()).into_owned();
    text.push('@');
    text.push_str(&String::from_utf8_lossy(uri.host).to_ascii_lowercase());
    text
}

/// The address that a host is, if it is one.
fn address(host: &[u8]) -> Option<IpAddr> {
    let text = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(host);
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Appends a number.
fn number(text: &mut Vec<u8>, value: usize) {
    // Writing into a Vec cannot fail.
    let _ = write!(text, "{value}");
}

/// The contacts of a message with where each stands, `*` left out.
fn contacts<'m>(message: &Message<'m>) -> impl Iterator<Item = Result<(Range<usize>, Address<'m>), Reason>> {
    let bytes = message.bytes;
    let lists = message.all(Name::Contact).filter(move |field| bytes.get(field.value()) != Some(b"*"));
    lists.flat_map(move |field| {
        let at = field.value().start;
        list(bytes.get(field.value()).unwrap_or_default()).map(move |value| {
            let value = value?;
            let value = at + value.start..at + value.end;
            Ok((value.clone(), Address::parse(bytes.get(value).unwrap_or_default())?))
        })
    })
}
