//! `sipdoor demo`.

use crate::cli;
use crate::failure::{Code, Failure};
use sipdoor::demo::{self, Error, Options};
use sipdoor::observe::{self, Format};

/// Plays the story. Whether all went as it should.
pub(crate) fn demo(wanted: &cli::Demo) -> Result<bool, Failure> {
    observe::log(&wanted.log, Format::Text)?;
    let options = Options {
        name: wanted.name.clone(),
        listen: wanted.listen,
        port: wanted.port,
        tls_port: wanted.tls_port,
        stay: wanted.stay,
    };
    demo::run(&options).map_err(|error| match error {
        Error::Door(error) => (*error).into(),
        Error::Settings(error) => (*error).into(),
        other => Failure::new(Code::Unavailable, format!("the demo cannot go on: {other}")),
    })
}
