//! Tokenizer and templates (`prompts.json`).

use crate::support::{Folder, Report, say};
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use vita_model::prompt::{
    Content, Conversation, Media, MediaKind, Modality, Role, Segment, Template, Tokenizer, Turn,
    system_text,
};

const IMAGE_MARKER: &str = "<image>";
const AUDIO_MARKER: &str = "<audio>";

fn load() -> Option<(Value, Tokenizer)> {
    let folder = Folder::find();
    let Some(file) = folder.json("prompts.json") else {
        say("no prompts.json: skipped");
        return None;
    };
    let tokenizer = Tokenizer::load(&folder.checkpoint().join("tokenizer.json")).unwrap();
    Some((file, tokenizer))
}

fn ids(value: &Value) -> Vec<i64> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| id.as_i64().unwrap()).collect()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

#[test]
fn golden_prompt_texts_and_ids() {
    let Some((file, tokenizer)) = load() else {
        return;
    };
    let index = |key: &str, default| file[key].as_i64().unwrap_or(default);
    let markers = (index("image_index", -200), index("audio_index", -500));
    let mut report = Report::new("prompts");
    for (case, record) in entries(&file["prompts"]) {
        let conversation = conversation_of(record, &tokenizer);
        if let Some(golden) = record["prompt"].as_str() {
            let text = reference_text(&conversation, &tokenizer);
            report.equal(&format!("{case}.text"), &[text.as_str()], &[golden]);
        }
        let segments = Template::default()
            .render(&conversation, &tokenizer)
            .unwrap();
        let ours = reference_ids(&segments, markers);
        let has_audio = ours.contains(&markers.1);
        let has_media = has_audio || ours.contains(&markers.0);
        // the helpers that do not know of audio or of media give other ids for prompts with them
        let comparable = [
            ("ids_image_audio", true),
            ("ids_image", !has_audio),
            ("ids_plain", !has_media),
        ];
        for (key, comparable) in comparable {
            if comparable && record[key].is_array() {
                report.equal(&format!("{case}.{key}"), &ours, &ids(&record[key]));
            }
        }
    }
    report.finish();
}

/// The recorded messages, markers turned into media and leading state tokens into tokens.
fn conversation_of(record: &Value, tokenizer: &Tokenizer) -> Conversation {
    let modality = record["modality"].as_str().unwrap();
    let modality = Modality::ALL
        .into_iter()
        .find(|m| m.name() == modality)
        .expect("a known modality");
    let messages = record["messages"].as_array().unwrap().iter().enumerate();
    let turns = messages.filter_map(|(i, message)| {
        let role = if i % 2 == 0 { Role::User } else { Role::Bot };
        let content = content_of(message.as_str()?, tokenizer);
        Some(Turn { role, content })
    });
    let turns: Vec<_> = turns.collect();
    let is_image = |c: &&Content| matches!(c, Content::Media(m) if m.kind == MediaKind::Image);
    let images = turns
        .iter()
        .flat_map(|t| &t.content)
        .filter(is_image)
        .count();
    modality.check(images).unwrap();
    Conversation {
        system: Some(system_text(modality, "VITA")),
        turns,
    }
}

fn content_of(message: &str, tokenizer: &Tokenizer) -> Vec<Content> {
    let mut content = Vec::new();
    let mut rest = message;
    let states = ["<1>", "<2>", "<3>"];
    'parts: while !rest.is_empty() {
        for state in states {
            if let Some(after) = rest.strip_prefix(state) {
                content.push(Content::Token(tokenizer.added_token(state).unwrap()));
                rest = after;
                continue 'parts;
            }
        }
        for (marker, kind) in [
            (IMAGE_MARKER, MediaKind::Image),
            (AUDIO_MARKER, MediaKind::Audio),
        ] {
            if let Some(after) = rest.strip_prefix(marker) {
                let vectors = Tensor::zeros((1, 1), DType::F32, &Device::Cpu).unwrap();
                content.push(Content::Media(Media {
                    kind,
                    key: 0,
                    vectors,
                    transcript: None,
                }));
                rest = after;
                continue 'parts;
            }
        }
        let ends = [IMAGE_MARKER, AUDIO_MARKER].into_iter().chain(states);
        let end = ends
            .filter_map(|m| rest.find(m))
            .min()
            .unwrap_or(rest.len());
        content.push(Content::Text(rest[..end].to_string()));
        rest = &rest[end..];
    }
    content
}

/// What the reference writes before it tokenises: markers and special tokens by their names.
fn reference_text(conversation: &Conversation, tokenizer: &Tokenizer) -> String {
    let template = Template::default();
    let fill = |frame: &str, text: &str| frame.replace("{text}", text);
    let mut prompt = fill(
        &template.system,
        conversation.system.as_deref().unwrap_or_default(),
    );
    for turn in &conversation.turns {
        let name = |c: &Content| match c {
            Content::Text(text) => text.clone(),
            Content::Token(id) => tokenizer.decode(&[*id], false).unwrap(),
            Content::Media(m) if m.kind == MediaKind::Image => IMAGE_MARKER.into(),
            Content::Media(_) => AUDIO_MARKER.into(),
        };
        let text: String = turn.content.iter().map(name).collect();
        let frame = if turn.role == Role::User {
            &template.user
        } else {
            &template.bot
        };
        prompt += &fill(frame, &text);
    }
    prompt + &template.open
}

fn reference_ids(segments: &[Segment], (image, audio): (i64, i64)) -> Vec<i64> {
    let ids = segments.iter().flat_map(|segment| match segment {
        Segment::Ids(ids) => ids.iter().map(|&id| i64::from(id)).collect(),
        Segment::Media(m) if m.kind == MediaKind::Image => vec![image],
        Segment::Media(_) => vec![audio],
    });
    ids.collect()
}

#[test]
fn golden_prompt_tokenizer() {
    let Some((file, tokenizer)) = load() else {
        return;
    };
    let mut report = Report::new("tokenizer");
    for (text, golden) in entries(&file["encode"]) {
        let mut ours: Vec<i64> = tokenizer.bos().into_iter().map(i64::from).collect();
        ours.extend(
            tokenizer
                .encode_markup(text)
                .unwrap()
                .into_iter()
                .map(i64::from),
        );
        report.equal(&format!("encode {text:?}"), &ours, &ids(golden));
    }
    for (i, record) in file["decode"].as_array().into_iter().flatten().enumerate() {
        let ids: Vec<_> = ids(&record["ids"])
            .into_iter()
            .map(|id| id as u32)
            .collect();
        for (key, skip) in [("keep_special", false), ("skip_special", true)] {
            if let Some(golden) = record[key].as_str() {
                let ours = tokenizer.decode(&ids, skip).unwrap();
                report.equal(&format!("decode {i} {key}"), &[ours.as_str()], &[golden]);
            }
        }
    }
    for (name, id) in entries(&file["state_tokens"]) {
        let ours = tokenizer.added_token(name).unwrap();
        report.equal(
            &format!("state token {name}"),
            &[u64::from(ours)],
            &[id.as_u64().unwrap()],
        );
    }
    if let Some(size) = file["vocab_size"].as_u64() {
        report.equal("vocabulary", &[tokenizer.size() as u64], &[size]);
    }
    report.finish();
}
