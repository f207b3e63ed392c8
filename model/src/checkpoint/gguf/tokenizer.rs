//! A `tokenizer.json` made of a file's metadata.

use super::metadata::Metadata;
use crate::{Error, Result};
use serde_json::{Map, Value, json};

/// Token types of GGUF that are never part of plain text.
const CONTROL: usize = 3;
const USER_DEFINED: usize = 4;

/// Only byte-level BPE, which llama.cpp calls "gpt2": the other kinds are stored without their merges.
pub(super) fn tokenizer_json(metadata: &Metadata) -> Result<Value> {
    let model = metadata.text("tokenizer.ggml.model")?.unwrap_or("none");
    if model != "gpt2" {
        return Err(Error::Tokenizer {
            path: metadata.path.to_path_buf(),
            reason: format!(
                "expected a byte-level BPE (gpt2), found {model}: put a tokenizer.json beside the file"
            ),
        });
    }
    let tokens = metadata.texts("tokenizer.ggml.tokens")?;
    let merges = metadata.texts("tokenizer.ggml.merges")?;
    let merges: Vec<_> = merges
        .iter()
        .filter_map(|m| m.split_once(' '))
        .map(|(a, b)| json!([a, b]))
        .collect();
    let vocab: Map<_, _> = tokens
        .iter()
        .enumerate()
        .map(|(id, t)| (t.to_string(), id.into()))
        .collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": added_tokens(metadata, &tokens)?,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer(metadata)?,
        "post_processor": opening(metadata, &tokens)?,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocab, "merges": merges,
        },
    }))
}

fn added_tokens(metadata: &Metadata, tokens: &[&str]) -> Result<Vec<Value>> {
    let types = metadata
        .get("tokenizer.ggml.token_type")
        .and_then(|v| v.to_vec().ok());
    let kinds = types
        .into_iter()
        .flatten()
        .map(|v| v.to_i32().unwrap_or(0) as usize);
    let added = tokens.iter().zip(kinds).enumerate();
    Ok(added
        .filter(|(_, (_, kind))| matches!(*kind, CONTROL | USER_DEFINED))
        .map(|(id, (token, kind))| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind == CONTROL,
            })
        })
        .collect())
}

/// How text is cut before the merges, by the names that llama.cpp gives the ways.
fn pre_tokenizer(metadata: &Metadata) -> Result<Value> {
    let byte_level = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
    let split = |regex: &str| {
        json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false },
            byte_level(false),
        ]})
    };
    match metadata.text("tokenizer.ggml.pre")?.unwrap_or("default") {
        "gpt-2" | "default" => Ok(byte_level(true)),
        "smollm" => Ok(json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Digits", "individual_digits": true },
            byte_level(true),
        ]})),
        "qwen2" => Ok(split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )),
        "llama-bpe" => Ok(split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )),
        other => Err(metadata.wrong(
            "tokenizer.ggml.pre",
            "smollm, qwen2, llama-bpe or gpt-2",
            other,
        )),
    }
}

/// The token that every text begins with, if the file says so.
fn opening(metadata: &Metadata, tokens: &[&str]) -> Result<Value> {
    let adds = metadata
        .flag("tokenizer.ggml.add_bos_token")?
        .unwrap_or(false);
    let id = metadata.integer("tokenizer.ggml.bos_token_id")?;
    let Some((id, token)) = id
        .filter(|_| adds)
        .and_then(|id| Some((id, *tokens.get(id)?)))
    else {
        return Ok(Value::Null);
    };
    let special = json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let sequence = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    Ok(json!({
        "type": "TemplateProcessing",
        "single": [special, sequence("A")],
        "pair": [special, sequence("A"), sequence("B")],
        "special_tokens": { token: { "id": token, "ids": [id], "tokens": [token] } },
    }))
}
