//! The bodies of the fuzz targets (tests/fuzz), which also run as plain tests over the corpus: bytes in, a broken rule out.

use super::judge::Judge;
use super::mutate::{Random, conversation};
use super::stage::{Stage, asterisk, outside};
use sipdoor::flow::Transport;
use sipdoor::sip::check::Second;
use sipdoor::sip::frame::{Framer, Sizes, Step};
use sipdoor::sip::message::{Message, Reader};
use std::cell::RefCell;

/// What breaks no rule.
pub type Checked<T = ()> = Result<T, String>;

/// A stream gives the same messages, however it is cut.
pub fn frame(bytes: &[u8]) -> Checked {
    let seed = bytes.iter().fold(0, |sum: u64, b| sum.wrapping_mul(31).wrapping_add((*b).into()));
    frames(bytes, &mut Random(seed)).map(drop)
}

/// The messages of a stream, which any other cutting of it must give as well.
pub fn frames(bytes: &[u8], random: &mut Random) -> Checked<Vec<Vec<u8>>> {
    let whole = cut(bytes, &[])?;
    let mut cuts = [random.below(bytes.len() + 1), random.below(bytes.len() + 1), random.below(bytes.len() + 1)];
    cuts.sort_unstable();
    if cut(bytes, &cuts)? != whole {
        return Err(format!("cut at {cuts:?} the stream gives other messages"));
    }
    Ok(whole.0)
}

/// The messages of a stream that comes in these parts, and whether it ended in an error.
fn cut(bytes: &[u8], cuts: &[usize]) -> Checked<(Vec<Vec<u8>>, bool)> {
    let sizes = Sizes::default();
    let mut framer = Framer::new(sizes);
    let (mut buffer, mut messages): (Vec<u8>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
    let mut from = 0;
    for &to in cuts.iter().chain([&bytes.len()]) {
        buffer.extend_from_slice(&bytes[from..to]);
        from = to;
        loop {
            match framer.next(&buffer) {
                Err(_) => return Ok((messages, true)),
                Ok(Step::More) => break,
                Ok(Step::Skip(0) | Step::Ping(0) | Step::Message(0)) => return Err("a step of no bytes".into()),
                Ok(Step::Skip(n) | Step::Ping(n)) => drop(buffer.drain(..n)),
                Ok(Step::Message(n)) if n > sizes.message => return Err(format!("a message of {n} bytes")),
                Ok(Step::Message(n)) => messages.push(buffer.drain(..n).collect()),
            }
        }
        // What waits for more is within the limits, give or take what came at once.
        if buffer.len() > sizes.message + bytes.len() {
            return Err(format!("{} bytes are held", buffer.len()));
        }
    }
    Ok((messages, false))
}

/// Every view of a message lies inside it, and the second reader takes what the first gives.
pub fn message(bytes: &[u8]) -> Checked {
    let mut reader = Reader::default();
    for whole in [false, true] {
        if let Ok(message) = reader.read(bytes, Sizes::default(), whole) {
            views(&message)?;
            Second::default().agrees(&message);
        }
    }
    Ok(())
}

fn views(message: &Message<'_>) -> Checked {
    let all = message.bytes.as_ptr_range();
    let inside = |view: &[u8]| view.is_empty() || (all.start <= view.as_ptr() && view.as_ptr_range().end <= all.end);
    let mut views = vec![message.from.uri.text, message.to.uri.text, message.call_id, message.cseq, message.via.text];
    views.extend([message.from.params, message.to.params, message.from.uri.host, message.to.uri.host, message.body()]);
    views.extend(message.uri().map(|uri| uri.text));
    if !views.into_iter().all(inside) {
        return Err("a view lies outside its message".into());
    }
    let mut end = message.first_field;
    for field in message.fields {
        let line = field.line();
        if line.start != end || !message.at(line.clone()).ends_with(b"\r\n") {
            return Err(format!("a field at {line:?} behind {end}"));
        }
        end = line.end;
    }
    if end + 2 == message.head {
        Ok(())
    } else {
        Err(format!("the head ends at {} and not at {}", end + 2, message.head))
    }
}

/// A message from outside: what the gate lets in is what everybody behind it reads.
pub fn decide(bytes: &[u8]) -> Checked {
    on_stage(|stage| {
        for transport in [Transport::Udp, Transport::Tcp] {
            Judge::default().play(stage, &outside(transport), bytes)?;
        }
        Ok(())
    })
}

/// A message from either side, to a door that knows a phone and its calls.
pub fn route(bytes: &[u8]) -> Checked {
    on_stage(|stage| {
        for from in [outside(Transport::Udp), asterisk()] {
            Judge::default().play(stage, &from, bytes)?;
        }
        Ok(())
    })
}

/// A door that knows a phone and its calls; now and then a fresh one, in case it was talked out of knowing them.
fn on_stage(play: impl FnOnce(&mut Stage) -> Checked) -> Checked {
    thread_local! {
        static STAGE: RefCell<(u32, Option<Stage>)> = const { RefCell::new((0, None)) };
    }
    STAGE.with_borrow_mut(|(plays, stage)| {
        *plays += 1;
        if *plays % 512 == 0 {
            *stage = None;
        }
        play(stage.get_or_insert_with(|| {
            let mut stage = Stage::new();
            conversation(&mut stage);
            stage
        }))
    })
}
