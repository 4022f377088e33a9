//! TLS to the database: the certificate has to be of the authority that is trusted, and of the host that is meant.

use std::path::Path;

use serde_json::json;

use super::Postgres;
use super::refusals::{one, refused};
use crate::cluster::port;
use crate::cluster::tls::Certificates;
use crate::harness::{program, unique};

/// A database that talks TLS with this certificate.
fn secured(certificates: &Certificates) -> (Postgres, u16) {
    let port = port();
    let mut postgres = Postgres::start_on(port);
    let certificate = postgres.put("cert.pem", &certificates.certificate);
    let key = postgres.put("key.pem", &certificates.key);
    postgres.end(nix::sys::signal::Signal::SIGINT);
    postgres.set("ssl=on");
    postgres.set(&format!("ssl_cert_file={}", certificate.display()));
    postgres.set(&format!("ssl_key_file={}", key.display()));
    postgres.begin();
    (postgres, port)
}

fn url(port: u16, authority: &Path) -> String {
    let authority = authority.display().to_string().replace('/', "%2F");
    format!(
        "postgres://procession@127.0.0.1:{port}/postgres?sslmode=verify-full&sslrootcert={authority}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_reached_by_tls_or_not_at_all() {
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let right = Certificates::new("127.0.0.1");
    let other_name = Certificates::new("db.example.org");
    let stranger = Certificates::new("127.0.0.1");
    let trusted = file("ca.pem", &right.authority);
    let key = home.path().join("key");
    let mut made = program(&unique(), "");
    assert!(
        made.arg("cluster-key")
            .arg(&key)
            .status()
            .unwrap()
            .success()
    );
    let key_file = ["--cluster-key-file", key.to_str().unwrap()];

    let (postgres, tls_port) = secured(&right);
    let (misnamed, misnamed_port) = secured(&other_name);
    let plain_port = port();
    let plain = Postgres::start_on(plain_port);
    // Each of them is waited for: what is wrong may be mended meanwhile.
    std::thread::scope(|scope| {
        let wrong = [
            (
                "stranger",
                url(tls_port, &file("stranger.pem", &stranger.authority)),
                "certificate is not of an authority that is trusted",
            ),
            (
                "misnamed",
                url(misnamed_port, &file("named.pem", &other_name.authority)),
                "certificate is not of this host",
            ),
            ("plain", url(plain_port, &trusted), "does not support TLS"),
        ];
        for (name, url, why) in wrong {
            let state = home.path().join(name);
            scope.spawn(move || {
                let (code, log) = refused(&state, &url, &key_file);
                assert!(
                    code == Some(1) && log.contains(why),
                    "{name}: {code:?} {log}"
                );
                assert!(log.contains("the ledger cannot be reached"), "{log}");
            });
        }
        let missing = url(tls_port, &home.path().join("missing.pem"));
        let (code, log) = refused(&home.path().join("missing"), &missing, &key_file);
        assert!(
            code == Some(78) && log.contains("sslrootcert=") && log.contains("missing.pem"),
            "{code:?} {log}"
        );
        let (code, log) = refused(
            &home.path().join("empty"),
            &url(tls_port, &file("empty.pem", "")),
            &key_file,
        );
        assert!(
            code == Some(78) && log.contains("no certificate in PEM"),
            "{code:?} {log}"
        );
    });

    let api = one(&url(tls_port, &trusted), &key_file).start().await;
    let job = api.submit(&json!({"command": ["true"]})).await;
    assert_eq!(job["state"], "queued", "no node has joined");
    let encrypted = postgres.sql(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
         WHERE client_addr IS NOT NULL",
    );
    assert_eq!(encrypted.trim(), "t", "every connection over TCP is by TLS");
    drop(api);
    drop((misnamed, plain));
}
