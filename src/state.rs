//! The state directory.

use crate::failure::{Code, Failure, of};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Tries the directory, or what is there of the way to it, and makes nothing. Says whether it is there.
pub(crate) fn look(directory: &Path) -> Result<bool, Failure> {
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    probe(there).map_err(|error| complaint(directory, &error))?;
    Ok(there == directory)
}

/// Only writing says whether one may write: modes do not know of read-only mounts, quotas and full disks.
fn probe(directory: &Path) -> io::Result<()> {
    let file = directory.join(format!(".sipdoor-probe-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
    std::fs::remove_file(&file)
}

fn complaint(directory: &Path, error: &io::Error) -> Failure {
    let sentence = format!(
        "the state directory {} cannot be written: {error}: give the user that runs the door a directory of its own \
         (state = \"…\", --state DIR)",
        directory.display()
    );
    Failure::new(of(error, Code::CannotMake), sentence)
}
