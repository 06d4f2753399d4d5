//! What one message costs in the core: nanoseconds and allocations. `cargo bench`
//!
//! "known" is a phone whose three URIs were seen before, "new" one whose were not: the second reader remembers what it has
//! agreed on.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a bench may panic")]

#[path = "../kit/mod.rs"]
mod kit;

use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher, black_box};
use kit::stage::{NAME, Stage, config, outside};
use kit::{corpus, evasion};
use sipdoor::flow::Transport;
use sipdoor::gate::{Path, Policy};
use sipdoor::sip::check::Second;
use sipdoor::sip::frame::{Framer, Sizes};
use sipdoor::sip::message::Reader;
use sipdoor::token::Key;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const GOOD: [&str; 4] = ["options", "register", "invite", "invite-41"];

/// A good message; the last is a large one: 41 header fields, 3 kB.
fn good(name: &str) -> Vec<u8> {
    if name != "invite-41" {
        return evasion::good()[name].clone();
    }
    let text = String::from_utf8(evasion::good()["invite"].clone()).expect("it is text");
    let more: String = (0..32).map(|n| format!("X-Header-{n}: {}\r\n", "value ".repeat(10))).collect();
    text.replacen("CSeq:", &format!("{more}CSeq:"), 1).into_bytes()
}

/// The same message from more users than the second reader remembers.
fn users(name: &str) -> Vec<Vec<u8>> {
    let text = String::from_utf8(good(name)).expect("it is text");
    (1000..5096).map(|user| text.replace("sip:107@", &format!("sip:{user}@")).into_bytes()).collect()
}

/// Round and round.
fn turning<'m>(messages: &'m [Vec<u8>]) -> impl FnMut() -> &'m [u8] + use<'m> {
    let mut at = 0;
    move || {
        at = (at + 1) % messages.len();
        messages[at].as_slice()
    }
}

#[divan::bench]
fn refuse_a_scanner(bencher: Bencher<'_, '_>) {
    let mut stage = Stage::new();
    let (from, probe) = (outside(Transport::Udp), corpus::read("probes"));
    let probes: Vec<Vec<u8>> = probe.into_iter().map(|entry| entry.bytes).collect();
    let mut next = turning(&probes);
    stage.receive(&from, next());
    bencher.bench_local(|| stage.receive(&from, black_box(next())));
}

/// A scanner that knows the name's parent domain and mentions it everywhere.
#[divan::bench]
fn refuse_by_from(bencher: Bencher<'_, '_>) {
    let mut stage = Stage::new();
    let from = outside(Transport::Udp);
    let text = String::from_utf8(good("options")).expect("it is text");
    let bytes = text.replace(&format!("107@{NAME}"), "107@sip.test").into_bytes();
    stage.receive(&from, &bytes);
    bencher.bench_local(|| stage.receive(&from, black_box(&bytes)));
}

#[divan::bench(args = GOOD)]
fn frame(bencher: Bencher<'_, '_>, name: &str) {
    let bytes = good(name);
    bencher.counter(BytesCount::of_slice(&bytes)).bench_local(|| Framer::new(Sizes::default()).next(black_box(&bytes)));
}

#[divan::bench(args = GOOD)]
fn read_strictly(bencher: Bencher<'_, '_>, name: &str) {
    let (bytes, mut reader) = (good(name), Reader::default());
    assert!(reader.read(&bytes, Sizes::default(), false).is_ok());
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .bench_local(|| reader.read(black_box(&bytes), Sizes::default(), false).is_ok());
}

/// First glance, strict reading, the second reader, Routes, names: everything before routing.
fn gate(bencher: Bencher<'_, '_>, messages: &[Vec<u8>]) {
    let (policy, key) = (Policy::new(&config()), Key::new([9; 16]));
    let (mut reader, mut second) = (Reader::default(), Second::default());
    let mut next = turning(messages);
    bencher.counter(BytesCount::of_slice(&messages[0])).bench_local(|| {
        let bytes = black_box(next());
        policy.glance(bytes).expect("the name is in the start line");
        let message = reader.read(bytes, Sizes::default(), false).expect("it is a message");
        assert!(second.agrees(&message));
        let path = Path::read(&message, &key, |host| policy.is_name(host));
        policy.request(&message, &path).is_ok()
    });
}

#[divan::bench(args = GOOD)]
fn gate_known(bencher: Bencher<'_, '_>, name: &str) {
    gate(bencher, &[good(name)]);
}

#[divan::bench(args = GOOD)]
fn gate_new(bencher: Bencher<'_, '_>, name: &str) {
    gate(bencher, &users(name));
}

fn forward(bencher: Bencher<'_, '_>, messages: &[Vec<u8>]) {
    let (mut stage, from) = (Stage::new(), outside(Transport::Udp));
    let mut next = turning(messages);
    stage.receive(&from, next());
    bencher.counter(BytesCount::of_slice(&messages[0])).bench_local(|| {
        let outcome = stage.receive(&from, black_box(next()));
        assert_eq!(stage.out.sends.len(), 1);
        outcome
    });
}

/// Gate and routing: the bytes for Asterisk lie in the outbox.
#[divan::bench(args = GOOD)]
fn forward_known(bencher: Bencher<'_, '_>, name: &str) {
    forward(bencher, &[good(name)]);
}

#[divan::bench(args = GOOD)]
fn forward_new(bencher: Bencher<'_, '_>, name: &str) {
    forward(bencher, &users(name));
}

/// Everything that a call and a registration say, both ways, one message after the other.
#[divan::bench]
fn conversation_round(bencher: Bencher<'_, '_>) {
    let mut stage = Stage::new();
    let mut seeds = kit::mutate::conversation(&mut stage);
    seeds.dedup_by(|a, b| a.bytes == b.bytes);
    let flows = [outside(Transport::Udp), kit::stage::asterisk()];
    bencher.bench_local(|| {
        for seed in &seeds {
            let from = &flows[usize::from(seed.side == sipdoor::flow::Side::Inside)];
            stage.receive(from, black_box(&seed.bytes));
        }
    });
}
