"""ONNX graphs of the two towers, built as an export from PyTorch would look, with random weights."""

import numpy as np
import onnx
from onnx import TensorProto, helper


class Graph:
    """Collects nodes and initialisers."""

    def __init__(self, seed):
        self.nodes, self.initializers = [], []
        self.random = np.random.default_rng(seed)
        self.count = 0

    def constant(self, array):
        name = f"c{len(self.initializers)}"
        array = np.ascontiguousarray(array)
        kind = TensorProto.INT64 if array.dtype == np.int64 else TensorProto.FLOAT
        self.initializers.append(helper.make_tensor(name, kind, array.shape, array.tobytes(), raw=True))
        return name

    def weight(self, *shape, scale=0.02):
        return self.constant(self.random.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    def op(self, kind, *inputs, outputs=1, **attributes):
        self.count += 1
        names = [f"t{self.count}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def shape(self, x, *dims):
        return self.op("Reshape", x, self.constant(np.array(dims, dtype=np.int64)))

    def linear(self, x, n_in, n_out, bias=True):
        y = self.op("MatMul", x, self.weight(n_in, n_out))
        return self.op("Add", y, self.weight(n_out)) if bias else y

    def layer_norm(self, x, width, eps):
        ones = self.constant(np.ones(width, dtype=np.float32))
        zeros = self.constant(np.zeros(width, dtype=np.float32))
        return self.op("LayerNormalization", x, ones, zeros, axis=-1, epsilon=eps)

    def save(self, path, input_name, input_shape, output):
        # An Identity gives the result its name.
        self.nodes.append(helper.make_node("Identity", [output], ["out"]))
        graph = helper.make_graph(
            self.nodes,
            "bench",
            [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, input_shape)],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        onnx.save_model(model, path, save_as_external_data=True, location=path.name + ".data")


def intern_vit(path, layers=24, width=1024, heads=16, mlp=4096, image=448, patch=14):
    """InternViT-300M: one 448² tile, pre-norm blocks with layer scale, no final norm."""
    g = Graph(1)
    grid = image // patch
    tokens = grid * grid + 1
    x = g.op("Conv", "pixels", g.weight(width, 3, patch, patch), g.weight(width), strides=[patch, patch], kernel_shape=[patch, patch])
    x = g.op("Transpose", g.shape(x, 1, width, grid * grid), perm=[0, 2, 1])
    x = g.op("Concat", g.weight(1, 1, width), x, axis=1)
    x = g.op("Add", x, g.weight(1, tokens, width))
    for _ in range(layers):
        qkv = g.shape(g.linear(g.layer_norm(x, width, 1e-6), width, 3 * width), 1, tokens, 3, heads, width // heads)
        qkv = g.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
        split = g.op("Split", qkv, outputs=3, axis=0, num_outputs=3)
        q, k, v = (g.shape(part, 1, heads, tokens, width // heads) for part in split)
        scale = g.constant(np.array((width // heads) ** -0.5, dtype=np.float32))
        scores = g.op("MatMul", g.op("Mul", q, scale), g.op("Transpose", k, perm=[0, 1, 3, 2]))
        mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
        mixed = g.shape(g.op("Transpose", mixed, perm=[0, 2, 1, 3]), 1, tokens, width)
        x = g.op("Add", x, g.op("Mul", g.linear(mixed, width, width), g.weight(width)))
        hidden = g.op("Gelu", g.linear(g.layer_norm(x, width, 1e-6), width, mlp))
        x = g.op("Add", x, g.op("Mul", g.linear(hidden, mlp, width), g.weight(width)))
    g.save(path, "pixels", [1, 3, image, image], x)


def whale(path, frames=998, layers=24, width=1024, heads=16, mlp=4096, mels=80):
    """The Whale encoder on `frames` fbank frames (998: 10 s), without the adapter."""
    g = Graph(2)
    head = width // heads
    steps = ((frames - 1) // 2 - 1) // 2
    bins = ((mels - 1) // 2 - 1) // 2
    x = g.shape("fbank", 1, 1, frames, mels)
    x = g.op("Relu", g.op("Conv", x, g.weight(width, 1, 3, 3), g.weight(width), strides=[2, 2], kernel_shape=[3, 3]))
    x = g.op("Relu", g.op("Conv", x, g.weight(width, width, 3, 3), g.weight(width), strides=[2, 2], kernel_shape=[3, 3]))
    x = g.shape(g.op("Transpose", x, perm=[0, 2, 1, 3]), 1, steps, width * bins)
    x = g.linear(g.linear(x, width * bins, width), width, width)
    x = g.op("Mul", g.op("Relu", g.layer_norm(x, width, 1e-5)), g.constant(np.array(width**0.5, dtype=np.float32)))
    table = g.weight(1, steps, width)

    def split_heads(y):
        return g.op("Transpose", g.shape(y, 1, steps, heads, head), perm=[0, 2, 1, 3])

    for _ in range(layers):
        y = g.layer_norm(x, width, 1e-5)
        q = g.shape(g.linear(y, width, width), 1, steps, heads, head)
        k, v = split_heads(g.linear(y, width, width)), split_heads(g.linear(y, width, width))
        p = split_heads(g.linear(table, width, width, bias=False))
        qu = g.op("Transpose", g.op("Add", q, g.weight(heads, head)), perm=[0, 2, 1, 3])
        qv = g.op("Transpose", g.op("Add", q, g.weight(heads, head)), perm=[0, 2, 1, 3])
        content = g.op("MatMul", qu, g.op("Transpose", k, perm=[0, 1, 3, 2]))
        position = g.op("MatMul", qv, g.op("Transpose", p, perm=[0, 1, 3, 2]))
        scale = g.constant(np.array(head**0.5, dtype=np.float32))
        scores = g.op("Div", g.op("Add", content, position), scale)
        mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
        mixed = g.shape(g.op("Transpose", mixed, perm=[0, 2, 1, 3]), 1, steps, width)
        x = g.op("Add", x, g.linear(mixed, width, width))
        hidden = g.op("Relu", g.linear(g.layer_norm(x, width, 1e-5), width, mlp))
        x = g.op("Add", x, g.linear(hidden, mlp, width))
    g.save(path, "fbank", [1, frames, mels], g.layer_norm(x, width, 1e-5))
