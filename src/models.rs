//! Models by name, opened for a person who waits.

use std::path::Path;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use vita_engine::models::{self, DeviceSpec, ErrorKind, Model, ModelSpec, Precision};
use vita_model::checkpoint::Inspection;

use crate::plan::ModelPlan;

/// The model that is meant when none is named.
pub const DEFAULT: &str = "nano";

/// Opens a model in f32, with a bar on standard error while it loads, if that is a terminal.
pub fn open(name: &str, device: DeviceSpec) -> anyhow::Result<Arc<Model>> {
    open_planned(&ModelPlan {
        name: name.to_owned(),
        device,
        precision: Precision::default(),
    })
}

/// As [`open`], as a config says.
pub fn open_planned(plan: &ModelPlan) -> anyhow::Result<Arc<Model>> {
    let name = &plan.name;
    let opened = ModelSpec::named(name).and_then(|named| {
        let spec = ModelSpec {
            device: plan.device,
            precision: plan.precision,
            ..named
        };
        let bar = bar(name, &spec.path);
        let shown = bar.clone();
        let progress: vita_model::Progress = Arc::new(move |bytes| shown.set_position(bytes));
        let opened = models::open(&spec, Some(progress));
        bar.finish_and_clear();
        opened
    });
    opened.map_err(|error| anyhow::anyhow!("{}", explain(name, &error)))
}

fn bar(name: &str, folder: &Path) -> ProgressBar {
    // What cannot be inspected cannot be loaded, and that error says more.
    let bytes = Inspection::of(folder).map_or(0, |inspection| {
        inspection.parts.values().map(|part| part.bytes).sum()
    });
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes)
        .with_style(style)
        .with_message(format!("loading {name}"))
}

/// The error of opening a model, and what to do about it.
pub fn explain(name: &str, error: &models::Error) -> String {
    match remedy(name, error.kind()) {
        Some(remedy) => format!("{error}; {remedy}"),
        None => error.to_string(),
    }
}

/// What to do about a model that cannot be opened, where its error does not say.
pub fn remedy(name: &str, kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::NotFound if name == DEFAULT => {
            Some("`vita model build nano` makes the default model there")
        }
        ErrorKind::Load => Some("`vita model inspect FOLDER` shows what is in a model's folder"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_default_model_can_be_made() {
        let missing = |name: &str| {
            let error = models::Error::NotFound {
                path: name.into(),
                models: "/cache/models".into(),
            };
            explain(name, &error)
        };
        assert!(
            missing("nano").ends_with("; `vita model build nano` makes the default model there")
        );
        assert!(missing("./other").ends_with("the name of a folder in /cache/models"));
    }
}
