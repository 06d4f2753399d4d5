//! A door without sockets: bytes and the flow they came from go in, an outcome and what would be sent come out.

use sipdoor::config::{self, At, Config, Written};
use sipdoor::flow::{Flow, FlowId, Side, Transport};
use sipdoor::proxy::{Now, Outbox, Outcome, Proxy, Shared};
use sipdoor::sip::frame::{Framer, Step};
use std::sync::Arc;

/// The door's name.
pub const NAME: &str = "k7q2.sip.test";
/// The door's address, which the scanners know.
pub const ADDRESS: &str = "198.51.100.1";
/// The time of every play.
pub const NOW: Now = Now(1_700_000_000_000);

/// An outcome, and what was sent.
pub type Play = (Outcome, Vec<(Flow, Vec<u8>)>);

/// A door and its outbox.
pub struct Stage {
    /// The core.
    pub proxy: Proxy,
    /// What the last play sent.
    pub out: Outbox,
    shared: Arc<Shared>,
    config: Config,
}

/// The settings of a door for [`NAME`], with the built-in defaults.
pub fn config() -> Config {
    let names = vec![At::built_in(NAME.to_owned())];
    let written = Written { names: Some(At::built_in(names)), ..Written::default() };
    config::load(None, written, config::Host { ipv6: false, cpus: 1 }).unwrap().config
}

impl Stage {
    /// A door with the built-in defaults.
    pub fn new() -> Self {
        Self::with(config())
    }

    /// A door that lets these methods through as well.
    pub fn with_methods(methods: &[&str]) -> Self {
        let mut config = config();
        config.gate.methods.extend(methods.iter().map(ToString::to_string));
        Self::with(config)
    }

    /// A door with these settings.
    pub fn with(config: Config) -> Self {
        let shared = Arc::new(Shared::new(&config, [9; 16], Vec::new(), Box::new(|_| ())));
        Self { proxy: Proxy::new(shared.clone()), out: Outbox::default(), shared, config }
    }

    /// How many phones are registered.
    pub fn bindings(&self) -> usize {
        self.shared.bindings()
    }

    /// One whole message; what is sent lies in [`Self::out`].
    pub fn receive(&mut self, from: &Flow, bytes: &[u8]) -> Outcome {
        self.out.clear();
        self.proxy.receive(NOW, from, bytes, &mut self.out)
    }

    /// One whole message, and copies of what is sent.
    pub fn play(&mut self, from: &Flow, bytes: &[u8]) -> Play {
        let outcome = self.receive(from, bytes);
        (outcome, self.out.iter().map(|(flow, bytes)| (*flow, bytes.to_vec())).collect())
    }

    /// A message that must pass, and the one message that is sent for it.
    pub fn pass(&mut self, from: &Flow, bytes: &[u8]) -> (Flow, Vec<u8>) {
        let (outcome, mut sent) = self.play(from, bytes);
        assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?} for\n{}", super::shown(bytes));
        assert_eq!(sent.len(), 1, "{}", super::shown(bytes));
        sent.remove(0)
    }

    /// A stream's bytes, framed as the shell frames them; pings are left out.
    pub fn stream(&mut self, from: &Flow, bytes: &[u8]) -> Vec<Play> {
        let mut framer = Framer::new(self.config.limits.sizes);
        let mut rest = bytes;
        let mut played = Vec::new();
        loop {
            match framer.next(rest) {
                Err(reason) => {
                    played.push((Outcome::Refused(reason), Vec::new()));
                    return played;
                }
                Ok(Step::More) => return played,
                Ok(Step::Skip(n) | Step::Ping(n)) => rest = &rest[n..],
                Ok(Step::Message(n)) => {
                    played.push(self.play(from, &rest[..n]));
                    rest = &rest[n..];
                }
            }
        }
    }
}

/// A stranger, or a phone, on the internet.
pub fn outside(transport: Transport) -> Flow {
    let port = if transport == Transport::Tls { 5061 } else { 5060 };
    let id = FlowId(if transport.is_stream() { 77 } else { 0 });
    let at = |ip: &str, port| format!("{ip}:{port}").parse().unwrap();
    Flow { side: Side::Outside, transport, local: at(ADDRESS, port), remote: at("203.0.113.9", 40_000), id }
}

/// Asterisk.
pub fn asterisk() -> Flow {
    Flow {
        side: Side::Inside,
        transport: Transport::Udp,
        local: "127.0.0.1:5070".parse().unwrap(),
        remote: "127.0.0.1:5080".parse().unwrap(),
        id: FlowId(0),
    }
}

/// What Asterisk or a phone answers: Vias, Record-Routes, From, To with a tag, Call-ID and CSeq as received, then
/// `more` (header lines, the empty line, a body).
pub fn answer(request: &[u8], status: &str, more: &str) -> Vec<u8> {
    let head = String::from_utf8(request.to_vec()).unwrap();
    let mut text = format!("SIP/2.0 {status}\r\n");
    for line in head.split("\r\n").take_while(|line| !line.is_empty()) {
        match line.split(':').next().unwrap() {
            "Via" | "Record-Route" | "From" | "Call-ID" | "CSeq" => text += &format!("{line}\r\n"),
            "To" => text += &format!("{line}{}\r\n", if line.contains(";tag=") { "" } else { ";tag=as" }),
            _ => {}
        }
    }
    text += more;
    text.into_bytes()
}

/// The values of the header fields with this (long, exactly written) name.
pub fn lines(message: &[u8], name: &str) -> Vec<String> {
    let start = format!("{name}: ");
    let text = String::from_utf8_lossy(message).into_owned();
    text.split("\r\n")
        .take_while(|line| !line.is_empty())
        .filter_map(|l| l.strip_prefix(&start))
        .map(str::to_owned)
        .collect()
}

/// The first of [`lines`].
pub fn line(message: &[u8], name: &str) -> String {
    lines(message, name).into_iter().next().unwrap_or_else(|| panic!("no {name} in\n{}", super::shown(message)))
}

/// The URI between `<` and `>`.
pub fn uri(address: &str) -> String {
    address.split(['<', '>']).nth(1).unwrap().to_owned()
}
