//! Datagrams: in batches from the socket to the proxy.

use super::mmsg::{self, Receiver};
use super::worker::{Batch, Worker};
use crate::flow::{Flow, FlowId, Side, Transport};
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use tracing::debug;

/// Serves one socket until it breaks. The receiver is shared by the sockets of a worker, none of which keeps anything
/// in it over an await.
pub(super) async fn serve(
    worker: Rc<Worker>,
    receiver: Rc<RefCell<Receiver>>,
    socket: UdpSocket,
    bound: SocketAddr,
    side: Side,
) -> io::Result<()> {
    let socket = mmsg::readable(socket)?;
    loop {
        let mut ready = socket.readable().await?;
        let turn = batch(&worker, &mut receiver.borrow_mut(), socket.get_ref().as_fd(), bound, side);
        match turn {
            Ok(true) => {}
            Ok(false) => {
                ready.clear_ready();
                continue;
            }
            // Nothing that a peer or the network does breaks a datagram socket: note it, and take the next batch.
            Err(error) => debug!(%error, %bound, "datagrams not received"),
        }
        // There may be more, but other sockets and connections have their turn first.
        tokio::task::yield_now().await;
    }
}

/// One turn: what has come is judged and answered; true if there may be more.
fn batch(
    worker: &Worker,
    receiver: &mut Receiver,
    socket: BorrowedFd<'_>,
    bound: SocketAddr,
    side: Side,
) -> io::Result<bool> {
    let received = match side {
        Side::Outside => receiver.receive(socket),
        Side::Inside => {
            // Nobody else's errors are taken in passing.
            let _turn = worker.asterisk.lock();
            receiver.receive(socket)
        }
    };
    match received {
        Ok(more) => {
            // A message that meets a fault of the program takes its batch with it, as it would take its connection, but
            // does not close the door. The panic has been printed.
            let _ = catch_unwind(AssertUnwindSafe(|| worker.handle(&Received { receiver, bound, side })));
            Ok(more)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// What one call brought.
struct Received<'a> {
    receiver: &'a Receiver,
    bound: SocketAddr,
    side: Side,
}

impl Batch for Received<'_> {
    fn len(&self) -> usize {
        self.receiver.len()
    }

    fn get(&self, at: usize) -> Option<(Flow, &[u8])> {
        let datagram = self.receiver.get(at)?;
        let ip = datagram.local.unwrap_or_else(|| self.bound.ip());
        let local = SocketAddr::new(ip, self.bound.port());
        let flow =
            Flow { side: self.side, transport: Transport::Udp, local, remote: datagram.remote, id: FlowId::default() };
        Some((flow, datagram.bytes))
    }
}
