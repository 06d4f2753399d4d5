//! RFC 4475 and RFC 5118: every message has its verdict, as it is and with its hosts rewritten to the door's name.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod kit;

use kit::judge::Judge;
use kit::rename::renamed;
use kit::stage::{NAME, Stage, answer, asterisk, line, outside, uri};
use kit::{corpus, shown};
use sipdoor::flow::Transport;
use sipdoor::gate::{Pass, Reason};
use sipdoor::proxy::Outcome;

use Reason::{Ambiguous, Contacts, Extension, Framing, FromHost, Malformed, MaxForwards, ToHost, Unsolicited, UriHost};

/// The extension methods of the corpus, which the policy must list.
const METHODS: [&str; 3] = ["!interesting-Method0123456789_*+`.%indeed'~", "RE%47IST%45R", "NEWMETHOD"];

/// What a message must come to when its hosts are the door's name.
#[derive(Clone, Copy)]
enum Renamed {
    /// It passes.
    Passes,
    /// It is refused, for one of these.
    Refused(&'static [Reason]),
    /// RFC 3261 lets a proxy pass it or refuse it, and no host is in doubt.
    Either,
}

use Renamed::{Either, Passes, Refused};

/// What is no message as RFC 3261 writes it may be called either.
const BROKEN: &[Reason] = &[Malformed, Ambiguous];

/// RFC 4475 by its sections.
const TORTURE: [(&str, Renamed); 49] = [
    // §3.1.1: valid.
    ("wsinv", Passes),
    ("intmeth", Passes),
    ("esc01", Passes),
    ("escnull", Passes),
    ("esc02", Passes),
    ("lwsdisp", Passes),
    ("longreq", Passes),
    // Two requests in one datagram: the first is forwarded alone (RFC 3261 §18.3).
    ("dblreq", Passes),
    ("semiuri", Passes),
    ("transports", Passes),
    ("mpart01", Passes),
    // Responses: to nothing that was sent. `responses_are_read` plays them as answers.
    ("unreason", Refused(&[Unsolicited])),
    ("noreason", Refused(&[Unsolicited])),
    // §3.1.2: invalid.
    ("badinv01", Either),
    ("clerr", Refused(&[Framing])),
    ("ncl", Refused(&[Framing])),
    ("scalar02", Refused(BROKEN)),
    ("scalarlg", Refused(&[Malformed, Unsolicited])),
    ("quotbal", Refused(BROKEN)),
    ("ltgtruri", Refused(BROKEN)),
    ("lwsruri", Refused(BROKEN)),
    ("lwsstart", Refused(BROKEN)),
    ("trws", Refused(BROKEN)),
    ("escruri", Refused(BROKEN)),
    ("baddate", Either),
    ("regbadct", Either),
    ("badaspec", Refused(BROKEN)),
    ("baddn", Refused(BROKEN)),
    ("badvers", Refused(&[Malformed, Reason::NotSip])),
    ("mismatch01", Refused(BROKEN)),
    ("mismatch02", Refused(BROKEN)),
    ("bigcode", Refused(&[Malformed, Unsolicited])),
    // §3.2: a transaction layer's trouble, not a proxy's.
    ("badbranch", Passes),
    // §3.3: what an application sees. A scheme without a host has no host that could be the name.
    ("insuf", Refused(BROKEN)),
    ("unkscm", Refused(&[UriHost, Malformed])),
    ("novelsc", Refused(&[UriHost, Malformed])),
    ("unksm2", Refused(&[FromHost, ToHost, Malformed])),
    ("bext01", Refused(&[Extension])),
    ("invut", Passes),
    ("regaut01", Passes),
    ("multi01", Refused(BROKEN)),
    ("mcl01", Refused(&[Framing, Ambiguous])),
    ("bcast", Refused(&[Unsolicited])),
    ("zeromf", Refused(&[MaxForwards])),
    ("cparam01", Passes),
    ("cparam02", Passes),
    ("regescrt", Passes),
    ("sdp01", Passes),
    // §3.4: RFC 2543.
    ("inv2543", Passes),
];

/// RFC 5118 by its sections. IPv6 stays in Via, Contact and SDP.
const IPV6: [(&str, Renamed); 12] = [
    ("ipv6-good", Passes),
    ("ipv6-bad", Refused(BROKEN)),
    ("port-ambiguous", Passes),
    ("port-unambiguous", Passes),
    ("via-received-param-with-delim", Passes),
    ("via-received-param-no-delim", Passes),
    ("ipv6-in-sdp", Passes),
    ("mult-ip-in-header", Passes),
    ("mult-ip-in-sdp", Passes),
    ("ipv4-mapped-ipv6", Passes),
    ("ipv6-bug-abnf-3-colons", Passes),
    ("ipv6-correct-abnf-2-colons", Passes),
];

fn tables() -> impl Iterator<Item = (&'static str, &'static str, Renamed)> {
    let torture = TORTURE.iter().map(|(name, expected)| ("rfc4475", *name, *expected));
    torture.chain(IPV6.iter().map(|(name, expected)| ("rfc5118", *name, *expected)))
}

#[test]
fn every_file_has_an_expectation_and_every_expectation_a_file() {
    for directory in ["rfc4475", "rfc5118"] {
        let files: Vec<String> = corpus::read(directory).into_iter().map(|entry| entry.name).collect();
        let mut named: Vec<&str> = tables().filter(|row| row.0 == directory).map(|row| row.1).collect();
        named.sort_unstable();
        assert_eq!(files, named);
    }
    // Known to the byte: the archive's own sizes.
    for (name, size) in [("mpart01", 1290), ("wsinv", 1001), ("longreq", 3515), ("intmeth", 641), ("dblreq", 750)] {
        assert_eq!(corpus::torture(name).len(), size, "{name}");
    }
}

#[test]
fn as_it_is_nothing_passes_and_nothing_is_answered() {
    let mut stage = Stage::with_methods(&METHODS);
    for (directory, name, expected) in tables() {
        let bytes = read(directory, name);
        let (outcome, sent) = stage.play(&outside(Transport::Udp), &bytes);
        assert!(sent.is_empty(), "{name}: {sent:?}");
        let Outcome::Refused(reason) = outcome else { panic!("{name}: {outcome:?}") };
        let hosts = matches!(reason, UriHost | Unsolicited);
        let broken = matches!(expected, Refused(reasons) if reasons.contains(&reason)) || reason == Reason::NotSip;
        assert!(hosts || broken, "{name}: {}", reason.name());
    }
}

#[test]
fn with_the_name_the_valid_pass_and_the_broken_do_not() {
    let mut stage = Stage::with_methods(&METHODS);
    let mut judge = Judge::default();
    let mut wrong = Vec::new();
    for (directory, name, expected) in tables() {
        let bytes = renamed(&read(directory, name), NAME);
        let outcome = judge.play(&mut stage, &outside(Transport::Udp), &bytes);
        let outcome = outcome.unwrap_or_else(|rule| panic!("{name}: {rule}\n{}", shown(&bytes)));
        let answers = [MaxForwards, Extension];
        match (outcome, expected) {
            (Outcome::Passed(Pass::Name), Passes | Either) => {}
            (Outcome::Refused(reason), Refused(expected)) if expected.contains(&reason) => {
                assert_eq!(stage.out.sends.len(), usize::from(answers.contains(&reason)), "{name}");
            }
            // Its sender knows the name, so a 400 is due where the door says anything at all.
            (Outcome::Refused(Malformed | Ambiguous | Contacts), Either) => {}
            _ => wrong.push(format!("{name}: {outcome:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn over_a_stream_the_framing_decides_first() {
    for (directory, name, expected) in tables() {
        let bytes = renamed(&read(directory, name), NAME);
        let mut stage = Stage::with_methods(&METHODS);
        let played = stage.stream(&outside(Transport::Tcp), &bytes);
        match (name, expected) {
            // Two messages in a row are what streams are for; the second's hosts are as they were, and its length is too
            // short for its body.
            ("dblreq", _) => {
                let outcomes: Vec<Outcome> = played.iter().map(|play| play.0).collect();
                let refused = Outcome::Refused;
                assert_eq!(outcomes, [Outcome::Passed(Pass::Name), refused(UriHost), refused(Reason::NotSip)]);
            }
            // More is announced than comes, and a head without its empty line: nothing is forwarded, ever.
            ("clerr" | "baddn", _) => assert_eq!(played.len(), 0),
            // A stream needs the length (RFC 3261 §18.3).
            ("inv2543", _) => assert_eq!(played[0].0, Outcome::Refused(Framing)),
            (_, Passes) => assert_eq!(played[0].0, Outcome::Passed(Pass::Name), "{name}"),
            (_, Refused(_)) => assert!(matches!(played.first(), Some((Outcome::Refused(_), _))), "{name}: {played:?}"),
            (_, Either) => {}
        }
    }
}

/// The valid responses of the corpus, as answers of a registered phone to a request that the door sent it.
#[test]
fn responses_are_read() {
    let mut stage = Stage::new();
    let phone = outside(Transport::Udp);
    let register = format!(
        "REGISTER sip:{NAME} SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.5;branch=z9hG4bKr;rport\r\nFrom: <sip:107@{NAME}>;tag=f\r\n\
         To: <sip:107@{NAME}>\r\nCall-ID: r\r\nCSeq: 1 REGISTER\r\nContact: <sip:107@192.168.1.5>\r\n\r\n"
    );
    let (_, sent) = stage.pass(&phone, register.as_bytes());
    let contact = line(&sent, "Contact");
    let ok = answer(&sent, "200 OK", &format!("Contact: {contact};expires=120\r\nContent-Length: 0\r\n\r\n"));
    stage.pass(&asterisk(), &ok);
    let target = uri(&contact);
    for (name, method) in [("unreason", "INVITE"), ("noreason", "INVITE"), ("bcast", "INVITE")] {
        let request = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5080;branch=z9hG4bKa{name};rport\r\nFrom: <sip:a@{NAME}>;tag=f\r\n\
             To: <{target}>\r\nCall-ID: {name}\r\nCSeq: 35 {method}\r\nContact: <sip:127.0.0.1:5080>\r\nContent-Length: 0\r\n\r\n"
        );
        let (to, request) = stage.pass(&asterisk(), request.as_bytes());
        assert_eq!(to, phone);
        // Their own status line, header fields and body; the Vias of the request they answer.
        let bytes = read("rfc4475", name);
        let vias: Vec<String> =
            kit::stage::lines(&request, "Via").iter().map(|via| format!("Via: {via}\r\n")).collect();
        let mut response: Vec<u8> = Vec::new();
        let mut inserted = false;
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            if !line.starts_with(b"Via: ") {
                response.extend_from_slice(line);
            } else if !inserted {
                inserted = true;
                response.extend_from_slice(vias.concat().as_bytes());
            }
        }
        let (outcome, sent) = stage.play(&phone, &response);
        assert_eq!(outcome, Outcome::Passed(Pass::Response), "{name}:\n{}", shown(&response));
        let status = |bytes: &[u8]| bytes.split(|&b| b == b'\n').next().unwrap().to_vec();
        assert_eq!(status(&sent[0].1), status(&bytes), "{name}");
        // From anywhere else it is nobody's.
        let mut stranger = phone;
        stranger.remote.set_port(1);
        assert_eq!(stage.play(&stranger, &response), (Outcome::Refused(Unsolicited), Vec::new()), "{name}");
    }
}

fn read(directory: &str, name: &str) -> Vec<u8> {
    std::fs::read(corpus::directory().join(directory).join(name).with_extension("sip")).unwrap()
}

#[test]
fn the_renaming_changes_the_hosts_and_nothing_else() {
    let wsinv = String::from_utf8(renamed(&corpus::torture("wsinv"), "n")).unwrap();
    let original = String::from_utf8(corpus::torture("wsinv")).unwrap();
    let expected = original
        .replacen("chair-dnrc.example.com", "n", 2)
        .replacen("jdrosen@example.com", "jdrosen@n", 1)
        .replacen("services.example.com", "n", 1);
    assert_eq!(wsinv, expected);
    let semiuri = String::from_utf8(renamed(&corpus::torture("semiuri"), "n")).unwrap();
    assert!(semiuri.starts_with("OPTIONS sip:user;par=u%40example.net@n SIP/2.0\r\nTo: sip:j_user@n\r\n"));
    let mpart = renamed(&corpus::torture("mpart01"), "n");
    assert!(kit::judge::holds(&mpart, b"\r\nRoute: <sip:n>\r\n"));
}
