//! What can be wrong with settings: one sentence each, with the place, the key and what to write instead.

use super::file::KEYS;
use super::written::Place;
use super::{BadAddress, BadDuration, BadName};
use crate::flow::Transport;
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// A setting that cannot be used.
#[derive(Clone, Debug)]
pub struct Error {
    /// Where it was written.
    pub place: Place,
    /// Its key in the file, with its section; empty where the cause names it.
    pub key: Cow<'static, str>,
    /// What is wrong.
    pub cause: Box<Cause>,
}

impl Error {
    /// A complaint about something that was not written anywhere.
    pub(super) fn nowhere(key: &'static str, cause: Cause) -> Self {
        Self { place: Place::BuiltIn, key: Cow::Borrowed(key), cause: Box::new(cause) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}{}", self.place.before(&self.key), self.cause)
    }
}

impl std::error::Error for Error {}

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The file cannot be read.
    Unreadable {
        /** Which. */
        path: PathBuf,
        /** The system's word. */
        error: String,
    },
    /// The file is not TOML.
    Syntax(String),
    /// No setting has this key.
    UnknownKey {
        /** As written. */
        key: String,
        /** Where it stands. */
        section: String,
    },
    /// There is no such section.
    UnknownSection(String),
    /// A section needs this key.
    MissingKey {
        /** Which. */
        key: String,
        /** Where. */
        section: String,
        /** A right value. */
        example: &'static str,
    },
    /// A list where a text should be, or the like.
    WrongType {
        /** What was found. */
        message: String,
        /** Where. */
        key: String,
        /** A right value. */
        example: &'static str,
    },
    /// There is no name at all.
    NoName,
    /// A name that is none.
    Name {
        /** As written. */
        text: String,
        /** Why not. */
        why: BadName,
    },
    /// An address that is none.
    Address {
        /** As written. */
        text: String,
        /** Why not. */
        why: BadAddress,
        /** A right one. */
        example: &'static str,
    },
    /// Not an IP address, or one that no phone can send to.
    Advertise(String),
    /// An address of the other family than the listener's.
    AdvertiseFamily {
        /** To advertise. */
        advertise: IpAddr,
        /** Listened on. */
        listener: SocketAddr,
    },
    /// Two addresses of one family.
    AdvertiseTwice(IpAddr),
    /// The inside is not inside.
    NotLoopback(SocketAddr),
    /// The port is 0.
    NoPort(SocketAddr),
    /// Backend and inside are one address.
    SameAddress(SocketAddr),
    /// Backend and inside cannot talk.
    Families {
        /** Asterisk's. */
        backend: SocketAddr,
        /** The door's. */
        inside: SocketAddr,
    },
    /// A listener takes the address of the inside or of Asterisk.
    Taken {
        /** The loopback address. */
        address: SocketAddr,
        /** The listener's. */
        listener: SocketAddr,
    },
    /// The same listener twice.
    ListenTwice {
        /** Where. */
        address: SocketAddr,
        /** The later one. */
        transport: Transport,
    },
    /// `listen = []`
    NoListener,
    /// TLS without a certificate.
    NoCertificate,
    /// As many `--cert` as `--key`, please.
    Pairs {
        /** `--cert`s. */
        certs: usize,
        /** `--key`s. */
        keys: usize,
    },
    /// An empty path.
    EmptyPath,
    /// Not a word that this setting knows.
    Choice {
        /** As written. */
        text: String,
        /** What there is. */
        choices: &'static str,
    },
    /// A length of time that is none.
    Duration {
        /** As written. */
        text: String,
        /** Why not. */
        why: BadDuration,
    },
    /// A number out of its bounds.
    Number {
        /** As written. */
        text: String,
        /** The least. */
        least: i64,
        /** The most. */
        most: i64,
    },
    /// A message cannot be smaller than its head.
    HeadOverMessage {
        /** `head` */
        head: usize,
        /** `message` */
        message: usize,
    },
    /// Not a method's name.
    Method(String),
    /// Nothing could pass.
    NoMethod,
    /// Not a header field's name.
    Header(String),
    /// A header field that no message can be without.
    NeededHeader(String),
    /// Not a network.
    Network(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                write!(to, "the settings file {} cannot be read: {error}", path.display())
            }
            Self::Syntax(message) => write!(to, "this is not TOML: {message}"),
            Self::UnknownKey { key, section } => unknown(to, key, section),
            Self::UnknownSection(name) => unknown_section(to, name),
            Self::MissingKey { key, section, example } => {
                write!(to, "[[{section}]] has no `{key}`: write {key} = {example}")
            }
            Self::WrongType { message, key, example } => write!(to, "{message}: write {key} = {example}"),
            Self::Pairs { certs, keys } => {
                write!(to, "{certs} certificate(s) and {keys} key(s): give each --cert its --key, in the same order")
            }
            Self::EmptyPath => to.write_str("the path is empty: write a file's name"),
            Self::Choice { text, choices } => write!(to, "`{text}` is none of {choices}"),
            Self::Duration { text, why } => write!(to, "`{text}`: {why}: write a time as \"500ms\", \"5s\" or \"10m\""),
            Self::Number { text, least, most } => write!(to, "`{text}`: write a number from {least} to {most}"),
            Self::HeadOverMessage { head, message } => {
                write!(to, "a head of {head} bytes in a message of {message}: make limits.message the greater one")
            }
            Self::Method(text) => {
                write!(to, "`{text}` is not a method: methods are one word in capitals, as \"INVITE\" (RFC 3261 §7.1)")
            }
            Self::NoMethod => to.write_str("without a method nothing can pass: leave the key out for all usual ones"),
            Self::Header(text) => {
                write!(to, "`{text}` is not the name of a header field: write it as \"diversion\" or \"x-my-*\"")
            }
            Self::NeededHeader(text) => write!(to, "`{text}` would take out what no call can be without: leave it out"),
            Self::Network(text) => {
                write!(to, "`{text}` is not a network: write \"203.0.113.0/24\", \"203.0.113.7\" or \"2001:db8::/32\"")
            }
            other => other.about_addresses(to),
        }
    }
}

impl Cause {
    fn about_addresses(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName => to.write_str(
                "there is no name: write names = [\"k7q2.example.com\"] in the file, or --name k7q2.example.com, or \
                 SIPDOOR_NAME: the secret domain that your phones use",
            ),
            Self::Name { text, why } => {
                write!(to, "`{text}` cannot be a name: {why}: write a domain like k7q2.example.com")
            }
            Self::Address { text, why, example } => write!(to, "`{text}`: {why}: write it as {example}"),
            Self::Advertise(text) => {
                write!(to, "`{text}` is not an address that media can be sent to: write an IP address, as 203.0.113.5")
            }
            Self::AdvertiseFamily { advertise, listener } => write!(
                to,
                "{advertise} and the listener {listener} are of different families (IPv4, IPv6): give one of the same"
            ),
            Self::AdvertiseTwice(address) => {
                write!(to, "{address} is a second one of its family: give one IPv4 and one IPv6 address at most")
            }
            Self::NotLoopback(address) => write!(
                to,
                "{address} is not on loopback: here the door talks to Asterisk without any check, so both must be on \
                 127.0.0.0/8 or [::1]; bind Asterisk to 127.0.0.1:5080 and write that"
            ),
            Self::NoPort(address) => write!(to, "{address} has port 0: write the port that Asterisk is set up for"),
            Self::SameAddress(address) => write!(
                to,
                "{address} is both backend.address and backend.inside: the first is where Asterisk listens, the second \
                 where this door listens for Asterisk; give them different ports"
            ),
            Self::Families { backend, inside } => {
                write!(to, "{inside} cannot talk to {backend}: write two IPv4 or two IPv6 addresses")
            }
            Self::Taken { address, listener } => write!(
                to,
                "{address} is also covered by the UDP or TCP listener on {listener}: give it another port (bind Asterisk \
                 to 127.0.0.1:5080, say), or listen on one outside address only"
            ),
            Self::ListenTwice { address, transport } => {
                write!(
                    to,
                    "{address} is listened on already, {} cannot be there too: give it another port",
                    transport.via()
                )
            }
            Self::NoListener => to.write_str("no listener at all: leave [[listen]] out for the usual ports"),
            _ => to.write_str(
                "a TLS listener needs a certificate: add [[certificate]] with cert and key, or --cert and --key, or \
                 make some with `sipdoor certs`",
            ),
        }
    }
}

/// The sentence about an unknown key: where it belongs, or what it looks like.
fn unknown(to: &mut fmt::Formatter<'_>, key: &str, section: &str) -> fmt::Result {
    write!(to, "unknown key `{key}` {}", place(section))?;
    let known = || KEYS.iter().flat_map(|(section, keys)| keys.iter().map(move |(key, _)| (*section, *key)));
    if let Some((home, _)) = known().find(|(_, known)| *known == key) {
        return write!(to, ": it belongs {}", place(home));
    }
    let here = known().filter(|(home, _)| *home == section);
    match here.clone().chain(known()).min_by_key(|(_, known)| distance(key, known)) {
        Some((home, near)) if alike(key, near) && home == section => write!(to, ": did you mean `{near}`?"),
        Some((home, near)) if alike(key, near) => write!(to, ": did you mean `{near}` {}?", place(home)),
        _ => write!(to, ": the keys here are {}", here.map(|(_, key)| key).collect::<Vec<_>>().join(", ")),
    }
}

fn unknown_section(to: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    let near = KEYS.iter().map(|(known, _)| *known).min_by_key(|known| distance(name, known));
    match near {
        Some(near) if alike(name, near) => write!(to, "unknown section [{name}]: did you mean `{near}`?"),
        _ => write!(
            to,
            "unknown section [{name}]: the sections are [backend], [[listen]], [[certificate]], [gate] and [limits]"
        ),
    }
}

fn place(section: &str) -> String {
    match section {
        "" => "at the top, before the first [section]".to_owned(),
        list @ ("listen" | "certificate") => format!("in [[{list}]]"),
        table => format!("in [{table}]"),
    }
}

fn alike(word: &str, known: &str) -> bool {
    distance(word, known) <= 1 + known.len() / 3
}

/// Edits between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let here = (diagonal + usize::from(x != y)).min(*cell + 1).min(left + 1);
            diagonal = std::mem::replace(cell, here);
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
