//! The bodies of requests on sessions of browsers.

use super::fields::{At, Errors, Fields, code};
use super::{Body, FieldError};
use crate::tokens::Access;

/// The most characters of a code or token, and of what a browser calls itself.
const PROOF_MAX: usize = 512;
const BROWSER_MAX: usize = 120;

/// The body of `POST /session`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// A one-time code.
    pub(crate) code: Option<String>,
    /// A token.
    pub(crate) token: Option<String>,
    /// What the browser calls itself.
    pub(crate) browser: String,
}

/// Reads the body of `POST /session/codes`: the scope that is wanted.
pub(crate) fn parse_code(body: &Body) -> Result<Access, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let scope = Fields::of(&at).map(|mut f| {
        let scope = f.or(Access::Operate, "scope", |at| {
            at.choice(&[
                ("read", Access::Read),
                ("operate", Access::Operate),
                ("admin", Access::Admin),
            ])
        });
        f.finish();
        scope
    });
    errors.result(scope)
}

/// Reads the body of `POST /session`.
pub(crate) fn parse_entry(body: &Body) -> Result<Entry, Vec<FieldError>> {
    const ONE: &str = "give exactly one of code and token";
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let entry = Fields::of(&at).map(|mut f| {
        let given = f.optional("code", |at| text(at, PROOF_MAX));
        let token = f.optional("token", |at| text(at, PROOF_MAX));
        match (f.has("code"), f.has("token")) {
            (true, true) => f.refuse("token", code::CONFLICT, ONE),
            (false, false) => f.refuse("code", code::MISSING, ONE),
            (true, false) | (false, true) => {}
        }
        let browser = f.optional("browser", |at| {
            let text = text(at, BROWSER_MAX)?;
            if text.chars().any(char::is_control) {
                return at.refuse(code::INVALID_VALUE, "must have no control characters");
            }
            Some(text)
        });
        f.finish();
        Entry {
            code: given,
            token,
            browser: browser.unwrap_or_default(),
        }
    });
    errors.result(entry)
}

/// Reads the body of `POST /session/tickets`: the path that the ticket is for.
pub(crate) fn parse_ticket(
    body: &Body,
    is_ticketed: impl Fn(&str) -> bool,
) -> Result<String, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let path = Fields::of(&at).and_then(|mut f| {
        let path = f.required("path", |at| {
            let path = text(at, PROOF_MAX)?;
            if !is_ticketed(&path) {
                return at.refuse(
                    code::INVALID_VALUE,
                    "must be the path of live, or of output or attach of a job",
                );
            }
            Some(path)
        });
        f.finish();
        path
    });
    errors.result(path)
}

fn text(at: &At<'_>, most: usize) -> Option<String> {
    let text = at.text()?;
    if text.chars().count() > most {
        return at.refuse(code::TOO_LONG, format!("at most {most} characters"));
    }
    Some(text.to_owned())
}
