//! TLS: the ClientHello is read and judged before there is a connection to answer on; a refusal is a close, without a
//! byte. Then rustls has it.

pub use super::certificate::{About, CertificateError, Certificates, load};

use super::worker::Worker;
use crate::flow::Transport;
use crate::gate::hello::{Hello, Reader};
use crate::gate::{Pass, Reason};
use crate::proxy::Outcome;
use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor, ProducesTickets};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

/// The certificates in use; replaced as a whole when they are loaded again.
pub(super) struct Tls {
    ticketer: Arc<dyn ProducesTickets>,
    current: RwLock<(Arc<ServerConfig>, Vec<About>)>,
}

impl Tls {
    pub(super) fn new(certificates: Certificates) -> Result<Self, rustls::Error> {
        let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        let about = certificates.about().to_vec();
        let config = certificates.config(ticketer.clone())?;
        Ok(Self { ticketer, current: RwLock::new((Arc::new(config), about)) })
    }

    /// New connections get these from now on.
    pub(super) fn replace(&self, certificates: Certificates) -> Result<(), rustls::Error> {
        let about = certificates.about().to_vec();
        let config = Arc::new(certificates.config(self.ticketer.clone())?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (config, about);
        Ok(())
    }

    /// What can be told of the certificates in use.
    pub(super) fn about(&self) -> Vec<About> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// Why there is no TLS connection; `None` when the peer went away by itself.
pub(super) type Refused = Option<(Reason, usize)>;

/// From the first byte to the end of the handshake, each within its deadline.
pub(super) async fn accept(
    worker: &Worker,
    mut socket: TcpStream,
    opened: Instant,
) -> Result<TlsStream<TcpStream>, Refused> {
    let tls = worker.door.tls.as_ref().ok_or(None)?;
    let mut hello = Incoming::new(opened, opened + worker.door.limits.first_byte);
    let accepted = loop {
        let due = hello.due;
        match timeout_at(due, poll_fn(|context| hello.poll(context, worker, &mut socket))).await {
            Ok(Ok(Some(accepted))) => break accepted,
            Ok(Ok(None)) => {}
            Ok(Err(refused)) => return Err(refused),
            Err(_) => return Err(Some((Reason::Slow, hello.bytes))),
        }
    };
    worker.table.count(Transport::Tls, Outcome::Passed(Pass::Hello), hello.bytes);
    let bytes = hello.bytes;
    drop(hello);
    // Boxed: its state is large, and a connection that is through needs none of it.
    let handshake = Box::pin(StartHandshake::from_parts(accepted, socket).into_stream(tls.config()));
    match timeout_at(opened + worker.door.limits.first_message, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(_)) => Err(Some((Reason::Handshake, bytes))),
        Err(_) => Err(Some((Reason::Slow, bytes))),
    }
}

/// A ClientHello on its way in.
struct Incoming {
    reader: Reader,
    /// What has come, if it came in more than one piece.
    kept: Vec<u8>,
    bytes: usize,
    opened: Instant,
    due: Instant,
}

impl Incoming {
    fn new(opened: Instant, due: Instant) -> Self {
        Self { reader: Reader::default(), kept: Vec::new(), bytes: 0, opened, due }
    }

    /// Reads once. `None` when more has to come.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        worker: &Worker,
        socket: &mut TcpStream,
    ) -> Poll<Result<Option<Accepted>, Refused>> {
        let mut scratch = worker.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        if ready!(Pin::new(socket).poll_read(context, &mut buffer)).is_err() || buffer.filled().is_empty() {
            return Poll::Ready(Err(None));
        }
        if self.bytes == 0 {
            let limits = &worker.door.limits;
            self.due = (Instant::now() + limits.hello).min(self.opened + limits.first_message);
        }
        self.bytes += buffer.filled().len();
        Poll::Ready(self.read(buffer.filled(), worker).map_err(|reason| Some((reason, self.bytes))))
    }

    fn read(&mut self, bytes: &[u8], worker: &Worker) -> Result<Option<Accepted>, Reason> {
        if !self.reader.push(bytes)? {
            self.kept.extend_from_slice(bytes);
            // Records add to what the reader bounds: with 6 bytes a record, a client hides nothing behind them.
            return if self.kept.len() > MOST { Err(Reason::NotTls) } else { Ok(None) };
        }
        let hello = self.reader.hello()?;
        worker.admit_hello(&hello)?;
        let whole = if self.kept.is_empty() {
            bytes
        } else {
            self.kept.extend_from_slice(bytes);
            &self.kept
        };
        hand_over(whole, &hello).map(Some)
    }
}

/// Gives the bytes to rustls, which must read the same name in them.
fn hand_over(mut bytes: &[u8], hello: &Hello<'_>) -> Result<Accepted, Reason> {
    let mut acceptor = Acceptor::default();
    let accepted = loop {
        // Piece by piece: rustls holds only so much that it has not looked at.
        acceptor.read_tls(&mut bytes).map_err(|_| Reason::Handshake)?;
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) if !bytes.is_empty() => {}
            Ok(None) | Err(_) => return Err(Reason::Handshake),
        }
    };
    // The client waits for our part now (RFC 8446 §2; there is no early data without our ticket for it).
    if !bytes.is_empty() {
        return Err(Reason::Handshake);
    }
    let same = match (accepted.client_hello().server_name(), hello) {
        (Some(theirs), Hello::Name(ours)) => theirs.as_bytes().eq_ignore_ascii_case(ours),
        _ => false,
    };
    if same { Ok(accepted) } else { Err(Reason::SniWrong) }
}

/// The most that is kept of a ClientHello with its records.
const MOST: usize = 64 << 10;
