//! The duplex dialogue as pure logic: no I/O, and time is an argument.

pub mod duplex;
pub mod history;
pub mod state;
pub mod utterance;
