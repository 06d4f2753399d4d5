//! What must hold for every message, cut and every way to write it.
#![expect(clippy::indexing_slicing, clippy::string_slice, reason = "a test may panic")]

mod kit;

use kit::evasion;
use kit::judge::Judge;
use kit::stage::{Stage, outside};
use proptest::prelude::*;
use proptest::sample::Index;
use sipdoor::flow::Transport;
use sipdoor::gate::Reason;
use sipdoor::proxy::Outcome;
use sipdoor::sip::frame::{Framer, Sizes, Step};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A keep-alive ping or not, and its bytes.
type Piece = (bool, Vec<u8>);

/// What a stream gives, step by step, when it comes in these parts: keep-alives too.
fn steps(bytes: &[u8], cuts: &[usize]) -> (Vec<Piece>, Result<Vec<u8>, Reason>) {
    let mut framer = Framer::new(Sizes::default());
    let (mut buffer, mut steps) = (Vec::new(), Vec::new());
    let mut from = 0;
    for &to in cuts.iter().chain([&bytes.len()]) {
        buffer.extend_from_slice(&bytes[from..to]);
        from = to;
        loop {
            match framer.next(&buffer) {
                Err(reason) => return (steps, Err(reason)),
                Ok(Step::More) => break,
                Ok(Step::Skip(n)) => drop(buffer.drain(..n)),
                Ok(Step::Ping(n)) => steps.push((true, buffer.drain(..n).collect())),
                Ok(Step::Message(n)) => steps.push((false, buffer.drain(..n).collect())),
            }
        }
    }
    (steps, Ok(buffer))
}

/// A part of a stream: messages with bodies, pings, and now and then what is neither.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        Just("Content-Length: {}"),
        Just("l:{}"),
        Just("L : {}"),
        Just("CONTENT-LENGTH:\r\n {}"),
        Just("content-length: 000{}\r\nX: y\r\n z"),
    ];
    let body = proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..40);
    let message = (length, body, "[a-z]{0,20}").prop_map(|(length, body, text)| {
        let length = length.replace("{}", &body.len().to_string());
        let mut bytes = format!("MESSAGE sip:{text}@h SIP/2.0\r\nX: {text}\r\n{length}\r\nY:\r\n\r\n").into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    });
    prop_oneof![
        8 => message,
        4 => Just(b"\r\n\r\n".to_vec()),
        2 => Just(b"\r\n".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..8),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_of_a_stream_gives_the_same(
        parts in proptest::collection::vec(part(), 0..6),
        cuts in proptest::collection::vec(any::<Index>(), 0..8),
    ) {
        let bytes = parts.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(steps(&bytes, &cuts), steps(&bytes, &[]));
    }

    /// What came out, put together again, is what went in.
    #[test]
    fn a_stream_loses_nothing_but_empty_lines(parts in proptest::collection::vec(part(), 0..6)) {
        let bytes = parts.concat();
        let (steps, rest) = steps(&bytes, &[]);
        let mut at = 0;
        for (_, step) in &steps {
            while !bytes[at..].starts_with(step) {
                prop_assert!(bytes[at..].starts_with(b"\r\n"), "at {}", at);
                at += 2;
            }
            at += step.len();
        }
        if let Ok(rest) = rest {
            prop_assert!(bytes.ends_with(&rest));
            prop_assert!(bytes[at..bytes.len() - rest.len()].iter().all(|b| b"\r\n".contains(b)));
        }
    }

    /// Neither the order of different header fields, nor the case or the short form of their names, nor blanks before the
    /// colon decide anything.
    #[test]
    fn the_way_a_message_is_written_does_not_change_its_verdict(
        case in any::<Index>(),
        order in proptest::collection::vec(any::<u16>(), 32),
        forms in proptest::collection::vec(0u8..5, 32),
        transport in prop_oneof![Just(Transport::Udp), Just(Transport::Tls)],
    ) {
        let message = case.get(&WRITABLE);
        let written = rewritten(message, &order, &forms);
        let from = outside(transport);
        let (first, _) = Stage::new().play(&from, message);
        let (second, sent) = Stage::new().play(&from, &written);
        // Which of two defects is found first may depend on the order; that there is one may not.
        let same = match (first, second) {
            (Outcome::Refused(Reason::Malformed | Reason::Ambiguous | Reason::Framing), Outcome::Refused(reason)) => {
                matches!(reason, Reason::Malformed | Reason::Ambiguous | Reason::Framing)
            }
            _ => first == second,
        };
        prop_assert!(same, "{:?} and {:?} for\n{}", first, second, kit::shown(&written));
        if let Outcome::Passed(_) = second {
            prop_assert_eq!(sent.len(), 1);
        }
    }

    /// No bytes at all break a rule, nor does anything that begins like a message.
    #[test]
    fn noise_breaks_no_rule(noise in proptest::collection::vec(any::<u8>(), 0..300), begin in any::<bool>(), tcp in any::<bool>()) {
        let mut bytes = if begin { GOOD["options"].clone() } else { Vec::new() };
        let keep = bytes.len().saturating_sub(noise.len() % 80);
        bytes.truncate(keep);
        bytes.extend_from_slice(&noise);
        let from = outside(if tcp { Transport::Tcp } else { Transport::Udp });
        let outcome = Judge::default().play(&mut Stage::new(), &from, &bytes);
        prop_assert!(outcome.is_ok(), "{:?} for\n{}", outcome, kit::shown(&bytes));
    }
}

static GOOD: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(evasion::good);
static WRITABLE: LazyLock<Vec<Vec<u8>>> = LazyLock::new(writable);

/// The cases whose header lines can be moved about: no folds, no bare line ends, nothing that is tied to a place. The
/// good messages stand there as often as all the others.
fn writable() -> Vec<Vec<u8>> {
    let plain = |bytes: &Vec<u8>| {
        let head = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(&[][..], |at| &bytes[..at]);
        let lines: Vec<&[u8]> = head.split(|&b| b == b'\n').collect();
        head.len() < 2000
            && lines.len() > 5
            && lines.iter().all(|line| !line.starts_with(b" ") && !line.starts_with(b"\t"))
            && head.iter().all(|&b| b >= b' ' || matches!(b, b'\r' | b'\n'))
            && memchr::memchr_iter(b'\n', head).all(|at| head.get(at.wrapping_sub(1)) == Some(&b'\r'))
            && memchr::memchr_iter(b'\r', head).all(|at| head.get(at + 1).is_none_or(|b| *b == b'\n'))
    };
    let mut messages: Vec<Vec<u8>> = evasion::cases().iter().map(|(_, case)| case.message()).filter(plain).collect();
    assert!(messages.len() > 80);
    let good: Vec<Vec<u8>> = GOOD.values().cloned().collect();
    messages.extend(good.iter().cycle().take(messages.len()).cloned().collect::<Vec<_>>());
    messages
}

/// Header lines in another order (of lines with the same name the first stays first), their names in another form.
fn rewritten(message: &[u8], order: &[u16], forms: &[u8]) -> Vec<u8> {
    let end = memchr::memmem::find(message, b"\r\n\r\n").unwrap_or(message.len());
    let text: Vec<&[u8]> = message[..end].split(|&b| b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l)).collect();
    let mut lines: Vec<(u16, Vec<u8>)> = Vec::new();
    for (at, line) in text[1..].iter().enumerate() {
        let form = forms[at % forms.len()];
        lines.push((order[at % order.len()], renamed(line, form)));
    }
    let mut sorted: Vec<usize> = (0..lines.len()).collect();
    sorted.sort_by_key(|&at| (lines[at].0, at));
    // Lines of one name take the places that their name has got, in their own order.
    let mut out = text[0].to_vec();
    let mut used = vec![false; lines.len()];
    for &place in &sorted {
        let name = name_of(&text[place + 1]);
        let next = (0..lines.len()).find(|&at| !used[at] && name_of(&text[at + 1]) == name).unwrap_or(place);
        used[next] = true;
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&lines[next].1);
    }
    out.extend_from_slice(&message[end..]);
    out
}

const SHORT: [(&str, &str); 7] = [
    ("via", "v"),
    ("from", "f"),
    ("to", "t"),
    ("call-id", "i"),
    ("contact", "m"),
    ("content-length", "l"),
    ("content-type", "c"),
];

fn name_of(line: &&[u8]) -> String {
    let name = line.split(|&b| b == b':').next().unwrap_or_default().trim_ascii_end();
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    SHORT.iter().find(|(_, short)| *short == name).map_or(name, |(long, _)| (*long).to_owned())
}

fn renamed(line: &[u8], form: u8) -> Vec<u8> {
    let Some(colon) = memchr::memchr(b':', line) else { return line.to_vec() };
    let (name, value) = line.split_at(colon);
    let text = String::from_utf8_lossy(name).to_ascii_lowercase();
    let pair = SHORT.iter().find(|(long, short)| *long == text || *short == text);
    let name = match (form, pair) {
        (0, Some((long, _))) => long.to_uppercase().into_bytes(),
        (1, Some((_, short))) => short.as_bytes().to_vec(),
        (2, _) => name.to_ascii_uppercase(),
        (3, _) if name.iter().all(|b| b.is_ascii_graphic()) && !name.is_empty() => [name, b" \t"].concat(),
        _ => name.to_vec(),
    };
    [&name, value].concat()
}

/// What a message may cost is bounded by its size: short texts repeated up to the limit of the head, at every place where
/// a parser looks for an end, take no more than linear time.
#[test]
fn no_message_takes_long() {
    let repeated = [
        ";a",
        ";a=",
        ";a=b",
        "a,",
        "a;,",
        "<",
        ">",
        "\"",
        "\\",
        "%41",
        "@",
        ":",
        "[",
        "]",
        " ",
        "\t",
        "\r\n ",
        "\"a\",",
        "<a>,",
        "sip:",
        ";x=\"y\"",
        "?a=b&",
        "=",
        "/",
        ";maddr",
        "<sip:a@b>,",
    ];
    let mut slowest = (std::time::Duration::ZERO, String::new());
    for name in ["options", "register", "invite"] {
        let text = String::from_utf8_lossy(&GOOD[name]).into_owned();
        let head = text.find("\r\n\r\n").unwrap_or(0);
        let places: Vec<usize> = (0..head).filter(|&at| ":<>;@\" \r".contains(&text[at..=at])).collect();
        for what in repeated {
            for &at in &places {
                let many = what.repeat((7800 - head) / what.len());
                let bytes = format!("{}{many}{}", &text[..at], &text[at..]).into_bytes();
                let mut stage = Stage::new();
                // The best of three: the machine has other work.
                let times = (0..3).map(|_| {
                    let began = std::time::Instant::now();
                    stage.receive(&outside(Transport::Udp), &bytes);
                    began.elapsed()
                });
                let best = times.min().unwrap_or_default();
                if best > slowest.0 {
                    slowest = (best, format!("{what:?} at {at} of {name}"));
                }
            }
        }
    }
    println!("the slowest: {slowest:?}");
    assert!(slowest.0 < std::time::Duration::from_millis(20), "{slowest:?}");
}
