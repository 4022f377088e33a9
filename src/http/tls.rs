//! TLS for the TCP socket: certificate, key and, where clients must show one, the authority of theirs.
//!
//! The cryptography is ring's: it builds with a C compiler alone, where aws-lc-rs wants cmake as well and
//! several times the minutes. FIPS modules, the reason for the other, are nobody's demand here.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::followed;

/// The files for TLS; absolute paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate and those that lead to its authority, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The authority whose certificates clients must show as well; none where they need not.
    pub client_ca: Option<PathBuf>,
}

/// The certificate that new connections are shown; clones show the same.
#[derive(Clone)]
pub(crate) struct Certificates(watch::Sender<TlsAcceptor>);

impl Certificates {
    /// Reads the files; the error is one line that says the fix.
    pub(crate) fn open(tls: &Files) -> Result<Self, String> {
        Ok(Self(watch::Sender::new(acceptor(tls)?)))
    }

    /// For one connection, which keeps it to its end.
    pub(crate) fn current(&self) -> TlsAcceptor {
        self.0.borrow().clone()
    }

    /// Reads the files again when they have changed, for as long as it is polled. What cannot be used changes
    /// nothing: the certificate before it may be good for weeks. Certificate and key are two files, of which one may be on its way.
    pub(crate) async fn follow(self, tls: &Files) {
        let files = [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()];
        let files: Vec<_> = files.into_iter().flatten().cloned().collect();
        let take = |new, is_first: bool| {
            self.0.send_replace(new);
            if !is_first {
                tracing::info!("new TLS connections get the certificate that is there now");
            }
        };
        followed::follow(&files, || acceptor(tls), take, |error| {
            tracing::error!(%error, "the new TLS files cannot be used, and the old certificate goes on: {error}");
        })
        .await;
    }
}

/// Reads the files; the error is one line that says the fix.
pub fn acceptor(tls: &Files) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates("--tls-cert", &tls.cert)?;
    let key = key(&tls.key)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no TLS: {error}"))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let wrong = |why: String| format!("--tls-client-ca: {}: {why}", path.display());
            let mut roots = RootCertStore::empty();
            for certificate in certificates("--tls-client-ca", path)? {
                roots
                    .add(certificate)
                    .map_err(|error| wrong(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| wrong(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        format!(
            "--tls-cert and --tls-key: {} and {} do not go together: {error}",
            tls.cert.display(),
            tls.key.display()
        )
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("{flag}: {}: {why}", path.display());
    let bytes = std::fs::read(path).map_err(|error| wrong(&error))?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(wrong(&"holds no certificate; PEM is wanted")),
        Err(error) => Err(wrong(&error)),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("--tls-key: {}: {why}", path.display());
    let read = || -> io::Result<(u32, Vec<u8>)> {
        let mut file = File::open(path)?;
        let mode = file.metadata()?.mode();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok((mode, bytes))
    };
    let (mode, bytes) = read().map_err(|error| wrong(&error))?;
    // A group may be how the key is shared with this service; everybody is not.
    if mode & 0o027 != 0 {
        return Err(wrong(&format_args!(
            "can be read by others (mode {:04o}); run chmod 640 or 600 on it",
            mode & 0o7777
        )));
    }
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| wrong(&format_args!("holds no usable private key: {error}")))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_wrong_with_the_files_is_said_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("c"), dir.path().join("k"));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let write_key = |text: &str, mode: u32| {
            fs::write(&key, text).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        };
        let mut tls = Files {
            cert: cert.clone(),
            key: key.clone(),
            client_ca: None,
        };
        let said = |tls: &Files| acceptor(tls).map(drop).unwrap_err();
        assert!(said(&tls).starts_with("--tls-cert: "));
        fs::write(&cert, "nothing").unwrap();
        assert!(said(&tls).contains("holds no certificate"));
        fs::write(&cert, made.cert.pem()).unwrap();
        assert!(said(&tls).starts_with("--tls-key: "));
        write_key(&made.signing_key.serialize_pem(), 0o644);
        assert!(said(&tls).contains("chmod 640 or 600"), "{}", said(&tls));
        write_key("nothing", 0o600);
        assert!(said(&tls).contains("no usable private key"));
        write_key(&other.signing_key.serialize_pem(), 0o600);
        assert!(said(&tls).contains("do not go together"));
        write_key(&made.signing_key.serialize_pem(), 0o640);
        assert!(acceptor(&tls).is_ok());
        tls.client_ca = Some(key.clone());
        assert!(said(&tls).starts_with("--tls-client-ca: "));
        tls.client_ca = Some(cert.clone());
        assert!(acceptor(&tls).is_ok());
    }
}
