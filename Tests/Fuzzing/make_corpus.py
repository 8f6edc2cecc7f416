#!/usr/bin/env python3
"""Seeds for the fuzzer: one small example of every kind of input, from the wire's golden files, the codec's, and by hand.

    make_corpus.py

Writes corpus/TARGET/seed-*; what the fuzzer finds interesting besides is added by `run.sh --keep`.
"""

import json
import pathlib
import struct
import zlib

HERE = pathlib.Path(__file__).resolve().parent
TESTS = HERE.parent


def write(target, name, data):
    path = HERE / "corpus" / target / f"seed-{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def fields(message):
    """Top-level fields of a message: number and bytes, with the key."""
    at = 0
    while at < len(message):
        begin = at
        key, at = read_varint(message, at)
        if key & 7 == 0:
            _, at = read_varint(message, at)
        elif key & 7 == 1:
            at += 8
        elif key & 7 == 2:
            size, at = read_varint(message, at)
            at += size
        else:
            at += 4
        yield key >> 3, message[begin:at]


TENSORS = 7


def descriptor(name, dtype, shape, data):
    body = b"\x0a" + varint(len(name)) + name.encode() + b"\x10" + varint(dtype)
    packed = b"".join(varint(side) for side in shape)
    body += b"\x1a" + varint(len(packed)) + packed + b"\x20" + varint(len(data)) + b"\x28" + varint(zlib.crc32(data))
    return bytes([TENSORS << 3 | 2]) + varint(len(body)) + body


def envelopes():
    """The golden messages with tensors of a few bytes instead of theirs."""
    small = {"denoise_progress": ("latents", 2), "denoise_response": ("latents", 1), "decode_request": ("latents", 3),
             "encode_response": ("prompt_embeds", 2), "decode_response": ("image", 7), "denoise_request": ("prompt_embeds", 2)}
    sizes = {1: 4, 2: 2, 3: 2, 7: 1}
    for path in sorted((TESTS / "WireTests" / "Golden").glob("*.bin")):
        message = b"".join(data for number, data in fields(path.read_bytes()) if number != TENSORS)
        frames = [message]
        if path.stem in small:
            name, dtype = small[path.stem]
            data = bytes(range(6 * sizes[dtype]))
            frames = [message + descriptor(name, dtype, [2, 3], data), data]
        write("envelope", path.stem, b"".join(struct.pack(">H", len(frame)) + frame for frame in frames))


def requests():
    bodies = [
        {"prompt": "a red heart"},
        {"prompt": "咖啡 ☕", "negative_prompt": " ", "size": "64x64", "seed": 7, "steps": 12, "true_cfg_scale": 4.0, "n": 2},
        {"prompt": "x", "model": "Qwen/Qwen-Image", "width": 512, "height": 768, "num_inference_steps": 50},
        {"prompt": "x", "response_format": "b64_json", "output_format": "png", "stream": True, "partial_images": 2,
         "quality": "auto", "user": "somebody", "background": "auto", "moderation": "low", "style": "vivid"},
        {"prompt": "x", "image": ["data:image/png;base64,iVBORw0KGgo="], "mask": {"image_url": {"url": "AAEC"}}, "strength": 0.5,
         "control_scale": [1, 0.5], "outpaint": {"left": 8}, "pipeline": "inpaint"},
        {"prompt": None, "n": 1.5, "unknown": [[[{"a": 1e999}]]]},
    ]
    for index, body in enumerate(bodies):
        write("request", str(index), json.dumps(body).encode())
    write("request", "escapes", b'{"prompt":"\\u00e9\\ud83d\\ude00\\n\\"\\/"}')
    write("request", "lone", b'{"prompt":"\\ud83d"}')
    write("request", "twice", b'{"prompt":"a","prompt":"b"}')


def golden_images():
    """Small files of every format."""
    files = sorted((TESTS / "ImageCodecTests" / "Golden" / "files").glob("*"), key=lambda path: path.stat().st_size)
    return {suffix: next(path.read_bytes() for path in files if path.suffix == suffix and "other" not in path.name
                         and "1x1" not in path.name) for suffix in (".png", ".jpg", ".webp")}


def gray(width, height):
    """A grey PNG file."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes((x * y) & 255 for x in range(width)) for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def forms():
    def form(*parts, boundary=b"b", end=b"--"):
        body = b"".join(b"--" + boundary + b"\r\nContent-Disposition: form-data; " + name.encode() + b"\r\n\r\n"
                        + (data if isinstance(data, bytes) else data.encode()) + b"\r\n" for name, data in parts)
        return b"multipart/form-data; boundary=" + boundary + b"\n" + body + b"--" + boundary + end + b"\r\n"

    prompt, size = ('name="prompt"', "a cat"), ('name="size"', "32x32")
    image = ('name="image"; filename="a.png"', gray(16, 16))
    mask = ('name="mask"; filename="m.png"', gray(16, 16))
    write("form", "prompt", form(prompt))
    write("form", "edit", form(prompt, image, size))
    write("form", "mask", form(prompt, image, mask, ('name="padding_mask_crop"', "4"), ('name="pipeline"', "inpaint"),
                               ('name="size"', "16x16")))
    write("form", "two", form(prompt, size, *[(f'name="image[{n}]"; filename="{n}"', gray(16, 16 + n)) for n in (1, 0)]))
    write("form", "control", form(prompt, ('name="control_image"; filename="c"', gray(16, 32)),
                                  ('name="control_scale"', "[0.5]")))
    write("form", "outpaint", form(prompt, image, ('name="outpaint"', '{"left":16,"feather":2}')))
    write("form", "variation", form(image, ('name="n"', "3"), ('name="strength"', "0.5"), size))
    for suffix, data in golden_images().items():
        write("form", suffix[1:], form(prompt, ('name="image"; filename="a"', data), size))
    write("form", "data-url", form(prompt, ('name="image"', "data:image/png;base64,iVBORw0KGgo=")))
    write("form", "quoted", b'multipart/form-data; charset=utf-8; boundary="a;b"\npreamble\r\n--a;b \r\ncontent-type: x\r\n'
          b'CONTENT-DISPOSITION: form-data; filename="\\"; name=\\\\"; name=n;x=y\r\n\r\n\r\n--a;b--epilogue')
    write("form", "endless", form(prompt, end=b""))
    write("form", "empty", form(('name="image"; filename=""', b""), prompt))


def data_urls():
    for name, text in [("bare", "iVBORw0KGgo="), ("url", "data:image/png;base64,iVBORw0KGgo"), ("safe", "-_-_"),
                       ("parameters", "DATA:image/png;name=x;BASE64,AAEC\r\n Aw=="), ("address", "https://example.org/a"),
                       ("percent", "data:;base64,iVBO%2B"), ("plain", "data:text/plain,x"), ("short", "A"), ("three", "AAA=")]:
        write("data-url", name, text.encode())


def safetensors():
    headers = {
        "two": (14, {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                     "b": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [8, 14]}}),
        "empty": (0, {"__metadata__": {"format": "pt"}, "a": {"dtype": "I64", "shape": [0, 9], "data_offsets": [0, 0]}}),
        "hole": (8, {"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}, "b": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}),
        "huge": (1, {"a": {"dtype": "F64", "shape": [2**62, 2**62, 0], "data_offsets": [0, 0]}}),
    }
    for name, (size, header) in headers.items():
        write("safetensors", name, struct.pack(">H", size) + json.dumps(header).encode())


def ggufs():
    def text(value):
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    def pair(key, kind, data):
        return text(key) + struct.pack("<I", kind) + data

    def tensor(name, extents, kind, offset):
        return text(name) + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, kind, offset)

    def header(pairs, tensors, version=3, counts=None):
        counts = counts or (len(tensors), len(pairs))
        return b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(pairs + tensors)

    def file(data, header, extra=64):
        write("gguf", data, struct.pack(">H", extra) + header)

    architecture = pair("general.architecture", 8, text("qwen_image"))
    every = [architecture, pair("general.alignment", 4, struct.pack("<I", 8)), pair("a", 0, b"\1"), pair("b", 3, b"\0\x80"),
             pair("c", 6, struct.pack("<f", 0.5)), pair("d", 7, b"\1"), pair("e", 11, struct.pack("<q", -1)),
             pair("f", 12, struct.pack("<d", 1e300)), pair("tokens", 9, struct.pack("<IQ", 8, 2) + text("x") + text("")),
             pair("nested", 9, struct.pack("<IQIQ", 9, 1, 5, 2) + struct.pack("<2i", -1, 7)),
             pair("comfy.gguf.orig_shape.t", 9, struct.pack("<IQ3i", 5, 3, 2, 1, 4))]
    file("every", header(every, [tensor("t", [8], 0, 0), tensor("u", [4, 3], 1, 32)]), 96)
    file("blocks", header([architecture], [tensor("a", [32, 2], 8, 0), tensor("b", [256], 12, 96)], 2), 300)
    file("overlap", header([], [tensor("a", [8], 0, 0), tensor("b", [8], 0, 0)]))
    file("huge", header([], [tensor("a", [2**62, 2**62, 0], 1, 0)]))
    file("many", header([], [], counts=(2**40, 0)))
    file("twice", header([architecture, architecture], []))
    file("nan", header([pair("a", 6, struct.pack("<f", float("nan"))), pair("b", 0, b"\1")], []))


def pngs():
    for path in sorted((TESTS / "Golden" / "png").glob("*.png")):
        write("png", path.stem, b"\x01" + path.read_bytes())
    record = {"software": "qwen-image-cluster", "software_version": "0.1.0", "model": "m", "fingerprint": "f", "prompt": "a \"猫\"\n",
              "negative_prompt": " ", "true_cfg_scale": 3.5, "steps": 2, "size": "64x64", "seed": 7}
    chunk = b"iTXt" + b"qwen-image-cluster\0\0\0\0\0" + json.dumps(record, ensure_ascii=False).encode()
    gray = (TESTS / "Golden" / "png" / "gray.png").read_bytes()
    write("png", "record", b"\x01" + gray[:33] + struct.pack(">I", len(chunk) - 4) + chunk + bytes(4) + gray[33:])
    broken = bytearray((TESTS / "Golden" / "png" / "gray.png").read_bytes())
    broken[-8] ^= 1
    write("png", "checksum", b"\x00" + broken)


def images():
    for path in sorted((TESTS / "ImageCodecTests" / "Golden" / "files").glob("*")):
        if path.stat().st_size < 2000:
            write("image", path.name, bytes([len(path.name) << 1 & 255 | 1]) + path.read_bytes())


def journal():
    size = {"width": 64, "height": 64}
    card = {"modelID": "m", "pipelineClass": "QwenImagePipeline", "fingerprint": "f", "sizeMultiple": 16, "minSide": 64, "maxSide": 2048,
            "maxPixels": 4194304, "recommendedSizes": [size], "maxSteps": 100, "maxPromptTokens": 1024, "maxPromptBytes": 8192,
            "defaultSize": size, "defaultSteps": 50, "defaultTrueCFGScale": 4, "defaultNegativePrompt": " ", "latentChannels": 16,
            "latentDownscale": 8, "latentPatch": 2}
    request = {"version": 1, "card": card, "prompt": "a red heart", "negativePrompt": " ", "size": size, "steps": 12, "trueCFGScale": 4.5,
               "seed": 2**64 - 1, "pictureCount": 3, "priority": "batch", "traceparent": "00-0-0-01", "isDetached": True}
    write("journal", "whole", json.dumps(request).encode())
    write("journal", "short", json.dumps({key: value for key, value in request.items() if key not in ("negativePrompt", "traceparent")}).encode())
    for field, value in [("steps", 2**63 - 1), ("pictureCount", 0), ("version", 2), ("size", {"width": -1, "height": 2**40})]:
        write("journal", field, json.dumps(request | {field: value}).encode())


def templates():
    for path in sorted((HERE / "../../compose/templates").glob("*.yaml")):
        write("template", path.stem, path.read_bytes() + b"\0" + path.with_suffix(".csv").read_bytes())
    write("template", "blocks", b"name: t\nprompt: >-\n  a {x}\n   b\n\n  c\nslots:\n  x:\n    allowed:\n    - a\n    - 'b'\n\0x\na\nb\n")
    write("template", "rules", b"name: t\nprompt: '{x}'\nslots: { x: { max_length: 3 } }\nbrand: { forbidden_words: [no] }\noutput: 'a/{x}'\n"
          b"\0x\n\"n\"\"o\"\nno\n../x\n")
    write("template", "files", b"name: t\nprompt: p\nslots: { f: { kind: file, required: false } }\ninputs: { image: [f] }\nseed: 3\n\0f\na.png\n")


if __name__ == "__main__":
    journal()
    templates()
    envelopes()
    requests()
    forms()
    data_urls()
    safetensors()
    ggufs()
    pngs()
    images()
