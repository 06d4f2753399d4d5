//! The real door: the program itself, started in the namespace as an operator would.

use super::certs::Certs;
use super::lab::Layout;
use super::netns::Space;
use super::{NAME, PUBLIC, PUBLIC6, wait};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::sync::Mutex;

pub struct Door {
    space: Space,
    work: PathBuf,
    arguments: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl Door {
    pub(super) fn new(space: Space, work: PathBuf, layout: Layout, certs: &Certs) -> Self {
        let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
        let mut arguments = vec!["run".to_owned()];
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("--name", NAME.to_owned());
        add("--cert", path(&certs.cert));
        add("--key", path(&certs.key));
        add("--backend", "127.0.0.1:5080".to_owned());
        add("--inside", "127.0.0.1:5070".to_owned());
        add("--state", path(&work.join("state")));
        add("--admin", path(&work.join("admin.sock")));
        if layout == Layout::Host {
            for address in [PUBLIC.to_owned(), format!("[{PUBLIC6}]")] {
                add("--listen-udp", format!("{address}:5060"));
                add("--listen-tcp", format!("{address}:5060"));
                add("--listen-tls", format!("{address}:5061"));
            }
        } else {
            // The usual three ports on all addresses; only the address for media must be said.
            add("--advertise", PUBLIC.to_owned());
        }
        Self { space, work, arguments, child: Mutex::new(None) }
    }

    /// Starts it and waits until it is open.
    pub fn start(&self) {
        let log = fs::File::options().create(true).append(true).open(self.work.join("door.log")).unwrap();
        let mut command = self.space.command(program());
        command.args(&self.arguments).env("RUST_LOG", "sipdoor=debug").stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        *self.child.lock().unwrap() = Some(child);
        wait("the door to open", || {
            let ended = self.child.lock().unwrap().as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the door ended with {ended:?}:\n{}", self.log());
            // Not a connection to a listener: the counters would tell of it.
            self.ask().status.success().then_some(())
        });
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it as an operator would (SIGTERM); it must end well.
    pub fn stop(&self) {
        let Some(mut child) = self.child.lock().unwrap().take() else { return };
        #[expect(unsafe_code, reason = "std sends SIGKILL only")]
        // SAFETY: the child has not been waited for, so the number is still its own.
        let sent = unsafe { libc::kill(i32::try_from(child.id()).unwrap(), libc::SIGTERM) };
        assert_eq!(sent, 0);
        let status = wait("the door to stop", || child.try_wait().unwrap());
        assert!(status.success(), "the door ended with {status}");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().as_ref().unwrap().id()
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.work.join("state")
    }

    /// Its counters, as `sipdoor status --json` prints them.
    pub fn status(&self) -> serde_json::Value {
        let output = self.ask();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("status --json: {error}: {output:?}"))
    }

    fn ask(&self) -> Output {
        let admin = self.work.join("admin.sock");
        let mut command = self.space.command(program());
        command.args(["status", "--json", "--admin"]).arg(admin).stdin(Stdio::null()).output().unwrap()
    }

    /// How many messages and connections it has refused over a transport, for whatever reason.
    pub fn refused(&self, transport: &str) -> u64 {
        let status = self.status();
        rows(&status).filter(|row| row["transport"] == transport && row["target"] == "drop").map(packets).sum()
    }

    /// How many it has counted in one row.
    pub fn count(&self, transport: &str, reason: &str) -> u64 {
        let status = self.status();
        rows(&status).filter(|row| row["transport"] == transport && row["reason"] == reason).map(packets).sum()
    }

    /// Everything it printed.
    pub fn log(&self) -> String {
        fs::read(self.work.join("door.log")).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.kill();
    }
}

fn rows(status: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    status["rows"].as_array().expect("status --json has rows").iter()
}

fn packets(row: &serde_json::Value) -> u64 {
    row["packets"].as_u64().expect("a row has a number of packets")
}

/// The program that cargo built, or another one to be tested the same way.
fn program() -> String {
    std::env::var("SIPDOOR_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sipdoor").to_owned())
}
