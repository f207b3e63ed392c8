use indicatif::{ProgressBar, ProgressStyle};

/// A bar over steps whose number is told later, with the time to go.
pub fn steps() -> anyhow::Result<ProgressBar> {
    let template = "{bar:30} {pos}/{len} {elapsed}, {eta} to go  {wide_msg}";
    Ok(ProgressBar::new(0).with_style(ProgressStyle::with_template(template)?))
}
