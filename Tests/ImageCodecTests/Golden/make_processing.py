#!/usr/bin/env python3
"""What Pillow makes of images: resampling, blurring, compositing, and what diffusers' image processor builds of them.

    make_processing.py

Writes processing.json beside this script: {"inputs": {NAME: image}, "cases": [{"operation", "input", ..., "result"}]},
where an image is {"width", "height", "channels", "pixels"}, pixels compressed by zlib and in base64, or "sha256" of the
pixels where they are many. Made with Pillow 13.0.0; `fill`, `cover`, `region` and `overlay` are what diffusers 0.42.1's
VaeImageProcessor does.
"""

import base64
import hashlib
import json
import pathlib
import zlib

import numpy as np
from PIL import Image, ImageFilter, ImageOps

HERE = pathlib.Path(__file__).resolve().parent
FILTERS = ("nearest", "box", "bilinear", "bicubic", "lanczos")
rng = np.random.default_rng(22)
inputs = {}
cases = []


def stored(image):
    pixels = np.asarray(image)
    data = pixels.tobytes()
    result = dict(width=image.width, height=image.height, channels=1 if pixels.ndim == 2 else pixels.shape[2])
    if len(data) > 40_000:
        return result | dict(sha256=hashlib.sha256(data).hexdigest())
    return result | dict(pixels=base64.b64encode(zlib.compress(data, 9)).decode())


def add(operation, name, result, **arguments):
    cases.append(dict(operation=operation, input=name) | arguments | dict(result=stored(result)))


def make_inputs():
    def noise(height, width, channels):
        pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
        return pixels[:, :, 0] if channels == 1 else pixels

    images = {f"noise{c}": noise(23, 31, c) for c in (1, 3, 4)}
    # Black and white in blocks: filters with negative lobes overshoot on both sides.
    images |= {
        f"edges{c}": np.kron(noise(5, 7, c) // 128 * 255, np.ones((4, 5) + (1,) * (c > 1), np.uint8)) for c in (1, 3, 4)
    }
    # Opaque and transparent next to each other, with strong colours below alpha 0.
    alpha = noise(20, 18, 4)
    alpha[:8, :, 3], alpha[8:12, :, 3], alpha[12:, :9, 3] = 0, 255, 1
    images["alpha"] = alpha
    for width, height in ((1, 1), (1, 13), (13, 1), (3, 3)):
        for c in (1, 3, 4):
            images[f"{width}x{height}x{c}"] = noise(height, width, c)
    mask = np.zeros((30, 40), np.uint8)
    mask[9:17, 12:29] = 255
    mask[10:12, 13] = 7
    images["mask"] = mask
    images["soft-mask"] = np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(2)))
    images["photo"] = np.clip(
        np.add.outer(np.arange(30) * 5, np.arange(40) * 3)[:, :, None] + rng.integers(0, 60, (30, 40, 3)), 0, 255
    ).astype(np.uint8)
    images["photo-alpha"] = np.dstack([images["photo"], rng.integers(0, 256, (30, 40), dtype=np.uint8)])
    return {name: Image.fromarray(np.ascontiguousarray(pixels)) for name, pixels in images.items()}


def resizes():
    sizes = {
        "noise": ((31, 11), (17, 23), (40, 9), (9, 40), (64, 50), (30, 22), (7, 5), (1, 1)),
        "edges": ((52, 33), (12, 11)),
        "alpha": ((27, 31), (7, 8), (18, 9)),
        "1x1": ((1, 5), (6, 4)),
        "1x13": ((1, 7), (3, 13)),
        "13x1": ((5, 1), (20, 2)),
        "3x3": ((384, 384), (4, 2)),
    }
    for name, image in inputs.items():
        kind = name.rstrip("134") if name[:5] in ("noise", "edges") else name.rsplit("x", 1)[0] if "x" in name else name
        for size in sizes.get(kind, ()):
            for filter in FILTERS:
                result = image.resize(size, Image.Resampling[filter.upper()])
                add("resize", name, result, filter=filter, width=size[0], height=size[1])
    for name in ("noise1", "noise3", "noise4"):
        for box in ((2.5, 0.25, 30.75, 22), (3, 4, 20, 19), (0, 0, 31, 0), (31, 3, 31, 23), (10.1, 5.2, 10.9, 5.3)):
            for filter in FILTERS:
                result = inputs[name].resize((12, 15), Image.Resampling[filter.upper()], box=box)
                add("resize", name, result, filter=filter, width=12, height=15, area=box)
        same = inputs[name].resize(inputs[name].size, Image.Resampling.LANCZOS)
        add("resize", name, same, filter="lanczos", width=31, height=23)


def blurs():
    for name in ("noise1", "edges3", "alpha", "1x1x1", "1x13x3", "13x1x4", "mask"):
        for radius in (0, 0.1, 0.5, 1, 1.7, 4, 12.5, 40, 300):
            add("blur", name, inputs[name].filter(ImageFilter.GaussianBlur(radius)), radius=radius)


def compositing():
    for name in ("noise4", "alpha", "edges4"):
        image = inputs[name]
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        add("overWhite", name, white)
        add("rgb", name, image.convert("RGB"))
        add("luma", name, image.convert("L"))
        add("alpha", name, image.getchannel("A"))
    add("rgba", "noise3", inputs["noise3"].convert("RGBA"))
    add("rgba", "noise1", inputs["noise1"].convert("RGBA"))
    add("rgb", "noise1", inputs["noise1"].convert("RGB"))
    add("luma", "noise3", inputs["noise3"].convert("L"))
    add("invert", "noise1", ImageOps.invert(inputs["noise1"]))
    for box in ((3, 4, 20, 19), (-5, -3, 12, 40), (30, 22, 35, 24), (100, 100, 103, 102)):
        for name in ("noise1", "noise3", "noise4"):
            add("crop", name, inputs[name].crop(box), region=box)
    for left, top in ((2, 3), (-4, -6), (20, 15), (60, 0)):
        for name, other in (("noise3", "3x3x3"), ("noise4", "alpha"), ("noise1", "mask")):
            image = inputs[name].copy()
            image.paste(inputs[other], (left, top))
            add("paste", name, image, other=other, left=left, top=top)
        image = inputs["noise3"].copy()
        image.paste(inputs["photo"], (left, top), inputs["soft-mask"])
        add("paste", "noise3", image, other="photo", mask="soft-mask", left=left, top=top)
        image = inputs["noise4"].copy()
        image.paste(inputs["photo-alpha"], (left, top), inputs["soft-mask"])
        add("paste", "noise4", image, other="photo-alpha", mask="soft-mask", left=left, top=top)
    top = inputs["alpha"].resize(inputs["noise4"].size, Image.Resampling.NEAREST)
    inputs["alpha-large"] = top
    add("alphaComposite", "noise4", Image.alpha_composite(inputs["noise4"], top), other="alpha-large")
    add("alphaComposite", "alpha-large", Image.alpha_composite(top, inputs["noise4"]), other="noise4")


# MARK: diffusers' image processor, in its terms


def scaled(image, width, height, is_covering):
    ratio, own = width / height, image.width / image.height
    by_width = ratio > own if is_covering else ratio < own
    size = (width, image.height * width // image.width) if by_width else (image.width * height // image.height, height)
    resized = image.resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (width, height))
    corner = (width // 2 - size[0] // 2, height // 2 - size[1] // 2)
    canvas.paste(resized, corner)
    return canvas, resized, corner


def fill(image, width, height):
    canvas, resized, (left, top) = scaled(image, width, height, False)
    if top > 0:
        canvas.paste(resized.resize((width, top), box=(0, 0, width, 0)), (0, 0))
        canvas.paste(
            resized.resize((width, top), box=(0, resized.height, width, resized.height)), (0, top + resized.height)
        )
    if left > 0:
        canvas.paste(resized.resize((left, height), box=(0, 0, 0, height)), (0, 0))
        canvas.paste(
            resized.resize((left, height), box=(resized.width, 0, resized.width, height)), (left + resized.width, 0)
        )
    return canvas


def region(mask, width, height, pad):
    columns, rows = np.nonzero(mask.any(0))[0], np.nonzero(mask.any(1))[0]
    low = [max(int(columns[0]) - pad, 0), max(int(rows[0]) - pad, 0)]
    high = [min(int(columns[-1]) + 1 + pad, mask.shape[1]), min(int(rows[-1]) + 1 + pad, mask.shape[0])]
    is_wide = (high[0] - low[0]) / (high[1] - low[1]) > width / height
    axis, limit = (1, mask.shape[0]) if is_wide else (0, mask.shape[1])
    sides = [high[0] - low[0], high[1] - low[1]]
    wanted = sides[0] / (width / height) if is_wide else sides[1] * (width / height)
    more = int(wanted - sides[axis])
    low[axis] -= more // 2
    high[axis] += more - more // 2
    if high[axis] >= limit:
        low[axis], high[axis] = low[axis] - (high[axis] - limit), limit
    if low[axis] < 0:
        low[axis], high[axis] = 0, min(high[axis] - low[axis], limit)
    return low + high


def overlay(mask, original, image, crop):
    kept = Image.new("RGBa", original.size)
    kept.paste(original.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    kept = kept.convert("RGBA")
    if crop:
        base = Image.new("RGBA", original.size)
        base.paste(scaled(image, crop[2] - crop[0], crop[3] - crop[1], True)[0], tuple(crop[:2]))
        image = base.convert("RGB")
    image = image.convert("RGBA")
    image.alpha_composite(kept)
    return image.convert("RGB")


def fitting():
    for name in ("photo", "photo-alpha", "1x13x3"):
        for size in ((64, 64), (48, 20), (40, 30), (21, 33), (32, 24)):
            if name != "1x13x3" or size == (21, 33):
                add("fill", name, fill(inputs[name], *size), width=size[0], height=size[1])
                add("cover", name, scaled(inputs[name], *size, True)[0], width=size[0], height=size[1])
    grey = scaled(inputs["mask"], 50, 31, True)[0].getchannel("R")
    add("cover", "mask", grey, width=50, height=31)
    add("fill", "mask", fill(inputs["mask"], 50, 61).getchannel("R"), width=50, height=61)
    made = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    inputs["made"] = made
    inputs["made-large"] = made.resize((40, 30))
    for pad, (width, height) in (
        (0, (64, 64)),
        (4, (64, 64)),
        (2, (64, 16)),
        (9, (16, 64)),
        (100, (64, 48)),
        (0, (10, 100)),
    ):
        crop = region(np.asarray(inputs["mask"]), width, height, pad)
        cases.append(dict(operation="region", input="mask", width=width, height=height, padding=pad, region=crop))
        for mask in ("mask", "soft-mask"):
            for original in ("photo", "photo-alpha"):
                result = overlay(inputs[mask], inputs[original], made, crop)
                add("overlay", "made", result, mask=mask, other=original, region=crop)
    result = overlay(inputs["soft-mask"], inputs["photo-alpha"], inputs["made-large"], None)
    add("overlay", "made-large", result, mask="soft-mask", other="photo-alpha")
    corner = np.zeros((30, 40), np.uint8)
    corner[28:, 37:] = 1
    inputs["corner"] = Image.fromarray(corner)
    for width, height in ((64, 64), (96, 32), (32, 96)):
        for pad in (0, 3, 20):
            crop = region(corner, width, height, pad)
            cases.append(dict(operation="region", input="corner", width=width, height=height, padding=pad, region=crop))


if __name__ == "__main__":
    inputs.update(make_inputs())
    resizes()
    blurs()
    compositing()
    fitting()
    lines = [json.dumps(case) for case in cases]
    images = [f"{json.dumps(name)}: {json.dumps(stored(image))}" for name, image in inputs.items()]
    text = '{"inputs": {\n' + ",\n".join(images) + '\n},\n"cases": [\n' + ",\n".join(lines) + "\n]}\n"
    (HERE / "processing.json").write_text(text)
    print(len(cases), "cases,", len(text), "bytes")
