//! A phone's connection to the door: UDP, TCP or TLS, made inside a namespace.

use super::netns::Space;
use super::sip::take_frame;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

pub use Transport::{Tcp, Tls, Udp};

impl Transport {
    pub const ALL: [Self; 3] = [Udp, Tcp, Tls];

    /// As in a Via.
    pub fn name(self) -> &'static str {
        match self {
            Udp => "UDP",
            Tcp => "TCP",
            Tls => "TLS",
        }
    }

    /// As a URI parameter: nothing for UDP.
    pub fn parameter(self) -> &'static str {
        match self {
            Udp => "",
            Tcp => ";transport=tcp",
            Tls => ";transport=tls",
        }
    }

    pub fn door(self) -> SocketAddr {
        let port = if self == Tls { 5061 } else { 5060 };
        SocketAddr::new(super::PUBLIC.parse().unwrap(), port)
    }
}

pub enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(TcpStream, Box<Mutex<ClientConnection>>),
}

impl Link {
    /// Connects from `space`; a UDP socket is connected too, so that only answers from the address asked arrive.
    pub fn open(space: &Space, transport: Transport, ca: &Path) -> Self {
        let mut door = transport.door();
        if space.address.is_ipv6() {
            door.set_ip(super::PUBLIC6.parse().unwrap());
        }
        Self::open_to(space, transport, door, ca)
    }

    pub fn open_to(space: &Space, transport: Transport, door: SocketAddr, ca: &Path) -> Self {
        if transport == Udp {
            return Self::Udp(space.run(|| {
                let socket = UdpSocket::bind((space.address, 0)).unwrap();
                socket.connect(door).unwrap();
                socket
            }));
        }
        let stream = space.run(|| TcpStream::connect_timeout(&door, super::PATIENCE).unwrap());
        stream.set_nodelay(true).unwrap();
        if transport == Tcp {
            return Self::Tcp(stream);
        }
        let name = ServerName::try_from(super::NAME).unwrap();
        let mut connection = ClientConnection::new(trusting(ca), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut &stream).expect("a TLS handshake with the right name");
        }
        Self::Tls(stream, Box::new(Mutex::new(connection)))
    }

    pub fn local(&self) -> SocketAddr {
        match self {
            Self::Udp(socket) => socket.local_addr().unwrap(),
            Self::Tcp(stream) | Self::Tls(stream, _) => stream.local_addr().unwrap(),
        }
    }

    /// Whether the bytes were taken; a connection that is gone takes none.
    pub fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(bytes).map(drop),
            Self::Tcp(stream) => (&mut &*stream).write_all(bytes),
            Self::Tls(stream, connection) => {
                let mut connection = connection.lock().unwrap();
                connection.writer().write_all(bytes)?;
                while connection.wants_write() {
                    connection.write_tls(&mut &*stream)?;
                }
                Ok(())
            }
        }
    }

    /// Hands each message to `take` until the connection ends.
    pub fn read(&self, mut take: impl FnMut(Vec<u8>)) {
        let mut buffer = Vec::new();
        let mut chunk = vec![0; 65536];
        loop {
            match self {
                // Errors are ICMP's word that the door was down for a moment.
                Self::Udp(socket) => match socket.recv(&mut chunk) {
                    Ok(length) if chunk[..length].iter().any(|byte| !byte.is_ascii_whitespace()) => {
                        take(chunk[..length].to_vec());
                    }
                    Ok(0) => return,
                    Ok(_) | Err(_) => {}
                },
                Self::Tcp(stream) => match (&mut &*stream).read(&mut chunk) {
                    Ok(0) | Err(_) => return,
                    Ok(length) => buffer.extend_from_slice(&chunk[..length]),
                },
                Self::Tls(stream, connection) => match (&mut &*stream).read(&mut chunk) {
                    Ok(0) | Err(_) => return,
                    Ok(length) => {
                        let Some(plain) = decrypt(connection, stream, &chunk[..length]) else { return };
                        buffer.extend(plain);
                    }
                },
            }
            while let Some(frame) = take_frame(&mut buffer) {
                take(frame);
            }
        }
    }

    /// Ends the connection without a word (no close_notify), as a phone that lost its network.
    pub fn cut(&self) {
        match self {
            Self::Udp(socket) => drop(socket2::SockRef::from(socket).shutdown(Shutdown::Both)),
            Self::Tcp(stream) | Self::Tls(stream, _) => drop(stream.shutdown(Shutdown::Both)),
        }
    }
}

/// A client configuration that trusts this CA alone.
pub fn trusting(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

fn decrypt(connection: &Mutex<ClientConnection>, mut stream: &TcpStream, mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut connection = connection.lock().unwrap();
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        connection.read_tls(&mut bytes).ok()?;
        let state = connection.process_new_packets().ok()?;
        let start = plain.len();
        plain.resize(start + state.plaintext_bytes_to_read(), 0);
        connection.reader().read_exact(&mut plain[start..]).ok()?;
        if state.peer_has_closed() {
            return None;
        }
    }
    while connection.wants_write() {
        connection.write_tls(&mut stream).ok()?;
    }
    Some(plain)
}
