//! The TLS gate: silence to whoever does not say the name, in whatever pieces the rest says it.

use crate::stage::*;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use sipdoor::config::CertificateFiles;
use sipdoor::flow::Transport;
use sipdoor::gate::{Pass, Reason};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;

fn hello_bytes(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A hello whose name is replaced by another of the same length.
fn with_name(stage: &Stage, name: &str) -> Vec<u8> {
    let placeholder = "a".repeat(name.len());
    let mut bytes = hello_bytes(&mut stage.hello(&placeholder));
    let at = bytes.windows(name.len()).position(|part| part == placeholder.as_bytes()).unwrap();
    bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
    bytes
}

#[test]
fn whoever_does_not_say_the_name_hears_nothing() {
    let stage = Stage::start();
    let hello = |name| hello_bytes(&mut stage.hello(name));
    let named = |name: &str| with_name(&stage, name);
    let mut two_records = named("wrong.example");
    two_records.extend_from_slice(b"\x16\x03\x01\x00\x01\x01");
    let strangers: [(Vec<u8>, Reason); 11] = [
        (hello("192.0.2.1"), Reason::SniAbsent),
        (named("192.0.2.1"), Reason::SniIp),
        (named("2001:db8::1"), Reason::SniIp),
        (hello("wrong.example"), Reason::SniWrong),
        (hello("x.k7q2.sip.test"), Reason::SniWrong),
        (named("k7q2.sip.test."), Reason::SniWrong),
        (two_records, Reason::SniWrong),
        (b"OPTIONS sip:k7q2.sip.test SIP/2.0\r\n\r\n".to_vec(), Reason::NotTls),
        (b"\x80\x2e\x01\x03\x01".to_vec(), Reason::NotTls),
        (b"\x15\x03\x01\x00\x02\x01\x00".to_vec(), Reason::NotTls),
        (b"\0".to_vec(), Reason::NotTls),
    ];
    let mut expected = std::collections::HashMap::new();
    for (bytes, reason) in strangers {
        for piece in [bytes.len(), 7] {
            let mut stream = connect(stage.at(Transport::Tls));
            for part in bytes.chunks(piece) {
                // The door may have heard enough and be gone.
                let _ = stream.write_all(part);
            }
            assert_eq!(until_closed(&mut stream), b"", "{reason:?}");
            *expected.entry(reason).or_insert(0) += 1;
            stage.wait_refused(Transport::Tls, reason, expected[&reason]);
        }
    }
    assert_eq!(stage.passed(Transport::Tls, Pass::Hello), 0);
}

#[test]
fn a_peer_that_leaves_in_the_middle_is_nobodys_fault() {
    let stage = Stage::start();
    let bytes = hello_bytes(&mut stage.hello(NAME));
    for end in [0, 1, 5, bytes.len() / 2] {
        let mut stream = connect(stage.at(Transport::Tls));
        stream.write_all(&bytes[..end]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(until_closed(&mut stream), b"");
    }
    wait("all closed", || stage.door.connections(Transport::Tls) == 0);
    let refused: u64 = Reason::ALL.iter().map(|reason| stage.refused(Transport::Tls, *reason)).sum();
    assert_eq!(refused, 0);
}

#[test]
fn the_name_opens_the_door_in_any_pieces() {
    let stage = Stage::start();
    for piece in [1, 7, 100, 10_000] {
        let mut client = stage.hello(&NAME.to_ascii_uppercase());
        let mut stream = connect(stage.at(Transport::Tls));
        for part in hello_bytes(&mut client).chunks(piece) {
            stream.write_all(part).unwrap();
        }
        exchange(&stage, Transport::Tls, &mut StreamOwned::new(client, stream));
    }
    stage.wait_passed(Transport::Tls, Pass::Hello, 4);
    stage.wait_passed(Transport::Tls, Pass::Name, 4);
}

#[test]
fn a_hello_in_many_records_opens_the_door() {
    let stage = Stage::start();
    let mut client = stage.hello(NAME);
    let bytes = hello_bytes(&mut client);
    let mut stream = connect(stage.at(Transport::Tls));
    for part in bytes[5..].chunks(64) {
        stream.write_all(&[22, 3, 1, 0, u8::try_from(part.len()).unwrap()]).unwrap();
        stream.write_all(part).unwrap();
    }
    exchange(&stage, Transport::Tls, &mut StreamOwned::new(client, stream));
}

#[test]
fn both_versions_work_and_both_resume() {
    let stage = Stage::start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(client_config(&stage.authority, &[version]));
        // The second connection may live on the other worker: the ticket is good there too.
        for round in 0..4 {
            let client = ClientConnection::new(config.clone(), NAME.try_into().unwrap()).unwrap();
            let mut stream = StreamOwned::new(client, connect(stage.at(Transport::Tls)));
            exchange(&stage, Transport::Tls, &mut stream);
            let kind = stream.conn.handshake_kind().unwrap();
            let expected = if round == 0 { rustls::HandshakeKind::Full } else { rustls::HandshakeKind::Resumed };
            assert_eq!(kind, expected, "{version:?}, connection {round}");
        }
    }
}

#[test]
fn a_handshake_that_fails_after_the_name_is_counted_apart() {
    let stage = Stage::start();
    let mut stream = connect(stage.at(Transport::Tls));
    stream.write_all(&hello_bytes(&mut stage.hello(NAME))).unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    // A plain record where the client's Finished should be.
    stream.write_all(b"\x17\x03\x03\x00\x05hello").unwrap();
    until_closed(&mut stream);
    stage.wait_refused(Transport::Tls, Reason::Handshake, 1);
}

/// A self-signed certificate in files of this name.
fn certificate(stage: &Scratch, file: &str, name: &str, kind: &'static rcgen::SignatureAlgorithm) -> CertificateFiles {
    let key = rcgen::KeyPair::generate_for(kind).unwrap();
    let cert = rcgen::CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let path = |end: &str| stage.0.join(format!("{file}.{end}"));
    std::fs::write(path("pem"), cert.pem()).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
    CertificateFiles { cert: path("pem"), key: path("key") }
}

#[test]
fn the_certificate_is_for_the_name_and_for_what_the_client_can_verify() {
    let files = Scratch::new();
    let other = "z9.sip.test";
    let stage = Stage::with(|config| {
        config.names.push(other.into());
        config.names.push("w4.wild.test".into());
        config.certificates = vec![
            certificate(&files, "rsa", NAME, &rcgen::PKCS_RSA_SHA256),
            certificate(&files, "other", other, &rcgen::PKCS_ECDSA_P256_SHA256),
            certificate(&files, "wild", "*.wild.test", &rcgen::PKCS_ECDSA_P256_SHA256),
            certificate(&files, "ecdsa", NAME, &rcgen::PKCS_ECDSA_P256_SHA256),
        ];
    });
    assert_eq!(stage.door.certificates().len(), 4);
    let read = |file: &str| CertificateDer::from_pem_file(files.0.join(format!("{file}.pem"))).unwrap();
    let ecdsa = rustls::crypto::aws_lc_rs::default_provider();
    let mut rsa_suites = ecdsa.clone();
    rsa_suites.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("ECDHE_RSA"));
    let mut rsa_schemes = ecdsa.clone();
    let all = rsa_schemes.signature_verification_algorithms;
    let rsa_only: Vec<_> =
        all.mapping.iter().filter(|(scheme, _)| format!("{scheme:?}").starts_with("RSA")).copied().collect();
    rsa_schemes.signature_verification_algorithms.mapping = Vec::leak(rsa_only);
    for (provider, name, expected) in [
        (&ecdsa, NAME, "ecdsa"),
        (&ecdsa, other, "other"),
        (&ecdsa, "w4.wild.test", "wild"),
        (&rsa_suites, NAME, "rsa"),
        (&rsa_schemes, NAME, "rsa"),
        // There is none for that name: the client may decide.
        (&rsa_schemes, other, "rsa"),
    ] {
        let trusting = Arc::new(Trusting(provider.signature_verification_algorithms));
        let config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(trusting)
            .with_no_client_auth();
        let client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(client, connect(stage.at(Transport::Tls)));
        stream.conn.complete_io(&mut stream.sock).unwrap();
        assert_eq!(stream.conn.peer_certificates().unwrap()[0], read(expected), "{name} wants {expected}");
    }
}

/// Takes any certificate, for a look at it; signatures are checked.
#[derive(Debug)]
struct Trusting(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
