//! The peers' sockets: one link over UDP, TCP or TLS that takes bytes and hands out whole messages.

use super::{Error, message::find};
use crate::flow::Transport;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How a peer reaches its server.
#[derive(Clone, Debug)]
pub struct Connect {
    /// UDP, TCP or TLS.
    pub transport: Transport,
    /// The server's address: everything goes there, whatever the domain in the URIs is (an outbound proxy).
    pub server: SocketAddr,
    /// The local address to use (port 0: any); default: what the kernel chooses.
    pub bind: Option<SocketAddr>,
    /// For TLS.
    pub tls: Tls,
}

impl Connect {
    /// A connection of this transport to this address, no local address, no server name, any certificate.
    pub fn new(transport: Transport, server: SocketAddr) -> Self {
        Self { transport, server, bind: None, tls: Tls::default() }
    }
}

/// What the ClientHello says and which certificates are believed.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The server name; `None`: a ClientHello without the extension.
    pub sni: Option<String>,
    /// PEM certificates of the only authorities that are believed; `None`: any certificate will do.
    pub ca: Option<Vec<u8>>,
}

/// What a link has to say; `link` tells a new one's news from an old one's.
#[derive(Debug)]
pub struct Inbound {
    /// Which link.
    pub link: u64,
    /// Where it came from.
    pub from: SocketAddr,
    /// What came.
    pub what: What,
}

/// One piece of news.
#[derive(Debug)]
pub enum What {
    /// A whole message.
    Message(Vec<u8>),
    /// A CRLF that answers our CRLFCRLF (RFC 5626 §4.4.1).
    Pong,
    /// The link is over.
    Closed,
}

/// One open link; dropping it closes it in good order.
#[derive(Debug)]
pub struct Link {
    /// Its number.
    pub id: u64,
    /// Our own address, concrete.
    pub local: SocketAddr,
    /// UDP, TCP or TLS.
    pub transport: Transport,
    out: UnboundedSender<Out>,
}

#[derive(Debug)]
enum Out {
    Bytes(Vec<u8>, SocketAddr),
    Ping,
}

impl Link {
    /// Connects and, for TLS, shakes hands.
    pub async fn open(connect: &Connect, id: u64, inbox: UnboundedSender<Inbound>) -> Result<Self, Error> {
        let (out, orders) = unbounded_channel();
        let server = connect.server;
        let post = Post { id, from: server, inbox };
        let transport = connect.transport;
        let local = match transport {
            Transport::Udp => {
                let socket = UdpSocket::bind(connect.bind.unwrap_or(any(server))).await?;
                socket.connect(server).await?;
                let local = socket.local_addr()?;
                tokio::spawn(datagrams(socket, orders, post, true));
                local
            }
            Transport::Tcp => {
                let stream = connect_from(server, connect.bind).await?;
                let local = stream.local_addr()?;
                tokio::spawn(stream_task(stream, orders, post));
                local
            }
            Transport::Tls => {
                let stream = tls(connect, connect_from(server, connect.bind).await?).await?;
                let local = stream.get_ref().0.local_addr()?;
                tokio::spawn(stream_task(stream, orders, post));
                local
            }
        };
        Ok(Self { id, local, transport, out })
    }

    /// A datagram socket that talks to anybody, as a server's does.
    pub async fn serve(local: SocketAddr, inbox: UnboundedSender<Inbound>) -> Result<Self, Error> {
        let (out, orders) = unbounded_channel();
        let socket = UdpSocket::bind(local).await?;
        let local = socket.local_addr()?;
        tokio::spawn(datagrams(socket, orders, Post { id: 0, from: local, inbox }, false));
        Ok(Self { id: 0, local, transport: Transport::Udp, out })
    }

    /// Sends one message; `to` matters only to [`Self::serve`].
    pub fn send(&self, bytes: &[u8], to: SocketAddr) {
        let _ = self.out.send(Out::Bytes(bytes.to_vec(), to));
    }

    /// Sends CRLFCRLF.
    pub fn ping(&self) {
        let _ = self.out.send(Out::Ping);
    }
}

/// Where a link's news goes.
struct Post {
    id: u64,
    from: SocketAddr,
    inbox: UnboundedSender<Inbound>,
}

impl Post {
    fn say(&self, what: What, from: SocketAddr) {
        let _ = self.inbox.send(Inbound { link: self.id, from, what });
    }
}

const fn any(server: SocketAddr) -> SocketAddr {
    let ip = match server {
        SocketAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}

/// A plain connection, from this local address if there is one.
pub(super) async fn connect_from(server: SocketAddr, local: Option<SocketAddr>) -> Result<TcpStream, Error> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(local) = local {
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
    }
    let socket = TcpSocket::from_std_stream(socket.into());
    let stream = timeout(PATIENCE, socket.connect(server)).await.map_err(|_| Error::timeout("connecting"))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A TLS client's handshake on this connection.
pub(super) async fn tls(connect: &Connect, stream: TcpStream) -> Result<TlsStream<TcpStream>, Error> {
    let name = match &connect.tls.sni {
        Some(name) => ServerName::try_from(name.clone()).map_err(|_| Error::Tls(format!("{name} is no host name")))?,
        None => ServerName::from(connect.server.ip()),
    };
    let connector = TlsConnector::from(Arc::new(client_config(&connect.tls)?));
    let handshake = connector.connect(name, stream);
    let done = timeout(PATIENCE, handshake).await.map_err(|_| Error::timeout("the TLS handshake"))?;
    done.map_err(|error| Error::Tls(error.to_string()))
}

pub(super) fn client_config(tls: &Tls) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?;
    let mut config = match &tls.ca {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| Error::Tls(error.to_string()))?;
                roots.add(certificate).map_err(|error| Error::Tls(error.to_string()))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => {
            let verifier = Arc::new(Anyone(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    config.enable_sni = tls.sni.is_some();
    Ok(config)
}

/// Believes every certificate, as a scanner or a careless phone does; signatures are still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

async fn datagrams(socket: UdpSocket, mut orders: UnboundedReceiver<Out>, post: Post, connected: bool) {
    let mut buffer = vec![0u8; 65_536];
    loop {
        tokio::select! {
            got = socket.recv_from(&mut buffer) => {
                // An ICMP error shows here and ends nothing: a datagram socket has no connection to lose.
                let Ok((length, from)) = got else { continue };
                let bytes = buffer.get(..length).unwrap_or_default();
                match bytes.trim_ascii() {
                    [] => post.say(What::Pong, from),
                    _ => post.say(What::Message(bytes.to_vec()), from),
                }
            }
            order = orders.recv() => {
                // A send that fails is a datagram that is lost: retransmission is the answer to both.
                let _ = match order {
                    Some(Out::Bytes(bytes, _)) if connected => socket.send(&bytes).await,
                    Some(Out::Bytes(bytes, to)) => socket.send_to(&bytes, to).await,
                    Some(Out::Ping) => socket.send(b"\r\n\r\n").await,
                    None => return,
                };
            }
        }
    }
}

async fn stream_task(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    mut orders: UnboundedReceiver<Out>,
    post: Post,
) {
    let (mut reader, mut writer) = split(stream);
    let mut framer = Framer::default();
    let mut buffer = vec![0u8; 65_536];
    loop {
        tokio::select! {
            got = reader.read(&mut buffer) => {
                let Ok(length @ 1..) = got else { break };
                framer.bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
                while let Some(piece) = framer.next() {
                    match piece {
                        Piece::Message(bytes) => post.say(What::Message(bytes), post.from),
                        Piece::Pong => post.say(What::Pong, post.from),
                        Piece::Ping => drop(writer.write_all(b"\r\n").await),
                    }
                }
            }
            order = orders.recv() => match order {
                Some(Out::Bytes(bytes, _)) => if write(&mut writer, &bytes).await.is_err() { break },
                Some(Out::Ping) => {
                    framer.pings += 1;
                    if write(&mut writer, b"\r\n\r\n").await.is_err() { break }
                }
                None => break,
            },
        }
    }
    let _ = timeout(Duration::from_secs(1), writer.shutdown()).await;
    post.say(What::Closed, post.from);
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// Cuts a stream into messages and keep-alives.
#[derive(Default)]
struct Framer {
    bytes: Vec<u8>,
    /// CRLFCRLF sent and not answered: a CRLF that comes is its pong, else half of the server's own ping.
    pings: u32,
    half: bool,
}

enum Piece {
    Message(Vec<u8>),
    Ping,
    Pong,
}

impl Framer {
    fn next(&mut self) -> Option<Piece> {
        while self.bytes.starts_with(b"\r\n") {
            self.bytes.drain(..2);
            if self.pings > 0 {
                self.pings -= 1;
                return Some(Piece::Pong);
            }
            self.half = !self.half;
            if !self.half {
                return Some(Piece::Ping);
            }
        }
        let head = find(&self.bytes, b"\r\n\r\n")? + 4;
        let text = String::from_utf8_lossy(self.bytes.get(..head)?).to_ascii_lowercase();
        let length = text.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            matches!(name.trim(), "content-length" | "l").then(|| value.trim().parse::<usize>().ok())?
        });
        let total = head + length.unwrap_or(0);
        if self.bytes.len() < total {
            return None;
        }
        self.half = false;
        Some(Piece::Message(self.bytes.drain(..total).collect()))
    }
}

/// For connecting and for the handshake.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_at_every_place_alike() {
        let input = b"\r\nSIP/2.0 200 OK\r\nL: 2\r\n\r\nab\r\n\r\nBYE sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n";
        for cut in 0..input.len() {
            let mut framer = Framer { pings: 1, ..Framer::default() };
            let mut seen = String::new();
            for part in [&input[..cut], &input[cut..]] {
                framer.bytes.extend_from_slice(part);
                while let Some(piece) = framer.next() {
                    seen.push(match piece {
                        Piece::Message(_) => 'm',
                        Piece::Ping => 'i',
                        Piece::Pong => 'o',
                    });
                }
            }
            assert_eq!(seen, "omim", "cut at {cut}");
        }
    }
}
