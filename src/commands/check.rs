//! `sipdoor check`: can these settings be used, and what would the door do?

use super::status::now;
use crate::cli::Door;
use crate::failure::{Failure, say};
use crate::state;
use clap::ArgMatches;
use sipdoor::admin::expiry;
use sipdoor::certs::Leaf;
use sipdoor::config::{self, Config, Host};

/// Reads everything that `run` would read, opens nothing, and says what it found.
pub(crate) fn check(door: &Door, matches: &ArgMatches) -> Result<(), Failure> {
    let settings = config::load(door.config.as_deref(), door.written(matches)?, Host::detect())?;
    let config = &settings.config;
    let there = state::look(&config.state)?;

    say(format_args!("names        {}", config.names.join(", ")));
    for listener in &config.listeners {
        let media = listener.advertise.map(|ip| format!(", media at {ip}")).unwrap_or_default();
        say(format_args!("listen       {} {}{media}", listener.transport.name(), listener.address));
    }
    say(format_args!("asterisk     udp {} (it sees the door at {})", config.backend, config.inside));
    certificates(config);
    let note = if there { "" } else { " (will be made)" };
    say(format_args!("state        {}{note}", config.state.display()));
    say(format_args!("admin        {}", config.admin.display()));
    say(format_args!("workers      {}", config.workers));
    for note in &settings.notes {
        say(format_args!("note: {note}"));
    }
    say(format_args!("The settings are good."));
    Ok(())
}

fn certificates(config: &Config) {
    let leaves: Vec<_> = config.certificates.iter().map(|files| (files, Leaf::read(&files.cert))).collect();
    for (files, leaf) in &leaves {
        let Some(leaf) = leaf else { continue };
        let (names, expiry) = (leaf.names.join(", "), expiry(leaf.expires, now()));
        say(format_args!("certificate  {} for {names}: {expiry}", files.cert.display()));
    }
    let uncovered = |name: &&String| !leaves.iter().filter_map(|(_, leaf)| leaf.as_ref()).any(|leaf| leaf.covers(name));
    for name in config.names.iter().filter(uncovered).filter(|_| !leaves.is_empty()) {
        say(format_args!(
            "note: no certificate is for {name}: phones that verify certificates will not connect over TLS"
        ));
    }
}
