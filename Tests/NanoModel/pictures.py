"""Pictures of the small model's world: a flat background with a string or a shape on it. Needs numpy and Pillow.

Text needs two fonts (Debian: fonts-dejavu-core, fonts-noto-cjk); other files of the same fonts can be named in the environment.
Shapes need none.
"""

import functools
import os
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from world import COLOURS, HANZI, NARROW, SIDE, WIDE, Request, training_request

LATIN_FONT = os.environ.get("NANO_LATIN_FONT", "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf")
CJK_FONT = os.environ.get("NANO_CJK_FONT", "/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc")
CJK_FACE = 2  # simplified Chinese

SUPERSAMPLING = 4
CAP_HEIGHT = 0.729  # of the Latin font, in ems
CHARACTER_HEIGHT = {  # pixels, by the length of the string
    SIDE: (42, 32, 26),
    WIDE: (42, 42, 38, 32, 28, 26, 22),
}
HANZI_HEIGHT = 52
OFFSETS = {"": (0, 0), "left": (-0.25, 0), "right": (0.25, 0), "top": (0, -0.25), "bottom": (0, 0.25)}  # of width, of height


@functools.cache
def _font(path: str, size: int, face: int = 0) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, index=face)


@functools.cache
def _hanzi(character: str, height: float) -> tuple[Image.Image, float]:
    """Coverage of one Chinese character, cropped to its ink, supersampled; and its shift downwards."""
    size = int(height * SUPERSAMPLING)
    image = Image.new("L", (size * 2, size * 2))
    ImageDraw.Draw(image).text((size, size), character, fill=255, font=_font(CJK_FONT, size, CJK_FACE), anchor="mm")
    return image.crop(image.getbbox()), 0.0


@functools.cache
def _letter(character: str, cell: float, height: float) -> tuple[Image.Image, float]:
    """Coverage of one letter or digit with capitals `height` pixels high, squeezed to 92 % of its cell; the baseline is kept."""
    image = Image.new("L", (600, 600))
    ImageDraw.Draw(image).text((300, 400), character, fill=255, font=_font(LATIN_FONT, 256), anchor="ms")
    left, top, right, bottom = image.getbbox()
    capital = 256 * CAP_HEIGHT
    top, bottom = min(top, int(400 - capital)), max(bottom, 400)
    scale = height * SUPERSAMPLING / capital
    width = min((right - left) * scale, cell * 0.92 * SUPERSAMPLING)
    glyph = image.crop((left, top, right, bottom)).resize(
        (max(1, round(width)), max(1, round((bottom - top) * scale))), Image.LANCZOS)
    return glyph, (800 - top - bottom) / 2 * -scale + capital / 2 * scale


def text_mask(text: str, width: int = SIDE, scale: float = 1.0, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """Where `text` covers the picture: [64, width] float32, 0…1. Each character has a cell of its own."""
    image = Image.new("L", (width * SUPERSAMPLING, SIDE * SUPERSAMPLING))
    cell = width / len(text) * scale
    for index, character in enumerate(text):
        if character in HANZI:
            glyph, down = _hanzi(character, round(HANZI_HEIGHT * scale, 2))
        else:
            glyph, down = _letter(character, cell, round(CHARACTER_HEIGHT[width][len(text) - 1] * scale, 2))
        x = ((index + 0.5 - len(text) / 2) * cell + width / 2 + dx) * SUPERSAMPLING
        y = (SIDE / 2 + dy) * SUPERSAMPLING
        image.paste(255, (round(x - glyph.width / 2), round(y - glyph.height / 2 + down)), glyph)
    return np.asarray(image.resize((width, SIDE), Image.BOX), np.float32) / 255


def _outline(shape: str) -> list[tuple[float, float]]:
    """The corners of a shape of radius 1 about the origin."""
    if shape == "square":
        return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
    if shape == "triangle":
        return [(0, -1), (1, 0.8), (-1, 0.8)]
    if shape == "cross":
        return [
            (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
            (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)]
    if shape == "star":
        angle = np.arange(10) * np.pi / 5
        radius = np.where(np.arange(10) % 2 == 0, 1.08, 0.45)
        return list(zip(np.sin(angle) * radius, 0.06 - np.cos(angle) * radius))
    angle = np.linspace(0, 2 * np.pi, 60)  # the heart curve
    y = (13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)) / 16
    return list(zip(np.sin(angle) ** 3, -y))


def shape_mask(shape: str, x: float, y: float, radius: float, width: int = SIDE) -> np.ndarray:
    """Where a shape about (x, y) covers the picture: [64, width] float32, 0…1. Lengths in pixels."""
    image = Image.new("L", (width * SUPERSAMPLING, SIDE * SUPERSAMPLING))
    draw = ImageDraw.Draw(image)
    x, y, r = x * SUPERSAMPLING, y * SUPERSAMPLING, radius * SUPERSAMPLING
    if shape in ("circle", "ring"):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        if shape == "ring":
            r *= 0.58
            draw.ellipse((x - r, y - r, x + r, y + r), fill=0)
    else:
        draw.polygon([(x + r * a, y + r * b) for a, b in _outline(shape)], fill=255)
    return np.asarray(image.resize((width, SIDE), Image.BOX), np.float32) / 255


def centre(position: str, width: int) -> tuple[float, float]:
    """Where the middle of a shape at `position` belongs, in pixels."""
    dx, dy = OFFSETS[position]
    return (0.5 + dx) * width, (0.5 + dy) * SIDE


def _mask(asked: Request, rng: random.Random) -> np.ndarray:
    if asked.kind == "text":
        return text_mask(asked.content, asked.width)
    x, y = centre(asked.position, asked.width)
    radius = rng.uniform(12, 14) if asked.position else rng.uniform(19, 24)
    return shape_mask(asked.content, x + rng.uniform(-1, 1), y + rng.uniform(-1, 1), radius, asked.width)


def _blend(mask: np.ndarray, background: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    return (background + (foreground - background) * mask[..., None]).astype(np.float32)


def picture(asked: Request, rng: random.Random, jitter: float = 9) -> np.ndarray:
    """What `asked` asks for: [64, width, 3] float32, 0…1; each colour's channels vary by up to `jitter` of 255."""
    colour = lambda name: np.clip([(c + rng.uniform(-jitter, jitter)) / 255 for c in COLOURS[name][1]], 0, 1)
    return _blend(_mask(asked, rng), colour(asked.background), colour(asked.foreground))


def varied_picture(rng: random.Random) -> np.ndarray:
    """A picture for the autoencoder, [64, 64, 3]: one in five has any two colours, and moved and scaled content."""
    asked = training_request(rng, NARROW)
    if rng.random() < 0.8:
        return picture(asked, rng)
    if asked.kind == "text":
        mask = text_mask(asked.content, SIDE, rng.choice((0.7, 0.8, 0.9, 1.0)), rng.uniform(-6, 6), rng.uniform(-10, 10))
    else:
        mask = shape_mask(asked.content, rng.uniform(12, SIDE - 12), rng.uniform(12, SIDE - 12), rng.uniform(8, 24))
    return _blend(mask, *(np.array([rng.random() for _ in range(3)]) for _ in range(2)))
