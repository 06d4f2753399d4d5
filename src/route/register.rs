//! REGISTER: the phone's Contact becomes one that Asterisk can call on loopback, and comes back unchanged.
//!
//! Nothing is remembered before Asterisk's 200: the phone's own URIs travel, keyed, in our Via, which Asterisk echoes to
//! the door alone. A flood of REGISTERs costs no memory.
#![forbid(unsafe_code)]

use super::{Hop, aor, contacts};
use crate::bindings::{Binding, Report, Token};
use crate::gate::Reason;
use crate::sip::header::{Address, Name};
use crate::token::{CONTACT_PARAM, Return, parse_token};
use std::io::Write as _;

/// More contacts in one REGISTER than any phone has, and longer URIs than Asterisk takes (500 bytes), are refused.
const MOST_CONTACTS: usize = 8;
const LONGEST_CONTACT: usize = 512;

/// Puts `<sip:USER@INSIDE;fdt=TOKEN>` in the place of each Contact URI. Returns what the 200 has to undo.
pub(super) fn rewrite(hop: &mut Hop<'_, '_>) -> Result<Vec<(Token, Vec<u8>)>, Reason> {
    let aor = aor(&hop.message.to.uri);
    let mut given = Vec::new();
    for contact in contacts(hop.message) {
        let (at, contact) = contact.map_err(|_| Reason::Contacts)?;
        if !contact.uri.is_sip() {
            continue;
        }
        if given.len() == MOST_CONTACTS || contact.uri.text.len() > LONGEST_CONTACT {
            return Err(Reason::Contacts);
        }
        let token = token(hop, &aor, &contact, given.is_empty());
        let known = hop.plan.bindings.get(&token);
        // The user part stays the one that Asterisk knows, or a restarted phone with a new one would be a second contact.
        let user = known.as_ref().map_or_else(|| user(&contact), |binding| binding.user.as_bytes());
        let at = at.start + contact.uri_at.start..at.start + contact.uri_at.end;
        let inside = hop.plan.inside;
        hop.edits.replace(at, |text| {
            text.extend_from_slice(if contact.angle { b"sip:" } else { b"<sip:" });
            text.extend_from_slice(user);
            text.extend_from_slice(if user.is_empty() { b"" } else { b"@" });
            let _ = write!(text, "{inside};");
            text.extend_from_slice(CONTACT_PARAM);
            text.push(b'=');
            text.extend_from_slice(&token);
            text.extend_from_slice(if contact.angle { b"" } else { b">" });
        });
        given.push((token, contact.uri.text.to_vec()));
    }
    Ok(given)
}

/// The token of a contact, the same after every reconnect: by the phone's instance (RFC 5626 §4.1), else by its
/// Call-ID, which a phone keeps for its registrations (RFC 3261 §10.2.4) until it restarts. One that has restarted is known
/// by its Contact and address, or Asterisk would see a second contact where there was a refresh.
fn token(hop: &Hop<'_, '_>, aor: &str, contact: &Address<'_>, first: bool) -> Token {
    let key = &hop.plan.key;
    if let Some(instance) = contact.param(b"+sip.instance").filter(|instance| !instance.is_empty()) {
        return key.contact(aor.as_bytes(), &[instance, contact.param(b"reg-id").unwrap_or_default()]);
    }
    let restarted = hop.plan.bindings.same(aor, contact.uri.text, hop.from.remote.ip());
    let place = if first { &b""[..] } else { contact.uri.bare() };
    restarted.unwrap_or_else(|| key.contact(aor.as_bytes(), &[hop.message.call_id, place]))
}

/// The user of a contact without a password.
fn user<'a>(contact: &Address<'a>) -> &'a [u8] {
    contact.uri.user.and_then(|user| user.split(|&b| b == b':').next()).unwrap_or_default()
}

/// Takes Asterisk's 200 to a REGISTER: makes the bindings it confirms, and gives the phone its own contacts back. Those
/// of other phones are hidden.
pub(super) fn restore(hop: &mut Hop<'_, '_>, back: &Return) {
    let aor = aor(&hop.message.to.uri);
    let (mut fresh, mut present) = (Vec::new(), Vec::new());
    let mut lines = Vec::new();
    let mut whole = true;
    for contact in contacts(hop.message) {
        let Ok((_, contact)) = contact else {
            whole = false;
            continue;
        };
        let Some(token) = contact.uri.param(CONTACT_PARAM).and_then(parse_token) else { continue };
        present.push(token);
        let own = back.contacts.iter().find(|(given, _)| *given == token).map(|(_, uri)| uri.clone());
        let seconds = expires(hop, &contact);
        if let Some(uri) = &own
            && seconds > 0
        {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let expires = hop.now.0.saturating_add(seconds.saturating_mul(1000));
            let binding =
                Binding { aor: aor.clone(), contact: text(uri), user: text(user(&contact)), flow: back.flow, expires };
            fresh.push((token, binding));
        }
        // A query (no Contact, RFC 3261 §10.2.3) shows what is registered through the same flow.
        let queried = || hop.plan.bindings.get(&token).filter(|b| back.contacts.is_empty() && b.flow == back.flow);
        if let Some(uri) = own.or_else(|| queried().map(|b| b.contact.clone().into_bytes())) {
            lines.extend_from_slice(b"Contact: <");
            lines.extend_from_slice(&uri);
            lines.push(b'>');
            lines.extend_from_slice(contact.params);
            lines.extend_from_slice(b"\r\n");
        }
    }
    for field in hop.message.all(Name::Contact) {
        let lines = std::mem::take(&mut lines);
        hop.edits.replace(field.line(), |text| text.extend_from_slice(&lines));
    }
    let present = whole.then_some(present);
    hop.plan.bindings.update(Report { aor: &aor, asked: back.asked, fresh, present });
}

/// For how many seconds Asterisk keeps a contact.
fn expires(hop: &Hop<'_, '_>, contact: &Address<'_>) -> u64 {
    let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    let field = || hop.field(Name::Expires).map(|field| hop.message.at(field.value()));
    contact.param(b"expires").or_else(field).and_then(number).unwrap_or(3600)
}
