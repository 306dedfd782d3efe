"""A llama forward pass in numpy, float64 throughout, weights exactly as the file's blocks say.

It rounds nothing, so it says what a model's logits *are*; engines that quantise activations on
the way (llama.cpp, and ours on quantised weights) differ from it by their own rounding. With
`rounds=True` it makes that one rounding and no other: each block of 32 activations becomes 8-bit
integers and an f16 scale before a product with Q8_0 or Q4_0 weights.
Readers for GGUF and for the four tensor types of the fixtures are included: F32, F16, Q8_0, Q4_0.
"""

import struct

import numpy

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read_gguf(path):
    """Metadata, tensors as float64 arrays with rows first, and their types."""
    data = path.read_bytes()
    at = 4

    def take(code):
        nonlocal at
        (value,) = struct.unpack_from("<" + code, data, at)
        at += struct.calcsize("<" + code)
        return value

    def text():
        nonlocal at
        size = take("Q")
        at += size
        return data[at - size : at].decode()

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            inner, count = take("I"), take("Q")
            return [value(inner) for _ in range(count)]
        return take(SCALARS[kind])

    take("I")  # Version.
    tensor_count, pair_count = take("Q"), take("Q")
    metadata = {}
    for _ in range(pair_count):
        key = text()
        metadata[key] = value(take("I"))
    table = []
    for _ in range(tensor_count):
        name = text()
        dims = [take("Q") for _ in range(take("I"))]
        table.append((name, dims[::-1], take("I"), take("Q")))
    start = -(-at // 32) * 32
    tensors = {n: decode(data, start + o, d, t) for n, d, t, o in table}
    return metadata, tensors, {n: t for n, _, t, _ in table}


def decode(data, at, dims, kind):
    count = int(numpy.prod(dims))
    if kind == 0:
        values = numpy.frombuffer(data, "<f4", count, at)
    elif kind == 1:
        values = numpy.frombuffer(data, "<f2", count, at)
    elif kind == 8:
        blocks = numpy.frombuffer(data, [("d", "<f2"), ("q", "i1", 32)], count // 32, at)
        values = blocks["d"].astype("f8")[:, None] * blocks["q"]
    elif kind == 2:
        blocks = numpy.frombuffer(data, [("d", "<f2"), ("q", "u1", 16)], count // 32, at)
        nibbles = numpy.concatenate([blocks["q"] & 15, blocks["q"] >> 4], axis=1).astype("f8") - 8
        values = blocks["d"].astype("f8")[:, None] * nibbles
    return values.astype("f8").reshape(dims)


class Rounding:
    """A matrix that rounds what it is multiplied with to 8-bit blocks of 32, as our kernels do:
    one f32 scale each, numbers rounded half away from zero."""

    def __init__(self, matrix):
        self.matrix = matrix

    def __getitem__(self, row):
        return self.matrix[row]

    def __matmul__(self, row):
        blocks = row.reshape(-1, 32)
        scales = (numpy.abs(blocks).max(axis=1) / 127).astype("f4").astype("f8")
        shares = blocks / numpy.where(scales == 0, 1, scales)[:, None]
        whole = numpy.trunc(shares + numpy.copysign(0.5, shares))
        return self.matrix @ (whole * scales[:, None]).reshape(-1)


class Exact:
    """One sequence; `push` puts a token through and returns the logits behind it."""

    def __init__(self, path, rounds=False):
        self.meta, self.weights, kinds = read_gguf(path)
        for name, kind in kinds.items():
            if rounds and kind in (2, 8):
                self.weights[name] = Rounding(self.weights[name])
        get = lambda key: self.meta["llama." + key]
        self.layers, self.heads = get("block_count"), get("attention.head_count")
        self.kv_heads, self.eps = get("attention.head_count_kv"), get("attention.layer_norm_rms_epsilon")
        self.size = get("embedding_length") // self.heads
        self.reset()

    def reset(self):
        self.keys = [[] for _ in range(self.layers)]
        self.values = [[] for _ in range(self.layers)]

    def norm(self, row, name):
        return row / numpy.sqrt(numpy.mean(row * row) + self.eps) * self.weights[name]

    def turn(self, heads, position):
        angles = position * 10000.0 ** (-2.0 * numpy.arange(self.size // 2) / self.size)
        cos, sin = numpy.cos(angles), numpy.sin(angles)
        even, odd = heads[:, 0::2], heads[:, 1::2]
        out = numpy.empty_like(heads)
        out[:, 0::2], out[:, 1::2] = even * cos - odd * sin, even * sin + odd * cos
        return out

    def push(self, token):
        w, position = self.weights, len(self.keys[0])
        row = w["token_embd.weight"][token]
        for i in range(self.layers):
            part = lambda name: w[f"blk.{i}.{name}.weight"]
            x = self.norm(row, f"blk.{i}.attn_norm.weight")
            queries = self.turn((part("attn_q") @ x).reshape(self.heads, self.size), position)
            self.keys[i].append(self.turn((part("attn_k") @ x).reshape(self.kv_heads, -1), position))
            self.values[i].append((part("attn_v") @ x).reshape(self.kv_heads, -1))
            group = self.heads // self.kv_heads
            keys = numpy.repeat(numpy.array(self.keys[i]), group, axis=1)
            values = numpy.repeat(numpy.array(self.values[i]), group, axis=1)
            scores = numpy.einsum("hd,phd->hp", queries, keys) / numpy.sqrt(self.size)
            shares = numpy.exp(scores - scores.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            row = row + part("attn_output") @ numpy.einsum("hp,phd->hd", shares, values).reshape(-1)
            x = self.norm(row, f"blk.{i}.ffn_norm.weight")
            gate = part("ffn_gate") @ x
            row = row + part("ffn_down") @ (gate / (1 + numpy.exp(-gate)) * (part("ffn_up") @ x))
        return w["output.weight"] @ self.norm(row, "output_norm.weight")
