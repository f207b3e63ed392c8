#!/usr/bin/env python3
"""Records what onnxruntime computes with the pinned Silero VAD, as golden values of tests/golden-vad.

Writes tests/golden-vad/<name>.json: the speech probability of each block of 512 samples, with the network's
64 samples of context and its LSTM state carried from block to block. Needs: pip install onnxruntime numpy.
With --time it measures one step instead (CPU time, one thread, Python's call included), the peer of
`cargo bench --workspace --bench vad`.

Usage: scripts/record-silero.py [--time]
"""
import hashlib
import json
import os
import pathlib
import statistics
import sys
import time
import wave

import numpy as np
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(
    os.environ.get("VITA_CACHE")
    or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "vita-stream"
)
# Debian package pocketsphinx-testdata.
POCKETSPHINX = pathlib.Path("/usr/share/pocketsphinx/test/data")
RECORDINGS = {
    "q1": ROOT / "tests/media/q1.wav",
    "q2": ROOT / "tests/media/q2.wav",
    "jfk": CACHE / "media/jfk.wav",
    "librivox-0870": POCKETSPHINX / "librivox/sense_and_sensibility_01_austen_64kb-0870.wav",
    "librivox-0930": POCKETSPHINX / "librivox/sense_and_sensibility_01_austen_64kb-0930.wav",
}
BLOCK, CONTEXT, RATE = 512, 64, 16000


def samples(path):
    with wave.open(str(path)) as wav:
        assert (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (RATE, 1, 2), path
        pcm = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2")
    return pcm.astype(np.float32) / 32768


class Stream:
    def __init__(self, session):
        self.session = session
        self.state = np.zeros((2, 1, 128), np.float32)
        self.context = np.zeros(CONTEXT, np.float32)

    def step(self, block):
        window = np.concatenate([self.context, block])
        inputs = {"input": window[None], "state": self.state, "sr": np.array(RATE, np.int64)}
        probability, self.state = self.session.run(None, inputs)
        self.context = window[-CONTEXT:]
        return float(probability[0, 0])


def blocks(audio):
    return [audio[i : i + BLOCK] for i in range(0, len(audio) - BLOCK + 1, BLOCK)]


def main():
    model = CACHE / "models/silero_vad_16k_op15.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    if "--time" in sys.argv[1:]:
        audio = blocks(samples(RECORDINGS["librivox-0870"]))
        stream, rounds = Stream(session), []
        for _ in range(30):
            start = time.process_time()
            for block in audio:
                stream.step(block)
            rounds.append((time.process_time() - start) / len(audio) * 1e6)
        # The first rounds warm up.
        rounds = rounds[5:]
        print(f"onnxruntime {onnxruntime.__version__}: {statistics.median(rounds):.0f} µs of CPU a step "
              f"(median of {len(rounds)} rounds of {len(audio)}; {min(rounds):.0f} to {max(rounds):.0f})")
        return
    out = ROOT / "tests/golden-vad"
    out.mkdir(exist_ok=True)
    for name, path in RECORDINGS.items():
        stream = Stream(session)
        golden = {
            "recording": path.name,
            "recording_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            "onnxruntime": onnxruntime.__version__,
            "block_samples": BLOCK,
            "probabilities": [round(stream.step(block), 7) for block in blocks(samples(path))],
        }
        (out / f"{name}.json").write_text(json.dumps(golden) + "\n")
        print(f"{name}: {len(golden['probabilities'])} blocks")


if __name__ == "__main__":
    main()
