use super::*;
use crate::config::written::Written;

const HOST: Host = Host { ipv6: true, cpus: 3 };
const SAMPLE: &str = include_str!("../../config/sipdoor.toml");

/// The settings of a file with this text.
fn file(text: &str) -> Result<Settings, Error> {
    let directory = std::env::temp_dir().join(format!("sipdoor-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("{:?}.toml", std::thread::current().id()));
    std::fs::write(&path, text).unwrap();
    let settings = load(Some(&path), Written::default(), HOST);
    std::fs::remove_file(path).unwrap();
    settings
}

/// The complaint about a file with this text, after the file's name.
fn complaint(text: &str) -> String {
    let sentence = file(text).unwrap_err().to_string();
    sentence.split_once(".toml:").map_or(sentence.clone(), |(_, rest)| rest.to_owned())
}

fn flag(value: &str) -> At<String> {
    At { value: value.to_owned(), place: Place::Flag("--flag".to_owned()) }
}

fn named() -> Written {
    Written { names: Some(At::built_in(vec![flag("k7q2.example.com")])), ..Written::default() }
}

#[test]
fn the_sample_file_shows_the_built_in_values() {
    let sample = file(SAMPLE).unwrap();
    let built_in = load(None, named(), HOST).unwrap();
    assert_eq!(format!("{:#?}", sample.config), format!("{:#?}", built_in.config));
    assert_eq!(sample.log, built_in.log);
}

#[test]
fn the_sample_file_has_every_key_and_is_right_when_all_of_it_is_used() {
    let is_setting = |line: &str| {
        line.starts_with("#[[") || (line.starts_with('#') && !line.starts_with("# ") && line.contains(" = "))
    };
    let all: String = SAMPLE
        .lines()
        .map(|line| if is_setting(line) { line.trim_start_matches('#') } else { line })
        .fold(String::new(), |all, line| all + line + "\n");
    let settings = file(&all).unwrap();
    assert_eq!(settings.config.certificates.len(), 1);
    assert_eq!(settings.config.listeners.len(), 2);
    for (section, keys) in file::KEYS {
        let from = if section.is_empty() { 0 } else { all.find(&format!("[{section}]")).expect(section) };
        for (key, _) in *keys {
            assert!(all.split_at(from).1.contains(&format!("\n{key} = ")), "{section}.{key} is not in the sample");
        }
    }
}

#[test]
fn every_example_in_a_complaint_would_be_right() {
    let mut text = String::new();
    for (section, keys) in file::KEYS {
        match *section {
            "" => {}
            "listen" | "certificate" => text += &format!("[[{section}]]\n"),
            table => text += &format!("[{table}]\n"),
        }
        for (key, example) in *keys {
            text += &format!("{key} = {example}\n");
        }
    }
    file(&text).unwrap();
}

#[test]
fn without_listeners_the_usual_ports_are_used() {
    let addresses = |settings: &Settings| {
        let all = settings.config.listeners.iter();
        all.map(|one| format!("{} {}", one.transport.name(), one.address)).collect::<Vec<_>>().join(", ")
    };
    let plain = load(None, named(), HOST).unwrap();
    assert_eq!(addresses(&plain), "udp 0.0.0.0:5060, udp [::]:5060, tcp 0.0.0.0:5060, tcp [::]:5060");
    assert!(plain.notes[0].contains("no certificate"), "{:?}", plain.notes);
    let certificates = Some(vec![Certificate { cert: flag("c"), key: flag("k") }]);
    let tls = load(None, Written { certificates, ..named() }, Host { ipv6: false, cpus: 1 }).unwrap();
    assert_eq!(addresses(&tls), "udp 0.0.0.0:5060, tcp 0.0.0.0:5060, tls 0.0.0.0:5061");
    assert!(tls.notes.is_empty());
    assert_eq!((plain.config.workers, tls.config.workers), (3, 1));
}

#[test]
fn advertise_goes_to_the_listeners_of_its_family() {
    let settings = file(
        "names = ['a.test']\nadvertise = ['203.0.113.5']\n[[listen]]\ntransport = 'udp'\naddress = '0.0.0.0:5060'\n\
         [[listen]]\ntransport = 'udp'\naddress = '[::]:5060'\n[[listen]]\ntransport = 'tcp'\naddress = '0.0.0.0:5060'\n\
         advertise = '203.0.113.9'\n",
    );
    let all: Vec<_> =
        settings.unwrap().config.listeners.iter().map(|one| one.advertise.map(|ip| ip.to_string())).collect();
    assert_eq!(all, [Some("203.0.113.5".into()), None, Some("203.0.113.9".into())]);
}

#[test]
fn an_upper_layer_wins_and_lists_replace_lists() {
    let over = Written {
        names: Some(At::built_in(vec![flag("B.test"), flag("b.TEST")])),
        backend: Some(flag("127.0.0.1:5999")),
        ..Written::default()
    };
    let under = Written { names: named().names, inside: Some(flag("127.0.0.1:6000")), ..Written::default() };
    let config = load(None, over.over(under), HOST).unwrap().config;
    assert_eq!(config.names, ["b.test"]);
    assert_eq!(config.backend.to_string(), "127.0.0.1:5999");
    assert_eq!(config.inside.to_string(), "127.0.0.1:6000");
}

#[test]
fn what_is_always_stripped_cannot_be_kept() {
    let strip =
        file("names = ['a.test']\n[gate]\nstrip = ['X-My-*', 'x-my-*', 'Diversion']\n").unwrap().config.gate.strip;
    assert_eq!(strip, ["path", "service-route", "x-sipdoor-*", "x-my-*", "diversion"]);
}

#[test]
fn names_are_host_names() {
    for good in ["k7q2.example.com", "K7Q2.Example.COM", "pbx", "1.example.com", "xn--bcher-kva.example", "a-b.c"] {
        assert_eq!(value::name(good), Ok(good.to_ascii_lowercase()));
    }
    let long = format!("{}.test", "a".repeat(64));
    let longer = ["a23456789"; 26].join(".");
    for (bad, why) in [
        ("", BadName::Empty),
        ("203.0.113.5", BadName::Address),
        ("2001:db8::1", BadName::Address),
        ("[2001:db8::1]", BadName::Address),
        ("203.0.113.5:5060", BadName::Address),
        ("sip:a.test", BadName::Scheme),
        ("https://a.test", BadName::Scheme),
        ("a.test:5061", BadName::Port),
        ("me@a.test", BadName::User),
        ("*.a.test", BadName::Wildcard),
        ("a.test.", BadName::TrailingDot),
        ("a..test", BadName::EmptyLabel),
        (".a.test", BadName::EmptyLabel),
        (".", BadName::EmptyLabel),
        ("my_pbx.test", BadName::Character('_')),
        ("a b.test", BadName::Character(' ')),
        ("bücher.example", BadName::Character('ü')),
        ("-a.test", BadName::Hyphen),
        ("a-.test", BadName::Hyphen),
        (long.as_str(), BadName::Length),
        (longer.as_str(), BadName::Length),
        ("1.2.3", BadName::Digits),
    ] {
        assert_eq!(value::name(bad), Err(why), "{bad}");
    }
}

#[test]
fn addresses_have_a_port() {
    assert!(value::socket("[::1]:5060").is_ok());
    for (bad, why) in [
        ("127.0.0.1", BadAddress::NoPort),
        ("[::1]", BadAddress::NoPort),
        ("::1", BadAddress::NoBrackets),
        ("::1:5060", BadAddress::NoBrackets),
        ("127.0.0.1:65536", BadAddress::BadPort),
        ("127.0.0.1:sip", BadAddress::BadPort),
        ("localhost:5060", BadAddress::HostName),
        ("localhost", BadAddress::NoPort),
        (":5060", BadAddress::Nonsense),
        ("", BadAddress::Nonsense),
    ] {
        assert_eq!(value::socket(bad), Err(why), "{bad}");
    }
}

#[test]
fn times_have_a_unit() {
    for (good, millis) in [("500ms", 500), ("5s", 5_000), ("10 m", 600_000), ("24h", 86_400_000)] {
        assert_eq!(value::duration(good), Ok(Duration::from_millis(millis)));
    }
    for (bad, why) in [
        ("5", BadDuration::NoUnit),
        ("5sec", BadDuration::Unit),
        ("s", BadDuration::Number),
        ("-5s", BadDuration::Number),
        ("1.5s", BadDuration::Unit),
        ("0s", BadDuration::Zero),
        ("25h", BadDuration::Long),
        ("99999999999999999999s", BadDuration::Number),
        ("18446744073709551615h", BadDuration::Long),
    ] {
        assert_eq!(value::duration(bad), Err(why), "{bad}");
    }
}

#[test]
fn complaints_name_the_line_and_the_key() {
    let named = "names = ['a.test']\n";
    for (text, sentence) in [
        ("names = []", "1: names: there is no name"),
        ("names = ['a.test',\n 'b_c.test']", "2: names: `b_c.test` cannot be a name: it has an underscore"),
        ("names = 'a.test'", "1: names: invalid type: string \"a.test\", expected a sequence: write names = [\"k7q2"),
        ("nams = ['a.test']", "1: unknown key `nams` at the top, before the first [section]: did you mean `names`?"),
        ("names = [", "1: this is not TOML: "),
        ("[limits]\nidel = '5s'", "2: unknown key `idel` in [limits]: did you mean `idle`?"),
        ("[limits]\nidle = 5", "2: limits.idle: invalid type: integer `5`, expected a string: write idle = \"10m\""),
        ("[gate]\nstate = '/x'", "2: unknown key `state` in [gate]: it belongs at the top, before the first [section]"),
        ("[gate]\nxyzzyx = 1", "2: unknown key `xyzzyx` in [gate]: the keys here are methods, strip, deny"),
        ("[backends]\naddress = '127.0.0.1:1'", "1: unknown section [backends]: did you mean `backend`?"),
        ("[tls]\nx = 1", "1: unknown section [tls]: the sections are [backend]"),
        ("[[listen]]\naddress = '0.0.0.0:1'", "1: [[listen]] has no `transport`: write transport = \"udp\""),
        ("[[listen]]\naddress = '0.0.0.0:1'\ntransport = 'sctp'", "3: listen.transport: unknown variant `sctp`"),
        ("[[certificate]]\ncert = 'a'", "1: [[certificate]] has no `key`"),
    ] {
        let got = complaint(text);
        assert!(got.starts_with(sentence), "{text}\n got {got}\nwant {sentence}");
    }
    for (text, sentence) in [
        ("workers = -1", "2: workers: `-1`: write a number from 0 to 1024"),
        ("log = 'loud'", "2: log: `loud` is none of off, error"),
        ("state = ''", "2: state: the path is empty"),
        ("advertise = ['0.0.0.0']", "2: advertise: `0.0.0.0` is not an address"),
        ("advertise = ['1.2.3.4', '1.2.3.5']", "2: advertise: 1.2.3.5 is a second one"),
        ("[backend]\naddress = '192.0.2.1:5080'", "3: backend.address: 192.0.2.1:5080 is not on loopback"),
        (
            "[backend]\naddress = '127.0.0.1'",
            "3: backend.address: `127.0.0.1`: the port is missing: write it as 127.0.0.1:5080",
        ),
        ("[backend]\naddress = '127.0.0.1:5060'", "3: backend.address: 127.0.0.1:5060 is also covered by the UDP"),
        ("[backend]\naddress = '127.0.0.1:0'", "3: backend.address: 127.0.0.1:0 has port 0"),
        ("[backend]\ninside = '127.0.0.1:5080'", "3: backend.inside: 127.0.0.1:5080 is both"),
        ("[backend]\ninside = '[::1]:5070'", "3: backend.inside: [::1]:5070 cannot talk to 127.0.0.1:5080"),
        ("[[listen]]\ntransport='tls'\naddress='0.0.0.0:5061'", "4: listen: a TLS listener needs a certificate"),
        (
            "[[listen]]\ntransport='udp'\naddress='0.0.0.0:1'\nadvertise='::2'",
            "5: listen.advertise: ::2 and the listener 0.0.0.0:1 are of different families",
        ),
        (
            "[[listen]]\ntransport='udp'\naddress='0.0.0.0:1'\n[[listen]]\ntransport='udp'\naddress='0.0.0.0:1'",
            "7: listen: 0.0.0.0:1 is listened on already",
        ),
        ("[[certificate]]\ncert = ''\nkey = 'k'", "3: certificate.cert: the path is empty"),
        ("[gate]\nmethods = ['invite']", "3: gate.methods: `invite` is not a method"),
        ("[gate]\nmethods = []", "3: gate.methods: without a method nothing can pass"),
        ("[gate]\nstrip = ['cal*']", "3: gate.strip: `cal*` would take out what no call can be without"),
        ("[gate]\nstrip = ['*']", "3: gate.strip: `*` is not the name"),
        ("[gate]\ndeny = ['203.0.113']", "3: gate.deny: `203.0.113` is not a network"),
        ("[limits]\nidle = '5'", "3: limits.idle: `5`: the unit is missing: write a time as"),
        ("[limits]\nqueue = 0", "3: limits.queue: `0`: write a number from 1 to"),
        ("[limits]\nhead = 4096\nmessage = 1024", "4: limits: a head of 4096 bytes in a message of 1024"),
    ] {
        let got = complaint(&format!("{named}{text}"));
        assert!(got.starts_with(sentence), "{text}\n got {got}\nwant {sentence}");
    }
}

#[test]
fn a_wildcard_of_one_family_leaves_the_other_alone() {
    let listen = |address: &str| {
        let text = format!(
            "names = ['a.test']\n[backend]\naddress = '127.0.0.1:5060'\n[[listen]]\ntransport = 'udp'\naddress = '{address}'\n"
        );
        file(&text).map(|settings| settings.config.backend.port()).map_err(|error| *error.cause)
    };
    assert_eq!(listen("[::]:5060"), Ok(5060));
    assert_eq!(listen("192.0.2.1:5060"), Ok(5060));
    assert!(matches!(listen("0.0.0.0:5060"), Err(Cause::Taken { .. })));
    assert!(matches!(listen("127.0.0.1:5060"), Err(Cause::Taken { .. })));
}
