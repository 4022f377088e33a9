//! Guards against web pages that drive a service on localhost: `Host`, `Origin`, `Sec-Fetch-Site`.
//!
//! They run on every method and every path, before authentication.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::auth::PeerUid;
use crate::api::{Api, AuthMode, Settings};
use crate::headers::{REQUEST_ID, SEC_FETCH_DEST, SEC_FETCH_MODE, SEC_FETCH_SITE};
use crate::problem::ApiError;
use crate::web;

/// The most bytes and headers of a request head.
pub(crate) const HEAD_BYTES: usize = 32 << 10;
/// See above.
pub(crate) const HEAD_FIELDS: usize = 64;

/// Middleware that refuses what a guard refuses.
pub(crate) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let socket = request.extensions().get::<PeerUid>().is_some();
    let chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let leads_in = is_navigation(&request);
    let checked = check_size(&request).and_then(|()| {
        check(
            &api.settings,
            request.version(),
            request.uri(),
            request.headers(),
            socket,
            leads_in,
        )
    });
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if chunked {
        // A `Content-Length` beside it has been dropped unseen, and whoever stands in between may have gone
        // by that: what follows on this connection is not to be trusted (RFC 9112, 6.1).
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// Somebody followed a link to the page, from wherever: it is shown in its own tab and has no data. Frames, scripts
/// and images of other pages say something else here, and so does what is no browser.
fn is_navigation(request: &Request) -> bool {
    let matched = request.extensions().get::<MatchedPath>();
    let headers = request.headers();
    matched.is_some_and(|path| web::PATHS.contains(&path.as_str()))
        && request.method().is_safe()
        && only(headers, &SEC_FETCH_MODE) == Some("navigate")
        && only(headers, &SEC_FETCH_DEST) == Some("document")
}

/// The connection refuses what is far too large, and without a body; this refuses the rest in full.
fn check_size(request: &Request) -> Result<(), ApiError> {
    let (uri, headers) = (request.uri(), request.headers());
    let target = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    // The request's id is ours by now, or a short one of the client.
    let sent = || headers.iter().filter(|(name, _)| **name != REQUEST_ID);
    // A line has a colon, a space and its end.
    let lines = sent().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let bytes = request.method().as_str().len() + target + lines.sum::<usize>();
    if bytes > HEAD_BYTES || sent().count() > HEAD_FIELDS {
        return Err(ApiError::HeadTooLarge);
    }
    Ok(())
}

fn check(
    settings: &Settings,
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
    socket: bool,
    leads_in: bool,
) -> Result<(), ApiError> {
    let host = only(headers, &HOST);
    // RFC 9112, 3.2: whoever stands in between may have gone by another one.
    let is_one = headers.get_all(HOST).iter().count() == 1;
    if !socket && version == Version::HTTP_11 && !is_one {
        return Err(ApiError::InvalidRequest("a request has one header Host"));
    }
    if !socket {
        let host = host.ok_or(ApiError::HostNotAllowed)?;
        let allowed = |name: &str| is_allowed(settings, name);
        // In absolute form the authority of the target counts, and must not contradict the header.
        let target = uri.authority().is_none_or(|authority| {
            allowed(authority.as_str()) && authority.as_str().eq_ignore_ascii_case(host)
        });
        if !(allowed(host) && target) {
            return Err(ApiError::HostNotAllowed);
        }
    }
    if headers.contains_key(ORIGIN) {
        let own = only(headers, &ORIGIN)
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(scheme, authority)| {
                matches!(scheme, "http" | "https")
                    && host.is_some_and(|host| authority.eq_ignore_ascii_case(host))
            });
        if !own {
            return Err(ApiError::OriginNotAllowed);
        }
    }
    let foreign = headers.get_all(SEC_FETCH_SITE).iter().any(|site| {
        let site = site.as_bytes();
        site.eq_ignore_ascii_case(b"cross-site") || site.eq_ignore_ascii_case(b"same-site")
    });
    if foreign && !leads_in {
        return Err(ApiError::OriginNotAllowed);
    }
    // Any web page can send a form, and where nobody is asked who they are, nothing else tells the two apart.
    if !socket && matches!(settings.auth, AuthMode::None) && is_form(headers) {
        return Err(ApiError::UnsupportedMediaType("application/json"));
    }
    Ok(())
}

fn is_form(headers: &HeaderMap) -> bool {
    const KIND: &[u8] = b"multipart/";
    headers.get_all(CONTENT_TYPE).iter().any(|kind| {
        let kind = kind.as_bytes().trim_ascii_start();
        kind.get(..KIND.len())
            .is_some_and(|kind| kind.eq_ignore_ascii_case(KIND))
    })
}

/// The value of a header that comes once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        (None | Some(_), _) => None,
    }
}

fn is_allowed(settings: &Settings, host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    // `Authority` takes any text for a port.
    let port = authority.as_str().strip_prefix(authority.host());
    let is_port = port.is_some_and(|port| {
        let digits = port.strip_prefix(':').unwrap_or(port);
        digits.is_empty()
            || digits.bytes().all(|digit| digit.is_ascii_digit()) && digits.parse::<u16>().is_ok()
    });
    if !is_port {
        return false;
    }
    let name = authority.host().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let bare = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(Into::into),
        None => name.parse::<Ipv4Addr>().ok().map(std::net::IpAddr::V4),
    };
    let loopback_name = name == "localhost" || name.ends_with(".localhost");
    match settings.auth {
        // Without a token, nothing but the place of the client protects the service.
        AuthMode::None => loopback_name || address.is_some_and(|address| address.is_loopback()),
        AuthMode::Token { .. } => {
            loopback_name
                || address.is_some()
                || settings
                    .allowed_hosts
                    .iter()
                    .any(|allowed| allowed.eq_ignore_ascii_case(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::tests::{open_settings, settings};

    fn verdict(settings: &Settings, uri: &str, headers: &[(&str, &str)]) -> Result<(), u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        let uri = uri.parse().unwrap();
        check(settings, Version::HTTP_11, &uri, &map, false, false)
            .map_err(|error| error.status().as_u16())
    }

    #[test]
    fn a_head_is_measured_below_at_and_above_its_limits() {
        let with = |name_bytes: usize, fields: usize| {
            let mut request = Request::get("/a?b").body(Body::empty()).unwrap();
            for _ in 0..fields {
                request.headers_mut().append("x", "".parse().unwrap());
            }
            let filler = "f".repeat(name_bytes).parse().unwrap();
            request.headers_mut().append("filler", filler);
            check_size(&request).is_ok()
        };
        // "GET" + "/a?b" + "filler" + 4
        let rest = 3 + 4 + 6 + 4;
        assert!(with(HEAD_BYTES - rest - 1, 0) && with(HEAD_BYTES - rest, 0));
        assert!(!with(HEAD_BYTES - rest + 1, 0));
        assert!(with(0, HEAD_FIELDS - 2) && with(0, HEAD_FIELDS - 1));
        assert!(!with(0, HEAD_FIELDS));
    }

    #[test]
    fn hosts_are_loopback_names_addresses_and_those_allowed() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "a.localhost",
            "127.0.0.1:8080",
            "[::1]:8080",
            "10.1.2.3",
            "jobs.example",
            "Jobs.Example:443",
        ] {
            assert_eq!(
                verdict(&settings(), "/", &[("host", host)]),
                Ok(()),
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "a@localhost",
            "",
            "jobs.example.evil",
            "::1",
            "localhost:x",
            "localhost:+1",
            "localhost:65536",
            "[::1]:x",
        ] {
            assert_eq!(
                verdict(&settings(), "/", &[("host", host)]),
                Err(421),
                "{host}"
            );
        }
        assert_eq!(verdict(&settings(), "/", &[]), Err(400));
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(verdict(&settings(), "/", &twice), Err(400));
        let old = check(
            &settings(),
            Version::HTTP_10,
            &"/".parse().unwrap(),
            &HeaderMap::new(),
            false,
            false,
        );
        assert_eq!(old.unwrap_err().status(), 421);
    }

    #[test]
    fn the_target_of_an_absolute_form_counts_too() {
        let host = [("host", "localhost")];
        assert_eq!(verdict(&settings(), "http://localhost/jobs", &host), Ok(()));
        assert_eq!(
            verdict(&settings(), "http://evil.example/jobs", &host),
            Err(421)
        );
        assert_eq!(
            verdict(&settings(), "http://127.0.0.1/jobs", &host),
            Err(421)
        );
    }

    #[test]
    fn without_a_token_only_loopback_is_allowed() {
        for (host, expected) in [
            ("localhost:1", Ok(())),
            ("127.8.8.8", Ok(())),
            ("[::1]", Ok(())),
            ("10.1.2.3", Err(421)),
            ("jobs.example", Err(421)),
        ] {
            assert_eq!(
                verdict(&open_settings(), "/", &[("host", host)]),
                expected,
                "{host}"
            );
        }
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let with = |name, value| {
            verdict(
                &settings(),
                "/",
                &[("host", "localhost:8080"), (name, value)],
            )
        };
        assert_eq!(with("origin", "http://localhost:8080"), Ok(()));
        assert_eq!(with("origin", "https://LOCALHOST:8080"), Ok(()));
        for origin in [
            "null",
            "http://localhost",
            "http://evil.example",
            "file://localhost:8080",
            "http://localhost:8080.evil.example",
            "",
        ] {
            assert_eq!(with("origin", origin), Err(403), "{origin}");
        }
        assert_eq!(with("sec-fetch-site", "same-origin"), Ok(()));
        assert_eq!(with("sec-fetch-site", "none"), Ok(()));
        assert_eq!(with("sec-fetch-site", "cross-site"), Err(403));
        assert_eq!(with("sec-fetch-site", "same-site"), Err(403));
    }
}
