//! Restarts and deaths: callers get an answer, phones are found again, nothing is left behind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "peers/common/mod.rs"]
mod common;

use common::lab::{Lab, Seat};
use common::link::{Tcp, Tls, Transport, Udp};
use common::phone::Phone;
use common::rtp::talk_to_each_other;
use common::{PATIENCE, wait};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn asterisk_restarts_under_load_and_every_caller_gets_an_answer() {
    let Some(lab) = Lab::own() else { return };
    let mut phones: Vec<Phone> = Transport::ALL
        .iter()
        .cycle()
        .take(9)
        .map(|transport| Phone::new(&lab, &lab.number("plain"), *transport))
        .collect();
    for phone in &mut phones {
        phone.register();
    }
    quiet("Asterisk's database", &lab.asterisk.database(), Duration::from_millis(1500)); // it commits each second
    let end = AtomicBool::new(false);
    let outcomes: Vec<Mutex<BTreeMap<Option<u16>, usize>>> = phones.iter().map(|_| Mutex::default()).collect();
    let each_has = |code: u16, least: usize| {
        wait(&format!("{least} times {code} for each phone"), || {
            let has = |of: &Mutex<BTreeMap<_, _>>| of.lock().unwrap().get(&Some(code)).is_some_and(|n| *n >= least);
            outcomes.iter().all(has).then_some(())
        });
    };
    std::thread::scope(|scope| {
        for (phone, outcomes) in phones.iter_mut().zip(&outcomes) {
            let end = &end;
            scope.spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    let outcome = phone.try_call("0600", Duration::from_secs(3));
                    *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            each_has(200, 3);
            lab.asterisk.kill();
            each_has(503, 3);
            lab.asterisk.start();
            for outcomes in &outcomes {
                outcomes.lock().unwrap().remove(&Some(200));
            }
            each_has(200, 3);
        }));
        end.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    for outcomes in outcomes {
        let outcomes = outcomes.into_inner().unwrap();
        // Beside 200 and the door's 503 there are Asterisk's own words while it starts (401, 488). What it had read and not
        // answered when it died, and what it reads before it is ready, no one answers; a phone has one call at a time.
        assert!(outcomes.get(&None).is_none_or(|lost| *lost <= 2), "{outcomes:?}");
    }
    // Nobody has registered again, and everybody can be called.
    let mut caller = Phone::new(&lab, &lab.number("nat"), Udp);
    for phone in &mut phones {
        call(&mut caller, phone);
    }
}

#[test]
fn after_a_restart_of_the_door_a_udp_phone_is_called_at_once() {
    let Some(lab) = Lab::own() else { return };
    for restart in [restart, crash] {
        let mut phones: Vec<Phone> = ["plain", "nat", "single"]
            .iter()
            .zip(["phone", "home", "phone"])
            .map(|(kind, place)| Phone::at(&lab, &lab.number(kind), Udp, &lab.space(place)))
            .collect();
        for phone in &mut phones {
            phone.register();
        }
        saved(&lab);
        restart(&lab);
        for phone in &mut phones {
            let mut caller = Phone::new(&lab, &lab.number("plain"), Tls);
            call(&mut caller, phone);
            assert_eq!(lab.asterisk.contacts(&phone.number).len(), 1);
            phone.register();
            assert_eq!(lab.asterisk.contacts(&phone.number).len(), 1);
        }
    }
}

#[test]
fn after_a_restart_of_the_door_a_stream_phone_is_called_when_it_is_back() {
    let Some(lab) = Lab::own() else { return };
    for (restart, transport) in [(restart as fn(&Seat), Tls), (crash, Tls), (restart, Tcp), (crash, Tcp)] {
        let mut phone = Phone::new(&lab, &lab.number("single"), transport);
        let mut caller = Phone::new(&lab, &lab.number("plain"), Udp);
        phone.register();
        saved(&lab);
        restart(&lab);
        phone.wait_closed();
        assert_unavailable(&lab, &mut caller, &phone.number);
        phone.reconnect();
        phone.register();
        assert_eq!(lab.asterisk.contacts(&phone.number).len(), 1);
        call(&mut caller, &mut phone);
    }
}

#[test]
fn a_call_to_a_phone_whose_connection_is_gone_is_refused_at_once() {
    let Some(lab) = Lab::own() else { return };
    let mut caller = Phone::new(&lab, &lab.number("plain"), Udp);
    for transport in [Tcp, Tls] {
        let mut phone = Phone::new(&lab, &lab.number("qualified"), transport);
        phone.register();
        let number = phone.number.clone();
        let becomes = |state: &str| {
            wait(state, || (lab.asterisk.contact_state(&number)? == state).then_some(()));
        };
        becomes("Avail");
        phone.cut();
        assert_unavailable(&lab, &mut caller, &phone.number);
        becomes("Unavail"); // OPTIONS to it stay unanswered, so that qualify tells the truth
        phone.reconnect();
        phone.register();
        becomes("Avail");
        call(&mut caller, &mut phone);
    }
}

#[test]
fn a_call_outlives_the_connection_of_the_phone_that_made_it() {
    let Some(lab) = Lab::own() else { return };
    for (kind, transport) in [("plain", Tls), ("nat", Tls), ("single", Tcp), ("plain", Udp)] {
        let mut phone = Phone::new(&lab, &lab.number(kind), transport);
        let mut other = Phone::new(&lab, &lab.number("plain"), Udp);
        phone.register();
        other.register();
        let dialing = phone.dial(&other.number);
        let incoming = other.ring();
        let at_other = other.answer(incoming);
        let at_phone = phone.hear_answer(dialing);
        phone.reconnect();
        phone.register();
        assert_eq!(phone.offer(&at_phone, "sendonly"), "recvonly", "it can still ask");
        assert_eq!(phone.offer(&at_phone, "sendrecv"), "sendrecv");
        talk_to_each_other(&at_phone, &at_other);
        other.hang_up(&at_other);
        phone.hear_hang_up(&at_phone); // on the new connection
        assert_eq!(lab.asterisk.contacts(&phone.number).len(), 1);
    }
}

#[test]
fn a_call_outlives_the_connection_of_the_phone_that_was_called() {
    let Some(lab) = Lab::own() else { return };
    for (kind, transport) in [("plain", Tls), ("nat", Tcp), ("single", Tls), ("nat", Udp)] {
        let mut phone = Phone::new(&lab, &lab.number(kind), transport);
        let mut other = Phone::new(&lab, &lab.number("plain"), Tcp);
        phone.register();
        let dialing = other.dial(&phone.number);
        let incoming = phone.ring();
        let at_phone = phone.answer(incoming);
        let at_other = other.hear_answer(dialing);
        phone.reconnect();
        phone.register();
        other.hang_up(&at_other);
        phone.hear_hang_up(&at_phone);
        assert_eq!(lab.asterisk.channels(), 0);
    }
}

#[test]
fn a_call_outlives_a_restart_of_the_door() {
    let Some(lab) = Lab::own() else { return };
    for transport in [Tls, Udp] {
        let mut phone = Phone::new(&lab, &lab.number("plain"), transport);
        let mut other = Phone::new(&lab, &lab.number("nat"), Udp);
        phone.register();
        other.register();
        let dialing = phone.dial(&other.number);
        let incoming = other.ring();
        let at_other = other.answer(incoming);
        let at_phone = phone.hear_answer(dialing);
        saved(&lab);
        crash(&lab);
        talk_to_each_other(&at_phone, &at_other); // media never went through the door
        if transport != Udp {
            phone.reconnect();
            phone.register();
        }
        phone.hang_up(&at_phone);
        other.hear_hang_up(&at_other);
    }
}

#[test]
fn three_hundred_tls_phones_stay_and_come_back_without_a_leak() {
    let Some(lab) = Lab::own() else { return };
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", lab.door.pid())).unwrap().count();
    let before = descriptors();
    let numbers = ["bare", "plain", "nat", "single", "srtp"]
        .iter()
        .flat_map(|kind| (0..60).map(|_| lab.number(kind)).collect::<Vec<_>>());
    // One after the other: only so many of one address may be new at a time.
    let mut phones: Vec<Phone> = numbers
        .map(|number| {
            let mut phone = Phone::new(&lab, &number, Tls);
            phone.register();
            phone
        })
        .collect();
    assert!(descriptors() >= before + phones.len());
    saved(&lab);
    crash(&lab);
    for phone in &mut phones {
        phone.wait_closed();
        phone.reconnect();
        phone.register();
    }
    let saved = lab.asterisk.cli("database show registrar");
    assert_eq!(saved.matches("registrar/contact/").count(), phones.len(), "no stale and no doubled contact");
    let mut caller = Phone::new(&lab, &lab.number("qualified"), Tls);
    for phone in phones.iter_mut().step_by(29) {
        call(&mut caller, phone);
    }
    drop((phones, caller));
    wait("the door to close its side", || (descriptors() <= before + 8).then_some(()));
}

/// No answer to a REGISTER waits for the door's disk: a crash may lose the last moment.
fn saved(lab: &Seat) {
    quiet("the store", &lab.door.state(), Duration::from_millis(300));
}

/// Waits until no file of a directory has been written for so long.
fn quiet(what: &str, directory: &Path, how_long: Duration) {
    wait(&format!("{what} to be quiet"), || {
        let files = std::fs::read_dir(directory).unwrap();
        let ages =
            files.map(|file| file.unwrap().metadata().unwrap().modified().unwrap().elapsed().unwrap_or_default());
        (ages.min()? > how_long).then_some(())
    });
}

fn restart(lab: &Seat) {
    lab.door.stop();
    lab.door.start();
}

fn crash(lab: &Seat) {
    lab.door.kill();
    lab.door.start();
}

/// One calls, the other answers, the first hangs up.
fn call(caller: &mut Phone, phone: &mut Phone) {
    let dialing = caller.dial(&phone.number);
    let incoming = phone.ring();
    assert_eq!(incoming.invite.uri(), phone.contact);
    let called = phone.answer(incoming);
    let call = caller.hear_answer(dialing);
    caller.hang_up(&call);
    phone.hear_hang_up(&called);
}

/// The caller hears 480 at once, and Asterisk's dialplan sees NOANSWER.
fn assert_unavailable(lab: &Seat, caller: &mut Phone, number: &str) {
    let start = Instant::now();
    let dialing = caller.dial(number);
    let answer = caller.hear_refusal(&dialing);
    assert_eq!(answer.code(), 480, "{answer}");
    assert!(start.elapsed() < PATIENCE / 4, "it took {:?}", start.elapsed());
    wait("the dialplan's word", || lab.asterisk.log().contains(&format!("DIALSTATUS {number} NOANSWER")).then_some(()));
}
