//! The core, without a socket: registrations and dialogs between a phone and an Asterisk that are written out here.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use sipdoor::bindings::{Binding, Change, Token};
use sipdoor::config::{self, At, Config, Written};
use sipdoor::flow::{Flow, FlowId, Side, Transport};
use sipdoor::gate::{Pass, Reason};
use sipdoor::proxy::{Now, Outbox, Outcome, Proxy, Shared, Undelivered};
use std::sync::{Arc, Mutex};

const NOW: Now = Now(1_000_000);

struct Door {
    proxy: Proxy,
    journal: Arc<Mutex<Vec<Change>>>,
    config: Config,
}

fn config() -> Config {
    let name = At::built_in("k7q2.sip.test".to_owned());
    let written = Written { names: Some(At::built_in(vec![name])), ..Written::default() };
    config::load(None, written, config::Host { ipv6: false, cpus: 1 }).unwrap().config
}

impl Door {
    fn new() -> Self {
        Self::with(config(), Vec::new())
    }

    fn with(config: Config, saved: Vec<(Token, Binding)>) -> Self {
        let journal = Arc::new(Mutex::new(Vec::new()));
        let log = journal.clone();
        let shared = Shared::new(&config, [9; 16], saved, Box::new(move |change| log.lock().unwrap().push(change)));
        Self { proxy: Proxy::new(Arc::new(shared)), journal, config }
    }

    fn play(&mut self, from: &Flow, text: &str) -> (Outcome, Vec<(Flow, String)>) {
        let mut out = Outbox::default();
        let mut text = crlf(text);
        if !text.contains("Content-Length") && from.transport.is_stream() {
            text.insert_str(text.len() - 2, "Content-Length: 0\r\n");
        }
        let outcome = self.proxy.receive(NOW, from, text.as_bytes(), &mut out);
        (outcome, sent(&out))
    }

    /// Plays a message that must pass and gives the one message sent.
    fn pass(&mut self, from: &Flow, text: &str) -> (Flow, String) {
        let (outcome, mut sent) = self.play(from, text);
        assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?} for {text}");
        assert_eq!(sent.len(), 1);
        sent.remove(0)
    }

    fn register(&mut self, phone: &Flow, extra: &str) -> String {
        let (_, request) = self.pass(phone, &register(extra));
        let contact = line(&request, "Contact");
        let answer = format!("{}Contact: {contact};expires=120\n\n", response(&request, "200 OK"));
        let (to, answer) = self.pass(&asterisk(), &answer);
        assert_eq!(to, *phone);
        let own = line(&answer, "Contact");
        assert_eq!(own, format!("<sip:107-0x1@192.168.1.5:5062;transport=tls;line=z>{extra};expires=120"));
        uri(&contact)
    }
}

fn crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', "\r\n")
}

fn sent(out: &Outbox) -> Vec<(Flow, String)> {
    out.iter().map(|(flow, bytes)| (*flow, String::from_utf8(bytes.to_vec()).unwrap())).collect()
}

fn phone(transport: Transport, port: u16) -> Flow {
    let local = if transport == Transport::Tls { 5061 } else { 5060 };
    let id = FlowId(if transport.is_stream() { port.into() } else { 0 });
    let at = |ip: &str, port| format!("{ip}:{port}").parse().unwrap();
    Flow { side: Side::Outside, transport, local: at("198.51.100.1", local), remote: at("192.0.2.7", port), id }
}

fn asterisk() -> Flow {
    let at = |text: &str| text.parse().unwrap();
    Flow {
        side: Side::Inside,
        transport: Transport::Udp,
        local: at("127.0.0.1:5070"),
        remote: at("127.0.0.1:5080"),
        id: FlowId(0),
    }
}

fn register(extra: &str) -> String {
    format!(
        "REGISTER sip:k7q2.sip.test SIP/2.0\nVia: SIP/2.0/TLS 192.168.1.5:5062;branch=z9hG4bKr1;rport\nMax-Forwards: 70\n\
         From: <sip:107@k7q2.sip.test>;tag=f\nTo: <sip:107@K7q2.sip.test>\nCall-ID: reg@phone\nCSeq: 1 REGISTER\n\
         Contact: <sip:107-0x1@192.168.1.5:5062;transport=tls;line=z>{extra}\nExpires: 120\n\n"
    )
}

/// What Asterisk answers: Vias, Record-Routes, From, To with a tag, Call-ID and CSeq as received.
fn response(request: &str, status: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\n");
    for line in request.lines().take_while(|line| !line.is_empty()) {
        match line.split(':').next().unwrap() {
            "Via" | "Record-Route" | "From" | "Call-ID" | "CSeq" => text += &format!("{line}\n"),
            "To" => text += &format!("{line}{}\n", if line.contains(";tag=") { "" } else { ";tag=as" }),
            _ => {}
        }
    }
    text
}

fn line(message: &str, name: &str) -> String {
    lines(message, name).into_iter().next().unwrap_or_else(|| panic!("no {name} in {message}"))
}

fn lines(message: &str, name: &str) -> Vec<String> {
    let start = format!("{name}: ");
    message.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
}

fn uri(address: &str) -> String {
    address.split(['<', '>']).nth(1).unwrap().to_owned()
}

fn invite(to: &str, via: &str, extra: &str) -> String {
    format!(
        "INVITE {to} SIP/2.0\nVia: {via}\nMax-Forwards: 70\nFrom: <sip:107@k7q2.sip.test>;tag=f\nTo: <{to}>\n\
         Call-ID: call@phone\nCSeq: 7 INVITE\n{extra}\n"
    )
}

#[test]
fn a_phone_gets_its_contact_back_and_asterisk_gets_one_it_can_call() {
    let mut door = Door::new();
    let tls = phone(Transport::Tls, 40_000);
    let contact = door.register(&tls, ";+sip.instance=\"<urn:uuid:1>\"");
    assert!(contact.starts_with("sip:107-0x1@127.0.0.1:5070;fdt="), "{contact}");
    let journal = std::mem::take(&mut *door.journal.lock().unwrap());
    let [Change::Put(token, binding)] = journal.as_slice() else { panic!("{journal:?}") };
    assert!(contact.ends_with(std::str::from_utf8(token).unwrap()));
    assert_eq!((binding.aor.as_str(), binding.flow, binding.expires), ("107@k7q2.sip.test", tls, NOW.0 + 120_000));
    // A reconnect is a refresh: the same contact, another flow.
    let again = phone(Transport::Tls, 40_001);
    assert_eq!(door.register(&again, ";+sip.instance=\"<urn:uuid:1>\""), contact);
    let qualify = format!(
        "OPTIONS {contact} SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.1:5080;rport;branch=z9hG4bKq\nFrom: <sip:107@127.0.0.1>;tag=q\n\
         To: <{contact}>\nCall-ID: q\nCSeq: 1 OPTIONS\nMax-Forwards: 70\nContent-Length: 0\n\n"
    );
    let (to, options) = door.pass(&asterisk(), &qualify);
    assert_eq!(to, again);
    assert!(options.starts_with("OPTIONS sip:107-0x1@192.168.1.5:5062;transport=tls;line=z SIP/2.0\r\n"), "{options}");
    assert_eq!(line(&options, "To"), "<sip:107-0x1@127.0.0.1:5070>");
    // The answer is taken from where the phone is, and from nowhere else.
    let answer = response(&options, "200 OK") + "Content-Length: 0\n\n";
    assert_eq!(door.play(&tls, &answer), (Outcome::Refused(Reason::Unsolicited), vec![]));
    let (to, answer) = door.pass(&again, &answer);
    assert_eq!((to, lines(&answer, "Via").len()), (asterisk(), 1));
}

#[test]
fn a_binding_is_made_by_the_200_and_unmade_by_what_it_does_not_list() {
    let mut door = Door::new();
    let udp = phone(Transport::Udp, 1024);
    let (_, request) = door.pass(&udp, &register(""));
    door.pass(&asterisk(), &(response(&request, "401 Unauthorized") + "\n"));
    assert!(door.journal.lock().unwrap().is_empty());
    let contact = door.register(&udp, "");
    let (_, gone) = door.pass(&asterisk(), &(response(&request, "200 OK") + "\n"));
    assert!(lines(&gone, "Contact").is_empty());
    assert!(matches!(door.journal.lock().unwrap().as_slice(), [Change::Put(..), Change::Remove(_)]));
    let call = invite(
        &contact,
        "SIP/2.0/UDP 127.0.0.1:5080;rport;branch=z9hG4bKi",
        "Contact: <sip:asterisk@127.0.0.1:5080>\n",
    );
    let (outcome, answers) = door.play(&asterisk(), &call);
    assert_eq!(outcome, Outcome::Refused(Reason::Gone));
    assert!(answers[0].1.starts_with("SIP/2.0 480 "), "{answers:?}");
    let options = call.replace("INVITE", "OPTIONS");
    assert_eq!(door.play(&asterisk(), &options), (Outcome::Refused(Reason::Gone), vec![]));
}

#[test]
fn a_restarted_phone_is_no_second_contact() {
    let mut door = Door::new();
    let contact = door.register(&phone(Transport::Udp, 1024), "");
    let restarted = register("").replace("reg@phone", "another@phone");
    let (_, request) = door.pass(&phone(Transport::Udp, 1025), &restarted);
    assert_eq!(uri(&line(&request, "Contact")), contact);
    // The same private Contact behind another address is another phone.
    let mut elsewhere = phone(Transport::Udp, 1024);
    elsewhere.remote = "203.0.113.77:1024".parse().unwrap();
    let (_, request) = door.pass(&elsewhere, &restarted);
    assert_ne!(uri(&line(&request, "Contact")), contact);
}

#[test]
fn bindings_survive_a_restart() {
    let mut door = Door::new();
    let udp = phone(Transport::Udp, 1024);
    let contact = door.register(&udp, "");
    let saved = door
        .journal
        .lock()
        .unwrap()
        .iter()
        .filter_map(|c| if let Change::Put(t, b) = c { Some((*t, b.clone())) } else { None })
        .collect();
    let mut door = Door::with(door.config, saved);
    let call = invite(&contact, "SIP/2.0/UDP 127.0.0.1:5080;rport;branch=z9hG4bKi", "");
    assert_eq!(door.pass(&asterisk(), &call).0, udp);
    assert_eq!(door.register(&udp, ""), contact);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one dialog from its first message to its last")]
fn a_dialog_from_a_phone_goes_on_by_its_routes() {
    let mut door = Door::new();
    let tls = phone(Transport::Tls, 40_000);
    door.register(&tls, "");
    let via = "SIP/2.0/TLS 192.168.1.5:5062;branch=z9hG4bKi1;rport;received=127.0.0.1";
    let (to, request) = door.pass(
        &tls,
        &invite(
            "sip:600@k7q2.sip.test;line=x",
            via,
            "Contact: <sip:107@192.168.1.5:5062;transport=tls>\nP-Asserted-Identity: <sip:boss@x>\n",
        ),
    );
    assert_eq!(to, asterisk());
    assert!(
        request.starts_with(
            "INVITE sip:600@k7q2.sip.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;rport;branch=z9hG4bKfd"
        ),
        "{request}"
    );
    assert_eq!(
        lines(&request, "Via")[1],
        "SIP/2.0/TLS 192.168.1.5:5062;branch=z9hG4bKi1;received=192.0.2.7;rport=40000"
    );
    assert!(lines(&request, "P-Asserted-Identity").is_empty());
    assert_eq!(line(&request, "Max-Forwards"), "69");
    let routes = lines(&request, "Record-Route");
    assert!(
        routes[0].contains("@127.0.0.1:5070;lr>") && routes[1].contains("@k7q2.sip.test:5061;transport=tls;lr>"),
        "{routes:?}"
    );

    // CANCEL has the branch of its INVITE (RFC 3261 §16.10).
    let cancel = invite("sip:600@k7q2.sip.test;line=x", via, "").replace("INVITE", "CANCEL");
    let (_, cancel) = door.pass(&tls, &cancel);
    let branch =
        |message: &str| line(message, "Via").split("branch=").nth(1).unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(branch(&cancel), branch(&request));

    let sdp = "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 10000 RTP/AVP 0\n";
    let answer = format!(
        "{}Contact: <sip:127.0.0.1:5080>\nContent-Type: application/sdp\nContent-Length: {}\n\n{sdp}",
        response(&request, "200 OK"),
        crlf(sdp).len()
    );
    let (to, answer) = door.pass(&asterisk(), &answer);
    assert_eq!((to, lines(&answer, "Via").len(), lines(&answer, "Record-Route")), (tls, 1, routes.clone()));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, crlf(&sdp.replace("127.0.0.1", "198.51.100.1")));
    assert_eq!(line(head, "Content-Length"), body.len().to_string());

    // The phone's requests carry the routes turned round (§12.1.2), Asterisk's as they came.
    let ack = format!(
        "ACK sip:127.0.0.1:5080 SIP/2.0\nVia: SIP/2.0/TLS 192.168.1.5:5062;branch=z9hG4bKa\nRoute: {},{}\nMax-Forwards: 70\n\
         From: <sip:107@k7q2.sip.test>;tag=f\nTo: <sip:600@k7q2.sip.test>;tag=as\nCall-ID: call@phone\nCSeq: 7 ACK\nContent-Length: 0\n\n",
        routes[1], routes[0]
    );
    let (_, forwarded) = door.pass(&tls, &ack);
    assert!(
        lines(&forwarded, "Route").is_empty() && forwarded.starts_with("ACK sip:127.0.0.1:5080 SIP/2.0"),
        "{forwarded}"
    );
    // A strict router puts the first route into the Request-URI and the target last (§16.4).
    let strict = ack.replace("ACK sip:127.0.0.1:5080", &format!("ACK {}", uri(&routes[1]))).replace(
        &format!("Route: {},{}", routes[1], routes[0]),
        &format!("Route: {}, <sips:127.0.0.1:5080>", routes[0]),
    );
    let (_, forwarded) = door.pass(&tls, &strict);
    assert!(
        lines(&forwarded, "Route").is_empty() && forwarded.starts_with("ACK sip:127.0.0.1:5080 SIP/2.0"),
        "{forwarded}"
    );
    // A forged route is no dialog, and its Request-URI is no name.
    let forged = ack.replace("fdr-", "fdr-A");
    assert_eq!(door.play(&tls, &forged), (Outcome::Refused(Reason::UriHost), vec![]));

    // The phone has reconnected: Asterisk's BYE follows the binding.
    let again = phone(Transport::Tls, 40_001);
    door.register(&again, "");
    let bye = format!(
        "BYE sip:107@192.168.1.5:5062;transport=tls SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.1:5080;rport;branch=z9hG4bKb\nRoute: {}\nRoute: {}, <sip:other.example;lr>\n\
         Max-Forwards: 70\nFrom: <sip:600@k7q2.sip.test>;tag=as\nTo: <sip:107@k7q2.sip.test>;tag=f\nCall-ID: call@phone\nCSeq: 8 BYE\nContent-Length: 0\n\n",
        routes[0], routes[1]
    );
    let (to, bye) = door.pass(&asterisk(), &bye);
    assert_eq!((to, lines(&bye, "Route")), (again, vec!["<sip:other.example;lr>".to_owned()]));
}

#[test]
fn a_dialogs_route_opens_neither_a_registration_nor_an_unknown_method() {
    let mut door = Door::new();
    let udp = phone(Transport::Udp, 1024);
    let (_, request) = door.pass(&udp, &invite("sip:600@k7q2.sip.test", "SIP/2.0/UDP h;branch=z9hG4bKi1", ""));
    let within = |method: &str| {
        format!(
            "{method} sip:127.0.0.1 SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\nRoute: {}\nFrom: <sip:a@x>;tag=1\nTo: <sip:b@x>;tag=2\n\
             Call-ID: x\nCSeq: 1 {method}\n\n",
            lines(&request, "Record-Route")[1]
        )
    };
    assert_eq!(door.play(&udp, &within("BYE")).0, Outcome::Passed(Pass::Dialog));
    for method in ["REGISTER", "PUBLISH", "FROB"] {
        assert_eq!(door.play(&udp, &within(method)), (Outcome::Refused(Reason::UriHost), vec![]), "{method}");
    }
}

#[test]
fn a_nat_gives_the_port_of_one_phone_to_the_next() {
    let mut door = Door::new();
    let first = phone(Transport::Udp, 1024);
    door.register(&first, "");
    let call = invite("sip:600@k7q2.sip.test", "SIP/2.0/UDP h;branch=z9hG4bKi1", "").replace("sip:107@", "sip:108@");
    let (_, request) = door.pass(&first, &call);
    door.register(&phone(Transport::Udp, 3000), "");
    let routes = lines(&request, "Record-Route");
    let bye = format!(
        "BYE sip:108@192.168.1.6 SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.1:5080;branch=z9hG4bKb\nRoute: {}\nRoute: {}\n\
         From: <sip:a@b>;tag=as\nTo: <sip:c@d>;tag=f\nCall-ID: call@phone\nCSeq: 8 BYE\n\n",
        routes[0], routes[1]
    );
    assert_eq!(door.pass(&asterisk(), &bye).0, first);
}

#[test]
fn a_call_to_a_phone_keeps_the_number_asterisk_dialled() {
    let mut door = Door::new();
    let udp = phone(Transport::Udp, 1024);
    let contact = door.register(&udp, "").replace("107-0x1", "5551000").to_uppercase().replace("SIP:", "sip:");
    let call = invite(
        &contact,
        "SIP/2.0/UDP 127.0.0.1:5080;rport;branch=z9hG4bKi",
        "Contact: <sip:asterisk@127.0.0.1:5080>\n",
    );
    let (to, call) = door.pass(&asterisk(), &call);
    assert_eq!(to, udp);
    assert!(call.starts_with("INVITE sip:5551000@192.168.1.5:5062;transport=tls;line=z SIP/2.0"), "{call}");
    let routes = lines(&call, "Record-Route");
    assert!(
        routes[0].contains("@k7q2.sip.test:5060;transport=udp;lr>") && routes[1].contains("@127.0.0.1:5070;lr>"),
        "{routes:?}"
    );
    // The phone hangs up: its names are nowhere in the request, its routes are.
    let bye = format!(
        "BYE sip:asterisk@127.0.0.1:5080 SIP/2.0\nVia: SIP/2.0/UDP 192.168.1.5:5062;branch=z9hG4bKb\nRoute: {}\nRoute: {}\nMax-Forwards: 70\n\
         From: <sip:107@127.0.0.1>;tag=p\nTo: <sip:108@127.0.0.1>;tag=f\nCall-ID: call@phone\nCSeq: 1 BYE\n\n",
        routes[0], routes[1]
    );
    let (outcome, sent) = door.play(&udp, &bye);
    assert_eq!((outcome, sent[0].0), (Outcome::Passed(Pass::Dialog), asterisk()));
    assert_eq!(
        door.play(&udp, &bye.replace(";tag=f", "")).0,
        Outcome::Refused(Reason::UriHost),
        "no dialog without a To tag"
    );
}

#[test]
fn sips_stays_outside() {
    let mut door = Door::new();
    let tls = phone(Transport::Tls, 40_000);
    let (_, request) = door.pass(
        &tls,
        &invite("sips:600@k7q2.sip.test", "SIP/2.0/TLS h;branch=z9hG4bKi1", "Contact: <sips:107@192.168.1.5:5062>\n"),
    );
    assert!(request.starts_with("INVITE sip:600@k7q2.sip.test SIP/2.0"));
    assert_eq!(line(&request, "Contact"), "<sip:107@192.168.1.5:5062>");
    let routes = lines(&request, "Record-Route");
    assert!(
        routes[0].starts_with("<sip:fdr-")
            && routes[1].starts_with("<sips:fdr-")
            && routes[1].ends_with("@k7q2.sip.test:5061;lr>"),
        "{routes:?}"
    );
    let (_, answer) = door.pass(&asterisk(), &(response(&request, "200 OK") + "Contact: <sip:127.0.0.1:5080>\n\n"));
    assert_eq!(line(&answer, "Contact"), "<sips:127.0.0.1:5080>");
    let bye = format!(
        "BYE sip:107@192.168.1.5:5062 SIP/2.0\nVia: SIP/2.0/UDP 127.0.0.1:5080;branch=z9hG4bKb\nRoute: {}\nRoute: {}\n\
         From: <sip:a@b>;tag=as\nTo: <sip:c@d>;tag=f\nCall-ID: call@phone\nCSeq: 8 BYE\n\n",
        routes[0], routes[1]
    );
    assert!(door.pass(&asterisk(), &bye).1.starts_with("BYE sips:107@192.168.1.5:5062 SIP/2.0"));
}

#[test]
fn members_are_answered_where_the_rfc_asks_for_it_and_an_ack_never() {
    let mut door = Door::new();
    let udp = phone(Transport::Udp, 1024);
    let call = invite("sip:600@k7q2.sip.test", "SIP/2.0/UDP h;rport;branch=z9hG4bKi1, SIP/2.0/UDP i", "");
    let mut answer = |text: &str| {
        let (outcome, sent) = door.play(&udp, text);
        assert!(sent.iter().all(|(to, _)| *to == udp));
        (outcome, sent.into_iter().map(|(_, text)| text).next().unwrap_or_default())
    };
    let zero = call.replace("Max-Forwards: 70", "Max-Forwards: 0");
    let (outcome, text) = answer(&zero);
    assert_eq!(outcome, Outcome::Refused(Reason::MaxForwards));
    assert!(
        text.starts_with("SIP/2.0 483 ")
            && text.contains("Via: SIP/2.0/UDP h;branch=z9hG4bKi1;received=192.0.2.7;rport=1024, SIP/2.0/UDP i\r\n"),
        "{text}"
    );
    assert_eq!(answer(&zero.replace("INVITE", "ACK")), (Outcome::Refused(Reason::MaxForwards), String::new()));
    let (outcome, text) = answer(&call.replace("INVITE", "FROB"));
    assert_eq!(outcome, Outcome::Refused(Reason::Method));
    assert!(text.starts_with("SIP/2.0 405 ") && text.contains("\r\nAllow: INVITE, ACK, "), "{text}");
    let (outcome, text) = answer(&call.replace("CSeq", "Proxy-Require: foo\nCSeq"));
    assert_eq!(outcome, Outcome::Refused(Reason::Extension));
    assert!(text.starts_with("SIP/2.0 420 ") && text.contains("Unsupported: foo\r\n"), "{text}");
}

#[test]
fn an_address_of_ours_may_be_a_phones_outbound_proxy_and_no_other() {
    let mut door = Door::new();
    let udp = phone(Transport::Udp, 1024);
    let call =
        |route: &str| invite("sip:600@k7q2.sip.test", "SIP/2.0/UDP h;branch=z9hG4bKi1", &format!("Route: {route}\n"));
    for route in ["<sip:198.51.100.1;lr>", "<sip:k7q2.sip.test:5060;lr>"] {
        assert!(lines(&door.pass(&udp, &call(route)).1, "Route").is_empty());
    }
    for route in [
        "<sip:198.51.100.2;lr>",
        "<sip:198.51.100.1;lr>, <sip:198.51.100.2;lr>",
        "<sip:198.51.100.1;maddr=198.51.100.2;lr>",
        "x",
    ] {
        assert_eq!(door.play(&udp, &call(route)), (Outcome::Refused(Reason::Route), vec![]), "{route}");
    }
}

#[test]
fn a_request_that_has_been_here_is_a_loop() {
    let mut door = Door::new();
    let udp = phone(Transport::Udp, 1024);
    let (_, once) = door.pass(&udp, &invite("sip:600@k7q2.sip.test", "SIP/2.0/UDP h;branch=z9hG4bKi1", ""));
    let (outcome, sent) = door.play(&udp, &once);
    assert_eq!(outcome, Outcome::Refused(Reason::Loop));
    assert!(sent[0].1.starts_with("SIP/2.0 482 "));
}

#[test]
fn what_could_not_be_delivered_is_told_to_its_sender() {
    let mut door = Door::new();
    let tls = phone(Transport::Tls, 40_000);
    let contact = door.register(&tls, "");
    let call = crlf(&invite("sip:600@k7q2.sip.test", "SIP/2.0/TLS h;branch=z9hG4bKi1", "Content-Length: 0\n"));
    let mut out = Outbox::default();
    assert_eq!(
        door.proxy.undelivered(NOW, &tls, call.as_bytes(), Undelivered::BackendDown, &mut out),
        Outcome::Refused(Reason::Unavailable)
    );
    assert!(
        matches!(sent(&out).as_slice(), [(to, text)] if *to == tls && text.starts_with("SIP/2.0 503 ") && text.contains("Retry-After: "))
    );
    let call = crlf(&invite(&contact, "SIP/2.0/UDP 127.0.0.1:5080;rport;branch=z9hG4bKi", ""));
    let mut out = Outbox::default();
    assert_eq!(
        door.proxy.undelivered(NOW, &asterisk(), call.as_bytes(), Undelivered::FlowGone, &mut out),
        Outcome::Refused(Reason::Gone)
    );
    assert!(matches!(sent(&out).as_slice(), [(to, text)] if *to == asterisk() && text.starts_with("SIP/2.0 480 ")));
    // An answer finds the phone on the connection it came back on.
    let (_, request) =
        door.pass(&tls, &invite("sip:600@k7q2.sip.test", "SIP/2.0/TLS h;branch=z9hG4bKi1", "Content-Length: 0\n"));
    let again = phone(Transport::Tls, 40_001);
    door.register(&again, "");
    let answer = crlf(&(response(&request, "486 Busy") + "\n"));
    let mut out = Outbox::default();
    door.proxy.undelivered(NOW, &asterisk(), answer.as_bytes(), Undelivered::FlowGone, &mut out);
    assert_eq!(sent(&out)[0].0, again);
}

#[test]
fn a_flood_in_the_name_of_a_phone_does_not_silence_it() {
    let mut config = config();
    config.limits.rate = 5;
    let mut door = Door::with(config, Vec::new());
    let (udp, tls) = (phone(Transport::Udp, 1024), phone(Transport::Tls, 40_000));
    door.register(&udp, "");
    let call = invite("sip:600@k7q2.sip.test", "SIP/2.0/UDP h;branch=z9hG4bKi1", "");
    let stranger = phone(Transport::Udp, 999);
    let outcomes: Vec<Outcome> = (0..20).map(|_| door.play(&stranger, &call).0).collect();
    assert_eq!(outcomes.last(), Some(&Outcome::Refused(Reason::Rate)));
    assert_eq!(door.play(&udp, &call).0, Outcome::Passed(Pass::Name));
    assert_eq!(door.play(&tls, &call).0, Outcome::Passed(Pass::Name));
}

#[test]
fn observe_lets_through_and_says_what_it_would_have_refused() {
    let mut config = config();
    config.gate.observe = true;
    let mut door = Door::with(config, Vec::new());
    let (outcome, sent) =
        door.play(&phone(Transport::Udp, 1024), &invite("sip:600@203.0.113.9", "SIP/2.0/UDP h;branch=z9hG4bKi1", ""));
    assert_eq!((outcome, sent.len()), (Outcome::Observed(Reason::UriHost), 1));
}

#[test]
fn a_stun_keep_alive_is_answered_to_registered_phones_alone() {
    let mut door = Door::new();
    let udp = phone(Transport::Udp, 1024);
    let ping = "\0\x01\0\0\x21\x12".bytes().chain([0xa4, 0x42]).chain(*b"abcdefghijkl").collect::<Vec<_>>();
    let mut out = Outbox::default();
    assert_eq!(door.proxy.receive(NOW, &udp, &ping, &mut out), Outcome::Passed(Pass::KeepAlive));
    assert!(out.sends.is_empty());
    door.register(&udp, "");
    door.proxy.receive(NOW, &udp, &ping, &mut out);
    assert_eq!(out.sends.len(), 1);
}
