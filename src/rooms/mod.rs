//! Scripted rooms: media, typed questions and faults at their times, and the messages that must come of it.

mod compare;
mod media;
mod play;
mod script;

pub use compare::{Difference, compare};
pub use play::play;
pub use script::Script;
