//! `sipdoor run`: the life of a door.

use crate::cli;
use crate::failure::{self, Failure};
use clap::ArgMatches;
use sipdoor::admin::{self, Answer, Request, Status};
use sipdoor::config::{self, Host, Subject};
use sipdoor::net::{Door, Server};
use sipdoor::observe::{self, Format};
use std::path::Path;
use std::sync::Arc;
use tracing::{info, warn};

/// Reads the settings, opens the door, says where, and runs until a signal.
pub(crate) fn run(door: &cli::Door, matches: &ArgMatches) -> Result<(), Failure> {
    let settings = config::load(door.config.as_deref(), door.written(matches)?, Host::detect())?;
    observe::log(&settings.log, Format::Text)?;
    settings.notes.iter().for_each(|note| warn!("{note}"));
    let placed = |failure: Failure, subject: Option<&Subject>| failure.about(&settings, subject);
    let server = Server::start(settings.config.clone()).map_err(|error| {
        let subject = failure::subject(&error);
        placed(error.into(), subject.as_ref())
    })?;
    let admin = serve_admin(&settings.config.admin, server.door());
    let admin = admin.map_err(|failure| placed(failure, Some(&Subject::Admin)))?;
    announce(&server.door());
    let ended = server.until_signal();
    admin.remove();
    Ok(ended?)
}

/// A thread that answers `sipdoor status`; it ends with the process.
fn serve_admin(socket: &Path, door: Arc<Door>) -> Result<Arc<admin::Server>, Failure> {
    let server = Arc::new(admin::Server::bind(socket)?);
    let serving = Arc::clone(&server);
    let answer = move |request| match request {
        Request::Status => Answer::Status(Box::new(Status::of(&door))),
    };
    let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || serving.serve(answer));
    thread.map_err(|error| Failure::system("no thread can be started for the admin socket", &error))?;
    Ok(server)
}

fn announce(door: &Door) {
    for listener in door.listeners() {
        info!("listening on {} {}", listener.transport.name(), listener.address);
    }
    info!("open: Asterisk at {} sees the door at {}, {} phones known", door.backend(), door.inside(), door.bindings());
}
