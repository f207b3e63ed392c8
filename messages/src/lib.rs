//! What the product says on NATS: message types, their schema, subjects, and the publisher. Knows nothing of GStreamer or candle.
//!
//! A [`Message`] is a CloudEvents 1.0 event in JSON. Its [`Kind`] decides where it goes and whether it is kept; [`Publisher`] takes it there.

mod broker;
pub mod kinds;
mod message;
mod publisher;
pub mod schema;
mod server_url;
pub mod service;
pub mod spool;
pub mod subject;
#[cfg(feature = "testing")]
pub mod testing;
mod wall_time;

pub use broker::{Broker, BrokerError, BrokerErrorKind};
pub use kinds::{Body, Kind, Place};
pub use message::{Message, ParseError, SCHEMA_VERSION, SPEC_VERSION};
pub use publisher::{Drained, Options, PublishError, Publisher, Stats, Status, StreamOptions};
pub use server_url::{ServerUrl, ServerUrlError, redact};
pub use subject::{Prefix, SourceName, SubjectError};
pub use wall_time::WallTime;
