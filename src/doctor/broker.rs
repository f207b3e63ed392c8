//! The broker, and the program of one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use vita_messages::Broker;

use super::{Area, Finding, Level};
use crate::nats_server::find_program;

/// The first with all that is used: key-value with limits for each key, consumer pauses, subject transforms.
const OLDEST: (u64, u64) = (2, 10);
const PATIENCE: Duration = Duration::from_secs(10);

/// What to look for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Only a program for an embedded broker.
    Nothing,
    /// An embedded broker will be started, with this program if one is named.
    Embedded(Option<PathBuf>),
    Remote(Broker),
}

pub(super) async fn examine(asked: Asked) -> Vec<Finding> {
    match asked {
        Asked::Nothing => vec![program(None, Level::Absent).await],
        Asked::Embedded(named) => vec![program(named.as_deref(), Level::Missing).await],
        Asked::Remote(broker) => {
            let found = remote(&broker).await;
            found
                .into_iter()
                .chain([program(None, Level::Absent).await])
                .collect()
        }
    }
}

async fn program(named: Option<&Path>, level: Level) -> Finding {
    let remedy = "scripts/setup fetches one; only an embedded broker needs it";
    let Ok(program) = find_program(named) else {
        return Finding::lacking(
            Area::Broker,
            level,
            "nats-server",
            "no program in the cache or on PATH",
            remedy,
        );
    };
    let query = Command::new(&program)
        .arg("--version")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, query).await;
    let text = match &output {
        Ok(Ok(output)) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => {
            let detail = format!("{} does not run", program.display());
            return Finding::lacking(Area::Broker, level, "nats-server", detail, remedy);
        }
    };
    let detail = format!("{text} ({})", program.display());
    match text.rsplit('v').next().and_then(version) {
        Some(version) if version >= OLDEST => Finding::present(Area::Broker, "nats-server", detail),
        _ => Finding::lacking(
            Area::Broker,
            level,
            "nats-server",
            format!("{detail} is older than {}.{}", OLDEST.0, OLDEST.1),
            remedy,
        ),
    }
}

async fn remote(broker: &Broker) -> Vec<Finding> {
    let client = match broker.connect().await {
        Ok(client) => client,
        Err(error) => {
            let remedy = error.remedy.unwrap_or("see the broker's log");
            return vec![Finding::lacking(
                Area::Broker,
                Level::Missing,
                "broker",
                error.what,
                remedy,
            )];
        }
    };
    let info = client.server_info();
    let detail = format!("{} {}", info.server_name, info.version);
    let reached = match version(&info.version) {
        Some(version) if version >= OLDEST => Finding::present(Area::Broker, "broker", detail),
        _ => {
            let remedy = format!("update it to {}.{} or newer", OLDEST.0, OLDEST.1);
            Finding::lacking(
                Area::Broker,
                Level::Missing,
                "broker",
                format!("{detail} is too old"),
                remedy,
            )
        }
    };
    let account = tokio::time::timeout(
        PATIENCE,
        async_nats::jetstream::new(client)
            .query_account()
            .into_future(),
    )
    .await;
    let jetstream = match account {
        Ok(Ok(account)) => Finding::present(
            Area::Broker,
            "jetstream",
            format!("{} streams", account.streams),
        ),
        Ok(Err(error)) => jetstream_missing(&error.to_string()),
        Err(_) => jetstream_missing("no answer in time"),
    };
    vec![reached, jetstream]
}

fn jetstream_missing(detail: &str) -> Finding {
    let remedy =
        "start the broker with JetStream (nats-server -js), and enable it for this account";
    Finding::lacking(Area::Broker, Level::Missing, "jetstream", detail, remedy)
}

/// Major and minor of `2.10.4-beta`.
fn version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.trim().split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("2.15.1"), Some((2, 15)));
        assert!(version("2.9.25") < version("2.10.0-beta.1"));
        assert_eq!(version("dev"), None);
    }
}
