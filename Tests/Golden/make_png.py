#!/usr/bin/env python
"""PNG files of many types, written by Pillow and (interlaced ones, which Pillow cannot write) by hand, with the pixels Pillow reads.

    make_png.py OUT_DIR

Writes OUT_DIR/NAME.png and OUT_DIR/expected.json: {NAME: {"width", "height", "channels", "pixels": hex, "texts": [[keyword, text], ...]}}
"""
import json, os, struct, sys, zlib

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

W, H = 11, 7


def adam7(pixels):
    """An interlaced RGB file of [H, W, 3] bytes."""
    rows = b""
    for y0, x0, dy, dx in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)):
        part = pixels[y0::dy, x0::dx]
        if part.size:
            rows += b"".join(b"\0" + row.tobytes() for row in part)
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main(out):
    os.makedirs(out, exist_ok=True)
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (H, W, 3), dtype=np.uint8)
    rgba = rng.integers(0, 256, (H, W, 4), dtype=np.uint8)
    gray = rng.integers(0, 256, (H, W), dtype=np.uint8)
    text = PngInfo()
    text.add_text("Title", "plain caf\u00e9")
    text.add_itxt("parameters", "山间的清晨 🦊\nsecond line", zip=False)
    text.add_itxt("compressed", "ä" * 300, zip=True)
    text.add_text("zipped", "x" * 300, zip=True)
    images = {
        "rgb": (Image.fromarray(rgb), {}), "rgba": (Image.fromarray(rgba), {}), "gray": (Image.fromarray(gray), {}),
        "gray_alpha": (Image.fromarray(rgba[:, :, :2].copy(), "LA"), {}), "bilevel": (Image.fromarray(gray > 128), {}),
        "palette": (Image.fromarray(rgb).quantize(13), {}), "palette_alpha": (Image.fromarray(rgb).quantize(5), {"transparency": bytes([0, 128, 255])}),
        "colour_key": (Image.fromarray(rgb), {"transparency": tuple(int(v) for v in rgb[2, 3])}), "texts": (Image.fromarray(rgb), {"pnginfo": text}),
        "profile": (Image.fromarray(rgb), {"icc_profile": b"not a profile" * 20}),
    }
    expected = {}
    for name, (image, options) in images.items():
        image.save(os.path.join(out, name + ".png"), **options)
    with open(os.path.join(out, "interlaced.png"), "wb") as f:
        f.write(adam7(rgb))
    Image.fromarray(gray.astype(np.uint16) * 257).save(os.path.join(out, "gray16.png"))
    for name in [*images, "interlaced", "gray16"]:
        image = Image.open(os.path.join(out, name + ".png"))
        image.load()
        mode = "RGBA" if image.mode in ("RGBA", "LA") or "transparency" in image.info else "RGB"
        pixels = np.repeat(gray[:, :, None], 3, 2) if name == "gray16" else np.asarray(image.convert(mode))
        expected[name] = dict(width=W, height=H, channels=pixels.shape[2], pixels=pixels.tobytes().hex(),
                              texts=[[k, str(v)] for k, v in getattr(image, "text", {}).items()])
    with open(os.path.join(out, "expected.json"), "w") as f:
        json.dump(expected, f, indent=0)


if __name__ == "__main__":
    main(sys.argv[1])
