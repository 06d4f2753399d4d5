//! Settings as written: every value beside the place where it stands, so that a complaint can name it.

use crate::flow::Transport;
use std::fmt;
use std::sync::Arc;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value, unchecked.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it is the default.
    BuiltIn,
    /// The file and its line, counted from 1.
    Line(Arc<str>, usize),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl<T> At<T> {
    /// A default.
    pub const fn built_in(value: T) -> Self {
        Self { value, place: Place::BuiltIn }
    }

    /// The place alone.
    pub fn here(&self) -> Place {
        self.place.clone()
    }
}

impl Place {
    /// The beginning of a complaint: the place, and the key unless the place names it already.
    pub(super) const fn before<'a>(&'a self, key: &'a str) -> impl fmt::Display {
        Before { place: self, key }
    }
}

struct Before<'a> {
    place: &'a Place,
    key: &'a str,
}

impl fmt::Display for Before<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key;
        match self.place {
            Place::BuiltIn if key.is_empty() => Ok(()),
            Place::BuiltIn => write!(to, "{key}: "),
            Place::Line(file, line) if key.is_empty() => write!(to, "{file}:{line}: "),
            Place::Line(file, line) => write!(to, "{file}:{line}: {key}: "),
            Place::Environment(name) | Place::Flag(name) => write!(to, "{name}: "),
        }
    }
}

/// One layer of settings; what a layer does not say is `None`.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// `names`
    pub names: Option<At<Vec<At<String>>>>,
    /// `advertise`
    pub advertise: Option<Vec<At<String>>>,
    /// `[[listen]]`
    pub listen: Option<Vec<Listen>>,
    /// `[[certificate]]`
    pub certificates: Option<Vec<Certificate>>,
    /// `backend.address`
    pub backend: Option<At<String>>,
    /// `backend.inside`
    pub inside: Option<At<String>>,
    /// `state`
    pub state: Option<At<String>>,
    /// `admin`
    pub admin: Option<At<String>>,
    /// `observe`
    pub observe: Option<At<bool>>,
    /// `workers`
    pub workers: Option<At<i64>>,
    /// `log`
    pub log: Option<At<String>>,
    /// `[gate]`, only in a file
    pub gate: Gate,
    /// `[limits]`, only in a file
    pub limits: Limits,
}

/// One listener as written.
#[derive(Clone, Debug)]
pub struct Listen {
    /// `transport`, or the flag's own.
    pub transport: Transport,
    /// `address`
    pub address: At<String>,
    /// `advertise`
    pub advertise: Option<At<String>>,
}

/// One certificate as written.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// `cert`
    pub cert: At<String>,
    /// `key`
    pub key: At<String>,
}

/// `[gate]` as written.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    pub(super) methods: Option<At<Vec<At<String>>>>,
    pub(super) strip: Option<Vec<At<String>>>,
    pub(super) deny: Option<Vec<At<String>>>,
}

/// `[limits]` as written.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    pub(super) first_byte: Option<At<String>>,
    pub(super) hello: Option<At<String>>,
    pub(super) first_message: Option<At<String>>,
    pub(super) idle: Option<At<String>>,
    pub(super) write: Option<At<String>>,
    pub(super) queue: Option<At<i64>>,
    pub(super) head: Option<At<i64>>,
    pub(super) message: Option<At<i64>>,
    pub(super) headers: Option<At<i64>>,
    pub(super) connections: Option<At<i64>>,
    pub(super) per_source_new: Option<At<i64>>,
    pub(super) per_source: Option<At<i64>>,
    pub(super) rate: Option<At<i64>>,
    pub(super) bindings: Option<At<i64>>,
}

impl Written {
    /// This layer where it says something, `under` where it does not. Lists replace lists as a whole.
    /// `[gate]` and `[limits]` are the file's, which is always the lowest layer.
    pub fn over(self, under: Self) -> Self {
        Self {
            names: self.names.or(under.names),
            advertise: self.advertise.or(under.advertise),
            listen: self.listen.or(under.listen),
            certificates: self.certificates.or(under.certificates),
            backend: self.backend.or(under.backend),
            inside: self.inside.or(under.inside),
            state: self.state.or(under.state),
            admin: self.admin.or(under.admin),
            observe: self.observe.or(under.observe),
            workers: self.workers.or(under.workers),
            log: self.log.or(under.log),
            gate: under.gate,
            limits: under.limits,
        }
    }
}
