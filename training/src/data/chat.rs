//! Free requests answered by the base model itself, so that training on them keeps what it can do.

use super::{Error, Progress, Result};
use crate::{Item, Kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use vita_model::prompt::{Conversation, user_turn};
use vita_model::sampling::SamplingParams;
use vita_model::{GenerateOptions, LoadOptions, Vita};

/// Answers are learnt up to the last full stop within so many tokens.
const MAX_TOKENS: usize = 56;

#[derive(Serialize, Deserialize)]
struct Line {
    words: String,
    answer: String,
}

/// Fills in the answers of free requests. Those of earlier runs stand in `folder/chat.jsonl`.
pub fn answer(
    items: &mut [Item],
    base: &Path,
    folder: &Path,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<()> {
    let path = folder.join("chat.jsonl");
    let mut known = read(&path)?;
    let open = |item: &Item| item.kind != Kind::Noise && item.answer.is_none();
    let mut asked: Vec<String> = items
        .iter()
        .filter(|i| open(i))
        .map(|i| i.words.clone())
        .collect();
    asked.sort();
    asked.dedup();
    asked.retain(|words| !known.contains_key(words));
    if !asked.is_empty() {
        let vita = load(base, folder)?;
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io(&path))?;
        for (done, words) in asked.iter().enumerate() {
            let answer = say(&vita, words)?;
            let line = serde_json::json!({ "words": words, "answer": answer });
            writeln!(file, "{line}").map_err(Error::io(&path))?;
            known.insert(words.clone(), answer);
            progress(Progress {
                what: "answers of the base model",
                done: done + 1,
                total: asked.len(),
            });
        }
    }
    for item in items.iter_mut().filter(|i| open(i)) {
        item.answer = known.get(&item.words).filter(|a| !a.is_empty()).cloned();
    }
    Ok(())
}

fn read(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::io(path)(e)),
    };
    // The last line may be half a line, of a run that was cut off.
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok());
    Ok(lines.map(|line| (line.words, line.answer)).collect())
}

/// The language model alone, in a folder of its own. It has no state tokens: three that it never writes
/// stand for them.
pub fn load(base: &Path, folder: &Path) -> Result<Vita> {
    let folder = folder.join("base");
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let weights = folder.join("lm.gguf");
    if !weights.exists() {
        // a manifest names files of its own folder
        let base = base.canonicalize().map_err(Error::io(base))?;
        std::os::unix::fs::symlink(&base, &weights).map_err(Error::io(&weights))?;
    }
    let text = r#"name = "base"
max-length = 2048

[language-model]
path = "lm.gguf"

[template]
system = "<|im_start|>system\n{text}<|im_end|>\n"
user = "<|im_start|>user\n{text}<|im_end|>\n"
bot = "<|im_start|>assistant\n{text}<|im_end|>\n"
open = "<|im_start|>assistant\n"
stop = ["<|im_end|>"]

[state-tokens]
query = "<reponame>"
noise = "<file_sep>"
text = "<filename>"
"#;
    let manifest = folder.join("vita.toml");
    std::fs::write(&manifest, text).map_err(Error::io(&manifest))?;
    Vita::load(&folder, &LoadOptions::default())
        .map_err(|e| Error::tool("base model", e.to_string()))
}

fn say(vita: &Vita, words: &str) -> Result<String> {
    let conversation = Conversation {
        system: None,
        turns: vec![user_turn(Vec::new(), None, Some(words.to_owned()))],
    };
    let options = GenerateOptions {
        sampling: SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        },
        max_new_tokens: MAX_TOKENS,
        stop_at_noise: false,
        keep_special: false,
    };
    let failed = |e: vita_model::Error| Error::tool("base model", format!("{words:?}: {e}"));
    let prompt = vita.prompt(&conversation).map_err(failed)?;
    let answer = vita
        .generate(&prompt, &options, |_| ControlFlow::Continue(()))
        .map_err(failed)?;
    Ok(whole_sentences(&answer.text).to_owned())
}

/// Up to the last full stop, question mark or end of line.
fn whole_sentences(text: &str) -> &str {
    let text = text.trim();
    match text.rfind(['.', '!', '?']) {
        Some(end) => text[..=end].trim(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_sentence_is_not_learnt() {
        assert_eq!(whole_sentences(" One. Two! And th"), "One. Two!");
        assert_eq!(whole_sentences("Yes"), "Yes");
    }

    #[test]
    fn answers_of_an_earlier_run_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let line = r#"{"words": "Hello?", "answer": "Hi."}"#;
        std::fs::write(folder.path().join("chat.jsonl"), format!("{line}\n{{\"wor")).unwrap();
        let item = r#"{"id": "1", "split": "train", "kind": "text", "audio": null, "words": "Hello?", "system": "lang", "answer": null}"#;
        let mut items = vec![serde_json::from_str::<Item>(item).unwrap()];
        answer(&mut items, Path::new("/nowhere"), folder.path(), &|_| {}).unwrap();
        assert_eq!(items[0].answer.as_deref(), Some("Hi."));
    }
}
