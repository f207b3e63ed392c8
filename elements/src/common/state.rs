use std::path::PathBuf;

/// Where what must outlive the process is kept: `vita-stream` in `$XDG_STATE_HOME` or `~/.local/state`, by the environment's `env`.
/// `None`: it names no home.
pub fn state_folder(env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let state = env("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.filter(|folder| folder.is_absolute());
    let home = || env("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    Some(state.or_else(home)?.join("vita-stream"))
}
