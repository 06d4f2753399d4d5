//! Phones behind a router that masquerades them, with a port of its own for each connection.

use crate::calls::everything;
use crate::common::lab::Lab;
use crate::common::link::{Tcp, Tls, Transport, Udp};
use crate::common::phone::Phone;

#[test]
fn a_udp_phone_behind_nat_and_an_open_tls_phone_call_each_other() {
    behind_nat("nat", Udp, Tls);
}

#[test]
fn a_tcp_phone_behind_nat_and_an_open_udp_phone_call_each_other() {
    behind_nat("plain", Tcp, Udp);
}

#[test]
fn a_tls_phone_behind_nat_and_an_open_tcp_phone_call_each_other() {
    behind_nat("plain", Tls, Tcp);
}

#[test]
fn two_phones_behind_the_same_nat_call_each_other() {
    let Some(lab) = Lab::host() else { return };
    let home = lab.space("home");
    let a = Phone::at(&lab, &lab.number("plain"), Udp, &home);
    let b = Phone::at(&lab, &lab.number("nat"), Tls, &home);
    everything(&lab, a, b);
}

fn behind_nat(kind: &str, transport: Transport, other: Transport) {
    let Some(lab) = Lab::host() else { return };
    let a = Phone::at(&lab, &lab.number(kind), transport, &lab.space("home"));
    let b = Phone::new(&lab, &lab.number("plain"), other);
    everything(&lab, a, b);
}
