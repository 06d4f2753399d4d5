//! The ClientHello, read by the core before any configuration is chosen.
#![forbid(unsafe_code)]

/// What a ClientHello says of the server's name (RFC 6066 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello<'a> {
    /// No server_name extension, or one without a host_name.
    Absent,
    /// An IPv4 or IPv6 literal.
    Address(&'a [u8]),
    /// A host name, as sent.
    Name(&'a [u8]),
}
