//! The core's front: all that the shell ever asks.
//!
//! Bytes, the flow they came from and the time go in; bytes to send and one [`Outcome`] to count come out.
//! No socket, no clock, no file: the shell owns those.
#![forbid(unsafe_code)]

use crate::bindings::{Binding, Bindings, Journal, Token};
use crate::config::Config;
use crate::flow::{Flow, Side};
pub use crate::flow::{Now, Outbox, Send};
use crate::gate::hello::Hello;
use crate::gate::limits::Limiter;
use crate::gate::{Pass, Path, Permit, Policy, Reason};
use crate::route::{Hop, Plan};
use crate::sip::check::Second;
use crate::sip::edit::Edits;
use crate::sip::frame::Sizes;
use crate::sip::head::Field;
use crate::sip::header::{Name, Via, list};
use crate::sip::keepalive::{self, KeepAlive};
use crate::sip::message::{Message, Reader, Start};
use crate::sip::reply::{self, Status};
use crate::token::{BRANCH, Key, Return, Sent, VIA_PARAM};
use memchr::memmem;
use std::net::IpAddr;
use std::sync::Arc;

/// What became of one message: exactly one row to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed by this rule.
    Passed(Pass),
    /// It would have been refused for this reason, and was let through by `observe`.
    Observed(Reason),
    /// It was refused for this reason (an answer may lie in the outbox where one is due).
    Refused(Reason),
}

/// Why a message that the core handed out could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The connection is gone, or its queue is full.
    FlowGone,
    /// The backend's port is closed (ICMP).
    BackendDown,
}

/// What all workers share; read-mostly.
pub struct Shared {
    policy: Policy,
    plan: Plan,
    sizes: Sizes,
    rate: u32,
    key: [u8; 16],
}

impl Shared {
    /// The core of one door: its settings, the 16-byte key of its tokens, the bindings that were saved, and where
    /// changes of bindings go.
    pub fn new(config: &Config, key: [u8; 16], saved: Vec<(Token, Binding)>, journal: Journal) -> Self {
        let bindings = Bindings::new(saved, journal, config.limits.bindings);
        Self {
            policy: Policy::new(config),
            plan: Plan::new(config, Key::new(key), bindings),
            sizes: config.limits.sizes,
            rate: config.limits.rate,
            key,
        }
    }

    /// Forgets expired bindings; the shell calls it every few seconds.
    pub fn expire(&self, now: Now) {
        self.plan.bindings.expire(now.0);
    }

    /// How many bindings there are.
    pub fn bindings(&self) -> usize {
        self.plan.bindings.len()
    }

    /// The gate's policy.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How large a message may be.
    pub const fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The gate's last steps for one message from outside, without routing it: the rule by which it passes.
    pub fn judge(&self, from: &Flow, bytes: &[u8]) -> Result<Pass, Reason> {
        let mut reader = Reader::default();
        let message = read(&mut reader, &mut Second::default(), self.sizes, from, bytes)?;
        Ok(judge(self, from, &message)?.permit.by())
    }
}

/// One worker's proxy: decides and rewrites. Workers share the bindings, the policy and the key through [`Shared`].
pub struct Proxy {
    shared: Arc<Shared>,
    limiter: Limiter,
    reader: Reader,
    second: Second,
    edits: Edits,
}

impl Proxy {
    /// A worker's view of the door.
    pub fn new(shared: Arc<Shared>) -> Self {
        let limiter = Limiter::new(shared.rate, shared.key);
        Self { shared, limiter, reader: Reader::default(), second: Second::default(), edits: Edits::default() }
    }

    /// Gate step 1: may this source address talk to us at all?
    pub fn admit(&mut self, now: Now, source: IpAddr) -> Result<(), Reason> {
        self.shared.policy.source(source)?;
        if self.limiter.take(now, source) { Ok(()) } else { Err(Reason::Rate) }
    }

    /// Gate step 3: may this ClientHello go on?
    pub fn admit_hello(&self, hello: &Hello<'_>) -> Result<(), Reason> {
        match hello {
            Hello::Absent => Err(Reason::SniAbsent),
            Hello::Address(_) => Err(Reason::SniIp),
            Hello::Name(name) => self.shared.policy.server_name(name),
        }
    }

    /// One whole message (a datagram, or a frame of a stream): judged and, if it passes, rewritten into `out`.
    /// `out` is appended to, never cleared here.
    pub fn receive(&mut self, now: Now, from: &Flow, bytes: &[u8], out: &mut Outbox) -> Outcome {
        if from.side == Side::Outside
            && let Err(reason) = self.hear(now, from)
        {
            return Outcome::Refused(reason);
        }
        if let Some(outcome) = self.keep_alive(from, bytes, out) {
            return outcome;
        }
        let verdict = match from.side {
            Side::Outside => self.outside(now, from, bytes, out),
            Side::Inside => self.inside(now, from, bytes, out),
        };
        match verdict {
            Ok(permit) => permit.despite().map_or(Outcome::Passed(permit.by()), Outcome::Observed),
            Err(reason) => Outcome::Refused(reason),
        }
    }

    /// A message that [`Self::receive`] forwarded could not be sent: puts the answer its sender is due
    /// (480, 503) into `out`. `bytes` is the message as it was received from `from`.
    pub fn undelivered(&mut self, now: Now, from: &Flow, bytes: &[u8], why: Undelivered, out: &mut Outbox) -> Outcome {
        let reason = match why {
            Undelivered::FlowGone => Reason::Gone,
            Undelivered::BackendDown => Reason::Unavailable,
        };
        let Self { shared, reader, edits, .. } = self;
        let Ok(message) = reader.read(bytes, shared.sizes, from.transport.is_stream()) else {
            return Outcome::Refused(reason);
        };
        if message.method().is_some() {
            refuse(shared, &message, from, reason, out);
        } else if let (Side::Inside, Some(mut back)) = (from.side, own_via(&shared.plan.key, &message)) {
            // The phone has come back on another flow while its request was answered.
            let now_on = back.binding.and_then(|token| shared.plan.bindings.get(&token)).map(|binding| binding.flow);
            if let Some(flow) = now_on.filter(|flow| *flow != back.flow) {
                back.flow = flow;
                edits.clear();
                let permit = shared.policy.inside(&message);
                let hop = Hop { plan: &shared.plan, now, from, message: &message, edits };
                hop.response_outward(&permit, &back, out);
                return Outcome::Passed(Pass::Answer);
            }
        }
        Outcome::Refused(reason)
    }

    /// Gate step 1 for one message. A source address of a datagram is easily forged: the flood of a stranger must not
    /// silence a registered phone, nor a connection that was admitted.
    fn hear(&mut self, now: Now, from: &Flow) -> Result<(), Reason> {
        let shared = &self.shared;
        let known = shared.rate == 0 || from.transport.is_stream() || shared.plan.bindings.knows(from);
        if known { shared.policy.source(from.remote.ip()) } else { self.admit(now, from.remote.ip()) }
    }

    fn keep_alive(&self, from: &Flow, bytes: &[u8], out: &mut Outbox) -> Option<Outcome> {
        if from.transport.is_stream() {
            return None;
        }
        let kind = keepalive::read(bytes)?;
        // Only a registered phone gets an answer: to anyone else the port stays silent.
        if let KeepAlive::Stun(id) = kind
            && self.shared.plan.bindings.knows(from)
        {
            let start = out.bytes.len();
            keepalive::answer(id, from.remote, &mut out.bytes);
            out.sends.push(Send { to: *from, range: start..out.bytes.len() });
        }
        Some(Outcome::Passed(Pass::KeepAlive))
    }

    fn outside(&mut self, now: Now, from: &Flow, bytes: &[u8], out: &mut Outbox) -> Result<Permit, Reason> {
        let Self { shared, reader, second, edits, .. } = self;
        let plan = &shared.plan;
        shared.policy.glance(bytes)?;
        let message = read(reader, second, shared.sizes, from, bytes)?;
        let Verdict { permit, way } = judge(shared, from, &message).inspect_err(|reason| {
            // Who asks for an unknown method by the right name is no stranger.
            if *reason == Reason::Method {
                refuse(shared, &message, from, *reason, out);
            }
        })?;
        edits.clear();
        let hop = Hop { plan, now, from, message: &message, edits };
        match way {
            Way::Back(sent) => hop.response_inward(&permit, &sent, out),
            Way::On(path) => check_hops(&plan.key, &message)
                .and_then(|()| hop.request_inward(&permit, &path, out))
                .inspect_err(|reason| refuse(shared, &message, from, *reason, out))?,
        }
        Ok(permit)
    }

    fn inside(&mut self, now: Now, from: &Flow, bytes: &[u8], out: &mut Outbox) -> Result<Permit, Reason> {
        let Self { shared, reader, second, edits, .. } = self;
        let (policy, plan) = (&shared.policy, &shared.plan);
        let message = read(reader, second, shared.sizes, from, bytes)?;
        edits.clear();
        let hop = Hop { plan, now, from, message: &message, edits };
        let permit = policy.inside(&message);
        if let Start::Response { .. } = message.start {
            let back = own_via(&plan.key, &message).ok_or(Reason::Unsolicited)?;
            hop.response_outward(&permit, &back, out);
            return Ok(permit);
        }
        let path = Path::read(&message, &plan.key, |_| false);
        check_hops(&plan.key, &message)
            .and_then(|()| hop.request_outward(&permit, &path, out))
            .inspect_err(|reason| refuse(shared, &message, from, *reason, out))?;
        Ok(permit)
    }
}

/// Reads one message twice; the readers must agree.
fn read<'r>(
    reader: &'r mut Reader,
    second: &mut Second,
    sizes: Sizes,
    from: &Flow,
    bytes: &'r [u8],
) -> Result<Message<'r>, Reason> {
    let message = reader.read(bytes, sizes, from.transport.is_stream())?;
    if second.agrees(&message) { Ok(message) } else { Err(Reason::Ambiguous) }
}

/// A message from outside that may pass, and the way it goes.
struct Verdict {
    permit: Permit,
    way: Way,
}

enum Way {
    /// A response, back to Asterisk.
    Back(Sent),
    /// A request, on to Asterisk.
    On(Path),
}

/// Gate steps 6 to 9.
fn judge(shared: &Shared, from: &Flow, message: &Message<'_>) -> Result<Verdict, Reason> {
    let Shared { policy, plan, .. } = shared;
    match message.start {
        Start::Response { .. } => {
            let sent = own_branch(&plan.key, &message.via).filter(|sent| came_back(plan, sent, from));
            let (permit, sent) = policy.response(sent)?;
            Ok(Verdict { permit, way: Way::Back(sent) })
        }
        Start::Request { .. } => {
            let path = Path::read(message, &plan.key, |host| policy.is_name(host) || plan.is_here(from, host));
            Ok(Verdict { permit: policy.request(message, &path)?, way: Way::On(path) })
        }
    }
}

/// What our topmost Via says of the way back, if it is ours.
fn own_via(key: &Key, message: &Message<'_>) -> Option<Return> {
    Return::open(key, message.via.param(VIA_PARAM)?)
}

/// What our branch in a Via of a response says, if it is ours.
fn own_branch(key: &Key, via: &Via<'_>) -> Option<Sent> {
    Sent::open(key, via.param(b"branch")?.strip_prefix(BRANCH)?)
}

/// Whether a response came from where its request was sent, or from where that phone is now.
fn came_back(plan: &Plan, sent: &Sent, from: &Flow) -> bool {
    let moved =
        || sent.binding.and_then(|token| plan.bindings.get(&token)).is_some_and(|binding| binding.flow == *from);
    sent.source == plan.key.source(from) || moved()
}

/// What a proxy checks before it forwards (RFC 3261 §16.3).
fn check_hops(key: &Key, message: &Message<'_>) -> Result<(), Reason> {
    if let Some((0, _)) = message.max_forwards {
        return Err(Reason::MaxForwards);
    }
    let ours = |text: &[u8]| {
        let via = Via::parse(text).ok();
        via.is_some_and(|via| {
            own_branch(key, &via).is_some() || via.param(VIA_PARAM).and_then(|t| Return::open(key, t)).is_some()
        })
    };
    // Parsing every Via of every request would be dear; ours are marked.
    let marked =
        |field: &&Field| [BRANCH, VIA_PARAM].iter().any(|mark| memmem::find(message.at(field.value()), mark).is_some());
    let mut suspects = message.all(Name::Via).filter(marked).flat_map(|field| {
        let value = message.at(field.value());
        list(value).flatten().filter_map(move |via| value.get(via))
    });
    if suspects.any(ours) {
        return Err(Reason::Loop);
    }
    // CANCEL and ACK go where their INVITE went (§16.10); they require nothing.
    let cancels = matches!(message.method(), Some(b"ACK" | b"CANCEL"));
    if !cancels && message.all(Name::ProxyRequire).next().is_some() {
        return Err(Reason::Extension);
    }
    Ok(())
}

/// Answers a request that was refused after it passed the gate. An ACK is never answered; nor is the OPTIONS of Asterisk's
/// qualify for a phone that is gone, since any answer would make the contact look reachable.
fn refuse(shared: &Shared, message: &Message<'_>, from: &Flow, reason: Reason, out: &mut Outbox) {
    let silent = match message.method() {
        None | Some(b"ACK") => true,
        Some(b"OPTIONS") => reason == Reason::Gone && from.side == Side::Inside,
        Some(_) => false,
    };
    let unsupported: Vec<u8> = message.all(Name::ProxyRequire).fold(Vec::new(), |mut lines, field| {
        lines.extend_from_slice(b"Unsupported: ");
        lines.extend_from_slice(message.at(field.value()));
        lines.extend_from_slice(b"\r\n");
        lines
    });
    let (code, phrase, more): (u16, &str, &[u8]) = match reason {
        _ if silent => return,
        Reason::Method => (405, "Method Not Allowed", shared.policy.allow().as_bytes()),
        Reason::MaxForwards => (483, "Too Many Hops", b""),
        Reason::Loop => (482, "Loop Detected", b""),
        Reason::Extension => (420, "Bad Extension", unsupported.as_slice()),
        Reason::Gone => (480, "Temporarily Unavailable", b""),
        Reason::Unavailable => (503, "Service Unavailable", b"Retry-After: 5\r\n"),
        _ => (400, "Bad Request", b""),
    };
    let tag = shared.plan.key.to_tag(&[message.call_id, message.cseq, message.via.text]);
    let start = out.bytes.len();
    reply::write(message, Status { code, phrase, more }, from.remote, tag, &mut out.bytes);
    out.sends.push(Send { to: *from, range: start..out.bytes.len() });
}
