//! Models shared by all who use them in a process, and what runs on them: encoding, and rooms.
//!
//! Knows nothing of GStreamer, tokio or NATS.

pub mod encode;
pub mod models;
