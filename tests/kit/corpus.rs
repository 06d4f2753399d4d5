//! The files of tests/corpus.

use std::path::{Path, PathBuf};

/// One message of the corpus.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The file's name without `.sip`.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The directory of the corpus.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// Every message of one directory of the corpus, by name.
pub fn read(directory_name: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = std::fs::read_dir(directory().join(directory_name))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "sip"))
        .map(|path| Entry {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            bytes: std::fs::read(&path).unwrap(),
        })
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

/// One message of RFC 4475.
pub fn torture(name: &str) -> Vec<u8> {
    std::fs::read(directory().join("rfc4475").join(name).with_extension("sip")).unwrap()
}
