//! TLS, with and without client certificates.

mod client;
mod streams;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::server::{Answer, LONG, Server, answers, run};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        Self::named("an authority")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key, in PEM.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn connect(
    server: &Server,
    authority: &Authority,
    own: Option<(String, String)>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    let connection =
        ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, server.connect())
}

/// A request over TLS; nothing where the server does not talk to this client.
fn ask(server: &Server, authority: &Authority, own: Option<(String, String)>) -> Option<Answer> {
    let mut stream = connect(server, authority, own);
    let request = format!(
        "GET /jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        server.token
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let mut found = answers(&mut bytes.as_slice());
    (!found.is_empty()).then(|| found.remove(0))
}

/// The certificate that a new connection is shown, and that connection.
fn shown(
    server: &Server,
    authority: &Authority,
) -> (Vec<u8>, StreamOwned<ClientConnection, TcpStream>) {
    let mut stream = connect(server, authority, None);
    stream.conn.complete_io(&mut stream.sock).unwrap();
    let certificate = stream.conn.peer_certificates().unwrap()[0].to_vec();
    (certificate, stream)
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a pause between two looks at what nobody announces"
)]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until new connections are shown this certificate.
fn until_shown(server: &Server, authority: &Authority, pem: &str) {
    until("the new certificate is shown", || {
        shown(server, authority).0 == der(pem)
    });
}

#[test]
fn a_renewed_certificate_is_shown_to_new_connections_and_open_ones_go_on() {
    let authority = Authority::new();
    let server = start(&authority, &[]);
    let file = |name: &str| server.state_dir().with_file_name(name);
    let (old, mut open) = shown(&server, &authority);
    // A request that is answered when all is over.
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.05; done",
        file("renewed").display()
    );
    let body = serde_json::json!({"script": script}).to_string();
    let request = format!(
        "POST /jobs?wait=60 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        server.token,
        body.len()
    );
    open.write_all(request.as_bytes()).unwrap();
    open.flush().unwrap();
    // One file after the other, by renaming, as those who renew certificates do.
    let renew = |name: &str, text: &str| {
        private(&file("new"), text);
        std::fs::rename(file("new"), file(name)).unwrap();
    };
    let (cert, key) = authority.issue();
    assert_ne!(old, der(&cert));
    renew("cert.pem", &cert);
    renew("key.pem", &key);
    until_shown(&server, &authority, &cert);

    // What cannot be used changes nothing, also where only one of the two is new.
    let (next, next_key) = authority.issue();
    renew("cert.pem", &next);
    until("the log says so", || {
        let log = std::fs::read_to_string(file("log")).unwrap();
        log.contains("the old certificate goes on")
    });
    assert_eq!(shown(&server, &authority).0, der(&cert));
    renew("key.pem", &next_key);
    until_shown(&server, &authority, &next);

    std::fs::write(file("renewed"), "").unwrap();
    let mut answer = String::new();
    let _ = open.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(answer.contains(r#""state":"succeeded""#), "{answer}");
}

fn start(authority: &Authority, more: &[&str]) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = authority.issue();
    let path = |name: &str| dir.path().join(name);
    private(&path("cert.pem"), &cert);
    private(&path("key.pem"), &key);
    private(&path("ca.pem"), &authority.pem());
    let mut flags = vec![
        format!("--tls-cert={}", path("cert.pem").display()),
        format!("--tls-key={}", path("key.pem").display()),
    ];
    for flag in more {
        flags.push(if flag.contains('=') {
            (*flag).to_owned()
        } else {
            format!("{flag}={}", path("ca.pem").display())
        });
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Server::in_dir(dir, &flags)
}

#[test]
fn with_a_certificate_the_service_talks_tls_and_nothing_else() {
    let authority = Authority::new();
    let server = start(&authority, &[]);
    assert_eq!(ask(&server, &authority, None).unwrap().status, 200);
    let plain = server.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(plain.is_empty(), "{plain:?}");
    let health = run(&["health", "--tls-cert=x"], &server.state_dir());
    assert_eq!(health.0, 0);
}

#[test]
fn with_an_authority_for_clients_only_its_certificates_are_let_in() {
    let authority = Authority::new();
    let server = start(&authority, &["--tls-client-ca"]);
    assert_eq!(
        ask(&server, &authority, Some(authority.issue()))
            .unwrap()
            .status,
        200
    );
    assert!(ask(&server, &authority, None).is_none());
    let stranger = Authority::new().issue();
    assert!(ask(&server, &authority, Some(stranger)).is_none());
}

#[test]
fn a_handshake_that_does_not_come_is_given_up() {
    let authority = Authority::new();
    let server = start(&authority, &["--max-connections=3"]);
    let begin = Instant::now();
    // One says nothing, one not enough, one begins and pauses.
    let mut slow: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    slow[1].write_all(&[0x16, 3, 1]).unwrap();
    slow[2]
        .write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc])
        .unwrap();
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, [0; 0]);
        let took = begin.elapsed().as_secs();
        assert!((9..25).contains(&took), "{took} s");
    }
    // Their places are free again.
    until("there is an answer", || {
        ask(&server, &authority, None).is_some_and(|answer| answer.status == 200)
    });
}
