//! Text that may refer to the environment or to a file, so that secrets need not stand in the config.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::launch::{Piece, Value, shell};
use crate::plan::Secret;

/// `"text"`, `"… ${env:NAME} …"`, `"… ${env:NAME:default} …"` or `{ file = "path" }`.
#[derive(Clone, PartialEq, Eq)]
pub enum Text {
    Pieces(Vec<TextPiece>),
    /// The content of a file, without the line end at its end.
    File(PathBuf),
}

#[derive(Clone, PartialEq, Eq)]
pub enum TextPiece {
    Plain(String),
    Env {
        name: String,
        default: Option<String>,
    },
}

/// Why a reference gives no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    Env { name: String },
    File { path: PathBuf, error: String },
}

impl Text {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${env:") {
            let (inside, after) = after
                .split_once('}')
                .ok_or("`${env:` lacks its closing `}`")?;
            let (name, default) = match inside.split_once(':') {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (inside, None),
            };
            if !shell::is_variable(name) {
                return Err("the name in `${env:NAME}` must be letters, digits and `_`".to_owned());
            }
            if !before.is_empty() {
                pieces.push(TextPiece::Plain(before.to_owned()));
            }
            pieces.push(TextPiece::Env {
                name: name.to_owned(),
                default,
            });
            rest = after;
        }
        if !rest.is_empty() || pieces.is_empty() {
            pieces.push(TextPiece::Plain(rest.to_owned()));
        }
        Ok(Self::Pieces(pieces))
    }

    /// Whether all of it stands in the config.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Pieces(pieces) if pieces.iter().all(|piece| matches!(piece, TextPiece::Plain(_))))
    }

    /// Looks the references up. What cannot be had is told to `unresolved`, and stays without a value.
    pub fn resolve(
        &self,
        base: &Path,
        env: &dyn Fn(&str) -> Option<String>,
        mut unresolved: impl FnMut(Unresolved),
    ) -> Value {
        let pieces = match self {
            Self::Pieces(pieces) => pieces,
            Self::File(path) => {
                let path = base.join(path);
                let value = std::fs::read_to_string(&path)
                    .map(|text| Secret::new(text.trim_end_matches(['\n', '\r'])))
                    .map_err(|error| {
                        unresolved(Unresolved::File {
                            path: path.clone(),
                            error: error.to_string(),
                        })
                    });
                return Value::new(vec![Piece::File {
                    path,
                    value: value.ok(),
                }]);
            }
        };
        let pieces = pieces.iter().map(|piece| match piece {
            TextPiece::Plain(text) => Piece::Plain(text.clone()),
            TextPiece::Env { name, default } => {
                let value = env(name).filter(|value| !value.is_empty()).map(Secret::new);
                if value.is_none() && default.is_none() {
                    unresolved(Unresolved::Env { name: name.clone() });
                }
                Piece::Env {
                    name: name.clone(),
                    default: default.clone(),
                    value,
                }
            }
        });
        Value::new(pieces.collect())
    }

    fn written(&self) -> Option<String> {
        let Self::Pieces(pieces) = self else {
            return None;
        };
        let written = pieces.iter().map(|piece| match piece {
            TextPiece::Plain(text) => text.clone(),
            TextPiece::Env {
                name,
                default: None,
            } => format!("${{env:{name}}}"),
            TextPiece::Env {
                name,
                default: Some(default),
            } => format!("${{env:{name}:{default}}}"),
        });
        Some(written.collect())
    }
}

/// The references again, without what they stand for.
impl From<&Value> for Text {
    fn from(value: &Value) -> Self {
        let pieces = value.pieces().iter().map(|piece| match piece {
            Piece::Plain(text) => TextPiece::Plain(text.clone()),
            Piece::Env { name, default, .. } => TextPiece::Env {
                name: name.clone(),
                default: default.clone(),
            },
            Piece::File { path, .. } => TextPiece::Plain(path.to_string_lossy().into_owned()),
        });
        Self::Pieces(pieces.collect())
    }
}

/// Only what is referred to is shown: plain text may be a password.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pieces(pieces) => f.debug_list().entries(pieces).finish(),
            Self::File(path) => write!(f, "{{ file = {path:?} }}"),
        }
    }
}

impl fmt::Debug for TextPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("<text>"),
            Self::Env { name, .. } => write!(f, "${{env:{name}}}"),
        }
    }
}

/// Text, in which `${env:NAME}` or `${env:NAME:default}` stands for a variable of the environment; or
/// `{ file = "path" }` for the content of a file.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Written {
    Text(String),
    File(FileReference),
}

/// The content of a file, without the line end at its end.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FileReference {
    /// The file.
    file: PathBuf,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Text(text) => Self::parse(&text).map_err(serde::de::Error::custom),
            Written::File(FileReference { file }) => Ok(Self::File(file)),
        }
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(file) => FileReference { file: file.clone() }.serialize(serializer),
            Self::Pieces(_) => serializer.serialize_str(&self.written().unwrap_or_default()),
        }
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Written::json_schema(generator)
    }
}
