//! GPU, cameras and microphones, and what the set-up has fetched.

use std::path::Path;
use std::time::Duration;

use gst::prelude::{DeviceExt, DeviceMonitorExtManual};
use tokio::process::Command;
use vita_model::checkpoint::Inspection;

use super::{Area, Finding, Level};
use crate::models;
use crate::nats_server::cache_dir;

/// A tool or a sound server that hangs is no news about the machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the set-up takes from package registries.
const PARTS: &str = include_str!("../../scripts/parts.tsv");

pub(super) async fn examine() -> Vec<Finding> {
    let mut findings = vec![gpu().await];
    let devices = tokio::task::spawn_blocking(devices);
    match tokio::time::timeout(PATIENCE, devices).await {
        Ok(Ok(devices)) => findings.extend(devices),
        _ => findings.push(Finding::lacking(
            Area::Machine,
            Level::Absent,
            "devices",
            "the list did not come in time",
            "restart the sound server",
        )),
    }
    findings
}

async fn gpu() -> Finding {
    let query = Command::new("nvidia-smi")
        .args([
            "--query-gpu=name,memory.total,driver_version",
            "--format=csv,noheader",
        ])
        .kill_on_drop(true)
        .output();
    if let Ok(Ok(output)) = tokio::time::timeout(PATIENCE, query).await
        && output.status.success()
    {
        let names: Vec<_> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| line.trim().to_owned())
            .collect();
        return Finding::present(Area::Machine, "gpu", names.join("; "));
    }
    if Path::new("/dev/nvidia0").exists() {
        let remedy = "install nvidia-smi and the driver that fits the kernel";
        return Finding::lacking(
            Area::Machine,
            Level::Absent,
            "gpu",
            "/dev/nvidia0 is there, but nvidia-smi does not answer",
            remedy,
        );
    }
    Finding::lacking(
        Area::Machine,
        Level::Absent,
        "gpu",
        "none; models run on the CPU",
        "an NVIDIA GPU makes large models fast",
    )
}

fn devices() -> Vec<Finding> {
    let listed = [
        ("Video/Source", "cameras", "v4l2"),
        ("Audio/Source", "microphones", "ALSA or PulseAudio"),
    ];
    let list = |(class, name, system): (&str, &str, &str)| {
        let monitor = gst::DeviceMonitor::new();
        monitor.add_filter(Some(class), None);
        let names: Vec<String> = monitor
            .devices()
            .iter()
            .map(|device| device.display_name().into())
            .collect();
        if names.is_empty() {
            let remedy = format!(
                "plug one in, and see that this user may open it ({system}); not needed for RTSP and files"
            );
            return Finding::lacking(Area::Machine, Level::Absent, name, "none", remedy);
        }
        Finding::present(Area::Machine, name, names.join(", "))
    };
    listed.into_iter().map(list).collect()
}

/// What the set-up puts into the cache, by the list that it works from.
pub(super) fn cache() -> Vec<Finding> {
    let Some(cache) = cache_dir() else {
        return vec![Finding::lacking(
            Area::Cache,
            Level::Absent,
            "cache",
            "no folder",
            "set VITA_CACHE or HOME",
        )];
    };
    let places = PARTS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split('\t').nth(5));
    let (there, absent): (Vec<&str>, Vec<&str>) =
        places.partition(|place| cache.join(place).exists());
    let mut findings = Vec::new();
    if !there.is_empty() {
        findings.push(Finding::present(
            Area::Cache,
            cache.display().to_string(),
            there.join(" "),
        ));
    }
    if !absent.is_empty() {
        let remedy = "scripts/setup fetches them; needed for the demonstration and the tests";
        findings.push(Finding::lacking(
            Area::Cache,
            Level::Absent,
            cache.display().to_string(),
            format!("no {}", absent.join(", ")),
            remedy,
        ));
    }
    findings
}

/// The model that is used where none is named.
pub(super) fn default_model() -> Finding {
    let name = models::DEFAULT;
    let found = vita_engine::models::folder(name)
        .map_err(|error| models::explain(name, &error))
        .and_then(|folder| match folder.is_dir() {
            false => Err(format!("{} is not there", folder.display())),
            true => Inspection::of(&folder)
                .map(|model| format!("{} ({})", folder.display(), model.kind))
                .map_err(|error| error.to_string()),
        });
    match found {
        Ok(detail) => Finding::present(Area::Cache, "default model", detail),
        Err(what) => Finding::lacking(
            Area::Cache,
            Level::Absent,
            "default model",
            what,
            "vita model build nano",
        ),
    }
}
