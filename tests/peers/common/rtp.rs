//! Media: G.711 packets whose payload tells who sent them.

use super::netns::Space;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub struct Rtp {
    socket: UdpSocket,
    source: u32,
    sequence: AtomicU16,
}

/// What one exchange brought.
#[derive(Debug, Default)]
pub struct Heard {
    pub packets: usize,
    /// Packets with this payload byte throughout.
    pub of: std::collections::BTreeMap<u8, usize>,
    /// Where they came from.
    pub from: std::collections::BTreeSet<SocketAddr>,
}

impl Rtp {
    pub fn bind(space: &Space) -> Self {
        let socket = space.run(|| UdpSocket::bind((space.address, 0)).unwrap());
        let source = u32::from_str_radix(&super::random(8), 16).unwrap();
        Self { socket, source, sequence: AtomicU16::new(1000) }
    }

    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Sends `count` packets of `payload`, one each 20 ms, and hears what comes meanwhile.
    pub fn talk(&self, to: SocketAddr, payload: u8, count: u16) -> Heard {
        let mut heard = Heard::default();
        let start = Instant::now();
        for number in 0..count {
            let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
            let mut packet = vec![0x80, 0];
            packet.extend(sequence.to_be_bytes());
            packet.extend((u32::from(sequence) * 160).to_be_bytes());
            packet.extend(self.source.to_be_bytes());
            packet.extend([payload; 160]);
            // An error is ICMP's answer to an earlier packet: it shows in what is heard.
            let _ = self.socket.send_to(&packet, to);
            self.hear(&mut heard, start + Duration::from_millis(20) * (u32::from(number) + 1));
        }
        heard
    }

    fn hear(&self, heard: &mut Heard, until: Instant) {
        let mut buffer = [0; 2048];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else { continue };
            if length < 13 || buffer[1] & 0x7f != 0 {
                continue; // RTCP, or not G.711
            }
            heard.packets += 1;
            heard.from.insert(from);
            let payload = &buffer[12..length];
            if payload.iter().all(|byte| *byte == payload[0]) {
                *heard.of.entry(payload[0]).or_default() += 1;
            }
        }
    }
}

/// Both talk at once, each with a byte of its own; both must hear most of what the other said.
pub fn talk_to_each_other(a: &super::call::Call, b: &super::call::Call) {
    let (heard_a, heard_b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| b.rtp.talk(b.media, 0xb0, 30));
        (a.rtp.talk(a.media, 0xa0, 30), other.join().unwrap())
    });
    assert!(heard_a.of.get(&0xb0).is_some_and(|n| *n >= 15), "the caller heard {heard_a:?}");
    assert!(heard_b.of.get(&0xa0).is_some_and(|n| *n >= 15), "the called one heard {heard_b:?}");
}
