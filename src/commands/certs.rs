//! `sipdoor certs`: a development authority and a certificate for the door.

use crate::cli;
use crate::failure::{Code, Failure, say};

/// Makes the files, and says how to use them.
pub(crate) fn certs(wanted: &cli::Certs) -> Result<(), Failure> {
    let name = |text: &String| {
        sipdoor::config::name(text).map_err(|why| {
            let sentence = format!("--name: `{text}` cannot be a name: {why}: write a domain like k7q2.example.com");
            Failure::new(Code::Settings, sentence)
        })
    };
    let names = wanted.name.iter().map(name).collect::<Result<Vec<_>, _>>()?;
    let files = sipdoor::certs::write(&wanted.dir, &names)?;
    say(format_args!("{} is for the phones: they must trust it.", files.authority.display()));
    say(format_args!("The door takes --cert {} --key {}", files.cert.display(), files.key.display()));
    Ok(())
}
