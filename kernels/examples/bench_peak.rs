//! What this CPU can do on one thread: f32 multiply-adds from registers, and reading memory. The limits that
//! `scripts/bench-towers` and `scripts/bench-lm` hold the models against. Prints one line of JSON.

use std::hint::black_box;
use std::time::Instant;
use vita_kernels::Level;
use vita_kernels::simd::{Avx2, Avx512, Simd};

/// Independent chains: more than latency × units of the CPUs of today.
const CHAINS: usize = 14;
const STEPS: usize = 4_000_000;
const ROUNDS: usize = 5;
/// Larger than any last-level cache that one core of today reaches.
const MEMORY_VALUES: usize = 64 << 20;

fn multiply_adds<S: Simd>(s: S) -> f64 {
    let (x, y) = (black_box(0.999), black_box(0.001));
    let start = Instant::now();
    let sum = s.enter(
        #[inline(always)]
        || {
            let (x, y) = (s.splat(x), s.splat(y));
            let mut chains = [s.splat(1.0); CHAINS];
            for _ in 0..STEPS {
                for chain in &mut chains {
                    *chain = s.fma(*chain, x, y);
                }
            }
            chains.into_iter().map(|chain| s.sum(chain)).sum::<f32>()
        },
    );
    black_box(sum);
    (2 * CHAINS * STEPS * S::LANES) as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn read<S: Simd>(s: S, memory: &[f32]) -> f64 {
    let start = Instant::now();
    let sum = s.enter(
        #[inline(always)]
        || {
            let mut sums = [s.zero(); 8];
            for chunk in memory.chunks_exact(8 * S::LANES) {
                for (sum, v) in sums.iter_mut().zip(chunk.chunks_exact(S::LANES)) {
                    *sum = s.add(*sum, s.load(v));
                }
            }
            sums.into_iter().map(|sum| s.sum(sum)).sum::<f32>()
        },
    );
    black_box(sum);
    size_of_val(memory) as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// The best of several rounds: a limit is not an average.
fn best(mut measure: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| measure()).fold(0.0, f64::max)
}

fn main() {
    let memory = vec![1.0f32; MEMORY_VALUES];
    let (gflops, gbytes) = if let Some(s) = Avx512::new() {
        (best(|| multiply_adds(s)), best(|| read(s, &memory)))
    } else if let Some(s) = Avx2::new() {
        (best(|| multiply_adds(s)), best(|| read(s, &memory)))
    } else {
        eprintln!("no AVX2 here: the peak is not measured");
        std::process::exit(1);
    };
    println!(
        "{{\"level\": \"{:?}\", \"gflops\": {gflops:.1}, \"gbytes\": {gbytes:.1}}}",
        Level::detect()
    );
}
