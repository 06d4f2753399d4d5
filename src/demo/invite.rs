//! An INVITE's life from either end (RFC 3261 §13, §14, §15), with its audio.

use super::agent::{Agent, Answer, add_tag, reason};
use super::dialog::Dialog;
use super::events::Event;
use super::exchange::{Exchange, Step, T1, T2};
use super::message::{Message, token};
use super::rtp::{Media, Session};
use super::sdp::{self, Direction, Remote};
use super::{Error, lock};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The INVITE is out, nothing has come back.
    Calling,
    /// 100 has come back.
    Trying,
    /// The callee's end rings; the last 1xx over 100 (180 for a call that came in).
    Ringing(u16),
    /// Answered.
    Up,
    /// Over, and how.
    Over(Ending),
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The other side hung up.
    Bye,
    /// We hung up.
    HangUp,
    /// The caller gave up before the answer.
    Cancelled,
    /// Refused with this status, or 408 when no answer came at all.
    Refused(u16),
}

/// One call's state, shared by its owner and the agent.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) id: String,
    pub(super) session: Session,
    pub(super) phase: watch::Sender<Phase>,
    /// The highest CSeq of an INVITE of theirs whose ACK has come.
    pub(super) acked: watch::Sender<u32>,
    pub(super) data: Mutex<Data>,
}

#[derive(Debug)]
pub(super) struct Data {
    pub(super) dialog: Option<Dialog>,
    /// The INVITE that began it, as it was sent last or received.
    pub(super) invite: Message,
    /// Where it came from, for a call that came in.
    from: SocketAddr,
    tag: String,
    pub(super) remote: Option<Remote>,
    announced: SocketAddr,
    version: u32,
}

impl Core {
    /// A call that is to go out: the INVITE gets its offer here.
    pub(super) fn outgoing(agent: &Agent, mut invite: Message, media: Media) -> Result<Arc<Self>, Error> {
        let from = agent.settings.connect.server;
        let core = Self::open(agent, &Message::request("INVITE", ""), from, Phase::Calling, media)?;
        let offer = core.description(Direction::SendRecv);
        invite.set_body(SDP, offer);
        let id = invite.get("Call-ID").unwrap_or_default().to_owned();
        lock(&core.data).invite = invite;
        let core = Arc::new(Self { id, ..core });
        agent.keep(&core);
        Ok(core)
    }

    /// A call that came in: 180, and what the answer says.
    pub(super) fn incoming(
        agent: &Arc<Agent>,
        invite: &Message,
        from: SocketAddr,
        answer: Answer,
        media: Media,
    ) -> Result<(), Error> {
        let core = Arc::new(Self::open(agent, invite, from, Phase::Ringing(180), media)?);
        {
            let mut data = lock(&core.data);
            data.dialog = Dialog::uas(invite, &data.tag);
            if data.dialog.is_none() {
                return Err(Error::Unreadable("a Contact"));
            }
            data.remote = sdp::read(&invite.body);
        }
        agent.keep(&core);
        core.respond(agent, 180);
        agent.events.push(Event::Incoming { call: core.id.clone(), request: Box::new(invite.clone()) });
        match answer {
            Answer::Auto => core.answer(agent),
            Answer::Ring | Answer::Refuse(_) => Ok(()),
        }
    }

    fn open(agent: &Agent, invite: &Message, from: SocketAddr, phase: Phase, media: Media) -> Result<Self, Error> {
        let local = agent.link().local.ip();
        let session = agent.session(local, media)?;
        let data = Data {
            dialog: None,
            invite: invite.clone(),
            from,
            tag: token(),
            remote: None,
            announced: SocketAddr::new(local, session.local().port()),
            version: 0,
        };
        Ok(Self {
            id: invite.get("Call-ID").unwrap_or_default().to_owned(),
            session,
            phase: watch::Sender::new(phase),
            acked: watch::Sender::new(0),
            data: Mutex::new(data),
        })
    }

    /// Our own description, one version later each time.
    fn description(&self, direction: Direction) -> String {
        let mut data = lock(&self.data);
        data.version += 1;
        sdp::write(data.announced, direction, data.version)
    }

    /// Takes the other side's description in and moves audio accordingly; our direction.
    fn hear(&self, body: &[u8]) -> Direction {
        let mut data = lock(&self.data);
        if let Some(remote) = sdp::read(body) {
            data.remote = Some(remote);
        }
        let Some(remote) = data.remote else { return Direction::SendRecv };
        let ours = remote.direction.answer();
        self.session.talk(remote.address, ours);
        ours
    }

    /// Drives an outgoing INVITE to its end.
    pub(super) async fn drive(self: Arc<Self>, agent: Arc<Agent>) {
        let invite = lock(&self.data).invite.clone();
        let mut told = |step: Step<'_>| match step {
            Step::Sent(request) => lock(&self.data).invite = request.clone(),
            Step::Provisional(response) => self.progress(&agent, response),
        };
        let status = match agent.exchange(invite, &mut told).await {
            Ok(done) if done.response.status() < 300 => {
                if self.established(&agent, &done).is_ok() {
                    return;
                }
                488
            }
            Ok(done) => done.response.status(),
            Err(_) => 408,
        };
        self.over(Ending::Refused(status));
        agent.events.push(Event::Refused { call: self.id.clone(), status });
    }

    fn progress(&self, agent: &Agent, response: &Message) {
        let status = response.status();
        self.phase.send_replace(if status == 100 { Phase::Trying } else { Phase::Ringing(status) });
        if status > 100 {
            if !response.body.is_empty() {
                self.hear(&response.body);
            }
            agent.events.push(Event::Progress { call: self.id.clone(), status });
        }
    }

    fn established(&self, agent: &Agent, done: &Exchange) -> Result<(), Error> {
        let dialog = Dialog::uac(&done.request, &done.response).ok_or(Error::Unreadable("a Contact"))?;
        lock(&self.data).dialog = Some(dialog);
        self.confirm(agent, done)?;
        self.phase.send_replace(Phase::Up);
        agent.events.push(Event::Answered { call: self.id.clone() });
        Ok(())
    }

    /// The ACK to a 2xx is a request of its own, through the route set (RFC 3261 §13.2.2.4).
    fn confirm(&self, agent: &Agent, done: &Exchange) -> Result<(), Error> {
        self.hear(&done.response.body);
        let mut ack = self.request(agent, "ACK", Some(done.request.cseq()))?;
        let link = agent.link();
        let via = format!("SIP/2.0/{} {};rport;branch=z9hG4bK{}", link.transport.via(), link.local, token());
        ack.prepend("Via", &via);
        for name in ["Authorization", "Proxy-Authorization"] {
            if let Some(value) = done.request.get(name) {
                ack.add(name, value);
            }
        }
        let to = agent.next_hop(&ack)?;
        agent.send_ack(&done.request, &ack, to);
        Ok(())
    }

    /// The next request of the dialog, without Via.
    pub(super) fn request(&self, agent: &Agent, method: &str, cseq: Option<u32>) -> Result<Message, Error> {
        let mut data = lock(&self.data);
        let dialog = data.dialog.as_mut().ok_or(Error::Closed)?;
        Ok(dialog.request(method, cseq, agent.settings.strict_route))
    }

    /// Sends a request in the dialog; the final response, whatever it says.
    pub(super) async fn exchange(&self, agent: &Agent, request: Message) -> Result<Exchange, Error> {
        let done = agent.exchange(request, &mut |_| {}).await?;
        if let Some(dialog) = &mut lock(&self.data).dialog {
            dialog.cseq = dialog.cseq.max(done.request.cseq());
        }
        Ok(done)
    }

    /// Changes the session (RFC 3261 §14.1).
    pub(super) async fn reinvite(&self, agent: &Agent, direction: Direction) -> Result<Message, Error> {
        let mut request = self.request(agent, "INVITE", None)?;
        request.add("Contact", &agent.contact()).set_body(SDP, self.description(direction));
        let done = self.exchange(agent, request).await?;
        if done.response.status() < 300 {
            if let Some(dialog) = &mut lock(&self.data).dialog {
                dialog.refresh(&done.response);
            }
            self.confirm(agent, &done)?;
        }
        Ok(done.response)
    }

    /// 200 to the INVITE that came in.
    pub(super) fn answer(self: &Arc<Self>, agent: &Arc<Agent>) -> Result<(), Error> {
        if !matches!(*self.phase.borrow(), Phase::Ringing(_)) {
            return Err(Error::Closed);
        }
        let (invite, from) = {
            let data = lock(&self.data);
            (data.invite.clone(), data.from)
        };
        self.phase.send_replace(Phase::Up);
        self.accept(agent, &invite, from);
        Ok(())
    }

    /// 200 with our description, again and again until its ACK (RFC 3261 §13.3.1.4).
    fn accept(self: &Arc<Self>, agent: &Arc<Agent>, invite: &Message, from: SocketAddr) {
        let direction = self.hear(&invite.body);
        let mut response = self.response(agent, invite, 200);
        response.set_body(SDP, self.description(direction));
        agent.reply(invite, &response, from);
        tokio::spawn(Arc::clone(self).repeat(Arc::clone(agent), response.to_bytes(), invite.cseq(), from));
    }

    async fn repeat(self: Arc<Self>, agent: Arc<Agent>, bytes: Vec<u8>, cseq: u32, to: SocketAddr) {
        let mut acked = self.acked.subscribe();
        let (mut pause, end) = (T1, Instant::now() + T1 * 64);
        while timeout(pause, acked.wait_for(|n| *n >= cseq)).await.is_err() {
            if Instant::now() > end || self.is_over() {
                return;
            }
            agent.send(&bytes, to);
            pause = T2.min(pause * 2);
        }
    }

    /// Any response to the INVITE that came in.
    fn respond(&self, agent: &Agent, status: u16) {
        let (invite, from) = {
            let data = lock(&self.data);
            (data.invite.clone(), data.from)
        };
        agent.reply(&invite, &self.response(agent, &invite, status), from);
    }

    fn response(&self, agent: &Agent, request: &Message, status: u16) -> Message {
        let mut response = Message::response(request, status, reason(status));
        add_tag(&mut response, &lock(&self.data).tag);
        if status < 300 {
            response.add("Contact", &agent.contact());
        }
        response
    }

    /// Refuses a call that came in.
    pub(super) fn refuse(&self, agent: &Agent, status: u16) -> Result<(), Error> {
        if !matches!(*self.phase.borrow(), Phase::Ringing(_)) {
            return Err(Error::Closed);
        }
        self.respond(agent, status);
        self.over(Ending::Refused(status));
        Ok(())
    }

    /// An ACK of the caller's.
    pub(super) fn ack(&self, agent: &Agent, request: &Message) {
        let ours = lock(&self.data).dialog.as_ref().is_some_and(|dialog| dialog.owns(request));
        if !ours || !matches!(*self.phase.borrow(), Phase::Up) {
            return;
        }
        if !request.body.is_empty() {
            self.hear(&request.body);
        }
        let cseq = request.cseq();
        let first = self.acked.send_if_modified(|n| {
            let first = *n < cseq;
            *n = cseq.max(*n);
            first
        });
        if first {
            agent.events.push(Event::Confirmed { call: self.id.clone() });
        }
    }

    /// The caller's CANCEL (RFC 3261 §9.2).
    pub(super) fn cancelled(&self, agent: &Agent, request: &Message, from: SocketAddr) {
        let same = lock(&self.data).invite.branch() == request.branch();
        if !same {
            agent.respond(request, 481, from);
            return;
        }
        agent.respond(request, 200, from);
        if matches!(*self.phase.borrow(), Phase::Ringing(_)) {
            self.respond(agent, 487);
            self.over(Ending::Cancelled);
            agent.events.push(Event::Cancelled { call: self.id.clone() });
        }
    }

    /// A request in the dialog.
    pub(super) fn inside(self: &Arc<Self>, agent: &Arc<Agent>, request: &Message, from: SocketAddr) {
        let ours = lock(&self.data).dialog.as_ref().is_some_and(|dialog| dialog.owns(request));
        match request.method() {
            _ if !ours || self.is_over() => agent.respond(request, 481, from),
            "BYE" => {
                agent.respond(request, 200, from);
                self.over(Ending::Bye);
                agent.events.push(Event::Ended { call: self.id.clone() });
            }
            "INVITE" => {
                if let Some(dialog) = &mut lock(&self.data).dialog {
                    dialog.refresh(request);
                }
                self.accept(agent, request, from);
                let direction = sdp::read(&request.body).map_or(Direction::SendRecv, |remote| remote.direction);
                agent.events.push(Event::Reinvited { call: self.id.clone(), direction });
            }
            "OPTIONS" | "INFO" | "MESSAGE" | "NOTIFY" => agent.take(request, from),
            _ => agent.respond(request, 405, from),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Over(_))
    }

    /// The end: no audio, no dialog.
    pub(super) fn over(&self, ending: Ending) {
        self.session.stop();
        self.phase.send_replace(Phase::Over(ending));
    }
}

const SDP: &str = "application/sdp";
