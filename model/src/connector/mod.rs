//! From a tower's features to the language model's embeddings.

mod pooled;
mod stacked;
mod visual;

pub use pooled::{PooledConfig, PooledConnector};
pub use stacked::{StackedConfig, StackedConnector};
pub use visual::{MlpProjector, shuffle_pixels, visual_tokens};
