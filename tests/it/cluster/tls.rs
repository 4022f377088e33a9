//! Links over TLS: a hub with a certificate, and nodes that know its authority or do not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;

use super::bad_input::says;
use super::{Cluster, builder, port};
use crate::harness::Lines;

/// An authority, a certificate of it for an address, and the key.
pub(crate) struct Certificates {
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Certificates {
    pub(crate) fn new(address: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([address.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        Self {
            authority: authority.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    fn write(&self, directory: &Path) -> [PathBuf; 3] {
        let files = [
            ("ca.pem", &self.authority),
            ("cert.pem", &self.certificate),
            ("key.pem", &self.key),
        ];
        files.map(|(name, text)| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        })
    }
}

/// A hub without nodes that talks TLS at this address; the file of its authority.
pub(super) async fn hub(address: &str) -> (Cluster, PathBuf) {
    let failpoints = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(address);
    let [authority, certificate, key] = certificates.write(failpoints.path());
    let port = port();
    let listen = format!("--listen={address}:{port}");
    let hub = builder(&failpoints)
        .args(["--cluster", "local", "--node-name", "hub", "--role", "api"])
        .args([listen])
        .args([format!("--tls-cert={}", certificate.display())])
        .args([format!("--tls-key={}", key.display())])
        .trusting(certificates.authority);
    let cluster = Cluster {
        hub: hub.start().await,
        nodes: Vec::new(),
        port,
        args: Vec::new(),
        failpoints,
    };
    (cluster, authority)
}

#[tokio::test]
async fn a_node_joins_over_tls_with_the_authority_of_its_hub_and_with_no_other() {
    let (mut cluster, authority) = hub("127.0.0.1").await;
    let hub_url = format!("https://127.0.0.1:{}", cluster.port);
    let other = tempfile::tempdir().unwrap();
    let [stranger, ..] = Certificates::new("127.0.0.1").write(other.path());
    cluster.token("n1").await;
    for (url, args, why) in [
        (&hub_url, vec![], "cannot be reached"),
        (
            &hub_url,
            vec![format!("--join-ca={}", stranger.display())],
            "cannot be reached",
        ),
        (
            &hub_url.replace("https", "http"),
            vec![],
            "cannot be reached",
        ),
    ] {
        let node = cluster.node_at(url, "n1", "n1").args(args).start().await;
        says(&node, why).await;
    }
    let node = cluster.node_at(&hub_url, "n1", "n1");
    let node = node.args([format!("--join-ca={}", authority.display())]);
    cluster.nodes.push(node.start().await);
    cluster.connected("n1", true).await;

    // Messages and streams go the same way.
    let hub = &cluster.hub;
    let job = hub
        .submit(&json!({"command": ["cat"], "stdin": {"mode": "open"}}))
        .await;
    assert_eq!(job["node"], "n1");
    let id = crate::harness::id(&job);
    let follow = hub.request(reqwest::Method::GET, &format!("/jobs/{id}/output?follow"));
    let follow = follow.header("Accept", "application/x-ndjson");
    let mut lines = Lines::new(follow.send().await.unwrap());
    let input = hub.request(reqwest::Method::POST, &format!("/jobs/{id}/stdin?eof"));
    let reply = hub.send(input.body("hello over TLS\n")).await;
    assert_eq!(reply.status, 204, "{reply}");
    while !lines.next().await.unwrap().contains("hello over TLS") {}
    let ended = hub.finished(&id).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
}
