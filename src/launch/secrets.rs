//! What looks like a secret where it should not stand.

/// Whether the value of this property or parameter is likely to be a secret: a password by its name, or a URI with one inside.
pub fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let parts: Vec<_> = name.split(['-', '_', '.']).collect();
    let telling = ["password", "passwd", "pw", "passphrase", "secret", "token"];
    (!value.is_empty() && parts.iter().any(|part| telling.contains(part))) || has_password(value)
}

/// Whether the text is a URI with a password: `scheme://user:password@host`.
pub fn has_password(text: &str) -> bool {
    let authority = text
        .split_once("://")
        .map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(rest));
    authority
        .and_then(|authority| authority.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':'))
}

/// The variable to keep it in: `VITA_FRONT_DOOR_PASSWORD`.
pub fn variable(owner: &str, key: &str) -> String {
    let clean = |text: &str| {
        text.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
            .to_ascii_uppercase()
    };
    format!("VITA_{}_{}", clean(owner), clean(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_name_or_by_uri() {
        assert!(is_secret("user-pw", "x") && is_secret("vault_token", "x"));
        assert!(is_secret("location", "rtsp://admin:12345@10.0.0.7/stream"));
        assert!(is_secret("location", "rtsp://admin:p@ss@10.0.0.7/stream"));
        assert!(!is_secret("location", "rtsp://admin@10.0.0.7/a:b@c"));
        assert!(!is_secret("pattern", "ball") && !is_secret("user-pw", ""));
    }

    #[test]
    fn a_variable_is_named_for_its_source() {
        assert_eq!(
            variable("front-door", "password"),
            "VITA_FRONT_DOOR_PASSWORD"
        );
    }
}
