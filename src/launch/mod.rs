//! gst-launch text: templates with parameters, their values, and the way to a shell command and back.
//!
//! What a supervisor may rely on in every pipeline of `pipelines/`:
//! - the media source is the element `source`; a second one has a name that begins with `source-`. Their source pads are
//!   those to watch: a pad of a live source over which nothing passes has stalled;
//! - what is done with video is the bin `video`, what is done with audio the bin `audio`, each with its own sinks or, where a
//!   model answers, with pads of the element `llm` that both meet in;
//! - sinks of live sources do not take part in preroll (`async=false`), so a stream that never comes holds nothing up;
//! - queues are bounded. Those of live sources drop the oldest data first and are named `video-queue` and `audio-queue`.

mod builtin;
mod escape;
mod line;
mod recognise;
pub mod secrets;
pub mod shell;
mod template;
mod word;

pub use builtin::{BUILTIN, builtin};
pub use line::{Line, Piece, Value};
pub use recognise::{Recognised, line, recognise};
pub use template::{Media, Parts, Template, Values};
pub use word::{Fallback, Parameter};

/// What is wrong with a template, or with the values for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    #[error("{file}:{line}: {what}")]
    Template {
        file: String,
        line: usize,
        what: String,
    },
    #[error("{file}: no parameter `{name}`; there are: {}", list(known))]
    UnknownParameter {
        file: String,
        name: String,
        known: Vec<String>,
    },
    #[error(
        "{file}:{line}: parameter `{name}` has no value; the parameters are: {}",
        list(known)
    )]
    MissingParameter {
        file: String,
        line: usize,
        name: String,
        known: Vec<String>,
    },
    #[error("line {line}: {what}")]
    Shell { line: usize, what: String },
}

/// Starts GStreamer and registers our elements, unless a plugin that it found has them. May be called again and again.
pub fn init() -> Result<(), gst::glib::Error> {
    gst::init()?;
    if gst::Registry::get().find_plugin("vita").is_none()
        && let Err(error) = gstvita::plugin_register_static()
    {
        return Err(gst::glib::Error::new(
            gst::CoreError::Failed,
            &error.to_string(),
        ));
    }
    Ok(())
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
