//! Settings: as written (file, environment, flags) and as used.

use crate::flow::Transport;
use crate::sip::frame::Sizes;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Settings as used: every rule about a value has been checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The served domains, lower case, at least one.
    pub names: Vec<String>,
    /// The outside listeners.
    pub listeners: Vec<Listener>,
    /// Asterisk's UDP address, on loopback.
    pub backend: SocketAddr,
    /// The door's own loopback address (UDP and TCP) that Asterisk talks to.
    pub inside: SocketAddr,
    /// Certificate chains with their keys; empty when no listener speaks TLS.
    pub certificates: Vec<CertificateFiles>,
    /// The state directory: bindings and the token key.
    pub state: PathBuf,
    /// The admin socket.
    pub admin: PathBuf,
    /// Worker threads; never 0 here.
    pub workers: usize,
    /// What the gate lets through.
    pub gate: Gate,
    /// Deadlines and caps.
    pub limits: Limits,
}

/// One outside listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// UDP, TCP or TLS.
    pub transport: Transport,
    /// Where it listens.
    pub address: SocketAddr,
    /// The address that phones should send media to; default: the local address the phone reached.
    pub advertise: Option<IpAddr>,
}

/// The files of one certificate.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// PEM, leaf first.
    pub cert: PathBuf,
    /// PEM private key of the leaf.
    pub key: PathBuf,
}

/// The gate's settings.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Methods that may pass, upper case.
    pub methods: Vec<String>,
    /// Header fields taken out of outside traffic, lower case; a trailing `*` matches the rest of a name.
    pub strip: Vec<String>,
    /// Source networks that are refused unheard.
    pub deny: Vec<ipnet::IpNet>,
    /// Count and log what would be refused by name, and let it through.
    pub observe: bool,
}

/// Deadlines and caps (their defaults are in `config/sipdoor.toml`).
#[derive(Clone, Debug)]
pub struct Limits {
    /// From accept to the first byte.
    pub first_byte: Duration,
    /// From the first byte to a complete ClientHello.
    pub hello: Duration,
    /// From accept to a finished handshake and a first message that passes the gate.
    pub first_message: Duration,
    /// Without traffic or keep-alive.
    pub idle: Duration,
    /// For a peer that does not read.
    pub write: Duration,
    /// Messages waiting for one connection.
    pub queue: usize,
    /// Sizes of a message.
    pub sizes: Sizes,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one source (a /64 for IPv6) that have not passed the gate.
    pub per_source_new: usize,
    /// Connections of one source (a /64 for IPv6) that have.
    pub per_source: usize,
    /// Messages and connections per second and source, 0 for no limit.
    pub rate: u32,
    /// Registered contacts held at most.
    pub bindings: usize,
}
