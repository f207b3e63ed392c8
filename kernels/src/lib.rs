//! Fast arithmetic on the CPU, behind candle's tensors.
//!
//! [`ops`] is what the models call. Below it each kernel works on slices and exists three times: once
//! generic over the vectors of [`simd`] (AVX2 or AVX-512, chosen at run time), and once as plain
//! portable Rust, against which the tests compare. What it is faster than, and by how much, is
//! measured in `docs/performance.md`.

pub mod attention;
mod buffer;
pub mod conv;
pub mod dense;
pub mod epilogue;
pub mod gemm;
pub mod grad;
pub mod math;
pub mod norm;
pub mod ops;
pub mod q8;
pub mod simd;
mod simd8;
#[cfg(test)]
mod tests;
pub mod threads;

pub use epilogue::Activation;
pub use simd::Level;
pub use threads::{set_threads, threads};
