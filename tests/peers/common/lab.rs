//! One lab: namespaces, Asterisk, the door; shared by the tests of a program, or a test's own.

use super::asterisk::Asterisk;
use super::certs::Certs;
use super::door::Door;
use super::netns::{Net, Space, scripts};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// Where the public address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// On the machine itself.
    Host,
    /// On a gateway that forwards the ports: a container's layout.
    Container,
}

pub struct Lab {
    pub layout: Layout,
    pub certs: Certs,
    pub door: Door,
    pub asterisk: Asterisk,
    numbers: Mutex<HashMap<String, u32>>,
    net: Net, // last: its end removes what the others ran in
}

impl Lab {
    /// The program's shared lab on a host; none when it cannot be made here, which is said.
    pub fn host() -> Option<Seat> {
        static LAB: OnceLock<Option<Arc<Lab>>> = OnceLock::new();
        LAB.get_or_init(|| directory().map(|lab| Arc::new(Self::start(&lab, Layout::Host, "")))).clone().map(Seat)
    }

    /// The program's shared lab in a container's layout.
    pub fn container() -> Option<Seat> {
        static LAB: OnceLock<Option<Arc<Lab>>> = OnceLock::new();
        LAB.get_or_init(|| directory().map(|lab| Arc::new(Self::start(&lab, Layout::Container, "")))).clone().map(Seat)
    }

    /// A lab of the test's own, which it may break.
    pub fn own() -> Option<Seat> {
        Self::own_with("")
    }

    /// The same, with these lines more in pjsip.conf.
    pub fn own_with(pjsip: &str) -> Option<Seat> {
        directory().map(|lab| Seat(Arc::new(Self::start(&lab, Layout::Host, pjsip))))
    }

    fn start(directory: &Path, layout: Layout, pjsip: &str) -> Self {
        let chroot = directory.join("asterisk");
        let own = |id: &str| (chroot.join("lab").join(id), std::env::temp_dir().join(id));
        let name = if layout == Layout::Host { "host" } else { "container" };
        let net = Net::up(name, |id| vec![own(id).0, own(id).1]);
        let pbx = net.space("pbx");
        let (_, work) = own(&net.id);
        std::fs::create_dir_all(&work).unwrap();
        let certs = Certs::make(&work);
        let asterisk = Asterisk::new(pbx.clone(), chroot, &net.id, pjsip);
        let door = Door::new(pbx, work, layout, &certs);
        asterisk.start();
        door.start();
        Self { layout, certs, door, asterisk, numbers: Mutex::default(), net }
    }

    pub fn space(&self, role: &str) -> Space {
        self.net.space(role)
    }

    /// A number of this kind (a template in pjsip.conf) that no other test has.
    pub fn number(&self, kind: &str) -> String {
        let mut numbers = self.numbers.lock().unwrap();
        let used = numbers.entry(kind.to_owned()).or_default();
        *used += 1;
        Asterisk::number(kind, *used - 1)
    }
}

/// A test's handle on its lab: a failing test shows what the door and Asterisk said.
pub struct Seat(Arc<Lab>);

impl std::ops::Deref for Seat {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the door's log\n{}", tail(&self.door.log(), 60));
            let log = self.asterisk.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("Remote UNIX connection")).collect();
            eprintln!("---- Asterisk's log\n{}", tail(&lines.join("\n"), 60));
        }
    }
}

pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The directory that `setup.sh` made ready; says which test is left out when there is none.
pub fn directory() -> Option<PathBuf> {
    let directory = std::env::var_os("SIPDOOR_LAB").map_or_else(|| scripts().join("../../.lab"), PathBuf::from);
    #[expect(unsafe_code, reason = "a system call without arguments that cannot fail; std has no call for it")]
    // SAFETY: geteuid has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    let why = match (directory.join("ready").exists(), root) {
        (true, true) => return Some(directory.canonicalize().unwrap()),
        (true, false) => "needs root",
        (false, _) => "no lab here: tests/lab/setup.sh makes one",
    };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    assert!(std::env::var_os("SIPDOOR_REQUIRE_LAB").is_none(), "{test}: {why}");
    // Not println!, which cargo test would swallow.
    let _ = writeln!(std::io::stderr(), "left out: {test}: {why}");
    None
}
