#![no_main]
#[path = "../../kit/mod.rs"]
mod kit;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kit::bodies::message(bytes).unwrap_or_else(|rule| panic!("{rule}")));
