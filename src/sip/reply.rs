//! The door's own responses (RFC 3261 §8.2.6), to those who passed the gate.
#![forbid(unsafe_code)]

use super::header::{Name, Via, param_ranges};
use super::message::Message;
use std::io::Write as _;
use std::net::SocketAddr;

/// A status code with its phrase, and header field lines of its own (each with CRLF).
#[derive(Clone, Copy, Debug)]
pub struct Status<'a> {
    /// The code.
    pub code: u16,
    /// The phrase.
    pub phrase: &'a str,
    /// More header field lines.
    pub more: &'a [u8],
}

/// Appends the response to `request`, which came from `remote`. `tag` is To's, where the request has none.
pub fn write(request: &Message<'_>, status: Status<'_>, remote: SocketAddr, tag: u64, out: &mut Vec<u8>) {
    // Writing into a Vec cannot fail.
    let _ = write!(out, "SIP/2.0 {} {}\r\n", status.code, status.phrase);
    for field in request.fields {
        match field.name {
            Name::Via => {
                let value = field.value();
                out.extend_from_slice(b"Via: ");
                if value.contains(&request.via_at.start) {
                    stamp(&request.via, remote, out);
                    out.extend_from_slice(request.at(request.via_at.end..value.end));
                } else {
                    out.extend_from_slice(request.at(value));
                }
                out.extend_from_slice(b"\r\n");
            }
            Name::To if !request.in_dialog() => {
                let _ = write!(out, "To: ");
                out.extend_from_slice(request.at(field.value()));
                let _ = write!(out, ";tag={tag:016x}\r\n");
            }
            Name::From | Name::To | Name::CallId | Name::CSeq => out.extend_from_slice(request.at(field.line())),
            _ => {}
        }
    }
    out.extend_from_slice(status.more);
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// Appends a Via value with `received`, and `rport` where it was asked for, of the source; what was claimed there is
/// taken out (RFC 3261 §18.2.1, RFC 3581 §4).
pub fn stamp(via: &Via<'_>, remote: SocketAddr, out: &mut Vec<u8>) {
    let params = via.text.get(via.params_at..).unwrap_or_default();
    out.extend_from_slice(via.text.get(..via.params_at).unwrap_or_default().trim_ascii_end());
    let mut rport = false;
    for (name, value) in param_ranges(params) {
        let key = params.get(name.clone()).unwrap_or_default();
        let asked = key.eq_ignore_ascii_case(b"rport");
        rport |= asked;
        if !asked && !key.eq_ignore_ascii_case(b"received") {
            out.push(b';');
            out.extend_from_slice(params.get(name.start..value.end.max(name.end)).unwrap_or_default());
        }
    }
    let _ = write!(out, ";received={}", remote.ip());
    if rport {
        let _ = write!(out, ";rport={}", remote.port());
    }
}
