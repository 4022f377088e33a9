//! Where the service is, and which token it gets.
//!
//! The one rule that matters: the token of this machine's service is sent to this machine only.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::failure::Failure;

/// How the service is reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Over the socket in this state directory; the service knows the user on the other end.
    Socket(PathBuf),
    /// Over TCP, with a token.
    Url(Url),
}

/// Where a token may come from besides the state directory.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) variable: Option<String>,
    pub(super) file: Option<&'a Path>,
}

/// A given address wins over the state directory.
pub(super) fn find(url: Option<&str>, state_dir: Option<&Path>) -> Result<Target, Failure> {
    match (url, state_dir) {
        (Some(text), _) => parse(text).map(Target::Url),
        (None, Some(state_dir)) => Ok(Target::Socket(state_dir.to_owned())),
        (None, None) => Err(Failure::Usage(
            "no state directory: give --state-dir or --url, or set HOME".to_owned(),
        )),
    }
}

fn parse(text: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| Failure::Usage(format!("the address {text:?} {why}"));
    let url = Url::parse(text)
        .map_err(|_| wrong("is not a URL: write http://HOST:PORT or https://HOST:PORT"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("must start with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "contains a user name or password; pass a token with PROCESSION_TOKEN or --token-file",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must have neither a query nor a fragment"));
    }
    Ok(url)
}

/// Does this address lead to this machine?
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// The value of `Authorization`: from the file that was named, the variable, or, on this machine, the
/// state directory.
pub(super) fn token(
    given: &Given<'_>,
    url: &Url,
    state_dir: Option<&Path>,
) -> Result<Option<HeaderValue>, Failure> {
    let text = if let Some(path) = given.file {
        let text = fs::read_to_string(path);
        Some(text.map_err(|error| {
            Failure::Local(format!(
                "cannot read the token in {}: {error}",
                path.display()
            ))
        })?)
    } else if let Some(text) = given.variable.clone() {
        Some(text)
    } else if let (true, Some(state_dir)) = (is_loopback(url), state_dir) {
        // Whoever may not read it, or a service without tokens: the service will say.
        fs::read_to_string(state_dir.join("token")).ok()
    } else {
        None
    };
    let Some(text) = text else {
        return Ok(None);
    };
    let mut value = HeaderValue::try_from(format!("Bearer {}", text.trim())).map_err(|_| {
        Failure::Usage("the token has characters that no token may have".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        parse(text).unwrap()
    }

    #[test]
    fn a_given_address_wins_over_the_state_directory() {
        let dir = Path::new("/d");
        assert_eq!(
            find(None, Some(dir)).unwrap(),
            Target::Socket(dir.to_owned())
        );
        assert_eq!(
            find(Some("http://h:1"), Some(dir)).unwrap(),
            Target::Url(url("http://h:1"))
        );
        assert!(matches!(find(None, None), Err(Failure::Usage(_))));
    }

    #[test]
    fn an_address_is_http_without_secrets_in_it() {
        for text in [
            "",
            "h:1",
            "ftp://h",
            "http://",
            "http://u@h",
            "http://u:p@h",
            "http://h/?a",
            "http://h/#a",
        ] {
            assert!(matches!(parse(text), Err(Failure::Usage(_))), "{text:?}");
        }
        assert_eq!(url("https://h/base/").path(), "/base/");
    }

    #[test]
    fn only_this_machine_is_sent_the_token_of_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token"), "secret\n").unwrap();
        let none = Given {
            variable: None,
            file: None,
        };
        let sent = |text: &str| {
            let value = token(&none, &url(text), Some(dir.path())).unwrap();
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        for local in [
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost",
            "https://127.9.9.9",
        ] {
            assert_eq!(sent(local).as_deref(), Some("Bearer secret"), "{local}");
        }
        for foreign in [
            "http://192.0.2.1",
            "http://localhost.example.org",
            "http://h",
            "http://[2001:db8::1]",
        ] {
            assert_eq!(sent(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_given_token_goes_where_it_was_given_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), " from-file\n").unwrap();
        let mut given = Given {
            variable: Some("from-variable".to_owned()),
            file: Some(file.path()),
        };
        let address = url("http://h");
        let value = |given: &Given<'_>| token(given, &address, None).unwrap().unwrap();
        assert_eq!(value(&given), "Bearer from-file");
        given.file = None;
        assert_eq!(value(&given), "Bearer from-variable");
        given.variable = Some("a\nb".to_owned());
        assert!(token(&given, &address, None).is_err());
    }
}
