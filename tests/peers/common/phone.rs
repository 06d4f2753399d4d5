//! A phone that a test plays: registers, asks, answers; what is not asked for waits in its queue.

use super::lab::Lab;
use super::link::{Link, Transport, Udp};
use super::netns::Space;
use super::sip::{Sip, authorize};
use super::{NAME, PATIENCE, random};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub struct Phone {
    pub number: String,
    pub password: String,
    pub transport: Transport,
    pub space: Space,
    /// sip, or sips.
    pub scheme: &'static str,
    /// Its own Contact URI.
    pub contact: String,
    /// Its `+sip.instance`, if it has one.
    pub instance: Option<String>,
    pub registration: String,
    pub(super) link: Arc<Link>,
    ca: PathBuf,
    inbox: Receiver<Sip>,
    /// The connection has ended.
    ended: bool,
    queue: VecDeque<Sip>,
    cseq: u32,
    shared: Arc<Background>,
}

/// What the reading thread does by itself.
#[derive(Default)]
struct Background {
    /// OPTIONS answered.
    qualified: AtomicUsize,
    /// Leaves OPTIONS unanswered.
    mute: AtomicBool,
    /// The last answer to each request, for retransmissions (RFC 3261 §17.2).
    answers: Mutex<HashMap<String, Option<Vec<u8>>>>,
}

/// A request to be sent; what is empty gets the usual value.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub method: &'static str,
    pub uri: String,
    pub from: String,
    pub to: String,
    pub call_id: String,
    pub routes: Vec<String>,
    pub headers: Vec<String>,
    pub body: String,
    pub body_type: &'static str,
}

/// A request that is under way.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub ask: Ask,
    pub cseq: u32,
    pub branch: String,
    bytes: Vec<u8>,
}

impl Phone {
    /// A phone of `number` in the open network.
    pub fn new(lab: &Lab, number: &str, transport: Transport) -> Self {
        Self::at(lab, number, transport, &lab.space("phone"))
    }

    /// A phone in a namespace.
    pub fn at(lab: &Lab, number: &str, transport: Transport, space: &Space) -> Self {
        let ca = lab.certs.ca.clone();
        let link = Arc::new(Link::open(space, transport, &ca));
        let shared = Arc::new(Background::default());
        let inbox = listen(&link, &shared);
        let contact = format!("sip:{number}@{}{}", link.local(), transport.parameter());
        Self {
            number: number.to_owned(),
            password: "secret".to_owned(),
            transport,
            space: space.clone(),
            scheme: "sip",
            contact,
            instance: None,
            registration: random(16),
            link,
            ca,
            inbox,
            ended: false,
            queue: VecDeque::new(),
            cseq: 100,
            shared,
        }
    }

    /// Comes back on a new connection (from a new port) after `cut` or the door's end, with the same identity.
    pub fn reconnect(&mut self) {
        self.link.cut();
        self.link = Arc::new(Link::open(&self.space, self.transport, &self.ca));
        self.inbox = listen(&self.link, &self.shared);
        self.ended = false;
        self.contact = format!("sip:{}@{}{}", self.number, self.link.local(), self.transport.parameter());
    }

    /// Loses its connection without a word.
    pub fn cut(&self) {
        self.link.cut();
    }

    /// Waits until the door has closed the connection.
    pub fn wait_closed(&self) {
        let end = Instant::now() + PATIENCE;
        while self.inbox.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(Instant::now() < end, "the connection is still open");
    }

    /// How many of Asterisk's qualify OPTIONS it answered.
    pub fn qualified(&self) -> usize {
        self.shared.qualified.load(Ordering::Relaxed)
    }

    /// From now on leaves OPTIONS unanswered.
    pub fn mute(&self) {
        self.shared.mute.store(true, Ordering::Relaxed);
    }

    pub fn address_of_record(&self) -> String {
        format!("{}:{}@{NAME}", self.scheme, self.number)
    }

    /// Registers and returns the 200, in which the phone must find its own Contact as it sent it.
    pub fn register(&mut self) -> Sip {
        let answer = self.register_for(120);
        assert_eq!(answer.code(), 200, "{answer}");
        let contacts = answer.all("Contact");
        let own = contacts.iter().any(|contact| super::sip::uri_of(contact) == self.contact);
        assert!(own, "{} has its own Contact back: {answer}", self.contact);
        answer
    }

    /// Registers for so many seconds, 0 to leave.
    pub fn register_for(&mut self, seconds: u32) -> Sip {
        let instance = self.instance.as_ref().map(|id| format!(";+sip.instance=\"<{id}>\"")).unwrap_or_default();
        let contact = format!("Contact: <{}>{instance}", self.contact);
        self.register_with(vec![contact, format!("Expires: {seconds}")])
    }

    pub fn register_with(&mut self, headers: Vec<String>) -> Sip {
        let aor = format!("<{}>", self.address_of_record());
        let ask = Ask {
            method: "REGISTER",
            uri: format!("{}:{NAME}", self.scheme),
            from: format!("{aor};tag={}", random(8)),
            to: aor,
            call_id: self.registration.clone(),
            headers,
            ..Ask::default()
        };
        self.ask(ask)
    }

    /// A request outside any dialog to a number.
    pub fn to_number(&self, method: &'static str, number: &str) -> Ask {
        Ask {
            method,
            uri: format!("{}:{number}@{NAME}", self.scheme),
            from: format!("<{}>;tag={}", self.address_of_record(), random(8)),
            to: format!("<{}:{number}@{NAME}>", self.scheme),
            call_id: random(16),
            ..Ask::default()
        }
    }

    /// Sends a request and returns its final answer; a challenge is answered once.
    pub fn ask(&mut self, ask: Ask) -> Sip {
        let transaction = self.start(ask);
        let answer = self.finish(&transaction);
        if answer.code() != 401 {
            return answer;
        }
        let again = self.start_authorized(transaction.ask, &answer);
        self.finish(&again)
    }

    /// Sends a request.
    pub fn start(&mut self, ask: Ask) -> Transaction {
        self.cseq += 1;
        let branch = format!("z9hG4bK{}", random(16));
        let bytes = self.request(&ask, self.cseq, &branch).bytes();
        self.link.send(&bytes).unwrap();
        Transaction { ask, cseq: self.cseq, branch, bytes }
    }

    /// Sends the request again, with an answer to the challenge.
    pub fn start_authorized(&mut self, mut ask: Ask, challenge: &Sip) -> Transaction {
        let value = challenge.get("WWW-Authenticate");
        let answer = authorize(value, &self.number, &self.password, ask.method, &ask.uri);
        ask.headers.push(format!("Authorization: {answer}"));
        self.start(ask)
    }

    /// Waits for the final answer.
    pub fn finish(&mut self, transaction: &Transaction) -> Sip {
        self.answer_to(transaction, |answer| answer.code() >= 200)
    }

    /// Waits for an answer, retransmitting over UDP until there is one (RFC 3261 §17.1).
    pub fn answer_to(&mut self, transaction: &Transaction, wanted: impl Fn(&Sip) -> bool) -> Sip {
        self.answer_within(transaction, PATIENCE, wanted).unwrap_or_else(|| {
            let (cseq, method) = (transaction.cseq, transaction.ask.method);
            panic!("{} waited for an answer to {cseq} {method}; it has {:#?}", self.number, self.queue)
        })
    }

    /// The same, but gives up without a panic when there is none in time or the connection ends.
    pub fn answer_within(
        &mut self,
        transaction: &Transaction,
        patience: Duration,
        wanted: impl Fn(&Sip) -> bool,
    ) -> Option<Sip> {
        let ours = |message: &Sip| {
            !message.is_request()
                && message.get("Call-ID") == transaction.ask.call_id
                && message.cseq() == (transaction.cseq, transaction.ask.method)
        };
        let (start, mut pause) = (Instant::now(), Duration::from_millis(500));
        loop {
            if let Some(answer) = self.look(|message| ours(message) && wanted(message), pause.min(patience)) {
                return Some(answer);
            }
            if self.ended || start.elapsed() > patience {
                return None;
            }
            if self.transport == Udp && !self.queue.iter().any(ours) {
                let _ = self.link.send(&transaction.bytes);
                pause = (pause * 2).min(Duration::from_secs(4));
            }
        }
    }

    /// Waits for a request with this method.
    pub fn expect(&mut self, method: &str) -> Sip {
        self.look(|message| message.is_request() && message.method() == method, PATIENCE)
            .unwrap_or_else(|| panic!("{} waited for {method}; it has {:#?}", self.number, self.queue))
    }

    /// Waits for a message, at most so long or until the connection ends; others stay in the queue.
    pub fn look(&mut self, wanted: impl Fn(&Sip) -> bool, patience: Duration) -> Option<Sip> {
        let end = Instant::now() + patience;
        loop {
            if let Some(place) = self.queue.iter().position(&wanted) {
                return self.queue.remove(place);
            }
            match self.inbox.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(message) => self.queue.push_back(message),
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{}'s connection has ended: {:#?}", self.number, self.queue)
                }
            }
        }
    }

    /// Answers a request.
    pub fn reply(&self, request: &Sip, status: &str, tag: &str, headers: &[String], body: &str) {
        let bytes = reply(request, status, tag, headers, body).bytes();
        self.shared.answers.lock().unwrap().insert(key(request), Some(bytes.clone()));
        self.link.send(&bytes).unwrap();
    }

    /// Sends something that is no transaction of its own: an ACK, a CANCEL.
    pub fn send_within(&self, transaction: &Transaction, method: &'static str, to: &str) -> Transaction {
        let ask = Ask { method, to: to.to_owned(), headers: vec![], body: String::new(), ..transaction.ask.clone() };
        let (cseq, branch) = (transaction.cseq, transaction.branch.clone());
        let bytes = self.request(&ask, cseq, &branch).bytes();
        self.link.send(&bytes).unwrap();
        Transaction { ask, cseq, branch, bytes }
    }

    pub(super) fn request(&self, ask: &Ask, cseq: u32, branch: &str) -> Sip {
        let mut headers: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, value: String| headers.push((name.to_owned(), value));
        add("Via", format!("SIP/2.0/{} {};branch={branch};rport", self.transport.name(), self.link.local()));
        add("Max-Forwards", "70".to_owned());
        for route in &ask.routes {
            add("Route", route.clone());
        }
        add("From", ask.from.clone());
        add("To", ask.to.clone());
        add("Call-ID", ask.call_id.clone());
        add("CSeq", format!("{cseq} {}", ask.method));
        if ask.method == "INVITE" {
            add("Contact", format!("<{}>", self.contact));
        }
        for header in &ask.headers {
            let (name, value) = header.split_once(": ").unwrap();
            add(name, value.to_owned());
        }
        if !ask.body.is_empty() {
            add("Content-Type", ask.body_type.to_owned());
        }
        Sip { start: format!("{} {} SIP/2.0", ask.method, ask.uri), headers, body: ask.body.clone().into_bytes() }
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.link.cut();
    }
}

/// The answer to a request: its Vias, Record-Routes, From, To, Call-ID and CSeq (RFC 3261 §8.2.6).
fn reply(request: &Sip, status: &str, tag: &str, headers: &[String], body: &str) -> Sip {
    let kept = ["via", "record-route", "from", "to", "call-id", "cseq"];
    let copied = request.headers.iter().filter(|(name, _)| kept.contains(&name.to_ascii_lowercase().as_str()));
    let mut all: Vec<(String, String)> = copied.cloned().collect();
    for (name, value) in &mut all {
        if name.eq_ignore_ascii_case("To") && !value.contains(";tag=") {
            *value += &format!(";tag={tag}");
        }
    }
    all.extend(headers.iter().map(|header| {
        let (name, value) = header.split_once(": ").unwrap();
        (name.to_owned(), value.to_owned())
    }));
    Sip { start: format!("SIP/2.0 {status}"), headers: all, body: body.as_bytes().to_vec() }
}

/// What makes a retransmission the same request.
fn key(request: &Sip) -> String {
    format!("{} {}", request.method(), request.all("Via").first().map_or("", String::as_str))
}

/// Starts the thread that reads the link: it answers OPTIONS and retransmissions and hands on everything else.
fn listen(link: &Arc<Link>, shared: &Arc<Background>) -> Receiver<Sip> {
    let (sender, inbox) = channel();
    let (link, shared) = (Arc::clone(link), Arc::clone(shared));
    std::thread::spawn(move || {
        link.read(|bytes| {
            let message = Sip::parse(&bytes);
            if message.is_request() && message.method() != "ACK" {
                let mut answers = shared.answers.lock().unwrap();
                if let Some(answer) = answers.get(&key(&message)) {
                    if let Some(bytes) = answer {
                        let _ = link.send(bytes);
                    }
                    return;
                }
                let options = message.method() == "OPTIONS" || message.method() == "NOTIFY";
                if options && shared.mute.load(Ordering::Relaxed) {
                    return;
                }
                let bytes = options.then(|| reply(&message, "200 OK", "auto", &[], "").bytes());
                answers.insert(key(&message), bytes.clone());
                if let Some(bytes) = bytes {
                    if link.send(&bytes).is_ok() {
                        shared.qualified.fetch_add(1, Ordering::Relaxed);
                    }
                    return;
                }
            }
            let _ = sender.send(message);
        });
    });
    inbox
}
