#!/usr/bin/env python3
"""Outputs of the vision tower of Qwen2.5-VL by a model in numpy, in double precision.

    make_vision.py [OUT_DIR]          needs numpy

    tiny/reference/vision_grids.safetensors   the tower of tiny/checkpoint over images of shapes that the recorded calls
                                              do not have: one row or column of tokens, whole windows only, one token,
                                              several images in a pass. `HxW[+HxW…].rows` [tokens, 64]; pixels are a
                                              formula of the name
    fullsize/fullsize_vision.safetensors      two blocks at the published size, one with windows and one with full
                                              attention, patch embedding and merger; 18 x 22 patches; weights by the
                                              formula of make_fullsize.py. Every STRIDE-th value of each tensor;
                                              `bf16.*` is the relative error of the same model when every operation's
                                              result is rounded to bf16, as torch does it

The model is checked against the reference: with the pixels of tiny/reference/edit*.safetensors it must give the rows
that transformers gave.
"""
import json, math, os, struct, sys
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = sys.argv[1] if len(sys.argv) > 1 else HERE
STRIDE = 61
GRIDS = [[(2, 18)], [(18, 2)], [(8, 8)], [(16, 16)], [(2, 2)], [(10, 22)], [(6, 10), (2, 2), (12, 4)]]


def fnv1a(name):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def uniform(name, count):
    z = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(fnv1a(name))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) * (2.0 / (1 << 24)) - 1.0


def bf16(values):
    bits = np.asarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def formula(name, shape):
    values = uniform(name, math.prod(shape))
    if "norm" in name.split(".")[-2]:
        values = values * 0.1 + 1.0
    elif len(shape) == 1:
        values = values * 0.05
    else:
        fan_in = shape[1] * (shape[-1] * shape[-2] if len(shape) > 2 else 1)
        values = values * math.sqrt(3.0 / fan_in)
    return bf16(values).reshape(shape)


def read(path):
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header, data = json.loads(f.read(size)), f.read()
    tensors = {}
    for name, e in header.items():
        if name == "__metadata__":
            continue
        raw = data[e["data_offsets"][0]:e["data_offsets"][1]]
        if e["dtype"] == "BF16":
            values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F32": np.float32, "I64": np.int64, "U8": np.uint8}[e["dtype"]])
        tensors[name] = values.reshape(e["shape"])
    return tensors


def write(path, tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, values in tensors.items():
        raw = np.ascontiguousarray(values, np.float32).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(np.shape(values)), "data_offsets": offsets}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


class Tower:
    """`weight(name, shape)` gives tensors, `r` rounds the result of every operation."""

    def __init__(self, weight, depth, full, hidden, inner, heads, output, dtype=np.float64, r=lambda x: x):
        self.w = lambda name, *shape: weight("visual." + name, shape).astype(dtype)
        self.depth, self.full, self.hidden, self.inner, self.heads = depth, full, hidden, inner, heads
        self.output, self.dtype, self.r = output, dtype, r

    def linear(self, name, x, inputs, outputs):
        return self.r(x @ self.w(name + ".weight", outputs, inputs).T + self.w(name + ".bias", outputs))

    def norm(self, name, x):
        scaled = self.r(x / np.sqrt((x.astype(self.dtype) ** 2).mean(-1, keepdims=True) + 1e-6))
        return self.r(scaled * self.w(name + ".weight", self.hidden))

    def __call__(self, pixels, grids):
        out, r, d = {}, self.r, self.hidden
        x = r(r(pixels.astype(self.dtype)) @ self.w("patch_embed.proj.weight", d, 3, 2, 14, 14).reshape(d, -1).T)
        out["patch_embed"] = x
        order, windows, images, places, first = [], [], [], [], 0
        for gh, gw in grids:
            mh, mw = gh // 2, gw // 2
            for a in range(0, mh, 4):
                for b in range(0, mw, 4):
                    tokens = [(i, j) for i in range(a, min(a + 4, mh)) for j in range(b, min(b + 4, mw))]
                    order += [first + i * mw + j for i, j in tokens]
                    places += [(2 * i + k, 2 * j + l) for i, j in tokens for k in (0, 1) for l in (0, 1)]
                    windows.append(4 * len(tokens))
            images.append(gh * gw)
            first += mh * mw
        order = np.array(order)
        x = x.reshape(first, 4 * d)[order].reshape(-1, d)
        hd = d // self.heads
        f = 10000.0 ** (-np.arange(0, hd // 2, 2) / (hd // 2))
        angles = np.concatenate([np.outer([p[0] for p in places], f), np.outer([p[1] for p in places], f)], 1)
        angles = np.concatenate([angles, angles], 1)[:, None]
        cos, sin = np.cos(angles).astype(self.dtype), np.sin(angles).astype(self.dtype)
        turn = lambda y: r(y * cos + np.concatenate([-y[..., hd // 2:], y[..., :hd // 2]], -1) * sin)
        for layer in range(self.depth):
            name = f"blocks.{layer}"
            qkv = self.linear(name + ".attn.qkv", self.norm(name + ".norm1", x), d, 3 * d)
            qkv = qkv.reshape(-1, 3, self.heads, hd)
            q, k, v = turn(qkv[:, 0]), turn(qkv[:, 1]), qkv[:, 2]
            attended, start = [], 0
            for size in images if layer in self.full else windows:
                a, b, c = (z[start:start + size].transpose(1, 0, 2) for z in (q, k, v))
                s = a @ b.transpose(0, 2, 1) / math.sqrt(hd)
                p = np.exp(s - s.max(-1, keepdims=True))
                attended.append(r(r(p / p.sum(-1, keepdims=True)) @ c).transpose(1, 0, 2).reshape(size, d))
                start += size
            x = r(x + self.linear(name + ".attn.proj", np.concatenate(attended), d, d))
            m = self.norm(name + ".norm2", x)
            gate, up = (self.linear(f"{name}.mlp.{z}_proj", m, d, self.inner) for z in ("gate", "up"))
            x = r(x + self.linear(name + ".mlp.down_proj", r(r(gate / (1 + np.exp(-gate))) * up), self.inner, d))
            out[f"block.{layer}"] = x
        y = self.linear("merger.mlp.0", self.norm("merger.ln_q", x).reshape(-1, 4 * d), 4 * d, 4 * d)
        erf = np.vectorize(math.erf)
        y = r(y * 0.5 * (1 + erf(y / math.sqrt(2)).astype(self.dtype)))
        out["merger_windowed"] = self.linear("merger.mlp.2", y, 4 * d, self.output)
        out["rows"] = np.empty_like(out["merger_windowed"])
        out["rows"][order] = out["merger_windowed"]
        return out


def relative(a, b):
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))


def tiny():
    folder = f"{HERE}/tiny/checkpoint/text_encoder"
    weights = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            weights.update(read(f"{folder}/{name}"))
    v = json.load(open(f"{folder}/config.json"))["vision_config"]
    tower = Tower(lambda name, shape: weights[name].reshape(shape), v["depth"], v["fullatt_block_indexes"],
                  v["hidden_size"], v["intermediate_size"], v["num_heads"], v["out_hidden_size"])
    for case in ("edit", "edit_plus", "edit_plus_2511"):
        reference = read(f"{HERE}/tiny/reference/{case}.safetensors")
        got = tower(reference["te.pixel_values"], [tuple(g[1:]) for g in reference["te.image_grid_thw"].tolist()])
        for name in ("patch_embed", "block.0", "block.1", "block.2", "block.3", "merger_windowed"):
            error = relative(reference["vis." + name], got[name])
            assert error < 2e-6, (case, name, error)
    tensors = {}
    for grids in GRIDS:
        name = "+".join(f"{h}x{w}" for h, w in grids)
        pixels = uniform(f"input.pixels.{name}", 1176 * sum(h * w for h, w in grids)).reshape(-1, 1176)
        tensors[f"{name}.rows"] = tower((1.7 * pixels).astype(np.float32), grids)["rows"]
    write(f"{OUT}/tiny/reference/vision_grids.safetensors", tensors)


def full_size():
    gh, gw = 18, 22
    pixels = uniform("input.pixels", gh * gw * 1176).astype(np.float32).reshape(gh * gw, 1176)
    sizes = dict(depth=2, full=[1], hidden=1280, inner=3420, heads=16, output=3584)
    full = Tower(formula, **sizes)(pixels, [(gh, gw)])
    half = Tower(formula, **sizes, dtype=np.float32, r=bf16)(pixels, [(gh, gw)])
    tensors = {}
    for name in ("patch_embed", "block.0", "block.1", "merger_windowed"):
        tensors[name] = full[name].reshape(-1)[::STRIDE]
        tensors["bf16." + name] = np.array([relative(half[name], full[name])])
        print(f"{name:16s} {str(full[name].shape):12s} bf16 error {tensors['bf16.' + name][0]:.2e}")
    write(f"{OUT}/fullsize/fullsize_vision.safetensors", tensors)


if __name__ == "__main__":
    tiny()
    full_size()
