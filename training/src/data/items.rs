//! The list of items on disk.

use super::{Error, Result};
use crate::Item;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Name of the list of items in a data folder.
pub const ITEMS_FILE: &str = "items.jsonl";

/// Writes all items, in one step: a reader never meets half a list.
pub(super) fn write_items(folder: &Path, items: &[Item]) -> Result<PathBuf> {
    let (path, part) = (
        folder.join(ITEMS_FILE),
        folder.join(format!("{ITEMS_FILE}.part")),
    );
    let write = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&part)?);
        for item in items {
            serde_json::to_writer(&mut file, item)?;
            file.write_all(b"\n")?;
        }
        file.into_inner()?.sync_all()?;
        std::fs::rename(&part, &path)
    };
    write().map_err(Error::io(&path))?;
    Ok(path)
}
