//! Strangers: what scanners send, and how many bytes they get for it.

use super::Error;
use super::message::token;
use super::wire::{Connect, client_config, connect_from};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// What a stranger saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Bytes that came back, of whatever kind.
    pub bytes: usize,
    /// Whether the connection was closed while the stranger listened.
    pub closed: bool,
}

/// Where a stranger sits, whom it knocks at, and how long it listens.
#[derive(Clone, Copy, Debug)]
pub struct Stranger {
    /// Its own address.
    pub own: IpAddr,
    /// The door's.
    pub door: SocketAddr,
    /// How long it waits for anything.
    pub patience: Duration,
}

impl Stranger {
    /// One datagram.
    pub async fn datagram(&self, bytes: &[u8]) -> Result<Seen, Error> {
        let socket = UdpSocket::bind((self.own, 0)).await?;
        socket.connect(self.door).await?;
        socket.send(bytes).await?;
        let end = Instant::now() + self.patience;
        let mut buffer = [0u8; 2048];
        let mut seen = Seen { bytes: 0, closed: false };
        while let Ok(got) = timeout_at(end, socket.recv(&mut buffer)).await {
            // An ICMP error would tell as much as an answer: that nobody is there.
            match got {
                Ok(length) => seen.bytes += length.max(1),
                Err(_) => seen.closed = true,
            }
        }
        Ok(seen)
    }

    /// These bytes on a plain connection.
    pub async fn stream(&self, bytes: &[u8]) -> Result<Seen, Error> {
        let mut stream = connect_from(self.door, Some(SocketAddr::new(self.own, 0))).await?;
        stream.write_all(bytes).await?;
        self.listen(&mut stream).await
    }

    /// A ClientHello with this server name, without one, or with an address in its place.
    pub async fn hello(&self, sni: Option<&str>) -> Result<Seen, Error> {
        self.stream(&client_hello(self.door, sni)?).await
    }

    /// The name is right in the ClientHello, and what is said inside is not.
    pub async fn inside_tls(&self, name: &str, bytes: &[u8]) -> Result<Seen, Error> {
        let mut connect = Connect::new(crate::flow::Transport::Tls, self.door);
        connect.bind = Some(SocketAddr::new(self.own, 0));
        connect.tls.sni = Some(name.to_owned());
        let mut stream = super::wire::tls(&connect, connect_from(self.door, connect.bind).await?).await?;
        stream.write_all(bytes).await?;
        stream.flush().await?;
        self.listen(&mut stream).await
    }

    async fn listen(&self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Seen, Error> {
        let end = Instant::now() + self.patience;
        let mut seen = Seen { bytes: 0, closed: false };
        let mut buffer = [0u8; 4096];
        while let Ok(got) = timeout_at(end, stream.read(&mut buffer)).await {
            match got {
                Ok(length @ 1..) => seen.bytes += length,
                Ok(_) | Err(_) => return Ok(Seen { closed: true, ..seen }),
            }
        }
        Ok(seen)
    }
}

/// The first flight of a TLS client.
fn client_hello(door: SocketAddr, sni: Option<&str>) -> Result<Vec<u8>, Error> {
    let tls = super::wire::Tls { sni: sni.map(str::to_owned), ca: None };
    // No TLS library puts an address into server_name (RFC 6066 §3); scanners do. So a name of the same length goes
    // through the library and is overwritten afterwards.
    let address = sni.filter(|name| name.parse::<IpAddr>().is_ok());
    let stand_in = address.map(|text| "x".repeat(text.len()));
    let name = match stand_in.as_deref().or(sni) {
        Some(name) => ServerName::try_from(name.to_owned()).map_err(|_| Error::Tls(format!("{name} is no name")))?,
        None => ServerName::from(door.ip()),
    };
    let config = Arc::new(client_config(&tls)?);
    let mut client = ClientConnection::new(config, name).map_err(|error| Error::Tls(error.to_string()))?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    if let (Some(from), Some(to)) = (stand_in, address) {
        // With its type and its length in front: nothing in the random bytes looks like that.
        let entry = [&[0, 0, u8::try_from(from.len()).unwrap_or(0)], from.as_bytes()].concat();
        let at = super::message::find(&bytes, &entry).ok_or(Error::Unreadable("its server name"))?;
        for (slot, byte) in bytes.iter_mut().skip(at + 3).zip(to.bytes()) {
            *slot = byte;
        }
    }
    Ok(bytes)
}

/// A scanner's request, whole: Request-URI, From and To are given, the rest is as scanners have it.
pub fn request(method: &str, via: &str, uri: &str, from: &str, to: &str) -> String {
    let (call, tag, branch) = (token(), token(), token());
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{via} 192.0.2.66:5060;branch=z9hG4bK-{branch};rport\r\n\
         Max-Forwards: 70\r\nFrom: \"sipvicious\" <{from}>;tag={tag}\r\nTo: <{to}>\r\nCall-ID: {call}\r\n\
         CSeq: 1 {method}\r\nContact: <sip:100@192.0.2.66:5060>\r\nUser-Agent: {AGENT}\r\nContent-Length: 0\r\n\r\n"
    )
}

/// What the scanners call themselves.
pub const AGENT: &str = "friendly-scanner";

#[cfg(test)]
mod tests {
    use super::super::message::find;
    use super::*;

    #[test]
    fn hellos_say_what_they_are_told_to() {
        let door = "127.0.0.1:5061".parse().unwrap();
        assert!(find(&client_hello(door, Some("k.test")).unwrap(), b"k.test").is_some());
        assert!(find(&client_hello(door, Some("127.0.0.1")).unwrap(), b"127.0.0.1").is_some());
        let hello = client_hello(door, None).unwrap();
        assert!(find(&hello, b"127.0.0.1").is_none() && hello.first() == Some(&0x16));
    }
}
