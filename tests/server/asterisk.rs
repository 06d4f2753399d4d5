//! Between the outside and Asterisk's place: every worker's answers find their way, from the address that was asked.

use crate::stage::*;
use sipdoor::config::Listener;
use sipdoor::flow::Transport;
use sipdoor::gate::Pass;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

#[test]
fn answers_reach_phones_of_every_worker() {
    let stage = Stage::with(|config| config.workers = 4);
    let udp: Vec<_> = (0..32).map(|_| stage.udp()).collect();
    let mut tls: Vec<_> = (0..8).map(|_| stage.tls()).collect();
    for (number, client) in udp.iter().enumerate() {
        client.send(request("OPTIONS", Transport::Udp, &format!("u{number}"), "").as_bytes()).unwrap();
    }
    for (number, client) in tls.iter_mut().enumerate() {
        client.write_all(request("OPTIONS", Transport::Tls, &format!("t{number}"), "").as_bytes()).unwrap();
    }
    let requests: Vec<String> = (0..40).map(|_| stage.forwarded()).collect();
    for request in requests.iter().rev() {
        stage.asterisk_says(&response(request, "200 OK", ""));
    }
    for (number, client) in udp.iter().enumerate() {
        assert_eq!(field(&read_datagram(client), "Call-ID"), format!("u{number}"));
    }
    for (number, client) in tls.iter_mut().enumerate() {
        assert_eq!(field(&read_head(client), "Call-ID"), format!("t{number}"));
    }
    stage.wait_passed(Transport::Udp, Pass::Answer, 40);
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let stage = Stage::with(|config| {
        let any = Listener { transport: Transport::Udp, address: "0.0.0.0:0".parse().unwrap(), advertise: None };
        config.listeners = vec![any];
        config.certificates.clear();
    });
    let port = stage.at(Transport::Udp).port();
    for last in [1, 2, 77] {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), port);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(request("OPTIONS", Transport::Udp, "asked", "").as_bytes(), address).unwrap();
        stage.answer("200 OK");
        let mut buffer = [0; 4096];
        assert_eq!(client.recv_from(&mut buffer).unwrap().1, address);
    }
}

#[test]
fn ipv6_works_as_ipv4_does() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("left out: this machine has no IPv6");
        return;
    }
    let stage = Stage::with(|config| {
        for listener in &mut config.listeners {
            listener.address = "[::]:0".parse().unwrap();
        }
    });
    let at = |transport| SocketAddr::new("::1".parse().unwrap(), stage.at(transport).port());
    let client = UdpSocket::bind("[::1]:0").unwrap();
    client.connect(at(Transport::Udp)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send(request("OPTIONS", Transport::Udp, "six", "").as_bytes()).unwrap();
    stage.answer("200 OK");
    assert!(read_datagram(&client).starts_with("SIP/2.0 200"));
    exchange(&stage, Transport::Tcp, &mut connect(at(Transport::Tcp)));
    let v4 = SocketAddr::new("127.0.0.1".parse().unwrap(), at(Transport::Tcp).port());
    assert!(std::net::TcpStream::connect(v4).is_err(), "an IPv6 listener takes no IPv4");
}

#[test]
fn only_asterisks_address_speaks_for_asterisk() {
    let stage = Stage::start();
    let phone = stage.udp();
    phone.send(request("OPTIONS", Transport::Udp, "x", "").as_bytes()).unwrap();
    let request = stage.forwarded();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let forged = response(&request, "403 Forged", "");
    // The kernel may say that nobody listens there for this socket.
    let _ = other.send_to(forged.as_bytes(), stage.door.inside());
    stage.asterisk_says(&response(&request, "200 OK", ""));
    assert!(read_datagram(&phone).starts_with("SIP/2.0 200"));
    stage.wait_passed(Transport::Udp, Pass::Answer, 1);
}

#[test]
fn asterisk_may_connect_and_reaches_phones() {
    let stage = Stage::start();
    let mut phone = stage.tls();
    let contact = register(&stage, Transport::Tls, |bytes| phone.write_all(bytes).unwrap());
    assert!(read_head(&mut phone).starts_with("SIP/2.0 200"));
    let mut asterisk = connect(stage.door.inside());
    let body = "x".repeat(20_000);
    let text = format!(
        "MESSAGE {contact} SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:5080;branch=z9hG4bKtcp\r\nMax-Forwards: 70\r\n\
         From: <sip:100@{NAME}>;tag=a\r\nTo: <{contact}>\r\nCall-ID: big\r\nCSeq: 1 MESSAGE\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    asterisk.write_all(text.as_bytes()).unwrap();
    let head = read_head(&mut phone);
    assert!(head.starts_with("MESSAGE sip:101@192.0.2.9:5060;transport=tls SIP/2.0\r\n"), "{head}");
    let mut got = vec![0; body.len()];
    phone.read_exact(&mut got).unwrap();
    phone.write_all(response(&head, "200 OK", "").as_bytes()).unwrap();
    let answer = read_head(&mut asterisk);
    assert!(answer.starts_with("SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 127.0.0.1:5080;branch=z9hG4bKtcp"), "{answer}");
    // The phone goes: the next caller is told at once.
    drop(phone);
    wait("gone", || stage.door.connections(Transport::Tls) == 0);
    asterisk.write_all(text.replace("z9hG4bKtcp", "z9hG4bKtwo").as_bytes()).unwrap();
    assert!(read_head(&mut asterisk).starts_with("SIP/2.0 480 "));
}
