//! The manifest of a folder that is made.

use super::{
    CLASSES_FILE, CTC_FILE, CTC_PREFIX, DETECTOR_FILE, EARS_FILE, EARS_TOKENIZER_FILE, EYES_FILE,
    Generation, LANGUAGE_FILE, OBJECTS_FILE, TOKENIZER_FILE, TRAINED_FILE, audio_connector,
    ctc_connector, whisper,
};
use crate::connector::{PooledConfig, StackedConfig};
use crate::vision::detector::{PERSON_PERCENT, SMALL_PERSON_PERCENT, THING_PERCENT};

/// The part of Whisper's own decoder.
pub fn decoder_part(ears: &whisper::Ears, generation: &Generation) -> String {
    let decoder = &ears.decoder;
    format!(
        r#"[audio.decoder]
weights = {{ file = "{EARS_FILE}", prefix = "decoder" }}
tokenizer = "{EARS_TOKENIZER_FILE}"
suppress = {suppress:?}
suppress-first = {suppress_first:?}

[audio.decoder.config]
vocab-size = {vocabulary}
decoder-attention-heads = {heads}
decoder-ffn-dim = {inner}
decoder-layers = {layers}
max-target-positions = {texts}"#,
        suppress = generation.suppress_ids,
        suppress_first = generation.suppress_ids_begin,
        vocabulary = decoder.vocab_size,
        heads = decoder.decoder_attention_heads,
        inner = decoder.decoder_ffn_dim,
        layers = decoder.decoder_layers,
        texts = decoder.max_target_positions,
    )
}

/// The part of a connector trained by CTC.
pub fn ctc_part() -> String {
    let StackedConfig {
        stack,
        hidden,
        groups,
    } = ctc_connector();
    let prefix = CTC_PREFIX.trim_end_matches('.');
    format!(
        r#"[audio.ctc]
weights = {{ file = "{CTC_FILE}", prefix = "{prefix}" }}
connector = {{ stack = {stack}, hidden = {hidden}, groups = {groups} }}"#
    )
}

/// The whole, with the part of what reads.
pub fn text(
    ears: &whisper::Ears,
    silence_ms: u64,
    reader: &str,
    vision: &PooledConfig,
    updates: bool,
) -> String {
    let encoder = &ears.encoder;
    let audio = audio_connector();
    let updates = match updates {
        true => format!("updates = {{ file = \"{TRAINED_FILE}\" }}\n"),
        false => String::new(),
    };
    format!(
        r#"name = "vita-nano"
max-length = 2048

[language-model]
path = "{LANGUAGE_FILE}"
tokenizer = "{TOKENIZER_FILE}"
added-rows = {{ file = "{TRAINED_FILE}" }}
{updates}
[vision]
encoder = "efficientnet-lite0"
weights = {{ file = "{EYES_FILE}" }}
connector = {{ grid = {grid}, hidden = {visual_hidden}, slots = {slots}, details = {details} }}
connector-weights = {{ file = "{TRAINED_FILE}", prefix = "vision" }}
names = {{ file = "{CLASSES_FILE}" }}

[vision.detector]
weights = {{ file = "{DETECTOR_FILE}" }}
labels = "{OBJECTS_FILE}"
person-percent = {PERSON_PERCENT}
small-person-percent = {SMALL_PERSON_PERCENT}
thing-percent = {THING_PERCENT}

[audio]
encoder = "whisper"
weights = {{ file = "{EARS_FILE}", prefix = "encoder" }}
tail-silence-ms = {silence_ms}
connector = {{ kind = "transcript", pooled = {pooled}, hidden = {audio_hidden}, markers = {markers:?} }}
connector-weights = {{ file = "{TRAINED_FILE}", prefix = "audio" }}

[audio.config]
num-mel-bins = {bins}
d-model = {width}
encoder-attention-heads = {heads}
encoder-ffn-dim = {inner}
encoder-layers = {layers}
max-source-positions = {positions}

{reader}

# none was trained with: each position costs time before the first word
[system]

[template]
system = "<|im_start|>system\n{{text}}<|im_end|>\n"
user = "<|im_start|>user\n{{text}}<|im_end|>\n"
bot = "<|im_start|>assistant\n{{text}}<|im_end|>\n"
open = "<|im_start|>assistant\n"
stop = ["<|im_end|>"]
"#,
        grid = vision.grid,
        visual_hidden = vision.hidden,
        slots = vision.slots,
        details = vision.details,
        pooled = audio.pooled,
        audio_hidden = audio.hidden,
        markers = audio.markers,
        bins = encoder.num_mel_bins,
        width = encoder.d_model,
        heads = encoder.encoder_attention_heads,
        inner = encoder.encoder_ffn_dim,
        layers = encoder.encoder_layers,
        positions = encoder.max_source_positions,
    )
}
