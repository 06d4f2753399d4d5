//! A status as text, in the manner of `iptables -nvL`.

use super::{Row, Status};
use std::fmt::Write;

/// How much of a status is shown, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// Rows at zero too.
    pub all: bool,
    /// Whole numbers in place of `12K`.
    pub exact: bool,
    /// The time, in seconds since the Unix epoch.
    pub now: i64,
}

/// The status of a door as a page of text: its state, then one chain for each transport with its rows in policy order.
pub fn table(status: &Status, shape: Shape) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = head(&mut page, status, shape.now);
    let mut transports: Vec<&str> = status.rows.iter().map(|row| row.transport.as_str()).collect();
    transports.dedup();
    for transport in transports {
        let _ = chain(&mut page, transport, status.rows.iter().filter(|row| row.transport == transport), shape);
    }
    page
}

fn head(page: &mut String, status: &Status, now: i64) -> std::fmt::Result {
    let connections: Vec<String> =
        status.connections.iter().map(|one| format!("{} {}", one.open, one.transport)).collect();
    writeln!(
        page,
        "sipdoor {} (pid {}), up {}, names {}, phones {}, connections {}",
        status.version,
        status.pid,
        uptime(status.uptime),
        status.names,
        status.bindings,
        if connections.is_empty() { "0".to_owned() } else { connections.join(" ") },
    )?;
    for listener in &status.listeners {
        writeln!(page, "listening {} {}", listener.transport, listener.address)?;
    }
    writeln!(page, "inside {}, backend {}", status.inside, status.backend)?;
    for one in &status.certificates {
        writeln!(page, "certificate {}: {}", one.file, expiry(one.expires, now))?;
    }
    Ok(())
}

fn chain<'a>(
    page: &mut String,
    transport: &str,
    rows: impl Iterator<Item = &'a Row>,
    shape: Shape,
) -> std::fmt::Result {
    writeln!(page, "\nChain {transport} (policy DROP)")?;
    writeln!(page, "    pkts    bytes target  reason")?;
    let mut hidden = 0;
    for row in rows {
        if row.packets == 0 && !shape.all {
            hidden += 1;
            continue;
        }
        let number = |n| if shape.exact { format!("{n}") } else { short(n) };
        let target = row.target.to_ascii_uppercase();
        writeln!(page, "{:>8} {:>8} {target:<7} {}", number(row.packets), number(row.bytes), row.reason)?;
    }
    if hidden > 0 { writeln!(page, "         {hidden} more rows at 0 (--all shows them)") } else { Ok(()) }
}

/// As iptables writes it: exact up to five digits, then K, M, G, T of 1000.
fn short(number: u64) -> String {
    let mut rest = number;
    for unit in ["", "K", "M", "G"] {
        if rest < 100_000 {
            return format!("{rest}{unit}");
        }
        rest = rest.saturating_add(500) / 1000;
    }
    format!("{rest}T")
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match days {
        0 => format!("{hours:02}:{minutes:02}:{:02}", seconds % 60),
        days => format!("{days}d {hours:02}:{minutes:02}"),
    }
}

/// When a certificate ends, as a date and in days from now.
pub fn expiry(expires: i64, now: i64) -> String {
    let date = date(expires);
    match (expires - now).div_euclid(86_400) {
        _ if expires <= now => format!("EXPIRED on {date}"),
        1 => format!("1 day left (until {date})"),
        days => format!("{days} days left (until {date})"),
    }
}

/// The day of a moment, in UTC (the civil calendar, by years that begin in March so that leap days come last).
fn date(moment: i64) -> String {
    let days = moment.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::super::{Certificate, Connections, Listening};
    use super::*;

    fn row(transport: &str, target: &str, reason: &str, packets: u64, bytes: u64) -> Row {
        Row { transport: transport.into(), target: target.into(), reason: reason.into(), packets, bytes }
    }

    #[test]
    fn a_status_reads_like_iptables() {
        let status = Status {
            version: "1.2.3".into(),
            pid: 42,
            uptime: 266_645,
            names: 1,
            bindings: 12,
            connections: vec![Connections { transport: "tls".into(), open: 3 }],
            listeners: vec![Listening { transport: "udp".into(), address: "0.0.0.0:5060".into() }],
            backend: "127.0.0.1:5080".into(),
            inside: "127.0.0.1:5070".into(),
            certificates: vec![Certificate { file: "door.pem".into(), expires: 1_800_000_000 }],
            rows: vec![
                row("udp", "drop", "uri_host", 1_234_567, 987_654_321),
                row("udp", "accept", "name", 7, 4_321),
                row("udp", "drop", "route", 0, 0),
                row("tls", "drop", "sni_absent", 99_999, 0),
            ],
        };
        let shape = Shape { now: 1_799_000_000, ..Shape::default() };
        let page = "\
sipdoor 1.2.3 (pid 42), up 3d 02:04, names 1, phones 12, connections 3 tls
listening udp 0.0.0.0:5060
inside 127.0.0.1:5070, backend 127.0.0.1:5080
certificate door.pem: 11 days left (until 2027-01-15)

Chain udp (policy DROP)
    pkts    bytes target  reason
   1235K     988M DROP    uri_host
       7     4321 ACCEPT  name
         1 more rows at 0 (--all shows them)

Chain tls (policy DROP)
    pkts    bytes target  reason
   99999        0 DROP    sni_absent
";
        assert_eq!(table(&status, shape), page);
        let exact = table(&status, Shape { all: true, exact: true, ..shape });
        assert!(exact.contains(" 1234567 987654321 DROP    uri_host\n"), "{exact}");
        assert!(exact.contains("       0        0 DROP    route\n"), "{exact}");
    }

    #[test]
    fn dates_are_civil() {
        for (moment, day) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
            (4_107_542_400, "2100-03-01"),
            (-1, "1969-12-31"),
        ] {
            assert_eq!(date(moment), day);
        }
        assert_eq!(expiry(1_000_000, 1_000_000), "EXPIRED on 1970-01-12");
        assert_eq!(expiry(1_090_000, 1_000_000), "1 day left (until 1970-01-13)");
    }
}
