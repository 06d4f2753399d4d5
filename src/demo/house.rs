//! Where the story takes place: a real door on loopback with a certificate of its own making, and who lives where.

use super::pbx::{ECHO, RINGS, TONE};
use super::phones::USERS;
use super::{Error, Options};
use crate::admin::{self, Shape, Status, table};
use crate::certs;
use crate::config::{self, At, CertificateFiles, Config, Host, Listener, Place, Written};
use crate::flow::Transport;
use crate::net::Server;
use crate::observe::Snapshot;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The door and what one must know to use it.
pub(super) struct House {
    /// The secret domain.
    pub(super) name: String,
    /// The door's outside address.
    pub(super) listen: IpAddr,
    /// The address at which the PBX knows the door.
    pub(super) inside: SocketAddr,
    /// The password of all users.
    pub(super) password: String,
    /// The certificate, PEM, of the authority that signed the door's.
    pub(super) authority: Vec<u8>,
    backend: SocketAddr,
    listeners: Vec<Listener>,
    server: Server,
    directory: Directory,
}

impl House {
    /// Makes the certificate, and opens the door before the PBX that listens on `backend`.
    pub(super) fn open(options: &Options, password: String, backend: SocketAddr) -> Result<Self, Error> {
        let directory = Directory::make()?;
        let files = certs::write(&directory.0.join("certs"), std::slice::from_ref(&options.name))
            .map_err(|error| Error::Unexpected(error.to_string()))?;
        let authority = std::fs::read(&files.authority)?;
        let mut config = settings(options)?;
        config.listeners = Transport::ALL.map(|transport| listener(options, transport)).to_vec();
        config.backend = backend;
        config.inside = SocketAddr::new(backend.ip(), 0);
        config.certificates = vec![CertificateFiles { cert: files.cert, key: files.key }];
        config.state = directory.0.join("state");
        config.admin = directory.0.join(ADMIN);
        // As much as a demo needs, and less than any limit of open files.
        config.limits.connections = 500;
        let name = config.names.first().cloned().unwrap_or_default();
        let server = Server::start(config).map_err(|error| Error::Door(Box::new(error)))?;
        let (listeners, inside) = (server.door().listeners().to_vec(), server.door().inside());
        Ok(Self { name, listen: options.listen, inside, password, authority, backend, listeners, server, directory })
    }

    /// The door's address for this transport.
    pub(super) fn door(&self, transport: Transport) -> SocketAddr {
        let found = self.listeners.iter().find(|listener| listener.transport == transport);
        found.map_or(SocketAddr::new(self.listen, 0), |listener| listener.address)
    }

    /// Where phones sit: on a loopback address of their own where the door is on one.
    pub(super) fn phone_address(&self) -> Option<IpAddr> {
        self.neighbour(10)
    }

    /// Where strangers sit.
    pub(super) fn stranger_address(&self) -> IpAddr {
        let any: IpAddr =
            if self.listen.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        self.neighbour(66).unwrap_or(any)
    }

    fn neighbour(&self, last: u8) -> Option<IpAddr> {
        match self.listen {
            IpAddr::V4(ip) if ip.is_loopback() => Some(IpAddr::from([127, 0, 0, last])),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }

    /// The counters now.
    pub(super) fn counters(&self) -> Snapshot {
        self.server.door().counters()
    }

    /// The counters as `sipdoor status` shows them.
    pub(super) fn table(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        table(&Status::of(&self.server.door()), Shape { now, ..Shape::default() })
    }

    /// Lets `sipdoor status` ask.
    pub(super) fn answer_status(&self) -> Result<Arc<admin::Server>, Error> {
        let path = self.directory.0.join(ADMIN);
        let server = admin::Server::bind(&path).map_err(|error| Error::Unexpected(error.to_string()))?;
        let (server, door) = (Arc::new(server), self.server.door());
        let serving = Arc::clone(&server);
        std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || serving.serve(|_| admin::Answer::Status(Box::new(Status::of(&door)))))?;
        Ok(server)
    }

    pub(super) fn introduction(&self) -> String {
        let [tls, udp, tcp] = [Transport::Tls, Transport::Udp, Transport::Tcp].map(|transport| self.door(transport));
        format!(
            "The secret name   {}\n\
             The door          TLS {tls}, UDP {udp}, TCP {tcp}; for the PBX {}\n\
             The PBX           {} (a toy inside this program, for this demo only; it is told nothing of the door)",
            self.name, self.inside, self.backend
        )
    }

    /// How to point a softphone at it.
    pub(super) fn invitation(&self) -> String {
        let users = USERS.map(|(_, user)| user).join(", ");
        let [tls, udp, tcp] = [Transport::Tls, Transport::Udp, Transport::Tcp].map(|t| self.door(t).port());
        format!(
            "\nThe door stays open until Ctrl-C. For a softphone on this machine:\n\
             \x20 user               {users}\n\
             \x20 password           {}\n\
             \x20 domain             {name}, port {tls} for TLS, {udp} for UDP, {tcp} for TCP\n\
             \x20 so that it is found, in /etc/hosts: {listen} {name}\n\
             \x20 authority for TLS  {}\n\
             \x20 numbers            {ECHO} echo, {TONE} a tone, {RINGS} rings for ever\n\
             \x20 counters           sipdoor status --admin {}\n\
             With the address {listen} in place of the name, it gets nothing.",
            self.password,
            self.directory.0.join("certs/dev-ca.pem").display(),
            self.directory.0.join(ADMIN).display(),
            name = self.name,
            listen = self.listen,
        )
    }

    /// Closes the door.
    pub(super) fn close(self) {
        self.server.shutdown();
    }
}

/// The door's usual settings with this name; a wrong name is refused as in a settings file.
fn settings(options: &Options) -> Result<Config, Error> {
    let place = Place::Flag("--name".into());
    let name = At { value: options.name.clone(), place: place.clone() };
    let names = Some(At { value: vec![name], place });
    let written = Written { names, ..Written::default() };
    let settings = config::load(None, written, Host { ipv6: false, cpus: 1 });
    settings.map(|settings| settings.config).map_err(|error| Error::Settings(Box::new(error)))
}

/// A listener on the wished port, or on the usual one if it is free, or on any.
fn listener(options: &Options, transport: Transport) -> Listener {
    let (wished, usual) = match transport {
        Transport::Udp | Transport::Tcp => (options.port, 5060),
        Transport::Tls => (options.tls_port, 5061),
    };
    let address = SocketAddr::new(options.listen, usual);
    let free = || match transport {
        Transport::Udp => UdpSocket::bind(address).is_ok(),
        Transport::Tcp | Transport::Tls => TcpListener::bind(address).is_ok(),
    };
    let port = wished.unwrap_or_else(|| if free() { usual } else { 0 });
    Listener { transport, address: SocketAddr::new(options.listen, port), advertise: None }
}

const ADMIN: &str = "admin.sock";

/// A directory of our own that goes away with us.
struct Directory(PathBuf);

impl Directory {
    fn make() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("sipdoor-demo-{}", super::message::token()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(AsRef::<Path>::as_ref(&self.0));
    }
}
