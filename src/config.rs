//! Settings: as written (file, environment, flags) and as used.
//!
//! [`load`] reads the file, lays the environment and the flags over it, and makes one [`Config`] out of it; every rule
//! about a value is in that conversion (`used`), every sentence about a wrong one in `error`.

pub mod defaults;
mod error;
mod file;
mod used;
mod value;
mod written;

pub use error::{Cause, Error};
pub use value::{BadAddress, BadDuration, BadName};
pub use written::{At, Certificate, Listen, Place, Written};

use crate::flow::Transport;
use crate::sip::frame::Sizes;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reads the settings: the file if there is one, and what environment and flags say over it.
pub fn load(file: Option<&Path>, over: Written, host: Host) -> Result<Settings, Error> {
    let written = match file {
        Some(path) => over.over(file::read(path)?),
        None => over,
    };
    used::settings(written, host)
}

/// Only the path of the admin socket, for a command that asks a running door and needs no other setting.
pub fn admin(file: Option<&Path>, over: Written) -> Result<PathBuf, Error> {
    let written = match file {
        Some(path) => over.over(file::read(path)?),
        None => over,
    };
    Ok(used::admin(&written))
}

/// A name as the door serves it, in lower case.
pub fn name(text: &str) -> Result<String, BadName> {
    value::name(text)
}

/// The settings of one run of the program.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the door is made of.
    pub config: Config,
    /// How much is logged: `off`, `error`, `warn`, `info`, `debug` or `trace`.
    pub log: String,
    /// What the operator should hear at start.
    pub notes: Vec<String>,
    /// Where the settings stand that can still turn out to be wrong when they are used.
    places: Vec<(Subject, &'static str, Place)>,
}

/// What a complaint can be about once the settings are in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A certificate's or a key's file.
    File(PathBuf),
    /// An outside listener.
    Listener(Transport, SocketAddr),
    /// The door's address towards Asterisk.
    Inside,
    /// The state directory.
    State,
    /// The admin socket.
    Admin,
}

impl Settings {
    /// Where a subject was written, as the beginning of a complaint: `door.toml:7: state: `, or nothing.
    pub fn locate(&self, subject: &Subject) -> String {
        let found = self.places.iter().find(|(known, ..)| known == subject);
        found.map_or_else(String::new, |(_, key, place)| match place {
            Place::BuiltIn => String::new(),
            place => place.before(key).to_string(),
        })
    }
}

/// What the machine offers; asked once, so that the conversion itself is a function of its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Whether IPv6 sockets can be made.
    pub ipv6: bool,
    /// Processors that this program may use.
    pub cpus: usize,
}

impl Host {
    /// Asks the machine.
    pub fn detect() -> Self {
        Self {
            ipv6: std::net::UdpSocket::bind("[::]:0").is_ok(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

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

impl Default for Gate {
    fn default() -> Self {
        Self {
            methods: defaults::METHODS.iter().map(ToString::to_string).collect(),
            strip: used::strip_list(defaults::STRIP.iter().map(ToString::to_string)),
            deny: Vec::new(),
            observe: false,
        }
    }
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
    /// New connections, and datagrams of anyone but a registered phone, per second and source; 0 for no limit.
    pub rate: u32,
    /// Registered contacts held at most.
    pub bindings: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(5),
            hello: Duration::from_secs(5),
            first_message: Duration::from_secs(10),
            idle: Duration::from_secs(600),
            write: Duration::from_secs(10),
            queue: 64,
            sizes: Sizes::default(),
            connections: 20_000,
            per_source_new: 16,
            per_source: 512,
            rate: 0,
            bindings: 100_000,
        }
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
