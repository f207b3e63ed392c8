//! What training needs beside the model itself (spec section 8): targets, losses, low-rank updates,
//! the optimiser. Feature `train`.

mod labels;
mod lora;
mod loss;
mod optim;

pub use labels::{Labelled, Labels, Packing, pack};
pub use lora::{Lora, LoraConfig, Updates, save};
pub use loss::{CrossEntropy, cross_entropy};
pub use optim::{AdamW, AdamWConfig, Gradients, Schedule};
