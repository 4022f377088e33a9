//! The body of `POST /tokens`.

use std::time::Duration;

use super::fields::{At, Errors, Fields, code, seconds};
use super::{Body, FieldError};
use crate::tokens::{Access, TokenName};

/// The longest that a token lasts, other than for ever.
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A token that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewToken {
    /// Who it is for.
    pub(crate) name: TokenName,
    /// What its holder may do.
    pub(crate) scope: Access,
    /// How long it lasts; for ever without it.
    pub(crate) expires: Option<Duration>,
}

/// Reads the body.
pub(crate) fn parse_token(body: &Body) -> Result<NewToken, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let token = Fields::of(&at).and_then(|mut f| {
        let name = f.required("name", |at| match at.text()?.parse() {
            Ok(name) => Some(name),
            Err(why) => at.refuse::<TokenName>(code::INVALID_VALUE, why),
        });
        let scopes = Access::SCOPES.map(|scope| (scope.as_str(), scope));
        let scope = f.required("scope", |at| at.choice(&scopes));
        let expires = f.optional(
            "expires_in_seconds",
            seconds(Duration::from_secs(1)..=TEN_YEARS),
        );
        f.finish();
        Some(NewToken {
            name: name?,
            scope: scope?,
            expires,
        })
    });
    errors.result(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::parse_body;

    fn read(text: &str) -> Result<NewToken, Vec<String>> {
        let body = parse_body(text.as_bytes()).unwrap();
        let told = |errors: Vec<FieldError>| errors.into_iter().map(|e| e.pointer).collect();
        parse_token(&body).map_err(told)
    }

    #[test]
    fn a_token_has_a_name_a_scope_and_perhaps_an_end() {
        let token =
            read(r#"{"name": "ci", "scope": "operate", "expires_in_seconds": 60}"#).unwrap();
        assert_eq!(
            (token.name.to_string().as_str(), token.scope),
            ("ci", Access::Operate)
        );
        assert_eq!(token.expires, Some(Duration::from_secs(60)));
        let token = read(r#"{"name": "ci", "scope": "read", "expires_in_seconds": null}"#).unwrap();
        assert_eq!(token.expires, None);
    }

    #[test]
    fn what_is_wrong_is_told_where_it_is() {
        assert_eq!(read("{}").unwrap_err(), ["/name", "/scope"]);
        assert_eq!(
            read(r#"{"name": "A b", "scope": "public", "expires_in_seconds": 0, "x": 1}"#)
                .unwrap_err(),
            ["/name", "/scope", "/expires_in_seconds", "/x"]
        );
    }
}
