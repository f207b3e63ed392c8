//! The `.launch` template language: gst-launch text with comments, parameters and two optional sections.
//!
//! - `#` at the start of a word begins a comment that ends with the line.
//! - A line `[video]` or `[audio]` begins the section that is left out when the source has none of that.
//! - A property may be `name=${parameter}` (required), `name=${parameter:default}`, or `name=${parameter?}`: without a value
//!   the property is not written at all, and the element's own default holds. Text may stand before and after.
//!
//! Parameters stand in values of properties and nowhere else, so a value cannot bring an element in.

use std::collections::BTreeMap;

use super::LaunchError;
use super::escape;
use super::line::{Line, Piece, Value, Word};

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    /// File name, for messages.
    pub name: String,
    sections: Vec<Section>,
}

#[derive(Clone, Debug)]
pub(super) struct Section {
    /// `None`: always there.
    pub(super) media: Option<Media>,
    pub(super) lines: Vec<Vec<TemplateWord>>,
}

/// What a section of a template takes from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Video,
    Audio,
}

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

/// Values of parameters by name.
pub type Values = BTreeMap<String, Value>;

impl Template {
    pub fn parse(name: &str, text: &str) -> Result<Self, LaunchError> {
        let mut sections = vec![Section {
            media: None,
            lines: Vec::new(),
        }];
        for (index, line) in text.lines().enumerate() {
            let at = |what: String| LaunchError::Template {
                file: name.to_owned(),
                line: index + 1,
                what,
            };
            let media = match line.trim() {
                "[video]" => Some(Media::Video),
                "[audio]" => Some(Media::Audio),
                _ => {
                    let words = split_words(line).and_then(|words| {
                        words
                            .iter()
                            .map(|word| TemplateWord::parse(word, index + 1))
                            .collect::<Result<Vec<_>, _>>()
                    });
                    let words = words.map_err(at)?;
                    if let (false, Some(section)) = (words.is_empty(), sections.last_mut()) {
                        section.lines.push(words);
                    }
                    continue;
                }
            };
            if sections.iter().any(|section| section.media == media) {
                return Err(at(format!("a second section {}", line.trim())));
            }
            sections.push(Section {
                media,
                lines: Vec::new(),
            });
        }
        let template = Self {
            name: name.to_owned(),
            sections,
        };
        template.check_fallbacks()?;
        Ok(template)
    }

    pub fn has(&self, media: Media) -> bool {
        self.sections
            .iter()
            .any(|section| section.media == Some(media))
    }

    /// Every parameter once, in the order of the text.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let mut seen = Vec::<&Parameter>::new();
        for (_, parameter) in self.occurrences() {
            if !seen.iter().any(|other| other.name == parameter.name) {
                seen.push(parameter);
            }
        }
        seen
    }

    /// The words left when only these media are wanted.
    pub(super) fn sections(
        &self,
        wanted: impl Fn(Media) -> bool,
    ) -> impl Iterator<Item = &Section> {
        self.sections
            .iter()
            .filter(move |section| section.media.is_none_or(&wanted))
    }

    /// Puts the values in. Every parameter must be known, and every required one of the wanted sections given.
    pub fn render(
        &self,
        values: &Values,
        wanted: impl Fn(Media) -> bool,
    ) -> Result<Line, Vec<LaunchError>> {
        let known = || {
            self.parameters()
                .iter()
                .map(|parameter| parameter.name.clone())
                .collect::<Vec<_>>()
        };
        let mut errors: Vec<_> = values
            .keys()
            .filter(|name| {
                !self
                    .occurrences()
                    .any(|(_, parameter)| parameter.name == **name)
            })
            .map(|name| LaunchError::UnknownParameter {
                file: self.name.clone(),
                name: name.clone(),
                known: known(),
            })
            .collect();
        let mut lines = Vec::new();
        for line in self.sections(wanted).flat_map(|section| &section.lines) {
            let mut words = Vec::with_capacity(line.len());
            for word in line {
                match word.render(values) {
                    Ok(word) => words.extend(word),
                    Err(missing) => errors.push(LaunchError::MissingParameter {
                        file: self.name.clone(),
                        line: missing.line,
                        name: missing.name.clone(),
                        known: known(),
                    }),
                }
            }
            lines.push(words);
        }
        if errors.is_empty() {
            Ok(Line { lines })
        } else {
            Err(errors)
        }
    }

    fn occurrences(&self) -> impl Iterator<Item = (Option<Media>, &Parameter)> {
        self.sections.iter().flat_map(|section| {
            let words = section.lines.iter().flatten();
            words
                .flat_map(TemplateWord::parameters)
                .map(|parameter| (section.media, parameter))
        })
    }

    /// A parameter that stands in several places has one fallback.
    fn check_fallbacks(&self) -> Result<(), LaunchError> {
        for (_, parameter) in self.occurrences() {
            let first = self
                .occurrences()
                .find(|(_, other)| other.name == parameter.name);
            if first.is_some_and(|(_, first)| first.fallback != parameter.fallback) {
                let what = format!(
                    "`{}` has another default than where it stands first",
                    parameter.name
                );
                return Err(LaunchError::Template {
                    file: self.name.clone(),
                    line: parameter.line,
                    what,
                });
            }
        }
        Ok(())
    }
}

impl TemplateWord {
    fn parse(word: &str, line: usize) -> Result<Self, String> {
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

    fn parameters(&self) -> impl Iterator<Item = &Parameter> {
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
    fn render(&self, values: &Values) -> Result<Option<Word>, &Parameter> {
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
