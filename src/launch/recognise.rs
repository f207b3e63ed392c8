//! From a gst-launch command back to the template and the values that it came from.

use super::line::{Piece, Value, Word};
use super::shell::Command;
use super::template::{Media, Parts};
use super::word::{Fallback, TemplatePiece, TemplateWord};
use super::{BUILTIN, Line, Template, builtin, escape};

/// A command that one of our templates renders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// `rtsp` for `rtsp.launch`.
    pub source_type: &'static str,
    /// Values that differ from the template's defaults.
    pub values: Vec<(String, Value)>,
    /// Media of the template that the command lacks.
    pub without: Vec<Media>,
    /// A model answers.
    pub has_model: bool,
}

/// The words of the pipeline, without the program and its options.
pub fn line(command: &Command) -> Line {
    let mut words = command.words.iter().peekable();
    let is_plain =
        |word: &[Piece], test: fn(&str) -> bool| matches!(word, [Piece::Plain(text)] if test(text));
    if words
        .next_if(|word| is_plain(word, |text| text.ends_with("gst-launch-1.0")))
        .is_some()
    {
        while words
            .next_if(|word| is_plain(word, |text| text.starts_with('-')))
            .is_some()
        {}
    }
    Line {
        lines: vec![words.map(|pieces| word(pieces)).collect()],
    }
}

/// `None`: no template of ours renders this.
pub fn recognise(line: &Line) -> Option<Recognised> {
    let words: Vec<_> = line.lines.iter().flatten().collect();
    let names = BUILTIN
        .iter()
        .filter_map(|(file, _)| file.strip_suffix(".launch"));
    names
        .flat_map(|name| builtin(name).map(|template| (name, template)))
        .find_map(|(name, template)| {
            shapes(template).find_map(|(parts, without)| {
                Some(Recognised {
                    source_type: name,
                    values: values(template, parts, &words)?,
                    without,
                    has_model: parts.model,
                })
            })
        })
}

/// The parts that a command of this template may have, and the media that it lacks then.
fn shapes(template: &Template) -> impl Iterator<Item = (Parts, Vec<Media>)> {
    let models = [false, true]
        .into_iter()
        .filter(|model| !model || template.has_model());
    models.flat_map(move |model| {
        [(true, true), (true, false), (false, true)]
            .into_iter()
            .filter_map(move |(video, audio)| {
                let parts = Parts {
                    video,
                    audio,
                    model,
                };
                let mut without = Vec::new();
                without.extend((!audio).then_some(Media::Audio));
                without.extend((!video).then_some(Media::Video));
                let takes = |media, wanted: bool| wanted && template.has(media);
                let is_some_left = takes(Media::Video, video) || takes(Media::Audio, audio);
                let can_lack = without.iter().all(|media| template.has(*media));
                (is_some_left && can_lack).then_some((parts, without))
            })
    })
}

fn word(pieces: &[Piece]) -> Word {
    if let [Piece::Plain(text)] = pieces {
        return Word::Plain(escape::from_argument(text));
    }
    let unescaped = |text: &str| Piece::Plain(escape::unescape(&escape::from_argument(text)));
    let Some((Piece::Plain(first), rest)) = pieces.split_first() else {
        return Word::Property {
            name: String::new(),
            value: Value::new(pieces.to_vec()),
        };
    };
    let (name, start) = first.split_once('=').unwrap_or(("", first));
    let start = (!start.is_empty()).then(|| unescaped(start));
    let rest = rest.iter().map(|piece| match piece {
        Piece::Plain(text) => unescaped(text),
        other => other.clone(),
    });
    Word::Property {
        name: name.to_owned(),
        value: Value::new(start.into_iter().chain(rest).collect()),
    }
}

fn values(template: &Template, parts: Parts, words: &[&Word]) -> Option<Vec<(String, Value)>> {
    let mut words = words.iter().peekable();
    let mut values = Vec::<(String, Value)>::new();
    let sections = template.sections(parts);
    for expected in sections.flat_map(|section| section.lines.iter().flatten()) {
        match words.peek().and_then(|word| matching(expected, word)) {
            Some(found) => {
                words.next();
                for (name, value) in found {
                    match values.iter().find(|(other, _)| *other == name) {
                        Some((_, other)) if *other != value => return None,
                        Some(_) => {}
                        None => values.push((name, value)),
                    }
                }
            }
            None if is_optional(expected) => {}
            None => return None,
        }
    }
    if words.next().is_some() {
        return None;
    }
    let defaults: Vec<_> = template.parameters().into_iter().cloned().collect();
    values.retain(|(name, value)| {
        let default = defaults.iter().find(|parameter| parameter.name == *name).map(|parameter| &parameter.fallback);
        !matches!((default, value.plain()), (Some(Fallback::Default(default)), Some(value)) if *default == value)
    });
    Some(values)
}

/// The parameters that make this word of the template that word of the command.
fn matching(expected: &TemplateWord, word: &Word) -> Option<Vec<(String, Value)>> {
    let (name, pieces) = match expected {
        TemplateWord::Plain(text) => {
            return matches!(word, Word::Plain(word) if word == text).then(Vec::new);
        }
        TemplateWord::Property { name, pieces } => (name, pieces),
    };
    let value = match word {
        Word::Plain(text) => Value::from(escape::unescape(
            text.strip_prefix(name.as_str())?.strip_prefix('=')?,
        )),
        Word::Property { name: other, value } if other == name => value.clone(),
        Word::Property { .. } => return None,
    };
    match pieces.as_slice() {
        [TemplatePiece::Parameter(parameter)] => Some(vec![(parameter.name.clone(), value)]),
        [
            TemplatePiece::Parameter(parameter),
            TemplatePiece::Text(end),
        ] => {
            let start = value.plain()?.strip_suffix(end.as_str())?.to_owned();
            Some(vec![(parameter.name.clone(), Value::from(start))])
        }
        _ => None,
    }
}

fn is_optional(word: &TemplateWord) -> bool {
    let TemplateWord::Property { pieces, .. } = word else {
        return false;
    };
    let optional = |piece: &TemplatePiece| matches!(piece, TemplatePiece::Parameter(parameter) if parameter.fallback == Fallback::LeaveOut);
    pieces.iter().any(optional)
}

#[cfg(test)]
mod tests {
    use super::super::{Values, shell};
    use super::*;

    const BOTH: Parts = Parts {
        video: true,
        audio: true,
        model: false,
    };

    fn back(command: &str) -> Option<Recognised> {
        recognise(&line(&shell::commands(command).unwrap().remove(0)))
    }

    fn values(pairs: &[(&str, &str)]) -> Vec<(String, Value)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from((*value).to_owned())))
            .collect()
    }

    #[test]
    fn every_template_is_recognised_in_every_shape() {
        for (file, _) in BUILTIN {
            let source_type = file.strip_suffix(".launch").unwrap();
            let template = builtin(source_type).unwrap();
            for (parts, without) in shapes(template) {
                let parameters = template.parameters().into_iter();
                let given: Values = parameters
                    .map(|p| (p.name.clone(), Value::from("7 \"seven\"\\".to_owned())))
                    .collect();
                let command = template.render(&given, parts).unwrap().command();
                let recognised = back(&command).unwrap_or_else(|| panic!("{command}"));
                assert_eq!(
                    (
                        recognised.source_type,
                        recognised.without,
                        recognised.has_model
                    ),
                    (source_type, without, parts.model)
                );
                assert!(
                    recognised
                        .values
                        .iter()
                        .all(|(name, value)| given[name] == *value),
                    "{:?}",
                    recognised.values
                );
            }
        }
    }

    #[test]
    fn only_what_differs_from_the_defaults_is_given() {
        let given = values(&[
            ("uri", "rtsp://h/a b"),
            ("transport", "tcp"),
            ("latency_ms", "500"),
            ("vad.min_silence_ms", "40"),
        ]);
        let line = builtin("rtsp")
            .unwrap()
            .render(&given.into_iter().collect(), BOTH)
            .unwrap();
        let recognised = back(&line.command()).unwrap();
        let expected = values(&[
            ("uri", "rtsp://h/a b"),
            ("latency_ms", "500"),
            ("vad.min_silence_ms", "40"),
        ]);
        assert_eq!(
            recognised,
            Recognised {
                source_type: "rtsp",
                values: expected,
                without: Vec::new(),
                has_model: false,
            }
        );
    }

    #[test]
    fn another_pipeline_is_not_taken_for_ours() {
        assert_eq!(back("gst-launch-1.0 -v videotestsrc ! fakesink"), None);
        let line = builtin("test")
            .unwrap()
            .render(&Values::new(), BOTH)
            .unwrap();
        assert_eq!(back(&(line.command() + " fakesrc ! fakesink")), None);
        assert_eq!(back(&line.command().replace("640", "320")), None);
        assert_eq!(back("gst-launch-1.0"), None);
    }
}
