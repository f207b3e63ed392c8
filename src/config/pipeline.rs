//! Whether GStreamer takes a pipeline: its elements are there, its properties exist, its links can be made.

use super::problem::{Kind, Problems};
use super::resolve::{Deployment, SourceDeployment};
use crate::launch::{self, Piece};

pub fn check(deployment: &Deployment, problems: &mut Problems) {
    if let Err(error) = launch::init() {
        let remedy = "install GStreamer 1.22 or later; `make setup` does so on Debian";
        return problems.error_at(
            Kind::Pipeline,
            None,
            format!("GStreamer does not start: {error}"),
            remedy,
        );
    }
    for source in &deployment.sources {
        check_source(source, problems);
    }
}

fn check_source(source: &SourceDeployment, problems: &mut Problems) {
    let text = source.line.text();
    let mut context = gst::ParseContext::new();
    let Err(error) = gst::parse::launch_full(
        text.reveal(),
        Some(&mut context),
        gst::ParseFlags::FATAL_ERRORS,
    ) else {
        return;
    };
    // It also counts those as missing that only do not take a property.
    let mut missing = context.missing_elements();
    missing.retain(|element| gst::ElementFactory::find(element).is_none());
    for element in &missing {
        let what = format!("GStreamer has no element `{element}`");
        let remedy = "install the plugin that holds it; `vita doctor` lists what is needed and what is there";
        problems.error(Kind::MissingElement, &source.key, what, remedy);
    }
    if missing.is_empty() {
        let what = format!(
            "GStreamer does not take {}: {}",
            source.template,
            redact(source, error.message())
        );
        let remedy = "correct the template; `vita explain` prints the line for gst-launch-1.0";
        problems.error(Kind::Pipeline, &source.key, what, remedy);
    }
}

/// GStreamer repeats the values of properties that it cannot set.
fn redact(source: &SourceDeployment, message: &str) -> String {
    let mut message = message.to_owned();
    for setting in &source.settings {
        let referred = setting
            .value
            .pieces()
            .iter()
            .any(|piece| !matches!(piece, Piece::Plain(_)));
        let value = setting.value.reveal();
        if referred && !value.reveal().is_empty() {
            message = message.replace(value.reveal(), "<secret>");
        }
    }
    message
}
