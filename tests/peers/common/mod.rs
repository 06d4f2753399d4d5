//! The stage of the real-peer tests: a real Asterisk and the real door in network namespaces, and phones around them.
//!
//! ```text
//! phone 198.51.100.10 --- 198.51.100.1 pbx (door, Asterisk on loopback) --- router --- home 192.168.77.2 (behind NAT)
//! ```
//! `tests/lab/setup.sh` installs what is needed; without it (or without root) each test says by name that it was left
//! out, and with `SIPDOOR_REQUIRE_LAB` set it fails instead.
#![allow(dead_code, reason = "each test program uses its part of the stage")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(clippy::indexing_slicing, clippy::string_slice, reason = "a test may panic")]
#![allow(unreachable_pub, missing_docs, reason = "not a library")]

pub mod asterisk;
pub mod call;
pub mod certs;
pub mod dns;
pub mod door;
pub mod lab;
pub mod link;
pub mod netns;
pub mod phone;
pub mod rtp;
pub mod sip;
pub mod tools;

use std::time::{Duration, Instant};

/// The secret name.
pub const NAME: &str = "k7q2.sip.test";
/// The address everybody knows.
pub const PUBLIC: &str = "198.51.100.1";
/// The same door over IPv6.
pub const PUBLIC6: &str = "2001:db8::1";
/// How long anything may take before the test gives up; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `probe` until it has an answer.
pub fn wait<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Random hexadecimal digits.
pub fn random(digits: usize) -> String {
    let mut bytes = vec![0; digits.div_ceil(2)];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    text
}
