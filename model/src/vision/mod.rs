//! Vision towers: pixels to features on a grid.

pub(crate) mod conv;
mod details;
pub mod detector;
pub mod efficientnet;
mod eyes;
pub mod internvit;
mod names;
mod position;
mod prepared;
mod residual;

pub use details::{DETAIL_COLOURS, DETAIL_FEATURES, Details, PEOPLE_NUMBERS};
pub use detector::{Detection, Detector, DetectorConfig, Finds};
pub use efficientnet::EfficientNetLite0;
pub use eyes::{Eyes, Picture, Seen, VisionEncoder};
pub use internvit::{InternVit, InternVitConfig};
pub use names::{ClassNames, NamesConfig, Recognised};
pub use prepared::Prepared;
