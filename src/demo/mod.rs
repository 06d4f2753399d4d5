//! `sipdoor demo`: a phone, a small PBX and some strangers around a real door, over real sockets.
//!
//! Everything in here is for the demo and for tests only. The peers have their own reader of SIP, so that what the door
//! sends is understood, or not, by somebody who shares no code with it.
//!
//! ```text
//!  phone.rs, call.rs, scanner.rs                   pbx.rs          what they do
//!      agent.rs, exchange.rs, invite.rs, dialog.rs, events.rs      transactions, calls
//!      message.rs, digest.rs, sdp.rs, rtp.rs, wire.rs              bytes
//!  house.rs  phones.rs, strangers.rs  stage.rs                     the story: who is there, two scenes, what is printed
//! ```

pub mod agent;
pub mod call;
pub mod dialog;
pub mod digest;
pub mod events;
mod exchange;
mod house;
mod invite;
pub mod message;
pub mod pbx;
pub mod phone;
mod phones;
pub mod rtp;
pub mod scanner;
pub mod sdp;
mod stage;
mod strangers;
pub mod wire;

use house::House;
use pbx::Pbx;
use stage::Stage;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How the demo is played.
#[derive(Clone, Debug)]
pub struct Options {
    /// The secret domain.
    pub name: String,
    /// The door's outside address.
    pub listen: IpAddr,
    /// UDP and TCP; `None`: 5060 if it is free, else any.
    pub port: Option<u16>,
    /// TLS; `None`: 5061 if it is free, else any.
    pub tls_port: Option<u16>,
    /// Whether the door and the PBX stay when the story is over.
    pub stay: bool,
}

/// Plays the story on standard output. Whether all went as it should.
pub fn run(options: &Options) -> Result<bool, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(play(options))
}

async fn play(options: &Options) -> Result<bool, Error> {
    let mut stage = Stage::default();
    let password = message::token();
    let users = phones::USERS.map(|(_, user)| (user, password.as_str()));
    let pbx = Pbx::start((IpAddr::from([127, 0, 0, 1]), 0).into(), &users).await?;
    let house = House::open(options, password.clone(), pbx.local())?;
    stage.say(house.introduction());

    stage.title("Phones that know the name");
    for (transport, user) in phones::USERS {
        phones::play(&mut stage, &house, &pbx, transport, user).await;
    }
    phones::peculiar(&mut stage, &house, &pbx).await;
    stage.play("TLS 101 with a wrong password", phones::wrong_password(&house)).await;

    stage.title("Strangers who know the address");
    strangers::play(&mut stage, &house, &pbx).await?;

    stage.title("What the door counted (sipdoor status)");
    stage.say(house.table());
    let (all, failed) = stage.counts();
    match failed {
        0 => stage.say(format_args!("All {all} steps went as they should.")),
        _ => stage.say(format_args!("{failed} of {all} steps FAILED.")),
    }
    if options.stay {
        stay(&stage, &house, &pbx).await?;
        stage.say(house.table());
    }
    house.close();
    Ok(stage.good())
}

/// Until the operator has had enough; says who comes to the PBX meanwhile.
async fn stay(stage: &Stage, house: &House, pbx: &Pbx) -> Result<(), Error> {
    let admin = house.answer_status()?;
    // What phones did in the story is over.
    pbx.forget();
    stage.say(house.invitation());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            users = pbx.registered() => {
                let users = if users.is_empty() { "nobody".to_owned() } else { users.join(", ") };
                stage.say(format_args!("registered: {users}"));
            }
            call = pbx.incoming(Duration::MAX) => {
                let invite = call?.invite();
                stage.say(format_args!("called: {} by {}", invite.uri(), invite.get("From").unwrap_or_default()));
            }
        }
    }
    admin.remove();
    Ok(())
}

/// Why something did not come about at a peer.
#[derive(Debug)]
pub enum Error {
    /// A socket's fault.
    Io(std::io::Error),
    /// The door does not open.
    Door(Box<crate::net::Error>),
    /// A setting is wrong.
    Settings(Box<crate::config::Error>),
    /// The handshake's fault.
    Tls(String),
    /// This did not happen in time.
    Timeout(String),
    /// A final response that is no success.
    Refused(Box<message::Message>),
    /// The connection, or the call, is over.
    Closed,
    /// It came about otherwise than it should.
    Unexpected(String),
    /// A message lacks what was needed to go on.
    Unreadable(&'static str),
}

impl Error {
    fn timeout(what: &str) -> Self {
        Self::Timeout(what.to_owned())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Door(error) => write!(f, "{error}"),
            Self::Settings(error) => write!(f, "{error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Timeout(what) => write!(f, "timed out: {what}"),
            Self::Refused(response) => write!(f, "answered {}", response.status()),
            Self::Closed => write!(f, "closed"),
            Self::Unexpected(what) => write!(f, "{what}"),
            Self::Unreadable(what) => write!(f, "a message without {what}"),
        }
    }
}

impl std::error::Error for Error {}

/// A lock that a panic elsewhere does not take away.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
