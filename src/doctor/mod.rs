//! What this machine has and lacks for running a deployment.

mod broker;
mod machine;
mod media;

use serde::Serialize;

pub use broker::Asked;

/// One thing looked for.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub area: Area,
    pub name: String,
    pub level: Level,
    /// What was found, or what is missing.
    pub detail: String,
    /// What brings it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    Media,
    Machine,
    Broker,
    Cache,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// There.
    Present,
    /// Not there, and not everybody needs it.
    Absent,
    /// Not there, and nothing runs without it.
    Missing,
}

impl Finding {
    fn present(area: Area, name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            area,
            name: name.into(),
            level: Level::Present,
            detail: detail.into(),
            remedy: None,
        }
    }

    fn lacking(
        area: Area,
        level: Level,
        name: impl Into<String>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            area,
            name: name.into(),
            level,
            detail: detail.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// Looks for everything. GStreamer must have been initialised.
pub async fn examine(asked: Asked) -> Vec<Finding> {
    let mut findings = media::examine();
    findings.extend(machine::examine().await);
    findings.extend(broker::examine(asked).await);
    findings.extend(machine::cache());
    findings.push(machine::default_model());
    findings
}
