//! Phones with IPv6: Asterisk behind the door knows IPv4's loopback only.

use crate::calls::everything;
use crate::common::lab::Lab;
use crate::common::link::{Tcp, Tls, Transport, Udp};
use crate::common::phone::Phone;

#[test]
fn a_udp_phone_with_ipv6_and_a_tls_phone_with_ipv4_call_each_other() {
    over_ipv6(Udp, Tls);
}

#[test]
fn a_tcp_phone_with_ipv6_and_a_udp_phone_with_ipv4_call_each_other() {
    over_ipv6(Tcp, Udp);
}

#[test]
fn a_tls_phone_with_ipv6_and_a_tcp_phone_with_ipv4_call_each_other() {
    over_ipv6(Tls, Tcp);
}

fn over_ipv6(transport: Transport, other: Transport) {
    let Some(lab) = Lab::host() else { return };
    let a = Phone::at(&lab, &lab.number("six"), transport, &lab.space("phone6"));
    let b = Phone::new(&lab, &lab.number("plain"), other);
    everything(&lab, a, b);
}
