//! TLS of client commands: whom they trust, what they show, and what to do where the two sides disagree.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use reqwest::ClientBuilder;
use reqwest::tls::{Certificate, Identity};
use tokio_rustls::rustls::{self, AlertDescription, CertificateError};

use crate::failure::Failure;

/// Files that the command line names, in PEM.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files<'a> {
    /// The authority of the service; without it, those that the system trusts.
    pub(super) ca: Option<&'a Path>,
    /// A certificate and its key.
    pub(super) client_cert: Option<&'a Path>,
}

/// Makes the client of an https service.
pub(super) fn build(
    mut builder: ClientBuilder,
    files: Files<'_>,
) -> Result<reqwest::Client, Failure> {
    builder = builder.tls_built_in_root_certs(files.ca.is_none());
    if let Some(path) = files.ca {
        let bundle = Certificate::from_pem_bundle(&read(path)?).unwrap_or_default();
        if bundle.is_empty() {
            return Err(not_pem(path, "a certificate"));
        }
        builder = bundle
            .into_iter()
            .fold(builder, |builder, ca| builder.add_root_certificate(ca));
    }
    if let Some(path) = files.client_cert {
        let identity = Identity::from_pem(&read(path)?);
        let identity = identity.map_err(|_| not_pem(path, "a certificate and its key"))?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| {
        Failure::Local(match (files.client_cert, cause(&error)) {
            (Some(path), Some(rustls::Error::InconsistentKeys(_))) => format!(
                "the certificate and the key in {} do not match",
                path.display()
            ),
            _ => format!("cannot set up TLS: {}", super::root(&error)),
        })
    })
}

/// Why the two sides do not understand each other, with what can be done; nothing if it is not for that.
pub(super) fn disagreement(error: &reqwest::Error) -> Option<String> {
    if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
        return Some("the answer is not HTTP: use https:// if the service has TLS".to_owned());
    }
    let cause = cause(error)?;
    Some(match fix(cause) {
        Some(fix) => format!("{cause}; {fix}"),
        None => cause.to_string(),
    })
}

fn fix(cause: &rustls::Error) -> Option<&'static str> {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    // The second one where two authorities have the same name.
    if let InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) =
        cause
    {
        return Some("name its CA with --ca");
    }
    if let InvalidMessage(_) = cause {
        return Some("the answer is not TLS: use http:// if the service has none");
    }
    let AlertReceived(alert) = cause else {
        return None;
    };
    if *alert == AlertDescription::CertificateRequired {
        return Some("it requires a client certificate: give --client-cert");
    }
    let refusals = [
        AlertDescription::BadCertificate,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateUnknown,
        AlertDescription::DecryptError,
        AlertDescription::UnknownCA,
    ];
    refusals
        .contains(alert)
        .then_some("it does not accept the certificate of --client-cert")
}

fn cause(error: &reqwest::Error) -> Option<&rustls::Error> {
    find(error)
}

/// The first reason of this kind. An I/O error keeps what it wraps to itself, and may wrap another one.
fn find<E: Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(now) = next {
        if let Some(found) = now.downcast_ref() {
            return Some(found);
        }
        let wrapped = now.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => now.source(),
        };
    }
    None
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path)
        .map_err(|error| Failure::Local(format!("cannot read {}: {error}", path.display())))
}

fn not_pem(path: &Path, what: &str) -> Failure {
    Failure::Local(format!("{} is not {what} in PEM", path.display()))
}
