//! Vision towers: pixels to features on a grid.

pub mod efficientnet;
pub mod internvit;
mod position;

pub use efficientnet::EfficientNetLite0;
pub use internvit::{InternVit, InternVitConfig};
