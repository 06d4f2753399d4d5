//! `sipdoor demo` from outside: the story comes to its good end, and the door that stays serves a phone of one's own.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may panic")]

use sipdoor::demo::agent::Settings;
use sipdoor::demo::phone::Phone;
use sipdoor::demo::wire::Connect;
use sipdoor::flow::Transport;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn demo(listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sipdoor"));
    command.args(["demo", "--listen", listen]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_story_comes_to_its_good_end() {
    the_story("127.0.7.1");
}

#[test]
fn the_story_is_the_same_over_ipv6() {
    if UdpSocket::bind("[::1]:0").is_err() {
        println!("left out: the demo over IPv6: this machine has no ::1");
        return;
    }
    the_story("::1");
}

fn the_story(listen: &str) {
    let output = demo(listen).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(err.is_empty(), "{err}");
    assert!(!out.contains("FAILED"), "{out}");
    for transport in ["TLS 101", "UDP 102", "TCP 103"] {
        for what in ["registers: 200", "calls 600", "is called: 200", "writes and is written to", "comes back"] {
            assert!(out.contains(&format!("ok      {transport} {what}")), "{transport} {what}\n{out}");
        }
    }
    for stranger in ["UDP REGISTER by address", "TLS ClientHello without SNI", "TLS ClientHello with a wrong SNI"] {
        assert!(out.contains(&format!("ok      {stranger}: nothing")), "{stranger}\n{out}");
    }
    for row in ["sni_absent", "sni_ip", "sni_wrong", "not_tls", "uri_host", "unsolicited"] {
        assert!(out.lines().any(|line| line.contains("DROP") && line.ends_with(row)), "{row}\n{out}");
    }
}

#[test]
fn a_wrong_name_is_one_sentence() {
    let output = demo("127.0.7.3").args(["--name", "192.0.2.1"]).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(err.starts_with("sipdoor: ") && err.contains("--name: ") && err.lines().count() == 1, "{err}");
}

/// The demo that stays; ended as Ctrl-C would.
struct Stays {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Stays {
    /// Reads up to the line with this label; what stands behind it.
    fn value(&mut self, label: &str) -> String {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if let Some(value) = line.trim().strip_prefix(label) {
                return value.trim().to_owned();
            }
        }
        panic!("the demo did not print {label:?}");
    }

    fn interrupt(mut self) -> (bool, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let rest: String = self.lines.map(|line| line.unwrap() + "\n").collect();
        (self.child.wait().unwrap().success(), rest)
    }
}

#[test]
fn the_door_that_stays_serves_a_phone_and_no_stranger() {
    let listen = "127.0.7.2";
    let mut child = demo(listen).arg("--stay").spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stays = Stays { child, lines };
    let password = stays.value("password ");
    let domain = stays.value("domain ");
    let (name, ports) = domain.split_once(", port ").unwrap();
    let ports: Vec<u16> = ports.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    let authority = stays.value("authority for TLS ");
    let status = stays.value("counters ");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (transport, port) in [Transport::Tls, Transport::Udp, Transport::Tcp].into_iter().zip(&ports) {
        let mut connect = Connect::new(transport, SocketAddr::new(listen.parse().unwrap(), *port));
        connect.tls.sni = Some(name.to_owned());
        connect.tls.ca = Some(std::fs::read(&authority).unwrap());
        runtime.block_on(async {
            let phone = Phone::start(Settings::new("101", &password, name, connect)).await.unwrap();
            phone.register(60).await.unwrap().success().unwrap();
            let call = phone.dial("601").unwrap();
            call.answered(Duration::from_secs(10)).await.unwrap();
            call.rtp(25, Duration::from_secs(10)).await.unwrap();
            call.hang_up().await.unwrap().success().unwrap();
            phone.unregister().await.unwrap().success().unwrap();
        });
        while stays.value("registered: ") != "101" {}
        assert_eq!(stays.value("called: ").split(' ').next(), Some(format!("sip:601@{name}").as_str()));
    }
    let stranger = UdpSocket::bind("127.0.7.66:0").unwrap();
    stranger.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let probe = format!("OPTIONS sip:{listen} SIP/2.0\r\nFrom: <sip:{listen}>\r\nTo: <sip:{listen}>\r\n\r\n");
    stranger.send_to(probe.as_bytes(), (listen, ports[1])).unwrap();
    assert!(stranger.recv(&mut [0; 64]).is_err(), "a stranger was answered");
    let arguments: Vec<&str> = status.split(' ').skip(1).collect();
    let table = Command::new(env!("CARGO_BIN_EXE_sipdoor")).args(arguments).output().unwrap();
    assert!(table.status.success() && String::from_utf8_lossy(&table.stdout).contains("uri_host"));
    let mut errors = stays.child.stderr.take().unwrap();
    let (good, rest) = stays.interrupt();
    let mut said = String::new();
    errors.read_to_string(&mut said).unwrap();
    assert!(good && said.is_empty() && rest.contains("Chain tls"), "{said}{rest}");
    assert!(!std::path::Path::new(&authority).exists(), "its files are still there");
}
