//! A gst-launch line with its values in place: as text for GStreamer, and as a command for a shell.

use std::path::{Path, PathBuf};

use super::escape;
use super::secrets;
use super::shell;
use crate::plan::Secret;

/// One pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Kept apart as in the template, for reading.
    pub(super) lines: Vec<Vec<Word>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// As it stands in the template.
    Plain(String),
    Property {
        name: String,
        value: Value,
    },
}

/// The value of a property: what is written, and what is only referred to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Plain(String),
    /// Of an environment variable. It is not written anywhere but into the text for GStreamer.
    Env {
        name: String,
        default: Option<String>,
        value: Option<Secret>,
    },
    /// The first line of a file.
    File {
        path: PathBuf,
        value: Option<Secret>,
    },
}

impl Line {
    /// The text that `gst::parse::launch` takes. A reference that could not be resolved counts as empty.
    pub fn text(&self) -> Secret {
        let words = self.lines.iter().flatten().map(|word| match word {
            Word::Plain(text) => text.clone(),
            Word::Property { name, value } => {
                format!("{name}={}", escape::escape(value.reveal().reveal()))
            }
        });
        Secret::new(words.collect::<Vec<_>>().join(" "))
    }

    /// The command that runs it, one line of the template a line. References stay references.
    pub fn command(&self) -> String {
        let mut command = String::from("gst-launch-1.0 -e");
        for line in self.lines.iter().filter(|line| !line.is_empty()) {
            let words: Vec<_> = line.iter().map(Word::argument).collect();
            command.push_str(" \\\n  ");
            command.push_str(&words.join(" "));
        }
        command
    }
}

impl Line {
    /// The text of a template that renders this. What is referred to, looks like a secret or would be taken for a parameter
    /// becomes one: `parameter` is told the property and its value, and gives the parameter's name.
    pub fn template(
        &self,
        mut parameter: impl FnMut(&str, &Value) -> String,
    ) -> Result<String, String> {
        let mut text = String::new();
        for word in self.lines.iter().flatten() {
            let written = match word {
                Word::Property { name, .. } if name.is_empty() => {
                    return Err(
                        "a variable stands only in the value of a property: name=\"$VARIABLE\""
                            .to_owned(),
                    );
                }
                Word::Property { name, value } => format!("{name}=${{{}}}", parameter(name, value)),
                Word::Plain(text) => match text
                    .split_once('=')
                    .map(|(name, value)| (name, escape::unescape(value)))
                {
                    Some((name, value))
                        if value.contains("${") || secrets::is_secret(name, &value) =>
                    {
                        format!("{name}=${{{}}}", parameter(name, &Value::from(value)))
                    }
                    _ if text.contains("${") => {
                        return Err(format!("`{text}` cannot stand in a template"));
                    }
                    _ if text.starts_with('#') => format!("\\{text}"),
                    _ => text.clone(),
                },
            };
            let separator = if text.is_empty() {
                ""
            } else if written == "!" {
                "\n  "
            } else {
                " "
            };
            text.push_str(separator);
            text.push_str(&written);
        }
        if text.is_empty() {
            Err("there is no pipeline in it".to_owned())
        } else {
            Ok(text)
        }
    }
}

impl Word {
    fn argument(&self) -> String {
        match self {
            Self::Plain(text) => match text.split_once('=') {
                // A template may hold a secret; what is printed may not.
                Some((name, value)) if secrets::is_secret(name, &escape::unescape(value)) => {
                    format!("{name}=\"${}\"", secrets::variable("launch", name))
                }
                _ => shell::quote(&escape::to_argument(text)),
            },
            Self::Property { name, value } => match value.plain() {
                Some(text) => shell::quote(&escape::to_argument(&format!(
                    "{name}={}",
                    escape::escape(&text)
                ))),
                None => {
                    let pieces = value.0.iter().map(Piece::argument).collect::<String>();
                    format!("{name}={pieces}")
                }
            },
        }
    }
}

impl Value {
    pub fn new(pieces: Vec<Piece>) -> Self {
        Self(pieces)
    }

    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// The value if nothing in it is a reference.
    pub fn plain(&self) -> Option<String> {
        self.0
            .iter()
            .map(|piece| {
                if let Piece::Plain(text) = piece {
                    Some(text.as_str())
                } else {
                    None
                }
            })
            .collect()
    }

    pub fn reveal(&self) -> Secret {
        Secret::new(self.0.iter().map(Piece::reveal).collect::<String>())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(vec![Piece::Plain(text)])
    }
}

impl From<&Path> for Value {
    fn from(path: &Path) -> Self {
        path.to_string_lossy().into_owned().into()
    }
}

impl Piece {
    fn reveal(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Env { value, default, .. } => value
                .as_ref()
                .map(Secret::reveal)
                .or(default.as_deref())
                .unwrap_or_default(),
            Self::File { value, .. } => value.as_ref().map(Secret::reveal).unwrap_or_default(),
        }
    }

    /// Part of an argument: a shell expands the reference, so that it stands in no history and no terminal.
    fn argument(&self) -> String {
        match self {
            Self::Plain(text) => shell::quote(&escape::to_argument(&escape::escape_word(text))),
            Self::Env {
                name,
                default: None,
                ..
            } => format!("\"${name}\""),
            Self::Env {
                name,
                default: Some(default),
                ..
            } => {
                format!(
                    "\"${{{name}:-{}}}\"",
                    shell::escape_in_double_quotes(default)
                )
            }
            Self::File { path, .. } => {
                format!("\"$(cat {})\"", shell::quote(&path.to_string_lossy()))
            }
        }
    }
}
