//! Framing of a stream and the arithmetic of one frame.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use realfft::num_complex::Complex;

use super::plan::{Fbank, Frontend};
use super::{Error, WHISPER_FLOOR};

/// Samples that are copied into the state at a time, so that its memory does not depend on the caller's slices.
const BLOCK: usize = 4096;

const PRE_EMPHASIS: f64 = 0.97;

/// Kaldi's floor of energies before the logarithm: the f32 machine epsilon.
const KALDI_FLOOR: f32 = f32::EPSILON;

/// Any number will do: it makes the dither of a stream reproducible.
const DITHER_SEED: u64 = 0x5eed;

/// One stream's place in a [`Fbank`]: the samples that the next frames still need, and scratch memory.
/// It belongs to the `Fbank` that made it.
pub struct FbankState {
    /// From the first sample of the next frame on.
    pending: Vec<f32>,
    /// The mirrored start is in `pending`.
    started: bool,
    samples: u64,
    frames: u64,
    /// The frame's samples with dither.
    noisy: Vec<f32>,
    frame: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    power: Vec<f32>,
    dither: SmallRng,
}

impl std::fmt::Debug for FbankState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FbankState")
            .field("samples", &self.samples)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

impl FbankState {
    /// Samples taken since the start or the last reset.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Frames given since the start or the last reset.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Forgets the stream; the next sample is the first one of a new stream.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.started = false;
        self.samples = 0;
        self.frames = 0;
        self.dither = SmallRng::seed_from_u64(DITHER_SEED);
    }
}

impl Fbank {
    /// A frame of digital silence (without dither): the floor of the energies in every bin.
    pub fn silence(&self) -> Vec<f32> {
        let floor = match self.frontend {
            Frontend::Whale { .. } => KALDI_FLOOR.ln(),
            Frontend::Whisper => WHISPER_FLOOR.log10(),
        };
        vec![floor; self.num_mel_bins()]
    }

    /// The state of a new stream. All memory that the stream will need is allocated here.
    pub fn state(&self) -> FbankState {
        let fft_len = self.fft.len();
        FbankState {
            pending: Vec::with_capacity(BLOCK + 2 * self.frame_length + self.left_padding()),
            started: false,
            samples: 0,
            frames: 0,
            noisy: vec![0.0; self.frame_length],
            frame: vec![0.0; fft_len],
            spectrum: vec![Complex::default(); fft_len / 2 + 1],
            scratch: vec![Complex::default(); self.fft.get_scratch_len()],
            power: vec![0.0; fft_len / 2 + 1],
            dither: SmallRng::seed_from_u64(DITHER_SEED),
        }
    }

    /// Takes samples in [−1, 1] and appends the frames that are complete with them to `out`
    /// (`[frames, num_mel_bins]`, row-major). Returns how many.
    pub fn push(&self, state: &mut FbankState, samples: &[f32], out: &mut Vec<f32>) -> usize {
        let mut frames = 0;
        for block in samples.chunks(BLOCK) {
            state.pending.extend_from_slice(block);
            state.samples += block.len() as u64;
            if !state.started {
                state.started = self.mirror_start(&mut state.pending);
            }
            if state.started {
                frames += self.drain(state, usize::MAX, out);
            }
        }
        frames
    }

    /// Ends the stream: appends the frames that its end completes, returns how many, and resets the state.
    ///
    /// Whale: none, what is left is less than a frame. Whisper: the signal is mirrored at its end, and there are
    /// `samples / 160` frames in all, as in the original; none if it was shorter than 201 samples.
    pub fn finish(&self, state: &mut FbankState, out: &mut Vec<f32>) -> usize {
        let mut frames = 0;
        if self.left_padding() > 0 && state.started {
            let total = state.samples / self.frame_shift as u64;
            // After every push more than half a window is pending, so the mirror image is all there.
            let end = state.pending.len();
            for back in 0..self.left_padding() {
                let mirrored = state.pending[end - 2 - back];
                state.pending.push(mirrored);
            }
            frames = self.drain(state, total.saturating_sub(state.frames) as usize, out);
        }
        state.reset();
        frames
    }

    /// The frames of a whole signal, `[frames, num_mel_bins]`, row-major.
    ///
    /// # Errors
    /// [`Error::TooShort`] if the signal has no frame: fewer than 400 samples with the default whale front end,
    /// fewer than 201 with Whisper's.
    pub fn compute(&self, samples: &[f32]) -> Result<Vec<f32>, Error> {
        let mut state = self.state();
        let mut out =
            Vec::with_capacity((samples.len() / self.frame_shift + 1) * self.num_mel_bins());
        let frames = self.push(&mut state, samples, &mut out) + self.finish(&mut state, &mut out);
        if frames == 0 {
            let needed = match self.frontend {
                Frontend::Whale { .. } => self.frame_length,
                Frontend::Whisper => self.left_padding() + 1,
            };
            return Err(Error::TooShort {
                samples: samples.len(),
                needed,
            });
        }
        Ok(out)
    }

    /// Puts the mirror image of the stream's start before it, once enough samples are there to mirror.
    fn mirror_start(&self, pending: &mut Vec<f32>) -> bool {
        let padding = self.left_padding();
        let taken = pending.len();
        if taken <= padding {
            return padding == 0;
        }
        pending.resize(taken + padding, 0.0);
        pending.copy_within(..taken, padding);
        for n in 0..padding {
            pending[n] = pending[2 * padding - n];
        }
        true
    }

    /// Computes up to `limit` frames that are complete in `pending`.
    fn drain(&self, state: &mut FbankState, limit: usize, out: &mut Vec<f32>) -> usize {
        let bins = self.num_mel_bins();
        let ready = match state.pending.len().checked_sub(self.frame_length) {
            Some(beyond) => (1 + beyond / self.frame_shift).min(limit),
            None => 0,
        };
        let first = out.len();
        out.resize(first + ready * bins, 0.0);
        for (n, out) in out[first..].chunks_exact_mut(bins).enumerate() {
            self.analyse(state, n * self.frame_shift, out);
        }
        let used = ready * self.frame_shift;
        state.pending.copy_within(used.., 0);
        state.pending.truncate(state.pending.len() - used);
        state.frames += ready as u64;
        ready
    }

    /// The frame at `pending[at..]`.
    fn analyse(&self, state: &mut FbankState, at: usize, out: &mut [f32]) {
        let samples = &state.pending[at..at + self.frame_length];
        let (frame, padding) = state.frame.split_at_mut(self.frame_length);
        padding.fill(0.0);
        match self.frontend {
            Frontend::Whale { dither } => {
                let samples = if dither > 0.0 {
                    state.noisy.copy_from_slice(samples);
                    add_noise(&mut state.noisy, dither / 32768.0, &mut state.dither);
                    &state.noisy
                } else {
                    samples
                };
                emphasise(samples, &self.window, frame);
            }
            Frontend::Whisper => {
                for ((y, x), w) in frame.iter_mut().zip(samples).zip(&self.window) {
                    *y = (f64::from(*x) * w) as f32;
                }
            }
        }
        self.fft
            .process_with_scratch(&mut state.frame, &mut state.spectrum, &mut state.scratch)
            .expect("the buffers were made for this FFT");
        for (power, bin) in state.power.iter_mut().zip(&state.spectrum) {
            *power = bin.norm_sqr();
        }
        self.filters.apply(&state.power, out);
        match self.frontend {
            Frontend::Whale { .. } => out.iter_mut().for_each(|x| *x = x.max(KALDI_FLOOR).ln()),
            Frontend::Whisper => out
                .iter_mut()
                .for_each(|x| *x = x.max(WHISPER_FLOOR).log10()),
        }
    }
}

/// Removes the mean, emphasises high frequencies and applies the window.
///
/// In f64 up to the last rounding: in f32 the roundings of a loud frame would be seen in its near-silent bins (2e-3).
fn emphasise(samples: &[f32], window: &[f64], out: &mut [f32]) {
    let mean = sum(samples) / samples.len() as f64;
    // (x − mean) − 0.97 (before − mean), and Kaldi takes the first sample as its own predecessor.
    let rest = (1.0 - PRE_EMPHASIS) * mean;
    out[0] = (((1.0 - PRE_EMPHASIS) * f64::from(samples[0]) - rest) * window[0]) as f32;
    for ((out, pair), w) in out[1..]
        .iter_mut()
        .zip(samples.windows(2))
        .zip(&window[1..])
    {
        *out = ((f64::from(pair[1]) - PRE_EMPHASIS * f64::from(pair[0]) - rest) * w) as f32;
    }
}

/// A sum in eight lanes: a fixed order that the compiler can vectorise.
fn sum(values: &[f32]) -> f64 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*x);
        }
    }
    lanes
        .into_iter()
        .chain(rest.iter().map(|x| f64::from(*x)))
        .sum()
}

/// Adds Gaussian noise (Box–Muller).
fn add_noise(frame: &mut [f32], deviation: f32, rng: &mut SmallRng) {
    for pair in frame.chunks_mut(2) {
        let radius = deviation * (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * rng.random::<f32>()).sin_cos();
        pair[0] += radius * cos;
        if let Some(second) = pair.get_mut(1) {
            *second += radius * sin;
        }
    }
}
