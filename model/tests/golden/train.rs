//! Losses, gradients, targets and packing of training (spec section 8).

use crate::support::{Folder, Report, STAGE, Tensors, say};
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::sync::Arc;
use vita_model::audio::AudioEncoder;
use vita_model::nn::{Probe, Variables};
use vita_model::prompt::{Media, MediaKind, Modality, Segment, Template, Tokenizer};
use vita_model::train::{CrossEntropy, Labels, Packing, Record, cross_entropy, pack};
use vita_model::{LoadOptions, Vita};

/// Of the folder's README: `gradients in train_batch`.
const GRADIENTS: f32 = 1e-5;
const LOSSES: f32 = 1e-3;
const IMAGE: i64 = -200;
const AUDIO: i64 = -500;
const IGNORED: i64 = -100;

/// One batch of the reference, as its trainer collated it.
struct Batch<'a> {
    tensors: &'a Tensors,
    name: &'a str,
}

impl Batch<'_> {
    fn get(&self, key: &str) -> Option<Tensor> {
        self.tensors.get(&format!("{}.{key}", self.name)).cloned()
    }

    fn table(&self, key: &str) -> Vec<Vec<i64>> {
        let table = self.get(key).unwrap().to_dtype(DType::I64).unwrap();
        table.to_vec2().unwrap()
    }

    /// Embeddings of the rows one after the other, without the padding behind them. Each audio is
    /// inserted with its padding.
    fn embeddings(&self, vita: &Vita) -> (Tensor, Vec<usize>) {
        let mut pictures = match self.get("images") {
            Some(pixels) => vita.eyes().unwrap().encode(&pixels.into()).unwrap(),
            None => Vec::new(),
        };
        let mut sounds = self.sounds(vita);
        pictures.reverse();
        sounds.reverse();
        let (mut parts, mut lengths) = (Vec::new(), Vec::new());
        let masks = self.table("attention_mask_in");
        for (row, mask) in self.table("input_ids").iter().zip(masks) {
            let ids = row
                .iter()
                .zip(mask)
                .filter(|(_, m)| *m == 1)
                .map(|(&id, _)| id);
            let before = total(&parts);
            for id in ids {
                parts.push(match id {
                    IMAGE => pictures.pop().unwrap().vectors,
                    AUDIO => sounds.pop().unwrap(),
                    id => vita.lm().embed(&[id as u32]).unwrap(),
                });
            }
            // a row without pictures or sound has a dummy in their place, which goes nowhere
            if !row.contains(&IMAGE) {
                pictures.pop();
            }
            if !row.contains(&AUDIO) {
                sounds.pop();
            }
            lengths.push(total(&parts) - before);
        }
        (Tensor::cat(&parts, 0).unwrap(), lengths)
    }

    fn sounds(&self, vita: &Vita) -> Vec<Tensor> {
        let AudioEncoder::Whale { encoder, adapter } = &vita.ears().unwrap().encoder else {
            panic!("VITA's ears");
        };
        let lengths = self.get("audio_lengths").unwrap().to_vec1::<i64>().unwrap();
        let lengths: Vec<_> = lengths.iter().map(|&n| n as usize).collect();
        let probe = &mut Probe::none();
        let audio = self.get("audio").unwrap();
        let encoded = encoder.forward(&audio, &lengths, probe).unwrap();
        let tokens = adapter.forward(&encoded, probe).unwrap().values;
        (0..lengths.len()).map(|i| tokens.get(i).unwrap()).collect()
    }
}

fn total(parts: &[Tensor]) -> usize {
    parts.iter().map(|part| part.dim(0).unwrap()).sum()
}

#[test]
fn golden_losses_and_gradients() {
    let folder = Folder::find();
    let Some(tensors) = folder.tensors("train_batch.safetensors") else {
        say("no train_batch.safetensors: skipped");
        return;
    };
    let mut names: Vec<_> = tensors
        .0
        .keys()
        .filter_map(|k| Some(k.split_once('.')?.0))
        .collect();
    names.dedup();
    let mut report = Report::new("train_batch");
    for name in names {
        let batch = Batch {
            tensors: &tensors,
            name,
        };
        compare(&folder, &batch, &mut report);
    }
    report.finish();
}

fn compare(folder: &Folder, batch: &Batch, report: &mut Report) {
    let marker = format!("{}.grad.", batch.name);
    let wanted = batch.tensors.with_prefix(&marker);
    let wanted: Vec<_> = wanted.map(|(n, t)| (n.to_string(), t.clone())).collect();
    let learning: Vec<_> = wanted.iter().map(|(n, _)| n.clone()).collect();
    let variables = Arc::new(Variables::new(move |n| learning.iter().any(|l| l == n)));
    let options = LoadOptions {
        variables: Some(variables.clone()),
        ..LoadOptions::default()
    };
    let vita = Vita::load(&folder.checkpoint(), &options).unwrap();
    let (xs, lengths) = batch.embeddings(&vita);
    let hidden = vita.lm().forward_sequences(&xs, &lengths).unwrap();

    let (mut first, mut rows, mut targets) = (0, Vec::new(), Vec::new());
    for (row, (labels, &len)) in batch.table("labels").iter().zip(&lengths).enumerate() {
        let golden = batch.get("inputs_embeds").unwrap().get(row).unwrap();
        let ours = xs.narrow(0, first, len).unwrap();
        let golden = golden.narrow(0, 0, len).unwrap();
        report.close(
            &format!("{}.inputs_embeds{row}", batch.name),
            &ours,
            &golden,
            STAGE,
        );
        for (i, &label) in labels.iter().enumerate().filter(|(_, l)| **l != IGNORED) {
            // the position before predicts
            rows.push((first + i - 1) as u32);
            targets.push(label as u32);
        }
        first += len;
    }
    let at = Tensor::new(rows, &Device::Cpu).unwrap();
    let hidden = hidden.index_select(&at, 0).unwrap();
    let (own, added) = vita.lm().split_logits(&hidden).unwrap();
    let loss = cross_entropy(&own, added.as_ref(), &CrossEntropy::mean(targets)).unwrap();
    let golden = batch.get("loss").unwrap().squeeze(0).unwrap();
    report.close(&format!("{}.loss", batch.name), &loss, &golden, LOSSES);

    let gradients = loss.backward().unwrap();
    let made = variables.made();
    for (name, golden) in wanted {
        let label = format!("{}.grad.{name}", batch.name);
        let ours = made
            .get(&name)
            .and_then(|var| gradients.get(var.as_tensor()));
        // what nothing depends on has no gradient here, a zero one there
        let ours = ours
            .cloned()
            .unwrap_or_else(|| golden.zeros_like().unwrap());
        report.close(&label, &ours, &golden, GRADIENTS);
    }
}

#[test]
fn golden_packing() {
    let Some(file) = Folder::find().json("packing.json") else {
        say("no packing.json: skipped");
        return;
    };
    let mut report = Report::new("packing");
    for (i, case) in file.as_array().unwrap().iter().enumerate() {
        let numbers = |value: &Value| -> Vec<usize> {
            let values = value.as_array().unwrap().iter();
            values.map(|n| n.as_u64().unwrap() as usize).collect()
        };
        let limit = case["limit"].as_u64().unwrap() as usize;
        let ours = pack(&numbers(&case["token_lens"]), Packing { limit });
        let golden: Vec<_> = case["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(numbers)
            .collect();
        report.equal(&format!("{i}"), &ours, &golden);
    }
    report.finish();
}

#[test]
fn golden_targets() {
    let folder = Folder::find();
    let Some(file) = folder.json("train_targets.json") else {
        say("no train_targets.json: skipped");
        return;
    };
    let tokenizer = Tokenizer::load(&folder.checkpoint().join("tokenizer.json")).unwrap();
    let mut report = Report::new("train_targets");
    for (case, golden) in file.as_object().unwrap() {
        let record = record_of(golden);
        let prepared = record.prepare();
        let texts: Vec<_> = prepared
            .iter()
            .map(|p| p.state.map_or("", |state| state.name()).to_string() + &p.text)
            .collect();
        let wanted: Vec<String> = strings(&golden["after_preprocess"]);
        report.equal(&format!("{case}.after_preprocess"), &texts, &wanted);

        let text = texts.concat();
        let mut at = 0;
        let media = std::iter::from_fn(|| {
            let next = |marker: &str| text[at..].find(marker).unwrap_or(usize::MAX);
            let (image, audio) = (next("<image>"), next("<audio>"));
            let (found, kind) = match image < audio {
                true => (image, MediaKind::Image),
                false => (audio, MediaKind::Audio),
            };
            at += found.checked_add(1)?;
            Some(Media {
                kind,
                key: 0,
                vectors: Tensor::zeros((1, 1), DType::F32, &Device::Cpu).unwrap(),
                transcript: None,
            })
        });
        let states = tokenizer.state_tokens().unwrap();
        let conversation = record.conversation(states, media).unwrap();
        let ended = golden["end_tag"].as_bool().unwrap();
        let labels = Labels {
            with_token_before: prepared.iter().all(|p| p.state.is_none()),
        };
        let template = Template::default();
        let labelled = labels
            .render(&template, &tokenizer, &conversation, ended)
            .unwrap();
        let (mut ids, mut targets) = (Vec::new(), Vec::new());
        for part in labelled {
            let own = match part.segment {
                Segment::Ids(ids) => ids.into_iter().map(i64::from).collect(),
                Segment::Media(m) if m.kind == MediaKind::Image => vec![IMAGE],
                Segment::Media(_) => vec![AUDIO],
            };
            let asked = own.iter().zip(part.targets);
            targets.extend(asked.map(|(&id, is)| if is { id } else { IGNORED }));
            ids.extend(own);
        }
        report.equal(
            &format!("{case}.input_ids"),
            &ids,
            &integers(&golden["input_ids"]),
        );
        report.equal(
            &format!("{case}.labels"),
            &targets,
            &integers(&golden["labels"]),
        );
    }
    report.finish();
}

fn record_of(golden: &Value) -> Record {
    let messages = golden["conversations"].as_array().unwrap().iter();
    let modality = golden["modality"].as_str().unwrap();
    let tiles = integers(&golden["patch_num"]).into_iter();
    Record {
        modality: Modality::ALL
            .into_iter()
            .find(|m| m.name() == modality)
            .unwrap(),
        messages: messages
            .map(|m| m["value"].as_str().unwrap().to_string())
            .collect(),
        tiles: tiles.map(|n| n as usize).collect(),
        frames: golden["image_token_num"].as_u64().unwrap() as usize,
        noise: golden["inserted_id"].as_u64().map(|i| i as usize),
    }
}

fn strings(value: &Value) -> Vec<String> {
    let values = value.as_array().unwrap().iter();
    values.map(|v| v.as_str().unwrap().to_string()).collect()
}

fn integers(value: &Value) -> Vec<i64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_i64().unwrap())
        .collect()
}
