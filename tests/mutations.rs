//! A mutational fuzzer for the stable toolchain: messages made from good ones are played through the core, and what must
//! hold for every message is checked (`kit/judge.rs`).
//!
//! `SIPDOOR_FUZZ=20000000 cargo test --release --test mutations -- --nocapture` plays that many; `SIPDOOR_SEED` begins
//! elsewhere. A message that breaks a rule is written to a file, which the fuzz targets and a debugger can take.
#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may panic")]

mod kit;

use kit::bodies;
use kit::judge::Judge;
use kit::mutate::{Random, Seed, conversation, mutate, seeds};
use kit::stage::{Stage, asterisk, config, outside};
use sipdoor::flow::{Side, Transport};
use sipdoor::gate::{Pass, Reason};
use sipdoor::proxy::Outcome;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// After so many messages a worker begins with a fresh door.
const ROUND: u64 = 20_000;
/// No message may take this long, on the slowest machine and between two other programs.
const PATIENCE: Duration = Duration::from_millis(500);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[derive(Default)]
struct Tally {
    played: u64,
    by: BTreeMap<&'static str, u64>,
    slowest: Duration,
}

#[test]
fn no_mutation_breaks_a_rule() {
    let count = setting("SIPDOOR_FUZZ", 200_000);
    let seed = setting("SIPDOOR_SEED", 1);
    let workers = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let began = Instant::now();
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|worker| {
                let share = count / workers + u64::from(worker < count % workers);
                scope.spawn(move || work(seed.wrapping_mul(1 << 32).wrapping_add(worker), share))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut all = Tally::default();
    for tally in tallies {
        all.played += tally.played;
        all.slowest = all.slowest.max(tally.slowest);
        for (name, number) in tally.by {
            *all.by.entry(name).or_default() += number;
        }
    }
    println!("{} messages in {:.1?}, the slowest {:.1?}", all.played, began.elapsed(), all.slowest);
    for (name, number) in &all.by {
        println!("{number:>12} {name}");
    }
    assert!(all.played >= count, "{} of {count} played", all.played);
    // It cannot pass emptily: every rule of the gate let something in, and most reasons refused something.
    let least = (count / 20_000).max(1);
    for pass in [Pass::Name, Pass::Dialog, Pass::Response, Pass::Inside, Pass::Answer, Pass::KeepAlive] {
        assert!(all.by.get(pass.name()).is_some_and(|n| *n >= least), "hardly anything passed by {}", pass.name());
    }
    for reason in
        [Reason::Malformed, Reason::Ambiguous, Reason::Framing, Reason::UriHost, Reason::FromHost, Reason::Route]
    {
        assert!(all.by.get(reason.name()).is_some_and(|n| *n >= least), "hardly anything was {}", reason.name());
    }
    assert!(all.slowest < PATIENCE, "one message took {:?}", all.slowest);
}

fn work(seed: u64, count: u64) -> Tally {
    let mut random = Random(seed);
    let mut tally = Tally::default();
    let mut seeds = Vec::new();
    while tally.played < count {
        let mut config = config();
        config.limits.bindings = 64;
        let mut stage = Stage::with(config);
        if seeds.is_empty() {
            seeds = kit::mutate::seeds(&mut stage);
        } else {
            conversation(&mut stage);
        }
        let mut judge = Judge::default();
        let end = (tally.played + ROUND).min(count);
        while tally.played < end {
            one(&mut stage, &mut judge, &mut random, &seeds, &mut tally);
        }
    }
    tally
}

fn one(stage: &mut Stage, judge: &mut Judge, random: &mut Random, seeds: &[Seed], tally: &mut Tally) {
    let seed = &seeds[random.below(seeds.len())];
    let mut bytes = seed.bytes.clone();
    mutate(&mut bytes, random, seeds);
    // Mostly as a datagram; also as a part of a stream; a stranger also tries what only Asterisk may say.
    let from = match (seed.side, random.below(16)) {
        (_, 0) => outside(Transport::Tcp),
        (_, 1) => outside(Transport::Tls),
        (Side::Inside, 2..) => asterisk(),
        (Side::Outside, 2) => asterisk(),
        (Side::Outside, _) => outside(Transport::Udp),
    };
    if from.transport.is_stream() {
        let more = &seeds[random.below(seeds.len())].bytes;
        bytes.extend_from_slice(more);
        for message in guarded(&bytes, || bodies::frames(&bytes, random)) {
            play(stage, judge, &from, &message, tally);
        }
    } else {
        play(stage, judge, &from, &bytes, tally);
    }
}

fn play(stage: &mut Stage, judge: &mut Judge, from: &sipdoor::flow::Flow, bytes: &[u8], tally: &mut Tally) {
    let began = Instant::now();
    let outcome = guarded(bytes, || judge.play(stage, from, bytes));
    tally.slowest = tally.slowest.max(began.elapsed());
    tally.played += 1;
    let name = match outcome {
        Outcome::Passed(pass) => pass.name(),
        Outcome::Refused(reason) => reason.name(),
        Outcome::Observed(_) => "observed",
    };
    *tally.by.entry(name).or_default() += 1;
}

/// Runs one check; what breaks it is kept and shown.
fn guarded<T>(bytes: &[u8], check: impl FnOnce() -> Result<T, String>) -> T {
    match catch_unwind(AssertUnwindSafe(check)) {
        Ok(Ok(value)) => value,
        Ok(Err(rule)) => panic!("{rule}\nby ({}):\n{}", kept(bytes).display(), kit::shown(bytes)),
        Err(_) => panic!("the core panicked on ({}):\n{}", kept(bytes).display(), kit::shown(bytes)),
    }
}

fn kept(bytes: &[u8]) -> PathBuf {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("mutation-{sum:016x}.sip"));
    std::fs::write(&path, bytes).expect("the file can be written");
    path
}

/// The seeds themselves, unchanged: nothing in the corpus breaks a rule on any flow.
#[test]
fn the_corpus_breaks_no_rule() {
    let mut stage = Stage::new();
    let mut judge = Judge::default();
    let seeds = seeds(&mut stage);
    assert!(seeds.len() > 300);
    let mut tally = Tally::default();
    for seed in &seeds {
        for from in [outside(Transport::Udp), outside(Transport::Tcp), outside(Transport::Tls), asterisk()] {
            play(&mut stage, &mut judge, &from, &seed.bytes, &mut tally);
        }
    }
    assert!(tally.by["name"] > 20, "{:?}", tally.by);
    // The targets of tests/fuzz, over the same corpus.
    for body in [bodies::frame, bodies::message, bodies::decide, bodies::route] {
        for seed in &seeds {
            guarded(&seed.bytes, || body(&seed.bytes));
        }
    }
}
