//! Connections: bytes into messages, messages to the proxy, answers back; one task each, with every wait bounded.

use super::caps::Room;
use super::flows::Place;
use super::tls;
use super::worker::{Single, Worker};
use crate::flow::{Flow, Transport};
use crate::gate::{Pass, Reason};
use crate::proxy::Outcome;
use crate::sip::frame::{Framer, Step};
use bytes::{Buf as _, Bytes, BytesMut};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

/// The life of a connection from outside.
pub(super) async fn outside(worker: Rc<Worker>, socket: TcpStream, flow: Flow, room: Room, opened: Instant) {
    let refused = if flow.transport == Transport::Tls {
        match tls::accept(&worker, socket, opened).await {
            Ok(stream) => serve(&worker, stream, flow, Stage::Unproven { room, opened }).await,
            Err(refused) => refused,
        }
    } else {
        serve(&worker, socket, flow, Stage::Silent { room, opened }).await
    };
    if let Some((reason, bytes)) = refused {
        debug!(remote = %flow.remote, transport = flow.transport.name(), reason = reason.name(), "closed");
        worker.table.count(flow.transport, Outcome::Refused(reason), bytes);
    }
}

/// The life of a connection from Asterisk.
pub(super) async fn inside(worker: Rc<Worker>, socket: TcpStream, flow: Flow) {
    if let Some((reason, bytes)) = serve(&worker, socket, flow, Stage::Inside).await {
        worker.table.count(flow.transport, Outcome::Refused(reason), bytes);
    }
}

/// Serves a connection to its end; the reason for it if it was ours, and has not been counted, with the bytes at hand.
async fn serve<S>(worker: &Worker, io: S, mut flow: Flow, stage: Stage) -> tls::Refused
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let place = worker.door.flows.open();
    flow.id = place.id;
    let now = Instant::now();
    let sizes = worker.door.limits.sizes;
    let sizes = if matches!(stage, Stage::Inside) { sizes } else { sizes.stranger() };
    let mut connection = Connection {
        worker,
        io,
        flow,
        place,
        stage,
        framer: Framer::new(sizes),
        rest: BytesMut::new(),
        sending: Bytes::new(),
        unflushed: false,
        stuck: None,
        active: now,
    };
    let mut alarm = pin!(sleep_until(connection.due().unwrap_or(now)));
    poll_fn(|context| connection.poll(context, alarm.as_mut())).await
}

/// How far a connection has come; what it is allowed to wait for follows from it.
enum Stage {
    /// Nothing has come.
    Silent { room: Room, opened: Instant },
    /// No message has passed the gate.
    Unproven { room: Room, opened: Instant },
    /// One has.
    Passed {
        /// Given back when the connection ends.
        _room: Room,
    },
    /// Asterisk's own.
    Inside,
}

/// Why a connection ends: for a reason of ours, or (`None`) because the peer ended it or it has been counted already.
type End = tls::Refused;

struct Connection<'w, S> {
    worker: &'w Worker,
    io: S,
    flow: Flow,
    place: Place,
    stage: Stage,
    framer: Framer,
    /// The beginning of a message that is not whole; no memory when there is none.
    rest: BytesMut,
    /// What is being written.
    sending: Bytes,
    /// Something was written that may still lie in the TLS session.
    unflushed: bool,
    /// Since when the peer takes nothing.
    stuck: Option<Instant>,
    /// When bytes last went in or out.
    active: Instant,
}

impl<S> Connection<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll(&mut self, context: &mut Context<'_>, mut alarm: Pin<&mut Sleep>) -> Poll<End> {
        loop {
            if let Err(end) = self.write(context) {
                return Poll::Ready(end);
            }
            match self.read(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Pending => break,
            }
        }
        // The alarm is moved only when it goes off too early, or would go off too late.
        while let Some(due) = self.due() {
            if due < alarm.deadline() {
                alarm.as_mut().reset(due);
            }
            if alarm.as_mut().poll(context).is_pending() {
                break;
            }
            if Instant::now() >= due {
                return Poll::Ready(Some((Reason::Slow, self.rest.len())));
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// The next deadline.
    fn due(&self) -> Option<Instant> {
        let limits = &self.worker.door.limits;
        let waiting = match self.stage {
            Stage::Silent { opened, .. } => Some(opened + limits.first_byte.min(limits.first_message)),
            Stage::Unproven { opened, .. } => Some(opened + limits.first_message),
            Stage::Passed { .. } => Some(self.active + limits.idle),
            Stage::Inside => None,
        };
        let writing = self.stuck.map(|since| since + limits.write);
        waiting.into_iter().chain(writing).min()
    }

    /// Writes what waits, as far as the peer takes it.
    fn write(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        loop {
            if self.sending.is_empty() {
                match self.place.mailbox.poll_take(context) {
                    Poll::Ready(Some(bytes)) => self.sending = bytes,
                    // Too much waits for a peer that does not read.
                    Poll::Ready(None) => return Err(Some((Reason::Slow, 0))),
                    Poll::Pending => return self.flush(context),
                }
            }
            match Pin::new(&mut self.io).poll_write(context, &self.sending) {
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.sending.advance(written);
                    self.active = Instant::now();
                    self.stuck = None;
                    self.unflushed = true;
                }
                Poll::Ready(_) => return Err(None),
                Poll::Pending => {
                    self.stuck.get_or_insert_with(Instant::now);
                    return Ok(());
                }
            }
        }
    }

    fn flush(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        if !self.unflushed {
            return Ok(());
        }
        match Pin::new(&mut self.io).poll_flush(context) {
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                self.stuck = None;
                self.sending = Bytes::new();
                Ok(())
            }
            Poll::Ready(Err(_)) => Err(None),
            Poll::Pending => {
                self.stuck.get_or_insert_with(Instant::now);
                Ok(())
            }
        }
    }

    /// Reads once, and handles every message that is whole then.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        let mut scratch = self.worker.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        match Pin::new(&mut self.io).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
            Poll::Ready(_) => return Poll::Ready(Err(None)),
            Poll::Pending => return Poll::Pending,
        }
        self.active = Instant::now();
        self.stage = match std::mem::replace(&mut self.stage, Stage::Inside) {
            Stage::Silent { room, opened } => Stage::Unproven { room, opened },
            other => other,
        };
        Poll::Ready(self.take(buffer.filled()))
    }

    /// Handles the messages in what has come; keeps what is left.
    fn take(&mut self, new: &[u8]) -> Result<(), End> {
        if self.rest.is_empty() {
            let used = self.frames(new)?;
            let left = new.get(used..).unwrap_or_default();
            if !left.is_empty() {
                self.rest = BytesMut::from(left);
            }
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(new);
        let used = self.frames(&all)?;
        if used < all.len() {
            all.advance(used);
            self.rest = all;
        }
        Ok(())
    }

    /// Handles every whole message at the front of `bytes`; how many bytes that were.
    fn frames(&mut self, bytes: &[u8]) -> Result<usize, End> {
        let mut used = 0;
        loop {
            let left = bytes.get(used..).unwrap_or_default();
            match self.framer.next(left) {
                Err(reason) => return Err(Some((reason, left.len()))),
                Ok(Step::More) => return Ok(used),
                Ok(Step::Skip(length)) => used += length,
                Ok(Step::Ping(length)) => {
                    used += length;
                    self.ping();
                }
                Ok(Step::Message(length)) => {
                    used += length;
                    let message = left.get(..length).unwrap_or_default();
                    if let Some(outcome) = self.worker.handle(&Single(&self.flow, message)) {
                        self.judged(outcome)?;
                    }
                }
            }
        }
    }

    /// RFC 5626 §4.4.1. To a stranger the port says nothing.
    fn ping(&mut self) {
        self.worker.table.count(self.flow.transport, Outcome::Passed(Pass::KeepAlive), PING);
        if matches!(self.stage, Stage::Passed { .. } | Stage::Inside) {
            // A mailbox that is full ends the connection when it is looked at.
            self.place.mailbox.put(b"\r\n");
        }
    }

    /// What a message's fate means for its connection.
    fn judged(&mut self, outcome: Outcome) -> Result<(), End> {
        let through = match outcome {
            Outcome::Passed(_) | Outcome::Observed(_) => true,
            // Refused after the gate, with an answer.
            Outcome::Refused(reason) if reason.is_answered() => true,
            // Nobody can tell where the next message begins, or who is speaking.
            Outcome::Refused(Reason::NotSip | Reason::TooBig | Reason::Framing | Reason::Banned) => return Err(None),
            Outcome::Refused(Reason::Malformed | Reason::Ambiguous) => {
                return if matches!(self.stage, Stage::Silent { .. } | Stage::Unproven { .. }) {
                    Err(None)
                } else {
                    Ok(())
                };
            }
            Outcome::Refused(_) => false,
        };
        if through {
            self.stage = match std::mem::replace(&mut self.stage, Stage::Inside) {
                Stage::Silent { mut room, .. } | Stage::Unproven { mut room, .. } => {
                    if !room.pass() {
                        return Err(Some((Reason::TooMany, 0)));
                    }
                    self.framer.allow(self.worker.door.limits.sizes);
                    Stage::Passed { _room: room }
                }
                other => other,
            };
        }
        Ok(())
    }
}

/// Bytes of a ping.
const PING: usize = 4;
