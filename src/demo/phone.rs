//! A phone: registers, calls, is called. For the demo and for tests.
//!
//! ```no_run
//! # use sipdoor::demo::{Error, agent::Settings, phone::Phone, wire::Connect};
//! # use sipdoor::flow::Transport;
//! # use std::time::Duration;
//! # async fn example() -> Result<(), Error> {
//! let second = Duration::from_secs(1);
//! let mut connect = Connect::new(Transport::Tls, ([198, 51, 100, 1], 5061).into());
//! connect.tls.sni = Some("k7q2.sip.test".to_owned());
//! let phone = Phone::start(Settings::new("101", "secret", "k7q2.sip.test", connect)).await?;
//! phone.register(3600).await?.success()?; // with the digest, if it is asked for
//! let call = phone.dial("600")?; // the INVITE is on its way, driven by a task
//! call.answered(5 * second).await?; // 200 came, the ACK is out, audio flows
//! call.rtp(25, 5 * second).await?; // 25 more packets came
//! call.hold().await?.success()?; // re-INVITE, a=sendonly
//! call.hang_up().await?.success()?;
//! let call = phone.incoming(60 * second).await?; // answered already, see `Phone::set_answer`
//! call.ended(60 * second).await?; // they hung up
//! # Ok(()) }
//! ```
//!
//! Nothing is lost between two calls of these methods: what happens is queued ([`Event`]) and taken out by whoever waits
//! for it. Everything the phone sends goes to `Settings::connect.server` over the one link, with the Route set as the
//! dialog has it; domains are never looked up.

use super::agent::{Agent, Answer, Judgement, Record, Service, Settings};
use super::call::Call;
use super::events::Event;
use super::message::{Message, token};
use super::rtp::{Media, Session};
use super::{Error, lock};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A phone. Clones are the same phone; it is gone when the last one, and its last [`Call`], is dropped.
#[derive(Clone)]
pub struct Phone {
    agent: Arc<Agent>,
    desk: Arc<Desk>,
}

/// How a phone treats calls.
struct Desk {
    answer: Mutex<Answer>,
}

impl Service for Arc<Desk> {
    fn judge(&self, _request: &Message) -> Judgement {
        Judgement::Take(*lock(&self.answer), Media::Phone)
    }
}

/// What a REGISTER asks for (RFC 3261 §10.2).
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// The Expires header field.
    pub expires: Option<u32>,
    /// Contact values, whole, as they are to be sent; none: a query.
    pub contacts: Vec<String>,
}

impl Phone {
    /// Connects. The rest is on request, but answering.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let desk = Arc::new(Desk { answer: Mutex::new(Answer::Auto) });
        let agent = Agent::connect(settings, Box::new(Arc::clone(&desk))).await?;
        Ok(Self { agent, desk })
    }

    /// What the next calls meet; [`Answer::Auto`] at first.
    pub fn set_answer(&self, answer: Answer) {
        *lock(&self.desk.answer) = answer;
    }

    /// Registers this phone's own Contact for so many seconds; the final response.
    pub async fn register(&self, expires: u32) -> Result<Message, Error> {
        self.register_with(Registration { expires: Some(expires), contacts: vec![self.contact()] }).await
    }

    /// Takes this phone's own Contact back.
    pub async fn unregister(&self) -> Result<Message, Error> {
        self.register(0).await
    }

    /// `Contact: *`: takes all Contacts of this user back (RFC 3261 §10.2.2).
    pub async fn unregister_all(&self) -> Result<Message, Error> {
        self.register_with(Registration { expires: Some(0), contacts: vec!["*".to_owned()] }).await
    }

    /// A REGISTER without Contact: the 200 lists what is registered.
    pub async fn query(&self) -> Result<Message, Error> {
        self.register_with(Registration::default()).await
    }

    /// A REGISTER as you like it, in the one registration of this phone (same Call-ID, CSeq counting).
    pub async fn register_with(&self, wanted: Registration) -> Result<Message, Error> {
        let agent = &self.agent;
        let (call_id, cseq) = lock(&agent.state).registration.clone().unwrap_or_else(|| (token(), 0));
        let mut request = agent.fresh("REGISTER", &agent.uri(&agent.settings.user), "");
        if let super::message::Start::Request { uri, .. } = &mut request.start {
            // The registrar has no user part (RFC 3261 §10.2).
            *uri = agent.registrar();
        }
        request.set("Call-ID", &call_id).set("CSeq", &format!("{} REGISTER", cseq + 1)).remove("Contact");
        for contact in &wanted.contacts {
            request.add("Contact", contact);
        }
        if let Some(expires) = wanted.expires {
            request.add("Expires", &expires.to_string());
        }
        lock(&agent.state).registration = Some((call_id.clone(), cseq + 1));
        let done = agent.exchange(request, &mut |_| {}).await?;
        lock(&agent.state).registration = Some((call_id, done.request.cseq()));
        Ok(done.response)
    }

    /// This phone's Contact value as REGISTER has it; it names the link's present address.
    pub fn contact(&self) -> String {
        let contact = self.agent.contact();
        match &self.agent.settings.instance {
            Some(instance) => format!("{contact};+sip.instance=\"<{instance}>\";reg-id=1"),
            None => contact,
        }
    }

    /// Calls a user of the domain, or a URI; the call is driven by a task from here on.
    pub fn dial(&self, target: &str) -> Result<Call, Error> {
        self.agent.dial(&self.agent.target(target), Media::Phone)
    }

    /// The next call that came in, whether answered yet or not.
    pub async fn incoming(&self, limit: Duration) -> Result<Call, Error> {
        self.agent.incoming(limit).await
    }

    /// Sends a text (RFC 3428); the final response.
    pub async fn message(&self, target: &str, text: &str) -> Result<Message, Error> {
        self.request("MESSAGE", target, &[], Some(("text/plain", text))).await
    }

    /// Sends any request outside a dialog; the final response.
    pub async fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<(&str, &str)>,
    ) -> Result<Message, Error> {
        let target = self.agent.target(target);
        let mut request = self.agent.fresh(method, &target, &target);
        for (name, value) in headers {
            request.add(name, value);
        }
        if let Some((kind, text)) = body {
            request.set_body(kind, text);
        }
        Ok(self.agent.exchange(request, &mut |_| {}).await?.response)
    }

    /// The next request of this method that came in and was answered 200 (MESSAGE, NOTIFY, OPTIONS, INFO).
    pub async fn arrival(&self, method: &str, limit: Duration) -> Result<Message, Error> {
        self.agent.arrival(method, limit).await
    }

    /// The first event that `pick` wants, now or later; it is taken out of the queue, all others stay.
    pub async fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        pick: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, Error> {
        self.agent.events.wait(what, limit, pick).await
    }

    /// Sends CRLFCRLF and waits for the CRLF (RFC 5626 §4.4.1).
    pub async fn ping(&self, limit: Duration) -> Result<(), Error> {
        self.agent.link().ping();
        self.wait("a pong", limit, |event| matches!(event, Event::Pong).then_some(())).await
    }

    /// A new connection (UDP: a new port) in place of the old one, which is closed; calls and registration go on.
    pub async fn reconnect(&self) -> Result<(), Error> {
        self.agent.reconnect().await
    }

    /// The link's own address.
    pub fn local(&self) -> SocketAddr {
        self.agent.link().local
    }

    /// The last thousand messages, sent and received.
    pub fn transcript(&self) -> Vec<Record> {
        lock(&self.agent.state).transcript.iter().cloned().collect()
    }
}

impl Message {
    /// This response, if it is a 2xx.
    pub fn success(self) -> Result<Self, Error> {
        if (200..300).contains(&self.status()) { Ok(self) } else { Err(Error::Refused(Box::new(self))) }
    }
}

impl Agent {
    /// A request outside a dialog, without Via; To defaults to the Request-URI.
    pub(super) fn fresh(&self, method: &str, uri: &str, to: &str) -> Message {
        let settings = &self.settings;
        let to = if to.is_empty() { uri } else { to };
        let mut request = Message::request(method, uri);
        request.add("Max-Forwards", "70");
        request.add("From", &format!("<{}>;tag={}", self.uri(&settings.user), token()));
        request.add("To", &format!("<{to}>")).add("Call-ID", &token()).add("CSeq", &format!("1 {method}"));
        if matches!(method, "INVITE" | "SUBSCRIBE" | "OPTIONS") {
            request.add("Contact", &self.contact());
        }
        request.add("User-Agent", concat!("sipdoor-demo/", env!("CARGO_PKG_VERSION")));
        request
    }

    /// A URI as it is, or the URI of a user of the domain.
    pub(super) fn target(&self, target: &str) -> String {
        if target.contains(':') { target.to_owned() } else { self.uri(target) }
    }

    fn registrar(&self) -> String {
        self.uri("").replace('@', "")
    }

    /// Where audio is received: a server listens on all addresses, as Asterisk does, whatever it announces.
    pub(super) fn session(&self, local: IpAddr, media: Media) -> Result<Session, Error> {
        if self.is_server() { Session::open_everywhere(media) } else { Session::open(local, media) }
    }

    pub(super) async fn arrival(&self, method: &str, limit: Duration) -> Result<Message, Error> {
        let pick = |event: &Event| match event {
            Event::Request { request } if request.method() == method => Some(Message::clone(request)),
            _ => None,
        };
        self.events.wait(method, limit, pick).await
    }
}
