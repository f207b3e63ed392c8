//! Triangular mel filters, stored as runs of non-zero weights.

use super::slaney;

/// One filter: `weights[i]` belongs to the FFT bin `start + i`.
struct Run {
    start: usize,
    weights: Vec<f32>,
}

/// A bank of sparse filters over a power spectrum.
pub(super) struct MelFilters {
    runs: Vec<Run>,
}

impl MelFilters {
    /// Kaldi's: `mel(f) = 1127 ln(1 + f / 700)`, triangles in mel, peak 1, and no weight at the Nyquist bin.
    pub fn kaldi(
        num_mel_bins: usize,
        fft_len: usize,
        sample_rate_hz: f64,
        low_hz: f64,
        high_hz: f64,
    ) -> Self {
        let mel = |hz: f64| 1127.0 * (1.0 + hz / 700.0).ln();
        let step = (mel(high_hz) - mel(low_hz)) / (num_mel_bins + 1) as f64;
        let bins: Vec<f64> = (0..fft_len / 2)
            .map(|k| mel(k as f64 * sample_rate_hz / fft_len as f64))
            .collect();
        Self::triangles(
            num_mel_bins,
            &bins,
            |m| mel(low_hz) + m as f64 * step,
            |_, _| 1.0,
        )
    }

    /// Slaney's, as librosa and Whisper have it: linear below 1 kHz, logarithmic above, from 0 Hz to Nyquist,
    /// triangles in Hz, each of unit area.
    pub fn slaney(num_mel_bins: usize, fft_len: usize, sample_rate_hz: f64) -> Self {
        let high_mel = slaney::mel(sample_rate_hz / 2.0);
        let edge_hz = |m: usize| slaney::hz(high_mel * m as f64 / (num_mel_bins + 1) as f64);
        let bins: Vec<f64> = (0..=fft_len / 2)
            .map(|k| k as f64 * sample_rate_hz / fft_len as f64)
            .collect();
        Self::triangles(num_mel_bins, &bins, edge_hz, |left, right| {
            2.0 / (right - left)
        })
    }

    /// Filter m rises from `edge(m)` to `edge(m + 1)` and falls to `edge(m + 2)`; `bins` are on the same scale.
    fn triangles(
        num_mel_bins: usize,
        bins: &[f64],
        edge: impl Fn(usize) -> f64,
        peak: impl Fn(f64, f64) -> f64,
    ) -> Self {
        let run = |m: usize| {
            let (left, centre, right) = (edge(m), edge(m + 1), edge(m + 2));
            let start = bins.partition_point(|&bin| bin <= left);
            let end = bins.partition_point(|&bin| bin < right).max(start);
            let weights = bins[start..end]
                .iter()
                .map(|&bin| {
                    let slope =
                        ((bin - left) / (centre - left)).min((right - bin) / (right - centre));
                    (slope * peak(left, right)) as f32
                })
                .collect();
            Run { start, weights }
        };
        Self {
            runs: (0..num_mel_bins).map(run).collect(),
        }
    }

    /// Number of filters.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// `out[m]` = the energy that filter m lets through of `power` (one value a bin).
    pub fn apply(&self, power: &[f32], out: &mut [f32]) {
        for (run, out) in self.runs.iter().zip(out) {
            let bins = &power[run.start..run.start + run.weights.len()];
            *out = bins.iter().zip(&run.weights).map(|(p, w)| p * w).sum();
        }
    }
}
