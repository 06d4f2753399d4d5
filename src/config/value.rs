//! Single values: text to what it means, or the reason why not.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Why a text is not a name that the door can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    /// Nothing between the quotes.
    Empty,
    /// An IP address.
    Address,
    /// `sip:…`, `sips:…` or `…://`.
    Scheme,
    /// `name:5061`.
    Port,
    /// `user@name`.
    User,
    /// `*.name`.
    Wildcard,
    /// `name.`
    TrailingDot,
    /// Two dots, or one at the start.
    EmptyLabel,
    /// A character that no host name has.
    Character(char),
    /// A label that begins or ends with a hyphen.
    Hyphen,
    /// More than 63 characters between dots, or 253 in all.
    Length,
    /// The last label is all digits (RFC 3261 §25.1, `toplabel`).
    Digits,
}

/// A served domain: what RFC 3261 §25.1 calls a hostname, in lower case (RFC 4343).
pub(super) fn name(text: &str) -> Result<String, BadName> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if text.is_empty() {
        return Err(BadName::Empty);
    }
    if bare.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() {
        return Err(BadName::Address);
    }
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("sip:") || lower.starts_with("sips:") || lower.contains("://") {
        return Err(BadName::Scheme);
    }
    if lower.contains('@') {
        return Err(BadName::User);
    }
    if lower.contains('*') {
        return Err(BadName::Wildcard);
    }
    if let Some((_, port)) = lower.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(BadName::Port);
    }
    if lower.len() > 1 && lower.ends_with('.') {
        return Err(BadName::TrailingDot);
    }
    if let Some(other) = lower.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.')) {
        return Err(BadName::Character(other));
    }
    labels(&lower)?;
    Ok(lower)
}

fn labels(name: &str) -> Result<(), BadName> {
    for label in name.split('.') {
        match label {
            "" => return Err(BadName::EmptyLabel),
            long if long.len() > 63 => return Err(BadName::Length),
            label if label.starts_with('-') || label.ends_with('-') => return Err(BadName::Hyphen),
            _ => {}
        }
    }
    if name.len() > 253 {
        return Err(BadName::Length);
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|byte| byte.is_ascii_digit()) { Err(BadName::Digits) } else { Ok(()) }
}

impl fmt::Display for BadName {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Empty => "it is empty",
            Self::Address => {
                "it is an IP address, which every scanner knows; a name is a domain that only your phones know"
            }
            Self::Scheme => "it is a URI; leave out what stands before the domain",
            Self::Port => "it has a port; the port belongs to the listener",
            Self::User => "it has a user; leave out the user and the `@`",
            Self::Wildcard => "it has a wildcard; names are compared whole, so write each name",
            Self::TrailingDot => "it ends in a dot; leave the dot out",
            Self::EmptyLabel => "it has nothing before one of its dots",
            Self::Character('_') => "it has an underscore, which no host name may have",
            Self::Character(c) if !c.is_ascii() => "it is not ASCII; write its xn-- form (punycode)",
            Self::Character(_) => "a host name has letters, digits, hyphens and dots only",
            Self::Hyphen => "one of its labels begins or ends with a hyphen",
            Self::Length => "it is too long: 63 characters between dots, 253 in all",
            Self::Digits => "its last label is a number, as in an IP address",
        })
    }
}

/// Why a text is not an address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAddress {
    /// An address alone.
    NoPort,
    /// `::1:5060` without brackets.
    NoBrackets,
    /// A number above 65535, or none.
    BadPort,
    /// A host name in place of the address.
    HostName,
    /// None of it.
    Nonsense,
}

/// `ADDRESS:PORT`.
pub(super) fn socket(text: &str) -> Result<SocketAddr, BadAddress> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.parse::<std::net::Ipv4Addr>().is_ok() || (text.starts_with('[') && text.ends_with(']')) {
        return Err(BadAddress::NoPort);
    }
    if text.matches(':').count() > 1 && !text.starts_with('[') {
        return Err(BadAddress::NoBrackets);
    }
    match text.rsplit_once(':') {
        Some((host, _)) if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() => Err(BadAddress::BadPort),
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Err(BadAddress::HostName),
        None if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-') => {
            Err(BadAddress::NoPort)
        }
        _ => Err(BadAddress::Nonsense),
    }
}

impl fmt::Display for BadAddress {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::NoPort => "the port is missing",
            Self::NoBrackets => "an IPv6 address stands in brackets before its port",
            Self::BadPort => "the port is a number from 1 to 65535",
            Self::HostName => "a host name is not looked up here; write the IP address",
            Self::Nonsense => "it is not an IP address with a port",
        })
    }
}

/// Why a text is not a length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadDuration {
    /// A number alone.
    NoUnit,
    /// Not `ms`, `s`, `m` or `h`.
    Unit,
    /// No whole number before the unit.
    Number,
    /// No time at all.
    Zero,
    /// More than a day.
    Long,
}

/// `500ms`, `5s`, `10m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, BadDuration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits).ok_or(BadDuration::Number)?;
    let number: u64 = number.parse().map_err(|_| BadDuration::Number)?;
    let unit = match unit.trim_start() {
        "" => return Err(BadDuration::NoUnit),
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(BadDuration::Unit),
    };
    match number.checked_mul(unit) {
        Some(0) => Err(BadDuration::Zero),
        Some(millis) if millis <= 86_400_000 => Ok(Duration::from_millis(millis)),
        _ => Err(BadDuration::Long),
    }
}

impl fmt::Display for BadDuration {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::NoUnit => "the unit is missing",
            Self::Unit => "the unit is none of ms, s, m, h",
            Self::Number => "it does not begin with a whole number",
            Self::Zero => "no time at all would close every connection",
            Self::Long => "it is longer than a day",
        })
    }
}
