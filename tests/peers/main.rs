//! Phones on a real Asterisk through the door: issue by issue what a user of the field expects to work.

mod calls;
mod common;
