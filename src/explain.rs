//! What the gate would do with one message, step by step, and which bytes it minds: the core of `sipdoor explain`.
//!
//! The verdict of every step is the gate's own; only the place of a fault is looked for here.
#![forbid(unsafe_code)]

use crate::flow::{Flow, FlowId, Side, Transport};
use crate::gate::Reason;
use crate::proxy::Shared;
use crate::sip::frame::{Framer, Sizes, Step as Frame, content_length};
use crate::sip::header::{Address, Name, Via, is_token, list};
use crate::sip::message::{cseq, is_call_id, number, start_line};
use std::net::SocketAddr;
use std::ops::Range;

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was checked.
    pub check: &'static str,
    /// What was found, or why it is refused.
    pub found: Result<String, Reason>,
    /// The bytes that are minded, if it is known which.
    pub mark: Option<Range<usize>>,
}

/// All checks up to the one that decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which the gate makes them.
    pub steps: Vec<Step>,
}

impl Report {
    /// Why the message is refused, if it is.
    pub fn refused(&self) -> Option<Reason> {
        self.steps.iter().find_map(|step| step.found.as_ref().err().copied())
    }

    /// Takes a step down; `None` when it ends the report.
    fn step(&mut self, check: &'static str, found: Result<String, Reason>, mark: Option<Range<usize>>) -> Option<()> {
        let good = found.is_ok();
        self.steps.push(Step { check, found, mark });
        good.then_some(())
    }
}

/// Judges `bytes` as if they had come over `transport` from `source`.
pub fn explain(shared: &Shared, transport: Transport, source: SocketAddr, bytes: &[u8]) -> Report {
    let mut report = Report::default();
    let id = FlowId(u64::from(transport.is_stream()));
    let local = SocketAddr::new(source.ip(), if transport == Transport::Tls { 5061 } else { 5060 });
    let flow = Flow { side: Side::Outside, transport, local, remote: source, id };
    judge(&mut report, shared, &flow, bytes);
    report
}

fn judge(report: &mut Report, shared: &Shared, flow: &Flow, bytes: &[u8]) -> Option<()> {
    let (policy, sizes) = (shared.policy(), shared.sizes());
    let source = policy.source(flow.remote.ip()).map(|()| format!("{} is not denied", flow.remote.ip()));
    report.step("source address", source, None)?;
    if !flow.transport.is_stream() && crate::sip::keepalive::read(bytes).is_some() {
        return report.step("keep-alive", Ok("handled here; it never reaches the gate".into()), None);
    }
    let bytes = if flow.transport.is_stream() { frame(report, sizes, bytes)? } else { bytes };
    let line = 0..bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
    let glance =
        policy.glance(bytes).map(|()| "the start line holds a name, or a Route is ours, or it is a response".into());
    let mark = glance.is_err().then_some(line);
    report.step("first look", glance, mark)?;
    let verdict = shared.judge(flow, bytes);
    let reading = matches!(verdict, Err(Reason::TooBig | Reason::Framing | Reason::Malformed | Reason::Ambiguous));
    if reading {
        return report.step("strict reading", verdict.map(|_| String::new()), blame(bytes, sizes));
    }
    report.step("strict reading", Ok("both readers see one and the same message".into()), None)?;
    let mark = verdict.as_ref().err().and_then(|reason| place(bytes, *reason));
    report.step("policy", verdict.map(|by| format!("passes as `{}`", by.name())), mark)
}

/// A stream has to say where its messages end.
fn frame<'a>(report: &mut Report, sizes: Sizes, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let mut framer = Framer::new(sizes);
    let mut rest = bytes;
    loop {
        let step = framer.next(rest);
        match step {
            Ok(Frame::Skip(n) | Frame::Ping(n)) => rest = rest.get(n..).unwrap_or_default(),
            Ok(Frame::Message(n)) => {
                report.step("framing", Ok(format!("one message of {n} bytes")), None)?;
                return rest.get(..n);
            }
            Ok(Frame::More) => {
                report.step("framing", Err(Reason::Slow), None);
                return None;
            }
            Err(reason) => {
                report.step("framing", Err(reason), line_named(bytes, Name::ContentLength));
                return None;
            }
        }
    }
}

/// The part of the message that a reason of the policy speaks of.
fn place(bytes: &[u8], reason: Reason) -> Option<Range<usize>> {
    let line_end = bytes.iter().position(|&b| b == b'\n')?;
    match reason {
        Reason::UriHost | Reason::Method => Some(0..line_end),
        Reason::FromHost => line_named(bytes, Name::From),
        Reason::ToHost => line_named(bytes, Name::To),
        Reason::Route => line_named(bytes, Name::Route).or(Some(0..line_end)),
        Reason::Unsolicited => line_named(bytes, Name::Via),
        _ => None,
    }
}

/// The first line that cannot stand, or stands once too often.
fn blame(bytes: &[u8], sizes: Sizes) -> Option<Range<usize>> {
    let mut seen: Vec<Name> = Vec::new();
    for (at, line) in lines(bytes, sizes.head) {
        let range = at.start..at.start + line.len();
        if let Some(bad) = line.iter().position(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
            return Some(range.start + bad..range.start + bad + 1);
        }
        if at.start == 0 {
            if start_line(&line).is_err() {
                return Some(range);
            }
            continue;
        }
        let Some((name, value)) = split(&line) else { return Some(range) };
        let kind = Name::of(name);
        let once = matches!(
            kind,
            Name::From
                | Name::To
                | Name::CallId
                | Name::CSeq
                | Name::MaxForwards
                | Name::Expires
                | Name::ContentLength
                | Name::ContentType
        );
        if (once && seen.contains(&kind)) || !good(kind, value) {
            return Some(range);
        }
        seen.push(kind);
    }
    None
}

fn good(kind: Name, value: &[u8]) -> bool {
    match kind {
        Name::From | Name::To => Address::parse(value).is_ok_and(|address| address.tag().is_ok()),
        Name::Via => list(value)
            .next()
            .is_some_and(|via| via.is_ok_and(|at| value.get(at).is_some_and(|v| Via::parse(v).is_ok()))),
        Name::CallId => is_call_id(value),
        Name::CSeq => cseq(value).is_ok(),
        Name::MaxForwards => number(value, 10).is_some_and(|n| n < 256),
        Name::Expires => number(value, 10).is_some(),
        Name::ContentLength => content_length(&[b"l:", value, b"\n"].concat()).is_ok(),
        _ => true,
    }
}

/// The logical lines of the head: folded ones (§7.3.1) as one.
fn lines(bytes: &[u8], most: usize) -> Vec<(Range<usize>, Vec<u8>)> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at + 2).min(most);
    let mut all: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
    let mut at = 0;
    for line in bytes.get(..end).unwrap_or_default().split_inclusive(|&b| b == b'\n') {
        let text = line.strip_suffix(b"\r\n").unwrap_or(line);
        match all.last_mut() {
            Some((range, whole)) if at > 0 && text.first().is_some_and(|b| matches!(b, b' ' | b'\t')) => {
                range.end = at + line.len();
                whole.extend_from_slice(b"  ");
                whole.extend_from_slice(text);
            }
            _ => all.push((at..at + line.len(), text.to_vec())),
        }
        at += line.len();
    }
    all
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&b| b == b':')?;
    let name = line.get(..colon)?.trim_ascii_end();
    let named = !name.is_empty() && name.iter().all(|&b| is_token(b));
    named.then_some((name, line.get(colon + 1..)?.trim_ascii()))
}

fn line_named(bytes: &[u8], name: Name) -> Option<Range<usize>> {
    let found = lines(bytes, bytes.len())
        .into_iter()
        .skip(1)
        .find(|(_, line)| split(line).is_some_and(|(n, _)| Name::of(n) == name));
    found.map(|(at, line)| at.start..(at.start + line.len()).min(at.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_at_fault_are_marked() {
        let good = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n";
        let mark = |extra: &str| {
            let text = format!("{good}{extra}\r\n");
            blame(text.as_bytes(), Sizes::default()).map(|at| text.get(at).unwrap().to_owned())
        };
        assert_eq!(mark(""), None);
        assert_eq!(mark("f: <sip:evil@c>\r\n").as_deref(), Some("f: <sip:evil@c>"));
        assert_eq!(mark("X: a\rb\r\n").as_deref(), Some("\r"));
        assert_eq!(mark("Max-Forwards: 300\r\n").as_deref(), Some("Max-Forwards: 300"));
        assert_eq!(mark("no colon\r\n").as_deref(), Some("no colon"));
        assert_eq!(line_named(good.as_bytes(), Name::From).and_then(|at| good.get(at)), Some("From: <sip:a@b>;tag=1"));
    }
}
