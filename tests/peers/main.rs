//! Phones on a real Asterisk through the door: what a user of the field expects to work.

mod calls;
mod clients;
mod common;
mod container;
mod extensions;
mod nat;
mod registers;
mod six;
