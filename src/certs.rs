//! A development authority, with a certificate for the door's names.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Phones and libraries refuse server certificates that are valid for longer than this.
const SERVER_DAYS: u32 = 397;
const AUTHORITY_DAYS: u32 = 3650;

/// A development authority and a certificate signed by it, as PEM.
#[derive(Debug)]
pub struct Made {
    /// The authority's certificate: for the phones.
    pub authority: String,
    /// The authority's key: to sign more.
    pub authority_key: String,
    /// The door's certificate.
    pub cert: String,
    /// The door's key.
    pub key: String,
}

/// Makes an authority and a certificate for `names`: ECDSA P-256, valid from yesterday.
pub fn make(names: &[String]) -> Result<Made, rcgen::Error> {
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = |since: Duration| rcgen::date_time_ymd(1970, 1, 1) + since;

    let authority_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "sipdoor development authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.not_before = date(today.saturating_sub(DAY));
    authority.not_after = date(today + DAY * AUTHORITY_DAYS);
    let authority_cert = authority.self_signed(&authority_key)?;

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut server = CertificateParams::new(names)?;
    if let Some(name) = names.first() {
        server.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    server.not_before = date(today.saturating_sub(DAY));
    server.not_after = date(today + DAY * SERVER_DAYS);
    let issuer = Issuer::from_params(&authority, &authority_key);
    let cert = server.signed_by(&key, &issuer)?;

    Ok(Made {
        authority: authority_cert.pem(),
        authority_key: authority_key.serialize_pem(),
        cert: cert.pem(),
        key: key.serialize_pem(),
    })
}

/// Why the files of [`write()`] were not made.
#[derive(Debug)]
pub enum Unwritten {
    /// One of them is there already.
    Exists(PathBuf),
    /// The system says no.
    Io(PathBuf, io::Error),
    /// The certificate itself.
    Make(rcgen::Error),
}

impl fmt::Display for Unwritten {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(path) => write!(
                to,
                "{} is there already, and nothing is overwritten: give another --dir, or move it away",
                path.display()
            ),
            Self::Io(path, error) => write!(to, "{} cannot be written: {error}", path.display()),
            Self::Make(error) => write!(to, "the certificate cannot be made: {error}"),
        }
    }
}

impl std::error::Error for Unwritten {}

/// The files that [`write()`] makes.
#[derive(Debug)]
pub struct Files {
    /// `dev-ca.pem`
    pub authority: PathBuf,
    /// `door.pem`
    pub cert: PathBuf,
    /// `door.key`
    pub key: PathBuf,
}

/// Makes the four files of a development authority in `directory`; keys are for their owner alone.
/// Nothing is overwritten: one file that exists refuses them all.
pub fn write(directory: &Path, names: &[String]) -> Result<Files, Unwritten> {
    let made = make(names).map_err(Unwritten::Make)?;
    let [authority, authority_key, cert, key] =
        ["dev-ca.pem", "dev-ca.key", "door.pem", "door.key"].map(|name| directory.join(name));
    if let Some(there) =
        [&authority, &authority_key, &cert, &key].into_iter().find(|path| path.symlink_metadata().is_ok())
    {
        return Err(Unwritten::Exists(there.clone()));
    }
    std::fs::create_dir_all(directory).map_err(|error| Unwritten::Io(directory.into(), error))?;
    for (path, text, mode) in [
        (&authority_key, &made.authority_key, 0o600),
        (&authority, &made.authority, 0o644),
        (&key, &made.key, 0o600),
        (&cert, &made.cert, 0o644),
    ] {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Unwritten::Exists(path.clone()),
            _ => Unwritten::Io(path.clone(), error),
        })?;
    }
    Ok(Files { authority, cert, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CertificateFiles;
    use crate::net::tls::load;
    use std::os::unix::fs::PermissionsExt;

    fn directory(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("sipdoor-certs-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_development_certificate_is_for_its_names_and_its_keys_are_private() {
        let directory = directory("made");
        let names = ["a.test".to_owned(), "b.test".to_owned()];
        let files = write(&directory, &names).unwrap();
        let pair = CertificateFiles { cert: files.cert, key: files.key };
        let loaded = load(std::slice::from_ref(&pair), &names).unwrap();
        assert!(loaded.warnings().is_empty(), "{:?}", loaded.warnings());
        assert_eq!(load(&[pair], &["c.test".to_owned()]).unwrap().warnings().len(), 1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        assert_eq!((loaded.about().first().unwrap().expires - now + 60) / 86_400, i64::from(SERVER_DAYS));
        for key in ["door.key", "dev-ca.key"] {
            let mode = std::fs::metadata(directory.join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        assert!(matches!(write(&directory, &names), Err(Unwritten::Exists(_))));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn one_file_that_exists_refuses_them_all() {
        let directory = directory("exists");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("door.key"), "precious").unwrap();
        assert!(matches!(write(&directory, &["a.test".to_owned()]), Err(Unwritten::Exists(_))));
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(directory.join("door.key")).unwrap(), "precious");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
