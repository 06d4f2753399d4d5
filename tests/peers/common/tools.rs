//! Clients that other people wrote, driven by what they say.

use super::lab::Lab;
use super::link::Transport;
use super::netns::{Space, scripts};
use super::{NAME, PATIENCE, wait};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A program under way, and everything it has said so far.
pub struct Talker {
    child: Child,
    heard: Arc<Mutex<String>>,
    directory: PathBuf,
}

impl Talker {
    fn start(mut command: Command, directory: PathBuf) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let heard = Arc::new(Mutex::new(String::new()));
        listen(child.stdout.take().unwrap(), &heard);
        listen(child.stderr.take().unwrap(), &heard);
        Self { child, heard, directory }
    }

    pub fn heard(&self) -> String {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until it has said this.
    pub fn hear(&self, words: &str) {
        let start = Instant::now();
        while !self.heard().contains(words) {
            assert!(start.elapsed() < PATIENCE, "waited for \"{words}\", heard: {}", self.heard());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Types a line.
    pub fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits for its end; whether it ended well.
    pub fn end(&mut self) -> bool {
        let child = &mut self.child;
        wait("the program to end", || child.try_wait().unwrap()).success()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// baresip, driven through its control socket.
pub struct Baresip {
    pub talker: Talker,
    control: TcpStream,
    said: Arc<Mutex<String>>,
}

impl Baresip {
    /// Starts it with one account; Debian 12's 1.0.0 asks only DNS for names.
    pub fn start(lab: &Lab, number: &str, transport: Transport, more: &str) -> Self {
        static PORTS: AtomicU16 = AtomicU16::new(4440);
        let port = PORTS.fetch_add(1, Ordering::Relaxed);
        let space = lab.space("phone");
        let directory = work(lab, "baresip");
        let tone: Vec<u8> = (0..80_000_i32).flat_map(|i| i16::try_from(i % 100 * 80).unwrap().to_le_bytes()).collect();
        std::fs::write(directory.join("in.wav"), wav(&tone)).unwrap();
        let modules = modules();
        let d = directory.display();
        let config = format!(
            "poll_method epoll\nsip_listen 0.0.0.0:0\naudio_player aufile,{d}/out.wav\naudio_source aufile,{d}/in.wav\n\
             audio_alert aufile,{d}/alert.wav\naudio_channels 1\nmodule_path {}\nmodule g711.so\nmodule aufile.so\n\
             module srtp.so\nmodule_app account.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\n\
             ctrl_tcp_listen 127.0.0.1:{port}\n",
            modules.display()
        );
        std::fs::write(directory.join("config"), config).unwrap();
        super::dns::serve(&space);
        let parameter = transport.parameter();
        let account = format!(
            "<sip:{number}@{NAME}{parameter}>;auth_user={number};auth_pass=secret;regint=60;audio_codecs=pcmu{more}\n"
        );
        std::fs::write(directory.join("accounts"), account).unwrap();
        std::fs::write(directory.join("contacts"), "").unwrap();
        let mut command = space.command("baresip");
        command.arg("-f").arg(&directory);
        let talker = Talker::start(command, directory);
        let control = wait("baresip's control socket", || space.run(|| TcpStream::connect(("127.0.0.1", port)).ok()));
        let said = Arc::new(Mutex::new(String::new()));
        listen(control.try_clone().unwrap(), &said);
        Self { talker, control, said }
    }

    pub fn command(&mut self, command: &str, parameters: &str) {
        let json = format!("{{\"command\":\"{command}\",\"params\":\"{parameters}\"}}");
        write!(self.control, "{}:{json},", json.len()).unwrap();
    }

    /// Waits for an event; events before it stay heard.
    pub fn hear(&self, event: &str) {
        let start = Instant::now();
        while !self.said.lock().unwrap().contains(&format!("\"type\":\"{event}\"")) {
            let heard = (self.said.lock().unwrap().clone(), self.talker.heard());
            assert!(start.elapsed() < PATIENCE, "waited for {event}, heard: {heard:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// linphonec with one account over TLS; it plays a file and asks for SRTP.
pub fn linphone(lab: &Lab, number: &str) -> Talker {
    let space = lab.space("phone");
    super::dns::serve(&space);
    let directory = work(lab, "linphone");
    std::fs::create_dir_all(directory.join(".local/share/linphone")).unwrap();
    std::fs::write(directory.join("in.wav"), wav(&[0x11; 160_000])).unwrap();
    let settings = format!(
        "[sip]\nsip_port=-1\nsip_tcp_port=-1\nsip_tls_port=-1\nverify_server_certs=1\nverify_server_cn=1\nroot_ca={}\n\
         media_encryption=srtp\nmedia_encryption_mandatory=1\n[rtp]\naudio_rtp_port=-1\n\
         [auth_info_0]\nusername={number}\npasswd=secret\nrealm=asterisk\ndomain={NAME}\n",
        lab.certs.ca.display()
    );
    std::fs::write(directory.join("rc"), settings).unwrap();
    let mut command = space.command("stdbuf"); // line by line, though it is no terminal
    command.args(["-oL", "linphonec", "-c"]).arg(directory.join("rc")).env("HOME", &directory);
    let mut talker = Talker::start(command, directory.clone());
    talker.say("soundcard use files");
    talker.hear("Using wav files");
    talker.say(&format!("play {}/in.wav", directory.display()));
    talker.say(&format!("register sip:{number}@{NAME} sip:{NAME};transport=tls secret"));
    talker
}

/// Runs pjsua2 through one registration and one call; what it said, none when pjsua2 could not be installed.
pub fn pjsua2(lab: &Lab, space: &Space, number: &str, transport: Transport, more: &[&str]) -> Option<String> {
    let python = super::lab::directory()?.join("pjsua2/bin/python");
    if !python.exists() {
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        let _ = writeln!(std::io::stderr(), "left out: {test}: pjsua2 is not installed (tests/lab/setup.sh says why)");
        return None;
    }
    let ca = lab.certs.ca.to_str().unwrap();
    let mut command = space.command(python);
    command.arg(scripts().join("pjsua2_call.py")).args([NAME, &transport.name().to_lowercase(), number, "0600", ca]);
    let output = command.args(more).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pjsua2: {said}\n{complaint}");
    Some(said)
}

/// Runs a sipp scenario to its end.
pub fn sipp(lab: &Lab, number: &str, transport: Transport) {
    let mode = if transport == super::link::Udp { "u1" } else { "t1" };
    let scenario = scripts().join("sipp/register_and_call.xml");
    let door = transport.door().to_string();
    let space = lab.space("phone");
    let local = space.address.to_string();
    let directory = work(lab, "sipp");
    let mut command = space.command("sipp");
    command.args([
        "-sf",
        scenario.to_str().unwrap(),
        "-s",
        number,
        "-au",
        number,
        "-ap",
        "secret",
        "-key",
        "name",
        NAME,
    ]);
    command.args(["-t", mode, "-i", &local, "-mi", &local, "-m", "5", "-r", "5", "-l", "1"]);
    command.args(["-timeout", "20", "-timeout_error", "-nostdin", "-trace_err", &door]).current_dir(&directory);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let errors: Vec<String> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default())
        .collect();
    assert!(output.status.success(), "sipp: {}\n{}", errors.join("\n"), String::from_utf8_lossy(&output.stdout));
    std::fs::remove_dir_all(directory).unwrap();
}

/// A new directory that is removed with the lab.
fn work(lab: &Lab, name: &str) -> PathBuf {
    let directory = lab.certs.ca.with_file_name(format!("{name}-{}", super::random(6)));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

fn listen(from: impl Read + Send + 'static, to: &Arc<Mutex<String>>) {
    let to = Arc::clone(to);
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        loop {
            let length = match from.fill_buf() {
                Ok(bytes) if !bytes.is_empty() => {
                    to.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
                    bytes.len()
                }
                _ => return,
            };
            from.consume(length);
        }
    });
}

fn modules() -> PathBuf {
    let libraries = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut places = libraries.chain([Path::new("/usr/lib").to_owned()]).map(|path| path.join("baresip/modules"));
    places.find(|path| path.join("ctrl_tcp.so").exists()).expect("baresip's modules")
}

/// A WAV file of 16-bit mono samples at 8 kHz.
fn wav(samples: &[u8]) -> Vec<u8> {
    let length = u32::try_from(samples.len()).unwrap();
    let mut file = b"RIFF".to_vec();
    file.extend((36 + length).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
    file.extend(length.to_le_bytes());
    file.extend(samples);
    file
}
