//! Opening and closing: what cannot be opened is said in a sentence, what was known is known again.

use crate::stage::*;
use sipdoor::config::CertificateFiles;
use sipdoor::flow::Transport;
use sipdoor::net::{Server, tls};
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};

fn sentence(config: sipdoor::config::Config) -> String {
    Server::start(config).err().unwrap().to_string()
}

#[test]
fn a_taken_port_is_named_even_if_its_owner_would_share_it() {
    let stage = Stage::start();
    let mut config = stage.config.clone();
    config.state = stage.scratch.0.join("other");
    for transport in Transport::ALL {
        let mut config = config.clone();
        config.listeners.retain(|listener| listener.transport == transport);
        config.listeners[0].address = stage.at(transport);
        let expected = format!(
            "cannot listen on {} {}: address in use: another program (or another sipdoor) has it; stop it or change \
             [[listen]] address",
            transport.name(),
            stage.at(transport)
        );
        assert_eq!(sentence(config), expected);
    }
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    config.inside = taken.local_addr().unwrap();
    assert!(sentence(config.clone()).contains("for Asterisk: address in use"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    config.inside = taken.local_addr().unwrap();
    assert!(sentence(config).starts_with(&format!("cannot listen on tcp {}", taken.local_addr().unwrap())));
}

#[test]
fn a_second_door_on_one_state_directory_is_kept_out() {
    let stage = Stage::start();
    let text = sentence(stage.config);
    assert!(text.contains("in use by another door: stop it"), "{text}");
}

#[test]
fn an_address_of_another_machine_is_named() {
    let stage = Stage::start();
    let mut config = stage.config.clone();
    config.state = stage.scratch.0.join("other");
    config.listeners[0].address = "192.0.2.1:5060".parse().unwrap();
    let text = sentence(config);
    assert!(text.contains("this machine does not have that address"), "{text}");
}

#[test]
fn phones_are_known_again_after_a_restart() {
    let mut stage = Stage::start();
    let phone = stage.udp();
    let contact = register(&stage, Transport::Udp, |bytes| assert_eq!(phone.send(bytes).unwrap(), bytes.len()));
    assert!(read_datagram(&phone).starts_with("SIP/2.0 200"));
    // The same ports again, as after a restart.
    let mut config = stage.config.clone();
    config.listeners = stage.door.listeners().to_vec();
    config.inside = stage.door.inside();
    stage.server.take().unwrap().shutdown();
    let server = Server::start(config).unwrap();
    stage.door = server.door();
    stage.server = Some(server);
    assert_eq!(stage.door.bindings(), 1);
    // A phone on UDP is reachable before it says a word.
    let inside = stage.backend().local_addr().unwrap();
    stage.asterisk_says(&format!(
        "OPTIONS {contact} SIP/2.0\r\nVia: SIP/2.0/UDP {inside};branch=z9hG4bKq\r\nMax-Forwards: 70\r\n\
         From: <sip:100@{NAME}>;tag=a\r\nTo: <{contact}>\r\nCall-ID: q\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    ));
    let qualify = read_datagram(&phone);
    assert!(qualify.starts_with("OPTIONS sip:101@192.0.2.9:5060;transport=udp SIP/2.0\r\n"), "{qualify}");
}

#[test]
fn closing_ends_every_connection() {
    let mut stage = Stage::start();
    let (mut tcp, mut tls) = (stage.tcp(), stage.tls());
    exchange(&stage, Transport::Tcp, &mut tcp);
    exchange(&stage, Transport::Tls, &mut tls);
    stage.server.take().unwrap().shutdown();
    assert_eq!(until_closed(&mut tcp), b"");
    assert_eq!(until_closed(&mut tls), b"");
    assert!(std::net::TcpStream::connect(stage.at(Transport::Tcp)).is_err());
}

#[test]
fn certificates_are_loaded_again_and_a_bad_one_changes_nothing() {
    let stage = Stage::start();
    exchange(&stage, Transport::Tls, &mut stage.tls());
    let files = stage.config.certificates[0].clone();
    let server = stage.server.as_ref().unwrap();
    let fresh = sipdoor::certs::make(&[NAME.to_owned()]).unwrap();
    std::fs::write(&files.cert, &fresh.cert).unwrap();
    let text = server.reload().unwrap_err().to_string();
    assert!(text.contains("does not belong to the certificate"), "{text}");
    exchange(&stage, Transport::Tls, &mut stage.tls());
    std::fs::write(&files.key, &fresh.key).unwrap();
    server.reload().unwrap();
    let mut old = stage.tls();
    assert!(old.write_all(b"\r\n").is_err(), "the old authority did not sign this one");
    let new = client(&fresh.authority, NAME);
    let stream = connect(stage.at(Transport::Tls));
    exchange(&stage, Transport::Tls, &mut rustls::StreamOwned::new(new, stream));
}

#[test]
fn every_mistake_with_certificates_has_its_sentence() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.0.join(name);
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    let names = [NAME.to_owned()];
    let (one, two) = (sipdoor::certs::make(&names).unwrap(), sipdoor::certs::make(&["other.test".into()]).unwrap());
    write("cert", &one.cert);
    write("key", &one.key);
    write("other-key", &two.key);
    write("other-cert", &two.cert);
    write("empty", "");
    write("broken", &one.cert.replace("MI", "!!"));
    let load = |cert: &str, key: &str| tls::load(&[CertificateFiles { cert: path(cert), key: path(key) }], &names);
    for (cert, key, expected) in [
        ("none", "key", "none cannot be read: No such file"),
        ("cert", "none", "none cannot be read: No such file"),
        ("empty", "key", "empty holds no PEM certificate"),
        ("key", "key", "key holds no PEM certificate"),
        ("cert", "empty", "empty holds no PEM private key"),
        ("cert", "cert", "cert holds no PEM private key"),
        ("cert", "other-key", "other-key does not belong to the certificate"),
        ("broken", "key", "broken cannot be used"),
    ] {
        let text = load(cert, key).unwrap_err().to_string();
        assert!(text.contains(expected), "{cert} with {key}: {text}");
    }
    assert!(load("cert", "key").unwrap().warnings().is_empty());
    assert!(load("cert", "key").unwrap().about()[0].expires > 1_700_000_000);
    let warned = load("other-cert", "other-key").unwrap();
    assert!(warned.warnings()[0].starts_with("no certificate is for k7q2.sip.test"), "{:?}", warned.warnings());
}
