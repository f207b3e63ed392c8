//! Trains the connectors, state tokens and low-rank updates of a VITA model.
//!
//! A [`Recipe`] is one TOML. Its stages run one after the other; each keeps what it has done under
//! `<cache>/training/<recipe>/<stage>` and takes up its work from there, however it ended.

pub mod align;
mod alignment;
mod bar;
mod curve;
pub mod data;
mod error;
pub mod eval;
mod example;
pub mod features;
pub mod hear;
pub mod instruct;
mod item;
mod media;
mod recipe;
pub mod recognition;
mod record;
mod sampler;
mod words;

pub use error::{Error, Result};
pub use example::{Example, Examples};
pub use item::{Item, Kind, Phrasing, Split, System, read_items};
pub use recipe::{InstructStage, Mix, Places, Recipe, RecognitionErrors, Stage, StageOptions};
pub use sampler::{Draws, Sampler};
