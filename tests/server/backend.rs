//! Asterisk gone, and back: whoever knows the name is told, at once, over every transport.

use crate::stage::*;
use sipdoor::flow::Transport;
use sipdoor::gate::{Pass, Reason};
use std::io::Write as _;

#[test]
fn while_asterisk_is_down_callers_hear_503_and_afterwards_they_are_served() {
    let mut stage = Stage::with(|config| config.workers = 4);
    let address = stage.backend().local_addr().unwrap();
    let clients: Vec<_> = (0..16).map(|_| stage.udp()).collect();
    let (mut tcp, mut tls) = (stage.tcp(), stage.tls());
    exchange(&stage, Transport::Tcp, &mut tcp);
    stage.backend = None;
    for round in 0..3 {
        for (number, client) in clients.iter().enumerate() {
            let call = format!("u{round}-{number}");
            client.send(request("OPTIONS", Transport::Udp, &call, "").as_bytes()).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            let answer = read_datagram(client);
            assert!(answer.starts_with("SIP/2.0 503 "), "{answer}");
            assert_eq!(field(&answer, "Call-ID"), format!("u{round}-{number}"));
        }
        tcp.write_all(request("OPTIONS", Transport::Tcp, "tcp", "").as_bytes()).unwrap();
        assert!(read_head(&mut tcp).starts_with("SIP/2.0 503 "));
        tls.write_all(request("OPTIONS", Transport::Tls, "tls", "").as_bytes()).unwrap();
        assert!(read_head(&mut tls).starts_with("SIP/2.0 503 "));
    }
    stage.wait_refused(Transport::Udp, Reason::Unavailable, 48);
    stage.wait_refused(Transport::Tcp, Reason::Unavailable, 3);
    stage.wait_refused(Transport::Tls, Reason::Unavailable, 3);
    assert_eq!(stage.passed(Transport::Udp, Pass::Name), 0, "each message is counted once");

    let backend = std::net::UdpSocket::bind(address).unwrap();
    backend.set_read_timeout(Some(PATIENCE)).unwrap();
    stage.backend = Some(backend);
    for (number, client) in clients.iter().enumerate() {
        client.send(request("OPTIONS", Transport::Udp, &format!("b{number}"), "").as_bytes()).unwrap();
        stage.answer("200 OK");
        let answer = read_datagram(client);
        assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
    }
    exchange(&stage, Transport::Tcp, &mut tcp);
    exchange(&stage, Transport::Tls, &mut tls);
}

#[test]
fn many_in_one_breath_are_each_told() {
    let mut stage = Stage::with(|config| config.workers = 1);
    stage.backend = None;
    let client = stage.udp();
    let mut expected = std::collections::BTreeSet::new();
    // More than one batch, less than the socket buffers hold.
    for number in 0..100 {
        client.send(request("OPTIONS", Transport::Udp, &format!("n{number}"), "").as_bytes()).unwrap();
        expected.insert(format!("n{number}"));
    }
    while !expected.is_empty() {
        let answer = read_datagram(&client);
        assert!(answer.starts_with("SIP/2.0 503 "), "{answer}");
        assert!(expected.remove(field(&answer, "Call-ID")), "twice: {answer}");
    }
}

#[test]
fn a_scanner_hears_nothing_when_asterisk_is_down() {
    let mut stage = Stage::start();
    stage.backend = None;
    let client = stage.udp();
    client.send(scan().as_bytes()).unwrap();
    client.send(request("OPTIONS", Transport::Udp, "good", "").as_bytes()).unwrap();
    assert_eq!(field(&read_datagram(&client), "Call-ID"), "good");
    stage.wait_refused(Transport::Udp, Reason::UriHost, 1);
}
