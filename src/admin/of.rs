//! The status of a running door.

use super::{Certificate, Connections, Listening, Row, Status};
use crate::flow::Transport;
use crate::gate::{Pass, Reason};
use crate::net::Door;
use crate::observe::Row as Counter;

impl Status {
    /// Asks a door in this process.
    pub fn of(door: &Door) -> Self {
        let connections = Transport::ALL.into_iter().filter(|transport| transport.is_stream());
        let listening = |transport: Transport, address: &dyn ToString| Listening {
            transport: transport.name().to_owned(),
            address: address.to_string(),
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: door.uptime().as_secs(),
            names: door.names(),
            bindings: door.bindings(),
            connections: connections
                .map(|transport| Connections {
                    transport: transport.name().to_owned(),
                    open: door.connections(transport) as u64,
                })
                .collect(),
            listeners: door.listeners().iter().map(|one| listening(one.transport, &one.address)).collect(),
            backend: door.backend().to_string(),
            inside: door.inside().to_string(),
            certificates: door
                .certificates()
                .into_iter()
                .map(|about| Certificate { file: about.file.display().to_string(), expires: about.expires })
                .collect(),
            rows: rows(door),
        }
    }
}

fn rows(door: &Door) -> Vec<Row> {
    let counters = door.counters();
    let row = |transport: Transport, counter: Counter| {
        let count = counters.get(transport, counter);
        Row {
            transport: transport.name().to_owned(),
            target: target(counter).to_owned(),
            reason: counter.name().to_owned(),
            packets: count.packets,
            bytes: count.bytes,
        }
    };
    let all = Transport::ALL.into_iter().flat_map(|transport| order().map(move |counter| (transport, counter)));
    all.map(|(transport, counter)| row(transport, counter)).collect()
}

/// What happens to what is counted there; to reject is to answer.
const fn target(counter: Counter) -> &'static str {
    match counter {
        Counter::Pass(_) => "accept",
        Counter::Refuse(reason) if reason.is_answered() => "reject",
        Counter::Refuse(_) => "drop",
    }
}

/// Every counter where its check stands: the rules that accept among the reasons that refuse.
fn order() -> impl Iterator<Item = Counter> {
    let before = |reason| match reason {
        Reason::Handshake => &[Pass::Hello][..],
        Reason::NotSip => &[Pass::KeepAlive],
        Reason::Unsolicited => &[Pass::Response],
        Reason::UriHost => &[Pass::Dialog],
        Reason::MaxForwards => &[Pass::Name, Pass::Observed],
        _ => &[],
    };
    let outside = Reason::ALL.into_iter().flat_map(move |reason| {
        before(reason).iter().copied().map(Counter::Pass).chain(std::iter::once(Counter::Refuse(reason)))
    });
    outside.chain([Pass::Inside, Pass::Answer].map(Counter::Pass))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_counter_has_one_row() {
        let ordered: Vec<Counter> = order().collect();
        assert_eq!(ordered.iter().collect::<HashSet<_>>().len(), ordered.len());
        assert_eq!(ordered.iter().copied().collect::<HashSet<_>>(), Counter::all().collect());
    }
}
