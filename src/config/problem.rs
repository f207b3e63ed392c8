//! What is wrong with a config: everything, each with its place and its remedy.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One thing that is wrong. No field ever holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    pub kind: Kind,
    pub file: PathBuf,
    /// From 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Such as `source[0].vad.threshold`. Empty: the file as a whole.
    pub key: String,
    pub what: String,
    pub remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The deployment cannot run as it is written.
    Error,
    Warning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The config cannot be read.
    Unreadable,
    /// Not TOML.
    Syntax,
    UnknownKey,
    MissingKey,
    WrongType,
    /// A word or number that is not among those allowed.
    OutOfRange,
    /// Two keys that contradict each other, or a key that has no effect where it stands.
    Conflict,
    DuplicateName,
    BadName,
    /// A variable that is not set.
    MissingVariable,
    MissingFile,
    /// A secret in plain text.
    PlainSecret,
    /// A template that does not parse, or lacks a value.
    Template,
    /// GStreamer does not take the pipeline.
    Pipeline,
    /// An element that this installation of GStreamer does not have.
    MissingElement,
    /// The broker does not answer as it should.
    Broker,
    /// The camera does not answer as it should.
    Camera,
    /// A model that is not there, or cannot be loaded.
    Model,
}

impl Problem {
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Two lines: where and what, then what to do.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}\n  {}", self.what, self.remedy)
    }
}

/// Collects problems of one file, and knows on which line a key stands.
pub struct Problems<'a> {
    file: &'a Path,
    lines: std::collections::HashMap<String, usize>,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub fn new(file: &'a Path) -> Self {
        Self {
            file,
            lines: Default::default(),
            found: Vec::new(),
        }
    }

    pub fn key_stands_at(&mut self, key: &str, line: usize) {
        self.lines.insert(key.to_owned(), line);
    }

    pub fn error(
        &mut self,
        kind: Kind,
        key: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(
            Severity::Error,
            kind,
            self.line_of(key),
            key,
            what.into(),
            remedy.into(),
        );
    }

    pub fn warning(
        &mut self,
        kind: Kind,
        key: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(
            Severity::Warning,
            kind,
            self.line_of(key),
            key,
            what.into(),
            remedy.into(),
        );
    }

    pub fn error_at(
        &mut self,
        kind: Kind,
        line: Option<usize>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(Severity::Error, kind, line, "", what.into(), remedy.into());
    }

    pub fn has_errors(&self) -> bool {
        self.found.iter().any(Problem::is_error)
    }

    /// All problems, by line.
    pub fn finish(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| problem.line);
        self.found
    }

    /// The line of the key, or of the nearest table around it that is written.
    fn line_of(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(line) = self.lines.get(key) {
                return Some(*line);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }

    fn push(
        &mut self,
        severity: Severity,
        kind: Kind,
        line: Option<usize>,
        key: &str,
        what: String,
        remedy: String,
    ) {
        let file = self.file.to_owned();
        self.found.push(Problem {
            severity,
            kind,
            file,
            line,
            key: key.to_owned(),
            what,
            remedy,
        });
    }
}
