//! Feed-forward layers: dense, and mixtures of experts.

use super::LmConfig;
use crate::nn::{GatedLinear, Linear, Probe, Weights};
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// `down(silu(gate(x)) ⊙ up(x))`.
#[derive(Debug, Clone)]
pub(super) struct GatedMlp {
    inner: GatedLinear,
    down: Linear,
}

impl GatedMlp {
    /// Names are those of gate, up and down, which differ between families.
    fn new(config: &LmConfig, [gate, up, down]: [&str; 3], w: &Weights) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            inner: GatedLinear::new(hidden, inner, &w.pp(gate), &w.pp(up))?,
            down: Linear::no_bias(inner, hidden, &w.pp(down))?,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.inner.forward(xs)?)
    }
}

/// Mixtral's sparse mixture: softmax over all experts, the best few renormalised (spec section 5).
#[derive(Debug, Clone)]
pub(super) struct SparseMoe {
    gate: Linear,
    experts: Vec<GatedMlp>,
    per_token: usize,
}

/// Which tokens an expert serves, and with what weight.
#[derive(Debug, Default, Clone)]
struct Share {
    tokens: Vec<u32>,
    weights: Vec<f32>,
}

impl SparseMoe {
    fn new(config: &LmConfig, experts: usize, per_token: usize, w: &Weights) -> Result<Self> {
        Ok(Self {
            gate: Linear::no_bias(config.hidden_size, experts, &w.pp("gate"))?,
            experts: (0..experts)
                .map(|i| GatedMlp::new(config, ["w1", "w3", "w2"], &w.pp("experts").pp(i)))
                .collect::<Result<_>>()?,
            per_token,
        })
    }

    /// `[tokens, hidden]` to the same.
    fn forward(&self, xs: &Tensor, layer: usize, probe: &mut Probe) -> Result<Tensor> {
        let logits = self.gate.forward(xs)?;
        probe.see(format_args!("router_logits{layer}"), &logits);
        let shares = self.route(&logits)?;
        let differentiable = match logits.track_op() {
            true => Some(chosen_weights(&logits, &shares)?),
            false => None,
        };
        let mut ys = xs.zeros_like()?;
        for (i, (expert, share)) in self.experts.iter().zip(shares).enumerate() {
            let count = share.tokens.len();
            if count == 0 {
                continue;
            }
            let tokens = Tensor::from_vec(share.tokens, count, xs.device())?;
            let weights = match &differentiable {
                Some(weights) => weights
                    .narrow(1, i, 1)?
                    .contiguous()?
                    .index_select(&tokens, 0)?,
                None => Tensor::from_vec(share.weights, (count, 1), xs.device())?,
            };
            let out = expert.forward(&xs.index_select(&tokens, 0)?)?;
            let out = out.broadcast_mul(&weights.to_dtype(out.dtype())?)?;
            ys = ys.index_add(&tokens, &out, 0)?;
        }
        Ok(ys)
    }

    /// The host decides which experts run, so it has to see the few router logits of a step; the
    /// router's weights stay where they are.
    fn route(&self, logits: &Tensor) -> Result<Vec<Share>> {
        let mut shares = vec![Share::default(); self.experts.len()];
        let rows = logits.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        for (token, row) in rows.into_iter().enumerate() {
            for (expert, weight) in best_experts(&row, self.per_token) {
                shares[expert].tokens.push(token as u32);
                shares[expert].weights.push(weight);
            }
        }
        Ok(shares)
    }
}

/// The weights `[tokens, experts]` that [`best_experts`] gives, as a function of the logits; 0 for
/// those that were not chosen.
fn chosen_weights(logits: &Tensor, shares: &[Share]) -> Result<Tensor> {
    let (tokens, experts) = logits.dims2()?;
    let mut chosen = vec![0f32; tokens * experts];
    for (expert, share) in shares.iter().enumerate() {
        for &token in &share.tokens {
            chosen[token as usize * experts + expert] = 1.0;
        }
    }
    let chosen = Tensor::from_vec(chosen, (tokens, experts), logits.device())?;
    let all = candle_nn::ops::softmax(&logits.to_dtype(DType::F32)?, 1)?;
    let best = (all * chosen)?;
    Ok(best.broadcast_div(&best.sum_keepdim(1)?)?)
}

/// The experts with the largest logits and their softmax weights, renormalised to sum to one.
fn best_experts(logits: &[f32], count: usize) -> Vec<(usize, f32)> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|l| (l - max).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.truncate(count);
    let best: Vec<f32> = order.iter().map(|&i| exponentials[i] / sum).collect();
    let total: f32 = best.iter().sum();
    order
        .into_iter()
        .zip(best)
        .map(|(i, p)| (i, p / total))
        .collect()
}

#[derive(Debug, Clone)]
pub(super) enum FeedForward {
    Dense(GatedMlp),
    Sparse(SparseMoe),
}

impl FeedForward {
    /// The projection that leaves a dense layer.
    pub fn down(&self) -> Option<&Linear> {
        match self {
            Self::Dense(mlp) => Some(&mlp.down),
            Self::Sparse(_) => None,
        }
    }

    pub fn down_mut(&mut self) -> Option<&mut Linear> {
        match self {
            Self::Dense(mlp) => Some(&mut mlp.down),
            Self::Sparse(_) => None,
        }
    }

    /// `w` at the layer: the block's name tells dense from sparse in the checkpoint.
    pub fn new(config: &LmConfig, w: &Weights) -> Result<Self> {
        match config.experts() {
            Some((experts, per_token)) => {
                let w = w.pp("block_sparse_moe");
                Ok(Self::Sparse(SparseMoe::new(
                    config, experts, per_token, &w,
                )?))
            }
            None => {
                let names = ["gate_proj", "up_proj", "down_proj"];
                Ok(Self::Dense(GatedMlp::new(config, names, &w.pp("mlp"))?))
            }
        }
    }

    pub fn forward(&self, xs: &Tensor, layer: usize, probe: &mut Probe) -> Result<Tensor> {
        if xs.rank() != 2 {
            return Err(Error::Input(format!("tokens of shape {:?}", xs.dims())));
        }
        match self {
            Self::Dense(mlp) => mlp.forward(xs),
            Self::Sparse(moe) => moe.forward(xs, layer, probe),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_experts_share_the_whole_weight() {
        let best = best_experts(&[0.1, 2.0, -1.0, 1.0], 2);
        assert_eq!(best.iter().map(|b| b.0).collect::<Vec<_>>(), [1, 3]);
        let share = 1.0f32.exp() / (1.0 + 1.0f32.exp());
        assert!((best[0].1 - share).abs() < 1e-6);
        assert!((best[0].1 + best[1].1 - 1.0).abs() < 1e-6);
    }
}
