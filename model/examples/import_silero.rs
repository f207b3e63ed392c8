//! Writes the weights of Silero VAD's ONNX file as safetensors, under the same names:
//! `cargo build --workspace --examples && target/debug/examples/import_silero FROM.onnx TO.safetensors`

use std::{collections::HashMap, error::Error, fs};

use candle_core::Tensor;
use vita_model::vad::{SileroVad, onnx};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = &arguments[..] else {
        return Err("usage: import_silero FROM.onnx TO.safetensors".into());
    };
    let tensors: HashMap<String, Tensor> =
        onnx::initialisers(&fs::read(from)?)?.into_iter().collect();
    candle_core::safetensors::save(&tensors, to)?;
    SileroVad::from_safetensors(&fs::read(to)?)?;
    println!("{to}: {} tensors", tensors.len());
    Ok(())
}
