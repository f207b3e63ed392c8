"""The hearing half of a stock voice stack: Silero VAD on onnxruntime, then faster-whisper. Usage: voice.py VAD.onnx WHISPER THREADS
Prints one line of JSON when it is ready, then for each line read (a WAV file, 16 kHz, mono, in 16 bits) a line of JSON: seconds of the VAD a block
of 32 ms, seconds from the end of the utterance (500 ms of silence seen) to its transcript, and the transcript."""

import json
import statistics
import sys
import time
import wave

import faster_whisper
import numpy as np
import onnxruntime

BLOCK, CONTEXT, RATE = 512, 64, 16000
THRESHOLD, SILENCE = 0.5, 0.5
BEFORE, BEHIND = 0.15, 0.1


class Vad:
    def __init__(self, path, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.state = np.zeros((2, 1, 128), np.float32)
        self.context = np.zeros((1, CONTEXT), np.float32)

    def probability(self, block):
        sound = np.concatenate([self.context, block[None]], axis=1)
        self.context = sound[:, -CONTEXT:]
        probability, self.state = self.session.run(None, {"input": sound, "state": self.state, "sr": np.array(RATE, np.int64)})
        return float(probability[0, 0])


def samples(path):
    with wave.open(path) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768


def hear(sound, vad_path, threads, whisper):
    vad, started, last, times = Vad(vad_path, threads), None, None, []
    for at in range(0, len(sound) - BLOCK + 1, BLOCK):
        begin = time.perf_counter()
        speaks = vad.probability(sound[at : at + BLOCK]) >= THRESHOLD
        times.append(time.perf_counter() - begin)
        if speaks:
            started, last = at if started is None else started, at + BLOCK
        elif last is not None and at + BLOCK - last >= SILENCE * RATE:
            break
    if started is None:
        return {"vad": statistics.median(times), "transcript_s": None, "text": None}
    end = time.perf_counter()
    utterance = sound[max(0, int(started - BEFORE * RATE)) : int(last + BEHIND * RATE)]
    segments, _ = whisper.transcribe(utterance, language="en", beam_size=1, without_timestamps=True, condition_on_previous_text=False)
    text = "".join(segment.text for segment in segments).strip()
    return {"vad": statistics.median(times), "transcript_s": time.perf_counter() - end, "text": text}


def main():
    vad_path, folder, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    whisper = faster_whisper.WhisperModel(folder, device="cpu", compute_type="float32", cpu_threads=threads)
    print(json.dumps({"faster-whisper": faster_whisper.__version__, "onnxruntime": onnxruntime.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps(hear(samples(line.strip()), vad_path, threads, whisper)), flush=True)


main()
