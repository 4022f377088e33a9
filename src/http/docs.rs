//! `GET /docs`: the reference of the API, made of `openapi.yaml` by the build.

use std::io::Read;

use axum::response::Response;
use flate2::read::GzDecoder;

use super::problem::ApiError;
use super::web::{guarded, nonce};

static PAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/docs.html.gz"));

/// It has its own style, and nothing else: no script, no picture, no request.
pub(super) async fn show() -> Result<Response, ApiError> {
    let nonce = nonce()?;
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Ok(guarded(page()?.replace("{nonce}", &nonce), policy))
}

fn page() -> Result<String, ApiError> {
    let mut text = String::new();
    GzDecoder::new(PAGE)
        .read_to_string(&mut text)
        .map_err(|error| ApiError::Internal(format!("the page /docs: {error}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_operation_and_field_and_nothing_from_elsewhere() {
        let page = page().unwrap();
        let root: serde_json::Value =
            serde_norway::from_str(super::super::service::OPENAPI).unwrap();
        for (path, methods) in root["paths"].as_object().unwrap() {
            if path == "/" || path.starts_with("/ui") {
                continue;
            }
            for (method, operation) in methods.as_object().unwrap() {
                if let Some(id) = operation["operationId"].as_str() {
                    let heading = format!(
                        "<h3 id=\"{id}\"><a href=\"#{id}\"><code>{} {path}</code>",
                        method.to_uppercase()
                    );
                    assert!(page.contains(&heading), "{heading}");
                }
            }
        }
        for field in ["timeout_seconds", "stop.grace_seconds", "termination.cause"] {
            assert!(page.contains(&format!("<code>{field}</code>")), "{field}");
        }
        // Every link within the page leads somewhere.
        for link in page.split("href=\"#").skip(1) {
            let id = link.split('"').next().unwrap();
            assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
        }
        for word in [
            "src=",
            "<script",
            "http-equiv",
            "@import",
            "url(",
            " style=",
        ] {
            assert!(!page.contains(word), "{word}");
        }
        assert_eq!(page.matches("{nonce}").count(), 1);
        assert!(PAGE.len() < 88 * 1024, "{} bytes", PAGE.len());
    }
}
