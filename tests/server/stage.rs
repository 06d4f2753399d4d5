//! A door in this process with ports of its own, a socket in Asterisk's place, and clients.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use sipdoor::config::{CertificateFiles, Config, Gate, Limits, Listener};
use sipdoor::flow::Transport;
use sipdoor::gate::{Pass, Reason};
use sipdoor::net::{Door, Server};
use sipdoor::observe::Row;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) const NAME: &str = "k7q2.sip.test";
/// Long enough for a busy machine; nothing waits this long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of its own, gone at the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sipdoor-server-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A door with its surroundings.
pub(crate) struct Stage {
    // First, so that it is closed before its directory is gone.
    pub(crate) server: Option<Server>,
    pub(crate) door: Arc<Door>,
    pub(crate) backend: Option<UdpSocket>,
    pub(crate) config: Config,
    pub(crate) authority: String,
    pub(crate) scratch: Scratch,
}

impl Stage {
    /// With the usual limits.
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// With settings changed by `change`.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let scratch = Scratch::new();
        let made = sipdoor::certs::make(&[NAME.to_owned()]).unwrap();
        let (cert, key) = (scratch.0.join("cert.pem"), scratch.0.join("key.pem"));
        std::fs::write(&cert, &made.cert).unwrap();
        std::fs::write(&key, &made.key).unwrap();
        let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
        backend.set_read_timeout(Some(PATIENCE)).unwrap();
        let listener = |transport| Listener { transport, address: "127.0.0.1:0".parse().unwrap(), advertise: None };
        let mut config = Config {
            names: vec![NAME.into()],
            listeners: Transport::ALL.map(listener).to_vec(),
            backend: backend.local_addr().unwrap(),
            inside: "127.0.0.1:0".parse().unwrap(),
            certificates: vec![CertificateFiles { cert, key }],
            state: scratch.0.join("state"),
            admin: scratch.0.join("admin.sock"),
            workers: 2,
            gate: Gate::default(),
            limits: Limits::default(),
        };
        change(&mut config);
        let server = Server::start(config.clone()).unwrap();
        let door = server.door();
        Self { server: Some(server), door, backend: Some(backend), config, authority: made.authority, scratch }
    }

    /// Where the door listens.
    pub(crate) fn at(&self, transport: Transport) -> SocketAddr {
        self.door.listeners().iter().find(|listener| listener.transport == transport).unwrap().address
    }

    pub(crate) fn backend(&self) -> &UdpSocket {
        self.backend.as_ref().unwrap()
    }

    /// The next message that reaches Asterisk's place.
    pub(crate) fn forwarded(&self) -> String {
        let mut buffer = vec![0; 1 << 16];
        let (length, from) = self.backend().recv_from(&mut buffer).unwrap();
        assert_eq!(from, self.door.inside());
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Sends from Asterisk's place.
    pub(crate) fn asterisk_says(&self, message: &str) {
        self.backend().send_to(message.as_bytes(), self.door.inside()).unwrap();
    }

    /// Answers the next request as Asterisk would, and returns it.
    pub(crate) fn answer(&self, code: &str) -> String {
        let request = self.forwarded();
        self.asterisk_says(&response(&request, code, ""));
        request
    }

    pub(crate) fn refused(&self, transport: Transport, reason: Reason) -> u64 {
        self.door.counters().get(transport, Row::Refuse(reason)).packets
    }

    pub(crate) fn passed(&self, transport: Transport, pass: Pass) -> u64 {
        self.door.counters().get(transport, Row::Pass(pass)).packets
    }

    /// Waits for a counter; counting comes after closing.
    pub(crate) fn wait_refused(&self, transport: Transport, reason: Reason, packets: u64) {
        wait(&format!("{packets} {} {}", transport.name(), reason.name()), || {
            let now = self.refused(transport, reason);
            assert!(now <= packets, "{now} {} instead of {packets}", reason.name());
            now == packets
        });
    }

    pub(crate) fn wait_passed(&self, transport: Transport, pass: Pass, packets: u64) {
        wait(&format!("{packets} {} {}", transport.name(), pass.name()), || {
            let now = self.passed(transport, pass);
            assert!(now <= packets, "{now} {} instead of {packets}", pass.name());
            now == packets
        });
    }

    pub(crate) fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.at(Transport::Udp)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub(crate) fn tcp(&self) -> TcpStream {
        connect(self.at(Transport::Tcp))
    }

    pub(crate) fn tls(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let stream = connect(self.at(Transport::Tls));
        StreamOwned::new(self.hello(NAME), stream)
    }

    /// A TLS client that trusts the door's authority.
    pub(crate) fn hello(&self, name: &str) -> ClientConnection {
        client(&self.authority, name)
    }
}

/// A TLS client that trusts this authority.
pub(crate) fn client(authority: &str, name: &str) -> ClientConnection {
    let config = client_config(authority, rustls::ALL_VERSIONS);
    ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap()
}

pub(crate) fn client_config(authority: &str, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Polls something that has no event to wait for.
pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Everything until the peer closes, quietly or by a reset.
pub(crate) fn until_closed(stream: &mut impl Read) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return all,
            Ok(length) => all.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => {
                return all;
            }
            Err(error) => panic!("not closed: {error}, after {:?}", String::from_utf8_lossy(&all)),
        }
    }
}

/// One message without a body.
pub(crate) fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap_or_else(|error| {
            panic!("no whole answer: {error}, after {:?}", String::from_utf8_lossy(&head));
        });
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

pub(crate) fn read_datagram(socket: &UdpSocket) -> String {
    let mut buffer = vec![0; 1 << 16];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// A request that passes the gate.
pub(crate) fn request(method: &str, transport: Transport, call: &str, more: &str) -> String {
    let via = transport.via();
    format!(
        "{method} sip:100@{NAME} SIP/2.0\r\nVia: SIP/2.0/{via} 192.0.2.9:5060;branch=z9hG4bK{call};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:101@{NAME}>;tag=f{call}\r\nTo: <sip:100@{NAME}>\r\nCall-ID: {call}\r\n\
         CSeq: 1 {method}\r\n{more}Content-Length: 0\r\n\r\n"
    )
}

/// A scanner's.
pub(crate) fn scan() -> String {
    request("OPTIONS", Transport::Tcp, "scan", "").replace(NAME, "192.0.2.1")
}

/// Asterisk's response to a request.
pub(crate) fn response(request: &str, code: &str, more: &str) -> String {
    let copied = ["Via:", "From:", "To:", "Call-ID:", "CSeq:", "Record-Route:"];
    let lines = request.split("\r\n").filter(|line| copied.iter().any(|name| line.starts_with(name)));
    let head: String = lines.map(|line| format!("{line}\r\n")).collect();
    format!("SIP/2.0 {code}\r\n{head}{more}Content-Length: 0\r\n\r\n")
}

/// The value of a header field.
pub(crate) fn field<'m>(message: &'m str, name: &str) -> &'m str {
    let found = message.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {name} in {message}"))
}

/// Registers over a stream or a socket, and returns the Contact that Asterisk knows.
pub(crate) fn register(stage: &Stage, transport: Transport, send: impl FnOnce(&[u8])) -> String {
    let contact = format!("Contact: <sip:101@192.0.2.9:5060;transport={}>\r\nExpires: 600\r\n", transport.name());
    let text = request("REGISTER", transport, "reg", &contact).replace("To: <sip:100@", "To: <sip:101@");
    let text = text.replace(&format!("REGISTER sip:100@{NAME}"), &format!("REGISTER sip:{NAME}"));
    send(text.as_bytes());
    let forwarded = stage.forwarded();
    let contact = field(&forwarded, "Contact").to_owned();
    stage.asterisk_says(&response(&forwarded, "200 OK", &format!("Contact: {contact};expires=600\r\n")));
    contact.trim_matches(['<', '>']).to_owned()
}

/// Writes a request, has it answered by Asterisk, and reads the answer.
pub(crate) fn exchange(stage: &Stage, transport: Transport, stream: &mut (impl Read + Write)) {
    stream.write_all(request("OPTIONS", transport, "exchange", "").as_bytes()).unwrap();
    stage.answer("200 OK");
    assert!(read_head(stream).starts_with("SIP/2.0 200 OK\r\n"));
}
