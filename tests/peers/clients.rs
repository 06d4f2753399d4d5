//! Clients that other people wrote: sipp, baresip, linphonec, pjsua2.

use crate::common::lab::Lab;
use crate::common::link::{Tcp, Tls, Transport, Udp};
use crate::common::phone::Phone;
use crate::common::tools::{Baresip, linphone, pjsua2, sipp};
use crate::common::wait;

#[test]
fn sipp_registers_and_calls_over_udp() {
    let Some(lab) = Lab::host() else { return };
    sipp(&lab, &lab.number("plain"), Udp);
}

#[test]
fn sipp_registers_and_calls_over_tcp() {
    let Some(lab) = Lab::host() else { return };
    sipp(&lab, &lab.number("plain"), Tcp);
}

#[test]
fn baresip_calls_over_udp_and_is_called() {
    baresip(Udp, "plain", "");
}

#[test]
fn baresip_calls_over_tcp_with_srtp_and_is_called() {
    baresip(Tcp, "srtp", ";mediaenc=srtp-mand");
}

fn baresip(transport: Transport, kind: &str, more: &str) {
    let Some(lab) = Lab::host() else { return };
    let number = lab.number(kind);
    let mut baresip = Baresip::start(&lab, &number, transport, &format!(";answermode=auto{more}"));
    wait("baresip's registration", || (lab.asterisk.contacts(&number).len() == 1).then_some(()));
    baresip.command("dial", &format!("sip:0600@{}", crate::common::NAME));
    baresip.hear("CALL_ESTABLISHED");
    baresip.hear("CALL_RTPESTAB");
    media_both_ways(&lab, &number);
    baresip.command("hangup", "");
    baresip.hear("CALL_CLOSED");
    wait("the end of the call", || lab.asterisk.media(&number).is_none().then_some(()));

    let mut caller = Phone::new(&lab, &lab.number("nat"), Tls);
    let call = caller.call(&number);
    let heard = call.rtp.talk(call.media, 0x33, 50);
    assert!(heard.packets >= 20, "{heard:?}");
    caller.hang_up(&call);
    wait("the end of the call", || lab.asterisk.media(&number).is_none().then_some(()));
}

/// linphonec names the door in its ClientHello and checks the certificate against that name.
#[test]
fn linphone_calls_over_tls_with_srtp() {
    let Some(lab) = Lab::host() else { return };
    let number = lab.number("srtp");
    let mut linphone = linphone(&lab, &number);
    wait("linphonec's registration", || (lab.asterisk.contacts(&number).len() == 1).then_some(()));
    linphone.say(&format!("call sip:0600@{}", crate::common::NAME));
    linphone.hear("Media streams established");
    media_both_ways(&lab, &number);
    linphone.say("terminate");
    linphone.hear("ended (No error)");
    linphone.say("quit");
    assert!(linphone.end());
}

#[test]
fn pjsua2_calls_over_tls_with_srtp_and_hears_itself() {
    let Some(lab) = Lab::host() else { return };
    for place in ["phone", "home"] {
        let said = pjsua2(&lab, &lab.space(place), &lab.number("srtp"), Tls, &["srtp"]);
        let Some(said) = said else { return };
        assert!(said.contains("\nsrtp\n"), "{said}");
        assert!(said.contains("\nrtp "), "{said}");
    }
}

#[test]
fn pjsua2_calls_over_udp_and_tcp_and_hears_itself() {
    let Some(lab) = Lab::host() else { return };
    for transport in [Udp, Tcp] {
        let Some(said) = pjsua2(&lab, &lab.space("home"), &lab.number("nat"), transport, &[]) else { return };
        assert!(said.contains("\nrtp "), "{said}");
    }
}

#[test]
fn in_a_container_pjsua2_calls_over_tls_with_srtp_and_hears_itself() {
    let Some(lab) = Lab::container() else { return };
    let said = pjsua2(&lab, &lab.space("phone"), &lab.number("srtp"), Tls, &["srtp"]);
    let Some(said) = said else { return };
    assert!(said.contains("\nsrtp\n") && said.contains("\nrtp "), "{said}");
}

/// Asterisk counts what it received from the number's phone and what it sent back.
fn media_both_ways(lab: &Lab, number: &str) {
    wait("media in both directions", || {
        let (received, sent) = lab.asterisk.media(number)?;
        (received >= 20 && sent >= 20).then_some(())
    });
}
