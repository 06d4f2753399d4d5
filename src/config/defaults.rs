//! The built-in values; `config/sipdoor.toml` shows them, and a test holds the two together.

/// Asterisk's address.
pub const BACKEND: &str = "127.0.0.1:5080";
/// The door's address towards Asterisk.
pub const INSIDE: &str = "127.0.0.1:5070";
/// The state directory.
pub const STATE: &str = "/var/lib/sipdoor";
/// The admin socket, inside the state directory.
pub const ADMIN: &str = "admin.sock";
/// How much is logged.
pub const LOG: &str = "info";
/// SIP over UDP and TCP (RFC 3261 §19.1.2).
pub const PORT: u16 = 5060;
/// SIP over TLS.
pub const TLS_PORT: u16 = 5061;

/// Every method of the IANA registry.
pub const METHODS: &[&str] = &[
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "REGISTER",
    "PRACK",
    "SUBSCRIBE",
    "NOTIFY",
    "PUBLISH",
    "INFO",
    "REFER",
    "MESSAGE",
    "UPDATE",
];

/// Taken out of outside traffic whatever the settings say: they would steer Asterisk's answers, or speak for the door.
pub const STRIP_ALWAYS: &[&str] = &["path", "service-route", "x-sipdoor-*"];

/// Taken out of outside traffic unless the settings say otherwise: claims of identity that only a trusted peer may
/// make (RFC 3325, RFC 3455, RFC 5806, RFC 7044, RFC 7315), and headers that dialplans take for a proxy's word.
pub const STRIP: &[&str] = &[
    "p-asserted-identity",
    "p-preferred-identity",
    "p-asserted-service",
    "p-preferred-service",
    "remote-party-id",
    "diversion",
    "history-info",
    "p-charging-*",
    "p-access-network-info",
    "p-visited-network-id",
    "p-called-party-id",
    "p-associated-uri",
    "p-user-database",
    "p-served-user",
    "p-profile-key",
    "p-private-network-indication",
    "forwarded",
    "x-forwarded-*",
    "x-real-ip",
    "x-asterisk-*",
    "x-front-door",
    "x-frontdoor*",
    "x-transport",
    "x-trunk*",
    "x-source-*",
    "x-src-*",
    "x-client-*",
    "x-remote-*",
    "x-original-*",
    "x-received*",
    "x-auth*",
    "x-trusted*",
    "x-peer-*",
    "x-fs-*",
];

/// A message cannot be without these, or the door itself writes them: taking them out would break every call.
pub const NEVER_STRIP: &[&str] = &[
    "via",
    "v",
    "from",
    "f",
    "to",
    "t",
    "call-id",
    "i",
    "cseq",
    "contact",
    "m",
    "max-forwards",
    "route",
    "record-route",
    "content-length",
    "l",
    "content-type",
    "c",
    "authorization",
    "proxy-authorization",
    "expires",
    "event",
    "o",
];
