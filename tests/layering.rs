//! The walls of the house: the core decides and does nothing else, and no file outgrows its reader.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

/// The core: everything between bytes received and bytes to send.
const CORE: [&str; 7] = ["sip", "gate", "route", "bindings.rs", "flow.rs", "proxy.rs", "token.rs"];

/// What the core must not know: runtimes, sockets, TLS, files, clocks, threads, the environment, logs; and the shell.
const FOREIGN: [&str; 33] = [
    "tokio",
    "rustls",
    "socket2",
    "libc::",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io::Read",
    "std::os::",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "UnixListener",
    "Instant",
    "SystemTime",
    "::now(",
    "async fn",
    "async move",
    ".await",
    "serde",
    "toml::",
    "clap",
    "redb",
    "tracing",
    "println!",
    "crate::admin",
    "crate::cli",
    "crate::demo",
    "crate::net",
    "crate::observe",
    "crate::store",
];

/// Every source file, with its path below src.
fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(files.len() > 20);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).expect("it is below src").to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    files.into_iter().map(read).collect()
}

/// The file without its tests at the end.
fn without_tests(text: &str) -> &str {
    text.split_once("\n#[cfg(test)]\nmod tests {").map_or(text, |(before, _)| before)
}

fn is_core(name: &str) -> bool {
    CORE.iter().any(|part| name == *part || name.strip_prefix(part).is_some_and(|rest| rest.starts_with('/')))
}

#[test]
fn the_core_knows_no_outside_world() {
    let core: Vec<_> = sources().into_iter().filter(|(name, _)| is_core(name)).collect();
    for part in CORE {
        assert!(core.iter().any(|(name, _)| name.starts_with(part)), "{part} is gone: say where the core is now");
    }
    for (name, text) in &core {
        for (number, line) in without_tests(text).lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let named = FOREIGN.iter().find(|word| code.contains(**word));
            assert!(named.is_none(), "src/{name}:{}: the core names {:?}: {line}", number + 1, named);
        }
        assert!(text.contains("#![forbid(unsafe_code)]"), "src/{name} does not forbid unsafe code");
    }
}

#[test]
fn no_file_is_longer_than_400_lines_without_its_tests() {
    for (name, text) in sources() {
        let lines = without_tests(&text).lines().count();
        assert!(lines <= 400 || name.ends_with("tests.rs"), "src/{name} has {lines} lines");
    }
}

#[test]
fn nothing_is_allowed_for_a_whole_crate() {
    for name in ["lib.rs", "main.rs"] {
        let (_, text) = sources().into_iter().find(|(file, _)| file == name).unwrap();
        assert!(!text.contains("#![allow"), "src/{name}");
    }
}

/// rsip is the second reader and nothing else: nothing is printed with it, and no type of it leaves its file.
#[test]
fn rsip_has_one_place() {
    let users: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| without_tests(text).lines().any(|line| line.split("//").next().unwrap().contains("rsip::")))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(users, ["sip/check.rs"]);
}
