//! From the names of Hugging Face's checkpoints to llama.cpp's.

use crate::lm::LmConfig;

/// In which order the rows of a matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    AsStored,
    /// Of a query or key projection with so many heads, for interleaved rotation.
    OfHeads(usize),
}

/// Where a tensor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub name: String,
    /// One slice of a tensor that holds all experts.
    pub expert: Option<usize>,
    pub rows: Rows,
}

pub(super) fn place(name: &str, config: &LmConfig, interleaved: bool) -> Option<Place> {
    let whole = |name: String| Place {
        name,
        expert: None,
        rows: Rows::AsStored,
    };
    match name {
        "model.embed_tokens.weight" => return Some(whole("token_embd.weight".into())),
        "model.norm.weight" => return Some(whole("output_norm.weight".into())),
        "lm_head.weight" => return Some(whole("output.weight".into())),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, kind) = part.rsplit_once('.')?;
    let block = |part: &str| format!("blk.{layer}.{part}.{kind}");
    if let Some(expert) = part.strip_prefix("block_sparse_moe.experts.") {
        let (index, matrix) = expert.split_once('.')?;
        let stacked = match matrix {
            "w1" => "ffn_gate_exps",
            "w3" => "ffn_up_exps",
            "w2" => "ffn_down_exps",
            _ => return None,
        };
        return Some(Place {
            expert: Some(index.parse().ok()?),
            ..whole(block(stacked))
        });
    }
    let heads = |heads: usize| {
        if interleaved {
            Rows::OfHeads(heads)
        } else {
            Rows::AsStored
        }
    };
    let (part, rows) = match part {
        "input_layernorm" => ("attn_norm", Rows::AsStored),
        "post_attention_layernorm" => ("ffn_norm", Rows::AsStored),
        "self_attn.q_proj" => ("attn_q", heads(config.num_attention_heads)),
        "self_attn.k_proj" => ("attn_k", heads(config.kv_heads())),
        "self_attn.v_proj" => ("attn_v", Rows::AsStored),
        "self_attn.o_proj" => ("attn_output", Rows::AsStored),
        "mlp.gate_proj" => ("ffn_gate", Rows::AsStored),
        "mlp.up_proj" => ("ffn_up", Rows::AsStored),
        "mlp.down_proj" => ("ffn_down", Rows::AsStored),
        "block_sparse_moe.gate" => ("ffn_gate_inp", Rows::AsStored),
        _ => return None,
    };
    Some(Place {
        rows,
        ..whole(block(part))
    })
}

/// Within each head llama.cpp has put row `j` of the first half and row `j` of the second next to each
/// other; back into halves. Whole rows move, so blocks stay as they are.
pub(super) fn undo_interleaving(data: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let row_bytes = data.len() / rows.max(1);
    let head_rows = rows / heads.max(1);
    let mut out = Vec::with_capacity(data.len());
    for head in 0..heads {
        for half in 0..2 {
            for j in 0..head_rows / 2 {
                let row = head * head_rows + 2 * j + half;
                out.extend_from_slice(&data[row * row_bytes..][..row_bytes]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_come_back_together() {
        let stored = [0u8, 4, 1, 5, 2, 6, 3, 7, 10, 14, 11, 15, 12, 16, 13, 17];
        let wanted = [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17];
        assert_eq!(undo_interleaving(&stored, 16, 2), wanted);
    }
}
