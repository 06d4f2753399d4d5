//! The corpus over real sockets against the real program: nothing that is refused reaches the backend, nothing comes back.
//!
//! Everything is on loopback addresses of this process's own, so that this needs no root and disturbs nobody.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NAME: &str = "k7q2.sip.test";
const PATIENCE: Duration = Duration::from_secs(20);

/// The torture messages as they are: none of their hosts is ours.
#[test]
fn nothing_with_other_hosts_passes_over_udp() {
    let stage = Stage::start(1);
    let client = UdpSocket::bind((stage.address, 0)).unwrap();
    client.connect((stage.address, 5060)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    for (file, bytes) in corpus() {
        client.send(&bytes).unwrap();
        // The same socket is read by the same worker, in order: when this one has come, the one before it was dropped.
        let control = stage.control(&file, "UDP", client.local_addr().unwrap());
        client.send(control.as_bytes()).unwrap();
        stage.expect_only(&file);
        let mut answer = [0; 4096];
        let length = client.recv(&mut answer).unwrap_or_else(|error| panic!("{file}: {error}"));
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with("SIP/2.0 200") && answer.contains(&call_id(&file)), "after {file} came {answer}");
    }
}

/// The same in streams: each closes its connection or leaves it, without a byte.
#[test]
fn nothing_with_other_hosts_passes_over_tcp() {
    let stage = Stage::start(2);
    let mut open: VecDeque<(String, TcpStream)> = VecDeque::new();
    let finish = |(file, mut stream): (String, TcpStream)| {
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert_eq!(String::from_utf8_lossy(&heard), "", "{file} was answered");
    };
    for (file, bytes) in corpus() {
        let mut stream = TcpStream::connect((stage.address, 5060)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        open.push_back((file, stream));
        // The cap on connections that have not passed the gate is 16 for one address.
        if open.len() == 8 {
            finish(open.pop_front().unwrap());
        }
    }
    open.into_iter().for_each(finish);
    let client = UdpSocket::bind((stage.address, 0)).unwrap();
    let control = stage.control("the last", "UDP", client.local_addr().unwrap());
    client.send_to(control.as_bytes(), (stage.address, 5060)).unwrap();
    stage.expect_only("the last");
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

    /// A request that passes.
    fn control(&self, file: &str, transport: &str, local: SocketAddr) -> String {
        let id = call_id(file);
        format!(
            "OPTIONS sip:{NAME} SIP/2.0\r\nVia: SIP/2.0/{transport} {local};branch=z9hG4bK{id};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:a@{NAME}>;tag=1\r\nTo: <sip:{NAME}>\r\nCall-ID: {id}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        )
    }

    /// The next message at the backend is the control message after `file`; it is answered.
    fn expect_only(&self, file: &str) {
        let mut bytes = [0; 65536];
        let (length, door) = self.backend.recv_from(&mut bytes).unwrap_or_else(|error| {
            panic!("the control message after {file} did not come: {error}\n{}", self.log());
        });
        let message = String::from_utf8_lossy(&bytes[..length]);
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

fn call_id(file: &str) -> String {
    file.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// The messages of the two RFCs, by file name.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut all = Vec::new();
    for directory in ["rfc4475", "rfc5118"] {
        for entry in std::fs::read_dir(root.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "sip") {
                let name = format!("{directory}-{}", path.file_stem().unwrap().to_str().unwrap());
                all.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    all.sort();
    assert!(all.len() > 50, "the corpus is there");
    all
}
