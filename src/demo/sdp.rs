//! Session descriptions for one PCMU stream (RFC 8866, RFC 3264).

use std::net::{IpAddr, SocketAddr};

/// Which way audio flows, seen from the one who says it (RFC 3264 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// The speaker only sends: the other is on hold.
    SendOnly,
    /// The speaker only listens.
    RecvOnly,
    /// Neither way.
    Inactive,
}

impl Direction {
    /// The name of the attribute.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// The direction of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive].into_iter().find(|d| d.name() == name)
    }

    /// What answers this offer (RFC 3264 §6.1).
    pub const fn answer(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            other => other,
        }
    }

    /// Whether the one who says it sends.
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }
}

/// What the other side said of its audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it wants its packets.
    pub address: SocketAddr,
    /// Which way, seen from there.
    pub direction: Direction,
}

/// Writes a description; `version` goes up with each change (RFC 3264 §8).
pub fn write(address: SocketAddr, direction: Direction, version: u32) -> String {
    let family = if address.is_ipv4() { "IP4" } else { "IP6" };
    let (ip, port, direction) = (address.ip(), address.port(), direction.name());
    format!(
        "v=0\r\no=- 4711 {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na={direction}\r\n"
    )
}

/// Reads the first audio stream.
pub fn read(body: &[u8]) -> Option<Remote> {
    let text = String::from_utf8_lossy(body);
    let (mut address, mut port, mut direction) = (None, None, Direction::SendRecv);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("m=") {
            if port.is_some() {
                break;
            }
            let mut words = rest.split(' ');
            if words.next() == Some("audio") {
                port = words.next().and_then(|p| p.parse::<u16>().ok());
            }
        } else if let Some(rest) = line.strip_prefix("c=") {
            address = connection(rest).or(address);
        } else if let Some(found) = line.strip_prefix("a=").and_then(|name| Direction::parse(name.trim())) {
            direction = found;
        }
    }
    Some(Remote { address: SocketAddr::new(address?, port?), direction })
}

/// The address of a `c=` line, whose second word must be of its kind.
fn connection(line: &str) -> Option<IpAddr> {
    let mut words = line.split(' ');
    let (kind, address) = (words.nth(1)?, words.next()?.trim().parse::<IpAddr>().ok()?);
    (kind == if address.is_ipv4() { "IP4" } else { "IP6" }).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for address in ["192.0.2.1:4000", "[2001:db8::1]:4002"] {
            let address = address.parse().unwrap();
            for direction in [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive] {
                let text = write(address, direction, 1);
                assert_eq!(read(text.as_bytes()), Some(Remote { address, direction }));
            }
        }
    }

    #[test]
    fn an_address_of_the_other_kind_is_none() {
        assert_eq!(read(b"v=0\r\nc=IN IP4 ::1\r\nm=audio 5000 RTP/AVP 0\r\n"), None);
    }

    #[test]
    fn a_media_level_address_wins() {
        let text = "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 5000 RTP/AVP 0\r\nc=IN IP4 192.0.2.2\r\na=inactive\r\nm=video 1 RTP/AVP 9\r\na=sendonly\r\n";
        let remote = Remote { address: "192.0.2.2:5000".parse().unwrap(), direction: Direction::Inactive };
        assert_eq!(read(text.as_bytes()), Some(remote));
    }
}
