//! Registrations: what Asterisk keeps, and what the phone is told.

use crate::common::lab::{Lab, Seat};
use crate::common::link::{Tcp, Tls, Transport, Udp};
use crate::common::phone::Phone;
use crate::common::{random, wait};

#[test]
fn a_wrong_password_is_refused_by_asterisk_and_the_phone_is_told() {
    let Some(lab) = Lab::host() else { return };
    for transport in Transport::ALL {
        let mut phone = Phone::new(&lab, &lab.number("plain"), transport);
        phone.password = "wrong".to_owned();
        assert_eq!(phone.register_for(120).code(), 401);
        assert_eq!(lab.asterisk.contacts(&phone.number).len(), 0);
    }
}

#[test]
fn a_phone_that_registers_again_refreshes_its_contact() {
    let Some(lab) = Lab::host() else { return };
    for (kind, transport) in [("single", Udp), ("plain", Tcp), ("nat", Tls)] {
        let mut phone = Phone::new(&lab, &lab.number(kind), transport);
        phone.register();
        phone.register();
        assert_eq!(lab.asterisk.contacts(&phone.number).len(), 1);
    }
}

#[test]
fn a_phone_that_reconnects_has_one_contact_and_is_called_there() {
    let Some(lab) = Lab::host() else { return };
    let mut caller = Phone::new(&lab, &lab.number("plain"), Udp);
    caller.register();
    for kind in ["single", "plain", "nat", "bare"] {
        for transport in Transport::ALL {
            let mut phone = Phone::new(&lab, &lab.number(kind), transport);
            phone.register();
            phone.reconnect();
            phone.register();
            assert_one_contact_and_call(&lab, &mut caller, &mut phone);
        }
    }
}

/// After a reboot a phone registers with another Call-ID; its instance says that it is the same one (RFC 5626 §4.1).
#[test]
fn a_phone_with_an_instance_that_reboots_has_one_contact() {
    let Some(lab) = Lab::host() else { return };
    let mut caller = Phone::new(&lab, &lab.number("plain"), Tcp);
    caller.register();
    for transport in Transport::ALL {
        let mut phone = Phone::new(&lab, &lab.number("single"), transport);
        phone.instance = Some(format!("urn:uuid:00000000-0000-1000-8000-{}", random(12)));
        phone.register();
        phone.reconnect();
        phone.registration = random(16);
        phone.register();
        assert_one_contact_and_call(&lab, &mut caller, &mut phone);
    }
}

#[test]
fn a_phone_that_leaves_has_no_contact() {
    let Some(lab) = Lab::host() else { return };
    for transport in Transport::ALL {
        let mut phone = Phone::new(&lab, &lab.number("plain"), transport);
        phone.register();
        assert_eq!(phone.register_for(0).code(), 200);
        assert_eq!(lab.asterisk.contacts(&phone.number).len(), 0);
        phone.register();
        let star = phone.register_with(vec!["Contact: *".to_owned(), "Expires: 0".to_owned()]);
        assert_eq!(star.code(), 200);
        assert_eq!(lab.asterisk.contacts(&phone.number).len(), 0);
    }
}

#[test]
fn a_phone_may_ask_what_is_registered() {
    let Some(lab) = Lab::host() else { return };
    let mut phone = Phone::new(&lab, &lab.number("plain"), Tls);
    phone.register();
    let answer = phone.register_with(vec![]);
    assert_eq!(answer.code(), 200);
    assert_eq!(answer.all("Contact").len(), 1, "{answer}");
    assert!(answer.get("Contact").contains(&phone.contact), "{answer}");
}

#[test]
fn two_phones_of_one_number_both_ring_and_see_only_themselves() {
    let Some(lab) = Lab::host() else { return };
    let number = lab.number("plain");
    let mut desk = Phone::new(&lab, &number, Udp);
    let mut pocket = Phone::at(&lab, &number, Tls, &lab.space("home"));
    desk.register();
    let answer = pocket.register();
    assert_eq!(answer.all("Contact").len(), 1, "{answer}");
    assert_eq!(lab.asterisk.contacts(&number).len(), 2);
    let mut caller = Phone::new(&lab, &lab.number("nat"), Tcp);
    caller.register();
    // Dial(PJSIP/NUMBER) calls one contact; the dialplan takes a 7 before the number for all of them.
    let dialing = caller.dial(&format!("7{number}"));
    let (at_desk, in_pocket) = (desk.ring(), pocket.ring());
    let answered = pocket.answer(in_pocket);
    let call = caller.hear_answer(dialing);
    desk.hear_cancel(&at_desk);
    pocket.hang_up(&answered);
    caller.hear_hang_up(&call);
}

#[test]
fn a_qualified_phone_is_available_as_long_as_it_answers() {
    let Some(lab) = Lab::host() else { return };
    for transport in Transport::ALL {
        let space = lab.space(if transport == Tcp { "home" } else { "phone" });
        let mut phone = Phone::at(&lab, &lab.number("qualified"), transport, &space);
        phone.register();
        let becomes = |state: &str| {
            wait(&format!("{} over {transport:?} to be {state}", phone.number), || {
                (lab.asterisk.contact_state(&phone.number)? == state).then_some(())
            });
        };
        becomes("Avail");
        assert!(phone.qualified() > 0);
        phone.mute();
        becomes("Unavail");
    }
}

fn assert_one_contact_and_call(lab: &Seat, caller: &mut Phone, phone: &mut Phone) {
    let contacts = lab.asterisk.contacts(&phone.number);
    assert_eq!(contacts.len(), 1, "{contacts:?}");
    let dialing = caller.dial(&phone.number);
    let incoming = phone.ring();
    assert_eq!(incoming.invite.uri(), phone.contact);
    let called = phone.answer(incoming);
    let call = caller.hear_answer(dialing);
    caller.hang_up(&call);
    phone.hear_hang_up(&called);
}
