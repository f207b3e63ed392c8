//! The words of a template: plain, or a property with parameters in its value.

use super::escape;
use super::line::{Piece, Value, Word};
use super::template::Values;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TemplateWord {
    Plain(String),
    Property {
        name: String,
        pieces: Vec<TemplatePiece>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TemplatePiece {
    /// Already unescaped.
    Text(String),
    Parameter(Parameter),
}

/// A parameter where it stands in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub fallback: Fallback,
    pub line: usize,
}

/// What holds when a parameter has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    Required,
    Default(String),
    LeaveOut,
}

impl TemplateWord {
    pub(super) fn parse(word: &str, line: usize) -> Result<Self, String> {
        if !word.contains("${") {
            return Ok(Self::Plain(word.to_owned()));
        }
        let (name, value) = word
            .split_once('=')
            .filter(|(name, _)| is_property(name))
            .ok_or_else(|| {
                format!(
                    "a parameter stands only in a value, `name=${{parameter}}`, not in `{word}`"
                )
            })?;
        if value.starts_with(['"', '\'']) {
            return Err(format!(
                "leave out the quotes around `{word}`: values are escaped by themselves"
            ));
        }
        let mut pieces = Vec::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once("${") {
            let (inside, after) = after
                .split_once('}')
                .ok_or_else(|| format!("`{word}` lacks a closing `}}`"))?;
            if !before.is_empty() {
                pieces.push(TemplatePiece::Text(escape::unescape(before)));
            }
            pieces.push(TemplatePiece::Parameter(Parameter::parse(inside, line)?));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(TemplatePiece::Text(escape::unescape(rest)));
        }
        Ok(Self::Property {
            name: name.to_owned(),
            pieces,
        })
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        let pieces = match self {
            Self::Plain(_) => [].as_slice(),
            Self::Property { pieces, .. } => pieces,
        };
        pieces.iter().filter_map(|piece| match piece {
            TemplatePiece::Parameter(parameter) => Some(parameter),
            TemplatePiece::Text(_) => None,
        })
    }

    /// `None`: left out. `Err`: the parameter that has no value.
    pub(super) fn render(&self, values: &Values) -> Result<Option<Word>, &Parameter> {
        let (name, pieces) = match self {
            Self::Plain(text) => return Ok(Some(Word::Plain(text.clone()))),
            Self::Property { name, pieces } => (name, pieces),
        };
        let mut value = Vec::new();
        for piece in pieces {
            match piece {
                TemplatePiece::Text(text) => value.push(Piece::Plain(text.clone())),
                TemplatePiece::Parameter(parameter) => {
                    match (values.get(&parameter.name), &parameter.fallback) {
                        (Some(given), _) => value.extend(given.pieces().iter().cloned()),
                        (None, Fallback::Default(text)) => value.push(Piece::Plain(text.clone())),
                        (None, Fallback::LeaveOut) => return Ok(None),
                        (None, Fallback::Required) => return Err(parameter),
                    }
                }
            }
        }
        Ok(Some(Word::Property {
            name: name.clone(),
            value: Value::new(value),
        }))
    }
}

impl Parameter {
    fn parse(inside: &str, line: usize) -> Result<Self, String> {
        let (name, fallback) = match inside.split_once(':') {
            Some((name, default)) => (name, Fallback::Default(default.to_owned())),
            None => match inside.strip_suffix('?') {
                Some(name) => (name, Fallback::LeaveOut),
                None => (inside, Fallback::Required),
            },
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(valid) {
            return Err(format!(
                "`{name}` is no name of a parameter: letters, digits, `_`, `-` and `.`"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            fallback,
            line,
        })
    }
}

fn is_property(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':'))
}

/// The words of one line of gst-launch text, quotes and backslashes kept, without its comment.
pub(super) fn split_words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            '#' if word.is_empty() => break,
            c if quote.is_none() && c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            _ => {}
        }
        word.push(c);
    }
    if let Some(quote) = quote {
        return Err(format!("{quote} opens and does not close on its line"));
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}
