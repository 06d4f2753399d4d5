//! sipdoor: the front door of an Asterisk on the internet.
//!
//! Scanners dial an address; a phone knows a name. The door opens to those who know the name and is silent to the rest.
//!
//! ```text
//!   phones, scanners                       one thread per core                                loopback
//!  ┌────────────────┐  ┌─ net (shell): moves bytes ─┐  ┌─ core: decides ───────────────┐  ┌──────────────┐
//!  │ UDP 5060       ├─▶│ udp.rs                     ├─▶│ proxy.rs   Proxy::receive     │  │              │
//!  │ TCP 5060       ├─▶│ listen.rs ──▶ stream.rs    │  │   sip/     read it twice      │  │   Asterisk   │
//!  │ TLS 5061       ├─▶│ tls.rs ───┘  (frames)      │  │   gate/    may it pass, why   ├─▶│   UDP 5080   │
//!  │                │◀─┤ flows.rs  ◀────────────────┼──┤   route/   where to, edited   │◀─┤              │
//!  └────────────────┘  └────────────────────────────┘  └───────────────────────────────┘  └──────────────┘
//! ```
//!
//! # Two halves, one wall
//!
//! The **core** ([`sip`], [`gate`], [`token`], [`bindings`], [`route`], [`proxy`], [`flow`], [`explain`]) has no socket,
//! no clock, no file and nothing asynchronous: bytes, the [`flow::Flow`] they came from and the time go in, bytes to send
//! and one [`proxy::Outcome`] to count come out. The **shell** ([`net`], [`store`], [`observe`]) owns those and knows no
//! header field. All that it ever asks is in [`proxy`].
//!
//! # The path of one message
//!
//! 1. `net::listen` accepts, `net::tls` shows the ClientHello to [`proxy::Proxy::admit_hello`] before any certificate is
//!    chosen, `net::stream` reads; [`sip::frame::Framer`] says where a message ends. A datagram comes in at `net::udp`.
//! 2. [`proxy::Proxy::receive`]: [`gate::Policy::glance`] refuses most of the internet unparsed;
//!    [`sip::message::Reader`] reads strictly and [`sip::check::Second`] (rsip) must see the same hosts.
//! 3. [`gate::Policy`] makes a [`gate::Permit`] or gives one [`gate::Reason`]. Nothing is forwarded without a permit.
//! 4. [`route`] splices the received bytes (RFC 3261 §16) for the next hop and puts them into the [`proxy::Outbox`].
//! 5. `net::flows` or `net::udp` sends. What cannot be sent goes back to [`proxy::Proxy::undelivered`], so that its sender
//!    is told.
//!
//! # What is remembered
//!
//! Only [`bindings`]: which phone is registered through which flow. Everything else travels, keyed, in the messages
//! ([`token`]): the way back in our Via, the phone's leg in Record-Route, a binding's name in the Contact that Asterisk
//! knows. [`store`] keeps bindings and key over a restart.

pub mod admin;
pub mod bindings;
pub mod certs;
pub mod config;
pub mod demo;
pub mod explain;
pub mod flow;
pub mod gate;
pub mod net;
pub mod observe;
pub mod proxy;
pub mod route;
pub mod sip;
pub mod store;
pub mod token;
