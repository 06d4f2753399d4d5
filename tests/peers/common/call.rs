//! Calls: the phone's side of an INVITE dialog, with its media socket.

use super::phone::{Ask, Phone, Transaction};
use super::random;
use super::rtp::Rtp;
use super::sip::{Sip, uri_of};
use std::net::SocketAddr;
use std::time::Duration;

/// A call that has been answered.
pub struct Call {
    pub id: String,
    /// Our From value, with the tag.
    pub local: String,
    /// The other end's, with its tag.
    pub remote: String,
    /// The other end's Contact URI.
    pub target: String,
    /// The route set, in the order in which we use it.
    pub routes: Vec<String>,
    /// Where the other end wants media.
    pub media: SocketAddr,
    pub rtp: Rtp,
}

/// A call of ours that has not been answered.
pub struct Dialing {
    transaction: Transaction,
    rtp: Rtp,
}

/// A call to us that we have not answered.
pub struct Incoming {
    pub invite: Sip,
    tag: String,
}

impl Phone {
    /// Calls a number; returns when the authorised INVITE is on its way.
    pub fn dial(&mut self, number: &str) -> Dialing {
        let rtp = Rtp::bind(&self.space);
        let mut ask = self.to_number("INVITE", number);
        ask.body = description(rtp.local(), "sendrecv");
        ask.body_type = "application/sdp";
        let first = self.start(ask);
        let answer = self.answer_to(&first, |answer| answer.code() > 100);
        if answer.code() != 401 {
            assert!(answer.code() < 300, "{answer}");
            return Dialing { transaction: first, rtp };
        }
        self.send_within(&first, "ACK", answer.get("To"));
        let transaction = self.start_authorized(first.ask, &answer);
        Dialing { transaction, rtp }
    }

    /// Waits until it rings.
    pub fn hear_ringing(&mut self, dialing: &Dialing) -> Sip {
        self.answer_to(&dialing.transaction, |answer| answer.code() == 180)
    }

    /// Waits for the final answer, which must be a refusal; acknowledges and returns it.
    pub fn hear_refusal(&mut self, dialing: &Dialing) -> Sip {
        let answer = self.finish(&dialing.transaction);
        assert!(answer.code() >= 300, "{answer}");
        self.send_within(&dialing.transaction, "ACK", answer.get("To"));
        answer
    }

    /// Waits for the 200 and acknowledges it.
    pub fn hear_answer(&mut self, dialing: Dialing) -> Call {
        let answer = self.finish(&dialing.transaction);
        assert_eq!(answer.code(), 200, "{answer}");
        let call = answered(&answer, dialing.transaction.ask.from.clone(), dialing.rtp);
        self.acknowledge(&call, dialing.transaction.cseq);
        call
    }

    /// Calls a number and hangs up when it is answered; the INVITE's final answer, none when none came in time.
    pub fn try_call(&mut self, number: &str, patience: Duration) -> Option<u16> {
        let rtp = Rtp::bind(&self.space);
        let mut ask = self.to_number("INVITE", number);
        ask.body = description(rtp.local(), "sendrecv");
        ask.body_type = "application/sdp";
        let mut transaction = self.start(ask);
        let mut answer = self.answer_within(&transaction, patience, |answer| answer.code() >= 200)?;
        if answer.code() == 401 {
            self.send_within(&transaction, "ACK", answer.get("To"));
            transaction = self.start_authorized(transaction.ask, &answer);
            answer = self.answer_within(&transaction, patience, |answer| answer.code() >= 200)?;
        }
        if answer.code() >= 300 {
            self.send_within(&transaction, "ACK", answer.get("To"));
            return Some(answer.code());
        }
        let call = answered(&answer, transaction.ask.from.clone(), rtp);
        self.acknowledge(&call, transaction.cseq);
        let bye = self.start(within(&call, "BYE"));
        self.answer_within(&bye, patience, |answer| answer.code() >= 200)?;
        Some(200)
    }

    /// Calls a number that answers.
    pub fn call(&mut self, number: &str) -> Call {
        let dialing = self.dial(number);
        self.hear_answer(dialing)
    }

    /// Gives up while it rings; returns the INVITE's answer, which must be 487.
    pub fn cancel(&mut self, dialing: Dialing) -> Sip {
        let transaction = &dialing.transaction;
        let cancel = self.send_within(transaction, "CANCEL", &transaction.ask.to);
        let taken = self.finish(&cancel);
        assert_eq!(taken.code(), 200, "{taken}");
        let answer = self.hear_refusal(&dialing);
        assert_eq!(answer.code(), 487, "{answer}");
        answer
    }

    /// Waits for a call.
    pub fn ring(&mut self) -> Incoming {
        let incoming = Incoming { invite: self.expect("INVITE"), tag: random(8) };
        self.reply(&incoming.invite, "180 Ringing", &incoming.tag, &[], "");
        incoming
    }

    /// Answers a call and waits for the ACK.
    pub fn answer(&mut self, incoming: Incoming) -> Call {
        let rtp = Rtp::bind(&self.space);
        let invite = incoming.invite;
        let headers = [format!("Contact: <{}>", self.contact), "Content-Type: application/sdp".to_owned()];
        self.reply(&invite, "200 OK", &incoming.tag, &headers, &description(rtp.local(), "sendrecv"));
        self.expect("ACK");
        Call {
            id: invite.get("Call-ID").to_owned(),
            local: format!("{};tag={}", invite.get("To"), incoming.tag),
            remote: invite.get("From").to_owned(),
            target: uri_of(invite.get("Contact")).to_owned(),
            routes: invite.all("Record-Route"),
            media: media_at_the_door(&invite),
            rtp,
        }
    }

    /// Takes a new offer within a call.
    pub fn accept(&mut self, offer: &Sip, call: &Call) {
        let headers = [format!("Contact: <{}>", self.contact), "Content-Type: application/sdp".to_owned()];
        self.reply(offer, "200 OK", "", &headers, &description(call.rtp.local(), "sendrecv"));
        self.expect("ACK");
    }

    /// Refuses a call.
    pub fn refuse(&mut self, incoming: &Incoming, status: &str) {
        self.reply(&incoming.invite, status, &incoming.tag, &[], "");
        self.expect("ACK");
    }

    /// Waits for the CANCEL of a call that is ringing and ends it as RFC 3261 §9.2 says.
    pub fn hear_cancel(&mut self, incoming: &Incoming) {
        let cancel = self.expect("CANCEL");
        assert_eq!(cancel.get("Call-ID"), incoming.invite.get("Call-ID"));
        assert_eq!(cancel.uri(), incoming.invite.uri(), "a CANCEL has the Request-URI of its INVITE");
        assert_eq!(cancel.all("Via").first(), incoming.invite.all("Via").first(), "and its branch");
        self.reply(&cancel, "200 OK", &incoming.tag, &[], "");
        self.refuse(incoming, "487 Request Terminated");
    }

    /// Offers new media in a call, e.g. `sendonly` to hold; returns the direction that was answered.
    pub fn offer(&mut self, call: &Call, direction: &str) -> String {
        let mut ask = within(call, "INVITE");
        ask.body = description(call.rtp.local(), direction);
        ask.body_type = "application/sdp";
        let transaction = self.start(ask);
        let mut answer = self.finish(&transaction);
        let mut cseq = transaction.cseq;
        if answer.code() == 401 {
            self.send_within(&transaction, "ACK", answer.get("To"));
            let again = self.start_authorized(transaction.ask, &answer);
            answer = self.finish(&again);
            cseq = again.cseq;
        }
        assert_eq!(answer.code(), 200, "{answer}");
        self.acknowledge(call, cseq);
        let body = answer.body();
        let directions = ["sendonly", "recvonly", "inactive"];
        let found = directions.iter().find(|d| body.contains(&format!("a={d}")));
        (*found.unwrap_or(&"sendrecv")).to_owned()
    }

    /// Ends a call.
    pub fn hang_up(&mut self, call: &Call) {
        let answer = self.ask(within(call, "BYE"));
        assert_eq!(answer.code(), 200, "{answer}");
    }

    /// Waits until the other end ends the call; what it offers before that is accepted.
    pub fn hear_hang_up(&mut self, call: &Call) {
        loop {
            let ours =
                |m: &Sip| m.is_request() && ["BYE", "INVITE"].contains(&m.method()) && m.get("Call-ID") == call.id;
            let request = self.look(ours, super::PATIENCE);
            let request = request.unwrap_or_else(|| panic!("{} waited for a BYE", self.number));
            if request.method() == "BYE" {
                return self.reply(&request, "200 OK", "", &[], "");
            }
            self.accept(&request, call);
        }
    }

    fn acknowledge(&mut self, call: &Call, cseq: u32) {
        let ask = within(call, "ACK");
        let branch = format!("z9hG4bK{}", random(16));
        self.link.send(&self.request(&ask, cseq, &branch).bytes()).unwrap();
    }
}

/// The call that a 200 to our INVITE makes.
fn answered(answer: &Sip, local: String, rtp: Rtp) -> Call {
    let mut routes = answer.all("Record-Route");
    routes.reverse(); // RFC 3261 §12.1.2
    Call {
        id: answer.get("Call-ID").to_owned(),
        local,
        remote: answer.get("To").to_owned(),
        target: uri_of(answer.get("Contact")).to_owned(),
        routes,
        media: media_at_the_door(answer),
        rtp,
    }
}

/// A request inside a call.
pub fn within(call: &Call, method: &'static str) -> Ask {
    Ask {
        method,
        uri: call.target.clone(),
        from: call.local.clone(),
        to: call.remote.clone(),
        call_id: call.id.clone(),
        routes: call.routes.clone(),
        ..Ask::default()
    }
}

/// Where a message wants media.
pub fn media_of(message: &Sip) -> SocketAddr {
    let address = message.sdp("c").rsplit(' ').next().unwrap().parse().unwrap();
    let port = message.sdp("m").split(' ').nth(1).unwrap().parse().unwrap();
    SocketAddr::new(address, port)
}

/// The same, and it must be the door's address.
fn media_at_the_door(message: &Sip) -> SocketAddr {
    let media = media_of(message);
    let address = media.ip();
    let public = if address.is_ipv6() { super::PUBLIC6 } else { super::PUBLIC };
    assert_eq!(address.to_string(), public, "media goes to the address that phones can reach: {message}");
    media
}

fn description(local: SocketAddr, direction: &str) -> String {
    let (ip, port) = (local.ip(), local.port());
    let family = if ip.is_ipv6() { "IP6" } else { "IP4" };
    let version = if direction == "sendrecv" { 1 } else { 2 };
    format!(
        "v=0\r\no=- 1 {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n\
         a=rtpmap:0 PCMU/8000\r\na={direction}\r\n"
    )
}
