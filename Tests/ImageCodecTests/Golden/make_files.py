#!/usr/bin/env python3
"""Image files of many types, and what Pillow makes of them.

    make_files.py

Writes files/NAME and files.json beside this script: {NAME: {"width", "height", "channels", "pixels", "tolerance"}},
pixels compressed by zlib and in base64. Reference: exif_transpose, then convert("RGB"), or convert("RGBA") where there
is transparency; what is meant to differ from Pillow is listed in `DIFFERENT` with the reason. Made with Pillow 13.0.0.
"""

import base64
import io
import json
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).resolve().parent
W, H = 13, 9
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))

# Files whose pixels are not Pillow's.
DIFFERENT = {
    "grey16.png": "Pillow clips 16-bit grey to 255 where colour keeps the upper byte",
    "grey16-interlaced.png": "as above",
    "grey16-key.png": "as above, and Pillow compares clipped samples with the 16-bit key",
    "grey2-key.png": "Pillow compares a sample that is scaled to 8 bits with the key that is not",
    "grey4-key.png": "as above",
    "rgb16-key.png": "Pillow compares samples that are reduced to 8 bits with the 16-bit key",
}

rng = np.random.default_rng(21)
files = {}
expected = {}


# MARK: PNG by hand: Pillow writes neither all types nor interlaced files.


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(samples, depth):
    """Rows of bytes of [height, width · channels] samples."""
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in samples]
    if depth == 8:
        return [row.astype(np.uint8).tobytes() for row in samples]
    rows = []
    for row in samples:
        bits = "".join(format(int(v), f"0{depth}b") for v in row)
        bits += "0" * (-len(bits) % 8)
        rows.append(bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)))
    return rows


def filtered(rows, bpp):
    """The rows with PNG's five filters in turn."""
    out, above = b"", bytes(len(rows[0])) if rows else b""
    for number, row in enumerate(rows):
        kind, line = number % 5, bytearray()
        for i, value in enumerate(row):
            a = row[i - bpp] if i >= bpp else 0
            b = above[i]
            c = above[i - bpp] if i >= bpp else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line.append(value - [0, a, b, (a + b) // 2, paeth][kind] & 255)
        out += bytes([kind]) + line
        above = row
    return out


def png(samples, depth, colour_type, interlaced=False, before=b"", after=b""):
    """A file of [height, width, channels] samples; before and after: chunks around the pixels."""
    height, width, channels = samples.shape
    bpp = max(1, depth * channels // 8)
    data = b""
    for y, x, dy, dx in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[y::dy, x::dx]
        if part.size:
            data += filtered(packed(part.reshape(part.shape[0], -1), depth), bpp)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
    body = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(data)) + after
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def to_8_bits(samples, depth):
    return (samples >> 8 if depth == 16 else samples * (255 // (2**depth - 1))).astype(np.uint8)


def add(name, data, pixels=None, tolerance=0):
    """pixels: by the standard; nil: only Pillow knows."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    reference = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    if pixels is not None:
        pixels = pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels
        if pixels.shape[2] == 2:
            pixels = pixels[:, :, [0, 0, 0, 1]]
        same = pixels.shape == reference.shape and np.array_equal(pixels, reference)
        assert same == (name not in DIFFERENT), (name, same)
        reference = pixels
    files[name] = data
    compressed = base64.b64encode(zlib.compress(reference.tobytes(), 9)).decode()
    height, width, channels = reference.shape
    expected[name] = dict(width=width, height=height, channels=channels, pixels=compressed, tolerance=tolerance)


def pngs():
    kinds = [
        ("grey", 0, 1, (1, 2, 4, 8, 16)),
        ("rgb", 2, 3, (8, 16)),
        ("grey-alpha", 4, 2, (8, 16)),
        ("rgba", 6, 4, (8, 16)),
    ]
    for kind, colour_type, channels, depths in kinds:
        for depth in depths:
            samples = rng.integers(0, 2**depth, (H, W, channels))
            if channels in (2, 4):
                samples[:3, :, -1], samples[3:5, :, -1] = 0, 2**depth - 1
            pixels = to_8_bits(samples, depth)
            for interlaced in (False, True):
                name = f"{kind}{depth}" + ("-interlaced" if interlaced else "") + ".png"
                add(name, png(samples, depth, colour_type, interlaced), pixels)
            if channels in (1, 3):
                # Two pixels share the upper byte with the key; only one of them is it.
                y, x = np.argwhere(samples[:, :-1].all(2))[0]
                key = samples[y, x].copy()
                if depth == 16:
                    samples[y, x + 1] = key ^ 1
                    pixels = to_8_bits(samples, depth)
                alpha = np.where((samples == key).all(2), 0, 255).astype(np.uint8)[:, :, None]
                keyed = np.concatenate([pixels, alpha], 2)
                data = png(samples, depth, colour_type, before=chunk(b"tRNS", key.astype(">u2").tobytes()))
                add(f"{kind}{depth}-key.png", data, keyed)
    for depth in (1, 2, 4, 8):
        count = min(2**depth, 37)
        palette = rng.integers(0, 256, (count, 3), dtype=np.uint8)
        samples = rng.integers(0, count, (H, W, 1))
        colours = chunk(b"PLTE", palette.tobytes())
        alpha = rng.integers(0, 256, (count + 1) // 2, dtype=np.uint8)
        alpha[0] = 0
        full = np.concatenate([alpha, np.full(count - len(alpha), 255, np.uint8)])
        pixels = palette[samples[:, :, 0]]
        for interlaced in (False, True):
            name = f"palette{depth}" + ("-interlaced" if interlaced else "") + ".png"
            add(name, png(samples, depth, 3, interlaced, before=colours), pixels)
        keyed = np.concatenate([pixels, full[samples]], 2)
        add(
            f"palette{depth}-alpha.png", png(samples, depth, 3, before=colours + chunk(b"tRNS", alpha.tobytes())), keyed
        )
    for width, height in ((1, 1), (1, 17), (17, 1), (3, 3)):
        samples = rng.integers(0, 256, (height, width, 4))
        add(f"rgba8-{width}x{height}.png", png(samples, 8, 6, interlaced=True), to_8_bits(samples, 8))
    samples = rng.integers(0, 256, (H, W, 3))
    pixels = to_8_bits(samples, 8)
    extra = chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"tEXt", b"Title\0x") + chunk(b"pHYs", bytes(9))
    add("chunks.png", png(samples, 8, 2, before=extra, after=chunk(b"tEXt", b"Comment\0after")), pixels)
    add("trailing.png", png(samples, 8, 2) + b"not a part of the image", pixels)
    animated = chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(
        b"fcTL", struct.pack(">IIIIIHHBB", 0, W, H, 0, 0, 1, 1, 0, 0)
    )
    add("animated-default.png", png(samples, 8, 2, before=animated), pixels)


# MARK: JPEG


def scene(width, height, channels=3):
    """Something smooth with edges and some noise."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        128
        + 100 * np.sin(x / 3.1 + c) * np.cos(y / (2.3 + c))
        + 40 * ((x // 4 + y // 3 + c) % 2)
        + rng.normal(0, 4, (height, width))
        for c in range(channels)
    ]
    return np.clip(np.stack(planes, 2), 0, 255).astype(np.uint8)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation, big_endian=False):
    order = ">" if big_endian else "<"
    entries = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack(
        order + "HHIHH", 0x0128, 3, 1, 2, 0
    )
    return (b"MM" if big_endian else b"II") + struct.pack(order + "HIH", 42, 8, 2) + entries + bytes(4)


def segments(data):
    """Offset and length of each segment before the pixels."""
    at = 2
    while data[at + 1] != 0xDA:
        size = struct.unpack(">H", data[at + 2 : at + 4])[0] + 2
        yield at, size
        at += size


def jpegs():
    image = Image.fromarray(scene(37, 29))
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        add(f"{name}.jpg", saved(image, "JPEG", quality=80, subsampling=subsampling))
        add(f"{name}-progressive.jpg", saved(image, "JPEG", quality=80, subsampling=subsampling, progressive=True))
    add("quality5.jpg", saved(image, "JPEG", quality=5))
    add("quality100.jpg", saved(image, "JPEG", quality=100))
    add("restarts.jpg", saved(image, "JPEG", quality=70, restart_marker_blocks=2))
    add("rgb.jpg", saved(image, "JPEG", quality=90, keep_rgb=True))
    grey = Image.fromarray(scene(37, 29, 1)[:, :, 0])
    add("grey.jpg", saved(grey, "JPEG", quality=80))
    add("grey-progressive.jpg", saved(grey, "JPEG", quality=80, progressive=True))
    for width, height in ((1, 1), (1, 19), (19, 1), (8, 8), (17, 16)):
        add(f"{width}x{height}.jpg", saved(Image.fromarray(scene(width, height)), "JPEG", quality=85))
    # Half as high: Pillow cannot ask for 4:4:0, but the header of 4:2:2 can say so.
    turned = bytearray(saved(image.crop((0, 0, 16, 16)), "JPEG", quality=80, subsampling=1))
    at = next(at for at, _ in segments(bytes(turned)) if turned[at + 1] == 0xC0)
    assert turned[at + 11] == 0x21
    turned[at + 11] = 0x12
    add("440.jpg", bytes(turned))

    inks = Image.fromarray(scene(37, 29, 4), "CMYK")
    cmyk = saved(inks, "JPEG", quality=90)
    add("cmyk.jpg", cmyk)
    adobe = next((at, size) for at, size in segments(cmyk) if cmyk[at + 1] == 0xEE)
    add("cmyk-no-adobe.jpg", cmyk[: adobe[0]] + cmyk[sum(adobe) :])
    ycck = bytearray(cmyk)
    ycck[sum(adobe) - 1] = 2
    add("ycck.jpg", bytes(ycck))

    small = Image.fromarray(scene(11, 7))
    for orientation in range(10):
        data = b"Exif\0\0" + exif(orientation, orientation % 2 == 0)
        add(f"orientation{orientation}.jpg", saved(small, "JPEG", quality=90, exif=data))
    plain = saved(small, "JPEG", quality=90)
    add("trailing.jpg", plain + b"\0another file")
    add("extraneous.jpg", plain[:-2] + b"\0\0\0\xff\xd9")
    add("broken-exif.jpg", plain[:2] + b"\xff\xe1\0\x0aExif\0\0MM" + plain[2:])
    add("filled-markers.jpg", plain[:2] + b"\xff\xff\xff\xfe\0\x04hi" + plain[2:])


# MARK: WebP


def webps():
    image = Image.fromarray(scene(37, 29))
    alpha = np.clip(np.add.outer(np.arange(29) * 11 - 40, np.arange(37) * 3), 0, 255).astype(np.uint8)
    alpha[10:14, 3:9] = 0
    rgba = Image.fromarray(np.dstack([np.asarray(image), alpha]))
    add("lossy.webp", saved(image, "WEBP", quality=80))
    add("lossy-low.webp", saved(image, "WEBP", quality=0))
    add("lossy-alpha.webp", saved(rgba, "WEBP", quality=80))
    add("lossy-alpha-quality.webp", saved(rgba, "WEBP", quality=60, alpha_quality=30))
    add("lossless.webp", saved(image, "WEBP", lossless=True), np.asarray(image))
    add("lossless-alpha.webp", saved(rgba, "WEBP", lossless=True, exact=True), np.asarray(rgba))
    noise = rng.integers(0, 256, (9, 13, 4), dtype=np.uint8)
    add("lossless-noise.webp", saved(Image.fromarray(noise), "WEBP", lossless=True, exact=True), noise)
    few = Image.fromarray(np.asarray(image) // 128 * 255)
    add("lossless-palette.webp", saved(few, "WEBP", lossless=True), np.asarray(few))
    for width, height in ((1, 1), (1, 19), (19, 1), (16, 16)):
        part = Image.fromarray(scene(width, height))
        add(f"lossy-{width}x{height}.webp", saved(part, "WEBP", quality=90))
        add(f"lossless-{width}x{height}.webp", saved(part, "WEBP", lossless=True), np.asarray(part))
    add("orientation6.webp", saved(rgba, "WEBP", lossless=True, exact=True, exif=b"Exif\0\0" + exif(6)))
    add("orientation3.webp", saved(image, "WEBP", quality=80, exif=exif(3, True)))
    add("trailing.webp", saved(image, "WEBP", quality=80) + b"x")


def orientations_of_png():
    samples = rng.integers(0, 256, (5, 8, 3))
    for orientation in (2, 5, 8):
        data = exif(orientation, orientation == 5)
        add(f"orientation{orientation}.png", png(samples, 8, 2, before=chunk(b"eXIf", data)))
    add("orientation7-after.png", png(samples, 8, 2, after=chunk(b"eXIf", exif(7))))


def refused():
    """Files that are refused; the tests know why."""
    frames = [Image.fromarray(scene(8, 8)) for _ in range(2)]
    out = {"animated.webp": saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)}
    for kind in ("GIF", "BMP", "TIFF", "ICO", "JPEG2000", "AVIF", "PDF", "DDS"):
        out["other." + kind.lower()] = saved(frames[0], kind)
    return out


if __name__ == "__main__":
    pngs()
    jpegs()
    webps()
    orientations_of_png()
    files.update(refused())
    (HERE / "files").mkdir(exist_ok=True)
    for old in (HERE / "files").iterdir():
        old.unlink()
    for name, data in files.items():
        (HERE / "files" / name).write_bytes(data)
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(expected.items())]
    (HERE / "files.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(len(files), "files,", sum(map(len, files.values())), "bytes")
