//! What never changes of a filterbank: framing, window, FFT and filters.

use std::f64::consts::PI;
use std::fmt;
use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

use super::Error;
use super::filters::MelFilters;

/// Parameters of the Kaldi-compatible filterbank. The defaults are VITA's, with dither off.
#[derive(Debug, Clone, PartialEq)]
pub struct WhaleConfig {
    pub num_mel_bins: usize,
    pub frame_length_ms: f64,
    pub frame_shift_ms: f64,
    pub sample_rate_hz: u32,
    /// Standard deviation of the Gaussian noise added to each sample of each frame, in units of 16-bit samples.
    /// The noise of a stream is reproducible: it starts from the same seed.
    pub dither: f32,
    pub low_freq_hz: f64,
    pub high_freq_hz: f64,
}

impl Default for WhaleConfig {
    fn default() -> Self {
        Self {
            num_mel_bins: 80,
            frame_length_ms: 25.0,
            frame_shift_ms: 10.0,
            sample_rate_hz: 16_000,
            dither: 0.0,
            low_freq_hz: 20.0,
            high_freq_hz: 8_000.0,
        }
    }
}

/// Which features a [`Fbank`] computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Frontend {
    /// Natural logarithm of Kaldi's mel energies. Frame t covers the samples from `t · shift`; only whole frames.
    Whale { dither: f32 },
    /// log10 of Whisper's mel energies, before [`super::normalise_whisper`]. Frame t is centred on sample `t · 160`;
    /// the signal is mirrored at both ends.
    Whisper,
}

/// A filterbank's immutable part; see the [module](super).
pub struct Fbank {
    pub(super) frontend: Frontend,
    pub(super) frame_length: usize,
    pub(super) frame_shift: usize,
    pub(super) window: Vec<f64>,
    pub(super) fft: Arc<dyn RealToComplex<f32>>,
    pub(super) filters: MelFilters,
    sample_rate_hz: u32,
}

impl fmt::Debug for Fbank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fbank")
            .field("frontend", &self.frontend)
            .field("frame_length", &self.frame_length)
            .field("frame_shift", &self.frame_shift)
            .field("num_mel_bins", &self.num_mel_bins())
            .finish_non_exhaustive()
    }
}

impl Fbank {
    /// The Kaldi-compatible filterbank of VITA (model specification 4.2): mean removed, pre-emphasis 0.97, "povey"
    /// window, power spectrum, triangles in mel, natural logarithm with a floor of 1.19e-7, samples × 32768.
    pub fn whale(config: &WhaleConfig) -> Result<Self, Error> {
        config.validate()?;
        let frame_length = config.samples(config.frame_length_ms);
        let fft_len = frame_length.next_power_of_two();
        // The window also scales to 16-bit samples.
        let window = (0..frame_length)
            .map(|n| 0.5 - 0.5 * (2.0 * PI * n as f64 / (frame_length - 1) as f64).cos())
            .map(|hann: f64| hann.powf(0.85) * 32768.0)
            .collect();
        Ok(Self {
            frontend: Frontend::Whale {
                dither: config.dither,
            },
            frame_length,
            frame_shift: config.samples(config.frame_shift_ms),
            window,
            fft: RealFftPlanner::new().plan_fft_forward(fft_len),
            filters: MelFilters::kaldi(
                config.num_mel_bins,
                fft_len,
                f64::from(config.sample_rate_hz),
                config.low_freq_hz,
                config.high_freq_hz,
            ),
            sample_rate_hz: config.sample_rate_hz,
        })
    }

    /// Whisper's log-mel at 16 kHz with 80 filters: windows of 400 samples every 160, periodic Hann.
    pub fn whisper() -> Self {
        const N_FFT: usize = 400;
        let window = (0..N_FFT)
            .map(|n| 0.5 - 0.5 * (2.0 * PI * n as f64 / N_FFT as f64).cos())
            .collect();
        Self {
            frontend: Frontend::Whisper,
            frame_length: N_FFT,
            frame_shift: 160,
            window,
            fft: RealFftPlanner::new().plan_fft_forward(N_FFT),
            filters: MelFilters::slaney(80, N_FFT, 16_000.0),
            sample_rate_hz: 16_000,
        }
    }

    /// Values in a frame.
    pub fn num_mel_bins(&self) -> usize {
        self.filters.len()
    }

    /// Samples that a frame looks at.
    pub fn frame_length(&self) -> usize {
        self.frame_length
    }

    /// Samples from one frame to the next.
    pub fn frame_shift(&self) -> usize {
        self.frame_shift
    }

    pub fn sample_rate_hz(&self) -> u32 {
        self.sample_rate_hz
    }

    pub fn frontend(&self) -> Frontend {
        self.frontend
    }

    /// Mirrored samples before the first one: half a window where frames are centred.
    pub(super) fn left_padding(&self) -> usize {
        match self.frontend {
            Frontend::Whale { .. } => 0,
            Frontend::Whisper => self.frame_length / 2,
        }
    }

    /// Samples after `t · frame_shift` that frame t needs: how long after its time a frame is known.
    pub fn look_ahead(&self) -> usize {
        self.frame_length - self.left_padding()
    }
}

impl WhaleConfig {
    fn samples(&self, ms: f64) -> usize {
        (ms * f64::from(self.sample_rate_hz) / 1000.0) as usize
    }

    fn validate(&self) -> Result<(), Error> {
        let check = |ok: bool, field, value: String, expected: &str| {
            let expected = expected.to_owned();
            if ok {
                Ok(())
            } else {
                Err(Error::Config {
                    field,
                    value,
                    expected,
                })
            }
        };
        let nyquist = f64::from(self.sample_rate_hz) / 2.0;
        // A minute bounds what is allocated, and NaN fails every comparison.
        let length = self.frame_length_ms <= 60_000.0 && self.samples(self.frame_length_ms) >= 2;
        let shift =
            self.frame_shift_ms <= self.frame_length_ms && self.samples(self.frame_shift_ms) >= 1;
        check(
            (1..=1024).contains(&self.num_mel_bins),
            "num_mel_bins",
            self.num_mel_bins.to_string(),
            "1 to 1024",
        )?;
        check(
            (1_000..=384_000).contains(&self.sample_rate_hz),
            "sample_rate_hz",
            self.sample_rate_hz.to_string(),
            "1000 to 384000",
        )?;
        check(
            length,
            "frame_length_ms",
            self.frame_length_ms.to_string(),
            "two samples or more, at most a minute",
        )?;
        check(
            shift,
            "frame_shift_ms",
            self.frame_shift_ms.to_string(),
            "one sample or more, at most frame_length_ms",
        )?;
        check(
            self.dither >= 0.0 && self.dither.is_finite(),
            "dither",
            self.dither.to_string(),
            "0 or more",
        )?;
        check(
            self.high_freq_hz > 0.0 && self.high_freq_hz <= nyquist,
            "high_freq_hz",
            self.high_freq_hz.to_string(),
            &format!("above 0, at most {nyquist} (half the sample rate)"),
        )?;
        check(
            self.low_freq_hz >= 0.0 && self.low_freq_hz < self.high_freq_hz,
            "low_freq_hz",
            self.low_freq_hz.to_string(),
            &format!("0 or more, below high_freq_hz ({})", self.high_freq_hz),
        )
    }
}
