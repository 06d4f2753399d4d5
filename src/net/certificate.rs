//! Certificates: loaded, checked, and chosen by the name and by what the client can verify.

use crate::config::CertificateFiles;
use rustls::SignatureAlgorithm;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Certificates that have been read and checked.
#[derive(Debug)]
pub struct Certificates {
    chosen: Vec<Entry>,
    about: Vec<About>,
    warnings: Vec<String>,
}

/// What an operator may want to know of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its file.
    pub file: PathBuf,
    /// The end of its validity, in seconds since the Unix epoch.
    pub expires: i64,
}

#[derive(Debug)]
struct Entry {
    /// The served names that it is for.
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

/// Reads the certificates for these names (lower case), in the order in which they are preferred.
pub fn load(files: &[CertificateFiles], names: &[String]) -> Result<Certificates, CertificateError> {
    let provider = provider();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut all = Certificates { chosen: Vec::new(), about: Vec::new(), warnings: Vec::new() };
    for files in files {
        all.add(files, names, &provider, i64::try_from(now).unwrap_or(i64::MAX))?;
    }
    for name in names.iter().filter(|_| !files.is_empty()) {
        if !all.chosen.iter().any(|entry| entry.names.contains(name)) {
            let sentence = format!("no certificate is for {name}: phones that check certificates will not connect");
            all.warnings.push(sentence);
        }
    }
    // ECDSA costs a quarter of RSA (stable: the operator's order holds among equals).
    all.chosen.sort_by_key(|entry| match entry.key.key.algorithm() {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::RSA => 2,
        _ => 1,
    });
    Ok(all)
}

/// The one crypto provider.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Certificates {
    /// What can be told of each, in the order of the settings.
    pub fn about(&self) -> &[About] {
        &self.about
    }

    /// What the operator should hear, though the door can open.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The configuration of a handshake with them. Tickets go through the one `ticketer`, so that a phone resumes its
    /// session on any worker, and after a reload.
    pub(super) fn config(
        self,
        ticketer: Arc<dyn rustls::server::ProducesTickets>,
    ) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Chooser(self.chosen)));
        config.ticketer = ticketer;
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    fn add(
        &mut self,
        files: &CertificateFiles,
        names: &[String],
        provider: &CryptoProvider,
        now: i64,
    ) -> Result<(), CertificateError> {
        let chain = read_chain(&files.cert)?;
        let key = read_key(&files.key)?;
        let bad = |why: String| CertificateError::BadCertificate(files.cert.clone(), why);
        let leaf = chain.first().ok_or_else(|| CertificateError::NoCertificate(files.cert.clone()))?.clone();
        let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|error| bad(error.to_string()))?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                CertificateError::OtherKey { key: files.key.clone(), cert: files.cert.clone() }
            }
            rustls::Error::InvalidCertificate(why) => bad(format!("{why:?}")),
            other => CertificateError::BadKey(files.key.clone(), other.to_string()),
        })?;
        let file = files.cert.display();
        let (from, to) = (leaf.validity().not_before, leaf.validity().not_after);
        if to.timestamp() < now {
            self.warnings.push(format!("{file} expired on {to}: phones that check certificates will not connect"));
        } else if from.timestamp() > now {
            self.warnings.push(format!("{file} is not valid before {from}: is the clock of this machine right?"));
        }
        let names = names.iter().filter(|name| is_for(&leaf, name)).cloned().collect();
        self.about.push(About { file: files.cert.clone(), expires: to.timestamp() });
        self.chosen.push(Entry { names, key: Arc::new(key) });
        Ok(())
    }
}

/// Chooses among the certificates: those for the name first, and of them the first whose key the client can verify.
#[derive(Debug)]
struct Chooser(Vec<Entry>);

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = |entry: &&Entry| {
            hello.server_name().is_some_and(|name| entry.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
        };
        let fits = |entry: &&Entry| entry.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = self.0.iter().filter(named).find(fits).or_else(|| self.0.iter().find(fits))?;
        Some(chosen.key.clone())
    }
}

/// Why a certificate cannot be used.
#[derive(Debug)]
pub enum CertificateError {
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// A file holds no PEM certificate.
    NoCertificate(PathBuf),
    /// A file holds no PEM private key.
    NoKey(PathBuf),
    /// The key is that of another certificate.
    OtherKey {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        cert: PathBuf,
    },
    /// The certificate makes no sense.
    BadCertificate(PathBuf, String),
    /// The key makes no sense, or is of a kind that is not known.
    BadKey(PathBuf, String),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(
                to,
                "{} cannot be read: {error}; `cert` and `key` of [[certificate]] want files that this user may read",
                path.display()
            ),
            Self::NoCertificate(path) => write!(
                to,
                "{} holds no PEM certificate: `cert` wants the chain, the leaf first (-----BEGIN CERTIFICATE-----)",
                path.display()
            ),
            Self::NoKey(path) => write!(
                to,
                "{} holds no PEM private key: `key` wants an unencrypted one (-----BEGIN PRIVATE KEY-----)",
                path.display()
            ),
            Self::OtherKey { key, cert } => write!(
                to,
                "the key {} does not belong to the certificate {}: give the key that the certificate was made for",
                key.display(),
                cert.display()
            ),
            Self::BadCertificate(path, why) => write!(to, "the certificate {} cannot be used: {why}", path.display()),
            Self::BadKey(path, why) => write!(to, "the key {} cannot be used: {why}", path.display()),
        }
    }
}

impl std::error::Error for CertificateError {}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let failed = |error| match error {
        pem::Error::Io(error) => CertificateError::Unreadable(path.into(), error),
        pem::Error::NoItemsFound => CertificateError::NoCertificate(path.into()),
        other => CertificateError::BadCertificate(path.into(), other.to_string()),
    };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if chain.is_empty() { Err(CertificateError::NoCertificate(path.into())) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::Io(error) => CertificateError::Unreadable(path.into(), error),
        pem::Error::NoItemsFound => CertificateError::NoKey(path.into()),
        other => CertificateError::BadKey(path.into(), other.to_string()),
    })
}

/// Whether a client that asks for `name` would take this certificate (RFC 6125 §6.4: a star stands for one label).
fn is_for(leaf: &X509Certificate<'_>, name: &str) -> bool {
    let matches = |pattern: &str| {
        let wild = pattern.strip_prefix("*.").zip(name.split_once('.')).map(|(rest, (_, parent))| (rest, parent));
        pattern.eq_ignore_ascii_case(name) || wild.is_some_and(|(rest, parent)| rest.eq_ignore_ascii_case(parent))
    };
    match leaf.subject_alternative_name() {
        Ok(Some(names)) => {
            let mut names = names.value.general_names.iter();
            names.any(|general| matches!(general, GeneralName::DNSName(pattern) if matches(pattern)))
        }
        // Old certificates have only a common name, and old phones take it.
        _ => leaf.subject().iter_common_name().any(|common| common.as_str().is_ok_and(matches)),
    }
}
