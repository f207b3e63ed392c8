//! Models shared by all who use them in a process, and what runs on them: encoding, and rooms.
//!
//! Knows nothing of GStreamer, tokio or NATS.

pub mod encode;
mod engine;
mod error;
pub mod models;
pub mod room;

pub use engine::{Engine, MAX_ROOMS};
pub use error::{Error, ErrorKind};
