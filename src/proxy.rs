//! The core's front: all that the shell ever asks.
//!
//! Bytes, the flow they came from and the time go in; bytes to send and one [`Outcome`] to count come out.
//! No socket, no clock, no file: the shell owns those.
#![forbid(unsafe_code)]

use crate::bindings::{Binding, Journal, Token};
use crate::config::Config;
use crate::flow::{Flow, Side};
use crate::gate::{Pass, Reason, hello::Hello};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

/// A moment: milliseconds since the Unix epoch, taken by the shell from a clock that never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now(pub u64);

/// What became of one message: exactly one row to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed by this rule.
    Passed(Pass),
    /// It was refused for this reason (an answer may lie in the outbox where one is due).
    Refused(Reason),
}

/// Bytes to send, each with its flow; reused from message to message so that nothing is allocated.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The bytes of all messages, one behind the other.
    pub bytes: Vec<u8>,
    /// What goes where.
    pub sends: Vec<Send>,
}

/// One message to send.
#[derive(Clone, Debug)]
pub struct Send {
    /// The flow it leaves on.
    pub to: Flow,
    /// Its bytes, in [`Outbox::bytes`].
    pub range: Range<usize>,
}

impl Outbox {
    /// Forgets everything; keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.sends.clear();
    }

    /// Each message with its flow.
    pub fn iter(&self) -> impl Iterator<Item = (&Flow, &[u8])> {
        self.sends.iter().filter_map(|send| Some((&send.to, self.bytes.get(send.range.clone())?)))
    }
}

/// Why a message that the core handed out could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The connection is gone, or its queue is full.
    FlowGone,
    /// The backend's port is closed (ICMP).
    BackendDown,
}

/// One worker's proxy: decides and rewrites. Workers share the bindings, the policy and the key through [`Shared`].
pub struct Proxy {
    _shared: Arc<Shared>,
}

/// What all workers share; read-mostly.
pub struct Shared {}

impl Shared {
    /// The core of one door: its settings, the 16-byte key of its tokens, the bindings that were saved, and where
    /// changes of bindings go.
    pub fn new(_config: &Config, _key: [u8; 16], _saved: Vec<(Token, Binding)>, _journal: Journal) -> Self {
        todo!()
    }

    /// Forgets expired bindings; the shell calls it every few seconds.
    pub fn expire(&self, _now: Now) {
        todo!()
    }

    /// How many bindings there are.
    pub fn bindings(&self) -> usize {
        todo!()
    }
}

impl Proxy {
    /// A worker's view of the door.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { _shared: shared }
    }

    /// Gate step 1: may this source address talk to us at all?
    pub fn admit(&mut self, _now: Now, _source: IpAddr) -> Result<(), Reason> {
        todo!()
    }

    /// Gate step 3: may this ClientHello go on?
    pub fn admit_hello(&self, _hello: &Hello<'_>) -> Result<(), Reason> {
        todo!()
    }

    /// One whole message (a datagram, or a frame of a stream): judged and, if it passes, rewritten into `out`.
    /// `out` is appended to, never cleared here.
    pub fn receive(&mut self, _now: Now, _from: &Flow, _bytes: &[u8], _out: &mut Outbox) -> Outcome {
        todo!()
    }

    /// A message that [`Self::receive`] forwarded could not be sent: puts the answer its sender is due
    /// (480, 503) into `out`. `bytes` is the message as it was received from `from`.
    pub fn undelivered(
        &mut self,
        _now: Now,
        _from: &Flow,
        _bytes: &[u8],
        _why: Undelivered,
        _out: &mut Outbox,
    ) -> Outcome {
        todo!()
    }
}

#[allow(dead_code, reason = "placeholder")]
fn _side(flow: &Flow) -> Side {
    flow.side
}
