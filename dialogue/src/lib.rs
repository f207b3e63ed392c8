//! The duplex dialogue as pure logic: no I/O, and time is an argument.

pub mod utterance;
