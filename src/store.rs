//! The state directory: the bindings, which outlive the door as Asterisk's contacts do, and the key of the tokens.
//!
//! Nothing on the path of a message waits for the disk: a change goes into a map of what is not yet written, one entry a
//! token, and a thread of its own commits the map whenever it is not empty. The database's lock keeps a second door out.

use crate::bindings::{Binding, Change, Journal, Token};
use crate::flow::{Flow, FlowId, Side, Transport};
use crate::proxy::Now;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tracing::{error, warn};

/// An open state directory, with the thread that writes to it. What is not yet written when it is dropped is written
/// then.
pub struct Store {
    key: [u8; 16],
    saved: Vec<(Token, Binding)>,
    pending: Arc<Pending>,
    writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the state directory, makes it (0700) and its key if they are not there, and reads what has not expired.
    pub fn open(state: &Path, now: Now) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state)
            .map_err(|e| StoreError::Directory(state.into(), e))?;
        let database = open_database(&state.join(DATABASE))?;
        let saved = read_all(&database, now).map_err(|e| StoreError::Database(state.join(DATABASE), e.to_string()))?;
        let key = read_key(&state.join(KEY))?;
        let pending = Arc::new(Pending::default());
        let shared = pending.clone();
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_changes(&database, &shared))
            .map_err(StoreError::Thread)?;
        Ok(Self { key, saved, pending, writer: Some(writer) })
    }

    /// The key of the tokens.
    pub const fn key(&self) -> [u8; 16] {
        self.key
    }

    /// The bindings that were saved, once.
    pub fn take_saved(&mut self) -> Vec<(Token, Binding)> {
        std::mem::take(&mut self.saved)
    }

    /// Where changes go.
    pub fn journal(&self) -> Journal {
        let pending = self.pending.clone();
        Box::new(move |change| pending.put(change))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.pending.lock().closed = true;
        self.pending.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            // It can only have panicked, and then it has said so.
            let _ = writer.join();
        }
    }
}

/// Why the state directory cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// It cannot be made.
    Directory(PathBuf, io::Error),
    /// Another door has it.
    Locked(PathBuf),
    /// The database cannot be opened.
    Open(PathBuf, io::Error),
    /// The database cannot be read.
    Database(PathBuf, String),
    /// The key file cannot be read or made.
    Key(PathBuf, io::Error),
    /// The key file holds something else.
    KeySize(PathBuf, usize),
    /// No thread.
    Thread(io::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path, error) => write!(
                to,
                "the state directory {} cannot be made: {error}; set `state` to a directory that this user may write",
                path.display()
            ),
            Self::Locked(path) => {
                write!(to, "{} is in use by another door: stop it, or give this one its own `state`", path.display())
            }
            Self::Open(path, error) => write!(
                to,
                "{} cannot be opened: {error}; set `state` to a directory that this user may write",
                path.display()
            ),
            Self::Database(path, what) => write!(
                to,
                "{} cannot be used: {what}; move it away, and phones are known again once they register",
                path.display()
            ),
            Self::Key(path, error) => write!(
                to,
                "the key {} cannot be read or made: {error}; give it to the user that runs the door (mode 0600)",
                path.display()
            ),
            Self::KeySize(path, size) => write!(
                to,
                "the key {} has {size} bytes instead of 16: remove it, and phones are known again once they register",
                path.display()
            ),
            Self::Thread(error) => write!(to, "no thread can be started for the store: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// What is not yet written: the last state of each token, so that it is no larger than the table of bindings and what
/// was removed since the last commit.
#[derive(Default)]
struct Pending {
    inner: Mutex<Changes>,
    wake: Condvar,
}

#[derive(Default)]
struct Changes {
    by_token: HashMap<Token, Option<Binding>>,
    closed: bool,
}

impl Pending {
    fn put(&self, change: Change) {
        let (token, state) = match change {
            Change::Put(token, binding) => (token, Some(binding)),
            Change::Remove(token) => (token, None),
        };
        self.lock().by_token.insert(token, state);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for changes; false when there are none and never will be.
    fn wait(&self) -> Option<HashMap<Token, Option<Binding>>> {
        let idle = |changes: &mut Changes| changes.by_token.is_empty() && !changes.closed;
        let mut changes = self.wake.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let batch = std::mem::take(&mut changes.by_token);
        (!batch.is_empty()).then_some(batch)
    }

    /// Puts back what could not be written, unless it has changed since; false when the door is closing.
    fn put_back(&self, batch: HashMap<Token, Option<Binding>>) -> bool {
        let mut changes = self.lock();
        for (token, state) in batch {
            changes.by_token.entry(token).or_insert(state);
        }
        let closing = |changes: &mut Changes| !changes.closed;
        let waited = self.wake.wait_timeout_while(changes, RETRY, closing).unwrap_or_else(PoisonError::into_inner);
        !waited.0.closed
    }
}

/// The writer's thread.
fn write_changes(database: &Database, pending: &Pending) {
    while let Some(batch) = pending.wait() {
        if let Err(error) = commit(database, &batch) {
            error!("the bindings cannot be saved ({error}): a restart now would forget phones; trying again");
            if !pending.put_back(batch) {
                return;
            }
        }
    }
}

fn commit(database: &Database, batch: &HashMap<Token, Option<Binding>>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(BINDINGS)?;
        for (token, state) in batch {
            match state {
                Some(binding) => table.insert(token.as_slice(), Record::of(binding).bytes().as_slice())?,
                None => table.remove(token.as_slice())?,
            };
        }
    }
    Ok(transaction.commit()?)
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let open = || Database::builder().set_cache_size(CACHE).set_check_integrity_on_open(true).create(path);
    match open() {
        Ok(database) => Ok(database),
        Err(DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::Locked(path.into())),
        Err(error) if damaged(&error) => {
            // Phones register again; a door that stays shut helps nobody.
            let aside = path.with_extension("damaged");
            fs::rename(path, &aside).map_err(|e| StoreError::Open(path.into(), e))?;
            warn!(
                "{} is damaged ({error}): moved to {}, starting without saved phones",
                path.display(),
                aside.display()
            );
            open().map_err(|e| StoreError::Database(path.into(), e.to_string()))
        }
        Err(DatabaseError::Storage(StorageError::Io(error))) => Err(StoreError::Open(path.into(), error)),
        Err(error) => Err(StoreError::Database(path.into(), error.to_string())),
    }
}

fn damaged(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::RepairAborted => true,
        DatabaseError::Storage(StorageError::Io(error)) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// All bindings that have not expired. A record that cannot be read is left out: its phone registers again.
fn read_all(database: &Database, now: Now) -> Result<Vec<(Token, Binding)>, redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(BINDINGS)?;
    transaction.commit()?;
    let mut saved = Vec::new();
    let mut unreadable = 0_usize;
    for entry in database.begin_read()?.open_table(BINDINGS)?.iter()? {
        let (token, value) = entry?;
        match (Token::try_from(token.value()), Record::read(value.value())) {
            (Ok(token), Some(binding)) if binding.expires > now.0 => saved.push((token, binding)),
            (Ok(_), Some(_)) => {}
            _ => unreadable += 1,
        }
    }
    if unreadable > 0 {
        warn!("{unreadable} saved phones cannot be read and are left out until they register again");
    }
    Ok(saved)
}

/// One binding as it is saved.
#[derive(Serialize, Deserialize)]
struct Record {
    v: u8,
    aor: String,
    contact: String,
    user: String,
    transport: String,
    local: SocketAddr,
    remote: SocketAddr,
    id: u64,
    expires: u64,
}

impl Record {
    fn of(binding: &Binding) -> Self {
        let Flow { transport, local, remote, id, .. } = binding.flow;
        Self {
            v: VERSION,
            aor: binding.aor.clone(),
            contact: binding.contact.clone(),
            user: binding.user.clone(),
            transport: transport.name().into(),
            local,
            remote,
            id: id.0,
            expires: binding.expires,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        // Strings, numbers and addresses: nothing that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn read(bytes: &[u8]) -> Option<Binding> {
        let Self { v, aor, contact, user, transport, local, remote, id, expires } =
            serde_json::from_slice(bytes).ok()?;
        let transport = Transport::ALL.into_iter().find(|t| t.name() == transport).filter(|_| v == VERSION)?;
        // Phones are outside, all of them.
        let flow = Flow { side: Side::Outside, transport, local, remote, id: FlowId(id) };
        Some(Binding { aor, contact, user, flow, expires })
    }
}

/// The key of the tokens; made with 16 random bytes the first time.
fn read_key(path: &Path) -> Result<[u8; 16], StoreError> {
    let failed = |error| StoreError::Key(path.into(), error);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let mut key = [0; 16];
            aws_lc_rs::rand::fill(&mut key).map_err(|_| failed(io::Error::other("no random bytes")))?;
            file.write_all(&key).and_then(|()| file.sync_all()).map_err(failed)?;
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut bytes = Vec::new();
            fs::File::open(path).and_then(|file| file.take(1024).read_to_end(&mut bytes)).map_err(failed)?;
            bytes.as_slice().try_into().map_err(|_| StoreError::KeySize(path.into(), bytes.len()))
        }
        Err(error) => Err(failed(error)),
    }
}

const DATABASE: &str = "bindings.redb";
const KEY: &str = "key";
const BINDINGS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("bindings");
/// The format of [`Record`].
const VERSION: u8 = 1;
/// Bytes; the database is read once.
const CACHE: usize = 1 << 20;
const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A directory of its own, gone at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sipdoor-store-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn binding(user: &str, expires: u64) -> Binding {
        let flow = Flow {
            side: Side::Outside,
            transport: Transport::Tls,
            local: "[2001:db8::1]:5061".parse().unwrap(),
            remote: "[2001:db8::2]:40000".parse().unwrap(),
            id: FlowId(u64::MAX - 1),
        };
        let contact = format!("sips:{user}@192.0.2.1;x=\"é\"");
        Binding { aor: format!("{user}@secret.example"), contact, user: user.into(), flow, expires }
    }

    #[test]
    fn what_was_put_is_there_again() {
        let dir = Scratch::new("again");
        let first = Store::open(&dir.0, Now(0)).unwrap();
        let journal = first.journal();
        for n in 0..100 {
            journal(Change::Put([n; 16], binding(&format!("u{n}"), 1000 + u64::from(n))));
        }
        journal(Change::Remove([7; 16]));
        journal(Change::Put([8; 16], binding("other", 5000)));
        let key = first.key();
        drop(first);

        let mut second = Store::open(&dir.0, Now(1010)).unwrap();
        assert_eq!(second.key(), key);
        let saved: HashMap<Token, Binding> = second.take_saved().into_iter().collect();
        assert_eq!(saved.get(&[8; 16]), Some(&binding("other", 5000)));
        assert_eq!(saved.get(&[99; 16]), Some(&binding("u99", 1099)));
        assert!(!saved.contains_key(&[7; 16]), "removed");
        assert!(!saved.contains_key(&[10; 16]), "expired");
        assert_eq!(saved.len(), 90);
    }

    #[test]
    fn a_second_door_is_kept_out() {
        let dir = Scratch::new("second");
        let _first = Store::open(&dir.0, Now(0)).unwrap();
        let error = Store::open(&dir.0, Now(0)).err().unwrap();
        assert!(matches!(error, StoreError::Locked(_)), "{error}");
    }

    #[test]
    fn the_key_is_private_and_its_size_is_checked() {
        let dir = Scratch::new("key");
        drop(Store::open(&dir.0, Now(0)).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir.0), mode(&dir.0.join(KEY))), (0o700, 0o600));
        fs::write(dir.0.join(KEY), b"short").unwrap();
        let error = Store::open(&dir.0, Now(0)).err().unwrap().to_string();
        assert!(error.contains("has 5 bytes instead of 16: remove it"), "{error}");
    }

    #[test]
    fn damage_costs_bindings_and_not_the_start() {
        let dir = Scratch::new("damage");
        let store = Store::open(&dir.0, Now(0)).unwrap();
        store.journal()(Change::Put([1; 16], binding("a", 10)));
        drop(store);
        // One record of another version, one that is no record.
        let database = Database::open(dir.0.join(DATABASE)).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut newer = Record::of(&binding("b", 10));
        newer.v = VERSION + 1;
        transaction.open_table(BINDINGS).unwrap().insert([2; 16].as_slice(), newer.bytes().as_slice()).unwrap();
        transaction.open_table(BINDINGS).unwrap().insert([3; 16].as_slice(), b"{".as_slice()).unwrap();
        transaction.commit().unwrap();
        drop(database);
        assert_eq!(Store::open(&dir.0, Now(0)).unwrap().take_saved(), [([1; 16], binding("a", 10))]);

        fs::write(dir.0.join(DATABASE), b"this is no database, but it is long enough to be one".repeat(200)).unwrap();
        assert!(Store::open(&dir.0, Now(0)).unwrap().take_saved().is_empty());
        assert!(dir.0.join("bindings.damaged").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = Scratch::new("file");
        fs::create_dir_all(&dir.0).unwrap();
        fs::write(dir.0.join("file"), b"").unwrap();
        let error = Store::open(&dir.0.join("file/state"), Now(0)).err().unwrap().to_string();
        assert!(error.contains("file/state cannot be made") && error.contains("set `state`"), "{error}");
    }
}
