//! Connections: deadlines, caps, pings, and peers that do not read.

use crate::stage::*;
use sipdoor::flow::Transport;
use sipdoor::gate::{Pass, Reason};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const FIRST_BYTE: Duration = Duration::from_millis(200);
const HELLO: Duration = Duration::from_millis(400);
const FIRST_MESSAGE: Duration = Duration::from_millis(800);
const IDLE: Duration = Duration::from_millis(1200);

fn hurried() -> Stage {
    Stage::with(|config| {
        let limits = &mut config.limits;
        (limits.first_byte, limits.hello, limits.first_message, limits.idle) = (FIRST_BYTE, HELLO, FIRST_MESSAGE, IDLE);
    })
}

/// Waits for the end of a connection that must last so long, and not much longer.
fn lasts(stream: &mut TcpStream, since: Instant, least: Duration) {
    assert_eq!(until_closed(stream), b"");
    let lasted = since.elapsed();
    assert!(lasted >= least, "closed after {lasted:?} instead of {least:?}");
    assert!(lasted < least + Duration::from_secs(5), "closed after {lasted:?} only");
}

#[test]
fn every_wait_has_its_end() {
    let stage = hurried();
    for transport in [Transport::Tcp, Transport::Tls] {
        let since = Instant::now();
        lasts(&mut connect(stage.at(transport)), since, FIRST_BYTE);
        stage.wait_refused(transport, Reason::Slow, 1);
    }

    let mut half_hello = connect(stage.at(Transport::Tls));
    half_hello.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    lasts(&mut half_hello, Instant::now(), HELLO);
    stage.wait_refused(Transport::Tls, Reason::Slow, 2);

    // Bytes, but never a message that passes.
    for bytes in [b"OPTIONS sip:".to_vec(), b"\r\n\r\n".to_vec(), scan().into_bytes()] {
        let since = Instant::now();
        let mut stream = stage.tcp();
        stream.write_all(&bytes).unwrap();
        lasts(&mut stream, since, FIRST_MESSAGE);
    }
    stage.wait_refused(Transport::Tcp, Reason::Slow, 4);
    assert_eq!(stage.passed(Transport::Tcp, Pass::KeepAlive), 1);

    // A handshake, and then nothing.
    let since = Instant::now();
    let mut silent = stage.tls();
    silent.flush().unwrap();
    silent.conn.complete_io(&mut silent.sock).unwrap();
    until_closed(&mut silent);
    assert!(since.elapsed() >= FIRST_MESSAGE);
    stage.wait_refused(Transport::Tls, Reason::Slow, 3);
    assert_eq!(stage.door.connections(Transport::Tcp) + stage.door.connections(Transport::Tls), 0);
}

#[test]
fn keep_alives_keep_alive_and_silence_ends() {
    let stage = hurried();
    let mut stream = stage.tcp();
    exchange(&stage, Transport::Tcp, &mut stream);
    let since = Instant::now();
    let mut pong = [0; 2];
    let mut last = Instant::now();
    while since.elapsed() < 2 * IDLE {
        last = Instant::now();
        stream.write_all(b"\r\n\r\n").unwrap();
        stream.read_exact(&mut pong).unwrap();
        assert_eq!(&pong, b"\r\n");
        std::thread::sleep(IDLE / 4);
    }
    lasts(&mut stream, last, IDLE);
    stage.wait_refused(Transport::Tcp, Reason::Slow, 1);
}

#[test]
fn a_ping_in_pieces_is_one_ping_and_strangers_get_no_pong() {
    let stage = Stage::start();
    let mut stream = stage.tcp();
    stream.write_all(b"\r\n\r\n").unwrap();
    exchange(&stage, Transport::Tcp, &mut stream); // had there been a pong, it would have come before this answer
    for part in ["\r", "\n", "\r", "\n"] {
        stream.write_all(part.as_bytes()).unwrap();
        stream.flush().unwrap();
    }
    let mut pong = [0; 2];
    stream.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"\r\n");
    // One pong: the next thing is the next answer.
    exchange(&stage, Transport::Tcp, &mut stream);
    assert_eq!(stage.passed(Transport::Tcp, Pass::KeepAlive), 2);
}

#[test]
fn messages_may_come_in_pieces_or_together() {
    let stage = Stage::start();
    let mut stream = stage.tcp();
    let text = request("OPTIONS", Transport::Tcp, "pieces", "");
    for part in text.as_bytes().chunks(11) {
        stream.write_all(part).unwrap();
    }
    stage.answer("200 OK");
    assert!(read_head(&mut stream).starts_with("SIP/2.0 200"));
    let three = ["one", "two", "three"].map(|call| request("OPTIONS", Transport::Tcp, call, "")).concat();
    let (most, last) = three.split_at(three.len() - 3);
    stream.write_all(most.as_bytes()).unwrap();
    for call in ["one", "two"] {
        assert_eq!(field(&stage.answer("200 OK"), "Call-ID"), call);
        assert_eq!(field(&read_head(&mut stream), "Call-ID"), call);
    }
    stream.write_all(last.as_bytes()).unwrap();
    assert_eq!(field(&stage.answer("200 OK"), "Call-ID"), "three");
}

#[test]
fn what_cannot_be_framed_closes_and_policy_does_not() {
    let stage = Stage::start();
    let no_length = request("OPTIONS", Transport::Tcp, "x", "").replace("Content-Length: 0\r\n", "");
    let too_big = request("OPTIONS", Transport::Tcp, "x", "").replace("Length: 0", "Length: 99999");
    let malformed = request("OPTIONS", Transport::Tcp, "x", "").replace("CSeq: 1", "CSeq: x");
    let not_sip = "GET / HTTP/1.1\r\n\r\n".to_owned();
    for (text, reason) in [
        (no_length, Reason::Framing),
        (too_big, Reason::TooBig),
        (malformed, Reason::Malformed),
        (not_sip, Reason::NotSip),
    ] {
        let mut stream = stage.tcp();
        stream.write_all(text.as_bytes()).unwrap();
        assert_eq!(until_closed(&mut stream), b"", "{reason:?}");
        stage.wait_refused(Transport::Tcp, reason, 1);
    }
    // A phone may be set up with two accounts, one of them not ours.
    let mut stream = stage.tcp();
    stream.write_all(scan().as_bytes()).unwrap();
    exchange(&stage, Transport::Tcp, &mut stream);
    // Once it has passed, a malformed message does not end it either.
    let malformed = request("OPTIONS", Transport::Tcp, "x", "").replace("CSeq: 1", "CSeq: x");
    stream.write_all(malformed.as_bytes()).unwrap();
    exchange(&stage, Transport::Tcp, &mut stream);
    assert_eq!(stage.refused(Transport::Tcp, Reason::Malformed), 2);
}

#[test]
fn a_source_has_so_many_connections_and_no_more() {
    let stage = Stage::with(|config| {
        (config.limits.per_source_new, config.limits.per_source, config.limits.connections) = (2, 2, 4);
    });
    let is_refused = |count| {
        assert_eq!(until_closed(&mut stage.tcp()), b"");
        stage.wait_refused(Transport::Tcp, Reason::TooMany, count);
    };
    let (mut first, mut second) = (stage.tcp(), stage.tcp());
    wait("both accepted", || stage.door.connections(Transport::Tcp) == 2);
    is_refused(1);
    // Those that have passed are another matter,
    exchange(&stage, Transport::Tcp, &mut first);
    exchange(&stage, Transport::Tcp, &mut second);
    let mut third = stage.tcp();
    let _fourth = stage.tcp();
    wait("all accepted", || stage.door.connections(Transport::Tcp) == 4);
    // but four in all are four,
    is_refused(2);
    // and of those that have passed there may be two.
    third.write_all(request("OPTIONS", Transport::Tcp, "third", "").as_bytes()).unwrap();
    assert_eq!(field(&stage.answer("200 OK"), "Call-ID"), "third");
    until_closed(&mut third);
    stage.wait_refused(Transport::Tcp, Reason::TooMany, 3);
    // What is closed makes room.
    drop(second);
    wait("room", || stage.door.connections(Transport::Tcp) == 2);
    exchange(&stage, Transport::Tcp, &mut stage.tcp());
}

#[test]
fn a_peer_that_does_not_read_is_closed_and_its_caller_told() {
    let stage = Stage::with(|config| config.limits.queue = 8);
    let mut phone = stage.tcp();
    let contact = register(&stage, Transport::Tcp, |bytes| phone.write_all(bytes).unwrap());
    read_head(&mut phone);
    wait("registered", || stage.door.bindings() == 1);
    let body = "x".repeat(50_000);
    let mut call = 0;
    // The kernel holds some megabytes for a peer that does not read, the door eight messages: then the caller hears 480.
    let answer = loop {
        call += 1;
        assert!(call < 2000, "the queue has no end");
        let inside = stage.backend().local_addr().unwrap();
        stage.asterisk_says(&format!(
            "MESSAGE {contact} SIP/2.0\r\nVia: SIP/2.0/UDP {inside};branch=z9hG4bKm{call}\r\nMax-Forwards: 70\r\n\
             From: <sip:100@{NAME}>;tag=a\r\nTo: <{contact}>\r\nCall-ID: m{call}\r\nCSeq: 1 MESSAGE\r\n\
             Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        stage.backend().set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let got = stage.backend().recv(&mut buffer);
        stage.backend().set_nonblocking(false).unwrap();
        if let Ok(length) = got {
            break String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
        std::thread::yield_now();
    };
    assert!(answer.starts_with("SIP/2.0 480 "), "{answer}");
    stage.wait_refused(Transport::Tcp, Reason::Slow, 1);
    wait("closed", || stage.door.connections(Transport::Tcp) == 0);
}

#[test]
fn a_peer_that_stops_reading_is_closed_at_the_write_deadline() {
    let stage = Stage::with(|config| {
        config.limits.queue = 10_000;
        config.limits.write = Duration::from_millis(300);
    });
    let mut phone = stage.tcp();
    let contact = register(&stage, Transport::Tcp, |bytes| phone.write_all(bytes).unwrap());
    read_head(&mut phone);
    wait("registered", || stage.door.bindings() == 1);
    let inside = stage.backend().local_addr().unwrap();
    let body = "x".repeat(50_000);
    for call in 0..1000 {
        stage.asterisk_says(&format!(
            "MESSAGE {contact} SIP/2.0\r\nVia: SIP/2.0/UDP {inside};branch=z9hG4bKm{call}\r\nMax-Forwards: 70\r\n\
             From: <sip:100@{NAME}>;tag=a\r\nTo: <{contact}>\r\nCall-ID: m{call}\r\nCSeq: 1 MESSAGE\r\n\
             Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        if stage.refused(Transport::Tcp, Reason::Slow) == 1 {
            break;
        }
    }
    stage.wait_refused(Transport::Tcp, Reason::Slow, 1);
    wait("closed", || stage.door.connections(Transport::Tcp) == 0);
}
