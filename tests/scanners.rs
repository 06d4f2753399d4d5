//! Strangers who know only the address: nothing comes back, not one byte, Asterisk hears nothing, the counters say why.
//!
//! Each test has a lab of its own, watches both ends of it in the kernel (nftables), and at its end lets a phone that
//! knows the name through, to show that what was watched would have been seen.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "peers/common/mod.rs"]
mod common;

use common::lab::{Lab, Seat};
use common::link::{Tls, Transport, trusting};
use common::phone::Phone;
use common::tools::Baresip;
use common::{NAME, PATIENCE, PUBLIC, random, wait};
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;

/// Probes as the logs of honeypots show them; the last part of each host is the door's address or a name that is not its.
const METHODS: [&str; 6] = ["OPTIONS", "REGISTER", "INVITE", "ACK", "MESSAGE", "SUBSCRIBE"];

#[test]
fn probes_and_floods_over_udp_are_dropped_and_counted() {
    let Some(lab) = Lab::own() else { return };
    let watch = Watch::start(&lab);
    let socket = lab.space("phone").run(|| UdpSocket::bind(("198.51.100.10", 0)).unwrap());
    for round in 0..20_u64 {
        for method in METHODS {
            for _ in 0..10 {
                socket.send_to(probe(method, "UDP", PUBLIC).as_bytes(), (PUBLIC, 5060)).unwrap();
            }
        }
        // In steps, so that the socket buffer holds what a small machine has not yet read.
        let sent = (round + 1) * 60;
        wait("the flood to be counted", || (lab.door.refused("udp") >= sent).then_some(()));
    }
    assert_eq!(lab.door.refused("udp"), 1200, "each one is counted once: {}", lab.door.status());
    watch.nothing_came_back();
}

#[test]
fn probes_with_another_name_are_dropped() {
    let Some(lab) = Lab::own() else { return };
    let watch = Watch::start(&lab);
    let socket = lab.space("phone").run(|| UdpSocket::bind(("198.51.100.10", 0)).unwrap());
    let near =
        ["sip.test", "xk7q2.sip.test", "k7q2.sip.test.", "k7q2.sip.test.evil.example", "k7q2.sip.tes", "[2001:db8::1]"];
    for host in near {
        socket.send_to(probe("REGISTER", "UDP", host).as_bytes(), (PUBLIC, 5060)).unwrap();
    }
    wait("the probes to be counted", || (lab.door.refused("udp") == near.len() as u64).then_some(()));
    watch.nothing_came_back();
}

#[test]
fn a_tcp_connection_that_does_not_know_the_name_is_closed_without_a_byte() {
    let Some(lab) = Lab::own() else { return };
    let watch = Watch::start(&lab);
    let door: SocketAddr = format!("{PUBLIC}:5060").parse().unwrap();
    let mut streams = Vec::new();
    for method in METHODS {
        let mut stream = lab.space("phone").run(|| TcpStream::connect(door).unwrap());
        stream.write_all(probe(method, "TCP", PUBLIC).as_bytes()).unwrap();
        streams.push(stream);
    }
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: 198.51.100.1\r\n\r\n"[..], b"SSH-2.0-Go\r\n", b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0"]
    {
        let mut stream = lab.space("phone").run(|| TcpStream::connect(door).unwrap());
        stream.write_all(bytes).unwrap();
        streams.push(stream);
    }
    streams.push(lab.space("phone").run(|| TcpStream::connect(door).unwrap())); // says nothing
    for mut stream in streams {
        assert_eq!(all_of(&mut stream), b"", "not one byte");
    }
    assert!(lab.door.refused("tcp") >= 9, "{}", lab.door.status());
    watch.nothing_came_back();
}

#[test]
fn a_tls_client_without_the_name_is_closed_without_a_byte() {
    let Some(lab) = Lab::own() else { return };
    let watch = Watch::start(&lab);
    let mut nameless = ClientConfig::clone(&trusting(&lab.certs.ca));
    nameless.enable_sni = false;
    let named = trusting(&lab.certs.ca);
    let hello = |config: &Arc<ClientConfig>, name: &str| {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    };
    let hellos = [
        ("sni_absent", hello(&Arc::new(nameless), NAME)),
        ("sni_wrong", hello(&named, "www.example.com")),
        ("sni_wrong", hello(&named, "sip.test")),
        ("sni_wrong", hello(&named, "x.k7q2.sip.test")),
        ("not_tls", b"OPTIONS sip:k7q2.sip.test SIP/2.0\r\n\r\n".to_vec()),
    ];
    let reasons = ["sni_absent", "sni_wrong", "not_tls"];
    for (reason, hello) in hellos {
        let before = lab.door.count("tls", reason);
        let mut stream = lab.space("phone").run(|| TcpStream::connect((PUBLIC, 5061)).unwrap());
        stream.write_all(&hello).unwrap();
        assert_eq!(all_of(&mut stream), b"", "{reason}: not one byte");
        wait(reason, || (lab.door.count("tls", reason) == before + 1).then_some(()));
    }
    assert_eq!(reasons.map(|reason| lab.door.count("tls", reason)), [1, 3, 1]);
    watch.nothing_came_back();
}

/// Who found the name of the certificate but dials the address hears the handshake and then nothing.
#[test]
fn behind_the_right_server_name_the_hosts_are_still_read() {
    let Some(lab) = Lab::own() else { return };
    let watch = Watch::start(&lab);
    let stream = lab.space("home").run(|| TcpStream::connect((PUBLIC, 5061)).unwrap());
    let name = ServerName::try_from(NAME).unwrap();
    let mut client = ClientConnection::new(trusting(&lab.certs.ca), name).unwrap();
    let mut stream = rustls::StreamOwned::new(
        {
            client.complete_io(&mut &stream).unwrap();
            client
        },
        stream,
    );
    for method in METHODS {
        stream.write_all(probe(method, "TLS", PUBLIC).as_bytes()).unwrap();
    }
    stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard); // the end is a close, with or without a close_notify
    assert_eq!(heard, b"");
    assert!(lab.door.refused("tls") >= 6, "{}", lab.door.status());
    watch.nothing_came_back();
}

#[test]
fn sipvicious_finds_nothing() {
    let Some(lab) = Lab::own() else { return };
    let watch = Watch::start(&lab);
    let space = lab.space("phone");
    for method in ["OPTIONS", "REGISTER", "INVITE"] {
        let said = space.output("svmap", &["-m", method, PUBLIC]);
        assert!(said.contains("found nothing"), "{said}");
    }
    for method in ["REGISTER", "INVITE", "OPTIONS"] {
        let said = space.output("svwar", &["--force", "-m", method, "-e", "200-210", "--maximumtime", "2", PUBLIC]);
        assert!(!said.contains("reqauth") && !said.contains("noauth"), "{said}");
    }
    assert!(lab.door.refused("udp") >= 6, "{}", lab.door.status());
    watch.nothing_came_back();
}

#[test]
fn nmap_and_sipsak_find_nothing() {
    let Some(lab) = Lab::own() else { return };
    let watch = Watch::start(&lab);
    let space = lab.space("phone");
    let scripts = [
        "--script",
        "sip-methods,sip-enum-users",
        "--script-args",
        "sip-enum-users.minext=200,sip-enum-users.maxext=205",
    ];
    let scan = |ports: &[&str]| {
        let options = ["-n", "-Pn", "--host-timeout", "40s"];
        space.output("nmap", &[&options[..], ports, &scripts[..], &[PUBLIC]].concat())
    };
    let said = scan(&["-sU", "-p", "5060"]);
    assert!(said.contains("open|filtered"), "no answer over UDP: {said}");
    assert!(!said.contains("sip-methods:") && !said.contains("sip-enum-users:"), "{said}");
    let said = scan(&["-sT", "-p", "5060,5061"]);
    assert!(!said.contains("sip-methods:") && !said.contains("sip-enum-users:"), "{said}");
    let said = space.output("sipsak", &["-vv", "--timer-t1=50", "-s", &format!("sip:200@{PUBLIC}")]);
    assert!(!said.contains("SIP/2.0 2") && !said.contains("SIP/2.0 4"), "{said}");
    assert!(lab.door.refused("udp") > 0, "{}", lab.door.status());
    watch.nothing_came_back();
}

#[test]
fn openssl_and_sslscan_see_no_certificate() {
    let Some(lab) = Lab::own() else { return };
    let watch = Watch::start(&lab);
    let space = lab.space("phone");
    let door = format!("{PUBLIC}:5061");
    for (reason, name) in [("sni_absent", &["-noservername"][..]), ("sni_wrong", &["-servername", "sip.example.com"])] {
        let before = lab.door.count("tls", reason);
        let said = space.output("openssl", &[&["s_client", "-connect", &door][..], name].concat());
        assert!(said.contains("no peer certificate available"), "{said}");
        assert!(said.contains("has read 0 bytes"), "{said}");
        assert_eq!(lab.door.count("tls", reason), before + 1);
    }
    for name in [&["--no-colour"][..], &["--no-colour", "--sni-name=sip.example.com"]] {
        let said = space.output("sslscan", &[name, &[&door]].concat());
        assert!(!said.contains("Accepted") && !said.contains("Subject:"), "{said}");
    }
    watch.nothing_came_back();
}

/// Debian 12's baresip sends no server name: over TLS it is a stranger, though it knows number and password.
#[test]
fn a_client_that_sends_no_server_name_hears_nothing() {
    let Some(lab) = Lab::own() else { return };
    let watch = Watch::start(&lab);
    let baresip = Baresip::start(&lab, &lab.number("plain"), Tls, "");
    wait("baresip's ClientHello", || (lab.door.count("tls", "sni_absent") >= 1).then_some(()));
    assert!(!baresip.talker.heard().contains("200 OK"), "{}", baresip.talker.heard());
    watch.nothing_came_back();
}

/// Answers that nobody asked for, and requests that pretend to be in a dialog.
#[test]
fn forged_answers_and_forged_dialogs_are_dropped() {
    let Some(lab) = Lab::own() else { return };
    let watch = Watch::start(&lab);
    let socket = lab.space("phone").run(|| UdpSocket::bind(("198.51.100.10", 0)).unwrap());
    let local = socket.local_addr().unwrap();
    let head = format!("From: <sip:200@{PUBLIC}>;tag=a\r\nTo: <sip:200@{PUBLIC}>;tag=b\r\nCall-ID: {}\r\n", random(8));
    let forged = [
        format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {PUBLIC};branch=z9hG4bK776asdhds\r\n{head}CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        ),
        format!(
            "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP {PUBLIC};branch=z9hG4bKx\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKy\r\n{head}CSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n"
        ),
        format!(
            "BYE sip:127.0.0.1:5080 SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKz\r\nRoute: <sip:{NAME};lr>\r\nRoute: <sip:127.0.0.1:5070;lr>\r\nMax-Forwards: 70\r\n{head}CSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n"
        ),
    ];
    for message in &forged {
        socket.send_to(message.as_bytes(), (PUBLIC, 5060)).unwrap();
    }
    wait("the forgeries to be counted", || (lab.door.refused("udp") == forged.len() as u64).then_some(()));
    assert_eq!(lab.door.count("udp", "unsolicited"), 2, "{}", lab.door.status());
    watch.nothing_came_back();
}

/// The kernel's own counters: what reaches the strangers' machine, and what reaches Asterisk.
struct Watch<'a> {
    lab: &'a Seat,
}

impl<'a> Watch<'a> {
    fn start(lab: &'a Seat) -> Self {
        lab.asterisk.cli("pjsip set logger on");
        load(
            &lab.space("phone"),
            "table inet watch {
                counter datagrams { }
                counter errors { }
                counter payload { }
                chain in {
                    type filter hook input priority 0;
                    ip saddr 198.51.100.1 meta l4proto udp counter name datagrams
                    ip saddr 198.51.100.1 meta l4proto icmp icmp type != echo-reply counter name errors
                    # 52 bytes are the IP and TCP headers with their time stamps: more is payload.
                    ip saddr 198.51.100.1 meta l4proto tcp tcp flags & syn == 0 meta length > 52 counter name payload
                }
            }",
        );
        load(
            &lab.space("pbx"),
            "table inet watch {
                counter asterisk { }
                chain in {
                    type filter hook input priority 0;
                    ip daddr 127.0.0.1 udp dport 5080 counter name asterisk
                    ip daddr 127.0.0.1 tcp dport 5080 counter name asterisk
                }
            }",
        );
        Self { lab }
    }

    fn nothing_came_back(self) {
        let seen = |role: &str, name: &str| {
            let shown = self.lab.space(role).output("nft", &["list", "counter", "inet", "watch", name]);
            let count = shown.split("packets ").nth(1).unwrap_or_else(|| panic!("{shown}"));
            count.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        for name in ["datagrams", "errors", "payload"] {
            assert_eq!(seen("phone", name), 0, "{name} came back");
        }
        assert_eq!(seen("pbx", "asterisk"), 0, "packets reached Asterisk");
        let heard =
            |log: String| log.lines().filter(|line| line.contains("SIP/2.0") || line.contains("SECURITY")).count();
        assert_eq!(heard(self.lab.asterisk.log()), 0, "{}", self.lab.asterisk.log());

        // And all of it would have been seen.
        for transport in Transport::ALL {
            Phone::new(self.lab, &self.lab.number("plain"), transport).register();
        }
        assert!(seen("phone", "datagrams") > 0 && seen("phone", "payload") > 0 && seen("pbx", "asterisk") > 0);
        assert!(heard(self.lab.asterisk.log()) > 0);
    }
}

fn load(space: &common::netns::Space, rules: &str) {
    let mut nft = space.command("nft").args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
}

/// Everything the door sends until it closes the connection, which it must.
fn all_of(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = Vec::new();
    match stream.read_to_end(&mut heard) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the connection is still open"),
        _ => heard, // a close or a reset
    }
}

fn probe(method: &str, transport: &str, host: &str) -> String {
    let (branch, call) = (random(12), random(12));
    let to_tag = if method == "ACK" { ";tag=1" } else { "" };
    let contact = "Contact: <sip:100@198.51.100.10:5060>\r\n";
    format!(
        "{method} sip:100@{host} SIP/2.0\r\nVia: SIP/2.0/{transport} 198.51.100.10:5060;branch=z9hG4bK{branch};rport\r\n\
         Max-Forwards: 70\r\nFrom: \"sipvicious\"<sip:100@1.1.1.1>;tag={call}\r\nTo: <sip:100@{host}>{to_tag}\r\n\
         Call-ID: {call}\r\nCSeq: 1 {method}\r\n{contact}User-Agent: friendly-scanner\r\nContent-Length: 0\r\n\r\n"
    )
}
