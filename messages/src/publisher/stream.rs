//! Makes the stream, or brings it up to the options.

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{Context, ErrorCode};

use super::StreamOptions;
use crate::broker::{BrokerError, BrokerErrorKind};
use crate::subject::Prefix;

/// Leaves alone what the options say nothing of (replicas, storage, placement, further subjects): an operator may have set it.
pub(super) async fn ensure(
    context: &Context,
    options: &StreamOptions,
    prefix: &Prefix,
) -> Result<(), BrokerError> {
    if !options.manage {
        return Ok(());
    }
    let existing = match context.get_stream(&options.name).await {
        Ok(stream) => Some(stream.cached_info().config.clone()),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                None
            }
            _ => return Err(failed(options, &error, is_unavailable(&error.to_string()))),
        },
    };
    let is_new = existing.is_none();
    let before = existing.unwrap_or_else(|| Config {
        name: options.name.clone(),
        ..Config::default()
    });
    let after = adapt(&before, options, prefix);
    if is_new {
        let unavailable = |kind: &CreateStreamErrorKind| {
            matches!(kind, CreateStreamErrorKind::JetStreamUnavailable)
        };
        let made = context.create_stream(after).await;
        made.map(|_| ())
            .map_err(|error| failed(options, &error, unavailable(&error.kind())))
    } else if after == before {
        Ok(())
    } else {
        context
            .update_stream(after)
            .await
            .map(|_| ())
            .map_err(|error| failed(options, &error, false))
    }
}

fn adapt(config: &Config, options: &StreamOptions, prefix: &Prefix) -> Config {
    let mut config = config.clone();
    for subject in prefix.durable_subjects() {
        if !config.subjects.contains(&subject) {
            config.subjects.push(subject);
        }
    }
    config.max_age = options.max_age;
    config.max_bytes = options
        .max_bytes
        .and_then(|bytes| i64::try_from(bytes).ok())
        .unwrap_or(-1);
    // The broker refuses a window that is longer than the age.
    config.duplicate_window = match options.max_age {
        age if age.is_zero() => options.duplicate_window,
        age => options.duplicate_window.min(age),
    };
    config
}

fn is_unavailable(text: &str) -> bool {
    text.contains("not enabled") || text.contains("does not exist")
}

fn failed(
    options: &StreamOptions,
    error: &dyn std::error::Error,
    unavailable: bool,
) -> BrokerError {
    let source = error.source().map(|source| format!(": {source}"));
    let what = format!(
        "stream {}: {error}{}",
        options.name,
        source.unwrap_or_default()
    );
    let remedy = unavailable.then_some("start the broker with JetStream (nats-server -js)");
    BrokerError::new(BrokerErrorKind::JetStream, what, remedy)
}
