//! From Asterisk to a phone.
#![forbid(unsafe_code)]

use super::inward::RecordRoute;
use super::{Hop, address, register, sdp};
use crate::bindings::{Binding, Token};
use crate::flow::{Flow, Outbox, Transport};
use crate::gate::{Path, Permit, Reason};
use crate::sip::header::{Name, list};
use crate::sip::message::Start;
use crate::sip::uri::{Scheme, Uri};
use crate::token::{BRANCH, CONTACT_PARAM, Leg, Return, Sent, parse_token};
use std::io::Write as _;
use std::sync::Arc;

/// Where a request of Asterisk's goes.
struct Target {
    flow: Flow,
    binding: Option<(Token, Arc<Binding>)>,
}

impl Hop<'_, '_> {
    /// A request to a phone: of a dialog by our Route, else by the token in the Request-URI.
    pub fn request_outward(mut self, permit: &Permit, path: &Path, out: &mut Outbox) -> Result<(), Reason> {
        let _ = permit.by();
        let Start::Request { uri, uri_at, .. } = self.message.start.clone() else { return Err(Reason::Malformed) };
        let target = self.target(&uri, path)?;
        let contact = target.binding.as_ref().filter(|_| path.leg.is_none() || self.is_inside(&uri)).map(|(_, b)| b);
        match (contact, path.leg) {
            (Some(binding), _) => self.edits.replace(uri_at, |text| phone_uri(&uri, binding, text)),
            (None, Some(Leg { contact_sips: true, .. })) => self.scheme(&uri, uri_at.start, Scheme::Sip),
            (None, _) => {}
        }
        let sips = path.leg.map_or_else(|| target.binding.as_ref().is_some_and(|(_, b)| is_sips(b)), |leg| leg.sips);
        if sips {
            self.contact_scheme(Scheme::Sip);
        }
        let token = target.binding.as_ref().map(|(token, _)| *token);
        let name = target.binding.as_ref().and_then(|(_, b)| b.aor.rsplit('@').next()).map(str::to_owned);
        let name = name.unwrap_or_else(|| self.plan.name.clone());
        self.push_via_outward(&target.flow, token, &name);
        if self.begins_dialog() {
            let leg = Leg { flow: target.flow, binding: token, sips, contact_sips: sips };
            for name in [Some(name.as_str()), None] {
                let plan = self.plan;
                self.edits.insert(self.message.first_field, |text| RecordRoute { leg: &leg, name }.write(plan, text));
            }
        }
        self.max_forwards();
        self.pop_routes(path.ours);
        let (to, at) = (self.message.to.uri, self.to_uri_at());
        self.drop_params(&to, at, &[CONTACT_PARAM]);
        sdp::repair(&mut self, &target.flow);
        self.content_length();
        self.send(target.flow, out);
        Ok(())
    }

    /// A response of Asterisk's to a request from outside.
    pub fn response_outward(mut self, permit: &Permit, back: &Return, out: &mut Outbox) {
        let _ = permit.by();
        self.pop_via();
        if self.message.cseq_method == b"REGISTER" {
            if matches!(self.message.start, Start::Response { code: 200..=299 }) {
                register::restore(&mut self, back);
            }
        } else if back.sips {
            self.contact_scheme(Scheme::Sip);
        }
        sdp::repair(&mut self, &back.flow);
        self.content_length();
        self.send(back.flow, out);
    }

    fn target(&self, uri: &Uri<'_>, path: &Path) -> Result<Target, Reason> {
        let binding = |token: Token| self.plan.bindings.get(&token).map(|binding| (token, binding));
        match path.leg {
            // The binding knows where the phone is now, the leg where it was when the dialog began.
            Some(leg) => {
                let binding = leg.binding.and_then(binding);
                let flow = binding.as_ref().map_or(leg.flow, |(_, b)| b.flow);
                Ok(Target { flow, binding })
            }
            None => {
                let binding = uri.param(CONTACT_PARAM).and_then(parse_token).and_then(binding);
                let binding = binding.ok_or(Reason::Gone)?;
                Ok(Target { flow: binding.1.flow, binding: Some(binding) })
            }
        }
    }

    /// Asterisk with rewrite_contact=yes takes the door's own address for the phone's.
    fn is_inside(&self, uri: &Uri<'_>) -> bool {
        uri.port == Some(self.plan.inside.port()) && address(uri.host) == Some(self.plan.inside.ip())
    }

    fn push_via_outward(&mut self, to: &Flow, binding: Option<Token>, name: &str) {
        let inside = self.from.transport.is_stream().then_some(*self.from);
        let sent = Sent { transaction: self.transaction(), source: self.plan.key.source(to), binding, inside };
        let (local, key) = (self.plan.advertised(to), &self.plan.key);
        self.edits.insert(self.message.first_field, |text| {
            let _ = write!(text, "Via: SIP/2.0/{} ", to.transport.via());
            let _ = match (to.transport, local) {
                // A phone that has lost the connection comes back with the name in its ClientHello.
                (Transport::Tls, _) => write!(text, "{name}"),
                (_, std::net::IpAddr::V4(ip)) => write!(text, "{ip}"),
                (_, std::net::IpAddr::V6(ip)) => write!(text, "[{ip}]"),
            };
            let _ = write!(text, ":{};rport;branch=", to.local.port());
            text.extend_from_slice(BRANCH);
            sent.seal(key, text);
            text.extend_from_slice(b"\r\n");
        });
    }

    /// Takes off the leading Route values of ours; Asterisk may write them in one line or in several.
    fn pop_routes(&mut self, mut count: usize) {
        for field in self.message.all(Name::Route) {
            let value = field.value();
            let all: Vec<_> = list(self.message.at(value.clone())).flatten().collect();
            match all.get(count) {
                _ if count == 0 => return,
                Some(next) => {
                    self.edits.delete(value.start..value.start + next.start);
                    return;
                }
                None => {
                    self.edits.delete(field.line());
                    count -= all.len();
                }
            }
        }
    }
}

/// The phone's own Contact URI; the user part is Asterisk's if it is another than the one it was given
/// (`Dial(PJSIP/number@endpoint)`).
fn phone_uri(asked: &Uri<'_>, binding: &Binding, text: &mut Vec<u8>) {
    let contact = binding.contact.as_bytes();
    let user = asked.user.unwrap_or_default();
    match Uri::parse(contact) {
        Ok(own) if user != binding.user.as_bytes() && !user.is_empty() => {
            let rest = own.user.map_or(contact.iter().position(|&b| b == b':').map_or(0, |at| at + 1), |own_user| {
                let start = contact.iter().position(|&b| b == b':').map_or(0, |at| at + 1);
                start + own_user.len() + 1
            });
            text.extend_from_slice(if own.scheme == Scheme::Sips { b"sips:" } else { b"sip:" });
            text.extend_from_slice(user);
            text.push(b'@');
            text.extend_from_slice(contact.get(rest..).unwrap_or_default());
        }
        _ => text.extend_from_slice(contact),
    }
}

fn is_sips(binding: &Binding) -> bool {
    binding.contact.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:"))
}
