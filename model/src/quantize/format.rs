use std::str::FromStr;

use candle_core::quantized::GgmlDType;

use super::QuantizeOptions;

/// How the language model's matrices are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LmFormat {
    /// 8.5 bits a weight.
    #[default]
    Q8_0,
    /// 4.5 bits a weight.
    Q4_0,
    /// About 4.8 bits a weight: 4-bit blocks of 256, with 6 bits for the head, half of the values and half of the
    /// feed-forwards' outputs, where the error weighs most.
    Q4KM,
    F16,
}

/// How matrices of the towers and connectors are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TowerFormat {
    #[default]
    F16,
    BF16,
    Q8_0,
    F32,
}

impl LmFormat {
    pub const NAMES: [&'static str; 4] = ["q8_0", "q4_0", "q4_k_m", "f16"];
}

impl TowerFormat {
    pub const NAMES: [&'static str; 4] = ["f16", "bf16", "q8_0", "f32"];
}

impl FromStr for LmFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.to_lowercase().as_str() {
            "q8_0" => Ok(Self::Q8_0),
            "q4_0" => Ok(Self::Q4_0),
            "q4_k_m" => Ok(Self::Q4KM),
            "f16" => Ok(Self::F16),
            _ => Err(format!(
                "expected one of {}, found {name}",
                Self::NAMES.join(", ")
            )),
        }
    }
}

impl FromStr for TowerFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.to_lowercase().as_str() {
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::BF16),
            "q8_0" => Ok(Self::Q8_0),
            "f32" => Ok(Self::F32),
            _ => Err(format!(
                "expected one of {}, found {name}",
                Self::NAMES.join(", ")
            )),
        }
    }
}

/// Tensors with fewer elements stay in f32: they are not worth the error.
const SMALL: usize = 1 << 12;

impl QuantizeOptions {
    /// The format of one tensor of a VITA checkpoint.
    ///
    /// Vectors, tables of positions, small matrices and the routers of a mixture stay in f32: a router's error sends
    /// tokens to other experts.
    /// Blocks run along a row: a row that is no multiple of a block falls back to a format with smaller blocks.
    pub(super) fn format(&self, name: &str, shape: &[usize]) -> GgmlDType {
        let elements: usize = shape.iter().product();
        let exact = ["block_sparse_moe.gate.weight", "position_embedding"];
        if shape.len() < 2 || elements < SMALL || exact.iter().any(|end| name.ends_with(end)) {
            return GgmlDType::F32;
        }
        let wanted = match is_language_model(name) {
            true => self.lm_format(name),
            false => self.tower_format(shape),
        };
        let row = shape.last().copied().unwrap_or(0);
        [wanted, GgmlDType::Q8_0]
            .into_iter()
            .find(|format| row.is_multiple_of(format.block_size()))
            .unwrap_or(GgmlDType::F16)
    }

    fn lm_format(&self, name: &str) -> GgmlDType {
        match self.lm {
            LmFormat::Q8_0 => GgmlDType::Q8_0,
            LmFormat::Q4_0 => GgmlDType::Q4_0,
            LmFormat::F16 => GgmlDType::F16,
            LmFormat::Q4KM if wants_six_bits(name) => GgmlDType::Q6K,
            LmFormat::Q4KM => GgmlDType::Q4K,
        }
    }

    fn tower_format(&self, shape: &[usize]) -> GgmlDType {
        match self.towers {
            TowerFormat::F32 => GgmlDType::F32,
            TowerFormat::F16 => GgmlDType::F16,
            TowerFormat::BF16 => GgmlDType::BF16,
            // Only matrices are multiplied in blocks; convolutions are not.
            TowerFormat::Q8_0 if shape.len() == 2 => GgmlDType::Q8_0,
            TowerFormat::Q8_0 => GgmlDType::F16,
        }
    }
}

fn is_language_model(name: &str) -> bool {
    ["model.layers.", "model.embed_tokens.", "lm_head."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn wants_six_bits(name: &str) -> bool {
    if name.starts_with("lm_head.") {
        return true;
    }
    let layer = name
        .strip_prefix("model.layers.")
        .and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    let sensitive = [".v_proj.", ".down_proj.", ".w2."]
        .iter()
        .any(|part| name.contains(part));
    sensitive && layer.is_some_and(|layer| layer.is_multiple_of(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn format(lm: LmFormat, towers: TowerFormat, name: &str, shape: &[usize]) -> GgmlDType {
        QuantizeOptions { lm, towers }.format(name, shape)
    }

    #[test]
    fn each_part_has_its_format() {
        let q8 = |name, shape: &[usize]| format(LmFormat::Q8_0, TowerFormat::F16, name, shape);
        assert_eq!(
            q8("model.layers.0.self_attn.q_proj.weight", &[4096, 4096]),
            GgmlDType::Q8_0
        );
        assert_eq!(
            q8("model.embed_tokens.weight", &[51760, 4096]),
            GgmlDType::Q8_0
        );
        assert_eq!(
            q8("model.layers.0.input_layernorm.weight", &[4096]),
            GgmlDType::F32
        );
        assert_eq!(
            q8("model.layers.0.block_sparse_moe.gate.weight", &[8, 4096]),
            GgmlDType::F32
        );
        assert_eq!(
            q8("model.mm_projector.0.weight", &[4096, 4096]),
            GgmlDType::F16
        );
        assert_eq!(
            q8(
                "model.audio_encoder.encoder.enc.0.core.conv.2.weight",
                &[1024, 1024, 3, 3]
            ),
            GgmlDType::F16
        );
        let towers = |shape: &[usize]| {
            format(
                LmFormat::Q8_0,
                TowerFormat::Q8_0,
                "model.mm_projector.0.weight",
                shape,
            )
        };
        assert_eq!(towers(&[4096, 4096]), GgmlDType::Q8_0);
        assert_eq!(
            towers(&[4096, 1000]),
            GgmlDType::F16,
            "a row that is no multiple of a block"
        );
    }

    #[test]
    fn the_mixed_format_spends_its_bits_where_the_error_weighs() {
        let mixed = |name, shape: &[usize]| format(LmFormat::Q4KM, TowerFormat::F16, name, shape);
        assert_eq!(
            mixed("model.layers.1.self_attn.v_proj.weight", &[1024, 4096]),
            GgmlDType::Q4K
        );
        assert_eq!(
            mixed("model.layers.2.self_attn.v_proj.weight", &[1024, 4096]),
            GgmlDType::Q6K
        );
        assert_eq!(
            mixed(
                "model.layers.2.block_sparse_moe.experts.7.w2.weight",
                &[4096, 14336]
            ),
            GgmlDType::Q6K
        );
        assert_eq!(mixed("lm_head.weight", &[51760, 4096]), GgmlDType::Q6K);
        assert_eq!(
            mixed("model.layers.2.self_attn.q_proj.weight", &[576, 576]),
            GgmlDType::Q8_0,
            "576 is no multiple of 256"
        );
    }

    #[test]
    fn names_are_read_and_refused() {
        for name in LmFormat::NAMES {
            assert!(name.parse::<LmFormat>().is_ok());
        }
        for name in TowerFormat::NAMES {
            assert!(name.parse::<TowerFormat>().is_ok());
        }
        assert_eq!(
            "q3".parse::<LmFormat>(),
            Err("expected one of q8_0, q4_0, q4_k_m, f16, found q3".into())
        );
    }
}
