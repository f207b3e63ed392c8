//! How sure a share is.

/// The Wilson score interval at 95 % of `right` in `total`; 0..=1 where nothing was counted.
pub fn wilson(right: usize, total: usize) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    if total == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (total as f64, right as f64 / total as f64);
    let z2 = Z * Z / n;
    let centre = p + z2 / 2.0;
    let spread = Z * (p * (1.0 - p) / n + z2 / (4.0 * n)).sqrt();
    let bound = |x: f64| (x / (1.0 + z2)).clamp(0.0, 1.0);
    (bound(centre - spread), bound(centre + spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of Newcombe 1998, Statistics in Medicine 17, table I.
    #[test]
    fn known_intervals() {
        for (right, total, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
        ] {
            let (l, h) = wilson(right, total);
            assert!(
                (l - low).abs() < 1e-4 && (h - high).abs() < 1e-4,
                "{right}/{total}: {l} {h}"
            );
        }
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }
}
