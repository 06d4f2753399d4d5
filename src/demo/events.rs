//! What happened at a peer, kept until somebody asks: nothing is missed because nobody was waiting at that moment.

use super::sdp::Direction;
use super::{Error, lock, message::Message};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// One thing that happened. Calls are named by their Call-ID.
#[derive(Clone, Debug)]
pub enum Event {
    /// Our call got this provisional response.
    Progress {
        /// The call.
        call: String,
        /// 180, 183, …
        status: u16,
    },
    /// Our call got its 2xx.
    Answered {
        /// The call.
        call: String,
    },
    /// Our call was refused, or nobody answered (408).
    Refused {
        /// The call.
        call: String,
        /// The final status.
        status: u16,
    },
    /// A call came in.
    Incoming {
        /// The call.
        call: String,
        /// Its INVITE.
        request: Box<Message>,
    },
    /// The caller's ACK came.
    Confirmed {
        /// The call.
        call: String,
    },
    /// The caller gave up before we answered.
    Cancelled {
        /// The call.
        call: String,
    },
    /// The other side changed the session.
    Reinvited {
        /// The call.
        call: String,
        /// Its direction, seen from there.
        direction: Direction,
    },
    /// The other side hung up.
    Ended {
        /// The call.
        call: String,
    },
    /// A MESSAGE, NOTIFY, OPTIONS or INFO came and was answered 200.
    Request {
        /// The request.
        request: Box<Message>,
    },
    /// A keep-alive was answered.
    Pong,
    /// The connection is over.
    Closed,
}

/// The queue of events, oldest first.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: Mutex<VecDeque<Event>>,
    news: Notify,
}

impl Events {
    pub(super) fn push(&self, event: Event) {
        let mut queue = lock(&self.queue);
        // A peer that runs for days keeps what is recent.
        if queue.len() == KEPT {
            queue.pop_front();
        }
        queue.push_back(event);
        drop(queue);
        self.news.notify_waiters();
    }

    /// Takes the first event that `pick` wants out of the queue, waiting for it if need be; all others stay.
    pub(super) async fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut pick: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, Error> {
        let search = async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if let Some(found) = self.take(&mut pick) {
                    return found;
                }
                news.await;
            }
        };
        timeout(limit, search).await.map_err(|_| Error::timeout(what))
    }

    /// Forgets what nobody asked for.
    pub(super) fn clear(&self) {
        lock(&self.queue).clear();
    }

    fn take<T>(&self, pick: &mut impl FnMut(&Event) -> Option<T>) -> Option<T> {
        let mut queue = lock(&self.queue);
        let (at, found) = queue.iter().enumerate().find_map(|(at, event)| Some((at, pick(event)?)))?;
        queue.remove(at);
        Some(found)
    }
}

const KEPT: usize = 10_000;
