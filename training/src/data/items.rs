//! The list of items on disk.

use super::{Error, Result};
use crate::Item;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Name of the list of items in a data folder.
pub const ITEMS_FILE: &str = "items.jsonl";

/// Items by split and group.
pub(super) fn count(items: &[Item]) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        let split = format!("{:?}", item.split).to_lowercase();
        let group = item.group.clone().unwrap_or_default();
        *counts.entry((split, group)).or_default() += 1;
    }
    counts
}

/// Writes all items.
pub(super) fn write_items(folder: &Path, items: &[Item]) -> Result<()> {
    write_lines(&folder.join(ITEMS_FILE), items)
}

/// Writes JSON lines, in one step: a reader never meets half a list.
pub(super) fn write_lines(path: &Path, lines: &[impl Serialize]) -> Result<()> {
    let part = path.with_extension("part");
    let write = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&part)?);
        for line in lines {
            serde_json::to_writer(&mut file, line)?;
            file.write_all(b"\n")?;
        }
        file.into_inner()?.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().map_err(Error::io(path))
}
