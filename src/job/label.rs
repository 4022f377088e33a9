//! The syntax of labels, which is that of Kubernetes: one place for the spec and for selectors.

/// Why a text is not a label key or value; the text says what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Longer than allowed.
    #[error("{0}")]
    TooLong(&'static str),
    /// Empty if it must not be, or with characters that are not allowed.
    #[error("{0}")]
    Malformed(&'static str),
}

/// The longest key name and the longest value.
const NAME_MAX: usize = 63;
/// The longest prefix of a key, as of a DNS name.
const PREFIX_MAX: usize = 253;

/// Is this a label key, `[prefix/]name`?
pub fn check_key(key: &str) -> Result<(), LabelError> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        if prefix.len() > PREFIX_MAX {
            return Err(LabelError::TooLong(
                "the prefix of a label key has at most 253 characters",
            ));
        }
        if !prefix.split('.').all(is_dns_label) {
            return Err(LabelError::Malformed(
                "the prefix of a label key is a DNS name: lower-case letters, digits, '-' and '.'",
            ));
        }
    }
    if name.len() > NAME_MAX {
        return Err(LabelError::TooLong(
            "the name in a label key has at most 63 characters",
        ));
    }
    if !is_word(name) {
        return Err(LabelError::Malformed(
            "a label key is [prefix/]name, the name of letters, digits, '-', '_' and '.', \
             with a letter or digit first and last",
        ));
    }
    Ok(())
}

/// Is this a label value? The empty text is one.
pub fn check_value(value: &str) -> Result<(), LabelError> {
    if value.len() > NAME_MAX {
        return Err(LabelError::TooLong(
            "a label value has at most 63 characters",
        ));
    }
    if !value.is_empty() && !is_word(value) {
        return Err(LabelError::Malformed(
            "a label value is made of letters, digits, '-', '_' and '.', \
             with a letter or digit first and last",
        ));
    }
    Ok(())
}

fn is_word(text: &str) -> bool {
    has_alphanumeric_ends(text)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_dns_label(text: &str) -> bool {
    has_alphanumeric_ends(text)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn has_alphanumeric_ends(text: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    alphanumeric(text.as_bytes().first()) && alphanumeric(text.as_bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_kubernetes() {
        let longest = "a".repeat(63);
        let long_prefix = format!("{}/a", ["a"; 127].join("."));
        for key in ["a", "A.b_c-9", "example.org/team", &longest, &long_prefix] {
            assert_eq!(check_key(key), Ok(()), "{key}");
        }
        for key in [
            "", "/", "a/", "/a", "-a", "a-", "a b", "é", "A.org/x", "a..b/x", "a/b/c", "a=b",
        ] {
            assert!(
                matches!(check_key(key), Err(LabelError::Malformed(_))),
                "{key}"
            );
        }
        for key in ["a".repeat(64), format!("{}/a", "a".repeat(254))] {
            assert!(
                matches!(check_key(&key), Err(LabelError::TooLong(_))),
                "{key}"
            );
        }
    }

    #[test]
    fn values_follow_kubernetes() {
        for value in ["", "a", "9.A_b-c", &"a".repeat(63)] {
            assert_eq!(check_value(value), Ok(()), "{value}");
        }
        for value in ["-", "a.", "a b", "a/b", "é", "\0"] {
            assert!(
                matches!(check_value(value), Err(LabelError::Malformed(_))),
                "{value}"
            );
        }
        assert!(matches!(
            check_value(&"a".repeat(64)),
            Err(LabelError::TooLong(_))
        ));
    }
}
