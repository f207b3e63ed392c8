//! Language models over caches that belong to the sequence, not to the model.

mod config;

pub use config::{LmConfig, LmFamily};
