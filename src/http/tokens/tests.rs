//! Tokens from their files to what they grant.

use std::os::unix::fs::PermissionsExt;

use super::*;
use linux::clock;

fn state_dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn name(text: &str) -> TokenName {
    text.parse().unwrap()
}

fn hours(hours: i64) -> Timestamp {
    Timestamp::from_micros(clock::wall().as_micros() + hours * 3_600_000_000)
}

#[test]
fn every_scope_reaches_those_before_it_and_no_other() {
    let all = [
        Access::Public,
        Access::Metrics,
        Access::Read,
        Access::Operate,
        Access::Admin,
    ];
    for (held, scope) in all.into_iter().enumerate() {
        for (wanted, needed) in all.into_iter().enumerate() {
            assert_eq!(
                scope.reaches(needed),
                wanted <= held,
                "{scope:?} {needed:?}"
            );
        }
    }
}

#[test]
fn only_the_very_token_is_recognised() {
    let tokens = Tokens::of("abc");
    let grant = tokens.recognise("abc").unwrap();
    assert_eq!(&*grant.actor, "token:default");
    assert_eq!(grant.scope, Access::Admin);
    for wrong in ["", "ab", "abcd", "ABC"] {
        assert!(tokens.recognise(wrong).is_none());
    }
    assert!(!format!("{tokens:?}{grant:?}").contains("abc"));
}

#[test]
fn a_token_works_from_its_creation_to_its_revocation() {
    let dir = state_dir();
    let dir = dir.path();
    let text = create(dir, &name("ci"), Access::Operate, Some(hours(1))).unwrap();
    let other = create(dir, &name("eyes"), Access::Read, None).unwrap();
    let grant = Tokens::open(dir).unwrap().recognise(&text).unwrap();
    assert_eq!((&*grant.actor, grant.scope), ("token:ci", Access::Operate));
    let file = std::fs::read_to_string(dir.join("tokens.json")).unwrap();
    assert!(!file.contains(&text) && !file.contains(&text[11..]));
    let mode = std::fs::metadata(dir.join("tokens.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    revoke(dir, &name("ci")).unwrap();
    let tokens = Tokens::open(dir).unwrap();
    assert!(tokens.recognise(&text).is_none());
    assert!(tokens.recognise(&other).is_some());
    assert!(matches!(
        revoke(dir, &name("ci")),
        Err(AuthError::Unknown(_))
    ));
}

#[test]
fn an_expired_token_is_nobodys() {
    let dir = state_dir();
    let text = create(dir.path(), &name("old"), Access::Admin, Some(hours(-1))).unwrap();
    assert!(Tokens::open(dir.path()).unwrap().recognise(&text).is_none());
    assert_eq!(list(dir.path()).unwrap().len(), 1);
}

#[test]
fn a_name_is_given_once_and_default_is_taken() {
    let dir = state_dir();
    create(dir.path(), &name("a"), Access::Read, None).unwrap();
    for taken in ["a", "default"] {
        let error = create(dir.path(), &name(taken), Access::Read, None).unwrap_err();
        assert!(matches!(error, AuthError::Exists(_)), "{error}");
    }
}

#[test]
fn revoking_the_default_token_replaces_it() {
    let dir = state_dir();
    let first = state_dir::token(dir.path()).unwrap();
    revoke(dir.path(), &name("default")).unwrap();
    let second = state_dir::token(dir.path()).unwrap();
    assert_ne!(first, second);
    let tokens = Tokens::open(dir.path()).unwrap();
    assert!(tokens.recognise(&first).is_none() && tokens.recognise(&second).is_some());
}

#[test]
fn a_file_that_is_damaged_or_not_private_is_refused_with_the_fix() {
    let dir = state_dir();
    let path = dir.path().join("tokens.json");
    create(dir.path(), &name("a"), Access::Read, None).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Tokens::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    for damaged in [
        "",
        "[]",
        r#"{"tokens":[{"name":"A"}]}"#,
        r#"{"tokens":[{"name":"a","scope":"public","sha256":"00","created_at":"2026-01-01T00:00:00Z","expires_at":null}]}"#,
    ] {
        std::fs::write(&path, damaged).unwrap();
        let error = Tokens::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/null", &path).unwrap();
    assert!(Tokens::open(dir.path()).is_err());
}

#[test]
fn changes_at_the_same_time_lose_none() {
    let dir = state_dir();
    std::thread::scope(|scope| {
        for index in 0..16 {
            let dir = dir.path();
            scope.spawn(move || {
                create(dir, &name(&format!("t{index}")), Access::Read, None).unwrap()
            });
        }
    });
    assert_eq!(list(dir.path()).unwrap().len(), 16);
}

#[tokio::test]
async fn a_running_server_notices_a_revocation_within_five_seconds() {
    let dir = state_dir();
    let text = create(dir.path(), &name("ci"), Access::Read, None).unwrap();
    let tokens = Tokens::open(dir.path()).unwrap();
    let grant = tokens.recognise(&text).unwrap();
    let default = tokens
        .recognise(&state_dir::token(dir.path()).unwrap())
        .unwrap();
    let begin = Instant::now();
    tokio::select! {
        () = tokens.clone().follow(dir.path()) => {}
        () = default.ended() => panic!("the other token was not revoked"),
        () = async {
            // Follow has seen the file once before it changes.
            tokio::task::yield_now().await;
            revoke(dir.path(), &name("ci")).unwrap();
            grant.ended().await;
        } => {}
    }
    assert!(
        begin.elapsed() <= Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert!(tokens.recognise(&text).is_none());
}

#[tokio::test]
async fn files_that_break_while_the_service_runs_open_nothing() {
    let dir = state_dir();
    let text = create(dir.path(), &name("ci"), Access::Read, None).unwrap();
    let tokens = Tokens::open(dir.path()).unwrap();
    let default = state_dir::token(dir.path()).unwrap();
    let grant = tokens.recognise(&text).unwrap();
    std::fs::write(dir.path().join("tokens.json"), "{").unwrap();
    tokens.reload(dir.path());
    grant.ended().await;
    assert!(tokens.recognise(&text).is_none());
    assert!(tokens.recognise(&default).is_some());
    std::fs::write(dir.path().join("token"), "").unwrap();
    tokens.reload(dir.path());
    assert!(tokens.recognise(&default).is_none() && tokens.recognise("").is_none());
    std::fs::remove_file(dir.path().join("token")).unwrap();
    tokens.reload(dir.path());
    assert!(tokens.recognise(&default).is_none() && tokens.recognise("").is_none());
}

#[tokio::test]
async fn a_grant_ends_when_its_token_expires() {
    let dir = state_dir();
    let soon = Timestamp::from_micros(clock::wall().as_micros() + 300_000);
    let text = create(dir.path(), &name("ci"), Access::Read, Some(soon)).unwrap();
    let grant = Tokens::open(dir.path()).unwrap().recognise(&text).unwrap();
    grant.ended().await;
    assert!(clock::wall() >= soon);
}

#[test]
fn names_and_expiries_are_read_strictly() {
    for good in ["a", "7", "ci-2.x_y", &"n".repeat(64)] {
        assert!(good.parse::<TokenName>().is_ok(), "{good}");
    }
    for bad in ["", "-a", ".a", "A", "a b", "ä", "a/b", &"n".repeat(65)] {
        assert!(bad.parse::<TokenName>().is_err(), "{bad}");
    }
    for (text, seconds) in [("90d", 7_776_000), ("1s", 1), ("2m", 120), ("3h", 10_800)] {
        assert_eq!(text.parse::<Expiry>().unwrap().0.as_secs(), seconds);
    }
    for bad in [
        "",
        "d",
        "0s",
        "1",
        "-1d",
        "1w",
        "1.5d",
        "4000d",
        "99999999999999999999d",
        "1dd",
        "é",
    ] {
        assert!(bad.parse::<Expiry>().is_err(), "{bad}");
    }
}
