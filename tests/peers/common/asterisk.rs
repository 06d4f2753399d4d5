//! A real Asterisk 22 in the chroot that `setup.sh` made, inside a namespace, bound to loopback.

use super::netns::{Space, scripts};
use super::wait;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Mutex;

/// The kinds of endpoint in tests/lab/asterisk/pjsip.conf, each with its first number.
const KINDS: [(&str, u32); 7] =
    [("bare", 100), ("plain", 200), ("nat", 300), ("single", 400), ("srtp", 500), ("six", 600), ("qualified", 700)];
const EACH: u32 = 60;

pub struct Asterisk {
    space: Space,
    chroot: PathBuf,
    /// Its own directory, as seen inside the chroot.
    directory: String,
    child: Mutex<Option<Child>>,
}

impl Asterisk {
    pub(super) fn new(space: Space, chroot: PathBuf, id: &str, pjsip: &str) -> Self {
        let new = Self { space, chroot, directory: format!("/lab/{id}"), child: Mutex::new(None) };
        new.configure(pjsip);
        new
    }

    /// The number of this kind with this index.
    pub fn number(kind: &str, index: u32) -> String {
        let (_, first) = KINDS.iter().find(|(name, _)| *name == kind).expect("a kind of endpoint");
        assert!(index < EACH, "no more numbers of kind {kind}");
        (first + index).to_string()
    }

    /// Starts it and waits until it is up.
    pub fn start(&self) {
        let out = fs::File::create(self.outside("log/out")).unwrap();
        let child = self
            .command(&["-f", "-n"])
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = Some(child);
        wait("Asterisk to boot", || self.cli("core waitfullybooted").contains("fully booted").then_some(()));
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it as an operator would.
    pub fn stop(&self) {
        self.cli("core stop now");
        if let Some(mut child) = self.child.lock().unwrap().take() {
            wait("Asterisk to stop", || child.try_wait().unwrap());
        }
    }

    /// What a command at its console prints.
    pub fn cli(&self, command: &str) -> String {
        let output = self.command(&["-rx", command]).stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The URIs of the contacts that are registered for a number.
    pub fn contacts(&self, number: &str) -> Vec<String> {
        let saved = self.cli("database show registrar");
        let ours = saved.lines().filter(|line| line.contains(&format!("registrar/contact/{number};@")));
        let uris = ours.filter_map(|line| line.split("\"uri\":\"").nth(1)?.split('"').next());
        uris.map(|uri| uri.replace("\\/", "/")).collect()
    }

    /// The state (Avail, Unavail, NonQual, …) of a number's only contact.
    pub fn contact_state(&self, number: &str) -> Option<String> {
        let shown = self.cli("pjsip show contacts");
        let start = format!("Contact:  {number}/");
        let line = shown.lines().find(|line| line.trim_start().starts_with(&start))?;
        line.split_whitespace().rev().nth(1).map(str::to_owned)
    }

    /// How many channels are up.
    pub fn channels(&self) -> usize {
        let shown = self.cli("core show channels count");
        let line = shown.lines().find(|line| line.contains("active channel")).expect("a count of channels");
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Packets received and sent, for each channel of a number that has media.
    pub fn media(&self, number: &str) -> Option<(u64, u64)> {
        let shown = self.cli("pjsip show channelstats");
        let line = shown.lines().find(|line| line.split_whitespace().any(|w| w.starts_with(&format!("{number}-"))))?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        // Receive: Count Lost Pct Jitter; Transmit: Count Lost Pct Jitter; RTT: percentages and jitters may be fractions.
        Some((*numbers.first()?, *numbers.get(3)?))
    }

    /// Where it keeps the contacts.
    pub fn database(&self) -> PathBuf {
        self.outside("db")
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        let read = |name| fs::read(self.outside(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        read("log/messages.log").unwrap_or_default()
    }

    fn configure(&self, pjsip: &str) {
        for directory in ["etc", "db", "spool", "run", "log", "cache"] {
            fs::create_dir_all(self.outside(directory)).unwrap();
        }
        let modules = fs::read_dir(self.chroot.join("usr/lib")).unwrap().find_map(|entry| {
            let path = entry.unwrap().path().join("asterisk/modules");
            path.is_dir().then(|| format!("/{}", path.strip_prefix(&self.chroot).unwrap().display()))
        });
        for entry in fs::read_dir(scripts().join("asterisk")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let mut text = fs::read_to_string(&path).unwrap();
            text = text.replace("@DIR@", &self.directory).replace("@MODULES@", modules.as_ref().unwrap());
            if name == "pjsip.conf" {
                text = format!("{text}{pjsip}\n{}", numbers());
            }
            fs::write(self.outside("etc").join(name), text).unwrap();
        }
        // Asterisk looks its machine's name up; the chroot hides the namespace's hosts file.
        let hosts = fs::read(format!("/etc/netns/{}/hosts", self.space.name)).unwrap();
        let fresh = self.outside("hosts");
        fs::write(&fresh, hosts).unwrap();
        fs::rename(fresh, self.chroot.join("etc/hosts")).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.space.command("chroot");
        command.arg(&self.chroot).args(["asterisk", "-C", &format!("{}/etc/asterisk.conf", self.directory)]);
        command.args(arguments);
        command
    }

    /// A file of this Asterisk, as seen from outside the chroot.
    fn outside(&self, name: &str) -> PathBuf {
        self.chroot.join(self.directory.trim_start_matches('/')).join(name)
    }
}

impl Drop for Asterisk {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The sections of all numbers.
fn numbers() -> String {
    let mut text = String::new();
    for (kind, first) in KINDS {
        for n in first..first + EACH {
            text += &format!("[{n}]({kind})\nauth={n}\naors={n}\n[{n}](auth)\nusername={n}\n[{n}]({kind}-aor)\n");
        }
    }
    text
}
