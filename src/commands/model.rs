mod build;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use vita_model::checkpoint::{Inspection, PRECISIONS};
use vita_model::quantize::{self, LmFormat, QuantizeOptions, TowerFormat};

use super::progress;

/// `vita model`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Say which parts a model has, in which types, and how much memory it needs
    Inspect(InspectArgs),
    /// Make the folder of a small model from the parts that `make setup` fetched
    Build(build::Args),
    /// Turn a VITA checkpoint into a quantised one, one tensor in memory at a time
    Quantize(QuantizeArgs),
}

#[derive(clap::Args, Debug)]
struct InspectArgs {
    /// A model folder, a VITA checkpoint or a GGUF file
    path: PathBuf,
}

#[derive(clap::Args, Debug)]
struct QuantizeArgs {
    /// The checkpoint's folder
    checkpoint: PathBuf,

    /// The quantised model's folder, new or empty
    out: PathBuf,

    /// Matrices of the language model: q8_0, q4_0, q4_k_m or f16
    #[arg(long, default_value = "q8_0")]
    lm: LmFormat,

    /// Matrices of towers and connectors: f16, bf16, q8_0 or f32
    #[arg(long, default_value = "f16")]
    towers: TowerFormat,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Inspect(args) => inspect(args),
        Command::Build(args) => build::run(args),
        Command::Quantize(args) => quantize(args),
    }
}

fn inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let inspection = Inspection::of(&args.path).context("cannot inspect the model")?;
    let mut out = std::io::stdout().lock();
    match print(&inspection, &mut out) {
        // whoever reads has seen enough
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        result => Ok(result.map(|()| ExitCode::SUCCESS)?),
    }
}

fn quantize(args: &QuantizeArgs) -> anyhow::Result<ExitCode> {
    let options = QuantizeOptions {
        lm: args.lm,
        towers: args.towers,
    };
    let bar = progress::steps()?;
    let report = quantize::quantize(&args.checkpoint, &args.out, options, |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(progress.tensor.to_owned());
    });
    bar.finish_and_clear();
    let report = report.context("cannot quantise the model")?;
    println!(
        "{}: {} tensors, {} of {}",
        args.out.display(),
        report.tensors,
        size(report.bytes_after),
        size(report.bytes_before)
    );
    Ok(ExitCode::SUCCESS)
}

fn print(inspection: &Inspection, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{}, {} parameters",
        inspection.kind,
        count(inspection.parameters())
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "{:<18} {:>8} {:>12} {:>12}  types",
        "part", "tensors", "parameters", "stored"
    )?;
    for (name, part) in &inspection.parts {
        let (parameters, stored) = (count(part.parameters), size(part.bytes));
        writeln!(
            out,
            "{name:<18} {:>8} {parameters:>12} {stored:>12}  {part}",
            part.tensors
        )?;
    }
    writeln!(out)?;
    let lengths = context_lengths(inspection.max_length);
    write!(out, "{:<18} {:>12}", "memory for", "weights")?;
    for length in &lengths {
        write!(out, " {:>15}", format!("{length} tokens"))?;
    }
    writeln!(out)?;
    for (precision, bits) in PRECISIONS {
        let weights = inspection.weight_bytes(bits);
        write!(out, "{precision:<18} {:>12}", size(weights))?;
        for &length in &lengths {
            write!(
                out,
                " {:>15}",
                size(weights + inspection.cache_bytes(length))
            )?;
        }
        writeln!(out)?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "With the keys and values of one sequence in f32; another sequence adds as much again."
    )
}

/// A quarter of the longest, half of it, all of it.
fn context_lengths(longest: usize) -> Vec<usize> {
    let mut lengths = vec![longest / 4, longest / 2, longest];
    lengths.retain(|&n| n > 0);
    lengths.dedup();
    lengths
}

fn count(n: u64) -> String {
    scaled(n as f64, 1000.0, ["", " k", " M", " G", " T"])
}

fn size(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, [" B", " KiB", " MiB", " GiB", " TiB"])
}

fn scaled(mut value: f64, step: f64, units: [&str; 5]) -> String {
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = if unit == 0 { 0 } else { 1 };
    format!("{value:.digits$}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_parts_of_a_checkpoint_and_the_memory_that_it_needs() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoint");
        let inspection = Inspection::of(&folder).unwrap();
        let mut out = Vec::new();
        print(&inspection, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in [
            "language model",
            "vision tower",
            "visual connector",
            "audio encoder",
            "audio connector",
        ] {
            assert!(text.contains(part), "{text}");
        }
        // 2 layers · 2 (keys, values) · 2 heads · 32 · 4 bytes a position
        assert_eq!(inspection.cache_bytes(1), 2 * 2 * 2 * 32 * 4);
        assert!(
            text.contains("4600 tokens") && text.contains("F32"),
            "{text}"
        );
    }
}
