//! The shell: it moves bytes and knows no header.
//!
//! [`Server::start`] opens the store, reads the certificates, binds every socket and starts the workers, each a thread
//! with a runtime and sockets of its own. A datagram goes `udp` → `worker` → [`Proxy::receive`](crate::proxy::Proxy) →
//! socket; a connection goes `listen` → `tls` → `stream` → `worker`, and its answers come through its mailbox in
//! `flows`. What all workers share is in [`Door`].

mod caps;
mod certificate;
mod error;
mod flows;
mod listen;
mod mmsg;
mod stream;
pub mod tls;
mod udp;
mod worker;

pub use error::Error;
pub use mmsg::raise_descriptors;

use crate::config::{Config, Limits, Listener};
use crate::flow::{Side, Transport};
use crate::observe::{Counters, Snapshot};
use crate::proxy::{Now, Shared};
use crate::store::Store;
use caps::Caps;
use flows::Flows;
use listen::{Bound, Outside};
use mmsg::Receiver;
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tls::{About, Tls};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};
use worker::{InsideSocket, Worker};

/// A running door.
pub struct Server {
    door: Arc<Door>,
    config: Config,
    stop: watch::Sender<bool>,
    ended: mpsc::UnboundedReceiver<Error>,
    threads: Vec<JoinHandle<()>>,
    /// Last, so that it is still there when the workers end; dropping it writes what is not yet written.
    _store: Store,
}

impl Server {
    /// Opens the door. When it returns, every listener takes connections.
    pub fn start(mut config: Config) -> Result<Self, Error> {
        // Only an earlier door in this process can have installed one, and it is the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let clock = Clock::start();
        let mut store = Store::open(&config.state, clock.now())?;
        let tls = load_certificates(&config)?;
        let mut bound = listen::bind(&config)?;
        config.listeners.clone_from(&bound.listeners);
        config.inside = bound.inside;
        let shared = Arc::new(Shared::new(&config, store.key(), store.take_saved(), store.journal()));
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = mpsc::unbounded_channel();
        let outside = std::mem::take(&mut bound.outside);
        let door = Arc::new(Door::new(&config, clock, shared, tls, &bound)?);
        let mut server = Self { door, config, stop, ended, threads: Vec::new(), _store: store };
        let failed = |error| Error::System("the inside socket cannot be shared", error);
        let reading = bound.inside_udp.try_clone().map_err(failed)?;
        let asterisk = Arc::new(InsideSocket::new(bound.inside_udp));
        let mut inside = Some(Inside { udp: reading, tcp: bound.inside_tcp });
        for (number, outside) in outside.into_iter().enumerate() {
            // The first worker serves Asterisk, and sweeps.
            let part = Part { number, outside, asterisk: asterisk.clone(), inside: inside.take() };
            server.spawn(part, stopped.clone(), end.clone())?;
        }
        Ok(server)
    }

    /// What can be asked of the door while it runs.
    pub fn door(&self) -> Arc<Door> {
        self.door.clone()
    }

    /// Runs until SIGTERM or SIGINT; SIGHUP loads the certificates again. An error is a worker that ended by itself.
    pub fn until_signal(mut self) -> Result<(), Error> {
        let failed = |error| Error::System("signals cannot be waited for", error);
        let runtime = event_loop().build().map_err(no_event_loop)?;
        let result = runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
            let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
            loop {
                tokio::select! {
                    _ = terminate.recv() => return Ok(()),
                    _ = interrupt.recv() => return Ok(()),
                    _ = hangup.recv() => self.reload_and_tell(),
                    error = self.ended.recv() => return error.map_or(Ok(()), Err),
                }
            }
        });
        info!("closing");
        self.shutdown();
        result
    }

    /// Loads the certificates again. An error leaves those that were loaded before in use.
    pub fn reload(&self) -> Result<(), Error> {
        let Some(tls) = &self.door.tls else { return Ok(()) };
        let certificates = tls::load(&self.config.certificates, &self.config.names)?;
        certificates.warnings().iter().for_each(|sentence| warn!("{sentence}"));
        tls.replace(certificates).map_err(tls_unusable)
    }

    /// Closes the door: every connection, then the store, with all that is not yet written.
    pub fn shutdown(self) {
        drop(self);
    }

    fn reload_and_tell(&self) {
        match self.reload() {
            Ok(()) => info!("certificates loaded again"),
            Err(error) => warn!("{error}; the certificates loaded before stay in use"),
        }
    }

    fn spawn(
        &mut self,
        part: Part,
        stopped: watch::Receiver<bool>,
        end: mpsc::UnboundedSender<Error>,
    ) -> Result<(), Error> {
        let door = self.door.clone();
        let number = part.number;
        let run = move || {
            let told = Told { number, end };
            let result = event_loop()
                .build_local(LocalOptions::default())
                .map_err(no_event_loop)
                .and_then(|runtime| runtime.block_on(part.run(door, stopped)));
            told.say(result);
        };
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(run);
        self.threads.push(thread.map_err(|error| Error::System("no thread can be started", error))?);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // A panic was told by the thread itself.
            let _ = thread.join();
        }
    }
}

/// What all workers share, and what can be asked of a running door.
pub struct Door {
    clock: Clock,
    shared: Arc<Shared>,
    counters: Counters,
    caps: Arc<Caps>,
    flows: Arc<Flows>,
    limits: Limits,
    tls: Option<Tls>,
    listeners: Vec<Listener>,
    inside: SocketAddr,
    backend: SocketAddr,
    names: usize,
}

impl Door {
    fn new(config: &Config, clock: Clock, shared: Arc<Shared>, tls: Option<Tls>, bound: &Bound) -> Result<Self, Error> {
        let mut boot = [0; 4];
        let no_random = |_| Error::System("no random bytes", io::Error::other("the system's source failed"));
        aws_lc_rs::rand::fill(&mut boot).map_err(no_random)?;
        Ok(Self {
            clock,
            shared,
            counters: Counters::new(config.workers),
            caps: Arc::new(Caps::new(&config.limits, room_for_connections(config)?)),
            flows: Arc::new(Flows::new(u32::from_ne_bytes(boot), config.limits.queue)),
            limits: config.limits.clone(),
            tls,
            listeners: bound.listeners.clone(),
            inside: bound.inside,
            backend: config.backend,
            names: config.names.len(),
        })
    }

    /// The counters, now.
    pub fn counters(&self) -> Snapshot {
        self.counters.snapshot()
    }

    /// How many outside connections of a transport are open.
    pub fn connections(&self, transport: Transport) -> usize {
        self.caps.open(transport)
    }

    /// How many phones are registered.
    pub fn bindings(&self) -> usize {
        self.shared.bindings()
    }

    /// How long the door has been open.
    pub fn uptime(&self) -> Duration {
        self.clock.start.elapsed()
    }

    /// The outside listeners, with the addresses they really have.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The address that Asterisk talks to.
    pub const fn inside(&self) -> SocketAddr {
        self.inside
    }

    /// Asterisk's address.
    pub const fn backend(&self) -> SocketAddr {
        self.backend
    }

    /// How many names are served.
    pub const fn names(&self) -> usize {
        self.names
    }

    /// The certificates in use.
    pub fn certificates(&self) -> Vec<About> {
        self.tls.as_ref().map(Tls::about).unwrap_or_default()
    }
}

/// The one clock: the wall clock at the start, and from then on what has passed since.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Instant,
    epoch: u64,
}

impl Clock {
    fn start() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), epoch: u64::try_from(epoch.as_millis()).unwrap_or(u64::MAX) }
    }

    fn now(&self) -> Now {
        let since = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now(self.epoch.saturating_add(since))
    }
}

/// The sockets that Asterisk talks to.
struct Inside {
    udp: UdpSocket,
    tcp: TcpListener,
}

/// What one worker is started with.
struct Part {
    number: usize,
    outside: Outside,
    /// Every worker sends to Asterisk,
    asterisk: Arc<InsideSocket>,
    /// one hears it.
    inside: Option<Inside>,
}

impl Part {
    /// The life of a worker's thread: until the door closes, or a socket breaks.
    async fn run(self, door: Arc<Door>, mut stopped: watch::Receiver<bool>) -> Result<(), Error> {
        let number = self.number;
        let broken = |error: io::Error| Error::Worker(number, error.to_string());
        let mut tasks = JoinSet::new();
        let receiver = Rc::new(RefCell::new(Receiver::new()));
        let clones = self.outside.udp.iter().map(|(socket, bound)| Ok((socket.try_clone()?, *bound)));
        let sending = clones.collect::<io::Result<Vec<_>>>().map_err(broken)?;
        let table = door.counters.table(number);
        let worker = Rc::new(Worker::new(door.clone(), table, sending, self.asterisk));
        for (socket, bound) in self.outside.udp {
            tasks.spawn_local(udp::serve(worker.clone(), receiver.clone(), socket, bound, Side::Outside));
        }
        for (listener, transport) in self.outside.streams {
            tasks.spawn_local(listen::accept(worker.clone(), listener, transport));
        }
        if let Some(Inside { udp, tcp }) = self.inside {
            tasks.spawn_local(udp::serve(worker.clone(), receiver, udp, door.inside, Side::Inside));
            tasks.spawn_local(listen::accept_inside(worker.clone(), tcp));
            tasks.spawn_local(sweep(door.clone()));
        }
        tokio::select! {
            // The sender is gone only when the door is.
            _ = stopped.wait_for(|stop| *stop) => Ok(()),
            Some(ended) = tasks.join_next() => match ended {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(broken(error)),
                Err(error) => Err(Error::Worker(number, error.to_string())),
            },
        }
    }
}

/// Forgets expired phones.
async fn sweep(door: Arc<Door>) -> io::Result<()> {
    let mut turns = tokio::time::interval(SWEEP);
    loop {
        turns.tick().await;
        door.shared.expire(door.clock.now());
    }
}

/// Tells the end of a worker, however it came.
struct Told {
    number: usize,
    end: mpsc::UnboundedSender<Error>,
}

impl Told {
    fn say(self, result: Result<(), Error>) {
        if let Err(error) = result {
            // Nobody listens while the door closes.
            let _ = self.end.send(error);
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.end.send(Error::Worker(self.number, "it panicked".into()));
        }
    }
}

fn event_loop() -> Builder {
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    builder
}

fn no_event_loop(error: io::Error) -> Error {
    Error::System("no event loop can be made", error)
}

fn load_certificates(config: &Config) -> Result<Option<Tls>, Error> {
    if !config.listeners.iter().any(|listener| listener.transport == Transport::Tls) {
        return Ok(None);
    }
    let certificates = tls::load(&config.certificates, &config.names)?;
    certificates.warnings().iter().for_each(|sentence| warn!("{sentence}"));
    Tls::new(certificates).map(Some).map_err(tls_unusable)
}

fn tls_unusable(error: rustls::Error) -> Error {
    Error::System("TLS cannot be set up", io::Error::other(error))
}

/// How many connections the limit of descriptors leaves room for.
fn room_for_connections(config: &Config) -> Result<usize, Error> {
    let limit = raise_descriptors().map_err(|error| Error::System("no limit of descriptors", error))?;
    let room = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(RESERVED).max(1);
    let wanted = config.limits.connections;
    if room < wanted {
        warn!(
            "only {room} connections have room under the limit of {limit} open files: raise LimitNOFILE, or set limits.connections = {room}"
        );
    }
    Ok(room)
}

/// Descriptors for everything that is no connection.
const RESERVED: usize = 128;
const SWEEP: Duration = Duration::from_secs(5);
