//! A name server for one namespace: clients that ask DNS only (baresip) find the door by its name.

use super::netns::Space;
use super::{NAME, PUBLIC};
use std::collections::HashSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Mutex;

/// Answers on the namespace's loopback from now on.
pub fn serve(space: &Space) {
    static SERVED: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    if !SERVED.lock().unwrap().get_or_insert_default().insert(space.name.clone()) {
        return;
    }
    let socket = space.run(|| UdpSocket::bind("127.0.0.1:53").unwrap());
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            if let Some(answer) = answer(&query[..length]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
}

/// The A record of the name, nothing for its other types (SRV, NAPTR, AAAA), NXDOMAIN for other names (RFC 1035 §4.1).
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    while let Some(length) = query.get(at).copied().filter(|length| *length > 0) {
        labels.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + usize::from(length))?).to_lowercase());
        at += 1 + usize::from(length);
    }
    let question = query.get(12..at + 5)?;
    let ours = labels.join(".") == NAME;
    let address = ours && question[question.len() - 4..] == [0, 1, 0, 1];
    let mut out = query.get(..2)?.to_vec();
    out.extend([0x85, if ours { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(address), 0, 0, 0, 0]);
    out.extend(question);
    if address {
        out.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        out.extend(PUBLIC.parse::<Ipv4Addr>().unwrap().octets());
    }
    Some(out)
}
