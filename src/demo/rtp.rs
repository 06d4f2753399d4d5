//! Audio over real sockets: PCMU packets of 20 ms, sent, echoed and counted (RFC 3550, RFC 3551).

use super::{Error, lock, sdp::Direction};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

/// What a session does with its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Sends a tone to where the other's description says, as a phone does, and counts what comes.
    Phone,
    /// Returns each packet to where it came from (a PBX's echo test).
    Echo,
    /// Sends a tone to where the other's packets come from, once one came (a PBX's announcement to a phone behind NAT);
    /// until then to where the description says.
    Tone,
}

/// One audio stream; it ends when this is dropped.
#[derive(Debug)]
pub struct Session {
    local: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    received: watch::Sender<u64>,
    media: Media,
}

#[derive(Debug)]
struct State {
    remote: Option<SocketAddr>,
    source: Option<SocketAddr>,
    direction: Direction,
    payload: Vec<u8>,
    sent: u64,
}

impl Session {
    /// Binds a free port of this address; silent until [`Self::talk`].
    pub fn open(ip: IpAddr, media: Media) -> Result<Self, Error> {
        Self::on(std::net::UdpSocket::bind((ip, 0))?, media)
    }

    /// Binds a free port of all addresses, of both kinds where the machine has both.
    pub fn open_everywhere(media: Media) -> Result<Self, Error> {
        Self::on(both_kinds().or_else(|_| std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?, media)
    }

    fn on(socket: std::net::UdpSocket, media: Media) -> Result<Self, Error> {
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let local = socket.local_addr()?;
        let state = State { remote: None, source: None, direction: Direction::SendRecv, payload: Vec::new(), sent: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), received: watch::Sender::new(0), media });
        let task = tokio::spawn(Arc::clone(&shared).run(Socket { socket, v6: local.is_ipv6() })).abort_handle();
        Ok(Self { local, shared, task })
    }

    /// The address for our description.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// The description of the other side is known, or has changed: `direction` is ours.
    pub fn talk(&self, remote: SocketAddr, direction: Direction) {
        let mut state = lock(&self.shared.state);
        state.remote = Some(remote);
        state.direction = direction;
    }

    /// Ends the audio; the numbers stay.
    pub fn stop(&self) {
        self.task.abort();
    }

    /// How many packets came so far.
    pub fn received(&self) -> u64 {
        *self.shared.received.borrow()
    }

    /// How many packets were sent so far.
    pub fn sent(&self) -> u64 {
        lock(&self.shared.state).sent
    }

    /// Where the last packet came from.
    pub fn source(&self) -> Option<SocketAddr> {
        lock(&self.shared.state).source
    }

    /// The last packet's payload.
    pub fn payload(&self) -> Vec<u8> {
        lock(&self.shared.state).payload.clone()
    }

    /// A view that can be awaited without holding the session.
    pub fn watch(&self) -> Counter {
        Counter(self.shared.received.subscribe())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The number of packets received, to be waited for.
#[derive(Clone, Debug)]
pub struct Counter(watch::Receiver<u64>);

impl Counter {
    /// Waits until `more` packets have come from now on.
    pub async fn more(&mut self, more: u64, limit: Duration) -> Result<u64, Error> {
        let goal = self.0.borrow_and_update().saturating_add(more);
        let reached = timeout(limit, self.0.wait_for(|n| *n >= goal)).await.map(|ended| ended.map(|count| *count));
        match reached {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => {
                let came = more.saturating_sub(goal.saturating_sub(*self.0.borrow()));
                Err(Error::Timeout(format!("{more} RTP packets ({came} came)")))
            }
        }
    }

    /// Waits until no packet has come for `pause`.
    pub async fn quiet(&mut self, pause: Duration, limit: Duration) -> Result<(), Error> {
        let end = Instant::now() + limit;
        loop {
            self.0.mark_unchanged();
            match timeout_at(end.min(Instant::now() + pause), self.0.changed()).await {
                Ok(Ok(())) if Instant::now() < end => {}
                Ok(Err(_)) => return Ok(()),
                Err(_) if Instant::now() < end => return Ok(()),
                Ok(Ok(())) | Err(_) => return Err(Error::Timeout("the end of the RTP stream".to_owned())),
            }
        }
    }
}

impl Shared {
    async fn run(self: Arc<Self>, socket: Socket) {
        let mut tick = interval(Duration::from_millis(20));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut packet = [0u8; 2048];
        let mut tone = Tone::new();
        loop {
            tokio::select! {
                got = socket.recv_from(&mut packet) => {
                    let Ok((length, source)) = got else { continue };
                    let bytes = packet.get(..length).unwrap_or_default();
                    if let Some(to) = self.arrived(bytes, source) {
                        socket.send_to(bytes, to).await;
                    }
                }
                _ = tick.tick() => {
                    if let Some(to) = self.due() {
                        socket.send_to(&tone.next(), to).await;
                    }
                }
            }
        }
    }

    /// Counts a packet; the address if it is to be echoed.
    fn arrived(&self, bytes: &[u8], source: SocketAddr) -> Option<SocketAddr> {
        // Version 2, payload type 0 (RFC 3550 §5.1); anything else on the port is not our audio.
        let pcmu = matches!(bytes, [first, second, ..] if first >> 6 == 2 && second & 0x7f == 0);
        let payload = bytes.get(12..).filter(|_| pcmu)?;
        let mut state = lock(&self.state);
        state.source = Some(source);
        state.payload.clear();
        state.payload.extend_from_slice(payload);
        let echo = self.media == Media::Echo && state.direction.sends();
        state.sent += u64::from(echo);
        drop(state);
        self.received.send_modify(|n| *n += 1);
        echo.then_some(source)
    }

    /// Where a packet of our own goes now.
    fn due(&self) -> Option<SocketAddr> {
        let mut state = lock(&self.state);
        let remote = state.remote.filter(|_| state.direction.sends())?;
        let to = match self.media {
            Media::Echo => return None,
            Media::Phone => remote,
            Media::Tone => state.source.unwrap_or(remote),
        };
        state.sent += 1;
        Some(to)
    }
}

/// A socket that takes and gives IPv4 addresses as such, though a socket of both kinds has them mapped (RFC 4291 §2.5.5).
struct Socket {
    socket: UdpSocket,
    v6: bool,
}

impl Socket {
    async fn recv_from(&self, packet: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
        let (length, from) = self.socket.recv_from(packet).await?;
        Ok((length, SocketAddr::new(from.ip().to_canonical(), from.port())))
    }

    /// A packet that cannot be sent is a packet that is lost.
    async fn send_to(&self, packet: &[u8], to: SocketAddr) {
        let ip = match to.ip() {
            IpAddr::V4(ip) if self.v6 => IpAddr::V6(ip.to_ipv6_mapped()),
            ip => ip,
        };
        let _ = self.socket.send_to(packet, SocketAddr::new(ip, to.port())).await;
    }
}

fn both_kinds() -> std::io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)?;
    socket.set_only_v6(false)?;
    socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0).into())?;
    Ok(socket.into())
}

/// A 400 Hz tone in µ-law, packet by packet.
struct Tone {
    sequence: u16,
    timestamp: u32,
    source: [u8; 4],
}

impl Tone {
    fn new() -> Self {
        let mut source = [0u8; 4];
        let _ = aws_lc_rs::rand::fill(&mut source);
        Self { sequence: 0, timestamp: 0, source }
    }

    fn next(&mut self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(172);
        packet.extend_from_slice(&[0x80, 0]);
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&self.timestamp.to_be_bytes());
        packet.extend_from_slice(&self.source);
        packet.extend(PERIOD.iter().cycle().take(160));
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
        packet
    }
}

/// One period of 400 Hz at 8,000 samples a second, about -20 dB (ITU-T G.711 µ-law).
const PERIOD: [u8; 20] = [
    0xff, 0xb9, 0xac, 0xa6, 0xa3, 0xa2, 0xa3, 0xa6, 0xac, 0xb9, 0x7f, 0x39, 0x2c, 0x26, 0x23, 0x22, 0x23, 0x26, 0x2c,
    0x39,
];

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn audio_goes_out_and_comes_back_until_hold() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let phone = Session::open(ip, Media::Phone).unwrap();
        let echo = Session::open(ip, Media::Echo).unwrap();
        echo.talk(phone.local(), Direction::SendRecv);
        phone.talk(echo.local(), Direction::SendRecv);
        phone.watch().more(10, SECOND).await.unwrap();
        assert_eq!(phone.source(), Some(echo.local()));
        assert_eq!(phone.payload().len(), 160);
        echo.talk(phone.local(), Direction::RecvOnly);
        phone.watch().quiet(Duration::from_millis(200), SECOND).await.unwrap();
        assert!(phone.watch().more(1, Duration::from_millis(100)).await.is_err());
        phone.talk(echo.local(), Direction::Inactive);
        echo.watch().quiet(Duration::from_millis(200), SECOND).await.unwrap();
    }
}
