//! Where bytes came from, when, and what goes where: plain data, shared by the core and the shell.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::ops::Range;

/// The transport protocol of a flow; the order is the order of the rows in `sipdoor status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// SIP in datagrams (RFC 3261 §18).
    Udp,
    /// SIP in a byte stream, framed by Content-Length.
    Tcp,
    /// The same stream inside TLS.
    Tls,
}

impl Transport {
    /// All transports, in the order of the rows.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// The lower-case name, as in a `transport=` parameter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// The upper-case name, as in a Via header field.
    pub const fn via(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// Whether messages are framed by Content-Length in a stream.
    pub const fn is_stream(self) -> bool {
        !matches!(self, Self::Udp)
    }
}

/// Which side of the door a flow is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The internet: judged by the gate.
    Outside,
    /// Loopback: Asterisk.
    Inside,
}

/// The number of one stream connection, never used twice, not even after a restart; 0 for datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct FlowId(pub u64);

/// One place bytes come from and go to.
///
/// `local` is concrete even when the listener is bound to a wildcard: answers leave from the address that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Outside or inside.
    pub side: Side,
    /// How the bytes are carried.
    pub transport: Transport,
    /// The address of ours that the peer used.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The connection, for streams.
    pub id: FlowId,
}

/// A moment: milliseconds since the Unix epoch, taken by the shell from a clock that never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now(pub u64);

/// Bytes to send, each with its flow; reused from message to message so that nothing is allocated.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The bytes of all messages, one behind the other.
    pub bytes: Vec<u8>,
    /// What goes where.
    pub sends: Vec<Send>,
}

/// One message to send.
#[derive(Clone, Debug)]
pub struct Send {
    /// The flow it leaves on.
    pub to: Flow,
    /// Its bytes, in [`Outbox::bytes`].
    pub range: Range<usize>,
}

impl Outbox {
    /// Forgets everything; keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.sends.clear();
    }

    /// Each message with its flow.
    pub fn iter(&self) -> impl Iterator<Item = (&Flow, &[u8])> {
        self.sends.iter().filter_map(|send| Some((&send.to, self.bytes.get(send.range.clone())?)))
    }
}
