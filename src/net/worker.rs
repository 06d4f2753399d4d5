//! One worker: its proxy, its sockets for sending, and what happens to a message between them.
//!
//! A worker is one thread. Nothing here waits: messages go in, their answers and what is forwarded go out at once, or
//! into the mailbox of a connection.

use super::Door;
use super::mmsg::{Outgoing, Sender};
use crate::flow::{Flow, Side, Transport};
use crate::gate::Reason;
use crate::observe::Table;
use crate::proxy::{Now, Outbox, Outcome, Proxy, Send, Undelivered};
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::{debug, info};

/// What one worker owns.
pub(super) struct Worker {
    /// What all workers share.
    pub(super) door: Arc<Door>,
    /// This worker's counters.
    pub(super) table: Arc<Table>,
    /// Bytes of a stream are read into this; no connection has a buffer of its own. Never borrowed over an await.
    pub(super) scratch: RefCell<Vec<u8>>,
    /// The outside datagram sockets, each with the address it is bound to.
    outside: Vec<(UdpSocket, SocketAddr)>,
    /// The way to Asterisk.
    pub(super) asterisk: Arc<InsideSocket>,
    turn: RefCell<Turn>,
}

/// The memory of one turn: messages in, bytes out. Kept from turn to turn so that nothing is allocated for a refusal.
struct Turn {
    proxy: Proxy,
    sender: Sender,
    out: Outbox,
    /// The message that each entry of `out` came from.
    origins: Vec<usize>,
    /// The answers that are due for what could not be delivered.
    answers: Outbox,
    failures: Vec<(usize, Undelivered)>,
    counts: Vec<Option<(Transport, Outcome, usize)>>,
    /// For each outside socket, and behind them the inside socket, the entries of an outbox that leave by it.
    lanes: Vec<Vec<usize>>,
}

/// Messages that came together.
pub(super) trait Batch {
    /// How many.
    fn len(&self) -> usize;

    /// One of them.
    fn get(&self, at: usize) -> Option<(Flow, &[u8])>;
}

/// A batch of one.
pub(super) struct Single<'a>(pub(super) &'a Flow, pub(super) &'a [u8]);

impl Batch for Single<'_> {
    fn len(&self) -> usize {
        1
    }

    fn get(&self, _: usize) -> Option<(Flow, &[u8])> {
        Some((*self.0, self.1))
    }
}

impl Worker {
    pub(super) fn new(
        door: Arc<Door>,
        table: Arc<Table>,
        outside: Vec<(UdpSocket, SocketAddr)>,
        asterisk: Arc<InsideSocket>,
    ) -> Self {
        let turn = Turn {
            proxy: Proxy::new(door.shared.clone()),
            sender: Sender::new(),
            out: Outbox::default(),
            origins: Vec::new(),
            answers: Outbox::default(),
            failures: Vec::new(),
            counts: Vec::new(),
            lanes: vec![Vec::new(); outside.len() + 1],
        };
        Self { door, table, scratch: RefCell::new(vec![0; SCRATCH]), outside, asterisk, turn: RefCell::new(turn) }
    }

    /// May this source connect?
    pub(super) fn admit(&self, source: IpAddr) -> Result<(), Reason> {
        self.turn.borrow_mut().proxy.admit(self.door.clock.now(), source)
    }

    /// What the core says of a ClientHello.
    pub(super) fn admit_hello(&self, hello: &crate::gate::hello::Hello<'_>) -> Result<(), Reason> {
        self.turn.borrow().proxy.admit_hello(hello)
    }

    /// Judges and forwards a batch of messages, and counts each once; what became of the last one.
    pub(super) fn handle(&self, batch: &impl Batch) -> Option<Outcome> {
        let mut turn = self.turn.borrow_mut();
        let now = self.door.clock.now();
        turn.judge(now, batch);
        turn.deliver(self);
        turn.make_good(now, batch, self);
        turn.counts.drain(..).flatten().fold(None, |_, (transport, outcome, bytes)| {
            self.table.count(transport, outcome, bytes);
            Some(outcome)
        })
    }
}

impl Turn {
    fn judge(&mut self, now: Now, batch: &impl Batch) {
        // All of it: a turn that panicked left its own behind.
        self.out.clear();
        self.origins.clear();
        self.counts.clear();
        self.lanes.iter_mut().for_each(Vec::clear);
        for at in 0..batch.len() {
            let count = batch.get(at).map(|(flow, bytes)| {
                let outcome = self.proxy.receive(now, &flow, bytes, &mut self.out);
                tell(&flow, outcome, bytes);
                (flow.transport, outcome, bytes.len())
            });
            self.origins.resize(self.out.sends.len(), at);
            self.counts.push(count);
        }
    }

    /// Sends what is in the outbox; what cannot be sent is in `failures` then.
    fn deliver(&mut self, worker: &Worker) {
        let Self { sender, out, failures, lanes, .. } = self;
        failures.clear();
        post(out, worker, sender, lanes, failures);
    }

    /// Whoever is due an answer for what could not be delivered gets it. Answers that cannot be delivered either are lost.
    fn make_good(&mut self, now: Now, batch: &impl Batch, worker: &Worker) {
        if self.failures.is_empty() {
            return;
        }
        let Self { proxy, sender, out, origins, answers, failures, counts, lanes } = self;
        answers.clear();
        failures.sort_unstable_by_key(|(at, _)| *at);
        let mut last = None;
        for (at, why) in failures.drain(..) {
            let Some((&origin, send)) = origins.get(at).zip(out.sends.get(at)) else { continue };
            let Some((flow, bytes)) = batch.get(origin) else { continue };
            // An answer of ours to the sender itself, or a second copy of the same message.
            if send.to == flow || last.replace(origin) == Some(origin) {
                continue;
            }
            let outcome = proxy.undelivered(now, &flow, bytes, why, answers);
            tell(&flow, outcome, bytes);
            if let Some(Some((_, counted, _))) = counts.get_mut(origin) {
                *counted = outcome;
            }
        }
        post(answers, worker, sender, lanes, failures);
        failures.clear();
    }
}

/// Sends everything in an outbox: datagrams in batches by socket, the rest into mailboxes.
fn post(
    out: &Outbox,
    worker: &Worker,
    sender: &mut Sender,
    lanes: &mut [Vec<usize>],
    failures: &mut Vec<(usize, Undelivered)>,
) {
    for (at, (to, bytes)) in out.iter().enumerate() {
        let lane = match (to.side, to.transport) {
            (Side::Inside, Transport::Udp) => lanes.last_mut(),
            (Side::Outside, Transport::Udp) => socket_for(&worker.outside, to.local).and_then(|at| lanes.get_mut(at)),
            _ if worker.door.flows.send(to.id, bytes) => continue,
            _ => None,
        };
        match lane {
            Some(lane) => lane.push(at),
            None => failures.push((at, Undelivered::FlowGone)),
        }
    }
    let Some((inward, outward)) = lanes.split_last_mut() else { return };
    for (lane, (socket, bound)) in outward.iter_mut().zip(&worker.outside) {
        if !lane.is_empty() {
            let choose = bound.ip().is_unspecified();
            let shape = |send: &Send| (Some(send.to.remote), choose.then_some(send.to.local.ip()));
            send_lane(sender, socket.as_fd(), out, lane, shape, &mut |_, error| debug!(%error, "datagram not sent"));
            lane.clear();
        }
    }
    if !inward.is_empty() {
        worker.asterisk.send(sender, out, inward, failures);
        inward.clear();
    }
}

/// The socket whose address a flow has, or that is bound to all addresses on its port.
fn socket_for(sockets: &[(UdpSocket, SocketAddr)], local: SocketAddr) -> Option<usize> {
    let any = |bound: SocketAddr| {
        bound.ip().is_unspecified() && bound.port() == local.port() && bound.is_ipv4() == local.is_ipv4()
    };
    let exact = sockets.iter().position(|(_, bound)| *bound == local);
    exact.or_else(|| sockets.iter().position(|(_, bound)| any(*bound)))
}

/// Sends the entries of one lane without waiting. One that cannot be sent does not hold up the others; when the socket
/// takes no more, the rest is lost, as datagrams are.
fn send_lane(
    sender: &mut Sender,
    socket: BorrowedFd<'_>,
    out: &Outbox,
    lane: &[usize],
    shape: impl Fn(&Send) -> (Option<SocketAddr>, Option<IpAddr>),
    failed: &mut dyn FnMut(usize, &io::Error),
) {
    let mut rest = lane;
    let mut again = true;
    while let Some((&first, others)) = rest.split_first() {
        let entries = rest.iter().filter_map(|at| out.sends.get(*at));
        let messages = entries.map(|send| {
            let (to, from) = shape(send);
            Outgoing { bytes: out.bytes.get(send.range.clone()).unwrap_or_default(), to, from }
        });
        match sender.send(socket, messages) {
            Ok(0) => return,
            Ok(sent) => {
                rest = rest.get(sent..).unwrap_or_default();
                again = true;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The refusal of a datagram before this one: this one has not been tried.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && again => {
                failed(first, &error);
                again = false;
            }
            Err(error) => {
                failed(first, &error);
                if error.kind() == io::ErrorKind::WouldBlock {
                    return;
                }
                rest = others;
            }
        }
    }
}

/// The socket to Asterisk: connected, and one for all workers.
///
/// That Asterisk's port is closed comes back as an ICMP error, which the kernel tells once, to whoever calls next. On
/// loopback it is there when the sending call returns, so with the socket to oneself from before the sending until after
/// the question, the error belongs to what was sent. (A kernel before 6.5 that is flooded may tell it later, to the next
/// one: then senders of datagrams are told when they repeat themselves.)
#[derive(Debug)]
pub(super) struct InsideSocket(Mutex<UdpSocket>);

impl InsideSocket {
    pub(super) const fn new(socket: UdpSocket) -> Self {
        Self(Mutex::new(socket))
    }

    /// The socket to oneself. Asterisk takes far less than one worker sends, so nobody waits long.
    pub(super) fn lock(&self) -> MutexGuard<'_, UdpSocket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, sender: &mut Sender, out: &Outbox, lane: &[usize], failures: &mut Vec<(usize, Undelivered)>) {
        let socket = self.lock();
        let noted = failures.len();
        let mut down = false;
        let mut first = lane.first().copied();
        send_lane(sender, socket.as_fd(), out, lane, |_| (None, None), &mut |at, error| match error.kind() {
            // An error that was there before the first of these was sent is not theirs.
            io::ErrorKind::ConnectionRefused if first.take() == Some(at) => {}
            io::ErrorKind::ConnectionRefused => down = true,
            _ => {
                debug!(%error, "not sent to Asterisk");
                failures.push((at, Undelivered::BackendDown));
            }
        });
        let error = socket.take_error().ok().flatten();
        down |= error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if down {
            failures.truncate(noted);
            failures.extend(lane.iter().map(|at| (*at, Undelivered::BackendDown)));
        }
    }
}

/// What became of one message, for whoever looks into it. Strangers do not get past debug; `observe` is there to be read.
fn tell(flow: &Flow, outcome: Outcome, bytes: &[u8]) {
    let (transport, remote) = (flow.transport.name(), flow.remote);
    match outcome {
        Outcome::Passed(pass) => debug!(transport, %remote, bytes = bytes.len(), rule = pass.name(), "passed"),
        Outcome::Refused(reason) => debug!(transport, %remote, bytes = bytes.len(), reason = reason.name(), "refused"),
        Outcome::Observed(reason) => info!(transport, %remote, reason = reason.name(), "would be refused"),
    }
}

/// Bytes read from a stream at a time.
const SCRATCH: usize = 64 << 10;
