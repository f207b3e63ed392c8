//! How values of our keys are spelled in a pipeline, where that differs, and back.

const WORDS: [(&str, &str, &str); 3] = [
    ("transport", "auto", "tcp+udp-mcast+udp"),
    ("tls_verify", "true", "validate-all"),
    ("tls_verify", "false", "no-flags"),
];

/// Frames a second are kept to a thousandth.
const FPS_PARTS: u32 = 1_000;

pub fn to_pipeline(key: &str, value: &str) -> String {
    if let ("fps", Ok(fps)) = (key, value.parse::<f64>()) {
        let parts = (fps * f64::from(FPS_PARTS)).round() as u32;
        let divisor = greatest_common_divisor(parts, FPS_PARTS);
        return format!("{}/{}", parts / divisor, FPS_PARTS / divisor);
    }
    let word = WORDS
        .iter()
        .find(|(name, ours, _)| *name == key && *ours == value);
    word.map_or(value, |(_, _, spelled)| spelled).to_owned()
}

pub fn from_pipeline(key: &str, spelled: &str) -> String {
    let fraction = spelled
        .split_once('/')
        .and_then(|(n, d)| Some((n.parse::<f64>().ok()?, d.parse::<f64>().ok()?)));
    if let ("fps", Some((numerator, denominator))) = (key, fraction) {
        return (numerator / denominator).to_string();
    }
    let word = WORDS
        .iter()
        .find(|(name, _, theirs)| *name == key && *theirs == spelled);
    word.map_or(spelled, |(_, ours, _)| ours).to_owned()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_go_both_ways() {
        for (key, ours, spelled) in [
            ("fps", "1", "1/1"),
            ("fps", "0.5", "1/2"),
            ("fps", "29.97", "2997/100"),
            ("fps", "0.001", "1/1000"),
            ("transport", "auto", "tcp+udp-mcast+udp"),
            ("transport", "tcp", "tcp"),
            ("tls_verify", "false", "no-flags"),
            ("realtime", "false", "false"),
        ] {
            assert_eq!(
                (to_pipeline(key, ours), from_pipeline(key, spelled)),
                (spelled.to_owned(), ours.to_owned())
            );
        }
    }
}
