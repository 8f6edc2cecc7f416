#!/usr/bin/env python3
"""Weights in every format that is expanded when it is read, and what they stand for by the programs that define the formats.

    make_formats.py OUT

Writes OUT/blocks.gguf, tensors of random blocks in the types of GGUF, named after them, and OUT/formats.safetensors with
  X            fp32, what gguf.dequantize makes of the tensor X of blocks.gguf
  F8_E4M3, F8_E5M2  fp32, what torch's casts make of the 256 numbers in turn
  convrot_w4a4.{weight,weight_scale,values}  a random weight [12, 256] as comfy-kitchen quantises it in 4 bits, and its values
Needs gguf 0.19.0, torch 2.15.0 and comfy-kitchen 0.2.40.
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy as np
import torch
from comfy_kitchen.backends.eager import convrot_w4a4

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]
# Places of half-precision scales in a block.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2],
          "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}
SHAPE = (3, 512)


def finite_half(generator, count):
    """Random bits of half-precision numbers: of every exponent, subnormal too, but neither infinite nor NaN."""
    bits = generator.integers(0, 1 << 16, count, dtype=np.uint16)
    return np.where(bits & 0x7C00 == 0x7C00, bits & 0x83FF, bits)


def blocks(generator, name, kind):
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    count = SHAPE[0] * SHAPE[1] // elements
    data = generator.integers(0, 256, (count, size), dtype=np.uint8)
    for place in HALVES[name]:
        data[:, place:place + 2] = finite_half(generator, count).view(np.uint8).reshape(count, 2)
    return data.reshape(SHAPE[0], -1)


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, array in tensors.items():
        kind = {"float32": "F32", "int8": "I8"}[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in tensors.values()))


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(15)
    writer, values = gguf.GGUFWriter(out / "blocks.gguf", "test"), {}
    writer.add_string("general.name", "blocks of every type")
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        if name in HALVES:
            data = blocks(generator, name, kind)
            writer.add_tensor(name, data, raw_dtype=kind)
        else:
            numbers = generator.standard_normal(SHAPE, dtype=np.float32)
            data = gguf.quantize(numbers, kind)
            writer.add_tensor(name, data, raw_dtype=kind if name == "BF16" else None)
        values[name] = np.ascontiguousarray(gguf.dequantize(data, kind), dtype=np.float32).reshape(SHAPE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    numbers = torch.arange(256, dtype=torch.int16).to(torch.uint8)
    for name, kind in [("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)]:
        values[name] = numbers.view(kind).to(torch.float32).numpy()

    torch.manual_seed(15)
    weight = torch.randn(12, 256)
    packed, scales = convrot_w4a4.quantize_convrot_w4a4_weight(weight)
    values["convrot_w4a4.weight"] = packed.numpy()
    values["convrot_w4a4.weight_scale"] = scales.reshape(-1).float().numpy()
    values["convrot_w4a4.values"] = convrot_w4a4.dequantize_convrot_w4a4_weight(packed, scales).numpy()
    write_safetensors(out / "formats.safetensors", values)


if __name__ == "__main__":
    main()
