//! Subjects: `<prefix>.<source>.event.<kind>` and `<prefix>.<source>.<kind>`. Every part is checked when it is made, so no name can bring in a dot or a wildcard.

use std::fmt;

use crate::kinds::{Kind, Place};

/// Longest source name, and longest token of a prefix, in bytes.
pub const MAX_TOKEN_BYTES: usize = 64;
/// Most tokens in a prefix.
pub const MAX_PREFIX_TOKENS: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    #[error("{what} is empty; give it a name of letters, digits, '-' and '_'")]
    Empty { what: &'static str },
    #[error(
        "{what} has {found:?}, which may not stand in a subject; use letters, digits, '-' and '_'"
    )]
    Character { what: &'static str, found: char },
    #[error("{what} is {bytes} bytes long; at most {MAX_TOKEN_BYTES} are allowed")]
    TooLong { what: &'static str, bytes: usize },
    #[error("the prefix has {tokens} parts; at most {MAX_PREFIX_TOKENS} are allowed")]
    TooManyTokens { tokens: usize },
}

fn check_token(what: &'static str, token: &str) -> Result<(), SubjectError> {
    if token.is_empty() {
        return Err(SubjectError::Empty { what });
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(SubjectError::TooLong {
            what,
            bytes: token.len(),
        });
    }
    match token
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
    {
        Some(found) => Err(SubjectError::Character { what, found }),
        None => Ok(()),
    }
}

/// A source's name: one subject token of letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(String);

impl SourceName {
    pub fn new(name: impl Into<String>) -> Result<Self, SubjectError> {
        let name = name.into();
        check_token("the source name", &name)?;
        Ok(Self(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What every subject of a deployment starts with: one or more tokens, `vita` if nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prefix(String);

impl Prefix {
    pub fn new(prefix: impl Into<String>) -> Result<Self, SubjectError> {
        let prefix = prefix.into();
        let tokens = prefix.split('.').count();
        if tokens > MAX_PREFIX_TOKENS {
            return Err(SubjectError::TooManyTokens { tokens });
        }
        for token in prefix.split('.') {
            check_token("the prefix", token)?;
        }
        Ok(Self(prefix))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where messages of this kind and source go.
    pub fn subject(&self, source: &SourceName, kind: Kind) -> String {
        format!("{}.{}", self.0, place(source, kind))
    }

    /// What a JetStream stream has to listen to for all durable messages.
    pub fn durable_subjects(&self) -> Vec<String> {
        let events = format!("{}.*.event.>", self.0);
        let kept = Kind::ALL.iter().filter(|kind| kind.place() == Place::Kept);
        std::iter::once(events)
            .chain(kept.map(|kind| format!("{}.*.{}", self.0, kind.name())))
            .collect()
    }

    /// Source and kind of a subject under this prefix. `None`: not under it, or of a kind that this version does not know.
    pub fn parse(&self, subject: &str) -> Option<(SourceName, Kind)> {
        let rest = subject.strip_prefix(&self.0)?.strip_prefix('.')?;
        let (source, rest) = rest.split_once('.')?;
        let (is_event, name) = match rest.strip_prefix("event.") {
            Some(name) => (true, name),
            None => (false, rest),
        };
        let kind =
            Kind::from_name(name).filter(|kind| (kind.place() == Place::Event) == is_event)?;
        Some((SourceName::new(source).ok()?, kind))
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("vita".into())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The subject below the prefix.
pub(crate) fn place(source: &SourceName, kind: Kind) -> String {
    match kind.place() {
        Place::Event => format!("{source}.event.{}", kind.name()),
        Place::Kept | Place::Live => format!("{source}.{}", kind.name()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn builds_the_documented_subjects() {
        let (prefix, door) = (Prefix::default(), SourceName::new("front-door").unwrap());
        assert_eq!(
            prefix.subject(&door, Kind::Speech),
            "vita.front-door.event.speech"
        );
        assert_eq!(prefix.subject(&door, Kind::Frame), "vita.front-door.frame");
        assert_eq!(
            prefix.subject(&door, Kind::Answer),
            "vita.front-door.answer"
        );
        assert_eq!(
            prefix.durable_subjects(),
            ["vita.*.event.>", "vita.*.answer"]
        );
        let site = Prefix::new("acme.site-1").unwrap();
        assert_eq!(
            site.subject(&door, Kind::Source),
            "acme.site-1.front-door.event.source"
        );
    }

    #[test]
    fn names_cannot_bring_in_wildcards() {
        for name in ["*", ">", "a.b", "a b", "a\r\nPUB", "ä", "", "$SYS", "\u{0}"] {
            assert!(SourceName::new(name).is_err(), "{name:?}");
            assert!(Prefix::new(format!("vita.{name}.")).is_err(), "{name:?}");
        }
        assert_eq!(
            SourceName::new("door*").unwrap_err().to_string(),
            "the source name has '*', which may not stand in a subject; use letters, digits, '-' and '_'"
        );
        assert!(SourceName::new("x".repeat(MAX_TOKEN_BYTES + 1)).is_err());
    }

    #[test]
    fn other_subjects_are_not_taken_for_ours() {
        let prefix = Prefix::default();
        for subject in [
            "vita.door",
            "vita.door.event.frame",
            "vita.door.speech",
            "vitamin.door.event.speech",
            "vita..frame",
        ] {
            assert_eq!(prefix.parse(subject), None, "{subject}");
        }
    }

    proptest! {
        #[test]
        fn every_subject_is_parsed_back(source in "[A-Za-z0-9_-]{1,64}", prefix in "[a-z]{1,9}(\\.[a-z]{1,9}){0,3}", index in 0..Kind::ALL.len()) {
            let (source, prefix, kind) = (SourceName::new(source).unwrap(), Prefix::new(prefix).unwrap(), Kind::ALL[index]);
            let subject = prefix.subject(&source, kind);
            prop_assert_eq!(prefix.parse(&subject), Some((source, kind)));
        }

        #[test]
        fn no_subject_makes_parsing_panic(subject in ".*") {
            let _ = Prefix::default().parse(&subject);
        }
    }
}
