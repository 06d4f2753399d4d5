//! New connections and strangers' datagrams per second and source, in a table of fixed size.
#![forbid(unsafe_code)]

use crate::flow::Now;
use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;
use std::net::IpAddr;

/// Sources share a bucket when their keyed hashes fall together: with 4,096 buckets and a flood from thousands of
/// addresses some strangers share one, and what it costs a well-behaved source is at most its own messages while the
/// flood lasts. Memory is 64 KiB, whoever sends.
const BUCKETS: usize = 4096;

/// A token bucket for every source.
#[derive(Debug)]
pub struct Limiter {
    per_second: u64,
    key: [u8; 16],
    buckets: Vec<Bucket>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Thousandths of a message.
    level: u64,
    at: u64,
}

impl Limiter {
    /// `per_second` messages, and bursts of twice as many; 0 for no limit.
    pub fn new(per_second: u32, key: [u8; 16]) -> Self {
        let buckets = if per_second == 0 { Vec::new() } else { vec![Bucket::default(); BUCKETS] };
        Self { per_second: per_second.into(), key, buckets }
    }

    /// Takes one message from the source's bucket; false when it is empty.
    pub fn take(&mut self, now: Now, source: IpAddr) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match source {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            // One customer has a /64.
            IpAddr::V6(ip) => hasher.write(ip.octets().get(..8).unwrap_or_default()),
        }
        let at = usize::try_from(hasher.finish() % BUCKETS as u64).unwrap_or(0);
        let Some(bucket) = self.buckets.get_mut(at) else { return true };
        let full = self.per_second * 2000;
        let gained = now.0.saturating_sub(bucket.at).saturating_mul(self.per_second);
        bucket.level = if bucket.at == 0 { full } else { bucket.level.saturating_add(gained).min(full) };
        bucket.at = now.0;
        let enough = bucket.level >= 1000;
        if enough {
            bucket.level -= 1000;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let mut limiter = Limiter::new(5, [1; 16]);
        let source = IpAddr::from([192, 0, 2, 1]);
        let passed = |limiter: &mut Limiter, now| (0..100).filter(|_| limiter.take(Now(now), source)).count();
        assert_eq!(passed(&mut limiter, 1_000), 10);
        assert_eq!(passed(&mut limiter, 1_000), 0);
        assert_eq!(passed(&mut limiter, 2_000), 5);
        assert_eq!(passed(&mut limiter, 3_600_000), 10);
        assert!(Limiter::new(0, [1; 16]).take(Now(1), source));
    }
}
