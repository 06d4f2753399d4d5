//! A small PBX on a loopback address, for the demo and for tests only: it keeps registrations in memory, knows a few
//! extensions, and is as trusting towards its side of the door as an Asterisk on loopback. It speaks UDP, writes the
//! Contact and the loopback addresses that Asterisk would write, and sends each request where its Route or its
//! Request-URI points: a door that writes a wrong address there is found out.
//!
//! It is no product: no calls between users, no voicemail, no limits against whoever knows a password.

use super::agent::{Agent, Answer, Judgement, Record, Service, Settings};
use super::call::Call;
use super::digest::{Challenge, Credentials};
use super::message::{Message, address_of, param, token, uri_of, user_of};
use super::rtp::Media;
use super::wire::Connect;
use super::{Error, lock};
use crate::flow::Transport;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The extension that returns the caller's audio.
pub const ECHO: &str = "600";
/// The extension that plays a tone.
pub const TONE: &str = "601";
/// The extension that rings and is never answered.
pub const RINGS: &str = "602";

/// The PBX.
#[derive(Clone)]
pub struct Pbx {
    agent: Arc<Agent>,
    office: Arc<Office>,
}

/// One registered Contact.
#[derive(Clone, Debug)]
pub struct Contact {
    /// The URI to call it by.
    pub uri: String,
    /// When it is forgotten.
    pub until: Instant,
}

struct Office {
    /// User names with their passwords.
    users: Vec<(String, String)>,
    contacts: Mutex<HashMap<String, Vec<Contact>>>,
    nonces: Mutex<VecDeque<String>>,
    /// A REGISTER changed the Contacts of somebody.
    changed: Notify,
}

impl Pbx {
    /// Begins to serve these users on this loopback address.
    pub async fn start(local: SocketAddr, users: &[(&str, &str)]) -> Result<Self, Error> {
        let users = users.iter().map(|(user, password)| ((*user).to_owned(), (*password).to_owned())).collect();
        let office = Office { users, contacts: Mutex::default(), nonces: Mutex::default(), changed: Notify::new() };
        let office = Arc::new(office);
        // As an Asterisk without from_domain: its own address is its domain.
        let connect = Connect::new(Transport::Udp, local);
        let mut settings = Settings::new(ECHO, "", &local.ip().to_string(), connect);
        settings.patience = Duration::from_secs(8);
        let agent = Agent::serve(settings, Box::new(Arc::clone(&office)), local).await?;
        Ok(Self { agent, office })
    }

    /// Its address.
    pub fn local(&self) -> SocketAddr {
        self.agent.link().local
    }

    /// What this user has registered now.
    pub fn contacts(&self, user: &str) -> Vec<Contact> {
        self.office.contacts(user)
    }

    /// Waits for the next REGISTER that somebody proved; who is registered then.
    pub async fn registered(&self) -> Vec<String> {
        self.office.changed.notified().await;
        let users = self.office.users.iter().map(|(user, _)| user);
        users.filter(|user| !self.contacts(user).is_empty()).cloned().collect()
    }

    /// Calls the user's latest Contact and plays a tone to whoever answers.
    pub fn call(&self, user: &str) -> Result<Call, Error> {
        self.agent.dial(&self.contact(user)?, Media::Tone)
    }

    /// Asks the user's latest Contact whether it is there, as `qualify` does; the final response.
    pub async fn qualify(&self, user: &str) -> Result<Message, Error> {
        self.request("OPTIONS", user, "").await
    }

    /// Sends a text to the user's latest Contact; the final response.
    pub async fn message(&self, user: &str, text: &str) -> Result<Message, Error> {
        self.request("MESSAGE", user, text).await
    }

    /// The next call that came in and was answered.
    pub async fn incoming(&self, limit: Duration) -> Result<Call, Error> {
        self.agent.incoming(limit).await
    }

    /// Forgets all calls and texts that nobody asked for.
    pub fn forget(&self) {
        self.agent.events.clear();
    }

    /// The next MESSAGE (or other request) that came in and was answered 200.
    pub async fn arrival(&self, method: &str, limit: Duration) -> Result<Message, Error> {
        self.agent.arrival(method, limit).await
    }

    /// The last thousand messages, sent and received.
    pub fn transcript(&self) -> Vec<Record> {
        lock(&self.agent.state).transcript.iter().cloned().collect()
    }

    async fn request(&self, method: &str, user: &str, text: &str) -> Result<Message, Error> {
        let uri = self.contact(user)?;
        let mut request = self.agent.fresh(method, &uri, &uri);
        if !text.is_empty() {
            request.set_body("text/plain", text);
        }
        Ok(self.agent.exchange(request, &mut |_| {}).await?.response)
    }

    fn contact(&self, user: &str) -> Result<String, Error> {
        let contacts = self.contacts(user);
        contacts.last().map(|contact| contact.uri.clone()).ok_or(Error::Unreadable("a registered Contact"))
    }
}

impl Service for Arc<Office> {
    fn judge(&self, request: &Message) -> Judgement {
        let user = user_of(uri_of(request.get("From").unwrap_or_default()));
        if !self.knows(request, user) {
            return Judgement::Respond(Box::new(self.challenge(request)));
        }
        match (request.method(), user_of(request.uri())) {
            ("REGISTER", _) => Judgement::Respond(Box::new(self.register(request, user))),
            ("INVITE", ECHO) => Judgement::Take(Answer::Auto, Media::Echo),
            ("INVITE", TONE) => Judgement::Take(Answer::Auto, Media::Tone),
            ("INVITE", RINGS) => Judgement::Take(Answer::Ring, Media::Tone),
            ("INVITE", _) => Judgement::Take(Answer::Refuse(404), Media::Tone),
            _ => Judgement::Take(Answer::Auto, Media::Tone),
        }
    }
}

impl Office {
    /// Whether the digest is this user's, and the nonce one of ours.
    fn knows(&self, request: &Message, user: &str) -> bool {
        let Some(credentials) = request.get("Authorization").and_then(Credentials::parse) else { return false };
        let Some((_, password)) = self.users.iter().find(|(name, _)| name == user) else { return false };
        let ours = lock(&self.nonces).contains(&credentials.nonce);
        ours && credentials.user == user && credentials.proves(REALM, password, request.method())
    }

    fn challenge(&self, request: &Message) -> Message {
        let nonce = token();
        let mut nonces = lock(&self.nonces);
        if nonces.len() >= 1000 {
            nonces.pop_front();
        }
        nonces.push_back(nonce.clone());
        let challenge = Challenge { realm: REALM.to_owned(), nonce, opaque: None, auth: true, stale: false };
        let mut response = Message::response(request, 401, "Unauthorized");
        response.add("WWW-Authenticate", &challenge.header());
        response
    }

    /// RFC 3261 §10.3, without its race rules: there is one client per Contact here.
    fn register(&self, request: &Message, user: &str) -> Message {
        let default = request.get("Expires").and_then(|value| value.parse().ok()).unwrap_or(3600);
        let mut table = lock(&self.contacts);
        let contacts = table.entry(user.to_owned()).or_default();
        for value in request.values("Contact") {
            let uri = uri_of(value);
            if value == "*" {
                contacts.clear();
                continue;
            }
            contacts.retain(|contact| contact.uri != uri);
            let seconds = param(value, "expires").and_then(|e| e.parse().ok()).unwrap_or(default);
            if seconds > 0 && address_of(uri).is_some() {
                let until = Instant::now() + Duration::from_secs(u64::from(seconds.min(7200u32)));
                contacts.push(Contact { uri: uri.to_owned(), until });
            }
        }
        drop(table);
        self.changed.notify_one();
        let mut response = Message::response(request, 200, "OK");
        for contact in self.contacts(user) {
            let left = contact.until.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
            response.add("Contact", &format!("<{}>;expires={left}", contact.uri));
        }
        response
    }

    fn contacts(&self, user: &str) -> Vec<Contact> {
        let mut table = lock(&self.contacts);
        let Some(contacts) = table.get_mut(user) else { return Vec::new() };
        contacts.retain(|contact| contact.until > Instant::now());
        contacts.clone()
    }
}

const REALM: &str = "demo";

#[cfg(test)]
mod tests {
    use super::super::call::{Ending, Phase};
    use super::super::phone::Phone;
    use super::super::sdp::Direction;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn pair() -> (Pbx, Phone) {
        let pbx = Pbx::start("127.0.0.1:0".parse().unwrap(), &[("101", "secret")]).await.unwrap();
        let connect = Connect::new(Transport::Udp, pbx.local());
        let phone = Phone::start(Settings::new("101", "secret", "k.test", connect)).await.unwrap();
        (pbx, phone)
    }

    #[tokio::test]
    async fn a_phone_registers_with_its_digest_and_takes_it_back() {
        let (pbx, phone) = pair().await;
        let response = phone.register(60).await.unwrap().success().unwrap();
        assert_eq!(uri_of(response.get("Contact").unwrap()), uri_of(&phone.contact()));
        assert_eq!(pbx.contacts("101").len(), 1);
        assert_eq!(phone.query().await.unwrap().values("Contact").len(), 1);
        phone.unregister().await.unwrap().success().unwrap();
        assert!(pbx.contacts("101").is_empty());
        phone.register(60).await.unwrap().success().unwrap();
        phone.unregister_all().await.unwrap().success().unwrap();
        assert!(pbx.contacts("101").is_empty());
    }

    #[tokio::test]
    async fn a_wrong_password_stays_401() {
        let (pbx, _) = pair().await;
        let connect = Connect::new(Transport::Udp, pbx.local());
        let phone = Phone::start(Settings::new("101", "guess", "k.test", connect)).await.unwrap();
        assert_eq!(phone.register(60).await.unwrap().status(), 401);
        assert_eq!(phone.transcript().iter().filter(|record| record.sent).count(), 2);
    }

    #[tokio::test]
    async fn a_call_has_audio_hold_and_an_end() {
        let (pbx, phone) = pair().await;
        let call = phone.dial(ECHO).unwrap();
        call.answered(LIMIT).await.unwrap();
        call.rtp(10, LIMIT).await.unwrap();
        let theirs = pbx.incoming(LIMIT).await.unwrap();
        theirs.confirmed(LIMIT).await.unwrap();
        call.hold().await.unwrap().success().unwrap();
        assert_eq!(theirs.reinvited(LIMIT).await.unwrap(), Direction::SendOnly);
        call.quiet(Duration::from_millis(200), LIMIT).await.unwrap();
        call.resume().await.unwrap().success().unwrap();
        call.rtp(10, LIMIT).await.unwrap();
        call.hang_up().await.unwrap().success().unwrap();
        assert_eq!(theirs.ended(LIMIT).await.unwrap(), Ending::Bye);
    }

    #[tokio::test]
    async fn a_ringing_call_is_cancelled_from_both_ends() {
        let (pbx, phone) = pair().await;
        let call = phone.dial(RINGS).unwrap();
        assert_eq!(call.ringing(LIMIT).await.unwrap(), 180);
        assert_eq!(call.cancel(LIMIT).await.unwrap(), Ending::Refused(487));
        assert_eq!(pbx.incoming(LIMIT).await.unwrap().phase(), Phase::Over(Ending::Cancelled));
        assert!(
            matches!(phone.dial("999").unwrap().answered(LIMIT).await, Err(Error::Refused(r)) if r.status() == 404)
        );
        phone.register(60).await.unwrap().success().unwrap();
        phone.set_answer(Answer::Refuse(486));
        assert!(matches!(pbx.call("101").unwrap().answered(LIMIT).await, Err(Error::Refused(r)) if r.status() == 486));
    }

    #[tokio::test]
    async fn the_pbx_calls_writes_asks_and_hangs_up() {
        let (pbx, phone) = pair().await;
        phone.register(60).await.unwrap().success().unwrap();
        assert_eq!(pbx.qualify("101").await.unwrap().status(), 200);
        assert_eq!(pbx.message("101", "hello").await.unwrap().status(), 200);
        assert_eq!(phone.arrival("MESSAGE", LIMIT).await.unwrap().body, b"hello");
        phone.message(ECHO, "and hello").await.unwrap().success().unwrap();
        assert_eq!(pbx.arrival("MESSAGE", LIMIT).await.unwrap().body, b"and hello");
        phone.set_answer(Answer::Ring);
        let call = pbx.call("101").unwrap();
        let theirs = phone.incoming(LIMIT).await.unwrap();
        call.ringing(LIMIT).await.unwrap();
        theirs.answer().unwrap();
        call.answered(LIMIT).await.unwrap();
        theirs.rtp(10, LIMIT).await.unwrap();
        call.rtp(10, LIMIT).await.unwrap();
        call.hang_up().await.unwrap().success().unwrap();
        assert_eq!(theirs.ended(LIMIT).await.unwrap(), Ending::Bye);
    }

    /// Carries datagrams between phone and PBX, but each only when it comes for the second time.
    async fn lossy(pbx: SocketAddr) -> SocketAddr {
        let outside = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let inside = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        inside.connect(pbx).await.unwrap();
        let address = outside.local_addr().unwrap();
        tokio::spawn(async move {
            let mut seen = std::collections::HashSet::new();
            let (mut there, mut back) = ([0; 4096], [0; 4096]);
            let mut phone = address;
            loop {
                tokio::select! {
                    got = outside.recv_from(&mut there) => {
                        let (length, from) = got.unwrap();
                        phone = from;
                        if !seen.insert(there[..length].to_vec()) {
                            inside.send(&there[..length]).await.unwrap();
                        }
                    }
                    got = inside.recv(&mut back) => {
                        let length = got.unwrap();
                        if !seen.insert(back[..length].to_vec()) {
                            outside.send_to(&back[..length], phone).await.unwrap();
                        }
                    }
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn what_is_lost_once_is_sent_again() {
        let (pbx, _) = pair().await;
        let connect = Connect::new(Transport::Udp, lossy(pbx.local()).await);
        let phone = Phone::start(Settings::new("101", "secret", "k.test", connect)).await.unwrap();
        let call = phone.dial(ECHO).unwrap();
        call.answered(2 * LIMIT).await.unwrap();
        pbx.incoming(LIMIT).await.unwrap().confirmed(2 * LIMIT).await.unwrap();
        call.hang_up().await.unwrap().success().unwrap();
    }
}
