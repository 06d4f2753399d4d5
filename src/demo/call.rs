//! A call, as its owner holds it.

use super::agent::Agent;
use super::dialog::Dialog;
use super::events::Event;
use super::invite::Core;
use super::message::Message;
use super::rtp::Media;
use super::sdp::{Direction, Remote};
use super::{Error, lock};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

pub use super::invite::{Ending, Phase};

/// A call of a phone's, in or out. Clones are the same call.
#[derive(Clone)]
pub struct Call {
    pub(super) agent: Arc<Agent>,
    pub(super) core: Arc<Core>,
}

impl Call {
    /// The Call-ID, as events name it.
    pub fn id(&self) -> &str {
        &self.core.id
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        *self.core.phase.borrow()
    }

    /// Waits until the other end rings (any 1xx over 100, or more); the status of that 1xx, 200 if it was answered.
    pub async fn ringing(&self, limit: Duration) -> Result<u16, Error> {
        let reached = |phase: &Phase| !matches!(phase, Phase::Calling | Phase::Trying);
        match self.phase_when("ringing", limit, reached).await? {
            Phase::Ringing(status) => Ok(status),
            Phase::Up => Ok(200),
            phase => Err(self.ended_early(phase)),
        }
    }

    /// Waits until it is answered.
    pub async fn answered(&self, limit: Duration) -> Result<(), Error> {
        let reached = |phase: &Phase| matches!(phase, Phase::Up | Phase::Over(_));
        match self.phase_when("an answer to the call", limit, reached).await? {
            Phase::Up => Ok(()),
            phase => Err(self.ended_early(phase)),
        }
    }

    /// Waits until it is over, and says how.
    pub async fn ended(&self, limit: Duration) -> Result<Ending, Error> {
        match self.phase_when("the end of the call", limit, |phase| matches!(phase, Phase::Over(_))).await? {
            Phase::Over(ending) => Ok(ending),
            _ => Err(Error::Closed),
        }
    }

    /// Waits for the caller's ACK to the answer of a call that came in.
    pub async fn confirmed(&self, limit: Duration) -> Result<(), Error> {
        let mut acked = self.core.acked.subscribe();
        let came = timeout(limit, acked.wait_for(|cseq| *cseq > 0)).await;
        came.map_err(|_| Error::timeout("the ACK"))?.map(drop).map_err(|_| Error::Closed)
    }

    /// Answers a call that rings here.
    pub fn answer(&self) -> Result<(), Error> {
        self.core.answer(&self.agent)
    }

    /// Refuses a call that rings here.
    pub fn refuse(&self, status: u16) -> Result<(), Error> {
        self.core.refuse(&self.agent, status)
    }

    /// Gives up a call that is not answered yet, and waits until the other side has seen it: [`Ending::Refused`] with
    /// 487 if all goes well.
    pub async fn cancel(&self, limit: Duration) -> Result<Ending, Error> {
        // Not before a 1xx (RFC 3261 §9.1).
        self.phase_when("a 1xx", limit, |phase| !matches!(phase, Phase::Calling)).await?;
        if !matches!(self.phase(), Phase::Trying | Phase::Ringing(_)) {
            return Err(Error::Closed);
        }
        let invite = lock(&self.core.data).invite.clone();
        let response = self.agent.cancel(&invite).await?;
        response.success()?;
        self.ended(limit).await
    }

    /// Hangs up; the final response to BYE.
    pub async fn hang_up(&self) -> Result<Message, Error> {
        let request = self.core.request(&self.agent, "BYE", None)?;
        let done = self.core.exchange(&self.agent, request).await;
        self.core.over(Ending::HangUp);
        Ok(done?.response)
    }

    /// re-INVITE with `a=sendonly`.
    pub async fn hold(&self) -> Result<Message, Error> {
        self.change(Direction::SendOnly).await
    }

    /// re-INVITE with `a=sendrecv`.
    pub async fn resume(&self) -> Result<Message, Error> {
        self.change(Direction::SendRecv).await
    }

    /// re-INVITE with this direction; the final response.
    pub async fn change(&self, direction: Direction) -> Result<Message, Error> {
        self.core.reinvite(&self.agent, direction).await
    }

    /// Any other request in the dialog; the final response.
    pub async fn request(&self, method: &str, body: Option<(&str, &str)>) -> Result<Message, Error> {
        let mut request = self.core.request(&self.agent, method, None)?;
        if let Some((kind, text)) = body {
            request.set_body(kind, text);
        }
        Ok(self.core.exchange(&self.agent, request).await?.response)
    }

    /// Waits for the other side's re-INVITE; its direction, seen from there.
    pub async fn reinvited(&self, limit: Duration) -> Result<Direction, Error> {
        let pick = |event: &Event| match event {
            Event::Reinvited { call, direction } if *call == self.core.id => Some(*direction),
            _ => None,
        };
        self.agent.events.wait("a re-INVITE", limit, pick).await
    }

    /// Waits until so many more RTP packets have come.
    pub async fn rtp(&self, packets: u64, limit: Duration) -> Result<u64, Error> {
        self.core.session.watch().more(packets, limit).await
    }

    /// Waits until no RTP packet has come for `pause`.
    pub async fn quiet(&self, pause: Duration, limit: Duration) -> Result<(), Error> {
        self.core.session.watch().quiet(pause, limit).await
    }

    /// RTP packets received so far.
    pub fn received(&self) -> u64 {
        self.core.session.received()
    }

    /// RTP packets sent so far.
    pub fn sent(&self) -> u64 {
        self.core.session.sent()
    }

    /// Where the last RTP packet came from.
    pub fn rtp_source(&self) -> Option<SocketAddr> {
        self.core.session.source()
    }

    /// What the other side's description says of its audio.
    pub fn remote(&self) -> Option<Remote> {
        lock(&self.core.data).remote
    }

    /// The dialog: its route set, target and tags.
    pub fn dialog(&self) -> Option<Dialog> {
        lock(&self.core.data).dialog.clone()
    }

    /// The INVITE that began it, as received or as sent last.
    pub fn invite(&self) -> Message {
        lock(&self.core.data).invite.clone()
    }

    async fn phase_when(&self, what: &str, limit: Duration, reached: impl Fn(&Phase) -> bool) -> Result<Phase, Error> {
        let mut phases = self.core.phase.subscribe();
        let found = timeout(limit, phases.wait_for(|phase| reached(phase))).await;
        found.map_err(|_| Error::timeout(what))?.map(|phase| *phase).map_err(|_| Error::Closed)
    }

    fn ended_early(&self, phase: Phase) -> Error {
        match phase {
            Phase::Over(Ending::Refused(status)) => {
                let response = Message::response(&self.invite(), status, "");
                Error::Refused(Box::new(response))
            }
            _ => Error::Closed,
        }
    }
}

impl Agent {
    pub(super) fn dial(self: &Arc<Self>, uri: &str, media: Media) -> Result<Call, Error> {
        let core = Core::outgoing(self, self.fresh("INVITE", uri, uri), media)?;
        tokio::spawn(Arc::clone(&core).drive(Arc::clone(self)));
        Ok(Call { agent: Arc::clone(self), core })
    }

    pub(super) async fn incoming(self: &Arc<Self>, limit: Duration) -> Result<Call, Error> {
        let pick = |event: &Event| match event {
            Event::Incoming { call, .. } => Some(call.clone()),
            _ => None,
        };
        let id = self.events.wait("a call", limit, pick).await?;
        let core = lock(&self.state).calls.get(&id).cloned().ok_or(Error::Closed)?;
        Ok(Call { agent: Arc::clone(self), core })
    }
}
