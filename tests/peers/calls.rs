//! Calls between phones, for every pair of transports: each test plays one pair from registration to the last BYE.

use crate::common::call::media_of;
use crate::common::lab::Lab;
use crate::common::link::{Tcp, Tls, Transport, Udp};
use crate::common::phone::Phone;
use crate::common::rtp::talk_to_each_other;

#[test]
fn a_udp_phone_and_a_udp_phone_call_each_other() {
    pair("plain", Udp, "plain", Udp);
}

#[test]
fn a_udp_phone_and_a_tcp_phone_call_each_other() {
    pair("plain", Udp, "nat", Tcp);
}

#[test]
fn a_udp_phone_and_a_tls_phone_call_each_other() {
    pair("nat", Udp, "plain", Tls);
}

#[test]
fn a_tcp_phone_and_a_udp_phone_call_each_other() {
    pair("single", Tcp, "bare", Udp);
}

#[test]
fn a_tcp_phone_and_a_tcp_phone_call_each_other() {
    pair("bare", Tcp, "nat", Tcp);
}

#[test]
fn a_tcp_phone_and_a_tls_phone_call_each_other() {
    pair("nat", Tcp, "single", Tls);
}

#[test]
fn a_tls_phone_and_a_udp_phone_call_each_other() {
    pair("plain", Tls, "nat", Udp);
}

#[test]
fn a_tls_phone_and_a_tcp_phone_call_each_other() {
    pair("nat", Tls, "plain", Tcp);
}

#[test]
fn a_tls_phone_and_a_tls_phone_call_each_other() {
    pair("single", Tls, "nat", Tls);
}

fn pair(kind_a: &str, transport_a: Transport, kind_b: &str, transport_b: Transport) {
    let Some(lab) = Lab::host() else { return };
    let a = Phone::new(&lab, &lab.number(kind_a), transport_a);
    let b = Phone::new(&lab, &lab.number(kind_b), transport_b);
    everything(&lab, a, b);
}

/// Asterisk's default, `direct_media=yes`: it asks the phones to send to each other, with addresses that are not its own.
#[test]
fn two_phones_with_direct_media_are_told_of_each_other() {
    let Some(lab) = Lab::host() else { return };
    let mut a = Phone::new(&lab, &lab.number("bare"), Tls);
    let mut b = Phone::new(&lab, &lab.number("bare"), Udp);
    a.register();
    b.register();
    let dialing = a.dial(&b.number);
    let incoming = b.ring();
    let at_b = b.answer(incoming);
    let at_a = a.hear_answer(dialing);
    for (phone, own, other) in [(&mut a, &at_a, &at_b), (&mut b, &at_b, &at_a)] {
        let offer = phone.expect("INVITE");
        assert_eq!(media_of(&offer), other.rtp.local(), "{offer}");
        phone.accept(&offer, own);
    }
    a.hang_up(&at_a);
    b.hear_hang_up(&at_b);
}

/// Registers two phones and plays everything phones do with each other.
pub(crate) fn everything(lab: &Lab, mut a: Phone, mut b: Phone) {
    a.register();
    b.register();
    call_and_let_the_called_one_hang_up(&mut a, &mut b);
    call_and_hang_up(&mut b, &mut a);
    hold_and_resume(&mut a, &mut b);
    cancel(&mut a, &mut b);
    cancel(&mut b, &mut a);
    busy(&mut a, &mut b);
    message(&mut a, &mut b);
    message(&mut b, &mut a);
    assert_eq!(lab.asterisk.contacts(&a.number).len(), 1);
    assert_eq!(a.register_for(0).code(), 200);
    assert_eq!(b.register_for(0).code(), 200);
    assert_eq!(lab.asterisk.contacts(&a.number), Vec::<String>::new());
}

fn call_and_let_the_called_one_hang_up(a: &mut Phone, b: &mut Phone) {
    let dialing = a.dial(&b.number);
    let incoming = b.ring();
    assert_eq!(incoming.invite.uri(), b.contact, "a phone is called at its own Contact");
    a.hear_ringing(&dialing);
    let at_b = b.answer(incoming);
    let at_a = a.hear_answer(dialing);
    talk_to_each_other(&at_a, &at_b);
    b.hang_up(&at_b);
    a.hear_hang_up(&at_a);
}

fn call_and_hang_up(a: &mut Phone, b: &mut Phone) {
    let dialing = a.dial(&b.number);
    let incoming = b.ring();
    let at_b = b.answer(incoming);
    let at_a = a.hear_answer(dialing);
    a.hang_up(&at_a);
    b.hear_hang_up(&at_b);
}

fn hold_and_resume(a: &mut Phone, b: &mut Phone) {
    let dialing = a.dial(&b.number);
    let incoming = b.ring();
    let at_b = b.answer(incoming);
    let at_a = a.hear_answer(dialing);
    for (phone, call) in [(&mut *a, &at_a), (&mut *b, &at_b)] {
        assert_eq!(phone.offer(call, "sendonly"), "recvonly", "on hold");
        assert_eq!(phone.offer(call, "sendrecv"), "sendrecv", "resumed");
    }
    talk_to_each_other(&at_a, &at_b);
    a.hang_up(&at_a);
    b.hear_hang_up(&at_b);
}

fn cancel(a: &mut Phone, b: &mut Phone) {
    let dialing = a.dial(&b.number);
    let incoming = b.ring();
    a.hear_ringing(&dialing);
    a.cancel(dialing);
    b.hear_cancel(&incoming);
}

fn busy(a: &mut Phone, b: &mut Phone) {
    let dialing = a.dial(&b.number);
    let incoming = b.ring();
    b.refuse(&incoming, "486 Busy Here");
    assert_eq!(a.hear_refusal(&dialing).code(), 486);
}

fn message(a: &mut Phone, b: &mut Phone) {
    let mut ask = a.to_number("MESSAGE", &b.number);
    ask.body = "grüß dich".to_owned();
    ask.body_type = "text/plain";
    assert_eq!(a.ask(ask).code(), 202);
    let heard = b.expect("MESSAGE");
    assert_eq!(heard.body(), "grüß dich");
    b.reply(&heard, "200 OK", "m", &[], "");
}
