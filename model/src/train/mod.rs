//! What training needs beside the model itself (spec section 8): targets, losses, low-rank updates,
//! the optimiser. Feature `train`.

mod ctc;
mod ears;
mod labels;
mod lora;
mod loss;
mod optim;
mod published;

pub use ctc::{ctc_loss, ctc_steps};
pub use ears::EarsLora;
pub use labels::{Labelled, Labels, Packing, pack};
pub use lora::{Lora, LoraConfig, save};
pub use loss::{CrossEntropy, cross_entropy};
pub use optim::{AdamW, AdamWConfig, Gradients, Schedule};
pub use published::{Prepared, Record, State};
