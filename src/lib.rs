//! The program `vita`: media streams in, answers and events on NATS out.

pub mod ask;
pub mod chat;
pub mod commands;
pub mod config;
pub mod doctor;
pub mod launch;
mod logging;
pub mod models;
pub mod nats_server;
pub mod plan;
pub mod rooms;
pub mod rtsp;
pub mod run;
pub mod terminal;
