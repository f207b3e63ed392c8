//! The sink in pipelines, on the golden checkpoint.

mod bench;
mod dialogue;
mod media;
mod nats;
mod states;
mod time;
