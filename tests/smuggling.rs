//! One message inside another: every pairing of two lengths, of the forms of their name and of what ends their lines, with
//! a second request behind the first. No pairing gets the second request's hosts past the gate.

mod kit;

use kit::judge::holds;
use kit::shown;
use kit::stage::{NAME, Stage, outside};
use sipdoor::flow::Transport;
use sipdoor::gate::{Pass, Reason};
use sipdoor::proxy::Outcome;

const NAMES: [&str; 9] = [
    "Content-Length:",
    "content-length :",
    "CONTENT-LENGTH\t:",
    "l:",
    "L :",
    "Content-Length\r\n :",
    "l\r\n\t:",
    "Content-Length\0:",
    "Content_Length:",
];

const VALUES: [&str; 16] = [
    "0",
    "EVIL",
    "00",
    "+0",
    "-1",
    "0x0",
    "",
    " ",
    "0 0",
    "0,0",
    "0;a",
    "\r\n 0",
    "0\r\n 1",
    "4294967296",
    "18446744073709551616",
    "9",
];

const ENDS: [&str; 6] = ["\r\n", "\n", "\r", "\r\n ", "\0\r\n", "\r\nX: y\r\n"];

/// The request that must not be seen: nothing in it is the door's name, but for what a search for the name would find.
fn evil() -> String {
    format!(
        "OPTIONS sip:100@evil.example SIP/2.0\r\nVia: SIP/2.0/TCP {NAME};branch=z9hG4bKe\r\nFrom: <sip:a@evil.example>;tag=e\r\n\
         To: <sip:100@evil.example;x={NAME}>\r\nCall-ID: {NAME}\r\nCSeq: 1 OPTIONS\r\nX-Smuggled: yes\r\nContent-Length: 0\r\n\r\n"
    )
}

fn request(lengths: &str) -> String {
    format!(
        "MESSAGE sip:100@{NAME} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKs\r\nFrom: <sip:107@{NAME}>;tag=s\r\nTo: <sip:100@{NAME}>\r\n\
         Call-ID: s\r\nCSeq: 1 MESSAGE\r\n{lengths}Content-Type: text/plain\r\n\r\n"
    )
}

/// The evil request may be forwarded as a body, never as a head.
fn check(bytes: &[u8], transport: Transport) -> usize {
    let mut stage = Stage::new();
    let played = if transport == Transport::Udp {
        vec![stage.play(&outside(transport), bytes)]
    } else {
        stage.stream(&outside(transport), bytes)
    };
    let mut passed = 0;
    for (outcome, sent) in &played {
        passed += usize::from(*outcome == Outcome::Passed(Pass::Name));
        for (_, sent) in sent {
            let head = memchr::memmem::find(sent, b"\r\n\r\n").map_or(&sent[..], |at| sent.get(..at).unwrap_or(sent));
            assert!(
                !holds(head, b"evil.example") && !holds(head, b"X-Smuggled"),
                "{}\nbecame\n{}",
                shown(bytes),
                shown(sent)
            );
            // Whoever takes a bare LF for a line end sees no second head in the body's beginning either.
            assert!(!holds(head, b"\n\n"), "{}", shown(sent));
        }
    }
    passed
}

#[test]
fn no_pairing_of_lengths_smuggles_a_request() {
    let evil = evil();
    let mut passed = 0;
    let mut played = 0;
    for first in NAMES {
        for value in VALUES {
            for second in ["", "Content-Length:", "l:", "Content-Length\r\n :", "CONTENT-LENGTH :"] {
                for other in if second.is_empty() { &[""][..] } else { &["0", "EVIL", "5"][..] } {
                    for end in ENDS {
                        let line = format!("{first}{value}{end}");
                        let more = if second.is_empty() { String::new() } else { format!("{second} {other}\r\n") };
                        let lengths = format!("{line}{more}").replace("EVIL", &evil.len().to_string());
                        let bytes = format!("{}{evil}", request(&lengths)).into_bytes();
                        for transport in [Transport::Udp, Transport::Tcp] {
                            passed += check(&bytes, transport);
                            played += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(played > 20_000);
    // The good ones among them (one length, true) do pass: the others are not refused for something else.
    assert!(passed > 50 && passed < played / 20, "{passed} of {played} passed");
}

#[test]
fn two_lengths_are_never_a_message() {
    for first in ["Content-Length: 0", "l: 0", "L:0", "content-length\t: 0"] {
        for second in ["Content-Length: 0", "l: 5", "CONTENT-LENGTH:\r\n 5"] {
            for between in ["", "X: y\r\n", "X: y\r\n z\r\n"] {
                let bytes = request(&format!("{first}\r\n{between}{second}\r\n")).into_bytes();
                for transport in Transport::ALL {
                    let refused = (Outcome::Refused(Reason::Framing), Vec::new());
                    assert_eq!(Stage::new().play(&outside(transport), &bytes), refused, "{}", shown(&bytes));
                }
                let played = Stage::new().stream(&outside(Transport::Tcp), &bytes);
                assert_eq!(played, [(Outcome::Refused(Reason::Framing), Vec::new())]);
            }
        }
    }
}

/// Every control character, at every place of a message: nothing passes with it in the head but what is text.
#[test]
fn no_control_character_passes_in_a_head() {
    let good = &kit::evasion::good()["options"];
    let head = good.len() - 4;
    for at in 0..=head {
        for byte in (0u8..0x20).chain([0x7f]) {
            let mut bytes = good.clone();
            bytes.insert(at, byte);
            let (outcome, sent) = Stage::new().play(&outside(Transport::Udp), &bytes);
            if let [(_, sent)] = sent.as_slice() {
                let text = byte == b'\t' || memchr::memchr(byte, sent).is_none() || matches!(byte, b'\r' | b'\n');
                assert!(text, "{outcome:?} for\n{}", shown(&bytes));
                // A CR or LF more than the pairs that were there is never forwarded.
                let pairs = memchr::memmem::find_iter(sent, b"\r\n").count();
                assert_eq!(memchr::memchr_iter(b'\r', sent).count(), pairs, "{}", shown(&bytes));
                assert_eq!(memchr::memchr_iter(b'\n', sent).count(), pairs, "{}", shown(&bytes));
            }
        }
    }
}
