//! `sipdoor demo`: a phone, a small PBX and some scanners around a real door, over real sockets.
//!
//! Everything in here is for the demo and for tests only. The peers have their own reader of SIP, so that what the door
//! sends is understood, or not, by somebody who shares no code with it.

pub mod agent;
pub mod call;
pub mod dialog;
pub mod digest;
pub mod events;
mod exchange;
mod invite;
pub mod message;
pub mod pbx;
pub mod phone;
pub mod rtp;
pub mod sdp;
pub mod wire;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why something did not come about at a peer.
#[derive(Debug)]
pub enum Error {
    /// A socket's fault.
    Io(std::io::Error),
    /// The handshake's fault.
    Tls(String),
    /// This did not happen in time.
    Timeout(String),
    /// A final response that is no success.
    Refused(Box<message::Message>),
    /// The connection, or the call, is over.
    Closed,
    /// A message lacks what was needed to go on.
    Unreadable(&'static str),
}

impl Error {
    fn timeout(what: &str) -> Self {
        Self::Timeout(what.to_owned())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Timeout(what) => write!(f, "timed out: {what}"),
            Self::Refused(response) => write!(f, "answered {}", response.status()),
            Self::Closed => write!(f, "closed"),
            Self::Unreadable(what) => write!(f, "a message without {what}"),
        }
    }
}

impl std::error::Error for Error {}

/// A lock that a panic elsewhere does not take away.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
