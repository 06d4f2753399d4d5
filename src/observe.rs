//! What the door tells its operator: counters by reason, and the log.
//!
//! Every worker counts into a [`Table`] of its own; the tables are summed when somebody reads them.

use crate::flow::Transport;
use crate::gate::{Pass, Reason};
use crate::proxy::Outcome;
use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_subscriber::EnvFilter;

/// The counters of a door.
#[derive(Debug)]
pub struct Counters {
    tables: Vec<Arc<Table>>,
}

impl Counters {
    /// Counters for this many workers.
    pub fn new(workers: usize) -> Self {
        Self { tables: (0..workers).map(|_| Arc::default()).collect() }
    }

    /// The table that one worker counts into.
    pub fn table(&self, worker: usize) -> Arc<Table> {
        self.tables.get(worker).cloned().unwrap_or_default()
    }

    /// All tables, summed.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for table in &self.tables {
            table.add_to(&mut snapshot);
        }
        snapshot
    }
}

/// One worker's counters: written by that worker, read by anybody. No two workers write to one cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Table {
    cells: [[Cell; ROWS]; TRANSPORTS],
}

impl Default for Table {
    fn default() -> Self {
        Self { cells: std::array::from_fn(|_| std::array::from_fn(|_| Cell::default())) }
    }
}

impl Table {
    /// Counts one message (or one connection that sent no message) of this many bytes.
    pub fn count(&self, transport: Transport, outcome: Outcome, bytes: usize) {
        if let Some(cell) = self.cells.get(column(transport)).and_then(|rows| rows.get(row(outcome))) {
            cell.packets.fetch_add(1, Ordering::Relaxed);
            cell.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    fn add_to(&self, snapshot: &mut Snapshot) {
        for (sums, cells) in snapshot.cells.iter_mut().zip(&self.cells) {
            for (sum, cell) in sums.iter_mut().zip(cells) {
                sum.packets += cell.packets.load(Ordering::Relaxed);
                sum.bytes += cell.bytes.load(Ordering::Relaxed);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Cell {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    cells: [[Count; ROWS]; TRANSPORTS],
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { cells: [[Count::default(); ROWS]; TRANSPORTS] }
    }
}

/// One counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Messages, datagrams or connections.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Which counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Row {
    /// What passed by this rule.
    Pass(Pass),
    /// What was refused for this reason.
    Refuse(Reason),
}

impl Row {
    /// Every row, in policy order.
    pub fn all() -> impl Iterator<Item = Self> {
        Pass::ALL.into_iter().map(Self::Pass).chain(Reason::ALL.into_iter().map(Self::Refuse))
    }

    /// The name of the counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass(pass) => pass.name(),
            Self::Refuse(reason) => reason.name(),
        }
    }
}

impl Snapshot {
    /// One counter.
    pub fn get(&self, transport: Transport, row: Row) -> Count {
        let outcome = match row {
            Row::Pass(pass) => Outcome::Passed(pass),
            Row::Refuse(reason) => Outcome::Refused(reason),
        };
        self.cells.get(column(transport)).and_then(|rows| rows.get(self::row(outcome))).copied().unwrap_or_default()
    }

    /// Every counter in policy order, transport by transport.
    pub fn iter(&self) -> impl Iterator<Item = (Transport, Row, Count)> {
        Transport::ALL
            .into_iter()
            .flat_map(|transport| Row::all().map(move |row| (transport, row)))
            .map(|(transport, row)| (transport, row, self.get(transport, row)))
    }
}

const TRANSPORTS: usize = Transport::ALL.len();
const ROWS: usize = Pass::ALL.len() + Reason::ALL.len();

// Both enums list their variants in the order of their `ALL`, so the discriminant is the place.
const fn column(transport: Transport) -> usize {
    transport as usize
}

const fn row(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Passed(pass) => pass as usize,
        Outcome::Observed(_) => Pass::Observed as usize,
        Outcome::Refused(reason) => Pass::ALL.len() + reason as usize,
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A log level that is none.
#[derive(Debug)]
pub struct BadLevel(String);

impl fmt::Display for BadLevel {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "log = \"{}\" is no level: write off, error, warn, info, debug or trace", self.0)
    }
}

impl std::error::Error for BadLevel {}

/// Starts the log on standard error. `level` is one of off, error, warn, info, debug, trace, or a filter as in
/// `info,sipdoor::net=debug`. A log that was started before stays as it is.
pub fn log(level: &str, format: Format) -> Result<(), BadLevel> {
    // rustls warns of what strangers put into their hellos; here strangers are counted, not reported.
    let filter = EnvFilter::try_new(format!("{level},rustls=error")).map_err(|_| BadLevel(level.to_owned()))?;
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // The only error is that there is a log already: a test, or a program around this one, has made it.
    let _ = match format {
        Format::Text => lines.with_target(false).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_own_cell() {
        let counters = Counters::new(2);
        let rows: Vec<Row> = Row::all().collect();
        assert_eq!(rows.len(), ROWS);
        for (at, row) in rows.iter().enumerate() {
            let outcome = match *row {
                Row::Pass(pass) => Outcome::Passed(pass),
                Row::Refuse(reason) => Outcome::Refused(reason),
            };
            for _ in 0..=at {
                counters.table(at % 2).count(Transport::Tcp, outcome, 3);
            }
        }
        let snapshot = counters.snapshot();
        for (transport, row, count) in snapshot.iter() {
            let at = rows.iter().position(|r| *r == row).unwrap() as u64;
            let packets = if transport == Transport::Tcp { at + 1 } else { 0 };
            assert_eq!(count, Count { packets, bytes: 3 * packets }, "{transport:?} {row:?}");
        }
        assert_eq!(snapshot.iter().count(), 3 * ROWS);
    }

    #[test]
    fn a_level_that_is_none_is_named() {
        let error = log("l=o=u=d", Format::Text).unwrap_err();
        assert!(error.to_string().starts_with("log = \"l=o=u=d\" is no level"), "{error}");
    }
}
