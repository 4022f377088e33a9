//! The page for people: a shell without data, and the files that it is made of.
//!
//! Whatever the page shows it fetches like any other client, with its session. So the shell may be shown to anybody
//! who follows a link to it, and holds nothing.

use std::io::Read;

use axum::extract::{MatchedPath, Path};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    LOCATION, REFERRER_POLICY, VARY, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use flate2::read::GzDecoder;

use super::problem::ApiError;

/// One file of the page, compressed.
struct Asset {
    name: &'static str,
    packed: &'static [u8],
}

static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));
static SHELL: &str = include_str!(concat!(env!("OUT_DIR"), "/index.html"));

/// The paths that answer the shell, or lead to it.
pub(super) const PATHS: &[&str] = &[
    "/",
    "/ui",
    "/ui/",
    "/ui/jobs",
    "/ui/jobs/{job}",
    "/ui/run",
    "/ui/batches",
    "/ui/batches/{batch}",
    "/ui/queues",
    "/ui/schedules",
    "/ui/schedules/{schedule}",
    "/ui/nodes",
    "/ui/events",
    "/ui/access",
    "/ui/checkup",
    "/ui/settings",
    "/ui/signin",
];

const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const PERMISSIONS: HeaderName = HeaderName::from_static("permissions-policy");

/// Everything that a page can be given, but writing to the clipboard.
const PERMISSIONS_VALUE: &str = "accelerometer=(), autoplay=(), camera=(), clipboard-read=(), clipboard-write=(self), \
    display-capture=(), encrypted-media=(), fullscreen=(), geolocation=(), gyroscope=(), hid=(), \
    identity-credentials-get=(), idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), \
    picture-in-picture=(), publickey-credentials-create=(), publickey-credentials-get=(), screen-wake-lock=(), \
    serial=(), storage-access=(), usb=(), window-management=(), xr-spatial-tracking=()";

/// `GET /` and `GET /ui`: a relative address, so that a prefix that a proxy strips stays.
pub(super) async fn lead() -> Response {
    (StatusCode::FOUND, [(LOCATION, "ui/")]).into_response()
}

/// The shell. Its base is counted from the route's depth, so that no header of a proxy has to be believed.
pub(super) async fn shell(path: MatchedPath) -> Result<Response, ApiError> {
    let base = if path.as_str().ends_with('}') {
        "../"
    } else {
        "./"
    };
    let nonce = nonce()?;
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self'; connect-src 'self'; \
         base-uri 'self'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'"
    );
    let body = SHELL.replace("{base}", base).replace("{nonce}", &nonce);
    Ok(guarded(body, policy))
}

pub(super) fn nonce() -> Result<String, ApiError> {
    let mut random = [0; 18];
    getrandom::fill(&mut random).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(STANDARD_NO_PAD.encode(random))
}

/// A page that is in nobody's frame and has nothing but what its policy allows.
pub(super) fn guarded(body: String, policy: String) -> Response {
    let mut response = ([(CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response();
    let headers = response.headers_mut();
    let policy = HeaderValue::try_from(policy).expect("base64 and fixed words");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (OPENER, "same-origin"),
        (RESOURCE, "same-origin"),
        (PERMISSIONS, PERMISSIONS_VALUE),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// `GET /ui/assets/{name}`
pub(super) async fn asset(
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    let asset = asset.ok_or(ApiError::NotFound)?;
    let mut response = unpacked(asset.packed, &headers)?;
    // A name with a hash in it stands for these bytes for ever.
    let kept = if asset.name.contains('-') {
        "public, max-age=31536000, immutable"
    } else {
        "public, max-age=3600"
    };
    for (name, value) in [
        (CONTENT_TYPE, kind_of(asset.name)),
        (CACHE_CONTROL, kept),
        (RESOURCE, "same-origin"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// What the program holds compressed: as it is to clients that take that.
pub(super) fn unpacked(packed: &'static [u8], headers: &HeaderMap) -> Result<Response, ApiError> {
    let mut response = if takes_gzip(headers) {
        ([(CONTENT_ENCODING, "gzip")], packed).into_response()
    } else {
        let mut plain = Vec::new();
        GzDecoder::new(packed)
            .read_to_end(&mut plain)
            .map_err(|error| ApiError::Internal(format!("a file in the program: {error}")))?;
        plain.into_response()
    };
    let varies = HeaderValue::from_static("Accept-Encoding");
    response.headers_mut().insert(VARY, varies);
    Ok(response)
}

fn kind_of(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// Every browser does. `gzip;q=0` is a refusal.
fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|item| {
            let (coding, quality) = item.split_once(';').unwrap_or((item, "q=1"));
            let refused = matches!(quality.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
            coding
                .trim()
                .eq_ignore_ascii_case("gzip")
                .then_some(!refused)
        })
        .any(|taken| taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_shell_names_what_is_there() {
        let named: BTreeSet<&str> = SHELL
            .split("assets/")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(named.len() >= 3, "{named:?}");
        let there: BTreeSet<&str> = ASSETS.iter().map(|asset| asset.name).collect();
        assert!(named.is_subset(&there), "{named:?} {there:?}");
        assert_eq!(there.len(), ASSETS.len());
        assert!(there.contains("LICENSES.txt"));
        for marker in ["{base}", "{nonce}"] {
            assert_eq!(SHELL.matches(marker).count(), 1, "{marker}");
        }
    }

    #[test]
    fn nothing_of_the_page_is_fetched_from_elsewhere() {
        for asset in ASSETS {
            let mut text = String::new();
            GzDecoder::new(asset.packed)
                .read_to_string(&mut text)
                .unwrap();
            for word in [
                "url(http",
                "url(//",
                "@import \"http",
                "from\"http",
                "import(\"http",
            ] {
                assert!(!text.contains(word), "{} has {word}", asset.name);
            }
        }
        assert!(!SHELL.contains("http:") && !SHELL.contains("https:"));
    }

    #[test]
    fn gzip_is_taken_by_whoever_says_so() {
        let takes = |value: &'static str| {
            takes_gzip(&HeaderMap::from_iter([(
                ACCEPT_ENCODING,
                value.parse().unwrap(),
            )]))
        };
        assert!(takes("gzip, deflate, br") && takes("br;q=1, GZIP;q=0.5"));
        assert!(!takes("br") && !takes("gzip;q=0") && !takes("") && !takes_gzip(&HeaderMap::new()));
    }
}
