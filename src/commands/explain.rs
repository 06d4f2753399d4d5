//! `sipdoor explain`: why does this message not get in?

use crate::cli;
use crate::failure::{Code, Failure, say};
use clap::ArgMatches;
use sipdoor::config::{self, Host};
use sipdoor::explain::{Report, explain as judge};
use sipdoor::flow::Transport;
use sipdoor::gate::Reason;
use sipdoor::proxy::Shared;
use std::io::Read;
use std::ops::Range;

/// More than any message may have.
const MOST: u64 = 1 << 20;

/// Judges the message on standard input, and says how; the message that does not pass is a failure without a sentence.
pub(crate) fn explain(wanted: &cli::Explain, matches: &ArgMatches) -> Result<bool, Failure> {
    let settings = config::load(wanted.door.config.as_deref(), wanted.door.written(matches)?, Host::detect())?;
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MOST).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(Code::Input, format!("standard input cannot be read: {error}")))?;
    if bytes.is_empty() {
        return Err(Failure::new(
            Code::Input,
            "there is no message: give one on standard input, as in `< message.sip`",
        ));
    }
    if !wanted.raw
        && let Some(whole) = crlf(&bytes)
    {
        bytes = whole;
        say(format_args!(
            "note: the lines end in LF, as editors and logs leave them; read as CRLF (--raw: as they are)"
        ));
    }
    // The key of a running door is not read: tokens of its dialogs do not verify here.
    let shared = Shared::new(&settings.config, [0; 16], Vec::new(), Box::new(|_| ()));
    let (transport, from) = (Transport::from(wanted.transport), wanted.from);
    say(format_args!("{} bytes from {from} over {}", bytes.len(), transport.name()));
    let report = judge(&shared, transport, from, &bytes);
    print(&report, &bytes);
    match report.refused() {
        None => say(format_args!("It passes.")),
        Some(reason) => say(format_args!("It is refused as `{}`: {}", reason.name(), advice(reason))),
    }
    Ok(report.refused().is_none())
}

/// The message with whole line ends, if it has none; an end of the head is added where the text just stops.
fn crlf(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.contains(&b'\r') || !bytes.contains(&b'\n') {
        return None;
    }
    let mut whole = Vec::with_capacity(bytes.len() + 64);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        whole.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        whole.extend_from_slice(b"\r\n");
    }
    if memchr::memmem::find(&whole, b"\r\n\r\n").is_none() {
        whole.extend_from_slice(b"\r\n");
    }
    Some(whole)
}

fn print(report: &Report, bytes: &[u8]) {
    for step in &report.steps {
        match &step.found {
            Ok(found) => say(format_args!("  ok       {:<15} {found}", step.check)),
            Err(reason) => say(format_args!("  refused  {:<15} {}", step.check, reason.name())),
        }
        if let Some(mark) = &step.mark {
            show(bytes, mark);
        }
    }
}

/// The marked lines with their numbers, and carets under the bytes.
fn show(bytes: &[u8], mark: &Range<usize>) {
    let mut at = 0;
    for (number, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let (start, end) = (at, at + line.len());
        at = end;
        if end <= mark.start || start >= mark.end {
            continue;
        }
        let mut text = String::new();
        let mut carets = String::new();
        let body = line.strip_suffix(b"\r\n").unwrap_or(line);
        for (offset, byte) in body.iter().enumerate() {
            let shown = byte.escape_ascii().to_string().replace("\\\"", "\"").replace("\\'", "'").replace("\\\\", "\\");
            let caret = if mark.contains(&(start + offset)) { "^" } else { " " };
            carets.push_str(&caret.repeat(shown.len()));
            text.push_str(&shown);
        }
        say(format_args!("{:>12} | {text}", number + 1));
        say(format_args!("{:>12} | {}", "", carets.trim_end()));
    }
}

/// What the operator, or the phone's user, can do about it.
const fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::Banned => "its source address is in gate.deny",
        Reason::TooMany | Reason::Rate => "its source is over a limit of [limits]",
        Reason::NotSip => "it does not begin as a SIP message does, or names none of the door's names",
        Reason::TooBig => "it is over limits.head, limits.message or limits.headers",
        Reason::Framing => "its Content-Length is absent from a stream, repeated, or not what follows the head",
        Reason::Slow => "it is not complete: the empty line, or a part of the body, is missing",
        Reason::Malformed => "it is not written as RFC 3261 asks",
        Reason::Ambiguous => "two readers could read it differently",
        Reason::Unsolicited => "it is a response to nothing that this door sent there",
        Reason::Method => "its method is not in gate.methods (405)",
        Reason::UriHost => {
            "the host of its Request-URI is not a name: set the phone's registrar (server, domain) to one"
        }
        Reason::FromHost => "the host of its From is not a name: set the phone's domain (realm, account) to one",
        Reason::ToHost => "the host of its To is not a name: set the phone's domain to one",
        Reason::Route => {
            "it has a Route or a maddr that is not this door: take the outbound proxy out, or make it a name"
        }
        Reason::MaxForwards => "its Max-Forwards ran out (483)",
        Reason::Loop => "it has been here before (482)",
        Reason::Extension => "its Proxy-Require asks for what this door does not have (420)",
        Reason::Contacts => "its Contacts cannot be read, or are more or longer than Asterisk takes (400)",
        Reason::Gone => "the phone that it is for is not registered (480)",
        Reason::Unavailable => "Asterisk does not answer (503)",
        Reason::NotTls | Reason::SniAbsent | Reason::SniIp | Reason::SniWrong | Reason::Handshake => {
            "its TLS connection does not get that far"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_message_gets_whole_line_ends() {
        assert_eq!(crlf(b"A\nB\n").unwrap(), b"A\r\nB\r\n\r\n");
        assert_eq!(crlf(b"A\nB\n\nbody").unwrap(), b"A\r\nB\r\n\r\nbody\r\n");
        assert_eq!(crlf(b"A\r\nB\n"), None);
    }
}
