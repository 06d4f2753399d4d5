//! The admin socket: what `sipdoor status` asks a running door, over a Unix socket that only its owner can open.
//!
//! One line of JSON asks, one line of JSON answers. The server is a thread of its own that serves one caller at a time,
//! each with a deadline and a bounded request: a caller who stalls delays other callers, never the door.

mod of;
mod table;

pub use table::{Shape, expiry, table};

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt;
use std::fs::{File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A caller gets this long for its request, and again for reading the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A request is one short line.
const REQUEST: usize = 1024;
/// An answer is one line too: rows, listeners, certificates.
const ANSWER: u64 = 4 << 20;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The state of the door, with every counter.
    Status,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// The request was not understood.
    Error(String),
}

/// A door, seen from outside of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the running program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since its start.
    pub uptime: u64,
    /// How many names it serves; which ones is nobody's business here.
    pub names: usize,
    /// Registered phones.
    pub bindings: usize,
    /// Open connections by transport.
    pub connections: Vec<Connections>,
    /// The outside listeners, as bound.
    pub listeners: Vec<Listening>,
    /// Asterisk's address.
    pub backend: String,
    /// The door's address towards it.
    pub inside: String,
    /// The certificates in use.
    pub certificates: Vec<Certificate>,
    /// The counters in policy order, by transport.
    pub rows: Vec<Row>,
}

/// Open connections of one transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// `tcp` or `tls`.
    pub transport: String,
    /// How many.
    pub open: u64,
}

/// One outside listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Where it is bound.
    pub address: String,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its file.
    pub file: String,
    /// When it ends, in seconds since the Unix epoch.
    pub expires: i64,
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// `accept`, `drop` (in silence) or `reject` (with an answer, since its hosts are names).
    pub target: String,
    /// The name of the rule that accepted, or the reason of the refusal.
    pub reason: String,
    /// Messages, datagrams or connections.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Why the admin socket cannot be made, or asked.
#[derive(Debug)]
pub enum Trouble {
    /// Another door answers there.
    Answered(PathBuf),
    /// There is a file that is no socket.
    NoSocket(PathBuf),
    /// It cannot be made.
    Bind(PathBuf, io::Error),
    /// Nobody answers there.
    Nobody(PathBuf, io::Error),
    /// The answer makes no sense.
    Answer(PathBuf, String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(path) => write!(
                to,
                "another door answers on {}: stop it, or give this one its own --state and --admin",
                path.display()
            ),
            Self::NoSocket(path) => {
                write!(to, "{} is not a socket, and is left alone: give another --admin", path.display())
            }
            Self::Bind(path, error) => write!(to, "the admin socket {} cannot be made: {error}", path.display()),
            Self::Nobody(path, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(to, "{} may only be asked by the user that runs the door: try sudo", path.display())
            }
            Self::Nobody(path, error) => write!(
                to,
                "no door answers on {} ({error}): is it running? Its settings file (-c) or --admin says where it is asked",
                path.display()
            ),
            Self::Answer(path, what) => write!(to, "the answer on {} cannot be read: {what}", path.display()),
        }
    }
}

impl std::error::Error for Trouble {}

/// The bound socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Makes the socket. A socket file that nobody answers on is a dead door's and is replaced.
    pub fn bind(path: &Path) -> Result<Self, Trouble> {
        if let Ok(there) = path.symlink_metadata() {
            if !there.file_type().is_socket() {
                return Err(Trouble::NoSocket(path.into()));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(Trouble::Answered(path.into()));
            }
            std::fs::remove_file(path).map_err(|error| Trouble::Bind(path.into(), error))?;
        }
        let listener = private(path).map_err(|error| Trouble::Bind(path.into(), error))?;
        Ok(Self { listener, path: path.into() })
    }

    /// Serves callers until the process ends, one after the other.
    pub fn serve(&self, answer: impl Fn(Request) -> Answer) {
        loop {
            match self.listener.accept() {
                // What goes wrong with one caller is that caller's trouble.
                Ok((caller, _)) => drop(converse(&caller, &answer)),
                // Out of file descriptors: the door needs them more; try again when some may be free.
                Err(error) => {
                    tracing::debug!(%error, "admin socket");
                    std::thread::sleep(PATIENCE);
                }
            }
        }
    }

    /// Takes the socket's file away, at the end.
    pub fn remove(&self) {
        // Gone already is as good.
        drop(std::fs::remove_file(&self.path));
    }
}

/// A listening socket whose mode is set before it has a name: there is no moment in which others could open it.
fn private(path: &Path) -> io::Result<UnixListener> {
    let socket = File::from(OwnedFd::from(Socket::new(Domain::UNIX, Type::STREAM, None)?));
    socket.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(8)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

fn converse(caller: &UnixStream, answer: &impl Fn(Request) -> Answer) -> io::Result<()> {
    let answer = match serde_json::from_slice(&request(caller, Instant::now() + PATIENCE)?) {
        Ok(request) => answer(request),
        Err(error) => Answer::Error(format!("not a request: {error}")),
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    caller.set_write_timeout(Some(PATIENCE))?;
    let mut caller = caller;
    caller.write_all(text.as_bytes())
}

/// The bytes up to the end of the first line, or as many as a request may have.
fn request(mut caller: &UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut piece = [0; REQUEST];
    while line.len() < REQUEST && !line.contains(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        caller.set_read_timeout(Some(left))?;
        match caller.read(&mut piece)? {
            0 => break,
            n => line.extend(piece.iter().take(n)),
        }
    }
    Ok(line)
}

/// Asks the door behind `path`.
pub fn ask(path: &Path, request: Request) -> Result<Answer, Trouble> {
    let text = exchange(path, request).map_err(|error| Trouble::Nobody(path.into(), error))?;
    serde_json::from_str(&text).map_err(|error| Trouble::Answer(path.into(), error.to_string()))
}

fn exchange(path: &Path, request: Request) -> io::Result<String> {
    let mut door = UnixStream::connect(path)?;
    door.set_read_timeout(Some(PATIENCE * 2))?;
    door.set_write_timeout(Some(PATIENCE))?;
    let mut text = serde_json::to_string(&request)?;
    text.push('\n');
    door.write_all(text.as_bytes())?;
    let mut answer = String::new();
    BufReader::new((&door).take(ANSWER)).read_line(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("sipdoor-admin-{name}-{}", std::process::id()))
    }

    fn serving(path: &Path) -> Arc<Server> {
        let server = Arc::new(Server::bind(path).unwrap());
        let serving = Arc::clone(&server);
        let status = Status { bindings: 7, ..Status::default() };
        std::thread::spawn(move || serving.serve(|_| Answer::Status(Box::new(status.clone()))));
        server
    }

    #[test]
    fn a_door_answers_and_its_socket_is_private() {
        let path = path("answers");
        let server = serving(&path);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let Answer::Status(status) = ask(&path, Request::Status).unwrap() else { panic!("not a status") };
        assert_eq!(status.bindings, 7);
        assert!(matches!(Server::bind(&path), Err(Trouble::Answered(_))));
        server.remove();
        assert!(matches!(ask(&path, Request::Status), Err(Trouble::Nobody(..))));
    }

    #[test]
    fn nonsense_and_endless_requests_get_an_error_and_the_next_caller_is_served() {
        let path = path("nonsense");
        let server = serving(&path);
        for nonsense in ["hello\n", "{\"command\":\"fire\"}\n", &"x".repeat(REQUEST)] {
            let mut caller = UnixStream::connect(&path).unwrap();
            caller.write_all(nonsense.as_bytes()).unwrap();
            let mut answer = String::new();
            caller.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("{\"error\":\"not a request"), "{answer}");
        }
        let _silent = UnixStream::connect(&path).unwrap();
        assert!(ask(&path, Request::Status).is_ok());
        server.remove();
    }

    #[test]
    fn a_dead_door_s_socket_is_replaced_and_any_other_file_is_not() {
        let path = path("stale");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(serving(&path));
        assert!(ask(&path, Request::Status).is_ok());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        assert!(matches!(Server::bind(&path), Err(Trouble::NoSocket(_))));
        std::fs::remove_file(&path).unwrap();
    }
}
