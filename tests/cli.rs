//! The program from outside: what a newcomer types, and the sentence and exit code that come back.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// A directory of one test, gone at its end.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sipdoor-cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// What the program said, and how it ended.
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// The program, ended if it does not end itself: a door that opens where it must not should fail a test, not stop it.
fn program() -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_sipdoor")]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SIPDOOR_") {
            command.env_remove(name);
        }
    }
    command
}

fn said(command: &mut Command, input: &str) -> Said {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing may be gone already.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

fn sipdoor(arguments: &[&str]) -> Said {
    said(program().args(arguments), "")
}

/// `arguments` must end with this code, and with one sentence that has these words in it; what `check` refuses, `run`
/// refuses too.
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    if let ["check", rest @ ..] = arguments {
        refused(&[&["run"], rest].concat(), code, words);
    }
    let got = sipdoor(arguments);
    let sentence = got.err.lines().last().unwrap_or_default();
    assert_eq!(got.code, code, "{arguments:?}: {}", got.err);
    assert!(sentence.starts_with("sipdoor: "), "{arguments:?}: {}", got.err);
    for word in words {
        assert!(sentence.contains(word), "{arguments:?}: no `{word}` in: {sentence}");
    }
}

const NAME: &str = "k7q2.example.com";

#[test]
fn without_a_name_there_is_no_door() {
    refused(&["check"], 78, &["there is no name", "--name k7q2.example.com", "SIPDOOR_NAME"]);
    let room = Room::new("no-name");
    let file = room.file("door.toml", "workers = 1\n");
    refused(&["check", "-c", &file], 78, &["there is no name"]);
    let file = room.file("door.toml", "names = []\n");
    refused(&["check", "-c", &file], 78, &["door.toml:1: names: there is no name"]);
}

#[test]
fn a_wrong_name_says_what_is_wrong_with_it() {
    for (name, why) in [
        ("203.0.113.5", "it is an IP address"),
        ("[2001:db8::1]", "it is an IP address"),
        ("", "it is empty"),
        ("k7q2.example.com.", "it ends in a dot"),
        ("my_pbx.example.com", "it has an underscore"),
        ("sip:k7q2.example.com", "it is a URI"),
        ("k7q2.example.com:5061", "it has a port"),
        ("*.example.com", "it has a wildcard"),
    ] {
        refused(&["check", "--name", name], 78, &["--name: ", &format!("`{name}`"), why]);
    }
    let room = Room::new("names");
    let file = room.file("door.toml", "# mine\nnames = [\"good.test\",\n  \"203.0.113.5\"]\n");
    refused(&["check", "-c", &file], 78, &["door.toml:3: names: `203.0.113.5`", "it is an IP address"]);
}

#[test]
fn a_name_in_capitals_is_taken_in_small_letters() {
    let room = Room::new("capitals");
    let got = sipdoor(&["check", "--name", "K7Q2.Example.COM", "--state", &room.path("state")]);
    assert_eq!(got.code, 0, "{}", got.err);
    assert!(got.out.contains(&format!("names        {NAME}\n")), "{}", got.out);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let room = Room::new("unknown");
    let file = room.file("door.toml", "names = [\"a.test\"]\n\n[backend]\nadress = \"127.0.0.1:5080\"\n");
    refused(
        &["check", "-c", &file],
        78,
        &["door.toml:4: unknown key `adress` in [backend]", "did you mean `address`?"],
    );
}

#[test]
fn addresses_and_times_are_checked() {
    let name = ["check", "--name", NAME];
    let with = |more: &[&'static str]| name.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
    refused(&with(&["--backend", "192.0.2.1:5080"]), 78, &["--backend: 192.0.2.1:5080 is not on loopback"]);
    refused(&with(&["--backend", "127.0.0.1"]), 78, &["--backend: `127.0.0.1`: the port is missing"]);
    refused(&with(&["--backend", "localhost:5080"]), 78, &["a host name is not looked up here"]);
    refused(
        &with(&["--backend", "127.0.0.1:5060"]),
        78,
        &["--backend: 127.0.0.1:5060 is also covered", "0.0.0.0:5060"],
    );
    refused(&with(&["--inside", "127.0.0.1:5080"]), 78, &["--inside: 127.0.0.1:5080 is both"]);
    refused(&with(&["--listen-udp", "5060"]), 78, &["--listen-udp: `5060`"]);
    refused(&with(&["--listen-tls", "0.0.0.0:5061"]), 78, &["--listen-tls: a TLS listener needs a certificate"]);
    refused(&with(&["--advertise", "pbx.test"]), 78, &["--advertise: `pbx.test` is not an address"]);
    refused(&with(&["--workers", "many"]), 78, &["--workers: `many`: write a number"]);
    refused(&with(&["--observe=perhaps"]), 78, &["--observe: `perhaps` is none of true, false"]);
    refused(&with(&["--log", "loud"]), 78, &["--log: `loud` is none of"]);
    refused(&with(&["--cert", "door.pem"]), 78, &["--cert: 1 certificate(s) and 0 key(s)"]);
    let room = Room::new("times");
    let file = room.file("door.toml", "names = [\"a.test\"]\n[limits]\nidle = \"5 minutes\"\n");
    refused(&["check", "-c", &file], 78, &["door.toml:3: limits.idle: `5 minutes`: the unit is none of ms, s, m, h"]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    refused(&["check", "-c", "/nowhere/door.toml"], 78, &["/nowhere/door.toml", "No such file"]);
}

#[test]
fn a_state_directory_must_be_writable() {
    // Nobody may write here: not permitted (77) for most, not possible (73) for root.
    let got = sipdoor(&["check", "--name", NAME, "--state", "/proc/sipdoor"]);
    assert!(matches!(got.code, 73 | 77) && got.err.contains("the state directory /proc/sipdoor"), "{}", got.err);
    let room = Room::new("state");
    let file = room.file("occupied", "");
    refused(&["check", "--name", NAME, "--state", &file], 73, &["the state directory"]);
}

#[test]
fn a_certificate_and_its_key_must_be_there_and_belong_together() {
    let room = Room::new("keys");
    for directory in ["one", "two"] {
        assert_eq!(sipdoor(&["certs", "--name", NAME, "--dir", &room.path(directory)]).code, 0);
    }
    let state = room.path("state");
    let with = |cert: &str, key: &str, words: &[&str]| {
        let (cert, key) = (room.path(cert), room.path(key));
        refused(&["check", "--name", NAME, "--state", &state, "--cert", &cert, "--key", &key], 78, words);
    };
    with(
        "one/door.pem",
        "two/door.key",
        &["--key: the key ", "two/door.key does not belong to the certificate", "one/door.pem"],
    );
    let text = format!(
        "names = [\"{NAME}\"]\nstate = \"{state}\"\n[[certificate]]\ncert = \"{}\"\nkey = \"{}\"\n",
        room.path("one/door.pem"),
        room.path("two/door.key")
    );
    refused(&["check", "-c", &room.file("door.toml", &text)], 78, &["door.toml:5: certificate.key: the key "]);
    with("none.pem", "one/door.key", &["none.pem cannot be read: No such file"]);
    with("one/door.pem", "none.key", &["none.key cannot be read: No such file"]);
    with("one/door.key", "one/door.key", &["one/door.key holds no PEM certificate"]);
    with("one/door.pem", "one/door.pem", &["one/door.pem holds no PEM private key"]);
}

#[test]
fn flags_come_before_variables_and_variables_before_the_file() {
    let room = Room::new("layers");
    let text = format!(
        "names = [\"file.test\"]\nstate = \"{}\"\nobserve = true\n[backend]\naddress = \"127.0.0.1:1111\"\ninside = \"127.0.0.1:2222\"\n",
        room.path("state")
    );
    let file = room.file("door.toml", &text);
    let mut command = program();
    command.args(["check", "-c", &file, "--backend", "127.0.0.1:3333", "--observe=false"]);
    command
        .env("SIPDOOR_NAME", "one.test, two.test")
        .env("SIPDOOR_BACKEND", "127.0.0.1:4444")
        .env("SIPDOOR_INSIDE", "");
    command.env("SIPDOOR_LISTEN_UDP", "127.0.0.1:5555,[::1]:5555").env("SIPDOOR_LISTEN_TLS", "");
    let got = said(&mut command, "");
    assert_eq!(got.code, 0, "{}", got.err);
    for line in [
        "names        one.test, two.test\n",
        "listen       udp 127.0.0.1:5555\nlisten       udp [::1]:5555\n",
        "asterisk     udp 127.0.0.1:3333 (it sees the door at 127.0.0.1:2222)\n",
    ] {
        assert!(got.out.contains(line), "no {line} in {}", got.out);
    }
    assert!(!got.out.contains("observe"), "{}", got.out);
    let got = said(program().args(["check"]).env("SIPDOOR_NAME", "a.test,203.0.113.5"), "");
    assert!(got.err.contains("SIPDOOR_NAME: `203.0.113.5` cannot be a name"), "{}", got.err);
}

#[test]
fn the_sample_file_can_be_used_as_it_is() {
    let room = Room::new("sample");
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/sipdoor.toml");
    let got = sipdoor(&["check", "-c", sample.to_str().unwrap(), "--state", &room.path("state")]);
    assert_eq!(got.code, 0, "{}", got.err);
    assert!(got.out.contains("note: no certificate: listening on UDP and TCP only"), "{}", got.out);
}

#[test]
fn certificates_are_made_once() {
    let room = Room::new("certs");
    let directory = room.path("certs");
    let got = sipdoor(&["certs", "--name", NAME, "--dir", &directory]);
    assert_eq!(got.code, 0, "{}", got.err);
    let key = fs::read(room.0.join("certs/door.key")).unwrap();
    refused(&["certs", "--name", NAME, "--dir", &directory], 73, &["is there already, and nothing is overwritten"]);
    assert_eq!(fs::read(room.0.join("certs/door.key")).unwrap(), key);
    refused(&["certs", "--name", "203.0.113.5", "--dir", &directory], 78, &["it is an IP address"]);

    let (cert, key) = (room.path("certs/door.pem"), room.path("certs/door.key"));
    let state = room.path("state");
    let got =
        sipdoor(&["check", "--name", NAME, "--name", "b.test", "--cert", &cert, "--key", &key, "--state", &state]);
    assert_eq!(got.code, 0, "{}", got.err);
    assert!(got.out.contains(&format!("{cert}: 39")), "{}", got.out);
    assert!(got.out.contains("note: no certificate is for b.test"), "{}", got.out);
    assert!(got.out.contains("listen       tls 0.0.0.0:5061"), "{}", got.out);
}

#[test]
fn without_a_door_there_is_no_status() {
    let room = Room::new("status");
    refused(&["status", "--state", &room.path("state")], 69, &["no door answers on", "state/admin.sock"]);
}

#[test]
fn explain_marks_what_is_wrong() {
    let message = |uri: &str, from: &str| {
        format!(
            "REGISTER sip:{uri} SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx\nMax-Forwards: 70\nFrom: <sip:101@{from}>;tag=a\n\
             To: <sip:101@{NAME}>\nCall-ID: x\nCSeq: 1 REGISTER\nContact: <sip:101@10.0.0.1>\nContent-Length: 0\n\n"
        )
    };
    let ask = |message: &str| said(program().args(["explain", "--name", NAME, "--transport", "tcp"]), message);
    let good = ask(&message(NAME, NAME));
    assert_eq!(good.code, 0, "{}{}", good.out, good.err);
    assert!(good.out.contains("passes as `name`"), "{}", good.out);
    let bad = ask(&message(NAME, "203.0.113.5"));
    assert_eq!(bad.code, 1, "{}{}", bad.out, bad.err);
    assert!(bad.out.contains("           4 | From: <sip:101@203.0.113.5>;tag=a\n             | ^^^^"), "{}", bad.out);
    assert!(bad.out.contains("refused as `from_host`"), "{}", bad.out);
    assert_eq!(ask("").code, 66);
}

#[test]
fn help_and_completions_are_there_and_nonsense_is_a_usage_error() {
    for command in ["run", "check", "explain", "certs", "status", "demo", "completions"] {
        let got = sipdoor(&[command, "--help"]);
        assert_eq!((got.code, got.out.contains("Usage: sipdoor")), (0, true), "{command}: {}", got.err);
        assert!(sipdoor(&["--help"]).out.contains(command), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let got = sipdoor(&["completions", shell]);
        assert!(got.code == 0 && got.out.contains("listen-tls"), "{shell}: {}", got.err);
    }
    assert_eq!(sipdoor(&["--version"]).out, format!("sipdoor {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(sipdoor(&["open-sesame"]).code, 64);
    assert_eq!(sipdoor(&[]).code, 64);
}

/// A door that runs until the end of a test.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
    room: Room,
}

impl Running {
    /// Opens a door on ports that nobody has, and waits until it says so.
    fn open(name: &str) -> Self {
        let room = Room::new(name);
        assert_eq!(sipdoor(&["certs", "--name", NAME, "--dir", &room.path("certs")]).code, 0);
        let mut child = program();
        child.args(["run", "--name", NAME, "--workers", "2", "--state", &room.path("state")]);
        child.args(["--cert", &room.path("certs/door.pem"), "--key", &room.path("certs/door.key")]);
        child.args(["--backend", &free(), "--inside", &free(), "--listen-udp", "127.0.0.1:0"]);
        child.args(["--listen-tcp", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"]);
        let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut all = String::new();
        while !all.contains(" open: Asterisk at ") {
            assert_ne!(log.read_line(&mut all).unwrap(), 0, "the door did not open: {all}");
        }
        Self { child, log, room }
    }

    fn status(&self, more: &[&str]) -> Said {
        sipdoor(&[&["status", "--state", &self.room.path("state")], more].concat())
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.status(&["--json"]).out).unwrap()
    }

    fn address(&self, transport: &str) -> String {
        let status = self.json();
        let listeners = status["listeners"].as_array().unwrap();
        let one = listeners.iter().find(|one| one["transport"] == transport).unwrap();
        one["address"].as_str().unwrap().to_owned()
    }

    /// Waits until a counter has this value.
    fn wait(&self, transport: &str, reason: &str, packets: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.json();
            let of = |row: &&serde_json::Value| row["transport"] == transport && row["reason"] == reason;
            let row = status["rows"].as_array().unwrap().iter().find(of).unwrap();
            if row["packets"] == packets {
                return;
            }
            assert!(Instant::now() < deadline, "{row}");
        }
    }

    /// Ends it as an operator would; how it ended, and what it said.
    fn stop(mut self) -> (Option<i32>, String) {
        // `timeout` passes the signal on.
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

/// A loopback address with a port that is free for now.
fn free() -> String {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_door_opens_counts_tells_and_closes() {
    let door = Running::open("open");
    let scanner = UdpSocket::bind("127.0.0.1:0").unwrap();
    let scan = b"OPTIONS sip:100@203.0.113.5 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1\r\n\r\n";
    scanner.send_to(scan, door.address("udp")).unwrap();
    door.wait("udp", "uri_host", 1);
    let mut stranger = TcpStream::connect(door.address("tls")).unwrap();
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    door.wait("tls", "not_tls", 1);

    let table = door.status(&[]);
    assert!(table.out.starts_with(&format!("sipdoor {} (pid ", env!("CARGO_PKG_VERSION"))), "{}", table.out);
    assert!(table.out.contains(" days left (until "), "{}", table.out);
    let chains: Vec<_> = table.out.lines().filter(|line| line.starts_with("Chain ")).collect();
    assert_eq!(chains, ["Chain udp (policy DROP)", "Chain tcp (policy DROP)", "Chain tls (policy DROP)"]);
    assert!(table.out.contains(&format!("       1 {:>8} DROP    uri_host\n", scan.len())), "{}", table.out);
    assert!(door.status(&["--all"]).out.contains("       0        0 ACCEPT  name\n"));

    let admin = door.room.0.join("state/admin.sock");
    assert!(admin.exists());
    let (code, log) = door.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("closing"), "{log}");
    assert!(!admin.exists());
}

#[test]
fn a_taken_port_and_a_taken_state_directory_are_named() {
    let door = Running::open("taken");
    let (udp, tls, state) = (door.address("udp"), door.address("tls"), door.room.path("state"));
    let room = Room::new("taken-too");
    let own = room.path("state");
    let (cert, key) = (door.room.path("certs/door.pem"), door.room.path("certs/door.key"));
    let (backend, inside) = (free(), free());
    let loopback = ["--backend", &backend, "--inside", &inside];
    let run = ["run", "--name", NAME, "--cert", &cert, "--key", &key, "--state"];
    let with = |more: &[&str], words: &[&str]| refused(&[&run[..], more, &loopback[..]].concat(), 69, words);
    with(&[&own, "--listen-udp", &udp], &[&format!("--listen-udp: cannot listen on udp {udp}: address in use")]);
    with(&[&own, "--listen-tls", &tls], &[&format!("cannot listen on tls {tls}: address in use")]);
    with(&[&state, "--listen-udp", "127.0.0.1:0"], &["--state: ", "is in use by another door"]);
    let admin = door.room.path("state/admin.sock");
    with(&[&own, "--listen-udp", "127.0.0.1:0", "--admin", &admin], &["--admin: another door answers on", &admin]);
    assert_eq!(door.stop().0, Some(0));
}
