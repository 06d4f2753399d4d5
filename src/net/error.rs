//! Why the door does not open, or closes: one sentence each, for the operator.

use super::certificate::CertificateError;
use crate::flow::Transport;
use crate::store::StoreError;
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why the door does not open, or closes by itself.
#[derive(Debug)]
pub enum Error {
    /// An outside listener cannot be bound.
    Listen(Transport, SocketAddr, io::Error),
    /// The loopback address for Asterisk cannot be bound.
    Inside(&'static str, SocketAddr, io::Error),
    /// The inside socket cannot be pointed at Asterisk.
    Backend(SocketAddr, io::Error),
    /// The state directory.
    Store(StoreError),
    /// A certificate.
    Certificate(CertificateError),
    /// No thread, no runtime, no random bytes.
    System(&'static str, io::Error),
    /// A worker ended by itself.
    Worker(usize, String),
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(transport, address, error) => {
                write!(to, "cannot listen on {} {address}: ", transport.name())?;
                cause(to, error, "[[listen]] address")
            }
            Self::Inside(transport, address, error) => {
                write!(to, "cannot listen on {transport} {address} for Asterisk: ")?;
                cause(to, error, "[backend] inside")
            }
            Self::Backend(address, error) => write!(
                to,
                "cannot send from [backend] inside to Asterisk at {address}: {error}; write loopback addresses of one \
                 family for both"
            ),
            Self::Store(error) => error.fmt(to),
            Self::Certificate(error) => error.fmt(to),
            Self::System(what, error) => write!(to, "{what}: {error}"),
            Self::Worker(number, why) => write!(to, "worker {number} ended: {why}"),
        }
    }
}

/// What is wrong with an address, and what to do about it.
fn cause(to: &mut fmt::Formatter<'_>, error: &io::Error, key: &str) -> fmt::Result {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            write!(to, "address in use: another program (or another sipdoor) has it; stop it or change {key}")
        }
        io::ErrorKind::PermissionDenied => {
            write!(to, "permission denied: give the door CAP_NET_BIND_SERVICE or change {key} to a port above 1023")
        }
        io::ErrorKind::AddrNotAvailable => {
            write!(to, "this machine does not have that address; change {key} to one that `ip address` shows")
        }
        _ if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            write!(to, "this machine has no such kind of address (IPv6 is off); change {key}")
        }
        _ => write!(to, "{error}; change {key}"),
    }
}

impl std::error::Error for Error {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CertificateError> for Error {
    fn from(error: CertificateError) -> Self {
        Self::Certificate(error)
    }
}
