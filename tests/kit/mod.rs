//! What the tests of the core share: the corpus, a door without sockets, a lenient reader, a mutator.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![allow(clippy::string_slice, reason = "the text is the test's own")]

pub mod bodies;
pub mod corpus;
pub mod evasion;
pub mod judge;
pub mod lenient;
pub mod mutate;
pub mod rename;
pub mod stage;

/// A message as a person reads it: control characters and what is not ASCII escaped, one line a line.
pub fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\r\\n", "\\r\\n\n")
}
