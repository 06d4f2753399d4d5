//! Client transactions (RFC 3261 §17.1) and the second try with a digest (§22.2).

use super::agent::{Agent, key, push};
use super::digest::Challenge;
use super::message::{Message, token};
use super::{Error, lock};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, timeout_at};

/// What happens on the way to a final response.
pub(super) enum Step<'a> {
    /// The request as it went out (again with credentials).
    Sent(&'a Message),
    /// A 1xx.
    Provisional(&'a Message),
}

/// A request as it was sent last, and its final response.
pub(super) struct Exchange {
    pub(super) request: Message,
    pub(super) response: Message,
}

impl Agent {
    /// Sends a request that lacks only its Via, with credentials if they are asked for; the final response, whatever it
    /// says.
    pub(super) async fn exchange(
        &self,
        mut request: Message,
        told: &mut (dyn FnMut(Step<'_>) + Send),
    ) -> Result<Exchange, Error> {
        let to = self.next_hop(&request)?;
        let (mut counts, mut tries) = (0, 0);
        loop {
            let link = self.link();
            let branch = format!("z9hG4bK{}", token());
            let via = format!("SIP/2.0/{} {};rport;branch={branch}", link.transport.via(), link.local);
            request.remove("Via").prepend("Via", &via);
            drop(link);
            let response = self.transact(&request, to, told).await?;
            tries += 1;
            let Some((name, challenge)) = challenged(&response).filter(|(_, c)| tries == 1 || (c.stale && tries < 3))
            else {
                return Ok(Exchange { request, response });
            };
            counts += 1;
            let (user, password) = (&self.settings.user, &self.settings.password);
            let value = challenge.answer(user, password, (request.method(), request.uri()), counts, &token());
            let (number, method) = (request.cseq() + 1, request.method().to_owned());
            request.set(name, &value).set("CSeq", &format!("{number} {method}"));
        }
    }

    /// Gives up an INVITE that is on its way (RFC 3261 §9.1: its Via, Route and number); the final response to CANCEL.
    pub(super) async fn cancel(&self, invite: &Message) -> Result<Message, Error> {
        let mut cancel = Message::request("CANCEL", invite.uri());
        cancel.add("Via", invite.values("Via").first().copied().unwrap_or_default());
        for name in ["Route", "Max-Forwards", "From", "To", "Call-ID"] {
            for value in invite.fields(name) {
                cancel.add(name, value);
            }
        }
        cancel.add("CSeq", &format!("{} CANCEL", invite.cseq()));
        let to = self.next_hop(&cancel)?;
        self.transact(&cancel, to, &mut |_| {}).await
    }

    async fn transact(
        &self,
        request: &Message,
        to: SocketAddr,
        told: &mut (dyn FnMut(Step<'_>) + Send),
    ) -> Result<Message, Error> {
        let key = key(request);
        let (sender, mut responses) = unbounded_channel();
        lock(&self.state).waiting.insert(key.clone(), sender);
        let _forget = Forget { agent: self, key };
        let bytes = request.to_bytes();
        self.send(&bytes, to);
        told(Step::Sent(request));
        let invite = request.method() == "INVITE";
        let reliable = self.link().transport.is_stream();
        let mut limit = Instant::now() + self.settings.patience;
        let mut pause = T1;
        let mut again = Instant::now() + pause;
        let mut proceeding = false;
        loop {
            let repeat = !(reliable || invite && proceeding);
            let wake = if repeat { again.min(limit) } else { limit };
            match timeout_at(wake, responses.recv()).await {
                Ok(Some(response)) if response.status() < 200 => {
                    proceeding = true;
                    if invite {
                        limit = Instant::now() + RING;
                    }
                    told(Step::Provisional(&response));
                }
                Ok(Some(response)) => {
                    if invite && response.status() >= 300 {
                        self.acknowledge(request, &response, to);
                    }
                    return Ok(response);
                }
                Ok(None) => return Err(Error::Closed),
                Err(_) if Instant::now() >= limit => {
                    return Err(Error::Timeout(format!("an answer to {}", request.method())));
                }
                Err(_) => {
                    self.send(&bytes, to);
                    // Timer A doubles without end, timer E up to T2 (and is T2 once there was a 1xx).
                    pause = match (invite, proceeding) {
                        (true, _) => pause * 2,
                        (false, true) => T2,
                        (false, false) => T2.min(pause * 2),
                    };
                    again = Instant::now() + pause;
                }
            }
        }
    }

    /// The ACK to a refusal: the transaction's own (RFC 3261 §17.1.1.3).
    fn acknowledge(&self, request: &Message, response: &Message, to: SocketAddr) {
        let mut ack = Message::request("ACK", request.uri());
        ack.add("Via", request.values("Via").first().copied().unwrap_or_default());
        for route in request.fields("Route") {
            ack.add("Route", route);
        }
        ack.add("Max-Forwards", "70").add("From", request.get("From").unwrap_or_default());
        ack.add("To", response.get("To").unwrap_or_default());
        ack.add("Call-ID", request.get("Call-ID").unwrap_or_default());
        ack.add("CSeq", &format!("{} ACK", request.cseq()));
        self.send_ack(request, &ack, to);
    }

    /// Sends an ACK and keeps it for when the response to `invite` comes again.
    pub(super) fn send_ack(&self, invite: &Message, ack: &Message, to: SocketAddr) {
        let bytes = ack.to_bytes();
        let branch = invite.branch().unwrap_or_default().to_owned();
        push(&mut lock(&self.state).acks, (branch, bytes.clone(), to));
        self.send(&bytes, to);
    }
}

/// Takes a transaction out of the table, also when its owner stops waiting.
struct Forget<'a> {
    agent: &'a Agent,
    key: String,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.agent.state).waiting.remove(&self.key);
    }
}

/// The challenge in a 401 or 407, with the name of the field that answers it.
fn challenged(response: &Message) -> Option<(&'static str, Challenge)> {
    let (asks, answers) = match response.status() {
        401 => ("WWW-Authenticate", "Authorization"),
        407 => ("Proxy-Authenticate", "Proxy-Authorization"),
        _ => return None,
    };
    response.fields(asks).find_map(Challenge::parse).map(|challenge| (answers, challenge))
}

/// RFC 3261 §17.1.1.1: the estimate of a round trip, and the longest pause between two tries.
pub(super) const T1: Duration = Duration::from_millis(500);
pub(super) const T2: Duration = Duration::from_secs(4);
/// How long a call may ring (timer C's order of size).
const RING: Duration = Duration::from_secs(180);
