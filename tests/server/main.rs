//! The shell against real sockets: what is silent, what is bounded, what comes back. A socket of the test plays Asterisk.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod asterisk;
mod backend;
mod connections;
mod idle;
mod stage;
mod start;
mod tls;
