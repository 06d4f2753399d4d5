//! How a command ends when it fails: one sentence and an exit code of sysexits.h.

use sipdoor::admin::Trouble;
use sipdoor::certs::Unwritten;
use sipdoor::config::{Settings, Subject};
use sipdoor::net;
use sipdoor::net::tls::CertificateError;
use sipdoor::store::StoreError;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// One sentence for the operator, with the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    sentence: String,
}

/// The exit codes in use, as sysexits.h numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// The command line cannot be read.
    Usage = 64,
    /// The input cannot be used.
    Input = 66,
    /// An address is taken, or no door answers.
    Unavailable = 69,
    /// A fault of the program.
    Software = 70,
    /// The system refuses.
    System = 71,
    /// A file or a socket cannot be made.
    CannotMake = 73,
    /// Not permitted.
    Permission = 77,
    /// A setting, or a file that a setting names.
    Settings = 78,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

impl Failure {
    pub(crate) fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into() }
    }

    /// The same, with the place of the setting that it is about.
    pub(crate) fn about(self, settings: &Settings, subject: Option<&Subject>) -> Self {
        let place = subject.map(|subject| settings.locate(subject)).unwrap_or_default();
        Self { code: self.code, sentence: place + &self.sentence }
    }

    pub(crate) fn system(what: &str, error: &io::Error) -> Self {
        Self::new(Code::System, format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.sentence)
    }
}

impl From<sipdoor::config::Error> for Failure {
    fn from(error: sipdoor::config::Error) -> Self {
        Self::new(Code::Settings, error.to_string())
    }
}

impl From<Unwritten> for Failure {
    fn from(error: Unwritten) -> Self {
        let code = match &error {
            Unwritten::Exists(_) => Code::CannotMake,
            Unwritten::Io(_, error) => of(error, Code::CannotMake),
            Unwritten::Make(_) => Code::Software,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let code = match &trouble {
            Trouble::Answered(_) | Trouble::Answer(..) => Code::Unavailable,
            Trouble::NoSocket(_) => Code::CannotMake,
            Trouble::Bind(_, error) => of(error, Code::CannotMake),
            Trouble::Nobody(_, error) => of(error, Code::Unavailable),
        };
        Self::new(code, trouble.to_string())
    }
}

impl From<sipdoor::observe::BadLevel> for Failure {
    fn from(error: sipdoor::observe::BadLevel) -> Self {
        Self::new(Code::Settings, error.to_string())
    }
}

impl From<net::Error> for Failure {
    fn from(error: net::Error) -> Self {
        let code = match &error {
            net::Error::Listen(_, _, error) | net::Error::Inside(_, _, error) => match error.kind() {
                io::ErrorKind::AddrInUse => Code::Unavailable,
                io::ErrorKind::PermissionDenied => Code::Permission,
                _ => Code::Settings,
            },
            net::Error::Backend(..) => Code::Settings,
            net::Error::Store(error) => store(error),
            net::Error::Certificate(error) => certificate(error),
            net::Error::System(..) => Code::System,
            net::Error::Worker(..) => Code::Software,
        };
        Self::new(code, error.to_string())
    }
}

/// What an error of a door that was to be opened is about.
pub(crate) fn subject(error: &net::Error) -> Option<Subject> {
    match error {
        net::Error::Listen(transport, address, _) => Some(Subject::Listener(*transport, *address)),
        net::Error::Inside(..) => Some(Subject::Inside),
        net::Error::Store(StoreError::Thread(_)) => None,
        net::Error::Store(_) => Some(Subject::State),
        net::Error::Certificate(error) => Some(Subject::File(file(error).clone())),
        net::Error::Backend(..) | net::Error::System(..) | net::Error::Worker(..) => None,
    }
}

fn file(error: &CertificateError) -> &PathBuf {
    match error {
        CertificateError::Unreadable(path, _)
        | CertificateError::NoCertificate(path)
        | CertificateError::NoKey(path)
        | CertificateError::OtherKey { key: path, .. }
        | CertificateError::BadCertificate(path, _)
        | CertificateError::BadKey(path, _) => path,
    }
}

fn store(error: &StoreError) -> Code {
    match error {
        StoreError::Directory(_, error) | StoreError::Open(_, error) | StoreError::Key(_, error) => {
            of(error, Code::CannotMake)
        }
        StoreError::Locked(_) => Code::Unavailable,
        StoreError::Database(..) | StoreError::KeySize(..) => Code::CannotMake,
        StoreError::Thread(_) => Code::System,
    }
}

fn certificate(error: &CertificateError) -> Code {
    match error {
        CertificateError::Unreadable(_, error) => of(error, Code::Settings),
        _ => Code::Settings,
    }
}

/// The code of a system error: permission is a matter of its own.
pub(crate) fn of(error: &io::Error, otherwise: Code) -> Code {
    if error.kind() == io::ErrorKind::PermissionDenied { Code::Permission } else { otherwise }
}

/// Prints one line; a reader who has gone away is no failure.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    drop(writeln!(io::stdout().lock(), "{line}"));
}
