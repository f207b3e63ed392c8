use indicatif::{ProgressBar, ProgressStyle};

/// A bar from `from` to `to` of something, with the time to go and a message; without `shown` nobody sees it.
pub(crate) fn bar(shown: bool, of: &str, from: u64, to: u64) -> ProgressBar {
    if !shown {
        return ProgressBar::hidden();
    }
    let template =
        format!("{{bar:30}} {{pos}}/{{len}} {of} {{elapsed}}, {{eta}} to go  {{wide_msg}}");
    let style = ProgressStyle::with_template(&template).unwrap_or(ProgressStyle::default_bar());
    let bar = ProgressBar::new(to).with_style(style).with_position(from);
    bar.reset_eta();
    bar
}
