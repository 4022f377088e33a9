//! The command line against a service with TLS: whom it trusts, what it shows, and what it says where that fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Authority, Server, private, start};
use crate::binary::binary;

/// Runs a client command, bounded; gives its exit code, standard output and standard error.
fn run(server: &Server, args: &[&str]) -> (i32, String, String) {
    let output = Command::new("timeout")
        .args(["30", &binary()])
        .env_clear()
        .stdin(Stdio::null())
        .args(args)
        // The token of a service on this machine.
        .env("PROCESSION_STATE_DIR", server.state_dir())
        .output()
        .unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code().unwrap(), stdout, stderr)
}

/// The service by a name of its certificate.
fn url(server: &Server) -> String {
    format!("https://localhost:{}", server.address.port())
}

/// A file of this text, beside those of the service.
fn file(server: &Server, name: &str, text: &str) -> PathBuf {
    let path = server.state_dir().with_file_name(name);
    private(&path, text);
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_named_authority_is_trusted_and_nobody_else() {
    let authority = Authority::new();
    let server = start(&authority, &[]);
    let url = url(&server);
    let ca = server.state_dir().with_file_name("ca.pem");
    let other = Authority::named("another").pem();
    let other = file(&server, "other.pem", &other);
    let namesake = file(&server, "namesake.pem", &Authority::new().pem());
    let both = file(
        &server,
        "both.pem",
        &(Authority::new().pem() + &authority.pem()),
    );
    let run_there = |ca: &Path| {
        let line = ["run", "--url", &url, "--ca", text(ca), "--", "echo", "hi"];
        run(&server, &line)
    };
    for trusted in [&ca, &both] {
        assert_eq!(run_there(trusted), (0, "hi\n".to_owned(), String::new()));
    }
    let fix = "name its CA with --ca";
    for unknown in [&other, &namesake] {
        let (code, stdout, stderr) = run_there(unknown);
        assert_eq!((code, stdout.as_str()), (125, ""));
        assert!(stderr.contains(fix), "{stderr}");
    }
    // Nor is it by what the system trusts, or under another name.
    let by_number = url.replace("localhost", "127.0.0.1");
    let plain = url.replace("https", "http");
    let key = server.state_dir().with_file_name("key.pem");
    let empty = file(&server, "empty", "");
    let (ca, key, empty) = (text(&ca), text(&key), text(&empty));
    for (flags, code, said) in [
        (&["--url", &url][..], 3, fix),
        (&["--url", &by_number, "--ca", ca], 3, "127.0.0.1"),
        (&["--url", &plain], 3, "use https://"),
        (
            &["--url", &url, "--ca", "/no/such"],
            1,
            "cannot read /no/such",
        ),
        (
            &["--url", &url, "--ca", key],
            1,
            "key.pem is not a certificate in PEM",
        ),
        (
            &["--url", &url, "--ca", empty],
            1,
            "empty is not a certificate in PEM",
        ),
    ] {
        let (found, stdout, stderr) = run(&server, &[&["ps"], flags].concat());
        assert_eq!((found, stdout.as_str()), (code, ""), "{flags:?}: {stderr}");
        assert!(stderr.contains(said), "{flags:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{flags:?}: {stderr}");
    }
    // The other way round.
    let without = Server::start();
    let https = format!("https://localhost:{}", without.address.port());
    let (code, _, stderr) = run(&without, &["ps", "--url", &https, "--ca", ca]);
    assert_eq!(code, 3);
    assert!(stderr.contains("use http://"), "{stderr}");
}

#[test]
fn a_client_shows_its_certificate_where_it_is_asked_for_one() {
    let authority = Authority::new();
    let server = start(&authority, &["--tls-client-ca"]);
    let url = url(&server);
    let ca = server.state_dir().with_file_name("ca.pem");
    let (cert, key) = authority.issue();
    let (_, strange_key) = authority.issue();
    let (stranger, its_key) = Authority::named("another").issue();
    let (namesake, namesakes_key) = Authority::new().issue();
    let own = file(&server, "own.pem", &(cert.clone() + &key));
    let reversed = file(&server, "reversed.pem", &(key.clone() + &cert));
    let bare = file(&server, "bare.pem", &cert);
    let mixed = file(&server, "mixed.pem", &(cert + &strange_key));
    let strange = file(&server, "strange.pem", &(stranger + &its_key));
    let namesake = file(&server, "namesake.pem", &(namesake + &namesakes_key));
    let connection = ["--url", &url, "--ca", text(&ca)];
    for good in [&own, &reversed] {
        let shown = ["--client-cert", text(good)];
        let job = [&["run"], &connection[..], &shown, &["--", "echo", "hi"]].concat();
        assert_eq!(run(&server, &job), (0, "hi\n".to_owned(), String::new()));
        // What it does over a WebSocket; the job has ended by then, and its exit code is the command's.
        let named = ["-d", "--name", "quiet", "--", "sh", "-c", "exit 7"];
        let job = [&["run"], &connection[..], &shown, &named].concat();
        assert_eq!(run(&server, &job).0, 0);
        let attach = [&["attach"], &connection[..], &shown, &["quiet"]].concat();
        let said = run(&server, &attach);
        assert_eq!(said.0, 7, "{said:?}");
    }
    let refused = "it does not accept the certificate of --client-cert";
    for (shown, code, said) in [
        (
            None,
            3,
            "it requires a client certificate: give --client-cert",
        ),
        (Some(text(&strange)), 3, refused),
        (Some(text(&namesake)), 3, refused),
        (
            Some(text(&bare)),
            1,
            "bare.pem is not a certificate and its key in PEM",
        ),
        (Some(text(&mixed)), 1, "the certificate and the key in"),
        (Some("/no/such"), 1, "cannot read /no/such"),
    ] {
        let shown: Vec<&str> = shown
            .into_iter()
            .flat_map(|path| ["--client-cert", path])
            .collect();
        let (found, stdout, stderr) = run(&server, &[&["ps"], &connection[..], &shown].concat());
        assert_eq!((found, stdout.as_str()), (code, ""), "{shown:?}: {stderr}");
        assert!(stderr.contains(said), "{shown:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{shown:?}: {stderr}");
    }
    // A certificate is no token.
    let (code, _, stderr) = {
        let shown = ["--client-cert", text(&own), "--token-file", text(&bare)];
        let wrong = file(&server, "bare.pem", &"0".repeat(64));
        assert_eq!(text(&wrong), text(&bare));
        run(&server, &[&["ps"], &connection[..], &shown].concat())
    };
    assert_eq!(code, 1);
    assert!(stderr.contains("a valid token is needed"), "{stderr}");
}
