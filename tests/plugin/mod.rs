//! The built plugin, where GStreamer finds it.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder of this name that holds nothing but a link to the plugin: GStreamer opens every library below
/// `GST_PLUGIN_PATH`. The plugin is the one beside the test programs, which building them brings up to date.
pub fn folder(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_vita"))
        .parent()
        .expect("cargo's folder");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let link = folder.join("libgstvita.so");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(target.join("deps/libgstvita.so"), link).expect("a link");
    folder
}
