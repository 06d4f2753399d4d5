//! sipdoor: the front door of an Asterisk.
pub mod bindings;
pub mod config;
pub mod explain;
pub mod flow;
pub mod gate;
pub mod proxy;
pub mod route;
pub mod sip;
pub mod token;
