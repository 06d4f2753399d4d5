//! The decisions on a message, in order; each has one reason.
#![forbid(unsafe_code)]

use super::path::Path;
use super::{Pass, Reason};
use crate::config::Config;
use crate::sip::frame::looks_like_sip;
use crate::sip::header::{Address, holds};
use crate::sip::message::Message;
use crate::sip::uri::{Uri, is_address};
use crate::token::{BRANCH, ROUTE_USER, Sent};
use ipnet::IpNet;
use memchr::{memchr, memmem};
use std::net::IpAddr;

/// Leave to forward one message. Only the gate makes one, and forwarding needs one: "forgot to check" does not compile.
#[derive(Debug)]
pub struct Permit {
    by: Pass,
    despite: Option<Reason>,
}

impl Permit {
    /// The rule that let the message in.
    pub const fn by(&self) -> Pass {
        self.by
    }

    /// Why it would have been refused, were it not for `observe`.
    pub const fn despite(&self) -> Option<Reason> {
        self.despite
    }

    const fn of(by: Pass) -> Self {
        Self { by, despite: None }
    }
}

/// The policy: names, methods, refused networks.
#[derive(Debug)]
pub struct Policy {
    names: Vec<Vec<u8>>,
    methods: Vec<Vec<u8>>,
    allow: String,
    deny: Vec<IpNet>,
    observe: bool,
    route: memmem::Finder<'static>,
    branch: memmem::Finder<'static>,
}

impl Policy {
    /// The policy of these settings.
    pub fn new(config: &Config) -> Self {
        let bytes = |list: &[String]| list.iter().map(|text| text.clone().into_bytes()).collect();
        let mark = [b":", ROUTE_USER].concat();
        Self {
            names: bytes(&config.names),
            methods: bytes(&config.gate.methods),
            allow: format!("Allow: {}\r\n", config.gate.methods.join(", ")),
            deny: config.gate.deny.clone(),
            observe: config.gate.observe,
            route: memmem::Finder::new(&mark).into_owned(),
            branch: memmem::Finder::new(BRANCH),
        }
    }

    /// Whether a host is one of the door's names. Hosts have no case (RFC 3261 §19.1.4); a trailing dot is another name.
    pub fn is_name(&self, host: &[u8]) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    /// The first name, for what has none of its own.
    pub fn first_name(&self) -> &[u8] {
        self.names.first().map_or(&[], Vec::as_slice)
    }

    /// The Allow header field line of a 405 (RFC 3261 §21.4.6).
    pub fn allow(&self) -> &str {
        &self.allow
    }

    /// Step 1: is this source heard at all?
    pub fn source(&self, source: IpAddr) -> Result<(), Reason> {
        if self.deny.iter().any(|net| net.contains(&source)) { Err(Reason::Banned) } else { Ok(()) }
    }

    /// Step 3: the server name of a ClientHello.
    pub fn server_name(&self, name: &[u8]) -> Result<(), Reason> {
        match name {
            name if self.is_name(name) => Ok(()),
            name if is_address(name) => Err(Reason::SniIp),
            _ => Err(Reason::SniWrong),
        }
    }

    /// A cheap first look at a message from outside, before anything is parsed: a request whose start line does not hold
    /// a name, and that holds no Route of ours, cannot pass, nor can a response without a branch of ours, whatever else is
    /// in them. Most of the internet ends here.
    pub fn glance(&self, bytes: &[u8]) -> Result<(), Reason> {
        let line = memchr(b'\n', bytes).and_then(|end| bytes.get(..end)).ok_or(Reason::NotSip)?;
        if !looks_like_sip(line) {
            return Err(Reason::NotSip);
        }
        if line.get(..4).is_some_and(|four| four.eq_ignore_ascii_case(b"SIP/")) {
            return self.branch.find(bytes).map(drop).ok_or(Reason::Unsolicited);
        }
        let known = self.observe || self.names.iter().any(|name| holds(line, name)) || self.route.find(bytes).is_some();
        if known { Ok(()) } else { Err(Reason::UriHost) }
    }

    /// Step 6: a response from outside. `sent` is what its topmost Via says, if that is ours and the response came from
    /// where we sent the request.
    pub fn response(&self, sent: Option<Sent>) -> Result<(Permit, Sent), Reason> {
        sent.map(|sent| (Permit::of(Pass::Response), sent)).ok_or(Reason::Unsolicited)
    }

    /// Steps 7 and 9: a request from outside.
    pub fn request(&self, message: &Message<'_>, path: &Path) -> Result<Permit, Reason> {
        // Whoever was in one dialog holds its Route for ever: it opens the way of that dialog, and what never belongs to
        // one still needs the name.
        let outside = matches!(message.method(), Some(b"REGISTER" | b"PUBLISH"));
        let within = message.in_dialog() || message.method() == Some(b"ACK");
        if path.leg.is_some() && within && !outside && self.method(message).is_ok() {
            return Ok(Permit::of(Pass::Dialog));
        }
        match self.by_name(message, path) {
            Ok(()) => Ok(Permit::of(Pass::Name)),
            Err(reason) if self.observe => Ok(Permit { by: Pass::Observed, despite: Some(reason) }),
            Err(reason) => Err(reason),
        }
    }

    /// A message from Asterisk: trusted by the address it came from.
    pub fn inside(&self, message: &Message<'_>) -> Permit {
        Permit::of(if message.method().is_some() { Pass::Inside } else { Pass::Answer })
    }

    fn by_name(&self, message: &Message<'_>, path: &Path) -> Result<(), Reason> {
        let uri = message.uri().ok_or(Reason::Malformed)?;
        let check = |uri: &Uri<'_>, reason| if uri.is_sip() && self.is_name(uri.host) { Ok(()) } else { Err(reason) };
        let hosts = |address: &Address<'_>, reason| check(&address.uri, reason);
        check(uri, Reason::UriHost)?;
        hosts(&message.from, Reason::FromHost)?;
        hosts(&message.to, Reason::ToHost)?;
        // `maddr` names another next hop than the host (§19.1.1): whoever follows it relays for strangers.
        let maddr = [uri, &message.from.uri, &message.to.uri].iter().any(|uri| uri.param(b"maddr").is_some());
        if maddr || path.foreign {
            return Err(Reason::Route);
        }
        self.method(message)
    }

    fn method(&self, message: &Message<'_>) -> Result<(), Reason> {
        let method = message.method().unwrap_or_default();
        if self.methods.iter().any(|known| known == method) { Ok(()) } else { Err(Reason::Method) }
    }
}
