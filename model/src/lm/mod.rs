//! Language models over caches that belong to the sequence, not to the model.

mod cache;
mod config;
mod decoder;
mod mlp;
mod rotary;
pub(crate) mod updates;

pub use cache::{CacheShape, KvCache};
pub use config::{LmConfig, LmFamily};
pub use decoder::{Chunk, LanguageModel, Projection};
pub use updates::Updates;
