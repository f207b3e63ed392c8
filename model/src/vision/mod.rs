//! Vision towers: pixels to features on a grid.

pub mod efficientnet;
mod eyes;
pub mod internvit;
mod names;
mod position;

pub use efficientnet::EfficientNetLite0;
pub use eyes::{Eyes, Picture, Seen, VisionEncoder};
pub use internvit::{InternVit, InternVitConfig};
pub use names::{ClassNames, NamesConfig, Recognised};
