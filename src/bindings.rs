//! The bindings: who is registered through which flow. The only state of the proxy (RFC 3261 §16.11 keeps the rest in
//! the messages).
#![forbid(unsafe_code)]

use crate::flow::Flow;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A contact's token: the value of `fdt` in the Contact that Asterisk knows, 16 lower-case hex digits.
pub type Token = [u8; 16];

/// One registered phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The address-of-record, `user@host`, as in To of its REGISTER.
    pub aor: String,
    /// The phone's own Contact URI, as it wrote it.
    pub contact: String,
    /// The user part of the Contact that Asterisk was given.
    pub user: String,
    /// Where the phone was last heard.
    pub flow: Flow,
    /// When Asterisk forgets it: milliseconds since the Unix epoch.
    pub expires: u64,
}

/// A change for the store, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Made or refreshed.
    Put(Token, Binding),
    /// Gone.
    Remove(Token),
}

/// Where changes are written; called on the thread that made them, so it must not wait.
pub type Journal = Box<dyn Fn(Change) + Send + Sync>;

/// Every binding of the door, shared by its workers.
///
/// Only Asterisk's 200 to a REGISTER makes one, so strangers cannot fill it; `most` is a cap all the same, and at the
/// cap the binding that would expire first makes room.
pub struct Bindings {
    inner: RwLock<Inner>,
    journal: Journal,
    most: usize,
}

#[derive(Default)]
struct Inner {
    by_token: HashMap<Token, Held>,
    by_aor: HashMap<String, Vec<Token>>,
    by_flow: HashMap<Flow, Vec<Token>>,
}

struct Held {
    binding: Arc<Binding>,
    /// When the REGISTER that made it was received; 0 for one that was saved. Asterisk answers a retransmission with its
    /// old 200, which knows nothing of what has come since.
    asked: u64,
}

/// What one 200 to a REGISTER says.
pub struct Report<'a> {
    /// The address-of-record.
    pub aor: &'a str,
    /// When its REGISTER was received: milliseconds since the Unix epoch.
    pub asked: u64,
    /// The bindings it made or refreshed.
    pub fresh: Vec<(Token, Binding)>,
    /// All that Asterisk holds; `None` when a part of the list could not be read, and so says nothing of what is gone.
    pub present: Option<Vec<Token>>,
}

impl Bindings {
    /// The bindings as saved; changes go to `journal`.
    pub fn new(saved: Vec<(Token, Binding)>, journal: Journal, most: usize) -> Self {
        let mut inner = Inner::default();
        for (token, binding) in saved {
            inner.put(token, binding, 0);
        }
        Self { inner: RwLock::new(inner), journal, most }
    }

    /// The binding of a token.
    pub fn get(&self, token: &Token) -> Option<Arc<Binding>> {
        self.read().by_token.get(token).map(|held| held.binding.clone())
    }

    /// The binding of this address-of-record on this flow. On a connection, which is one phone's alone, that of another
    /// will do; a NAT gives the port of one phone to the next.
    pub fn on(&self, flow: &Flow, aor: &str) -> Option<Token> {
        let inner = self.read();
        let tokens = inner.by_flow.get(flow)?;
        let same = tokens.iter().find(|token| inner.binding(token).is_some_and(|b| b.aor == aor));
        same.or_else(|| tokens.first().filter(|_| flow.transport.is_stream())).copied()
    }

    /// The binding of an address-of-record with this very Contact, made from this address: the same phone, restarted.
    pub fn same(&self, aor: &str, contact: &[u8], source: IpAddr) -> Option<Token> {
        let inner = self.read();
        let same = |token: &&Token| {
            inner.binding(token).is_some_and(|b| b.contact.as_bytes() == contact && b.flow.remote.ip() == source)
        };
        inner.by_aor.get(aor)?.iter().find(same).copied()
    }

    /// Whether a phone is registered through this flow.
    pub fn knows(&self, flow: &Flow) -> bool {
        self.read().by_flow.contains_key(flow)
    }

    /// Takes what Asterisk's 200 says. What a later REGISTER has made stays as that one left it.
    pub fn update(&self, report: Report<'_>) {
        let mut inner = self.write();
        let later = |inner: &Inner, token: &Token| inner.by_token.get(token).is_some_and(|h| h.asked > report.asked);
        if let Some(present) = &report.present {
            let held = inner.by_aor.get(report.aor).cloned().unwrap_or_default();
            for token in held.iter().filter(|token| !present.contains(token)) {
                if !later(&inner, token) {
                    self.remove(&mut inner, token);
                }
            }
        }
        for (token, binding) in report.fresh {
            if later(&inner, &token) {
                continue;
            }
            if inner.by_token.len() >= self.most && !inner.by_token.contains_key(&token) {
                let first = inner.by_token.iter().min_by_key(|(_, held)| held.binding.expires).map(|(token, _)| *token);
                if let Some(first) = first {
                    self.remove(&mut inner, &first);
                }
            }
            (self.journal)(Change::Put(token, binding.clone()));
            inner.put(token, binding, report.asked);
        }
    }

    /// Forgets what has expired.
    pub fn expire(&self, now: u64) {
        let past = |inner: &Inner, token: &Token| inner.binding(token).is_some_and(|b| b.expires < now);
        let due: Vec<Token> = {
            let inner = self.read();
            inner.by_token.keys().filter(|token| past(&inner, token)).copied().collect()
        };
        if due.is_empty() {
            return;
        }
        let mut inner = self.write();
        for token in due {
            if past(&inner, &token) {
                self.remove(&mut inner, &token);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.read().by_token.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn remove(&self, inner: &mut Inner, token: &Token) {
        if inner.remove(token) {
            (self.journal)(Change::Remove(*token));
        }
    }

    // A panic elsewhere leaves the maps whole enough to route by: go on with them.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn binding(&self, token: &Token) -> Option<&Binding> {
        self.by_token.get(token).map(|held| &*held.binding)
    }

    fn put(&mut self, token: Token, binding: Binding, asked: u64) {
        self.remove(&token);
        self.by_aor.entry(binding.aor.clone()).or_default().push(token);
        self.by_flow.entry(binding.flow).or_default().push(token);
        self.by_token.insert(token, Held { binding: Arc::new(binding), asked });
    }

    fn remove(&mut self, token: &Token) -> bool {
        let Some(Held { binding: old, .. }) = self.by_token.remove(token) else { return false };
        drop_from(&mut self.by_aor, &old.aor, token);
        drop_from(&mut self.by_flow, &old.flow, token);
        true
    }
}

fn drop_from<K, Q>(map: &mut HashMap<K, Vec<Token>>, key: &Q, token: &Token)
where
    K: Hash + Eq + Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    if let Some(tokens) = map.get_mut(key) {
        tokens.retain(|t| t != token);
        if tokens.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{FlowId, Side, Transport};
    use std::sync::Mutex;

    fn binding(aor: &str, port: u16, expires: u64) -> Binding {
        let at = |port| format!("192.0.2.1:{port}").parse().unwrap();
        let flow =
            Flow { side: Side::Outside, transport: Transport::Udp, local: at(5060), remote: at(port), id: FlowId(0) };
        Binding { aor: aor.into(), contact: "sip:a@b".into(), user: "a".into(), flow, expires }
    }

    fn report(aor: &str, asked: u64, token: Token, binding: Binding) -> Report<'_> {
        Report { aor, asked, fresh: vec![(token, binding)], present: Some(vec![token]) }
    }

    #[test]
    fn an_old_200_said_again_undoes_nothing() {
        let bindings = Bindings::new(Vec::new(), Box::new(|_| ()), 9);
        bindings.update(report("a@x", 1, [1; 16], binding("a@x", 1, 9)));
        let both = Report { present: Some(vec![[1; 16], [2; 16]]), ..report("a@x", 3, [2; 16], binding("a@x", 2, 9)) };
        bindings.update(both);
        bindings.update(report("a@x", 1, [1; 16], binding("a@x", 1, 9)));
        assert!(bindings.get(&[2; 16]).is_some(), "the old list does not know it");
        bindings.update(report("a@x", 5, [1; 16], binding("a@x", 5, 9)));
        bindings.update(report("a@x", 1, [1; 16], binding("a@x", 1, 9)));
        assert!(bindings.knows(&binding("", 5, 0).flow), "the phone has come back since");
        bindings.update(Report { present: None, fresh: Vec::new(), ..report("a@x", 9, [1; 16], binding("a@x", 1, 9)) });
        assert_eq!(bindings.len(), 1, "a list that was not read whole says nothing of what is gone");
    }

    #[test]
    fn the_200_is_the_whole_truth_of_its_aor() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let bindings = Bindings::new(
            vec![([1; 16], binding("a@x", 1, 9)), ([2; 16], binding("b@x", 2, 9))],
            Box::new(move |c| log.lock().unwrap().push(c)),
            2,
        );
        bindings.update(report("a@x", 1, [3; 16], binding("a@x", 3, 20)));
        assert!(bindings.get(&[1; 16]).is_none() && bindings.get(&[2; 16]).is_some());
        assert_eq!(bindings.on(&binding("", 3, 0).flow, "a@x"), Some([3; 16]));
        assert!(!bindings.knows(&binding("", 1, 0).flow));
        // At the cap the one that would expire first goes.
        bindings.update(report("c@x", 1, [4; 16], binding("c@x", 4, 30)));
        assert!(bindings.get(&[2; 16]).is_none());
        bindings.expire(25);
        assert_eq!(bindings.len(), 1);
        assert_eq!(
            *seen.lock().unwrap(),
            [
                Change::Remove([1; 16]),
                Change::Put([3; 16], binding("a@x", 3, 20)),
                Change::Remove([2; 16]),
                Change::Put([4; 16], binding("c@x", 4, 30)),
                Change::Remove([3; 16])
            ]
        );
    }
}
