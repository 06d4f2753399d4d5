//! What must hold for every message, whatever is in it.

use super::lenient::{self, Habits};
use super::stage::{NAME, Stage, asterisk};
use sipdoor::flow::{Flow, Side};
use sipdoor::gate::{Pass, Reason};
use sipdoor::proxy::Outcome;
use sipdoor::sip::check::Second;
use sipdoor::sip::frame::{Framer, Sizes, Step};
use sipdoor::sip::message::{Message, Reader};
use std::sync::LazyLock;

/// What the door adds does not count against the limits of what it reads.
const AMPLE: Sizes = Sizes { head: 48 << 10, message: 128 << 10, headers: 256 };

/// Plays messages on a stage and checks what comes of each.
#[derive(Default)]
pub struct Judge {
    input: Reader,
    output: Reader,
    second: Second,
}

macro_rules! must {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}

impl Judge {
    /// Plays one whole message; the error says which rule was broken.
    pub fn play(&mut self, stage: &mut Stage, from: &Flow, bytes: &[u8]) -> Result<Outcome, String> {
        let outcome = stage.receive(from, bytes);
        for (to, sent) in stage.out.iter() {
            self.sent(from, to, sent, bytes, outcome)?;
        }
        let sent = stage.out.sends.len();
        match (outcome, from.side) {
            (Outcome::Passed(Pass::KeepAlive), _) => must!(sent <= 1, "a keep-alive with {sent} answers"),
            (Outcome::Passed(_), _) => must!(sent == 1, "{sent} messages sent for one that passed"),
            (Outcome::Observed(_), _) => return Err("observed, but not asked to".into()),
            (Outcome::Refused(reason), side) => {
                must!(sent == 0 || answered(reason), "an answer to what was refused as {}", reason.name());
                must!(sent <= 1, "{sent} answers");
                must!(sent == 0 || side == Side::Inside || self.belongs(bytes), "an answer to a stranger");
            }
        }
        if let (Outcome::Passed(by), Side::Outside) = (outcome, from.side) {
            self.let_in(stage, from, bytes, by)?;
        }
        Ok(outcome)
    }

    /// Every message that leaves is one that both readers read, with one length that everybody agrees on.
    fn sent(&mut self, from: &Flow, to: &Flow, sent: &[u8], input: &[u8], outcome: Outcome) -> Result<(), String> {
        if outcome == Outcome::Passed(Pass::KeepAlive) {
            must!(to == from, "the answer to a keep-alive goes elsewhere");
            return Ok(());
        }
        // The Via below ours is read by whom the response goes to, not by the door: any other stands for it here.
        let topped = topped(sent);
        let sent = topped.as_deref().unwrap_or(sent);
        let message = self
            .output
            .read(sent, AMPLE, true)
            .map_err(|reason| format!("what was sent is {}:\n{}", reason.name(), super::shown(sent)))?;
        must!(self.second.agrees(&message), "the second reader reads otherwise:\n{}", super::shown(sent));
        must!(message.bytes.len() == sent.len(), "more was sent than the message:\n{}", super::shown(sent));
        let mut framer = Framer::new(AMPLE);
        must!(
            framer.next(sent) == Ok(Step::Message(sent.len())),
            "a stream would cut it elsewhere:\n{}",
            super::shown(sent)
        );
        for habits in Habits::ALL {
            let seen = lenient::read(sent, habits);
            same_hosts(&message, &seen).map_err(|what| format!("{what} with {habits:?}:\n{}", super::shown(sent)))?;
        }
        if let Outcome::Refused(_) = outcome {
            must!(to == from, "an answer goes elsewhere");
            must!(message.method().is_none(), "a request as an answer:\n{}", super::shown(sent));
            must!(!input.starts_with(b"ACK "), "an ACK was answered");
        }
        Ok(())
    }

    /// What came from outside and was let through.
    fn let_in(&mut self, stage: &Stage, from: &Flow, bytes: &[u8], by: Pass) -> Result<(), String> {
        if by == Pass::KeepAlive {
            return Ok(());
        }
        let (to, sent) = stage.out.iter().next().ok_or("nothing was sent")?;
        must!(*to == asterisk(), "it goes to {to:?}");
        let input = self.input.read(bytes, AMPLE, from.transport.is_stream()).map_err(|r| r.name().to_owned())?;
        let topped = topped(sent);
        let sent = topped.as_deref().unwrap_or(sent);
        let output = self.output.read(sent, AMPLE, true).map_err(|r| r.name().to_owned())?;
        must!(input.body() == output.body(), "the body was changed");
        must!(input.call_id == output.call_id && input.cseq == output.cseq, "Call-ID or CSeq was changed");
        for name in lenient::names(sent) {
            // A Route in a response means nothing to anybody.
            let taken = stripped(&name) || name == b"route" && by != Pass::Response;
            must!(!taken, "{:?} went in", String::from_utf8_lossy(&name));
        }
        for uri in output.uri().into_iter().chain([&output.to.uri]).filter(|_| by == Pass::Name) {
            for steering in ["fdt", "line", "maddr"] {
                must!(!lenient::has_param(uri.params, steering), "{steering} went in:\n{}", super::shown(sent));
            }
        }
        for habits in Habits::ALL {
            // A reader may differ about the end of a datagram that says less than it holds, not about the hosts.
            let mut seen = lenient::read(bytes, habits);
            seen.length = None;
            same_hosts(&input, &seen).map_err(|what| format!("{what} in what came in, with {habits:?}"))?;
            let seen = lenient::read(sent, habits);
            let all = [seen.uri.as_deref(), seen.from.as_deref(), seen.to.as_deref()];
            match by {
                Pass::Name => {
                    must!(all.iter().all(|host| *host == Some(NAME.as_bytes())), "hosts {all:?} with {habits:?}")
                }
                Pass::Dialog => must!(holds(bytes, b"fdr-"), "in a dialog without a token"),
                Pass::Response => must!(seen.uri.is_none(), "a request passed as a response"),
                _ => return Err(format!("passed from outside by {}", by.name())),
            }
        }
        Ok(())
    }

    /// Whether a message from outside may be answered at all: its hosts are the name, or it holds a token.
    fn belongs(&self, bytes: &[u8]) -> bool {
        let seen = lenient::read(bytes, Habits::ALL[0]);
        let named = [&seen.uri, &seen.from, &seen.to].iter().all(|host| host.as_deref() == Some(NAME.as_bytes()));
        named || holds(bytes, b"fdr-")
    }
}

/// The refusals that are answered, to those who passed the gate.
fn answered(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Method
            | Reason::MaxForwards
            | Reason::Loop
            | Reason::Extension
            | Reason::Contacts
            | Reason::Gone
            | Reason::Unavailable
    )
}

/// A response with a good Via on top.
fn topped(sent: &[u8]) -> Option<Vec<u8>> {
    let start = sent.get(..4)?.eq_ignore_ascii_case(b"SIP/").then(|| memchr::memchr(b'\n', sent)).flatten()? + 1;
    Some([&sent[..start], b"Via: SIP/2.0/UDP top\r\n", &sent[start..]].concat())
}

/// Whether the built-in settings take a header field out of outside traffic.
fn stripped(name: &[u8]) -> bool {
    static STRIP: LazyLock<Vec<String>> = LazyLock::new(|| super::stage::config().gate.strip);
    STRIP.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()),
        None => name == pattern.as_bytes(),
    })
}

fn same_hosts(message: &Message<'_>, seen: &lenient::Seen) -> Result<(), String> {
    let strict = |uri: &sipdoor::sip::uri::Uri<'_>| uri.is_sip().then(|| uri.host.to_ascii_lowercase());
    for (what, strict, seen) in [
        ("Request-URI", message.uri().and_then(strict), &seen.uri),
        ("From", strict(&message.from.uri), &seen.from),
        ("To", strict(&message.to.uri), &seen.to),
    ] {
        let text = |host: &Option<Vec<u8>>| host.as_ref().map(|host| host.escape_ascii().to_string());
        must!(strict.is_none() || strict == *seen, "another host in {what}: {:?} and {:?}", text(&strict), text(seen));
    }
    must!(seen.head == message.head, "the body begins at {} and at {}", message.head, seen.head);
    must!(seen.length.is_none_or(|length| length == message.body().len()), "another length: {:?}", seen.length);
    Ok(())
}

/// Whether `bytes` holds `part`.
pub fn holds(bytes: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(bytes, part).is_some()
}
