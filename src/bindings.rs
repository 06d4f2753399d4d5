//! The bindings: who is registered through which flow. The only state of the proxy (RFC 3261 §16.11 keeps the rest in
//! the messages).
#![forbid(unsafe_code)]

use crate::flow::Flow;

/// A contact's token: the value of `fdt` in the Contact that Asterisk knows, lower-case base32.
pub type Token = [u8; 16];

/// One registered phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The address-of-record, `user@host`, as in To of its REGISTER.
    pub aor: String,
    /// The phone's own Contact URI, as it wrote it.
    pub contact: String,
    /// The user part of the Contact that Asterisk was given.
    pub user: String,
    /// Where the phone was last heard.
    pub flow: Flow,
    /// When Asterisk forgets it: milliseconds since the Unix epoch.
    pub expires: u64,
}

/// A change for the store, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Made or refreshed.
    Put(Token, Binding),
    /// Gone.
    Remove(Token),
}

/// Where changes are written; called on the thread that made them, so it must not wait.
pub type Journal = Box<dyn Fn(Change) + Send + Sync>;
