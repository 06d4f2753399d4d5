//! Messages made from good ones: bytes flipped, lines doubled, folded, cut, joined with lines of other messages, and the
//! tricks that have worked on other doors.

use super::stage::{self, ADDRESS, NAME, Stage, answer, asterisk, line, outside, uri};
use super::{corpus, evasion, rename};
use sipdoor::flow::{Side, Transport};

/// A message and the side it comes from.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Where it comes from.
    pub side: Side,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Random numbers that are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    /// One of these.
    pub fn pick<'t, T: ?Sized>(&mut self, of: &[&'t T]) -> &'t T {
        of[self.below(of.len())]
    }
}

/// Every message to start from. What a door must have said first (bindings, Vias, Routes) is said on this stage, and so
/// the stage knows the phones and tokens in the messages.
pub fn seeds(stage: &mut Stage) -> Vec<Seed> {
    let from_outside = |bytes| Seed { side: Side::Outside, bytes };
    let mut seeds = conversation(stage);
    // These pass, and so most of what is made of them says something about what passes.
    for (_, bytes) in evasion::good() {
        seeds.extend(std::iter::repeat_n(from_outside(bytes), 6));
    }
    for directory in ["rfc4475", "rfc5118", "probes"] {
        seeds
            .extend(corpus::read(directory).into_iter().map(|entry| from_outside(rename::renamed(&entry.bytes, NAME))));
    }
    seeds.extend(evasion::cases().iter().map(|(_, case)| from_outside(case.message())));
    seeds.retain(|seed| !seed.bytes.is_empty() && seed.bytes.len() < 4096);
    seeds
}

/// A registration, a call from the phone and one to it: both sides of everything, as the door must see it.
pub fn conversation(stage: &mut Stage) -> Vec<Seed> {
    let (phone, inside) = (outside(Transport::Udp), asterisk());
    let mut seeds = Vec::new();
    let mut say = |stage: &mut Stage, side, bytes: Vec<u8>| {
        let from = if side == Side::Outside { phone } else { inside };
        let (_, sent) = stage.pass(&from, &bytes);
        seeds.extend(std::iter::repeat_n(Seed { side, bytes }, 4));
        sent
    };
    let register = format!(
        "REGISTER sip:{NAME} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.7:5062;rport;branch=z9hG4bKs1\r\nMax-Forwards: 70\r\n\
         From: <sip:107@{NAME}>;tag=s\r\nTo: <sip:107@{NAME}>\r\nCall-ID: s1\r\nCSeq: 1 REGISTER\r\n\
         Contact: \"a\" <sip:107@10.0.0.7:5062;ob>;+sip.instance=\"<urn:uuid:1>\";expires=300, <sip:107@10.0.0.8>\r\nContent-Length: 0\r\n\r\n"
    );
    let sent = say(stage, Side::Outside, register.into_bytes());
    let contact = line(&sent, "Contact");
    let target = uri(&contact);
    let ok = answer(&sent, "200 OK", &format!("Contact: {contact}\r\nExpires: 300\r\nContent-Length: 0\r\n\r\n"));
    say(stage, Side::Inside, ok);

    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\na=rtcp:40001 IN IP4 127.0.0.1\r\n";
    let body = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len());
    let invite = format!(
        "INVITE sip:100@{NAME} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.7:5062;rport;branch=z9hG4bKs2\r\nMax-Forwards: 70\r\n\
         From: \"Anna\" <sip:107@{NAME}>;tag=s\r\nTo: <sip:100@{NAME}>\r\nCall-ID: s2\r\nCSeq: 2 INVITE\r\n\
         Contact: <sip:107@10.0.0.7:5062>\r\n{body}"
    );
    let sent = say(stage, Side::Outside, invite.into_bytes());
    let ok = answer(&sent, "200 OK", &format!("Contact: <sip:127.0.0.1:5080>\r\n{body}"));
    let sent = say(stage, Side::Inside, ok);
    let routes: String = stage::lines(&sent, "Record-Route").iter().rev().map(|r| format!("Route: {r}\r\n")).collect();
    for (method, cseq) in [("ACK", 2), ("INFO", 3), ("BYE", 4)] {
        let request = format!(
            "{method} sip:127.0.0.1:5080 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.7:5062;rport;branch=z9hG4bKs{cseq}{method}\r\n\
             Max-Forwards: 70\r\n{routes}From: \"Anna\" <sip:107@{NAME}>;tag=s\r\nTo: <sip:100@{NAME}>;tag=as\r\nCall-ID: s2\r\n\
             CSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
        );
        say(stage, Side::Outside, request.into_bytes());
    }

    let call = format!(
        "INVITE {target} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5080;rport;branch=z9hG4bKPs6\r\nMax-Forwards: 70\r\n\
         From: \"100\" <sip:100@{NAME}>;tag=as6\r\nTo: <{target}>\r\nCall-ID: s6\r\nCSeq: 6 INVITE\r\n\
         Contact: <sip:asterisk@127.0.0.1:5080>\r\n{body}"
    );
    let sent = say(stage, Side::Inside, call.into_bytes());
    let ringing = answer(&sent, "180 Ringing", "Contact: <sip:107@10.0.0.7:5062;ob>\r\nContent-Length: 0\r\n\r\n");
    let sent = say(stage, Side::Outside, ringing);
    let routes: String = stage::lines(&sent, "Record-Route").iter().map(|r| format!("Route: {r}\r\n")).collect();
    let bye = format!(
        "BYE sip:107@10.0.0.7:5062;ob SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5080;rport;branch=z9hG4bKPs7\r\nMax-Forwards: 70\r\n\
         {routes}From: \"100\" <sip:100@{NAME}>;tag=as6\r\nTo: <{target}>;tag=as\r\nCall-ID: s6\r\nCSeq: 7 BYE\r\nContent-Length: 0\r\n\r\n"
    );
    let sent = say(stage, Side::Inside, bye.into_bytes());
    say(stage, Side::Outside, answer(&sent, "200 OK", "Content-Length: 0\r\n\r\n"));
    seeds
}

/// Text that has meant something to some reader.
const WORDS: [&str; 47] = [
    "\r\n",
    "\n",
    "\r",
    "\r\n ",
    "\r\n\t",
    "\r\n\r\n",
    "\n\n",
    "\0",
    "\u{b}",
    ";x@evil.example",
    ";x=y@evil.example",
    "@evil.example",
    "evil.example",
    "%00",
    "%",
    "<",
    ">",
    "\"",
    "\\",
    "\\\"",
    ",",
    ";",
    ":",
    "@",
    "[",
    "]",
    "?",
    "=",
    " ",
    "\t",
    ";lr",
    ";maddr=192.0.2.66",
    ";tag=t",
    ";fdt=0123456789abcdef",
    ";line=x",
    ";l%69ne=x;line=y",
    ";m%41ddr=192.0.2.66",
    "\\\0",
    "sip:",
    "sips:",
    "tel:1",
    "http://",
    "SIP/2.0",
    "[2001:db8::1]",
    ":5060",
    ":0",
    "*",
];

/// Lines that do harm where another reader sees them.
const LINES: [&str; 20] = [
    "From: <sip:107@evil.example>;tag=e",
    "f: <sip:107@evil.example>;tag=e",
    "To: <sip:100@evil.example>",
    "t: sip:100@evil.example",
    "From : <sip:107@evil.example>",
    "From\0: <sip:107@evil.example>",
    " From: <sip:107@evil.example>",
    "X: y\nFrom: <sip:107@evil.example>",
    "X: y\rTo: <sip:100@evil.example>",
    "X: y\n\n",
    "Content-Length: 5",
    "l: 0",
    "Content-Length: -1",
    "Route: <sip:evil.example;lr>",
    "Max-Forwards: 0",
    "Proxy-Require: x",
    "P-Asserted-Identity: <sip:boss@evil.example>",
    "OPTIONS sip:100@evil.example SIP/2.0",
    "Contact: <sip:x@evil.example>;+sip.instance=\"<x>\", *",
    "Via: SIP/2.0/UDP evil.example;branch=z9hG4bKe, SIP/2.0/TCP x",
];

const BYTES: &[u8] = b"\r\n\0 \t\"<>@;:,=?[]%\\()*/.-_aA0z~\x7f\x80\xff";

/// Changes a message, one to five times; `others` gives parts to put in.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random, others: &[Seed]) {
    // One in sixteen stays as it is: what passes unchanged must keep passing.
    if random.below(16) == 0 {
        return;
    }
    for _ in 0..1 + random.below(5) {
        once(bytes, random, others);
    }
}

fn once(bytes: &mut Vec<u8>, random: &mut Random, others: &[Seed]) {
    let at = random.below(bytes.len() + 1);
    match random.below(22) {
        0 => {
            if let Some(b) = bytes.get_mut(at) {
                *b ^= 1 << random.below(8);
            }
        }
        1 => {
            let new = BYTES[random.below(BYTES.len())];
            if let Some(b) = bytes.get_mut(at) {
                *b = new;
            }
        }
        2 => bytes.insert(at, BYTES[random.below(BYTES.len())]),
        3 => drop(bytes.drain(at..(at + random.below(8)).min(bytes.len()))),
        4 => bytes.truncate(at),
        5 => {
            let part = bytes[at..(at + random.below(40)).min(bytes.len())].to_vec();
            insert(bytes, at, &part);
        }
        6..=8 => insert(bytes, at, random.pick(&WORDS).as_bytes()),
        9 => around_host(bytes, random),
        10 | 11 => insert_line(bytes, random, random_line(LINES.len())),
        12 => swap_lines(bytes, random),
        13 => double_line(bytes, random),
        14 => {
            if let Some((from, to)) = any_line(bytes, random) {
                drop(bytes.drain(from..to));
            }
        }
        15 => fold(bytes, random),
        16 => rename_field(bytes, random),
        17 => length(bytes, random),
        18 => splice(bytes, random, others),
        19 => replace(bytes, NAME, random.pick(&["evil.example", ADDRESS, "K7Q2.SIP.TEST", "k7q2.sip.test.", "[::1]"])),
        20 => replace(bytes, "\r\n", random.pick(&["\n", "\r", "\r\n ", "\n\r\n"])),
        _ => spray(bytes, random),
    }
    bytes.truncate(70_000);
}

fn random_line(count: usize) -> impl Fn(&mut Random) -> &'static str {
    move |random| LINES[random.below(count)]
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    let at = at.min(bytes.len());
    bytes.splice(at..at, part.iter().copied());
}

/// Something right before or behind a host that is the name.
fn around_host(bytes: &mut Vec<u8>, random: &mut Random) {
    let places: Vec<usize> = memchr::memmem::find_iter(bytes, NAME).collect();
    let Some(&at) = places.get(random.below(places.len())) else { return };
    let at = at + [0, NAME.len(), random.below(NAME.len())][random.below(3)];
    insert(bytes, at, random.pick(&WORDS).as_bytes());
}

/// The beginnings of lines.
fn starts(bytes: &[u8]) -> Vec<usize> {
    std::iter::once(0).chain(memchr::memchr_iter(b'\n', bytes).map(|at| at + 1)).collect()
}

fn any_line(bytes: &[u8], random: &mut Random) -> Option<(usize, usize)> {
    let starts = starts(bytes);
    let line = random.below(starts.len());
    Some((*starts.get(line)?, starts.get(line + 1).copied().unwrap_or(bytes.len())))
}

fn insert_line(bytes: &mut Vec<u8>, random: &mut Random, line: impl Fn(&mut Random) -> &'static str) {
    let starts = starts(bytes);
    let at = starts[random.below(starts.len())];
    let mut text = line(random).as_bytes().to_vec();
    text.extend_from_slice(random.pick(&["\r\n", "\r\n", "\r\n", "\n", "\r"]).as_bytes());
    insert(bytes, at, &text);
}

fn swap_lines(bytes: &mut Vec<u8>, random: &mut Random) {
    if let Some((from, to)) = any_line(bytes, random) {
        let line: Vec<u8> = bytes.drain(from..to).collect();
        let starts = starts(bytes);
        insert(bytes, starts[random.below(starts.len())], &line);
    }
}

fn double_line(bytes: &mut Vec<u8>, random: &mut Random) {
    if let Some((from, to)) = any_line(bytes, random) {
        let mut line = bytes[from..to].to_vec();
        if random.below(2) == 0 {
            replace(&mut line, NAME, "evil.example");
        }
        let starts = starts(bytes);
        insert(bytes, starts[random.below(starts.len())], &line);
    }
}

/// A fold where a blank, or any other byte, stands.
fn fold(bytes: &mut Vec<u8>, random: &mut Random) {
    let blanks: Vec<usize> = memchr::memchr_iter(b' ', bytes).collect();
    let at = if random.below(4) == 0 {
        random.below(bytes.len())
    } else {
        blanks.get(random.below(blanks.len())).copied().unwrap_or(0)
    };
    insert(bytes, at, random.pick(&["\r\n ", "\r\n\t", "\r\n \r\n ", "\n ", "\r "]).as_bytes());
}

/// Long and short names, in either case.
fn rename_field(bytes: &mut Vec<u8>, random: &mut Random) {
    let (long, short) =
        [("From", "f"), ("To", "t"), ("Via", "v"), ("Call-ID", "i"), ("Contact", "m"), ("Content-Length", "l")]
            [random.below(6)];
    match random.below(4) {
        0 => replace(bytes, &format!("\n{long}:"), &format!("\n{short}:")),
        1 => replace(bytes, &format!("\n{short}:"), &format!("\n{long}:")),
        2 => replace(bytes, &format!("\n{long}:"), &format!("\n{} :", long.to_uppercase())),
        _ => replace(bytes, &format!("\n{short}:"), &format!("\n{}\t:", short.to_uppercase())),
    }
}

fn length(bytes: &mut Vec<u8>, random: &mut Random) {
    let Some(at) = memchr::memmem::find(bytes, b"Content-Length: ").map(|at| at + 16) else { return };
    let digits = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    let new = random.pick(&["0", "1", "5", "000", "-1", "+1", "99999", "4294967296", "", "0x1", "1 1", "1,1", "150"]);
    bytes.splice(at..at + digits, new.bytes());
}

/// Lines of another message in the place of some of this one's.
fn splice(bytes: &mut Vec<u8>, random: &mut Random, others: &[Seed]) {
    let Some(other) = others.get(random.below(others.len())) else { return };
    let (here, there) = (starts(bytes), starts(&other.bytes));
    let (from, to) = (here[random.below(here.len())], there[random.below(there.len())]);
    if random.below(2) == 0 {
        bytes.truncate(from);
        bytes.extend_from_slice(&other.bytes[to..]);
    } else if let Some((start, end)) = any_line(&other.bytes, random) {
        insert(bytes, from, &other.bytes[start..end]);
    }
}

/// One occurrence of `old`, the first.
fn replace(bytes: &mut Vec<u8>, old: &str, new: &str) {
    if let Some(at) = memchr::memmem::find(bytes, old.as_bytes()) {
        bytes.splice(at..at + old.len(), new.bytes());
    }
}

/// The same short text very often: limits, and what takes more than linear time.
fn spray(bytes: &mut Vec<u8>, random: &mut Random) {
    if random.below(64) != 0 {
        return;
    }
    let text =
        random.pick(&[";a", "a,", "X: y\r\n", "%41", "\"", "<", "a;,", " ", "Route: <sip:a@b>,\r\n", "\r\n ", "\\"]);
    let many = text.repeat(1 + random.below(3000));
    let at = random.below(bytes.len() + 1);
    insert(bytes, at, many.as_bytes());
}
