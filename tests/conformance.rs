//! The corpus over real sockets against the real program: what is refused reaches nobody and is not answered.
//!
//! Everything is on loopback addresses of this process's own, so that this needs no root and disturbs nobody.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod kit;

use kit::evasion::{self, Case};
use kit::stage::{ADDRESS, NAME};
use kit::{corpus, shown};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_is_refused_over_udp_reaches_nobody_and_is_not_answered() {
    let stage = Stage::start(1);
    let client = UdpSocket::bind((stage.address, 0)).unwrap();
    client.connect((stage.address, 5060)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    for (file, bytes) in strange().into_iter().chain(refused("udp")) {
        client.send(&bytes).unwrap();
        // The same socket is read by the same worker, in order: when this one has come, the one before it was dropped.
        let control = control(&file, client.local_addr().unwrap());
        client.send(control.as_bytes()).unwrap();
        stage.expect_control(&file);
        let mut answer = [0; 4096];
        let length = client.recv(&mut answer).unwrap_or_else(|error| panic!("{file}: {error}"));
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with("SIP/2.0 200") && answer.contains(&call_id(&file)), "after {file} came {answer}");
    }
}

#[test]
fn what_is_refused_over_tcp_reaches_nobody_and_is_not_answered() {
    let stage = Stage::start(2);
    let mut open: VecDeque<(String, TcpStream)> = VecDeque::new();
    let finish = |(file, mut stream): (String, TcpStream)| {
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert_eq!(String::from_utf8_lossy(&heard), "", "{file} was answered");
    };
    for (file, bytes) in strange().into_iter().chain(refused("tcp")) {
        let mut stream = TcpStream::connect((stage.address, 5060)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(&bytes); // the door may close before it has read all
        let _ = stream.shutdown(std::net::Shutdown::Write);
        open.push_back((file, stream));
        // The cap on connections that have not passed the gate is 16 for one address.
        if open.len() == 8 {
            finish(open.pop_front().unwrap());
        }
    }
    open.into_iter().for_each(finish);
    let client = UdpSocket::bind((stage.address, 0)).unwrap();
    client.send_to(control("the last", client.local_addr().unwrap()).as_bytes(), (stage.address, 5060)).unwrap();
    stage.expect_control("the last");
}

#[test]
fn what_passes_over_udp_reaches_the_backend_as_it_was_checked() {
    let stage = Stage::start(3);
    let client = UdpSocket::bind((stage.address, 40_000)).unwrap(); // the phone's port, in the cases
    for (file, case) in evasion::cases() {
        if case.transport == "udp" && case.expect == ["pass"] {
            // Here the door has another address than in the cases.
            let message = replaced(&case.message(), ADDRESS, &stage.address.to_string());
            client.send_to(&message, (stage.address, 5060)).unwrap();
            let (forwarded, _) = stage.next(&case.id);
            // The cases speak of the built-in settings' address of the door's inside, and of a phone's address.
            let forwarded = replaced(&forwarded, &format!("{}:5070", stage.address), "127.0.0.1:5070");
            let forwarded = replaced(&forwarded, &format!("received={}", stage.address), "received=203.0.113.9");
            case.check(&forwarded).unwrap_or_else(|what| panic!("{file}/{}: {what}: {}", case.id, shown(&forwarded)));
        }
    }
}

struct Stage {
    address: IpAddr,
    backend: UdpSocket,
    door: Child,
    work: PathBuf,
}

impl Stage {
    fn start(number: u8) -> Self {
        let pid = std::process::id();
        let address = Ipv4Addr::new(127, 100 + number, (pid >> 8) as u8, (pid as u8).max(2));
        let work = std::env::temp_dir().join(format!("sipdoor-conformance-{pid}-{number}"));
        std::fs::create_dir_all(&work).unwrap();
        let backend = UdpSocket::bind((address, 5080)).unwrap();
        backend.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = std::fs::File::create(work.join("log")).unwrap();
        let at = |port: u16| SocketAddr::new(address.into(), port).to_string();
        let path = |name: &str| work.join(name).to_str().unwrap().to_owned();
        let program = std::env::var("SIPDOOR_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sipdoor").to_owned());
        let door = Command::new(program)
            .args(["run", "--name", NAME, "--backend", &at(5080), "--inside", &at(5070)])
            .args(["--listen-udp", &at(5060), "--listen-tcp", &at(5060)])
            .args(["--state", &path("state"), "--admin", &path("admin.sock")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut stage = Self { address: address.into(), backend, door, work };
        let start = Instant::now();
        while TcpStream::connect((stage.address, 5060)).is_err() {
            let ended = stage.door.try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "the door does not open: {}", stage.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        stage
    }

    /// The next message at the backend.
    fn next(&self, after: &str) -> (Vec<u8>, SocketAddr) {
        let mut bytes = [0; 65536];
        let (length, door) = self.backend.recv_from(&mut bytes).unwrap_or_else(|error| {
            panic!("nothing came to the backend after {after}: {error}\n{}", self.log());
        });
        (bytes[..length].to_vec(), door)
    }

    /// The next message at the backend is the control message after `file`; it is answered.
    fn expect_control(&self, file: &str) {
        let (message, door) = self.next(file);
        let message = String::from_utf8_lossy(&message);
        assert!(message.contains(&format!("Call-ID: {}\r\n", call_id(file))), "{file} reached the backend:\n{message}");
        let kept = ["via", "from", "to", "call-id", "cseq"];
        let lines = message.lines().filter(|line| {
            line.split_once(':').is_some_and(|(name, _)| kept.contains(&name.to_ascii_lowercase().as_str()))
        });
        let head: String = lines.map(|line| format!("{line}\r\n")).collect();
        let answer = format!("SIP/2.0 200 OK\r\n{head}Content-Length: 0\r\n\r\n");
        self.backend.send_to(answer.as_bytes(), door).unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.work.join("log")).unwrap_or_default()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.door.kill();
        let _ = self.door.wait();
        let _ = std::fs::remove_dir_all(&self.work);
    }
}

/// A request that passes.
fn control(file: &str, local: SocketAddr) -> String {
    let id = call_id(file);
    format!(
        "OPTIONS sip:{NAME} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{id};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:a@{NAME}>;tag=1\r\nTo: <sip:{NAME}>\r\nCall-ID: {id}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    )
}

fn call_id(file: &str) -> String {
    file.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// The torture messages as they are, none of whose hosts is ours, and what scanners send.
fn strange() -> Vec<(String, Vec<u8>)> {
    let directories = ["rfc4475", "rfc5118", "probes"];
    let entries = directories.iter().flat_map(|directory| {
        corpus::read(directory).into_iter().map(move |entry| (format!("{directory}-{}", entry.name), entry.bytes))
    });
    entries.collect()
}

/// What must be refused in silence, of the cases of one transport.
fn refused(transport: &str) -> Vec<(String, Vec<u8>)> {
    let silent = |case: &Case| case.answer.as_deref().unwrap_or_default().is_empty();
    let none = |names: &[String]| !names.iter().any(|name| name == "pass");
    let cases = evasion::cases().into_iter().map(|(_, case)| case);
    cases
        .filter(|case| case.transport == transport && none(&case.expect) && none(&case.then) && silent(case))
        .map(|case| (case.id.clone(), case.message()))
        .filter(|(_, bytes)| transport == "tcp" || bytes.len() <= 65_507) // what a datagram holds
        .collect()
}

fn replaced(bytes: &[u8], what: &str, with: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        if let Some(after) = rest.strip_prefix(what.as_bytes()) {
            out.extend(with.as_bytes());
            rest = after;
        } else {
            out.push(*first);
            rest = &rest[1..];
        }
    }
    out
}
