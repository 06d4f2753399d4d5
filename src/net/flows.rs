//! The open connections by number: the one map that workers share. A message for a connection goes into its mailbox,
//! whatever thread the connection lives on.

use crate::flow::FlowId;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

/// Every open connection of the door; as large as `limits.connections` lets it be.
#[derive(Debug)]
pub(super) struct Flows {
    next: AtomicU64,
    /// Messages that may wait for one connection.
    queue: usize,
    mailboxes: RwLock<HashMap<FlowId, Arc<Mailbox>>>,
}

impl Flows {
    /// `boot` is random: numbers are not used twice, not even after a restart, since they begin at another place.
    pub(super) fn new(boot: u32, queue: usize) -> Self {
        Self { next: AtomicU64::new((u64::from(boot) << 32) | 1), queue, mailboxes: RwLock::default() }
    }

    /// A number and a mailbox for a new connection.
    pub(super) fn open(self: &Arc<Self>) -> Place {
        let id = FlowId(self.next.fetch_add(1, Ordering::Relaxed));
        let mailbox = Arc::new(Mailbox { most: self.queue, inner: Mutex::default() });
        self.mailboxes.write().unwrap_or_else(PoisonError::into_inner).insert(id, mailbox.clone());
        Place { flows: self.clone(), id, mailbox }
    }

    /// Hands bytes to a connection; false when it is gone, or when its peer does not read and its mailbox is full,
    /// which ends it.
    pub(super) fn send(&self, id: FlowId, bytes: &[u8]) -> bool {
        let mailbox = self.mailboxes.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        mailbox.is_some_and(|mailbox| mailbox.put(bytes))
    }
}

/// A connection's entry; gone when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    flows: Arc<Flows>,
    /// The number.
    pub(super) id: FlowId,
    /// What waits to be written.
    pub(super) mailbox: Arc<Mailbox>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.flows.mailboxes.write().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.mailbox.lock().closed = true;
    }
}

/// Messages waiting for one connection. Empty, it holds no memory beyond itself, unlike a channel: most connections are
/// idle phones.
#[derive(Debug)]
pub(super) struct Mailbox {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Bytes>,
    waker: Option<Waker>,
    /// It has overflowed, or its connection is gone.
    closed: bool,
}

impl Mailbox {
    /// Adds a message; false when it is closed, or just became so because it is full.
    pub(super) fn put(&self, bytes: &[u8]) -> bool {
        let mut inner = self.lock();
        if inner.closed {
            return false;
        }
        let fits = inner.queue.len() < self.most;
        if fits {
            inner.queue.push_back(Bytes::copy_from_slice(bytes));
        } else {
            inner.closed = true;
        }
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        fits
    }

    /// The next message; `None` when the mailbox has overflowed.
    pub(super) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut inner = self.lock();
        if inner.closed {
            return Poll::Ready(None);
        }
        if let Some(bytes) = inner.queue.pop_front() {
            return Poll::Ready(Some(bytes));
        }
        inner.queue = VecDeque::new();
        match &mut inner.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_full_mailbox_closes_and_says_so_to_both_ends() {
        let flows = Arc::new(Flows::new(7, 2));
        let place = flows.open();
        assert_eq!(place.id, FlowId(7 << 32 | 1));
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = flag.clone().into();
        let mut context = Context::from_waker(&waker);
        assert!(place.mailbox.poll_take(&mut context).is_pending());
        assert!(flows.send(place.id, b"one"));
        assert!(flag.0.load(Ordering::Relaxed), "woken");
        assert_eq!(place.mailbox.poll_take(&mut context), Poll::Ready(Some(Bytes::from("one"))));
        assert!(flows.send(place.id, b"two") && flows.send(place.id, b"three"));
        assert!(!flows.send(place.id, b"four"));
        assert_eq!(place.mailbox.poll_take(&mut context), Poll::Ready(None));
        assert!(!flows.send(place.id, b"five"));
    }

    #[test]
    fn a_connection_that_is_gone_takes_nothing() {
        let flows = Arc::new(Flows::new(0, 2));
        let (first, second) = (flows.open(), flows.open());
        assert_ne!(first.id, second.id);
        let id = first.id;
        drop(first);
        assert!(!flows.send(id, b"x"));
        assert!(flows.send(second.id, b"x"));
    }
}
