//! The gate: what may pass, and the one reason why something may not.
//!
//! The order of [`Reason`] is the order in which the checks are made, and the order of the rows in `sipdoor status`.
#![forbid(unsafe_code)]

pub mod hello;
pub mod limits;
pub mod path;
pub mod policy;

pub use path::Path;
pub use policy::{Permit, Policy};

/// Why something was refused; [`Reason::name`] is also the name of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The source address is in the `deny` list.
    Banned,
    /// The source, or the door, has too many connections.
    TooMany,
    /// The source sends faster than `limits.rate`.
    Rate,
    /// The first bytes on a TLS port are no ClientHello.
    NotTls,
    /// A deadline passed: first byte, ClientHello, first good message, idle, write.
    Slow,
    /// The ClientHello has no server_name extension (RFC 6066 §3).
    SniAbsent,
    /// The server name is an address literal.
    SniIp,
    /// The server name is not one of the door's names.
    SniWrong,
    /// The TLS handshake failed after the name was right.
    Handshake,
    /// The bytes do not begin like a SIP message.
    NotSip,
    /// A head, a message or the number of header fields is over its limit.
    TooBig,
    /// Content-Length is absent from a stream, repeated, not a number, or more than the datagram holds.
    Framing,
    /// Not a SIP message as RFC 3261 writes it.
    Malformed,
    /// Two parsers could read this message differently.
    Ambiguous,
    /// A response to nothing that was sent there.
    Unsolicited,
    /// The host of the Request-URI is not a name.
    UriHost,
    /// The host of From is not a name.
    FromHost,
    /// The host of To is not a name.
    ToHost,
    /// A Route that is not ours, or a `maddr` parameter: a request to relay.
    Route,
    /// The method is not in the policy's list: answered 405, since the hosts are names.
    Method,
    /// Max-Forwards ran out: answered 483.
    MaxForwards,
    /// The request has been here before: answered 482.
    Loop,
    /// Proxy-Require asks for what this proxy does not have: answered 420.
    Extension,
    /// A REGISTER whose contacts cannot be read, or are more or longer than Asterisk takes: answered 400.
    Contacts,
    /// The phone is gone, or unknown: answered 480 (OPTIONS: not at all).
    Gone,
    /// Asterisk does not answer at its address: answered 503.
    Unavailable,
}

impl Reason {
    /// Whether its sender is answered: one that passed the gate, and could not be served all the same.
    pub const fn is_answered(self) -> bool {
        matches!(
            self,
            Self::Method
                | Self::MaxForwards
                | Self::Loop
                | Self::Extension
                | Self::Contacts
                | Self::Gone
                | Self::Unavailable
        )
    }

    /// Every reason, in policy order.
    pub const ALL: [Self; 26] = [
        Self::Banned,
        Self::TooMany,
        Self::Rate,
        Self::NotTls,
        Self::Slow,
        Self::SniAbsent,
        Self::SniIp,
        Self::SniWrong,
        Self::Handshake,
        Self::NotSip,
        Self::TooBig,
        Self::Framing,
        Self::Malformed,
        Self::Ambiguous,
        Self::Unsolicited,
        Self::UriHost,
        Self::FromHost,
        Self::ToHost,
        Self::Route,
        Self::Method,
        Self::MaxForwards,
        Self::Loop,
        Self::Extension,
        Self::Contacts,
        Self::Gone,
        Self::Unavailable,
    ];

    /// The name of the counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::TooMany => "too_many",
            Self::Rate => "rate",
            Self::NotTls => "not_tls",
            Self::Slow => "slow",
            Self::SniAbsent => "sni_absent",
            Self::SniIp => "sni_ip",
            Self::SniWrong => "sni_wrong",
            Self::Handshake => "handshake",
            Self::NotSip => "not_sip",
            Self::TooBig => "too_big",
            Self::Framing => "framing",
            Self::Malformed => "malformed",
            Self::Ambiguous => "ambiguous",
            Self::Unsolicited => "unsolicited",
            Self::UriHost => "uri_host",
            Self::FromHost => "from_host",
            Self::ToHost => "to_host",
            Self::Route => "route",
            Self::Method => "method",
            Self::MaxForwards => "max_forwards",
            Self::Loop => "loop",
            Self::Extension => "extension",
            Self::Contacts => "contacts",
            Self::Gone => "gone",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What passed, and by which rule; counted beside the reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// A ClientHello with one of the door's names.
    Hello,
    /// CRLF, STUN, empty or NUL keep-alives: handled, never judged.
    KeepAlive,
    /// A response to a request that the door sent there.
    Response,
    /// A request inside a dialog, shown by a Route of ours.
    Dialog,
    /// A request whose three hosts are names.
    Name,
    /// A request that would have been refused, let through by `observe`.
    Observed,
    /// A request from Asterisk.
    Inside,
    /// A response from Asterisk.
    Answer,
}

impl Pass {
    /// Every rule, in policy order.
    pub const ALL: [Self; 8] = [
        Self::Hello,
        Self::KeepAlive,
        Self::Response,
        Self::Dialog,
        Self::Name,
        Self::Observed,
        Self::Inside,
        Self::Answer,
    ];

    /// The name of the counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::KeepAlive => "keepalive",
            Self::Response => "response",
            Self::Dialog => "dialog",
            Self::Name => "name",
            Self::Observed => "observed",
            Self::Inside => "inside",
            Self::Answer => "answer",
        }
    }
}
