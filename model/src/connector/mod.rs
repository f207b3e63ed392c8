//! From a tower's features to the language model's embeddings.

mod visual;

pub use visual::{MlpProjector, shuffle_pixels, visual_tokens};
