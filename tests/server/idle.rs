//! Two thousand idle TLS phones on the real program: what one costs, and that nothing is left when they are gone.

use crate::stage::{NAME, PATIENCE, Scratch, client, read_head, request, response, until_closed, wait};
use rustls::{ClientConnection, StreamOwned};
use sipdoor::flow::Transport;
use socket2::{Domain, Socket, Type};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command};

const PHONES: usize = 2000;
const FIRST: usize = 100;
/// Resident memory of the door for one of them; the mark for the release build is lower, and measured elsewhere.
const MOST: usize = 25_000;

#[test]
fn two_thousand_idle_phones_are_cheap_and_leave_nothing() {
    sipdoor::net::raise_descriptors().unwrap();
    let door = Program::start(None);
    // What the first ones cost is the program's own: tables, allocator, pages of code. What they leave is free for
    // those that follow, so that many are not counted.
    drop(door.phones(FIRST));
    door.wait_for_no_connection();
    let (memory, descriptors) = (door.memory(), door.descriptors());
    let phones = door.phones(PHONES);
    assert_eq!(door.descriptors(), descriptors + PHONES);
    let each = (door.memory() - memory) / (PHONES - FIRST);
    eprintln!("an idle TLS phone costs {each} bytes");
    assert!(each < MOST, "{each} bytes for an idle phone");
    drop(phones);
    door.wait_for_no_connection();
    assert_eq!(door.descriptors(), descriptors);
    // The same again fits into what is there: nothing has been lost.
    let before = door.memory();
    drop(door.phones(PHONES));
    door.wait_for_no_connection();
    let grown = door.memory().saturating_sub(before) / PHONES;
    assert!(grown < 1000, "{grown} bytes for each phone are not given back");
}

/// Below the cap of the settings there is that of the system: what is over it is refused, and nothing breaks.
#[test]
fn with_few_descriptors_there_are_few_connections() {
    let door = Program::start(Some(200));
    for _ in 0..2 {
        let phones = door.phones(72);
        let mut refused = door.socket(0);
        assert_eq!(until_closed(&mut refused), b"");
        drop(phones);
        door.wait_for_no_connection();
    }
}

type Phone = StreamOwned<ClientConnection, TcpStream>;

/// The real program, on loopback addresses of this process's own.
struct Program {
    child: Child,
    at: SocketAddr,
    backend: UdpSocket,
    authority: String,
    _scratch: Scratch,
}

impl Program {
    /// With this limit of descriptors.
    fn start(descriptors: Option<u16>) -> Self {
        let scratch = Scratch::new();
        let made = sipdoor::certs::make(&[NAME.to_owned()]).unwrap();
        let path = |name: &str| scratch.0.join(name);
        std::fs::write(path("cert"), &made.cert).unwrap();
        std::fs::write(path("key"), &made.key).unwrap();
        let pid = std::process::id();
        let net = if descriptors.is_some() { 97 } else { 99 };
        let address = Ipv4Addr::new(127, net, (pid >> 8) as u8, (pid as u8).max(2));
        let backend = UdpSocket::bind((address, 5080)).unwrap();
        backend.set_read_timeout(Some(PATIENCE)).unwrap();
        let limit = descriptors.map_or(String::new(), |most| format!("ulimit -n {most};"));
        let child = Command::new("sh")
            .args(["-c", &format!("{limit} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_sipdoor")])
            .args(["run", "--name", NAME, "--listen-tls", &format!("{address}:5061")])
            .args(["--backend", &format!("{address}:5080"), "--inside", &format!("{address}:5070")])
            .args([Path::new("--cert"), &path("cert"), Path::new("--key"), &path("key")])
            .args([Path::new("--state"), &path("state")])
            .spawn()
            .unwrap();
        let door = Self { child, at: (address, 5061).into(), backend, authority: made.authority, _scratch: scratch };
        wait("the door", || TcpStream::connect(door.at).is_ok());
        door.wait_for_no_connection();
        door
    }

    /// Phones that have sent a request, got its answer, and are idle now.
    fn phones(&self, count: usize) -> Vec<Phone> {
        (0..count).map(|number| self.phone(number)).collect()
    }

    fn socket(&self, number: usize) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // One source may have 512 connections.
        let from = Ipv4Addr::new(127, 98, 0, u8::try_from(number / 400 + 1).unwrap());
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&self.at.into()).unwrap();
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn phone(&self, number: usize) -> Phone {
        let mut phone = StreamOwned::new(client(&self.authority, NAME), self.socket(number));
        phone.write_all(request("OPTIONS", Transport::Tls, &format!("idle{number}"), "").as_bytes()).unwrap();
        let mut buffer = [0; 4096];
        let (length, inside) = self.backend.recv_from(&mut buffer).unwrap();
        let answer = response(std::str::from_utf8(&buffer[..length]).unwrap(), "200 OK", "");
        self.backend.send_to(answer.as_bytes(), inside).unwrap();
        assert!(read_head(&mut phone).starts_with("SIP/2.0 200"));
        phone
    }

    /// Resident bytes.
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    fn wait_for_no_connection(&self) {
        let port = format!(":{:04X}", self.at.port());
        let ip = format!(
            "{:08X}",
            u32::from_ne_bytes(match self.at.ip() {
                std::net::IpAddr::V4(ip) => ip.octets(),
                std::net::IpAddr::V6(_) => unreachable!(),
            })
        );
        let mine = format!("{ip}{port}");
        let established = "01";
        wait("no connection", || {
            let all = std::fs::read_to_string("/proc/net/tcp").unwrap();
            !all.lines().any(|line| {
                let mut words = line.split_whitespace().skip(1);
                words.next() == Some(&mine) && words.nth(1).is_some_and(|state| state == established || state == "08")
            })
        });
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
