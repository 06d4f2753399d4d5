//! The program: arguments, one command, exit code.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod failure;
mod state;

use clap::ArgMatches;
use cli::Command;
use failure::{Code, Failure};
use std::process::ExitCode;

fn main() -> ExitCode {
    let (cli, matches) = match cli::parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version come this way too; a closed output is nobody's fault.
            drop(error.print());
            return if error.use_stderr() { Code::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    match execute(cli.command, &matches) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("sipdoor: {failure}");
            failure.code.into()
        }
    }
}

fn execute(command: Command, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let code = |good: bool| ExitCode::from(u8::from(!good));
    match command {
        Command::Run(door) => commands::run(&door, matches)?,
        Command::Check(door) => commands::check(&door, matches)?,
        Command::Explain(wanted) => return commands::explain(&wanted, matches).map(code),
        Command::Certs(wanted) => commands::certs(&wanted)?,
        Command::Status(wanted) => commands::status(&wanted, matches)?,
        Command::Demo(wanted) => return commands::demo(&wanted).map(code),
        Command::Completions { shell } => cli::complete(shell, &mut std::io::stdout()),
    }
    Ok(ExitCode::SUCCESS)
}
