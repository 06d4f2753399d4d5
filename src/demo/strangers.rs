//! The second scene: strangers who know the address, and what they get.

use super::house::House;
use super::pbx::Pbx;
use super::scanner::{AGENT, Seen, Stranger, request};
use super::stage::Stage;
use super::{Error, message::find};
use crate::flow::Transport;
use crate::gate::{Pass, Reason};
use crate::observe::{Row, Snapshot};
use std::net::IpAddr;
use std::time::Duration;

/// One knock at the door.
struct Knock {
    transport: Transport,
    what: String,
    act: Act,
    /// The one counter that goes up.
    row: Row,
}

/// How it is done.
enum Act {
    Datagram(Vec<u8>),
    Stream(Vec<u8>),
    Hello(Option<String>),
    Inside(Vec<u8>),
}

/// Plays all of them at once; then looks at the counters, and at what the PBX has heard.
pub(super) async fn play(stage: &mut Stage, house: &House, pbx: &Pbx) -> Result<(), Error> {
    let before = house.counters();
    let mut visits = Vec::new();
    for knock in knocks(house) {
        let stranger =
            Stranger { own: house.stranger_address(), door: house.door(knock.transport), patience: PATIENCE };
        let name = house.name.clone();
        visits.push(tokio::spawn(async move {
            let seen = visit(&stranger, &knock.act, &name).await;
            (knock, seen)
        }));
    }
    let mut expected = Vec::new();
    for visit in visits {
        let Ok((knock, seen)) = visit.await else { return Err(Error::Closed) };
        let what = format!("{} {}", knock.transport.via(), knock.what);
        match seen {
            Ok(seen) => stage.check(what, seen.bytes == 0, describe(seen, knock.transport)),
            Err(error) => stage.check(what, false, error),
        }
        expected.push((knock.transport, knock.row));
    }
    count(stage, &expected, &before, &house.counters());
    let heard = pbx.transcript().iter().filter(|record| find(&record.bytes, AGENT.as_bytes()).is_some()).count();
    let seen = if heard == 0 { "not one message of theirs".to_owned() } else { format!("{heard} messages") };
    stage.check("the PBX behind the door heard of the strangers", heard == 0, seen);
    Ok(())
}

async fn visit(stranger: &Stranger, act: &Act, name: &str) -> Result<Seen, Error> {
    match act {
        Act::Datagram(bytes) => stranger.datagram(bytes).await,
        Act::Stream(bytes) => stranger.stream(bytes).await,
        Act::Hello(sni) => stranger.hello(sni.as_deref()).await,
        Act::Inside(bytes) => stranger.inside_tls(name, bytes).await,
    }
}

fn describe(seen: Seen, transport: Transport) -> String {
    let heard = match seen.bytes {
        0 => "nothing".to_owned(),
        n => format!("{n} bytes"),
    };
    match (seen.closed, transport) {
        (true, Transport::Udp) => format!("{heard}, but an ICMP error"),
        (true, _) => format!("{heard}, then the connection was closed"),
        (false, _) => format!("{heard} in {} ms", PATIENCE.as_millis()),
    }
}

/// Each knock is counted once, under its one reason, and nothing else is.
fn count(stage: &mut Stage, expected: &[(Transport, Row)], before: &Snapshot, after: &Snapshot) {
    let mut wrong = Vec::new();
    for (transport, row, count) in after.iter() {
        let came = count.packets.saturating_sub(before.get(transport, row).packets);
        let due = expected.iter().filter(|one| **one == (transport, row)).count() as u64;
        // The name in the ClientHello of a knock inside TLS is right, and counted too.
        let own = matches!(row, Row::Pass(Pass::Hello | Pass::Inside | Pass::Response | Pass::Answer));
        if came != due && !own {
            wrong.push(format!("{} {} {came} in place of {due}", transport.name(), row.name()));
        }
    }
    let seen = if wrong.is_empty() { "once each, under one reason".to_owned() } else { wrong.join(", ") };
    stage.check("the strangers were counted", wrong.is_empty(), seen);
}

/// Everything that is tried.
fn knocks(house: &House) -> Vec<Knock> {
    let address = match house.listen {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let mut knocks = by_address(&address);
    knocks.extend(with_the_name(&house.name, &address));
    knocks.extend(no_request(&house.name));
    knocks.extend(on_streams(house.listen, &address));
    knocks
}

fn knock(transport: Transport, what: impl Into<String>, act: Act, row: Row) -> Knock {
    Knock { transport, what: what.into(), act, row }
}

fn datagram(what: &str, bytes: impl Into<Vec<u8>>, reason: Reason) -> Knock {
    knock(Transport::Udp, what, Act::Datagram(bytes.into()), Row::Refuse(reason))
}

/// What scanners send all day.
fn by_address(address: &str) -> Vec<Knock> {
    let tries = [("OPTIONS", "100"), ("REGISTER", "101"), ("INVITE", "900441632960001"), ("ACK", "100")];
    let probe = |(method, user)| {
        let (uri, from) = (format!("sip:{user}@{address}"), format!("sip:100@{address}"));
        let bytes = request(method, "UDP", &uri, &from, &uri);
        datagram(&format!("{method} by address"), bytes, Reason::UriHost)
    };
    tries.into_iter().map(probe).collect()
}

/// The name is there, and not where it opens.
fn with_the_name(name: &str, address: &str) -> Vec<Knock> {
    let (good, ip) = (format!("sip:100@{name}"), format!("sip:100@{address}"));
    let (user, longer) = (format!("sip:{name}@{address}"), format!("sip:100@{name}.example.net"));
    let options = |uri: &str, from: &str, to: &str| request("OPTIONS", "UDP", uri, from, to);
    let plain = options(&good, &good, &good);
    let inserted = |line: &str| plain.replacen("Max-Forwards: 70\r\n", &format!("Max-Forwards: 70\r\n{line}\r\n"), 1);
    vec![
        datagram("OPTIONS with the name as a user", options(&user, &good, &good), Reason::UriHost),
        datagram("OPTIONS with a longer name", options(&longer, &longer, &longer), Reason::UriHost),
        datagram("OPTIONS with the name, but From the address", options(&good, &ip, &good), Reason::FromHost),
        datagram("OPTIONS with the name, but To the address", options(&good, &good, &ip), Reason::ToHost),
        datagram("OPTIONS with two Froms", inserted(&format!("f: <{ip}>;tag=2")), Reason::Ambiguous),
        datagram("OPTIONS to be relayed", inserted("Route: <sip:198.51.100.9;lr>"), Reason::Route),
    ]
}

fn no_request(name: &str) -> Vec<Knock> {
    let good = format!("sip:100@{name}");
    let plain = request("OPTIONS", "UDP", &good, &good, &good);
    let answer = plain.replacen(&format!("OPTIONS {good} SIP/2.0"), "SIP/2.0 200 OK", 1);
    let keep_alive = Act::Datagram(b"\r\n\r\n".to_vec());
    vec![
        datagram("200 to nothing", answer, Reason::Unsolicited),
        datagram("noise", "hello?\r\n\r\n", Reason::NotSip),
        knock(Transport::Udp, "keep-alive", keep_alive, Row::Pass(Pass::KeepAlive)),
    ]
}

fn on_streams(listen: IpAddr, address: &str) -> Vec<Knock> {
    let ip = format!("sip:100@{address}");
    let options = |via: &str| request("OPTIONS", via, &ip, &ip, &ip).into_bytes();
    let http = || Act::Stream(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes());
    let hello = |what, sni, reason| knock(Transport::Tls, what, Act::Hello(sni), Row::Refuse(reason));
    let refused = |transport, what, act, reason| knock(transport, what, act, Row::Refuse(reason));
    vec![
        refused(Transport::Tcp, "OPTIONS by address", Act::Stream(options("TCP")), Reason::UriHost),
        refused(Transport::Tcp, "HTTP", http(), Reason::NotSip),
        hello("ClientHello without SNI", None, Reason::SniAbsent),
        hello("ClientHello with the address as SNI", Some(listen.to_string()), Reason::SniIp),
        hello("ClientHello with a wrong SNI", Some("sip.example.com".to_owned()), Reason::SniWrong),
        refused(Transport::Tls, "HTTP", http(), Reason::NotTls),
        refused(
            Transport::Tls,
            "OPTIONS by address behind the right SNI",
            Act::Inside(options("TLS")),
            Reason::UriHost,
        ),
    ]
}

/// How long a stranger listens.
const PATIENCE: Duration = Duration::from_millis(500);
