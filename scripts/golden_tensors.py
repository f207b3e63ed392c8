"""What the scripts share that record golden tensors."""

import importlib.util
import json
import struct
import sys
import wave
from pathlib import Path

import numpy as np


def whisper_features(recording):
    """Normalised log-mel [80, frames] of a whole WAV of 16 kHz without padding, by faster-whisper. Only its feature extractor is
    loaded: the rest of the package wants ctranslate2 and more."""
    path = next(Path(p) / "faster_whisper/feature_extractor.py" for p in sys.path if (Path(p) / "faster_whisper").is_dir())
    spec = importlib.util.spec_from_file_location("feature_extractor", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with wave.open(recording) as wav:
        assert (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (16000, 1, 2)
        samples = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2").astype(np.float32) / 32768
    return module.FeatureExtractor()(samples, padding=0).astype("<f4")


def write(path, source, tensors):
    """A safetensors file of f32 and i64."""
    header, body = {"__metadata__": {"source": source}}, b""
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(tensor).tobytes()
        kind = {"f": "F32", "i": "I64"}[tensor.dtype.kind]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + body)
