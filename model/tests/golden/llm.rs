//! The language model and the merging of media, for every recorded case (`llm_<case>.safetensors`,
//! `generation.json`).

use crate::support::{Folder, LOGITS, Report, STAGE, Seen, Tensors, say};
use candle_core::{DType, Tensor};
use serde_json::Value;
use std::ops::ControlFlow;
use vita_model::lm::Chunk;
use vita_model::nn::Probe;
use vita_model::prompt::{Media, Segment};
use vita_model::{GenerateOptions, LoadOptions, Result, Vita};

/// Placeholders of the reference's token lists.
const IMAGE: i64 = -200;
const AUDIO: i64 = -500;

#[test]
fn golden_llm_cases() {
    let folder = Folder::find();
    let cases = folder.files("llm_", ".safetensors");
    if cases.is_empty() {
        return say("no llm_*.safetensors: skipped");
    }
    let vita = Vita::load(&folder.checkpoint(), &LoadOptions::default()).unwrap();
    let generation = folder.json("generation.json").unwrap_or_default();
    let mut report = Report::new("llm");
    for case in cases {
        let tensors = folder.tensors(&format!("llm_{case}.safetensors")).unwrap();
        let record = &generation[&case];
        if let Err(e) = compare_case(&folder, &vita, &case, &tensors, record, &mut report) {
            report.fail(format!("{case}: {e}"));
        }
    }
    report.finish();
}

fn compare_case(
    folder: &Folder,
    vita: &Vita,
    case: &str,
    tensors: &Tensors,
    record: &Value,
    report: &mut Report,
) -> Result<()> {
    let prompt = recorded_prompt(folder, vita, tensors, record)?;
    let xs = vita.embed(&prompt)?;
    if let Some(golden) = tensors.get("inputs_embeds") {
        report.close(
            &format!("{case}.inputs_embeds"),
            &xs.unsqueeze(0)?,
            golden,
            STAGE,
        );
    }
    let mut cache = vita.lm().cache();
    let mut seen = Seen::default();
    let hidden = seen.during(|probe| {
        let len = xs.dim(0)?;
        let mut chunks = [Chunk {
            len,
            cache: &mut cache,
        }];
        vita.lm().forward(&xs, &mut chunks, probe)
    })?;
    let all = vita.lm().logits(&hidden)?;
    seen.0.insert("logits".into(), all.clone());
    seen.0
        .insert("last_logits".into(), all.get(all.dim(0)? - 1)?);
    compare_greedy(vita, case, tensors, record, &mut cache, &mut seen, report)?;
    for (stage, golden) in &tensors.0 {
        let tolerance = match stage.as_str() {
            "input_ids" | "audio" | "audio_lengths" | "inputs_embeds" | "greedy" => continue,
            _ => LOGITS,
        };
        match seen.0.get(stage) {
            Some(ours) => report.close(&format!("{case}.{stage}"), ours, golden, tolerance),
            None => report.fail(format!(
                "{case}.{stage}: a stage that the model does not have"
            )),
        }
    }
    compare_answer(vita, case, &prompt, tensors, record, report)
}

/// Decoding by hand, so that the logits of every step can be compared.
fn compare_greedy(
    vita: &Vita,
    case: &str,
    tensors: &Tensors,
    record: &Value,
    cache: &mut vita_model::lm::KvCache,
    seen: &mut Seen,
    report: &mut Report,
) -> Result<()> {
    let Some(golden) = greedy(tensors) else {
        return Ok(());
    };
    let mut logits = seen.0["last_logits"].clone();
    let mut scores = vec![logits.clone()];
    let mut ours = vec![argmax(&logits)?];
    while ours.len() < golden.len() {
        let xs = vita.lm().embed(&ours[ours.len() - 1..])?;
        let mut chunks = [Chunk {
            len: 1,
            cache: &mut *cache,
        }];
        let hidden = vita.lm().forward(&xs, &mut chunks, &mut Probe::none())?;
        logits = vita.lm().logits(&hidden)?.get(0)?;
        ours.push(argmax(&logits)?);
        scores.push(logits);
    }
    report.equal(&format!("{case}.greedy"), &ours, &golden);
    if let Some(recorded) = record["greedy"].as_array() {
        let recorded: Vec<_> = recorded
            .iter()
            .map(|id| id.as_u64().unwrap() as u32)
            .collect();
        report.equal(&format!("{case}.generation.json greedy"), &ours, &recorded);
    }
    seen.0
        .insert("greedy_scores".into(), Tensor::stack(&scores, 0)?);
    Ok(())
}

/// The same through the interface that applications use.
fn compare_answer(
    vita: &Vita,
    case: &str,
    prompt: &[Segment],
    tensors: &Tensors,
    record: &Value,
    report: &mut Report,
) -> Result<()> {
    let Some(golden) = greedy(tensors) else {
        return Ok(());
    };
    let options = GenerateOptions {
        max_new_tokens: golden.len(),
        stop_at_noise: false,
        keep_special: true,
        ..GenerateOptions::default()
    };
    let mut streamed = String::new();
    let answer = vita.generate(prompt, &options, |delta| {
        streamed += &delta.text;
        ControlFlow::Continue(())
    })?;
    report.equal(&format!("{case}.answer"), &answer.ids, &golden);
    report.equal(
        &format!("{case}.streamed"),
        &[streamed],
        std::slice::from_ref(&answer.text),
    );
    if let Some(text) = record["text"].as_str() {
        let decoded = vita.tokenizer().decode(&answer.ids, false)?;
        report.equal(&format!("{case}.text"), &[decoded.as_str()], &[text]);
    }
    Ok(())
}

fn greedy(tensors: &Tensors) -> Option<Vec<u32>> {
    let ids = tensors.get("greedy")?.to_vec1::<i64>().unwrap();
    Some(ids.into_iter().map(|id| id as u32).collect())
}

fn argmax(logits: &Tensor) -> Result<u32> {
    Ok(logits.argmax(0)?.to_scalar()?)
}

/// The recorded ids with our own encodings of the recorded media in place of the placeholders.
fn recorded_prompt(
    folder: &Folder,
    vita: &Vita,
    tensors: &Tensors,
    record: &Value,
) -> Result<Vec<Segment>> {
    let ids = tensors
        .get("input_ids")
        .expect("input_ids")
        .flatten_all()?
        .to_vec1::<i64>()?;
    let mut images = match ids.contains(&IMAGE) {
        true => {
            let pixels = recorded_pixels(folder, record["images_source"].as_str());
            vita.see_pixels(&pixels.into())?
        }
        false => Vec::new(),
    }
    .into_iter();
    let mut audio = match ids.contains(&AUDIO) {
        true => recorded_audio(vita, tensors)?,
        false => Vec::new(),
    }
    .into_iter();
    let mut segments = Vec::new();
    let mut text = Vec::new();
    for id in ids {
        let media = match id {
            IMAGE => images.next().expect("as many pictures as placeholders"),
            AUDIO => audio.next().expect("as many utterances as placeholders"),
            _ => {
                text.push(id as u32);
                continue;
            }
        };
        segments.push(Segment::Ids(std::mem::take(&mut text)));
        segments.push(Segment::Media(media));
    }
    segments.push(Segment::Ids(text));
    Ok(segments)
}

fn recorded_audio(vita: &Vita, tensors: &Tensors) -> Result<Vec<Media>> {
    let features = tensors
        .get("audio")
        .expect("audio features of a case with audio");
    let (rows, frames, _) = features.dims3()?;
    let lengths = match tensors.get("audio_lengths") {
        Some(lengths) => lengths.to_dtype(DType::I64)?.to_vec1::<i64>()?,
        None => vec![frames as i64; rows],
    };
    let rows = lengths.into_iter().enumerate();
    rows.map(|(i, n)| vita.hear_frames(&features.get(i)?.narrow(0, 0, n as usize)?))
        .collect()
}

/// "image.safetensors:pixel_values_a" or "image.safetensors:frame0_square..frame3_square stacked".
fn recorded_pixels(folder: &Folder, source: Option<&str>) -> Tensor {
    let source = source.expect("generation.json names the pictures of a case with pictures");
    let place = source
        .split_whitespace()
        .next()
        .and_then(|place| place.split_once(':'));
    let (file, names) =
        place.unwrap_or_else(|| panic!("cannot read the picture source {source:?}"));
    let tensors = folder
        .tensors(file)
        .unwrap_or_else(|| panic!("{file} is missing"));
    let get = |name: &str| {
        tensors
            .get(name)
            .unwrap_or_else(|| panic!("{file}: no {name}"))
            .clone()
    };
    let Some((first, last)) = names.split_once("..") else {
        return get(names);
    };
    let (from, to) = (number_in(first), number_in(last));
    let name = |i: u32| first.replacen(&from.to_string(), &i.to_string(), 1);
    let frames: Vec<_> = (from..=to).map(|i| get(&name(i))).collect();
    Tensor::stack(&frames, 0).unwrap()
}

fn number_in(name: &str) -> u32 {
    let digits = name.chars().skip_while(|c| !c.is_ascii_digit());
    let digits: String = digits.take_while(char::is_ascii_digit).collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number in {name}"))
}
