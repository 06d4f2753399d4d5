//! The user agent under the phone and the PBX: one link, transactions, and what an incoming request gets.

use super::events::{Event, Events};
use super::invite::Core;
use super::message::{Message, address_of, param, token, uri_of};
use super::rtp::Media;
use super::wire::{Connect, Inbound, Link, What};
use super::{Error, lock};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Who a peer is and how it behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The user part of its address, and the user name of its digest.
    pub user: String,
    /// The password.
    pub password: String,
    /// The domain in its URIs; never looked up.
    pub domain: String,
    /// How it reaches its server, for everything it sends.
    pub connect: Connect,
    /// Whether its URIs are sips: (RFC 5630).
    pub sips: bool,
    /// Whether it treats Routes as a strict router does, as phones before RFC 3261 did.
    pub strict_route: bool,
    /// Timer B and F: how long a request waits for an answer.
    pub patience: Duration,
    /// The user part of its Contact; default: `user`.
    pub contact_user: Option<String>,
    /// The `+sip.instance` of its Contact, a URN (RFC 5626 §4.1).
    pub instance: Option<String>,
}

impl Settings {
    /// A usual phone.
    pub fn new(user: &str, password: &str, domain: &str, connect: Connect) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            domain: domain.to_owned(),
            connect,
            sips: false,
            strict_route: false,
            patience: Duration::from_secs(32),
            contact_user: None,
            instance: None,
        }
    }
}

/// What an incoming call meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 180, then 200 at once.
    Auto,
    /// 180, and the owner decides.
    Ring,
    /// This status.
    Refuse(u16),
}

/// What becomes of a request outside a dialog.
pub(super) enum Judgement {
    /// The agent does the usual thing; a call is answered so.
    Take(Answer, Media),
    /// This response.
    Respond(Box<Message>),
}

/// The difference between a phone and a PBX.
pub(super) trait Service: Send + Sync {
    /// Called for each request without a To tag, but ACK and CANCEL.
    fn judge(&self, request: &Message) -> Judgement;
}

/// One message that was sent or received.
#[derive(Clone, Debug)]
pub struct Record {
    /// Whether it was sent.
    pub sent: bool,
    /// All its bytes.
    pub bytes: Vec<u8>,
}

/// A user agent.
pub(super) struct Agent {
    pub(super) settings: Settings,
    pub(super) events: Events,
    pub(super) state: Mutex<State>,
    service: Box<dyn Service>,
    /// A server answers to where a request came from and follows Route; a phone sends everything to its server.
    server: bool,
    link: Mutex<Arc<Link>>,
    links: AtomicU64,
    inbox: UnboundedSender<Inbound>,
}

#[derive(Default)]
pub(super) struct State {
    /// Client transactions: branch and method.
    pub(super) waiting: HashMap<String, UnboundedSender<Message>>,
    /// The ACK of each INVITE transaction, by branch, for when its final response comes again.
    pub(super) acks: VecDeque<(String, Vec<u8>, SocketAddr)>,
    pub(super) calls: HashMap<String, Arc<Core>>,
    pub(super) transcript: VecDeque<Record>,
    /// Call-ID and last CSeq of our registration.
    pub(super) registration: Option<(String, u32)>,
    /// Server transactions: the last response of each.
    answered: VecDeque<(String, Vec<u8>)>,
}

impl Agent {
    /// A phone's agent: connects to its server.
    pub(super) async fn connect(settings: Settings, service: Box<dyn Service>) -> Result<Arc<Self>, Error> {
        let (inbox, news) = unbounded_channel();
        let link = Link::open(&settings.connect, 0, inbox.clone()).await?;
        Ok(Self::start(settings, service, false, link, (inbox, news)))
    }

    /// A server's agent on this UDP address.
    pub(super) async fn serve(
        settings: Settings,
        service: Box<dyn Service>,
        local: SocketAddr,
    ) -> Result<Arc<Self>, Error> {
        let (inbox, news) = unbounded_channel();
        let link = Link::serve(local, inbox.clone()).await?;
        Ok(Self::start(settings, service, true, link, (inbox, news)))
    }

    fn start(
        settings: Settings,
        service: Box<dyn Service>,
        server: bool,
        link: Link,
        (inbox, news): (UnboundedSender<Inbound>, UnboundedReceiver<Inbound>),
    ) -> Arc<Self> {
        let agent = Arc::new(Self {
            settings,
            events: Events::default(),
            state: Mutex::default(),
            service,
            server,
            link: Mutex::new(Arc::new(link)),
            links: AtomicU64::new(1),
            inbox,
        });
        tokio::spawn(dispatch(Arc::downgrade(&agent), news));
        agent
    }

    /// A new link in place of the old one, which is closed.
    pub(super) async fn reconnect(&self) -> Result<(), Error> {
        let id = self.links.fetch_add(1, Ordering::Relaxed);
        let link = Link::open(&self.settings.connect, id, self.inbox.clone()).await?;
        *lock(&self.link) = Arc::new(link);
        Ok(())
    }

    pub(super) fn link(&self) -> Arc<Link> {
        Arc::clone(&lock(&self.link))
    }

    pub(super) const fn is_server(&self) -> bool {
        self.server
    }

    /// Calls that are over are kept for a while, for whoever has not asked yet.
    pub(super) fn keep(&self, core: &Arc<Core>) {
        let calls = &mut lock(&self.state).calls;
        if calls.len() >= 100 {
            calls.retain(|_, call| !call.is_over());
        }
        calls.insert(core.id.clone(), Arc::clone(core));
    }

    /// The URI of a user of our domain.
    pub(super) fn uri(&self, user: &str) -> String {
        format!("{}:{user}@{}", self.scheme(), self.settings.domain)
    }

    /// Our Contact, with the address of the link as it is now.
    pub(super) fn contact(&self) -> String {
        let link = self.link();
        if self.server {
            // As Asterisk writes it.
            return format!("<sip:{}>", link.local);
        }
        let user = self.settings.contact_user.as_ref().unwrap_or(&self.settings.user);
        let transport = if link.transport.is_stream() && !self.settings.sips {
            format!(";transport={}", link.transport.name())
        } else {
            String::new()
        };
        format!("<{}:{user}@{}{transport}>", self.scheme(), link.local)
    }

    const fn scheme(&self) -> &'static str {
        if self.settings.sips { "sips" } else { "sip" }
    }

    /// Where a request goes.
    pub(super) fn next_hop(&self, request: &Message) -> Result<SocketAddr, Error> {
        if !self.server {
            return Ok(self.settings.connect.server);
        }
        let uri = request.values("Route").first().map_or(request.uri(), |route| uri_of(route)).to_owned();
        address_of(&uri).ok_or(Error::Unreadable("an address to send to"))
    }

    /// Sends and remembers.
    pub(super) fn send(&self, bytes: &[u8], to: SocketAddr) {
        self.record(true, bytes);
        self.link().send(bytes, to);
    }

    /// A response in its server transaction.
    pub(super) fn reply(&self, request: &Message, response: &Message, to: SocketAddr) {
        let bytes = response.to_bytes();
        let key = key(request);
        let mut state = lock(&self.state);
        state.answered.retain(|(k, _)| *k != key);
        push(&mut state.answered, (key, bytes.clone()));
        drop(state);
        self.send(&bytes, to);
    }

    /// A response without more in it than it needs.
    pub(super) fn respond(&self, request: &Message, status: u16, to: SocketAddr) {
        let mut response = Message::response(request, status, reason(status));
        add_tag(&mut response, &token());
        if matches!(status, 200 | 405) {
            response.add("Allow", ALLOW);
        }
        self.reply(request, &response, to);
    }

    fn record(&self, sent: bool, bytes: &[u8]) {
        push(&mut lock(&self.state).transcript, Record { sent, bytes: bytes.to_vec() });
    }

    fn handle(self: &Arc<Self>, inbound: Inbound) {
        match inbound.what {
            What::Pong => self.events.push(Event::Pong),
            What::Closed if inbound.link == self.link().id => {
                // Nothing that waits for an answer on that connection will get one.
                lock(&self.state).waiting.clear();
                self.events.push(Event::Closed);
            }
            What::Closed => {}
            What::Message(bytes) => {
                self.record(false, &bytes);
                let Some(message) = Message::parse(&bytes) else { return };
                if message.status() > 0 {
                    self.response(message);
                } else {
                    self.request(&message, inbound.from);
                }
            }
        }
    }

    fn response(&self, message: Message) {
        let state = lock(&self.state);
        if let Some(waiting) = state.waiting.get(&key(&message)) {
            let _ = waiting.send(message);
            return;
        }
        let branch = message.branch().unwrap_or_default();
        let ack = state.acks.iter().find(|(b, ..)| b == branch).map(|(_, bytes, to)| (bytes.clone(), *to));
        drop(state);
        // A final response that comes again has not seen our ACK (RFC 3261 §13.2.2.4, §17.1.1.2).
        if let Some((bytes, to)) = ack.filter(|_| message.status() >= 200 && message.method() == "INVITE") {
            self.send(&bytes, to);
        }
    }

    fn request(self: &Arc<Self>, request: &Message, from: SocketAddr) {
        let call_id = request.get("Call-ID").unwrap_or_default();
        let (again, call) = {
            let state = lock(&self.state);
            let key = key(request);
            let again = state.answered.iter().find(|(k, _)| *k == key).map(|(_, bytes)| bytes.clone());
            (again, state.calls.get(call_id).cloned())
        };
        if let Some(bytes) = again {
            self.send(&bytes, from);
            return;
        }
        match (request.method(), call) {
            ("ACK", Some(call)) => call.ack(self, request),
            ("ACK", None) => {}
            ("CANCEL", Some(call)) => call.cancelled(self, request, from),
            (_, Some(call)) if request.tag("To").is_some() => call.inside(self, request, from),
            (_, None) if request.tag("To").is_some() => self.respond(request, 481, from),
            ("CANCEL", None) => self.respond(request, 481, from),
            _ => match self.service.judge(request) {
                Judgement::Respond(mut response) => {
                    add_tag(&mut response, &token());
                    self.reply(request, &response, from);
                }
                Judgement::Take(answer, media) => self.outside(request, from, answer, media),
            },
        }
    }

    fn outside(self: &Arc<Self>, request: &Message, from: SocketAddr, answer: Answer, media: Media) {
        match (request.method(), answer) {
            ("INVITE", Answer::Refuse(status)) => self.respond(request, status, from),
            ("INVITE", _) => {
                if Core::incoming(self, request, from, answer, media).is_err() {
                    self.respond(request, 500, from);
                }
            }
            ("OPTIONS" | "MESSAGE" | "NOTIFY" | "INFO", _) => self.take(request, from),
            _ => self.respond(request, 405, from),
        }
    }

    /// 200, and the owner is told.
    pub(super) fn take(&self, request: &Message, from: SocketAddr) {
        self.respond(request, 200, from);
        self.events.push(Event::Request { request: Box::new(request.clone()) });
    }
}

/// Carries news from the link to the agent until the agent is gone.
async fn dispatch(agent: Weak<Agent>, mut news: UnboundedReceiver<Inbound>) {
    while let Some(inbound) = news.recv().await {
        let Some(agent) = agent.upgrade() else { return };
        agent.handle(inbound);
    }
}

/// The transaction that a message belongs to (RFC 3261 §17.1.3, §17.2.3).
pub(super) fn key(message: &Message) -> String {
    let via = message.values("Via").first().copied().unwrap_or_default().to_owned();
    let sent_by = via.split([' ', ';']).nth(1).unwrap_or_default();
    format!("{} {sent_by} {}", param(&via, "branch").unwrap_or_default(), message.method())
}

/// Gives To our tag if it has none.
pub(super) fn add_tag(response: &mut Message, tag: &str) {
    if response.tag("To").is_none() && response.status() > 100 {
        let to = format!("{};tag={tag}", response.get("To").unwrap_or_default());
        response.set("To", &to);
    }
}

/// The usual reason phrase.
pub(super) const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        200 => "OK",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        603 => "Decline",
        _ => "Whatever",
    }
}

/// Keeps a list short.
pub(super) fn push<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() >= 1000 {
        list.pop_front();
    }
    list.push_back(item);
}

const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE, NOTIFY, INFO";
