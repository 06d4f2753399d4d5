//! From outside to Asterisk.
#![forbid(unsafe_code)]

use super::{Hop, aor, register};
use crate::flow::{Outbox, Transport};
use crate::gate::{Path, Permit, Reason};
use crate::sip::header::{Address, Name};
use crate::sip::message::Start;
use crate::sip::reply;
use crate::sip::uri::{Scheme, Uri, is_named};
use crate::token::{CONTACT_PARAM, Leg, ROUTE_USER, Return, Sent, VIA_PARAM, hex};
use std::io::Write as _;

/// URI parameters that steer Asterisk: our own token, and its `line` (which identifies an outbound registration).
const STEERING: [&[u8]; 2] = [CONTACT_PARAM, b"line"];

impl Hop<'_, '_> {
    /// A request on its way to Asterisk.
    pub fn request_inward(mut self, permit: &Permit, path: &Path, out: &mut Outbox) -> Result<(), Reason> {
        // The permit is the proof that the gate has seen this message; routing asks nothing of it.
        let _ = permit.by();
        self.start_line(path);
        let register = self.message.method() == Some(b"REGISTER");
        let contacts = if register {
            register::rewrite(&mut self)?
        } else {
            self.contact_scheme(Scheme::Sips);
            Vec::new()
        };
        let begins = self.begins_dialog();
        let lasting = self.from.transport.is_stream() || begins;
        let binding = lasting.then(|| self.plan.bindings.on(self.from, &aor(&self.message.from.uri))).flatten();
        let sips = self.message.uri().is_some_and(|uri| uri.scheme == Scheme::Sips);
        self.push_via(&Return { flow: *self.from, asked: self.now.0, sips, binding, contacts });
        if begins {
            let contact_sips = self.message.values(Name::Contact).flatten().next().is_some_and(|value| {
                Address::parse(self.message.at(value)).is_ok_and(|contact| contact.uri.scheme == Scheme::Sips)
            });
            self.record_route(&Leg { flow: *self.from, binding, sips, contact_sips });
        }
        self.edits.replace(self.message.via_at.clone(), |text| reply::stamp(&self.message.via, self.from.remote, text));
        self.max_forwards();
        let (to, at) = (self.message.to.uri, self.to_uri_at());
        self.drop_params(&to, at, &STEERING);
        self.strip(|name| name == Name::Route);
        self.content_length();
        let asterisk = self.plan.asterisk();
        self.send(asterisk, out);
        Ok(())
    }

    /// A response to a request of Asterisk's.
    pub fn response_inward(mut self, permit: &Permit, sent: &Sent, out: &mut Outbox) {
        let _ = permit.by();
        self.version(0);
        self.pop_via();
        self.contact_scheme(Scheme::Sips);
        self.strip(|_| false);
        self.content_length();
        let to = sent.inside.unwrap_or_else(|| self.plan.asterisk());
        self.send(to, out);
    }

    /// The Request-URI: sip, without what steers Asterisk; a strict router's is in its last Route (RFC 3261 §16.4).
    fn start_line(&mut self, path: &Path) {
        let Start::Request { uri, uri_at, .. } = &self.message.start else { return };
        let last = path.last.clone().filter(|_| path.strict);
        match last.and_then(|value| Address::parse(self.message.at(value)).ok()) {
            Some(target) => self.edits.replace(uri_at.clone(), |text| strict_target(&target.uri, text)),
            None => {
                self.scheme(uri, uri_at.start, Scheme::Sips);
                self.drop_params(uri, uri_at.start, &STEERING);
            }
        }
        self.version(uri_at.end + 1);
    }

    /// The version may come in lower case; it is sent as §7.1 says.
    fn version(&mut self, at: usize) {
        if self.message.at(at..at + 3) != b"SIP" {
            self.edits.replace(at..at + 3, |text| text.extend_from_slice(b"SIP"));
        }
    }

    fn push_via(&mut self, back: &Return) {
        let (branch, plan) = (hex(self.transaction()), self.plan);
        self.edits.insert(self.message.first_field, |text| {
            text.extend_from_slice(&plan.via);
            text.extend_from_slice(&branch);
            text.push(b';');
            text.extend_from_slice(VIA_PARAM);
            text.push(b'=');
            back.seal(&plan.key, text);
            text.extend_from_slice(b"\r\n");
        });
    }

    /// Double Record-Route (RFC 5658 §4): Asterisk's next hop is the inner entry, the phone's the outer one.
    fn record_route(&mut self, leg: &Leg) {
        let host = self.message.uri().map_or(&[][..], |uri| uri.host);
        let name = match String::from_utf8_lossy(host).to_ascii_lowercase() {
            name if name.is_empty() => self.plan.name.clone(),
            name => name,
        };
        let inner = RecordRoute { leg, name: None };
        let outer = RecordRoute { leg, name: Some(&name) };
        let at = self.message.first_field;
        for entry in [inner, outer] {
            let plan = self.plan;
            self.edits.insert(at, |text| entry.write(plan, text));
        }
    }

    /// Takes out the header fields that are not for Asterisk to see from outside.
    fn strip(&mut self, also: impl Fn(Name) -> bool) {
        for field in self.message.fields {
            let stripped = field.name == Name::Other && self.plan.strip.holds(self.message.at(field.name_at()));
            if stripped || also(field.name) {
                self.edits.delete(field.line());
            }
        }
    }
}

/// The Request-URI that a strict router moved into its last Route: sip, without what steers Asterisk, and without the
/// headers that no Request-URI has (§19.1.1).
fn strict_target(uri: &Uri<'_>, text: &mut Vec<u8>) {
    let sips = uri.scheme == Scheme::Sips;
    text.extend_from_slice(if sips { b"sip" } else { b"" });
    text.extend_from_slice(uri.bare().get(if sips { 4.. } else { 0.. }).unwrap_or_default());
    for param in uri.params.split(|&b| b == b';').skip(1) {
        let name = param.split(|&b| b == b'=').next().unwrap_or_default();
        if !STEERING.iter().any(|steering| is_named(name, steering)) {
            text.push(b';');
            text.extend_from_slice(param);
        }
    }
}

/// One Record-Route entry: with a name it is the phone's, without it Asterisk's.
pub(super) struct RecordRoute<'a> {
    pub(super) leg: &'a Leg,
    pub(super) name: Option<&'a str>,
}

impl RecordRoute<'_> {
    pub(super) fn write(&self, plan: &super::Plan, text: &mut Vec<u8>) {
        // A sips request keeps sips on every hop but the one inside (§16.6 step 4).
        let sips = self.leg.sips && self.name.is_some();
        let _ = write!(text, "Record-Route: <{}:", if sips { "sips" } else { "sip" });
        text.extend_from_slice(ROUTE_USER);
        self.leg.seal(&plan.key, text);
        let flow = &self.leg.flow;
        let _ = match self.name {
            None => write!(text, "@{}", plan.inside),
            // `transport=tls` has no place in a sips URI (RFC 3261 §26.2.2).
            Some(name) if sips && flow.transport == Transport::Tls => write!(text, "@{name}:{}", flow.local.port()),
            Some(name) => write!(text, "@{name}:{};transport={}", flow.local.port(), flow.transport.name()),
        };
        text.extend_from_slice(b";lr>\r\n");
    }
}
