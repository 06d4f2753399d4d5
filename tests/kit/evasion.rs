//! The cases of tests/corpus/evasion: a good message with something changed, and what must come of it.
//!
//! Text is bytes: a character below U+0100 stands for the byte of that number. `{NAME}` is the door's name, `{ADDRESS}`
//! its address, `{9 x text}` text nine times, `{options}` the good OPTIONS (`{options:4}` with that Content-Length).

use super::stage::{ADDRESS, NAME};
use serde::Deserialize;
use std::collections::BTreeMap;

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// What is tried, or which rule decides.
    pub why: String,
    /// The good message it is made of.
    #[serde(default = "options")]
    of: String,
    /// A host for the good message instead of the name.
    base_hosts: Option<String>,
    /// The start line.
    start: Option<String>,
    /// The Request-URI.
    uri: Option<String>,
    /// The value of From.
    from: Option<String>,
    /// The value of To.
    to: Option<String>,
    /// The value of Content-Length.
    length: Option<String>,
    /// A header field to leave out.
    without: Option<String>,
    /// Text to replace; each must be there.
    #[serde(default)]
    replace: Vec<[String; 2]>,
    /// Lines before all others.
    first: Option<String>,
    /// Lines behind all others.
    line: Option<String>,
    /// A body; Content-Length is made right.
    body: Option<String>,
    /// What ends lines instead of CRLF.
    line_ends: Option<String>,
    /// The whole message, instead of all that.
    raw: Option<String>,
    /// `udp` or `tcp`.
    #[serde(default = "udp")]
    pub transport: String,
    /// The outcome must be one of these: `pass`, `keepalive`, a reason. Empty: nothing happens (yet).
    pub expect: Vec<String>,
    /// The outcomes of what follows in a stream.
    #[serde(default)]
    pub then: Vec<String>,
    /// What is forwarded holds these, with case.
    #[serde(default)]
    hold: Vec<String>,
    /// What is forwarded holds none of these, in any case.
    #[serde(default)]
    lack: Vec<String>,
    /// How the answer begins, if one may be given; empty for none.
    pub answer: Option<String>,
}

#[derive(Deserialize)]
struct Good {
    message: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

/// Every case of every file, each with the name of its file.
pub fn cases() -> Vec<(String, Case)> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(super::corpus::directory().join("evasion")).unwrap() {
        let path = file.unwrap().path();
        let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if file != "good" {
            let text = std::fs::read_to_string(&path).unwrap();
            let cases: Cases = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            all.extend(cases.case.into_iter().map(|case| (file.clone(), case)));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The good messages, by name.
pub fn good() -> BTreeMap<String, Vec<u8>> {
    templates().into_iter().map(|(name, text)| (name, bytes(&filled(&text, NAME)))).collect()
}

impl Case {
    /// The bytes of the message.
    pub fn message(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return bytes(&filled(raw, NAME));
        }
        let mut text = templates().remove(&self.of).unwrap_or_else(|| panic!("{}: no message {:?}", self.id, self.of));
        if let Some(host) = &self.base_hosts {
            text = text.replace("{NAME}", host);
        }
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines: Vec<String> = head.split("\r\n").map(str::to_owned).collect();
        if let Some(uri) = &self.uri {
            let method = lines[0].split(' ').next().unwrap().to_owned();
            lines[0] = format!("{method} {uri} SIP/2.0");
        }
        for (name, value) in [("From", &self.from), ("To", &self.to), ("Content-Length", &self.length)] {
            if let Some(value) = value {
                *self.field(&mut lines, name) = format!("{name}: {value}");
            }
        }
        if let Some(name) = &self.without {
            let line = self.field(&mut lines, name).clone();
            lines.retain(|other| *other != line);
        }
        if let Some(start) = &self.start {
            lines[0].clone_from(start);
        }
        if let Some(first) = &self.first {
            lines.insert(1, first.clone());
        }
        lines.extend(self.line.clone());
        let mut body = body.to_owned();
        if let Some(new) = &self.body {
            body = filled(new, NAME);
            *self.field(&mut lines, "Content-Length") = format!("Content-Length: {}", body.len());
        }
        let mut text = format!("{}\r\n\r\n{body}", lines.join("\r\n"));
        for [old, new] in &self.replace {
            assert!(text.contains(old.as_str()), "{}: no {old:?} to replace", self.id);
            text = text.replace(old.as_str(), new);
        }
        if let Some(end) = &self.line_ends {
            text = text.replace("\r\n", end);
        }
        bytes(&filled(&text, NAME))
    }

    /// Checks what was forwarded.
    pub fn check(&self, sent: &[u8]) -> Result<(), String> {
        let holds = |text: &[u8], part: &[u8]| super::judge::holds(text, part);
        for part in &self.hold {
            if !holds(sent, &bytes(&filled(part, NAME))) {
                return Err(format!("it does not hold {part:?}"));
            }
        }
        for part in &self.lack {
            if holds(&sent.to_ascii_lowercase(), &bytes(&filled(part, NAME)).to_ascii_lowercase()) {
                return Err(format!("it holds {part:?}"));
            }
        }
        Ok(())
    }

    fn field<'l>(&self, lines: &'l mut [String], name: &str) -> &'l mut String {
        let start = format!("{name}:");
        let found = lines.iter_mut().find(|line| line.starts_with(&start));
        found.unwrap_or_else(|| panic!("{}: the good message has no {name}", self.id))
    }
}

fn options() -> String {
    "options".into()
}

fn udp() -> String {
    "udp".into()
}

fn templates() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(super::corpus::directory().join("evasion/good.toml")).unwrap();
    let good: Good = toml::from_str(&text).unwrap();
    good.message.into_iter().map(|(name, text)| (name, text.replace('\n', "\r\n"))).collect()
}

/// The text with its placeholders filled.
fn filled(text: &str, name: &str) -> String {
    let mut text = text.replace("{NAME}", name).replace("{ADDRESS}", ADDRESS);
    if text.contains("{options") {
        let options = filled(&templates()["options"], name);
        text = text.replace("{options}", &options);
        text = text.replace("{options:4}", &options.replace("Content-Length: 0", "Content-Length: 4"));
    }
    while let Some(at) = text.find('{') {
        let end = at + text[at..].find('}').unwrap();
        let (count, what) = text[at + 1..end].split_once(" x ").unwrap();
        let many = what.repeat(count.parse().unwrap());
        text.replace_range(at..=end, &many);
    }
    text
}

/// Characters to the bytes they stand for.
pub fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}
