"""Kokoro-82M (hexgrad, Apache-2.0): `say` of a voice program (see voices.py). Argument: the folder of the set-up for training, with
the model's parts, its alphabet and its voices."""
import json
import subprocess
import sys
import wave
from pathlib import Path

import numpy
import onnxruntime

TRAINING = Path(sys.argv[1])
RATE = 24000
# What espeak-ng writes, as the letters that the model knows.
LETTERS = [
    ("\u0361", ""), ("dʒ", "ʤ"), ("tʃ", "ʧ"), ("eɪ", "A"), ("aɪ", "I"), ("aʊ", "W"), ("ɔɪ", "Y"), ("oʊ", "O"), ("əʊ", "Q"), ("r", "ɹ"),
    ("x", "k"), ("ɬ", "l"), ("ɚ", "əɹ"), ("ɜːɹ", "ɜɹ"), ("ɐ", "ə"), ("ʔ", "t"), ("əl ", "ᵊl "), ("e", "ɛ"),
]
AMERICAN = [("ɜː", "ɜɹ"), ("ː", ""), ("ɛə", "ɛɹ")]

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
model = b"".join((TRAINING / f"kokoro/model.{part}").read_bytes() for part in (1, 2, 3, 4))
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
alphabet = json.loads((TRAINING / "kokoro/vocab.json").read_text())["vocab"]


def letters(text, is_british):
    accent = "en-gb" if is_british else "en-us"
    spoken = subprocess.run(["espeak-ng", "-q", "--ipa", "-v", accent, "--", text], capture_output=True, text=True, check=True)
    spoken = " ".join(spoken.stdout.split())
    for written, known in LETTERS + ([] if is_british else AMERICAN):
        spoken = spoken.replace(written, known)
    return [alphabet[letter] for letter in spoken if letter in alphabet]


def styles(voice):
    """Of a voice, or of one between two: `one+other:share of the other`."""
    voice, _, share = voice.partition(":")
    one, *other = (numpy.fromfile(TRAINING / f"kokoro-js/voices/{name}.bin", "<f4").reshape(-1, 1, 256) for name in voice.split("+"))
    return one + float(share) * (other[0] - one) if other else one


def say(job):
    voice = job["voice"]
    tokens = letters(job["text"], voice[0] == "b")
    of_voice = styles(voice)
    feed = {
        "tokens": numpy.array([[0, *tokens, 0]], "i8"),
        "style": of_voice[min(len(tokens), len(of_voice) - 1)],
        "speed": numpy.array([job["speed"]], "f4"),
    }
    samples = session.run(None, feed)[0].ravel()
    samples = samples * min(1, 0.98 / max(abs(samples).max(), 1e-6))
    with wave.open(job["path"], "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
