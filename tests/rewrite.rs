//! What the door changes in a message, and that it changes nothing else: of every message that passes, each line is
//! compared with what it was. Then back again: an answer brings the phone its own message's lines, byte for byte.
#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::string_slice, reason = "a test may panic")]

mod kit;

use kit::rename::renamed;
use kit::stage::{NAME, Stage, answer, asterisk, line, lines, outside};
use kit::{corpus, evasion, shown};
use proptest::prelude::*;
use sipdoor::flow::{Flow, Transport};
use sipdoor::proxy::Outcome;

/// The header fields' lines of a head (unfolded, since the door sends them so) and the body.
fn parts(message: &[u8]) -> (Vec<String>, Vec<u8>) {
    let end = memchr::memmem::find(message, b"\r\n\r\n").expect("a head");
    // One character a byte: nothing is lost in the comparison.
    let text: String = message[..end].iter().map(|&b| char::from(b)).collect();
    let text = text.replace("\r\n ", "   ").replace("\r\n\t", "  \t");
    (text.split("\r\n").map(str::to_owned).collect(), message[end + 4..].to_vec())
}

fn name(line: &str) -> String {
    let name = line.split(':').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    match name.as_str() {
        "v" => "via".into(),
        "m" => "contact".into(),
        "l" => "content-length".into(),
        "t" => "to".into(),
        _ => name,
    }
}

fn value(line: &str) -> &str {
    line.split_once(':').map_or("", |(_, value)| value.trim())
}

/// Takes the first line of this name out.
fn take(lines: &mut Vec<String>, wanted: &str) -> Option<String> {
    let at = lines.iter().position(|line| name(line) == wanted)?;
    Some(lines.remove(at))
}

/// The rules of RFC 3261 §16.6, and no more.
fn check_inward(from: &Flow, input: &[u8], sent: &[u8]) -> Result<(), String> {
    let (mut before, body) = parts(input);
    let (mut after, sent_body) = parts(sent);
    let start = before.remove(0);
    let length = before.iter().find(|line| name(line) == "content-length").map(|line| value(line).parse::<usize>());
    let body = match length {
        Some(Ok(length)) => &body[..length],
        _ => &body,
    };
    if body != sent_body {
        return Err("the body was changed".into());
    }
    // The start line: sips becomes sip, the version is written as the RFC writes it.
    let expected = start.replacen(" sips:", " sip:", 1);
    let sent_start = after.remove(0);
    if expected[..expected.len() - 3] != sent_start[..sent_start.len() - 3] {
        return Err(format!("start line {sent_start:?}"));
    }
    let register = start.starts_with("REGISTER ");
    // Our Via on top, then what the sender's says with where it really came from (§18.2.1, RFC 3581 §4).
    let ours = after.remove(0);
    if !ours.starts_with("Via: SIP/2.0/UDP 127.0.0.1:5070;rport;branch=z9hG4bK") {
        return Err(format!("our Via is {ours:?}"));
    }
    let routes = after
        .iter()
        .take_while(|line| line.starts_with("Record-Route: <sip:fdr-") || line.starts_with("Record-Route: <sips:fdr-"))
        .count();
    let begins = ["INVITE ", "SUBSCRIBE ", "REFER ", "NOTIFY "].iter().any(|method| start.starts_with(method));
    let in_dialog = before.iter().any(|line| name(line) == "to" && line.contains("tag"));
    if routes != if begins && !in_dialog { 2 } else { 0 } {
        return Err(format!("{routes} Record-Routes"));
    }
    after.drain(..routes);
    own_lines(from, &mut before, &mut after, body.len())?;
    let strip = &kit::stage::config().gate.strip;
    before.retain(|line| {
        let name = name(line);
        let stripped = strip.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        });
        !stripped && name != "route"
    });
    if before.len() != after.len() {
        return Err(format!("{} lines became {}", before.len(), after.len()));
    }
    for (old, new) in before.iter().zip(&after) {
        let same = match name(old).as_str() {
            "contact" if register => value(old) == "*" || new.contains(";fdt=") || old == new,
            "contact" => old.replace("<sips:", "<sip:") == *new,
            "to" => old == new || old.contains("fdt=") || old.to_ascii_lowercase().contains("line="),
            _ => old == new,
        };
        if !same {
            return Err(format!("{old:?} became {new:?}"));
        }
    }
    Ok(())
}

/// The lines that every hop changes: Max-Forwards, Content-Length where there was none, the sender's Via. They are taken
/// out of both.
fn own_lines(from: &Flow, before: &mut Vec<String>, after: &mut Vec<String>, length: usize) -> Result<(), String> {
    match (take(before, "max-forwards"), take(after, "max-forwards")) {
        (None, Some(new)) if new == "Max-Forwards: 70" => {}
        (Some(old), Some(new)) if value(&new).parse::<u8>().ok() == value(&old).parse::<u8>().ok().map(|n| n - 1) => {}
        (old, new) => return Err(format!("Max-Forwards {old:?} became {new:?}")),
    }
    match (take(before, "content-length"), take(after, "content-length")) {
        (Some(old), Some(new)) if old == new => {}
        (None, Some(new)) if value(&new) == length.to_string() => {}
        (old, new) => return Err(format!("Content-Length {old:?} became {new:?}")),
    }
    let via = take(before, "via").unwrap_or_default();
    let stamped = take(after, "via").unwrap_or_default();
    if !stamped.contains(&format!(";received={}", from.remote.ip()))
        || stamped.split(';').next() != via.split(';').next().map(str::trim_end)
    {
        return Err(format!("{via:?} became {stamped:?}"));
    }
    Ok(())
}

/// Asterisk's answer, as the phone gets it: its own Vias (with received and rport), its From, Call-ID and CSeq.
fn check_answer(from: &Flow, input: &[u8], answered: &[u8]) -> Result<(), String> {
    let (before, _) = parts(input);
    let (after, _) = parts(answered);
    let of =
        |lines: &[String], wanted: &str| lines.iter().filter(|line| name(line) == wanted).cloned().collect::<Vec<_>>();
    let (old, new) = (of(&before, "via"), of(&after, "via"));
    if old.len() != new.len() || old[1..] != new[1..] {
        return Err(format!("the Vias {old:?} came back as {new:?}"));
    }
    if !new[0].contains(&format!("received={}", from.remote.ip())) {
        return Err(format!("the Via came back as {:?}", new[0]));
    }
    for wanted in ["from", "f", "call-id", "i", "cseq"] {
        if of(&before, wanted) != of(&after, wanted) {
            return Err(format!("{wanted} came back changed"));
        }
    }
    Ok(())
}

/// Plays a request inward, and its answer back; `None` if it did not pass.
fn round(bytes: &[u8], transport: Transport) -> Option<Result<(), String>> {
    let from = outside(transport);
    let mut stage = Stage::with_methods(&["!interesting-Method0123456789_*+`.%indeed'~", "RE%47IST%45R", "NEWMETHOD"]);
    let (outcome, sent) = stage.play(&from, bytes);
    let (Outcome::Passed(_), [(to, sent)]) = (outcome, sent.as_slice()) else { return None };
    assert_eq!(*to, asterisk());
    let inward = check_inward(&from, bytes, sent);
    Some(inward.and_then(|()| {
        let mut answer = answer_bytes(sent);
        let contacts: Vec<String> = parts(sent).0.into_iter().filter(|line| name(line) == "contact").collect();
        if sent.starts_with(b"REGISTER") {
            for contact in &contacts {
                answer.extend(contact.chars().map(|c| c as u8));
                answer.extend_from_slice(b"\r\n");
            }
        }
        answer.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        let (to, answered) = stage.pass(&asterisk(), &answer);
        assert_eq!(to, from);
        check_answer(&from, bytes, &answered)
    }))
}

/// A 200 with the lines that an answer copies, as they are.
fn answer_bytes(request: &[u8]) -> Vec<u8> {
    let mut text = "SIP/2.0 200 OK\r\n".to_owned();
    for line in parts(request).0.iter().skip(1) {
        if matches!(name(line).as_str(), "via" | "record-route" | "from" | "f" | "to" | "call-id" | "i" | "cseq") {
            text += &format!("{line}\r\n");
        }
    }
    text.chars().map(|c| c as u8).collect()
}

#[test]
fn of_the_corpus_only_what_the_rfc_asks_is_changed() {
    let mut messages: Vec<(String, Vec<u8>)> = evasion::good().into_iter().collect();
    for directory in ["rfc4475", "rfc5118"] {
        messages.extend(corpus::read(directory).into_iter().map(|e| (e.name, renamed(&e.bytes, NAME))));
    }
    let mut passed = 0;
    for (name, bytes) in &messages {
        for transport in Transport::ALL {
            match round(bytes, transport) {
                Some(Err(what)) => panic!("{name} over {}: {what}\n{}", transport.name(), shown(bytes)),
                Some(Ok(())) => passed += 1,
                None => {}
            }
        }
    }
    assert!(passed > 80, "{passed} passed");
}

/// The body, unknown lines and the phone's own lines survive, whatever is in them.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let text = || proptest::collection::vec(prop_oneof![9 => b' '..=b'~', 1 => 0x80u8..=0xff], 0..30);
    let fold = prop_oneof![5 => Just(""), 1 => Just("\r\n "), 1 => Just("\r\n\t ")];
    let unknown = ("X-[A-Za-z0-9]{1,12}", text(), fold, text());
    let unknowns = proptest::collection::vec(unknown, 0..8);
    let method = prop_oneof![Just("INVITE"), Just("MESSAGE"), Just("REGISTER"), Just("SUBSCRIBE"), Just("OPTIONS")];
    let display = prop_oneof![Just(""), Just("\"a, <b>; \\\" c\" "), Just("Anna "), Just("\"\u{e9}\" ")];
    let forms = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let body = proptest::collection::vec(any::<u8>(), 0..60);
    (method, display, unknowns, forms, body, "[a-z0-9.]{1,10}").prop_map(|(method, display, unknowns, forms, body, user)| {
        let (compact, angle, forwards, sips) = forms;
        let short = |long: &'static str, short: &'static str| if compact { short } else { long };
        let scheme = if sips { "sips" } else { "sip" };
        let target = if method == "REGISTER" { NAME.to_owned() } else { format!("{user}@{NAME}") };
        let address = if angle || !display.is_empty() { format!("{display}<{scheme}:{user}@{NAME};x=y>") } else { format!("{scheme}:{user}@{NAME}") };
        let mut text = format!(
            "{method} {scheme}:{target};a=b SIP/2.0\r\n{}: SIP/2.0/UDP 10.0.0.7:5062;rport;branch=z9hG4bKp\r\nVIA : SIP/2.0/TCP a.b, SIP/2.0/UDP [::1]\r\n\
             {}: {address} ;tag=x\r\n{}:{address}\r\n",
            short("Via", "v"), short("From", "f"), short("To", "t")
        );
        if forwards {
            text += "Max-Forwards: 068\r\n";
        }
        let mut bytes = evasion::bytes(&text);
        for (name, first, fold, second) in unknowns {
            // Blanks at the ends belong to nobody, and a fold with nothing behind it is refused.
            let (first, second) = (first.trim_ascii(), second.trim_ascii());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b":");
            bytes.extend_from_slice(first);
            if !second.is_empty() {
                bytes.extend_from_slice(fold.as_bytes());
                bytes.extend_from_slice(second);
            }
            bytes.extend_from_slice(b"\r\n");
        }
        let rest = format!(
            "{}: <{scheme}:{user}@10.0.0.7>;q=0.5\r\nCSeq: 7 {method}\r\n{}: p@q\r\n{}: {}\r\n\r\n",
            short("Contact", "m"), short("Call-ID", "i"), short("Content-Length", "l"), body.len()
        );
        bytes.extend_from_slice(rest.as_bytes());
        bytes.extend_from_slice(&body);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn inward_and_back_nothing_else_is_changed(
        bytes in message(),
        transport in prop_oneof![Just(Transport::Udp), Just(Transport::Tcp), Just(Transport::Tls)],
    ) {
        let Some(result) = round(&bytes, transport) else {
            let outcome = Stage::new().play(&outside(transport), &bytes).0;
            return Err(TestCaseError::fail(format!("{outcome:?} for\n{}", shown(&bytes))));
        };
        prop_assert!(result.is_ok(), "{:?} for\n{}", result, shown(&bytes));
    }
}

/// The phone's own Contacts come back to it as it wrote them, whatever is in them.
#[test]
fn contacts_come_back_as_they_were() {
    for contact in [
        "<sip:107@10.0.0.7:5062>",
        "<sip:107-0x1@10.0.0.7;transport=tls;ob>",
        "<sips:107@phone.local;gr=urn:uuid:1>",
        "<sip:j.user:pw@[2001:db8::1]:5062;%6C%72;n%61me=v%61lue%25%34%31>",
        "<sip:10.0.0.7>",
        "<sip:+1(555)@10.0.0.7;user=phone?X=y>",
    ] {
        let register = format!(
            "REGISTER sip:{NAME} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKc\r\nFrom: <sip:107@{NAME}>;tag=f\r\nTo: <sip:107@{NAME}>\r\n\
             Call-ID: c\r\nCSeq: 1 REGISTER\r\nContact: {contact};+sip.instance=\"<urn:uuid:1>\"\r\nExpires: 60\r\n\r\n"
        );
        let mut stage = Stage::new();
        let phone = outside(Transport::Udp);
        let (_, sent) = stage.pass(&phone, register.as_bytes());
        let inside = line(&sent, "Contact");
        assert!(inside.contains("@127.0.0.1:5070;fdt=") || inside.contains("<sip:127.0.0.1:5070;fdt="), "{inside}");
        // Asterisk lists every binding of the address-of-record; those of other phones are nobody's business.
        let other = "Contact: <sip:107@127.0.0.1:5070;fdt=0123456789abcdef>;expires=33\r\n";
        let ok = answer(
            &sent,
            "200 OK",
            &format!(
                "{other}Contact: {};expires=60\r\n\r\n",
                inside.split('>').next().map(|c| format!("{c}>")).unwrap_or_default()
            ),
        );
        let (to, answered) = stage.pass(&asterisk(), &ok);
        assert_eq!((to, lines(&answered, "Contact")), (phone, vec![format!("{contact};expires=60")]));
        assert_eq!(stage.bindings(), 1);
    }
}
