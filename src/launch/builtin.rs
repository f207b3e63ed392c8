//! The templates of `pipelines/`, which are part of the program.

use std::sync::LazyLock;

use super::Template;

/// File names and texts.
pub const BUILTIN: [(&str, &str); 5] = [
    ("file.launch", include_str!("../../pipelines/file.launch")),
    (
        "microphone.launch",
        include_str!("../../pipelines/microphone.launch"),
    ),
    ("rtsp.launch", include_str!("../../pipelines/rtsp.launch")),
    ("test.launch", include_str!("../../pipelines/test.launch")),
    ("v4l2.launch", include_str!("../../pipelines/v4l2.launch")),
];

static PARSED: LazyLock<Vec<Template>> = LazyLock::new(|| {
    BUILTIN
        .iter()
        .filter_map(|(name, text)| Template::parse(name, text).ok())
        .collect()
});

/// The template of a type of source.
pub fn builtin(source_type: &str) -> Option<&'static Template> {
    PARSED
        .iter()
        .find(|template| template.name.strip_suffix(".launch") == Some(source_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_parses() {
        for (name, text) in BUILTIN {
            Template::parse(name, text).unwrap_or_else(|error| panic!("{error}"));
        }
        assert!(builtin("rtsp").is_some() && builtin("rtsp.launch").is_none());
    }
}
