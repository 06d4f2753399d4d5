//! `sipdoor status`.

use crate::cli;
use crate::failure::{Code, Failure, say};
use clap::ArgMatches;
use sipdoor::admin::{self, Answer, Request, Shape};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Asks the running door once, or again and again.
pub(crate) fn status(wanted: &cli::Status, matches: &ArgMatches) -> Result<(), Failure> {
    let socket = sipdoor::config::admin(wanted.config.as_deref(), wanted.written(matches))?;
    let Some(seconds) = wanted.watch else { return show(wanted, &socket) };
    let terminal = std::io::stdout().is_terminal() && !wanted.json;
    loop {
        if terminal {
            // To the top, and clear: the page is printed anew in one piece.
            drop(write!(std::io::stdout(), "\x1b[H\x1b[2J"));
        }
        show(wanted, &socket)?;
        if std::io::stdout().flush().is_err() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

fn show(wanted: &cli::Status, socket: &Path) -> Result<(), Failure> {
    let status = match admin::ask(socket, Request::Status)? {
        Answer::Status(status) => status,
        Answer::Error(error) => {
            let sentence = format!("the door on {} does not know this question: {error}", socket.display());
            return Err(Failure::new(Code::Unavailable, sentence));
        }
    };
    if wanted.json {
        let text =
            serde_json::to_string_pretty(&status).map_err(|error| Failure::new(Code::Software, error.to_string()))?;
        say(format_args!("{text}"));
        return Ok(());
    }
    let shape = Shape { all: wanted.all, exact: wanted.exact, now: now() };
    say(format_args!("{}", admin::table(&status, shape).trim_end()));
    Ok(())
}

/// Seconds since the Unix epoch.
pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}
