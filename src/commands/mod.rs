//! The commands, one file each.

mod certs;
mod check;
mod demo;
mod explain;
mod run;
mod status;

pub(crate) use certs::certs;
pub(crate) use check::check;
pub(crate) use demo::demo;
pub(crate) use explain::explain;
pub(crate) use run::run;
pub(crate) use status::status;
