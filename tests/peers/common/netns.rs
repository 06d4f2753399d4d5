//! Network namespaces: made by `tests/lab/netns.sh`, removed when the test program ends, however it ends.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the lab's machinery lies in the repository.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab")
}

/// The namespaces of one lab.
pub struct Net {
    pub id: String,
    /// Waits for the end of its standard input and then removes everything: even when this program is killed.
    guard: Child,
}

impl Net {
    /// Makes the namespaces of `layout`; `remove` are the directories to remove with them.
    pub fn up(layout: &str, directories: impl Fn(&str) -> Vec<PathBuf>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("sd{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let script = scripts().join("netns.sh");
        let guard = Command::new("sh")
            .arg(&script)
            .args(["hold", &id])
            .args(directories(&id))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // a Ctrl-C for the tests must not stop the cleaning up
            .spawn()
            .unwrap();
        let made = Command::new("sh").arg(&script).args(["up", &id, layout, super::NAME]).output().unwrap();
        assert!(made.status.success(), "netns.sh up: {}", String::from_utf8_lossy(&made.stderr));
        Self { id, guard }
    }

    /// One of the namespaces: pbx, phone (phone6 with its IPv6 address), router, home or gate.
    pub fn space(&self, role: &str) -> Space {
        let address = match role {
            "phone6" => "2001:db8::10",
            "phone" => "198.51.100.10",
            "home" => "192.168.77.2",
            "router" => "203.0.113.77",
            _ => "127.0.0.1",
        };
        Space { name: format!("{}-{}", self.id, role.trim_end_matches('6')), address: address.parse().unwrap() }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// One network namespace.
#[derive(Clone, Debug)]
pub struct Space {
    pub name: String,
    pub address: IpAddr,
}

impl Space {
    /// Runs `body` in a thread that has moved into the namespace; the sockets it makes stay there.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                body()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will run in the namespace, with its own /etc/hosts and /etc/resolv.conf.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a command to its end and returns what it printed.
    pub fn output(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program).args(args).stdin(Stdio::null()).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    #[expect(unsafe_code, reason = "setns moves the calling thread into a namespace; std has no call for it")]
    fn enter(&self) {
        let file = File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        // SAFETY: a plain system call on a descriptor that is open; only this thread changes its namespace.
        let done = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(done, 0, "setns: {}", std::io::Error::last_os_error());
    }
}
