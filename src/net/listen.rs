//! Sockets: bound once, before anything else runs, each worker with its own; and the accept loops.

use super::error::Error;
use super::mmsg;
use super::stream;
use super::worker::Worker;
use crate::config::{Config, Limits, Listener};
use crate::flow::{Flow, FlowId, Side, Transport};
use crate::gate::Reason;
use crate::proxy::Outcome;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Every socket of the door.
pub(super) struct Bound {
    /// The outside listeners, with the ports they really have.
    pub(super) listeners: Vec<Listener>,
    /// The outside sockets of each worker.
    pub(super) outside: Vec<Outside>,
    /// The address that Asterisk talks to, with its port.
    pub(super) inside: SocketAddr,
    /// Connected to Asterisk: the kernel drops what comes from anybody else, and tells when Asterisk's port is closed.
    /// One for all workers, since all that Asterisk sends has the same two addresses and could not be spread anyway.
    pub(super) inside_udp: UdpSocket,
    /// Where Asterisk may connect.
    pub(super) inside_tcp: TcpListener,
}

/// One worker's outside sockets.
#[derive(Default)]
pub(super) struct Outside {
    /// The datagram sockets, each with the address it is bound to.
    pub(super) udp: Vec<(UdpSocket, SocketAddr)>,
    /// The stream listeners.
    pub(super) streams: Vec<(TcpListener, Transport)>,
}

/// Binds everything that these settings ask for.
pub(super) fn bind(config: &Config) -> Result<Bound, Error> {
    let (inside_udp, inside_tcp, inside) = bind_inside(config)?;
    let mut listeners = config.listeners.clone();
    let mut outside: Vec<Outside> = (0..config.workers).map(|_| Outside::default()).collect();
    for listener in &mut listeners {
        let Listener { transport, address, .. } = *listener;
        let failed = |error| Error::Listen(transport, address, error);
        if address.port() != 0 {
            // Sockets that share a port are let in beside each other, also those of another program of this user: look
            // first whether the port is free for us alone.
            socket(transport, address, Sharing::Alone, &config.limits).map_err(failed)?;
        }
        for worker in &mut outside {
            let socket = socket(transport, listener.address, Sharing::Workers, &config.limits).map_err(failed)?;
            // Port 0 is any port, but the same one for all workers.
            listener.address = local(&socket).map_err(failed)?;
            if transport.is_stream() {
                socket.listen(BACKLOG).map_err(failed)?;
                worker.streams.push((socket.into(), transport));
            } else {
                worker.udp.push((socket.into(), listener.address));
            }
        }
    }
    Ok(Bound { listeners, outside, inside, inside_udp, inside_tcp })
}

/// The inside sockets: UDP and TCP on one port.
fn bind_inside(config: &Config) -> Result<(UdpSocket, TcpListener, SocketAddr), Error> {
    let wanted = config.inside;
    let bind = |transport, address| socket(transport, address, Sharing::Alone, &config.limits);
    let udp_failed = |error| Error::Inside("udp", wanted, error);
    let tcp_failed = |error| Error::Inside("tcp", wanted, error);
    let mut tries = if wanted.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let udp = bind(Transport::Udp, wanted).map_err(udp_failed)?;
        let address = local(&udp).map_err(udp_failed)?;
        tries -= 1;
        match bind(Transport::Tcp, address).and_then(|tcp| tcp.listen(BACKLOG).map(|()| tcp)) {
            Ok(tcp) => {
                udp.connect(&config.backend.into()).map_err(|error| Error::Backend(config.backend, error))?;
                return Ok((udp.into(), tcp.into(), address));
            }
            Err(error) if tries == 0 => return Err(tcp_failed(error)),
            Err(_) => {} // any port was wanted, and this one is free for UDP only
        }
    }
}

/// With whom a socket shares its port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    /// With the same socket of the other workers: the kernel spreads peers over them.
    Workers,
}

fn socket(transport: Transport, address: SocketAddr, sharing: Sharing, limits: &Limits) -> io::Result<Socket> {
    let (kind, protocol) =
        if transport.is_stream() { (Type::STREAM, Protocol::TCP) } else { (Type::DGRAM, Protocol::UDP) };
    let socket = Socket::new(Domain::for_address(address), kind.cloexec().nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if sharing == Sharing::Workers {
        socket.set_reuse_port(true)?;
    }
    if transport.is_stream() {
        // A restart must not wait for connections of before; accepted sockets inherit the other two.
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(Some(limits.write.saturating_mul(UNACKNOWLEDGED)))?;
    } else {
        // As much as the system allows: a burst has to wait somewhere while a worker is busy.
        let _ = socket.set_recv_buffer_size(BUFFER);
        let _ = socket.set_send_buffer_size(BUFFER);
        if address.ip().is_unspecified() {
            mmsg::tell_local(socket.as_fd(), address.is_ipv6())?;
        }
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// Accepts connections from outside until the listener breaks.
pub(super) async fn accept(worker: Rc<Worker>, listener: TcpListener, transport: Transport) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut shortage = Shortage::default();
    loop {
        let (socket, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                shortage.pause(error).await?;
                continue;
            }
        };
        shortage.over();
        let room = worker
            .admit(remote.ip())
            .and_then(|()| worker.door.caps.enter(transport, remote.ip()).ok_or(Reason::TooMany));
        match (room, socket.local_addr()) {
            (Ok(room), Ok(local)) => {
                let flow = Flow { side: Side::Outside, transport, local, remote, id: FlowId::default() };
                tokio::task::spawn_local(stream::outside(worker.clone(), socket, flow, room, Instant::now()));
            }
            (Err(reason), _) => {
                debug!(%remote, transport = transport.name(), reason = reason.name(), "refused at accept");
                worker.table.count(transport, Outcome::Refused(reason), 0);
            }
            (_, Err(error)) => debug!(%remote, %error, "gone at accept"),
        }
    }
}

/// Accepts Asterisk's connections until the listener breaks.
pub(super) async fn accept_inside(worker: Rc<Worker>, listener: TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut shortage = Shortage::default();
    loop {
        let (socket, remote): (TcpStream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                shortage.pause(error).await?;
                continue;
            }
        };
        shortage.over();
        if !remote.ip().is_loopback() {
            debug!(%remote, "refused at the inside listener");
            continue;
        }
        let local = worker.door.inside;
        let flow = Flow { side: Side::Inside, transport: Transport::Tcp, local, remote, id: FlowId::default() };
        tokio::task::spawn_local(stream::inside(worker.clone(), socket, flow));
    }
}

/// What to do when a connection cannot be accepted.
#[derive(Debug, Default)]
struct Shortage {
    pause: Duration,
    warned: Option<Instant>,
}

impl Shortage {
    /// Goes on when it was the peer's fault, waits when it is a shortage of ours, and fails when the listener is broken.
    async fn pause(&mut self, error: io::Error) -> io::Result<()> {
        match error.raw_os_error() {
            // What accept(2) says of its errors: these are those of the connection that was to be accepted.
            Some(
                libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::EAGAIN
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH,
            ) => {
                debug!(%error, "a connection was gone before it was accepted");
                Ok(())
            }
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    warn!("connections have to wait: {error}; raise LimitNOFILE or lower limits.connections");
                    self.warned = Some(Instant::now());
                }
                self.pause = (self.pause * 2).clamp(SHORTEST, LONGEST);
                tokio::time::sleep(self.pause).await;
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn over(&mut self) {
        self.pause = Duration::ZERO;
    }
}

const BACKLOG: i32 = 1024;
/// Bytes.
const BUFFER: usize = 4 << 20;
const PORT_TRIES: usize = 16;
/// A peer that acknowledges nothing for this many write deadlines is gone, though it never said so; until then a phone
/// in a tunnel may come back.
const UNACKNOWLEDGED: u32 = 3;
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);
const WARN_EVERY: Duration = Duration::from_secs(60);
