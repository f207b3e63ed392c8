//! From a gst-launch command to the TOML source that gives it.

use toml::Value as Toml;

use super::shape;
use super::spelling;
use super::text::Text;
use crate::launch::shell::Command;
use crate::launch::{self, Line, Media, Piece, Recognised, Value, secrets};

/// What begins the comment that names a source above its command.
pub const NAME_COMMENT: &str = "source ";

/// A `[[source]]` of this name for the command: of a type of ours where it is one of ours, else the pipeline itself.
/// A command without a pipeline gives an error.
pub fn source(command: &Command, name: &str) -> Result<String, String> {
    let line = launch::line(command);
    let mut toml = format!("[[source]]\nname = {}\n", Toml::from(name));
    let keys = match launch::recognise(&line) {
        Some(recognised) => recognised_keys(&recognised),
        None => launch_keys(&line, name)?,
    };
    for (key, value) in keys {
        toml.push_str(&format!("{key} = {value}\n"));
    }
    Ok(toml)
}

/// The name that a comment above the command gives it.
pub fn name_of(command: &Command) -> Option<&str> {
    let named = command
        .comments
        .iter()
        .rev()
        .find_map(|comment| comment.strip_prefix(NAME_COMMENT))?;
    named
        .split([',', ' '])
        .next()
        .filter(|name| !name.is_empty())
}

fn recognised_keys(recognised: &Recognised) -> Vec<(String, String)> {
    let source_type = recognised.source_type;
    let mut keys = vec![("type".to_owned(), Toml::from(source_type).to_string())];
    for media in &recognised.without {
        let name = match media {
            Media::Video => "video",
            Media::Audio => "audio",
        };
        keys.push((name.to_owned(), Toml::from("off").to_string()));
    }
    let says_of_model = |(key, _): &(String, Value)| key.starts_with("model.");
    if recognised.has_model && !recognised.values.iter().any(says_of_model) {
        keys.push(("model".to_owned(), "{}".to_owned()));
    }
    for (key, value) in &recognised.values {
        let written = match value.plain() {
            Some(text) => {
                let text = spelling::from_pipeline(key, &text);
                if shape::is_bare(source_type, key) {
                    text
                } else {
                    Toml::from(text).to_string()
                }
            }
            None => reference(value),
        };
        keys.push((key.clone(), written));
    }
    keys
}

/// The pipeline as text; what it must not or cannot hold becomes parameters.
fn launch_keys(line: &Line, owner: &str) -> Result<Vec<(String, String)>, String> {
    let mut keys = vec![("type".to_owned(), Toml::from("launch").to_string())];
    let mut parameters = Vec::new();
    let text = line.template(|name, value| {
        let secret = value
            .plain()
            .is_some_and(|plain| secrets::is_secret(name, &plain));
        let value = if secret {
            secret_reference(owner, name)
        } else {
            reference(value)
        };
        let used = |candidate: &String| parameters.iter().any(|(other, _)| other == candidate);
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let parameter = std::iter::once(name.to_owned())
            .chain(numbered)
            .find(|name| !used(name))
            .unwrap_or_default();
        parameters.push((parameter.clone(), value));
        parameter
    })?;
    keys.push(("text".to_owned(), Toml::from(text).to_string()));
    keys.extend(
        parameters
            .into_iter()
            .map(|(name, value)| (format!("parameters.{name}"), value)),
    );
    Ok(keys)
}

fn secret_reference(owner: &str, name: &str) -> String {
    Toml::from(format!("${{env:{}}}", secrets::variable(owner, name))).to_string()
}

fn reference(value: &Value) -> String {
    if let [Piece::File { path, .. }] = value.pieces() {
        return format!(
            "{{ file = {} }}",
            Toml::from(path.to_string_lossy().into_owned())
        );
    }
    let text = Text::from(value);
    Toml::try_from(&text).map_or_else(|_| "\"\"".to_owned(), |text| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::shell;

    fn back(text: &str) -> Result<String, String> {
        source(&shell::commands(text).unwrap().remove(0), "cam")
    }

    fn table(text: &str) -> toml::Table {
        let document: toml::Table = back(text).unwrap().parse().unwrap();
        document["source"][0].as_table().unwrap().clone()
    }

    #[test]
    fn a_pipeline_that_is_not_ours_is_kept_as_text() {
        let table = table(
            "gst-launch-1.0 -v filesrc location='a b.wav' ! wavparse ! 'audio/x-raw, rate=8000' ! fakesink",
        );
        let text =
            "filesrc location=a\\ b.wav\n  ! wavparse\n  ! audio/x-raw,\\ rate=8000\n  ! fakesink";
        assert_eq!(
            (table["type"].as_str(), table["text"].as_str()),
            (Some("launch"), Some(text))
        );
        assert!(!table.contains_key("parameters"));
    }

    #[test]
    fn secrets_and_variables_become_parameters() {
        let command =
            "rtspsrc name=source location=rtsp://a user-pw=hunter2 user-id=\"$USER_ID\" ! fakesink";
        assert!(!back(command).unwrap().contains("hunter2"));
        let table = table(command);
        let text = "rtspsrc name=source location=rtsp://a user-pw=${user-pw} user-id=${user-id}\n  ! fakesink";
        assert_eq!(table["text"].as_str(), Some(text));
        assert_eq!(
            table["parameters"]["user-pw"].as_str(),
            Some("${env:VITA_CAM_USER_PW}")
        );
        assert_eq!(
            table["parameters"]["user-id"].as_str(),
            Some("${env:USER_ID}")
        );
    }

    #[test]
    fn what_cannot_be_a_source_is_said_to_be() {
        assert_eq!(
            back("gst-launch-1.0 -v").unwrap_err(),
            "there is no pipeline in it"
        );
        let what = "a variable stands only in the value of a property: name=\"$VARIABLE\"";
        assert_eq!(
            back("gst-launch-1.0 \"$SOURCE\" ! fakesink").unwrap_err(),
            what
        );
    }
}
