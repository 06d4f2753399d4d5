//! Calls to Asterisk itself: audio in both directions, and the ways such a call ends.

use crate::common::call::within;
use crate::common::lab::Lab;
use crate::common::link::{Tcp, Tls, Transport, Udp};
use crate::common::phone::Phone;
use crate::common::sip::uri_of;

#[test]
fn a_phone_hears_its_own_echo() {
    let Some(lab) = Lab::host() else { return };
    for transport in Transport::ALL {
        for place in ["phone", "home"] {
            let mut phone = Phone::at(&lab, &lab.number("plain"), transport, &lab.space(place));
            phone.register();
            let call = phone.call("0600");
            let heard = call.rtp.talk(call.media, 0x55, 40);
            assert!(heard.of.get(&0x55).is_some_and(|n| *n >= 20), "{transport:?} from {place}: {heard:?}");
            assert_eq!(heard.from.iter().collect::<Vec<_>>(), [&call.media], "RTP comes from where it goes to");
            phone.hang_up(&call);
        }
    }
}

#[test]
fn a_phone_hears_what_an_extension_plays() {
    let Some(lab) = Lab::host() else { return };
    for transport in Transport::ALL {
        let mut phone = Phone::new(&lab, &lab.number("bare"), transport);
        phone.register();
        let call = phone.call("0601");
        let heard = call.rtp.talk(call.media, 0xff, 40);
        assert!(heard.packets >= 20, "{heard:?}");
        phone.hang_up(&call);
    }
}

#[test]
fn asterisk_hangs_up() {
    let Some(lab) = Lab::host() else { return };
    for transport in Transport::ALL {
        let mut phone = Phone::at(&lab, &lab.number("nat"), transport, &lab.space("home"));
        phone.register();
        let call = phone.call("0602");
        phone.hear_hang_up(&call);
    }
}

#[test]
fn a_call_that_only_rings_is_given_up() {
    let Some(lab) = Lab::host() else { return };
    for transport in Transport::ALL {
        let mut phone = Phone::new(&lab, &lab.number("plain"), transport);
        phone.register();
        let dialing = phone.dial("0603");
        phone.hear_ringing(&dialing);
        phone.cancel(dialing);
    }
}

#[test]
fn a_number_that_does_not_exist_is_not_found() {
    let Some(lab) = Lab::host() else { return };
    let mut phone = Phone::new(&lab, &lab.number("plain"), Tls);
    let dialing = phone.dial("0999");
    assert_eq!(phone.hear_refusal(&dialing).code(), 404);
}

/// `Dial(PJSIP/5551000@NUMBER)`: the phone is asked for the number that the dialplan wrote.
#[test]
fn the_user_part_that_the_dialplan_writes_reaches_the_phone() {
    let Some(lab) = Lab::host() else { return };
    for transport in Transport::ALL {
        let mut phone = Phone::new(&lab, &lab.number("plain"), transport);
        let mut caller = Phone::new(&lab, &lab.number("plain"), Udp);
        phone.register();
        let dialing = caller.dial(&format!("8{}", phone.number));
        let incoming = phone.ring();
        let host = phone.contact.split_once('@').unwrap().1;
        assert_eq!(incoming.invite.uri(), format!("sip:5551000@{host}"));
        assert!(!incoming.invite.to_string().contains("fdt="), "no token of ours is shown: {}", incoming.invite);
        phone.refuse(&incoming, "486 Busy Here");
        caller.hear_refusal(&dialing);
    }
}

/// A client of RFC 2543 puts the first route into the Request-URI and its target last (RFC 3261 §16.4, §16.12.1.2).
#[test]
fn a_strict_routing_phone_hangs_up() {
    let Some(lab) = Lab::host() else { return };
    for transport in [Udp, Tcp, Tls] {
        let mut phone = Phone::new(&lab, &lab.number("plain"), transport);
        phone.register();
        let call = phone.call("0600");
        let mut bye = within(&call, "BYE");
        bye.uri = uri_of(&call.routes[0]).to_owned();
        bye.routes = call.routes[1..].to_vec();
        bye.routes.push(format!("<{}>", call.target));
        let answer = phone.ask(bye);
        assert_eq!(answer.code(), 200, "{answer}");
    }
}

/// Asterisk has no TLS transport here: it must never see `sips:`, and the phone must see nothing else (RFC 5630 §4).
#[test]
fn a_phone_that_speaks_sips_calls_and_is_called() {
    let Some(lab) = Lab::host() else { return };
    let mut phone = Phone::new(&lab, &lab.number("plain"), Tls);
    phone.scheme = "sips";
    phone.contact = phone.contact.replace("sip:", "sips:").replace(";transport=tls", "");
    phone.register();
    let call = phone.call("0600");
    let heard = call.rtp.talk(call.media, 0x55, 30);
    assert!(heard.of.get(&0x55).is_some_and(|n| *n >= 15), "{heard:?}");
    phone.hang_up(&call);
    let call = phone.call("0602");
    phone.hear_hang_up(&call);
    let mut caller = Phone::new(&lab, &lab.number("nat"), Udp);
    let dialing = caller.dial(&phone.number);
    let incoming = phone.ring();
    assert_eq!(incoming.invite.uri(), phone.contact);
    let called = phone.answer(incoming);
    let call = caller.hear_answer(dialing);
    caller.hang_up(&call);
    phone.hear_hang_up(&called);
}

/// An INVITE of several KB goes to the phone whole, also when Asterisk was told to switch to TCP for it (RFC 3261 §18.1.1).
#[test]
fn a_large_invite_reaches_the_phone_also_when_asterisk_switches_to_tcp() {
    let tcp =
        "[system]\ntype=system\ndisable_tcp_switch=no\n[tcp]\ntype=transport\nprotocol=tcp\nbind=127.0.0.1:5080\n";
    for pjsip in ["", tcp] {
        let Some(lab) = Lab::own_with(pjsip) else { return };
        let mut caller = Phone::new(&lab, &lab.number("plain"), Udp);
        for transport in Transport::ALL {
            let mut phone = Phone::new(&lab, &lab.number("plain"), transport);
            phone.register();
            let dialing = caller.dial(&format!("9{}", phone.number));
            let incoming = phone.ring();
            assert!(incoming.invite.get("X-Large-29").starts_with("0123"), "{}", incoming.invite);
            let called = phone.answer(incoming);
            let call = caller.hear_answer(dialing);
            phone.hang_up(&called);
            caller.hear_hang_up(&call);
        }
    }
}
