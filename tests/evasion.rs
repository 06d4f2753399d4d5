//! What a stranger could try, played through the core: silence and the right counter for all of it, and no harm to what
//! only looks odd.

mod kit;

use kit::evasion::{Case, cases, good};
use kit::judge::Judge;
use kit::stage::{Play, Stage, asterisk, outside};
use kit::{corpus, shown};
use sipdoor::flow::Transport;
use sipdoor::gate::{Pass, Reason};
use sipdoor::proxy::Outcome;
use std::collections::BTreeSet;

#[test]
fn the_good_messages_pass() {
    for (name, bytes) in good() {
        for transport in Transport::ALL {
            let outcome = Judge::default().play(&mut Stage::new(), &outside(transport), &bytes);
            assert_eq!(outcome, Ok(Outcome::Passed(Pass::Name)), "{name}:\n{}", shown(&bytes));
        }
    }
}

#[test]
fn every_case_has_its_outcome() {
    let cases = cases();
    assert!(cases.len() > 150, "{} cases", cases.len());
    let ids: BTreeSet<&str> = cases.iter().map(|(_, case)| case.id.as_str()).collect();
    assert_eq!(ids.len(), cases.len(), "an id stands twice");
    let mut wrong = Vec::new();
    for (file, case) in &cases {
        if let Err(what) = play(case) {
            wrong.push(format!("{file}/{}: {what} ({})", case.id, case.why));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn play(case: &Case) -> Result<(), String> {
    let bytes = case.message();
    let mut stage = Stage::new();
    if case.transport == "udp" {
        let from = outside(Transport::Udp);
        let outcome = Judge::default().play(&mut stage, &from, &bytes)?;
        let sent = stage.out.iter().map(|(flow, bytes)| (*flow, bytes.to_vec())).collect();
        return expected(case, &case.expect, &(outcome, sent));
    }
    let played = stage.stream(&outside(Transport::Tcp), &bytes);
    if case.expect.is_empty() {
        return if played.is_empty() { Ok(()) } else { Err(format!("{played:?}")) };
    }
    let (first, rest) = played.split_first().ok_or("nothing happened")?;
    expected(case, &case.expect, first)?;
    let rest: Vec<&str> = rest.iter().map(|play| name(play.0)).collect();
    if rest != case.then { Err(format!("then {rest:?}")) } else { Ok(()) }
}

fn expected(case: &Case, names: &[String], (outcome, sent): &Play) -> Result<(), String> {
    let found = name(*outcome);
    if !names.iter().any(|name| name == found) {
        return Err(found.to_owned());
    }
    match (outcome, sent.as_slice()) {
        (Outcome::Passed(Pass::Name), [(to, bytes)]) if *to == asterisk() => {
            case.check(bytes).map_err(|what| format!("{what}:\n{}", shown(bytes)))
        }
        (Outcome::Passed(Pass::KeepAlive), []) => Ok(()),
        // Silence, unless the case says that its sender is due an answer.
        (Outcome::Refused(_), []) if case.answer.as_deref().unwrap_or_default().is_empty() => Ok(()),
        (Outcome::Refused(_), [(_, bytes)])
            if case.answer.as_ref().is_some_and(|start| !start.is_empty() && bytes.starts_with(start.as_bytes())) =>
        {
            Ok(())
        }
        _ => Err(format!("{found}, and {} sent: {sent:?}", sent.len())),
    }
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed(Pass::Name) => "pass",
        Outcome::Passed(pass) => pass.name(),
        Outcome::Refused(reason) => reason.name(),
        Outcome::Observed(_) => "observed",
    }
}

/// Scanners' datagrams: refused at the first glance, silently.
#[test]
fn scanners_hear_nothing() {
    let probes = corpus::read("probes");
    assert!(probes.len() >= 10);
    let mut stage = Stage::new();
    for probe in probes {
        for transport in Transport::ALL {
            let played = stage.play(&outside(transport), &probe.bytes);
            assert_eq!(played, (Outcome::Refused(Reason::UriHost), Vec::new()), "{}", probe.name);
        }
    }
}

/// A scanner that has found the name by chance in one place still hears nothing.
#[test]
fn one_right_host_of_three_is_not_enough() {
    let evil = "evil.example";
    for probe in ["svmap-options", "nmap-enum-users", "sipsak-options"] {
        let bytes = std::fs::read(corpus::directory().join("probes").join(probe).with_extension("sip")).unwrap();
        let named = String::from_utf8(kit::rename::renamed(&bytes, kit::stage::NAME)).unwrap();
        for (at, _) in named.match_indices(kit::stage::NAME) {
            let mut text = named.clone();
            text.replace_range(at..at + kit::stage::NAME.len(), evil);
            let (outcome, sent) = Stage::new().play(&outside(Transport::Udp), text.as_bytes());
            let hosts = [Reason::UriHost, Reason::FromHost, Reason::ToHost].map(Outcome::Refused);
            assert!(hosts.contains(&outcome) && sent.is_empty(), "{outcome:?} for\n{text}");
        }
    }
}
