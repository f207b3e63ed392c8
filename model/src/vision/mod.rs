//! Vision towers: pixels to features on a grid.

pub mod efficientnet;
mod eyes;
pub mod internvit;
mod position;

pub use efficientnet::EfficientNetLite0;
pub use eyes::{Eyes, VisionEncoder};
pub use internvit::{InternVit, InternVitConfig};
