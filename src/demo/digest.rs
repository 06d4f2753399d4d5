//! Digest authentication with MD5 and `qop=auth` (RFC 7616 §3.4, RFC 3261 §22.4), both ends of it.

use super::message::split;
use md5::{Digest as _, Md5};
use std::fmt::Write as _;

/// A challenge, from WWW-Authenticate or Proxy-Authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The protection space.
    pub realm: String,
    /// The server's nonce.
    pub nonce: String,
    /// To be returned as it is.
    pub opaque: Option<String>,
    /// Whether `qop=auth` is offered.
    pub auth: bool,
    /// The password was right, only the nonce was old.
    pub stale: bool,
}

impl Challenge {
    /// Reads a challenge; `None` if it is not Digest with MD5.
    pub fn parse(value: &str) -> Option<Self> {
        let params = params(value)?;
        if get(&params, "algorithm").is_some_and(|algorithm| !algorithm.eq_ignore_ascii_case("MD5")) {
            return None;
        }
        let offered = get(&params, "qop").unwrap_or_default();
        Some(Self {
            realm: get(&params, "realm")?.to_owned(),
            nonce: get(&params, "nonce")?.to_owned(),
            opaque: get(&params, "opaque").map(str::to_owned),
            auth: offered.split(',').any(|qop| qop.trim().eq_ignore_ascii_case("auth")),
            stale: get(&params, "stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// The value of WWW-Authenticate.
    pub fn header(&self) -> String {
        let stale = if self.stale { ",stale=true" } else { "" };
        format!("Digest realm=\"{}\",nonce=\"{}\",algorithm=MD5,qop=\"auth\"{stale}", self.realm, self.nonce)
    }

    /// The value of Authorization for one request: the `count`th with this nonce.
    pub fn answer(&self, user: &str, password: &str, request: (&str, &str), count: u32, cnonce: &str) -> String {
        let (method, uri) = request;
        let nc = format!("{count:08x}");
        let qop = self.auth.then_some((nc.as_str(), cnonce));
        let response = response(&format!("{user}:{}:{password}", self.realm), &self.nonce, qop, (method, uri));
        let mut header = format!(
            "Digest username=\"{user}\", realm=\"{}\", nonce=\"{}\", uri=\"{uri}\", response=\"{response}\", algorithm=MD5",
            self.realm, self.nonce
        );
        if self.auth {
            let _ = write!(header, ", qop=auth, nc={nc}, cnonce=\"{cnonce}\"");
        }
        if let Some(opaque) = &self.opaque {
            let _ = write!(header, ", opaque=\"{opaque}\"");
        }
        header
    }
}

/// What a server reads in Authorization.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Who it says it is.
    pub user: String,
    /// The nonce it answers to.
    pub nonce: String,
    params: Vec<(String, String)>,
}

impl Credentials {
    /// Reads the header field's value.
    pub fn parse(value: &str) -> Option<Self> {
        let params = params(value)?;
        Some(Self { user: get(&params, "username")?.to_owned(), nonce: get(&params, "nonce")?.to_owned(), params })
    }

    /// Whether this is the right answer for a request of this method.
    pub fn proves(&self, realm: &str, password: &str, method: &str) -> bool {
        let field = |name| get(&self.params, name).unwrap_or_default();
        let qop = (field("qop") == "auth").then_some((field("nc"), field("cnonce")));
        let expected = response(&format!("{}:{realm}:{password}", self.user), &self.nonce, qop, (method, field("uri")));
        field("response") == expected
    }
}

/// RFC 7616 §3.4.1; without qop as in RFC 2069.
fn response(secret: &str, nonce: &str, qop: Option<(&str, &str)>, (method, uri): (&str, &str)) -> String {
    let a1 = md5(secret);
    let a2 = md5(&format!("{method}:{uri}"));
    match qop {
        Some((nc, cnonce)) => md5(&format!("{a1}:{nonce}:{nc}:{cnonce}:auth:{a2}")),
        None => md5(&format!("{a1}:{nonce}:{a2}")),
    }
}

fn md5(text: &str) -> String {
    Md5::digest(text).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn params(value: &str) -> Option<Vec<(String, String)>> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("Digest").then(|| {
        let pairs = split(rest, ',').into_iter().filter_map(|piece| piece.split_once('='));
        pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('"').to_owned())).collect()
    })
}

fn get<'a>(params: &'a [(String, String)], name: &str) -> Option<&'a str> {
    params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 2617 §3.5.
    #[test]
    fn the_rfc_example_comes_out() {
        let value = "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
            nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        let challenge = Challenge::parse(value).unwrap();
        let answer = challenge.answer("Mufasa", "Circle Of Life", ("GET", "/dir/index.html"), 1, "0a4f113b");
        assert!(answer.contains("response=\"6629fae49393a05397450978507c4ef1\""), "{answer}");
        let credentials = Credentials::parse(&answer).unwrap();
        assert!(credentials.proves("testrealm@host.com", "Circle Of Life", "GET"));
        assert!(!credentials.proves("testrealm@host.com", "circle of life", "GET"));
        assert!(!credentials.proves("testrealm@host.com", "Circle Of Life", "PUT"));
    }

    #[test]
    fn other_algorithms_are_left_alone() {
        assert_eq!(Challenge::parse("Digest realm=\"a\", nonce=\"b\", algorithm=SHA-256"), None);
        assert_eq!(Challenge::parse("Basic realm=\"a\""), None);
    }
}
