//! The door and Asterisk together behind a gateway that publishes their ports, as in a container.

use crate::calls::everything;
use crate::common::lab::Lab;
use crate::common::link::{Tcp, Tls, Transport, Udp};
use crate::common::phone::Phone;

#[test]
fn in_a_container_a_udp_phone_and_a_tls_phone_call_each_other() {
    published(Udp, Tls);
}

#[test]
fn in_a_container_a_tls_phone_and_a_tcp_phone_call_each_other() {
    published(Tls, Tcp);
}

#[test]
fn in_a_container_a_tcp_phone_behind_nat_and_a_udp_phone_call_each_other() {
    let Some(lab) = Lab::container() else { return };
    let a = Phone::at(&lab, &lab.number("nat"), Tcp, &lab.space("home"));
    let b = Phone::new(&lab, &lab.number("plain"), Udp);
    everything(&lab, a, b);
}

fn published(transport: Transport, other: Transport) {
    let Some(lab) = Lab::container() else { return };
    let a = Phone::new(&lab, &lab.number("plain"), transport);
    let b = Phone::new(&lab, &lab.number("nat"), other);
    everything(&lab, a, b);
}
