//! Vision towers: pixels to features on a grid.

pub mod internvit;
mod position;

pub use internvit::{InternVit, InternVitConfig};
