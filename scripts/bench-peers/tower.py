#!/usr/bin/env python3
"""Times onnxruntime or OpenVINO on a tower of the right size with random weights.

usage: tower.py {vit|whale} {onnxruntime|openvino} THREADS

Prints one line when it is ready, then times one run for each line that it reads and prints its
seconds, so that the caller can alternate between the peers and ours.
"""

import json
import pathlib
import sys
import tempfile
import time

import numpy as np

import graphs

SHAPES = {"vit": ("pixels", (1, 3, 448, 448)), "whale": ("fbank", (1, 998, 80))}


def onnxruntime_run(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnxruntime.__version__, lambda name, x: session.run(None, {name: x})[0]


def openvino_run(path, threads):
    import openvino

    # f32 as ours: on CPUs with bf16 instructions OpenVINO would choose bf16.
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    return openvino.__version__.split("-")[0], lambda name, x: model({name: x})[0]


def main():
    tower, peer, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    name, shape = SHAPES[tower]
    x = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tower.onnx"
        {"vit": graphs.intern_vit, "whale": graphs.whale}[tower](path)
        version, run = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}[peer](path, threads)
        out = run(name, x)
        assert np.isfinite(out).all(), "the peer's result is not finite"
        print(json.dumps({"version": version, "shape": list(out.shape)}), flush=True)
        for _ in sys.stdin:
            start = time.perf_counter()
            run(name, x)
            print(time.perf_counter() - start, flush=True)


main()
