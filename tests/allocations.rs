//! What a message costs in allocations: a scanner's nothing at all, so that a flood of them never reaches the allocator.
#![expect(
    unsafe_code,
    reason = "an allocator that counts can only be written so; it hands everything on to the system's"
)]

mod kit;

use kit::corpus;
use kit::stage::{Stage, outside};
use sipdoor::flow::Transport;
use sipdoor::gate::{Pass, Reason};
use sipdoor::proxy::Outcome;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counter is thread-local, const and needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the same.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = COUNT.get();
    let result = work();
    (result, COUNT.get() - before)
}

#[test]
fn the_counter_counts() {
    assert_eq!(counted(|| std::hint::black_box(vec![0u8; 100]).len()), (100, 1));
}

#[test]
fn a_refused_datagram_allocates_nothing() {
    let mut stage = Stage::new();
    let from = outside(Transport::Udp);
    let probes = corpus::read("probes");
    for probe in &probes {
        stage.receive(&from, &probe.bytes);
    }
    for probe in &probes {
        let (outcome, allocations) = counted(|| stage.receive(&from, &probe.bytes));
        assert_eq!((outcome, allocations), (Outcome::Refused(Reason::UriHost), 0), "{}", probe.name);
    }
    for (what, bytes, outcome) in [
        ("garbage", &b"hello, world"[..], Outcome::Refused(Reason::NotSip)),
        ("a ClientHello", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", Outcome::Refused(Reason::NotSip)),
        ("a keep-alive", b"\r\n\r\n", Outcome::Passed(Pass::KeepAlive)),
        ("zeros", &[0; 60], Outcome::Passed(Pass::KeepAlive)),
        ("64 KiB of A", &[b'A'; 65_000], Outcome::Refused(Reason::NotSip)),
    ] {
        assert_eq!(counted(|| stage.receive(&from, bytes)), (outcome, 0), "{what}");
    }
}

/// What is malformed is refused by the strict reader, before the second reader copies anything.
#[test]
fn a_malformed_datagram_allocates_nothing() {
    let mut stage = Stage::new();
    let from = outside(Transport::Udp);
    let good = &kit::evasion::good()["options"];
    stage.receive(&from, good);
    for (old, new) in [("From:", "From"), ("\r\nTo:", "\nTo:"), ("CSeq: 1", "CSeq: x"), ("Length: 0", "Length: -1")] {
        let bytes = String::from_utf8_lossy(good).replace(old, new).into_bytes();
        stage.receive(&from, &bytes);
        let (outcome, allocations) = counted(|| stage.receive(&from, &bytes));
        assert!(matches!(outcome, Outcome::Refused(_)), "{new}: {outcome:?}");
        assert_eq!(allocations, 0, "{new}");
    }
}

/// A forwarded message costs what the second reader costs, and little more: a bound that holds the door to it.
#[test]
fn a_forwarded_message_allocates_little() {
    let mut stage = Stage::new();
    let from = outside(Transport::Udp);
    for (name, most) in [("options", 64), ("invite", 72), ("register", 72)] {
        let good = &kit::evasion::good()[name];
        stage.receive(&from, good);
        // Another user, so that the second reader has something to read.
        let bytes = String::from_utf8_lossy(good).replace("sip:107@", "sip:108@").into_bytes();
        let (outcome, allocations) = counted(|| stage.receive(&from, &bytes));
        assert_eq!(outcome, Outcome::Passed(Pass::Name));
        println!("{name}: {allocations} allocations");
        assert!(allocations <= most, "{name}: {allocations} allocations");
    }
}
