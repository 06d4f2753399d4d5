//! From settings as written to settings as used: the one place where values are judged.

use super::error::{Cause, Error};
use super::written::{At, Certificate, Listen, Place, Written};
use super::{CertificateFiles, Config, Gate, Host, Limits, Listener, Settings, Subject, defaults, value, written};
use crate::flow::Transport;
use crate::sip::frame::Sizes;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// All of it.
pub(super) fn settings(written: Written, host: Host) -> Result<Settings, Error> {
    let mut notes = Vec::new();
    let places = places(&written);
    let names = names(written.names.as_ref())?;
    let state = path(written.state.as_ref(), "state")?.unwrap_or_else(|| defaults::STATE.into());
    let socket = path(written.admin.as_ref(), "admin")?.unwrap_or_else(|| state.join(defaults::ADMIN));
    let certificates = certificates(written.certificates.as_deref().unwrap_or_default())?;
    let advertise = advertise(written.advertise.as_deref().unwrap_or_default())?;
    let listeners = listeners(written.listen.as_deref(), &advertise, !certificates.is_empty(), host)?;
    if listeners.iter().all(|listener| listener.transport != Transport::Tls) {
        notes.push(match certificates.is_empty() {
            true => {
                "no certificate: listening on UDP and TCP only (--cert and --key, or [[certificate]], add TLS)".into()
            }
            false => "no TLS listener: the certificates are not used (--listen-tls, or [[listen]], adds one)".into(),
        });
    }
    let (backend, inside) = loopback(&written, &listeners)?;
    let workers = number(written.workers.as_ref(), "workers", 0, (0, 1024))?;
    let observe = written.observe.as_ref().is_some_and(|at| at.value);
    if observe {
        notes.push("observe is on: what the gate would refuse by name is counted, and let through".into());
    }
    let config = Config {
        names,
        listeners,
        backend,
        inside,
        certificates,
        state,
        admin: socket,
        workers: if workers == 0 { host.cpus } else { workers },
        gate: gate(written.gate, observe)?,
        limits: limits(&written.limits)?,
    };
    Ok(Settings { config, log: log(written.log)?, notes, places })
}

/// The admin socket alone.
pub(super) fn admin(written: &Written) -> PathBuf {
    let own = |at: &Option<At<String>>| at.as_ref().map(|at| PathBuf::from(&at.value));
    let state = own(&written.state).unwrap_or_else(|| defaults::STATE.into());
    own(&written.admin).unwrap_or_else(|| state.join(defaults::ADMIN))
}

/// Where files, addresses and the state directory were written. What is unreadable here is refused elsewhere.
fn places(written: &Written) -> Vec<(Subject, &'static str, Place)> {
    let file = |at: &At<String>, key| (Subject::File(PathBuf::from(&at.value)), key, at.here());
    let pairs = written.certificates.iter().flatten();
    let files = pairs.flat_map(|one| [file(&one.cert, "certificate.cert"), file(&one.key, "certificate.key")]);
    let listeners = written.listen.iter().flatten().filter_map(|one| {
        let address = value::socket(&one.address.value).ok()?;
        Some((Subject::Listener(one.transport, address), "listen.address", one.address.here()))
    });
    let single = |at: &Option<At<String>>, subject, key| at.as_ref().map(|at| (subject, key, at.here()));
    let inside = single(&written.inside, Subject::Inside, "backend.inside");
    let state = single(&written.state, Subject::State, "state");
    let admin = single(&written.admin, Subject::Admin, "admin");
    files.chain(listeners).chain(inside).chain(state).chain(admin).collect()
}

fn fail<T>(place: Place, key: &'static str, cause: Cause) -> Result<T, Error> {
    Err(Error { place, key: Cow::Borrowed(key), cause: Box::new(cause) })
}

fn names(written: Option<&At<Vec<At<String>>>>) -> Result<Vec<String>, Error> {
    let Some(list) = written else {
        return fail(Place::BuiltIn, "", Cause::NoName);
    };
    let mut names = Vec::new();
    for at in &list.value {
        match value::name(&at.value) {
            Ok(name) if names.contains(&name) => {}
            Ok(name) => names.push(name),
            Err(why) => return fail(at.here(), "names", Cause::Name { text: at.value.clone(), why }),
        }
    }
    if names.is_empty() { fail(list.here(), "names", Cause::NoName) } else { Ok(names) }
}

fn path(written: Option<&At<String>>, key: &'static str) -> Result<Option<PathBuf>, Error> {
    match written {
        Some(at) if at.value.is_empty() => fail(at.here(), key, Cause::EmptyPath),
        other => Ok(other.map(|at| PathBuf::from(&at.value))),
    }
}

fn certificates(written: &[Certificate]) -> Result<Vec<CertificateFiles>, Error> {
    let pair = |one: &Certificate| {
        Ok(CertificateFiles {
            cert: path(Some(&one.cert), "certificate.cert")?.unwrap_or_default(),
            key: path(Some(&one.key), "certificate.key")?.unwrap_or_default(),
        })
    };
    written.iter().map(pair).collect()
}

/// The addresses to advertise on listeners that have none of their own: one of each family at most.
fn advertise(written: &[At<String>]) -> Result<Vec<IpAddr>, Error> {
    let mut all: Vec<IpAddr> = Vec::new();
    for at in written {
        let address = media(at, "advertise")?;
        if all.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            return fail(at.here(), "advertise", Cause::AdvertiseTwice(address));
        }
        all.push(address);
    }
    Ok(all)
}

fn media(at: &At<String>, key: &'static str) -> Result<IpAddr, Error> {
    match at.value.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
        _ => fail(at.here(), key, Cause::Advertise(at.value.clone())),
    }
}

fn listeners(written: Option<&[Listen]>, advertise: &[IpAddr], tls: bool, host: Host) -> Result<Vec<Listener>, Error> {
    let general = |address: SocketAddr| advertise.iter().find(|ip| ip.is_ipv4() == address.is_ipv4()).copied();
    let Some(written) = written else {
        let usual =
            usual(tls, host).map(|(transport, address)| Listener { transport, address, advertise: general(address) });
        return Ok(usual.collect());
    };
    let mut all: Vec<Listener> = Vec::new();
    for one in written {
        let address = address(Some(&one.address), "listen.address", "0.0.0.0:5060")?;
        let place = one.address.here();
        let stream = one.transport.is_stream();
        if all
            .iter()
            .any(|other| address.port() != 0 && other.address == address && other.transport.is_stream() == stream)
        {
            return fail(place, "listen", Cause::ListenTwice { address, transport: one.transport });
        }
        if one.transport == Transport::Tls && !tls {
            return fail(place, "listen", Cause::NoCertificate);
        }
        let own = one.advertise.as_ref().map(|at| media(at, "listen.advertise")).transpose()?;
        if let (Some(own), Some(at)) = (own, &one.advertise)
            && own.is_ipv4() != address.is_ipv4()
        {
            let cause = Cause::AdvertiseFamily { advertise: own, listener: address };
            return fail(at.here(), "listen.advertise", cause);
        }
        all.push(Listener { transport: one.transport, address, advertise: own.or_else(|| general(address)) });
    }
    if all.is_empty() { fail(Place::BuiltIn, "listen", Cause::NoListener) } else { Ok(all) }
}

/// The usual ports on all addresses; TLS only with a certificate.
fn usual(tls: bool, host: Host) -> impl Iterator<Item = (Transport, SocketAddr)> {
    let any: [(IpAddr, bool); 2] = [(Ipv4Addr::UNSPECIFIED.into(), true), (Ipv6Addr::UNSPECIFIED.into(), host.ipv6)];
    Transport::ALL.into_iter().filter(move |transport| tls || *transport != Transport::Tls).flat_map(move |transport| {
        let port = if transport == Transport::Tls { defaults::TLS_PORT } else { defaults::PORT };
        any.into_iter().filter(|(_, there)| *there).map(move |(ip, _)| (transport, SocketAddr::new(ip, port)))
    })
}

fn address(at: Option<&At<String>>, key: &'static str, default: &'static str) -> Result<SocketAddr, Error> {
    let (text, place) = at.map_or((default, Place::BuiltIn), |at| (at.value.as_str(), at.here()));
    match value::socket(text) {
        Ok(address) => Ok(address),
        Err(why) => fail(place, key, Cause::Address { text: text.to_owned(), why, example: default }),
    }
}

/// Asterisk's address and the door's towards it: both on loopback, different, and no listener's.
fn loopback(written: &Written, listeners: &[Listener]) -> Result<(SocketAddr, SocketAddr), Error> {
    // Asterisk need not listen on TCP; the door itself does on both.
    let udp = |listener: &&Listener| listener.transport == Transport::Udp;
    let datagrams: Vec<Listener> = listeners.iter().filter(udp).cloned().collect();
    let backend = local(written.backend.as_ref(), "backend.address", defaults::BACKEND, &datagrams)?;
    let inside = local(written.inside.as_ref(), "backend.inside", defaults::INSIDE, listeners)?;
    let place = written.inside.as_ref().map_or(Place::BuiltIn, At::here);
    if backend == inside {
        return fail(place, "backend.inside", Cause::SameAddress(inside));
    }
    if backend.is_ipv4() != inside.is_ipv4() {
        return fail(place, "backend.inside", Cause::Families { backend, inside });
    }
    Ok((backend, inside))
}

fn local(
    at: Option<&At<String>>,
    key: &'static str,
    default: &'static str,
    listeners: &[Listener],
) -> Result<SocketAddr, Error> {
    let place = at.map_or(Place::BuiltIn, At::here);
    let address = address(at, key, default)?;
    if !address.ip().is_loopback() {
        return fail(place, key, Cause::NotLoopback(address));
    }
    if address.port() == 0 {
        return fail(place, key, Cause::NoPort(address));
    }
    let covers = |listener: &&Listener| {
        let ip = listener.address.ip();
        let same = ip == address.ip() || (ip.is_unspecified() && ip.is_ipv4() == address.is_ipv4());
        same && listener.address.port() == address.port()
    };
    match listeners.iter().find(covers) {
        Some(listener) => fail(place, key, Cause::Taken { address, listener: listener.address }),
        None => Ok(address),
    }
}

fn log(written: Option<At<String>>) -> Result<String, Error> {
    let at = written.unwrap_or_else(|| At::built_in(defaults::LOG.to_owned()));
    match at.value.as_str() {
        "off" | "error" | "warn" | "info" | "debug" | "trace" => Ok(at.value),
        _ => {
            let place = at.here();
            fail(place, "log", Cause::Choice { text: at.value, choices: "off, error, warn, info, debug, trace" })
        }
    }
}

fn gate(written: written::Gate, observe: bool) -> Result<Gate, Error> {
    let usual = Gate::default();
    let methods = match written.methods {
        None => usual.methods,
        Some(list) if list.value.is_empty() => return fail(list.here(), "gate.methods", Cause::NoMethod),
        Some(list) => list.value.into_iter().map(method).collect::<Result<_, _>>()?,
    };
    let strip = match written.strip {
        None => usual.strip,
        Some(list) => strip_list(list.into_iter().map(header).collect::<Result<Vec<_>, _>>()?),
    };
    let deny = written.deny.unwrap_or_default().into_iter().map(network).collect::<Result<_, _>>()?;
    Ok(Gate { methods, strip, deny, observe })
}

/// What is always taken out, and then what the settings say.
pub(super) fn strip_list(more: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = defaults::STRIP_ALWAYS.iter().map(ToString::to_string).collect();
    for name in more {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// RFC 3261 §25.1: a method is a token and its case counts; ours are the registered ones and their like.
fn method(at: At<String>) -> Result<String, Error> {
    let good = |byte: u8| token(byte) && !byte.is_ascii_lowercase();
    if !at.value.is_empty() && at.value.len() <= 32 && at.value.bytes().all(good) {
        return Ok(at.value);
    }
    fail(at.here(), "gate.methods", Cause::Method(at.value))
}

fn header(at: At<String>) -> Result<String, Error> {
    let lower = at.value.to_ascii_lowercase();
    let stem = lower.strip_suffix('*').unwrap_or(&lower);
    if stem.is_empty() || !stem.bytes().all(|byte| token(byte) && byte != b'*') {
        return fail(at.here(), "gate.strip", Cause::Header(at.value));
    }
    let hit = |needed: &&str| if stem.len() < lower.len() { needed.starts_with(stem) } else { **needed == lower };
    match defaults::NEVER_STRIP.iter().find(|needed| hit(needed)) {
        Some(_) => fail(at.here(), "gate.strip", Cause::NeededHeader(at.value)),
        None => Ok(lower),
    }
}

fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

fn network(at: At<String>) -> Result<ipnet::IpNet, Error> {
    let single = at.value.parse::<IpAddr>().map(ipnet::IpNet::from);
    match single.or_else(|_| at.value.parse::<ipnet::IpNet>().map(|net| net.trunc())) {
        Ok(network) => Ok(network),
        Err(_) => fail(at.here(), "gate.deny", Cause::Network(at.value)),
    }
}

fn limits(written: &written::Limits) -> Result<Limits, Error> {
    let usual = Limits::default();
    let sizes = Sizes {
        head: number(written.head.as_ref(), "limits.head", usual.sizes.head, (512, 65_536))?,
        // Asterisk gets one datagram; more than this fits in none.
        message: number(written.message.as_ref(), "limits.message", usual.sizes.message, (512, 65_536))?,
        headers: number(written.headers.as_ref(), "limits.headers", usual.sizes.headers, (16, 4_096))?,
    };
    if sizes.head > sizes.message {
        let at = written.message.as_ref().or(written.head.as_ref()).map_or(Place::BuiltIn, At::here);
        return fail(at, "limits", Cause::HeadOverMessage { head: sizes.head, message: sizes.message });
    }
    let cap = |at: &Option<At<i64>>, key, default, least| number(at.as_ref(), key, default, (least, 10_000_000));
    Ok(Limits {
        first_byte: time(written.first_byte.as_ref(), "limits.first_byte", usual.first_byte)?,
        hello: time(written.hello.as_ref(), "limits.hello", usual.hello)?,
        first_message: time(written.first_message.as_ref(), "limits.first_message", usual.first_message)?,
        idle: time(written.idle.as_ref(), "limits.idle", usual.idle)?,
        write: time(written.write.as_ref(), "limits.write", usual.write)?,
        queue: cap(&written.queue, "limits.queue", usual.queue, 1)?,
        sizes,
        connections: cap(&written.connections, "limits.connections", usual.connections, 1)?,
        per_source_new: cap(&written.per_source_new, "limits.per_source_new", usual.per_source_new, 1)?,
        per_source: cap(&written.per_source, "limits.per_source", usual.per_source, 1)?,
        rate: u32::try_from(cap(&written.rate, "limits.rate", usual.rate as usize, 0)?).unwrap_or(u32::MAX),
        bindings: cap(&written.bindings, "limits.bindings", usual.bindings, 1)?,
    })
}

fn time(at: Option<&At<String>>, key: &'static str, default: Duration) -> Result<Duration, Error> {
    let Some(at) = at else { return Ok(default) };
    value::duration(&at.value).or_else(|why| fail(at.here(), key, Cause::Duration { text: at.value.clone(), why }))
}

fn number(at: Option<&At<i64>>, key: &'static str, default: usize, (least, most): (i64, i64)) -> Result<usize, Error> {
    let Some(at) = at else { return Ok(default) };
    match usize::try_from(at.value) {
        Ok(value) if (least..=most).contains(&at.value) => Ok(value),
        _ => fail(at.here(), key, Cause::Number { text: at.value.to_string(), least, most }),
    }
}
