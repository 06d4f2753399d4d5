//! The settings file as written: TOML, unknown keys refused, every value with its line.

use super::error::{Cause, Error};
use super::written::{At, Certificate, Gate, Limits, Listen, Place, Written};
use crate::flow::Transport;
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;

/// Reads one file.
pub(super) fn read(path: &Path) -> Result<Written, Error> {
    let name: Arc<str> = path.display().to_string().into();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::nowhere("", Cause::Unreadable { path: path.into(), error: error.to_string() }))?;
    let lines = Lines { file: name, text: &text };
    match toml::from_str::<File>(&text) {
        Ok(file) => Ok(file.written(&lines)),
        Err(error) => Err(lines.complaint(&error)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    names: Option<Spanned<Vec<Spanned<String>>>>,
    advertise: Option<Vec<Spanned<String>>>,
    state: Option<Spanned<String>>,
    admin: Option<Spanned<String>>,
    observe: Option<Spanned<bool>>,
    workers: Option<Spanned<i64>>,
    log: Option<Spanned<String>>,
    backend: Option<FileBackend>,
    listen: Option<Vec<FileListen>>,
    certificate: Option<Vec<FileCertificate>>,
    gate: Option<FileGate>,
    limits: Option<FileLimits>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct FileBackend {
    address: Option<Spanned<String>>,
    inside: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileListen {
    transport: FileTransport,
    address: Spanned<String>,
    advertise: Option<Spanned<String>>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum FileTransport {
    Udp,
    Tcp,
    Tls,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCertificate {
    cert: Spanned<String>,
    key: Spanned<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct FileGate {
    methods: Option<Spanned<Vec<Spanned<String>>>>,
    strip: Option<Vec<Spanned<String>>>,
    deny: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct FileLimits {
    first_byte: Option<Spanned<String>>,
    hello: Option<Spanned<String>>,
    first_message: Option<Spanned<String>>,
    idle: Option<Spanned<String>>,
    write: Option<Spanned<String>>,
    queue: Option<Spanned<i64>>,
    head: Option<Spanned<i64>>,
    message: Option<Spanned<i64>>,
    headers: Option<Spanned<i64>>,
    connections: Option<Spanned<i64>>,
    per_source_new: Option<Spanned<i64>>,
    per_source: Option<Spanned<i64>>,
    rate: Option<Spanned<i64>>,
    bindings: Option<Spanned<i64>>,
}

/// Every key by its section, with a value that would be right: for complaints about an unknown key or a wrong type.
pub(super) const KEYS: &[(&str, &[(&str, &str)])] = &[
    (
        "",
        &[
            ("names", "[\"k7q2.example.com\"]"),
            ("advertise", "[\"203.0.113.5\"]"),
            ("state", "\"/var/lib/sipdoor\""),
            ("admin", "\"/run/sipdoor.sock\""),
            ("observe", "false"),
            ("workers", "0"),
            ("log", "\"info\""),
        ],
    ),
    ("backend", &[("address", "\"127.0.0.1:5080\""), ("inside", "\"127.0.0.1:5070\"")]),
    ("listen", &[("transport", "\"udp\""), ("address", "\"0.0.0.0:5060\""), ("advertise", "\"203.0.113.5\"")]),
    ("certificate", &[("cert", "\"fullchain.pem\""), ("key", "\"privkey.pem\"")]),
    ("gate", &[("methods", "[\"INVITE\"]"), ("strip", "[\"diversion\"]"), ("deny", "[\"203.0.113.0/24\"]")]),
    (
        "limits",
        &[
            ("first_byte", "\"5s\""),
            ("hello", "\"5s\""),
            ("first_message", "\"10s\""),
            ("idle", "\"10m\""),
            ("write", "\"10s\""),
            ("queue", "64"),
            ("head", "8192"),
            ("message", "65536"),
            ("headers", "128"),
            ("connections", "20000"),
            ("per_source_new", "16"),
            ("per_source", "512"),
            ("rate", "0"),
            ("bindings", "100000"),
        ],
    ),
];

impl File {
    fn written(self, lines: &Lines<'_>) -> Written {
        let backend = self.backend.unwrap_or_default();
        Written {
            names: self.names.map(|names| lines.list(names)),
            advertise: self.advertise.map(|all| lines.all(all)),
            listen: self.listen.map(|all| all.into_iter().map(|one| one.written(lines)).collect()),
            certificates: self.certificate.map(|all| all.into_iter().map(|one| one.written(lines)).collect()),
            backend: lines.at(backend.address),
            inside: lines.at(backend.inside),
            state: lines.at(self.state),
            admin: lines.at(self.admin),
            observe: lines.at(self.observe),
            workers: lines.at(self.workers),
            log: lines.at(self.log),
            gate: self.gate.unwrap_or_default().written(lines),
            limits: self.limits.unwrap_or_default().written(lines),
        }
    }
}

impl FileListen {
    fn written(self, lines: &Lines<'_>) -> Listen {
        let transport = match self.transport {
            FileTransport::Udp => Transport::Udp,
            FileTransport::Tcp => Transport::Tcp,
            FileTransport::Tls => Transport::Tls,
        };
        Listen { transport, address: lines.one(self.address), advertise: lines.at(self.advertise) }
    }
}

impl FileCertificate {
    fn written(self, lines: &Lines<'_>) -> Certificate {
        Certificate { cert: lines.one(self.cert), key: lines.one(self.key) }
    }
}

impl FileGate {
    fn written(self, lines: &Lines<'_>) -> Gate {
        Gate {
            methods: self.methods.map(|all| lines.list(all)),
            strip: self.strip.map(|all| lines.all(all)),
            deny: self.deny.map(|all| lines.all(all)),
        }
    }
}

impl FileLimits {
    fn written(self, lines: &Lines<'_>) -> Limits {
        Limits {
            first_byte: lines.at(self.first_byte),
            hello: lines.at(self.hello),
            first_message: lines.at(self.first_message),
            idle: lines.at(self.idle),
            write: lines.at(self.write),
            queue: lines.at(self.queue),
            head: lines.at(self.head),
            message: lines.at(self.message),
            headers: lines.at(self.headers),
            connections: lines.at(self.connections),
            per_source_new: lines.at(self.per_source_new),
            per_source: lines.at(self.per_source),
            rate: lines.at(self.rate),
            bindings: lines.at(self.bindings),
        }
    }
}

/// The text of one file, to say on which line a value stands.
struct Lines<'a> {
    file: Arc<str>,
    text: &'a str,
}

impl Lines<'_> {
    fn one<T>(&self, value: Spanned<T>) -> At<T> {
        let place = self.place(value.span().start);
        At { value: value.into_inner(), place }
    }

    fn at<T>(&self, value: Option<Spanned<T>>) -> Option<At<T>> {
        value.map(|value| self.one(value))
    }

    fn all<T>(&self, values: Vec<Spanned<T>>) -> Vec<At<T>> {
        values.into_iter().map(|value| self.one(value)).collect()
    }

    fn list<T>(&self, values: Spanned<Vec<Spanned<T>>>) -> At<Vec<At<T>>> {
        let place = self.place(values.span().start);
        At { value: self.all(values.into_inner()), place }
    }

    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        Place::Line(Arc::clone(&self.file), 1 + before.matches('\n').count())
    }

    /// The TOML reader's error as one sentence with the key.
    fn complaint(&self, error: &toml::de::Error) -> Error {
        let offset = error.span().map_or(0, |span| span.start);
        let (section, key) = self.key(offset);
        let message = error.message().replace('\n', "; ");
        let cause = if let Some(unknown) = message.strip_prefix("unknown field `") {
            let unknown = unknown.split('`').next().unwrap_or_default();
            match unknown == section {
                true => Cause::UnknownSection(unknown.into()),
                false => Cause::UnknownKey { key: unknown.into(), section: section.into() },
            }
        } else if let Some(missing) = message.strip_prefix("missing field ") {
            let missing = missing.trim_matches('`');
            Cause::MissingKey { key: missing.into(), section: section.into(), example: example(section, missing) }
        } else if message.starts_with("invalid type") || message.starts_with("unknown variant") {
            Cause::WrongType { message, key: key.into(), example: example(section, key) }
        } else {
            Cause::Syntax(message)
        };
        let dotted = match (section, key) {
            (_, key) if !matches!(cause, Cause::WrongType { .. }) || key.is_empty() => String::new(),
            ("", key) => key.to_owned(),
            (section, key) => format!("{section}.{key}"),
        };
        Error { place: self.place(offset), key: dotted.into(), cause: Box::new(cause) }
    }

    /// The section and the key that the byte at `offset` belongs to; a list may span lines.
    fn key(&self, offset: usize) -> (&str, &str) {
        let end = self.text.get(offset..).and_then(|rest| rest.find('\n')).map_or(self.text.len(), |n| offset + n);
        let upto = self.text.get(..end).unwrap_or_default();
        let heading = |line: &&str| {
            let line = line.trim();
            line.starts_with('[') && line.ends_with(']') && !line.contains(['"', ',', '='])
        };
        let section = upto.lines().rev().find(heading).unwrap_or_default();
        let key = upto.lines().rev().take_while(|line| !heading(line)).find_map(|line| line.split_once('='));
        (section.trim_matches(['[', ']', ' ']), key.map_or("", |(key, _)| key.trim()))
    }
}

fn example(section: &str, key: &str) -> &'static str {
    let keys = KEYS.iter().find(|(name, _)| *name == section).map_or(&[][..], |(_, keys)| keys);
    keys.iter().find(|(name, _)| *name == key).map_or("", |(_, example)| example)
}
