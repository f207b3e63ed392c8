use super::augment::Augment;
use super::pictures::PicturesConfig;
use serde::Deserialize;
use std::path::PathBuf;

/// Section `[data]` of a recipe: what is made, and how much of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DataConfig {
    /// All choices follow from it.
    pub seed: u64,
    /// Folder with the corpus; relative to the recipe.
    pub corpus: PathBuf,
    /// Language model (GGUF) whose own answers to free requests are learnt; relative to the cache.
    pub base: PathBuf,
    /// Programs that speak at the same time.
    pub threads: usize,
    pub augment: Augment,
    pub train: Counts,
    pub valid: Counts,
    /// Half of it in phrasings never trained on.
    pub test: Counts,
    /// The stage `pictures`.
    pub pictures: PicturesConfig,
}

/// Items of each kind.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Counts {
    pub spoken_questions: usize,
    pub spoken_talk: usize,
    pub spoken_prose: usize,
    pub spoken_chat: usize,
    /// In phrasings that are for training alone.
    pub spoken_more_questions: usize,
    /// Bare words, lists, games, what is read aloud, and further talk.
    pub spoken_more_talk: usize,
    /// Noises without speech to anybody.
    pub sounds: usize,
    /// Speech known only as what ears might have written.
    pub simulated_questions: usize,
    pub simulated_sums: usize,
    pub simulated_talk: usize,
    pub simulated_prose: usize,
    pub typed_questions: usize,
    pub typed_sums: usize,
    pub typed_chat: usize,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            corpus: "data".into(),
            base: "models/SmolLM2-135M-Instruct.Q4_1.gguf".into(),
            threads: 2,
            augment: Augment::default(),
            train: Counts {
                spoken_questions: 2_600,
                spoken_talk: 1_700,
                spoken_prose: 250,
                spoken_chat: 80,
                spoken_more_questions: 500,
                spoken_more_talk: 600,
                sounds: 450,
                simulated_questions: 9_000,
                simulated_sums: 2_500,
                simulated_talk: 6_000,
                simulated_prose: 900,
                typed_questions: 5_500,
                typed_sums: 1_500,
                typed_chat: 260,
            },
            valid: Counts {
                spoken_questions: 80,
                spoken_talk: 60,
                spoken_prose: 12,
                spoken_more_talk: 24,
                sounds: 24,
                typed_questions: 60,
                ..Counts::default()
            },
            test: Counts {
                spoken_questions: 600,
                spoken_talk: 300,
                spoken_prose: 40,
                spoken_more_talk: 60,
                sounds: 200,
                typed_questions: 400,
                typed_chat: 50,
                ..Counts::default()
            },
            pictures: PicturesConfig::default(),
        }
    }
}
