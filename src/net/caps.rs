//! How many connections there may be: in all, of one source before its first good message, and of one source after it.

use crate::config::Limits;
use crate::flow::Transport;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counts of open outside connections; one entry a source that has one open, so no larger than `all`.
#[derive(Debug)]
pub(super) struct Caps {
    all: usize,
    fresh: usize,
    through: usize,
    open: [AtomicUsize; Transport::ALL.len()],
    sources: Mutex<Sources>,
}

#[derive(Debug, Default)]
struct Sources {
    total: usize,
    by_source: HashMap<Source, Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Connections that have not passed the gate.
    fresh: usize,
    /// Connections that have.
    through: usize,
}

/// An IPv4 address, or the /64 that one IPv6 customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Source {
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => Self::V6(ip.octets().first_chunk().copied().unwrap_or_default()),
        }
    }
}

impl Caps {
    /// Caps by these limits, but no more in all than `most`.
    pub(super) fn new(limits: &Limits, most: usize) -> Self {
        Self {
            all: limits.connections.min(most),
            fresh: limits.per_source_new,
            through: limits.per_source,
            open: Default::default(),
            sources: Mutex::default(),
        }
    }

    /// Room for a new connection, if there is any.
    pub(super) fn enter(self: &Arc<Self>, transport: Transport, ip: IpAddr) -> Option<Room> {
        let source = Source::of(ip);
        let mut sources = self.lock();
        if sources.total >= self.all {
            return None;
        }
        if sources.by_source.get(&source).map_or(0, |held| held.fresh) >= self.fresh {
            return None;
        }
        sources.by_source.entry(source).or_default().fresh += 1;
        sources.total += 1;
        drop(sources);
        self.count(transport).fetch_add(1, Ordering::Relaxed);
        Some(Room { caps: self.clone(), transport, source, through: false })
    }

    /// How many connections of a transport are open.
    pub(super) fn open(&self, transport: Transport) -> usize {
        self.count(transport).load(Ordering::Relaxed)
    }

    fn count(&self, transport: Transport) -> &AtomicUsize {
        let [udp, tcp, tls] = &self.open;
        match transport {
            Transport::Udp => udp,
            Transport::Tcp => tcp,
            Transport::Tls => tls,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The room of one connection; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    caps: Arc<Caps>,
    transport: Transport,
    source: Source,
    through: bool,
}

impl Room {
    /// Moves it to those that have passed the gate; false when the source has too many of them.
    pub(super) fn pass(&mut self) -> bool {
        let mut sources = self.caps.lock();
        let Some(held) = sources.by_source.get_mut(&self.source) else { return true };
        if !self.through {
            if held.through >= self.caps.through {
                return false;
            }
            held.fresh -= 1;
            held.through += 1;
            self.through = true;
        }
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.caps.count(self.transport).fetch_sub(1, Ordering::Relaxed);
        let mut sources = self.caps.lock();
        sources.total -= 1;
        if let Some(held) = sources.by_source.get_mut(&self.source) {
            if self.through {
                held.through -= 1;
            } else {
                held.fresh -= 1;
            }
            if held.fresh == 0 && held.through == 0 {
                sources.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(all: usize, fresh: usize, through: usize) -> Arc<Caps> {
        let limits = Limits { connections: all, per_source_new: fresh, per_source: through, ..Limits::default() };
        Arc::new(Caps::new(&limits, 1000))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_cap_holds_and_room_comes_back() {
        let caps = caps(4, 2, 1);
        let enter = |text| caps.enter(Transport::Tls, ip(text));
        let mut first = enter("192.0.2.1").unwrap();
        let mut second = enter("192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_none(), "two that have not passed");
        assert!(first.pass() && first.pass());
        let third = enter("192.0.2.1").unwrap();
        assert!(!second.pass(), "one that has");
        let fourth = enter("192.0.2.2").unwrap();
        assert!(enter("192.0.2.3").is_none(), "four in all");
        assert_eq!((caps.open(Transport::Tls), caps.open(Transport::Tcp)), (4, 0));
        drop((first, second, third, fourth));
        assert_eq!(caps.open(Transport::Tls), 0);
        let sources = caps.lock();
        assert_eq!((sources.total, sources.by_source.len()), (0, 0));
    }

    #[test]
    fn a_64_is_one_source() {
        let caps = caps(9, 1, 1);
        let held = caps.enter(Transport::Tcp, ip("2001:db8::1"));
        assert!(held.is_some() && caps.enter(Transport::Tcp, ip("2001:db8::2")).is_none());
        assert!(caps.enter(Transport::Tcp, ip("2001:db8:0:1::1")).is_some());
    }
}
