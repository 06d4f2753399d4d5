//! SIP as bytes: framing, strict reading, editing. A message is a view of the bytes received; what is forwarded is
//! those bytes with splices, never a printed parse.
#![forbid(unsafe_code)]

pub mod check;
pub mod edit;
pub mod frame;
pub mod head;
pub mod header;
pub mod keepalive;
pub mod message;
pub mod reply;
pub mod uri;
