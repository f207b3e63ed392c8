//! The `.launch` template language: gst-launch text with comments, parameters and optional sections.
//!
//! - `#` at the start of a word begins a comment that ends with the line.
//! - A line `[video]` or `[audio]` begins a section that is left out when the source has none of that, `[model]` and
//!   `[no model]` one that is there only with or without a model that answers. `[video, model]` takes both.
//! - A property may be `name=${parameter}` (required), `name=${parameter:default}`, or `name=${parameter?}`: without a value
//!   the property is not written at all, and the element's own default holds. Text may stand before and after.
//!
//! Parameters stand in values of properties and nowhere else, so a value cannot bring an element in.

use std::collections::BTreeMap;

use super::LaunchError;
use super::line::{Line, Value};
use super::word::{Parameter, TemplateWord, split_words};

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    /// File name, for messages.
    pub name: String,
    sections: Vec<Section>,
}

#[derive(Clone, Debug)]
pub(super) struct Section {
    needs: Needs,
    pub(super) lines: Vec<Vec<TemplateWord>>,
}

/// What a section of a template takes from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Video,
    Audio,
}

/// What must be so for a section to be there; `None`: either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Needs {
    media: Option<Media>,
    model: Option<bool>,
}

impl Needs {
    /// Of a line `[…]`. `None`: the line is none.
    fn parse(line: &str) -> Option<Self> {
        let words = line.trim().strip_prefix('[')?.strip_suffix(']')?;
        let mut needs = Self::default();
        for word in words.split(',') {
            match word.trim() {
                "video" => needs.media = Some(Media::Video),
                "audio" => needs.media = Some(Media::Audio),
                "model" => needs.model = Some(true),
                "no model" => needs.model = Some(false),
                _ => return None,
            }
        }
        Some(needs)
    }
}

/// Which parts of a template are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub video: bool,
    pub audio: bool,
    /// A model answers.
    pub model: bool,
}

impl Parts {
    fn have(self, needs: Needs) -> bool {
        let media = needs.media.is_none_or(|media| match media {
            Media::Video => self.video,
            Media::Audio => self.audio,
        });
        media && needs.model.is_none_or(|model| model == self.model)
    }
}

/// Values of parameters by name.
pub type Values = BTreeMap<String, Value>;

impl Template {
    pub fn parse(name: &str, text: &str) -> Result<Self, LaunchError> {
        let mut sections = vec![Section {
            needs: Needs::default(),
            lines: Vec::new(),
        }];
        for (index, line) in text.lines().enumerate() {
            let at = |what: String| LaunchError::Template {
                file: name.to_owned(),
                line: index + 1,
                what,
            };
            let Some(needs) = Needs::parse(line) else {
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
            };
            if sections.iter().any(|section| section.needs == needs) {
                return Err(at(format!("a second section {}", line.trim())));
            }
            sections.push(Section {
                needs,
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
            .any(|section| section.needs.media == Some(media))
    }

    /// Whether it has a place for a model.
    pub fn has_model(&self) -> bool {
        self.sections
            .iter()
            .any(|section| section.needs.model == Some(true))
    }

    /// Every parameter once, in the order of the text.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let mut seen = Vec::<&Parameter>::new();
        for parameter in self.occurrences() {
            if !seen.iter().any(|other| other.name == parameter.name) {
                seen.push(parameter);
            }
        }
        seen
    }

    /// The words left when only these parts are wanted.
    pub(super) fn sections(&self, wanted: Parts) -> impl Iterator<Item = &Section> {
        self.sections
            .iter()
            .filter(move |section| wanted.have(section.needs))
    }

    /// Puts the values in. Every parameter must be known, and every required one of the wanted sections given.
    pub fn render(&self, values: &Values, wanted: Parts) -> Result<Line, Vec<LaunchError>> {
        let known = || {
            self.parameters()
                .iter()
                .map(|parameter| parameter.name.clone())
                .collect::<Vec<_>>()
        };
        let mut errors: Vec<_> = values
            .keys()
            .filter(|name| !self.occurrences().any(|parameter| parameter.name == **name))
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

    fn occurrences(&self) -> impl Iterator<Item = &Parameter> {
        let lines = self.sections.iter().flat_map(|section| &section.lines);
        lines.flatten().flat_map(TemplateWord::parameters)
    }

    /// A parameter that stands in several places has one fallback.
    fn check_fallbacks(&self) -> Result<(), LaunchError> {
        for parameter in self.occurrences() {
            let first = self
                .occurrences()
                .find(|other| other.name == parameter.name);
            if first.is_some_and(|first| first.fallback != parameter.fallback) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: &str = r#"
        # A comment.
        rtspsrc name=source location=${uri} user-id=${user?}  # and another
        [video]
        source. ! fakesink name=video sync=${sync:false}
        [audio]
        source. ! fakesink name=audio min=${ms?}000 caps="audio/x-raw, rate=8000"
    "#;

    const ALL: Parts = Parts {
        video: true,
        audio: true,
        model: true,
    };

    #[track_caller]
    fn rendered(text: &str, values: &[(&str, &str)], wanted: Parts) -> String {
        let values = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from((*value).to_owned())));
        let line = Template::parse("test.launch", text)
            .unwrap()
            .render(&values.collect(), wanted)
            .unwrap();
        line.text().reveal().to_owned()
    }

    #[test]
    fn values_and_defaults_are_put_in_and_empty_properties_left_out() {
        assert_eq!(
            rendered(BOTH, &[("uri", "rtsp://a/b c")], ALL),
            "rtspsrc name=source location=rtsp://a/b\\ c source. ! fakesink name=video sync=false \
             source. ! fakesink name=audio caps=\"audio/x-raw, rate=8000\""
        );
        let values = [
            ("uri", "rtsp://a"),
            ("user", "u"),
            ("sync", "true"),
            ("ms", "20"),
        ];
        let audio = Parts {
            video: false,
            ..ALL
        };
        assert_eq!(
            rendered(BOTH, &values, audio),
            "rtspsrc name=source location=rtsp://a user-id=u source. ! fakesink name=audio min=20000 \
             caps=\"audio/x-raw, rate=8000\""
        );
    }

    #[test]
    fn parts_depend_on_the_model_and_on_the_medium() {
        let text = "a\n[model]\nllm\n[video]\n( b\n[video, model]\n! c )\n[video, no model]\n! d )\n[audio, model]\ne";
        let shape = |video, audio, model| {
            let parts = Parts {
                video,
                audio,
                model,
            };
            rendered(text, &[], parts)
        };
        assert_eq!(shape(true, true, true), "a llm ( b ! c ) e");
        assert_eq!(shape(true, true, false), "a ( b ! d )");
        assert_eq!(shape(false, true, true), "a llm e");
        assert!(Template::parse("t", text).unwrap().has_model());
        assert!(!Template::parse("t", BOTH).unwrap().has_model());
    }

    #[test]
    fn a_hash_within_a_word_is_no_comment() {
        assert_eq!(
            rendered("filesrc location=a#b ! fakesink", &[], ALL),
            "filesrc location=a#b ! fakesink"
        );
    }

    #[test]
    fn parameters_are_listed_once_in_order() {
        let template = Template::parse("test.launch", BOTH).unwrap();
        let names: Vec<_> = template
            .parameters()
            .iter()
            .map(|parameter| parameter.name.as_str())
            .collect();
        assert_eq!(names, ["uri", "user", "sync", "ms"]);
        assert!(template.has(Media::Video) && template.has(Media::Audio));
    }

    #[test]
    fn errors_name_file_line_and_what_there_is() {
        let template = Template::parse("test.launch", BOTH).unwrap();
        let values = Values::from([("url".to_owned(), Value::from("x".to_owned()))]);
        let errors = template.render(&values, ALL).unwrap_err();
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "test.launch: no parameter `url`; there are: uri, user, sync, ms",
                "test.launch:3: parameter `uri` has no value; the parameters are: uri, user, sync, ms",
            ]
        );
    }

    #[test]
    fn what_does_not_parse_is_told_with_its_line() {
        for (text, what) in [
            (
                "a\n${b} ! c",
                "t:2: a parameter stands only in a value, `name=${parameter}`, not in `${b}`",
            ),
            (
                "a b=\"${c}\"",
                "t:1: leave out the quotes around `b=\"${c}\"`: values are escaped by themselves",
            ),
            ("a b=${c", "t:1: `b=${c` lacks a closing `}`"),
            (
                "a b=${}",
                "t:1: `` is no name of a parameter: letters, digits, `_`, `-` and `.`",
            ),
            ("a b=\"c", "t:1: \" opens and does not close on its line"),
            ("a\n[video]\nb\n[video]", "t:4: a second section [video]"),
            (
                "a b=${c:1}\nd e=${c:2}",
                "t:2: `c` has another default than where it stands first",
            ),
        ] {
            assert_eq!(Template::parse("t", text).unwrap_err().to_string(), what);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\PC\n\"'${}#\\\\]*") {
            if let Ok(template) = Template::parse("t", &text) {
                let _ = template.render(&Values::new(), ALL);
            }
        }
    }
}
