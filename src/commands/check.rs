//! `sipdoor check`: can these settings be used, and what would the door do?

use super::status::now;
use crate::cli::Door;
use crate::failure::{self, Failure, say};
use crate::state;
use clap::ArgMatches;
use sipdoor::admin::expiry;
use sipdoor::config::{self, Host, Subject};
use sipdoor::net::{Error, tls};

/// Reads everything that `run` would read, opens nothing, and says what it found.
pub(crate) fn check(door: &Door, matches: &ArgMatches) -> Result<(), Failure> {
    let settings = config::load(door.config.as_deref(), door.written(matches)?, Host::detect())?;
    let config = &settings.config;
    let certificates = tls::load(&config.certificates, &config.names).map_err(|error| {
        let error = Error::from(error);
        let subject = failure::subject(&error);
        Failure::from(error).about(&settings, subject.as_ref())
    })?;
    let there = state::look(&config.state).map_err(|failure| failure.about(&settings, Some(&Subject::State)))?;

    say(format_args!("names        {}", config.names.join(", ")));
    for listener in &config.listeners {
        let media = listener.advertise.map(|ip| format!(", media at {ip}")).unwrap_or_default();
        say(format_args!("listen       {} {}{media}", listener.transport.name(), listener.address));
    }
    say(format_args!("asterisk     udp {} (it sees the door at {})", config.backend, config.inside));
    for about in certificates.about() {
        say(format_args!("certificate  {}: {}", about.file.display(), expiry(about.expires, now())));
    }
    let note = if there { "" } else { " (will be made)" };
    say(format_args!("state        {}{note}", config.state.display()));
    say(format_args!("admin        {}", config.admin.display()));
    say(format_args!("workers      {}", config.workers));
    for note in settings.notes.iter().chain(certificates.warnings()) {
        say(format_args!("note: {note}"));
    }
    say(format_args!("The settings are good."));
    Ok(())
}
